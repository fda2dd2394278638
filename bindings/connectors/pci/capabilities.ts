import {
  PCI_MSIX_ENABLE,
  PCI_MSIX_FUNCTION_MASK,
  PCI_MSIX_ID,
  PCI_MSIX_OFF_CONTROL,
  PCI_MSIX_OFF_PENDING,
  PCI_MSIX_OFF_TABLE,
  PCI_MSIX_SIZE,
} from "../../../assembly/abi/msix.js";
import {
  PCI_MSI_ENABLE,
  PCI_MSI_ID,
  PCI_MSI_OFF_ADDRESS,
  PCI_MSI_OFF_CONTROL,
  PCI_MSI_OFF_DATA,
  PCI_MSI_OFFSET,
  PCI_MSI_SIZE,
} from "../../../assembly/abi/pci.js";
import { VbusError } from "../../errors.js";

/** A capability of a configuration space: its bytes, from the id on, and which bits of them a guest can write. */
export interface PciCapability {
  /** What it is: byte 0 of it. */
  readonly id: number;
  /** All of it; the byte that links it to the next one is filled in by the configuration space. */
  readonly bytes: Uint8Array;
  /** A mask as long as `bytes`; missing: all of it is read-only. */
  readonly writable?: Uint8Array;
}

/** Offset of message control in an MSI capability. */
export const MSI_OFF_CONTROL = PCI_MSI_OFF_CONTROL - PCI_MSI_OFFSET;
/** Offset of the message address in an MSI capability. */
export const MSI_OFF_ADDRESS = PCI_MSI_OFF_ADDRESS - PCI_MSI_OFFSET;
/** Offset of the message data in an MSI capability. */
export const MSI_OFF_DATA = PCI_MSI_OFF_DATA - PCI_MSI_OFFSET;

/** MSI with one vector, a 32-bit address, no mask (PCI 3.0 section 6.8.1). */
export function msiCapability(): PciCapability {
  const bytes = new Uint8Array(PCI_MSI_SIZE);
  bytes[0] = PCI_MSI_ID;
  const writable = new Uint8Array(PCI_MSI_SIZE);
  const mask = new DataView(writable.buffer);
  mask.setUint16(MSI_OFF_CONTROL, PCI_MSI_ENABLE, true);
  mask.setUint32(MSI_OFF_ADDRESS, 0xfffffffc, true);
  mask.setUint16(MSI_OFF_DATA, 0xffff, true);
  return { id: PCI_MSI_ID, bytes, writable };
}

/** Where an MSI-X table and its pending bits are. */
export interface MsixPlace {
  /** Vectors, 1 … 2048. */
  readonly vectors: number;
  /** The BAR, which must be a memory one, that holds both. */
  readonly bar: number;
  /** Offset of the table in it, a multiple of 8. */
  readonly tableOffset: number;
  /** Offset of the pending bits in it, a multiple of 8. */
  readonly pendingOffset: number;
}

/** MSI-X (PCI 3.0 section 6.8.2). @throws VbusError EINVAL */
export function msixCapability({ vectors, bar, tableOffset, pendingOffset }: MsixPlace): PciCapability {
  if (!Number.isInteger(vectors) || vectors < 1 || vectors > 2048)
    throw new VbusError("EINVAL", `${vectors} MSI-X vectors; 1 to 2048 can be`);
  const bytes = new Uint8Array(PCI_MSIX_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, PCI_MSIX_ID);
  view.setUint16(PCI_MSIX_OFF_CONTROL, vectors - 1, true);
  view.setUint32(PCI_MSIX_OFF_TABLE, tableOffset | bar, true);
  view.setUint32(PCI_MSIX_OFF_PENDING, pendingOffset | bar, true);
  const writable = new Uint8Array(PCI_MSIX_SIZE);
  new DataView(writable.buffer).setUint16(
    PCI_MSIX_OFF_CONTROL,
    PCI_MSIX_ENABLE | PCI_MSIX_FUNCTION_MASK,
    true,
  );
  return { id: PCI_MSIX_ID, bytes, writable };
}
