import { PCI_INTERRUPT_PIN } from "../../../assembly/abi/pci.js";
import {
  VIRTIO_PCI_CAP_ACCESS,
  VIRTIO_PCI_CAP_COMMON,
  VIRTIO_PCI_CAP_DEVICE,
  VIRTIO_PCI_CAP_ID,
  VIRTIO_PCI_CAP_ISR,
  VIRTIO_PCI_CAP_LONG_SIZE,
  VIRTIO_PCI_CAP_NOTIFY,
  VIRTIO_PCI_CAP_OFF_BAR,
  VIRTIO_PCI_CAP_OFF_LENGTH,
  VIRTIO_PCI_CAP_OFF_OFFSET,
  VIRTIO_PCI_CAP_OFF_SIZE,
  VIRTIO_PCI_CAP_OFF_TYPE,
  VIRTIO_PCI_CAP_SIZE,
  VIRTIO_PCI_COMMON_SIZE,
  VIRTIO_PCI_DEVICE,
  VIRTIO_PCI_MEMORY_SIZE,
  VIRTIO_PCI_MSIX_BAR,
  VIRTIO_PCI_NOTIFY_SIZE,
  VIRTIO_PCI_OFF_COMMON,
  VIRTIO_PCI_OFF_DEVICE,
  VIRTIO_PCI_OFF_ISR,
  VIRTIO_PCI_OFF_MSIX_PENDING,
  VIRTIO_PCI_OFF_MSIX_TABLE,
  VIRTIO_PCI_OFF_NOTIFY,
  VIRTIO_PCI_PORTS,
  VIRTIO_PCI_REGISTER_BAR,
  VIRTIO_PCI_REVISION,
  VIRTIO_PCI_SUBSYSTEM,
  VIRTIO_PCI_VENDOR,
} from "../../../assembly/abi/virtio-pci.js";
import { VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_NET } from "../../../assembly/abi/virtio-status.js";
import type { VirtioFace } from "../../virtio/types.js";
import { msiCapability, msixCapability, type PciCapability } from "../pci/capabilities.js";
import { PciConfigSpace, type PciBar } from "../pci/config-space.js";

/** Where a function's BARs are at first, and what they are. */
export interface VirtioPciPlace {
  /** Registers in 256 I/O ports (the default) or 4 KiB of memory. Emulators choose what their interrupts need. */
  readonly registers?: "io" | "memory";
  /** First port or guest-physical address of the register BAR, when it is fixed; else firmware assigns it. */
  readonly registerAddress?: number;
  /** Guest-physical address of the MSI-X BAR, when it is fixed; else firmware assigns it. */
  readonly msixAddress?: number;
}

/** Base class and subclass, for firmware and tools that go by them; drivers go by the device. */
const CLASSES = new Map([
  [VIRTIO_ID_NET, 0x020000], // network, Ethernet
  [VIRTIO_ID_BLOCK, 0x010000], // mass storage, SCSI
  [VIRTIO_ID_CONSOLE, 0x078000], // communication, other
]);
const CLASS_OTHER = 0x00ff00;

/** A capability that says where a structure lies (virtio 1.2: 4.1.4). */
function structure(type: number, offset: number, length: number, size = VIRTIO_PCI_CAP_SIZE): PciCapability {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, VIRTIO_PCI_CAP_ID);
  view.setUint8(VIRTIO_PCI_CAP_OFF_LENGTH, size);
  view.setUint8(VIRTIO_PCI_CAP_OFF_TYPE, type);
  view.setUint8(VIRTIO_PCI_CAP_OFF_BAR, VIRTIO_PCI_REGISTER_BAR);
  view.setUint32(VIRTIO_PCI_CAP_OFF_OFFSET, offset, true);
  view.setUint32(VIRTIO_PCI_CAP_OFF_SIZE, length, true);
  return { id: VIRTIO_PCI_CAP_ID, bytes };
}

/** The capability through which firmware reaches BARs that it cannot map (4.1.4.9): BAR, offset, length, data are writable. */
function accessCapability(): PciCapability {
  const { id, bytes } = structure(VIRTIO_PCI_CAP_ACCESS, 0, 0, VIRTIO_PCI_CAP_LONG_SIZE);
  const writable = new Uint8Array(bytes.length);
  writable[VIRTIO_PCI_CAP_OFF_BAR] = 0xff;
  writable.fill(0xff, VIRTIO_PCI_CAP_OFF_OFFSET);
  return { id, bytes, writable };
}

/** A function's BARs, by number. */
export function virtioBars(place: VirtioPciPlace, vectors: number): (PciBar | null)[] {
  const { registers = "io", registerAddress: address = 0, msixAddress = 0 } = place;
  const size = registers === "io" ? VIRTIO_PCI_PORTS : VIRTIO_PCI_MEMORY_SIZE;
  return [
    { kind: registers, size, address },
    vectors === 0 ? null : { kind: "memory", size: VIRTIO_PCI_MEMORY_SIZE, address: msixAddress },
  ];
}

/** A function's configuration space, and where its access capability is. @throws VbusError EINVAL */
export function virtioConfigSpace(
  face: VirtioFace,
  place: VirtioPciPlace,
  { vectors, msi }: { vectors: number; msi: boolean },
): { config: PciConfigSpace; access: number } {
  const capabilities = [
    structure(VIRTIO_PCI_CAP_COMMON, VIRTIO_PCI_OFF_COMMON, VIRTIO_PCI_COMMON_SIZE),
    // a multiplier of 0: all queues share one register
    structure(VIRTIO_PCI_CAP_NOTIFY, VIRTIO_PCI_OFF_NOTIFY, VIRTIO_PCI_NOTIFY_SIZE, VIRTIO_PCI_CAP_LONG_SIZE),
    structure(VIRTIO_PCI_CAP_ISR, VIRTIO_PCI_OFF_ISR, 1),
  ];
  if (face.configSize > 0)
    capabilities.push(structure(VIRTIO_PCI_CAP_DEVICE, VIRTIO_PCI_OFF_DEVICE, face.configSize));
  const accessIndex = capabilities.push(accessCapability()) - 1;
  if (vectors > 0)
    capabilities.push(
      msixCapability({
        vectors,
        bar: VIRTIO_PCI_MSIX_BAR,
        tableOffset: VIRTIO_PCI_OFF_MSIX_TABLE,
        pendingOffset: VIRTIO_PCI_OFF_MSIX_PENDING,
      }),
    );
  if (msi) capabilities.push(msiCapability());
  const config = new PciConfigSpace({
    vendor: VIRTIO_PCI_VENDOR,
    device: VIRTIO_PCI_DEVICE + face.deviceType,
    revision: VIRTIO_PCI_REVISION,
    classCode: CLASSES.get(face.deviceType) ?? CLASS_OTHER,
    subsystemVendor: VIRTIO_PCI_VENDOR,
    subsystem: VIRTIO_PCI_SUBSYSTEM,
    interruptPin: PCI_INTERRUPT_PIN,
    bars: virtioBars(place, vectors),
    capabilities,
  });
  return { config, access: config.capabilities[accessIndex] as number };
}
