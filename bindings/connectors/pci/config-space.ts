import {
  PCI_MSIX_ENABLE,
  PCI_MSIX_FUNCTION_MASK,
  PCI_MSIX_ID,
  PCI_MSIX_OFF_CONTROL,
} from "../../../assembly/abi/msix.js";
import {
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_WRITABLE,
  PCI_CONFIG_SIZE,
  PCI_MSI_ENABLE,
  PCI_MSI_ID,
  PCI_OFF_BAR0,
  PCI_OFF_CACHE_LINE,
  PCI_OFF_CAPABILITIES,
  PCI_OFF_COMMAND,
  PCI_OFF_DEVICE,
  PCI_OFF_INTERRUPT_LINE,
  PCI_OFF_INTERRUPT_PIN,
  PCI_OFF_LATENCY,
  PCI_OFF_REVISION,
  PCI_OFF_STATUS,
  PCI_OFF_SUBSYSTEM_DEVICE,
  PCI_OFF_SUBSYSTEM_VENDOR,
  PCI_OFF_VENDOR,
  PCI_STATUS_CAPABILITIES,
  PCI_STATUS_INTERRUPT,
} from "../../../assembly/abi/pci.js";
import { VbusError } from "../../errors.js";
import { StateError } from "../../state/error.js";
import type { StateReader } from "../../state/reader.js";
import { MSI_OFF_ADDRESS, MSI_OFF_CONTROL, MSI_OFF_DATA, type PciCapability } from "./capabilities.js";

/** Width of an access in bytes. */
export type AccessWidth = 1 | 2 | 4;

/** A message-signalled interrupt: what the guest wants written, and where. */
export interface MsiMessage {
  /** Guest-physical address of the write. */
  readonly address: number;
  /** 32 bits of data; the low byte is the vector on x86. */
  readonly data: number;
}

/** What a guest's write to the command register or an interrupt capability changed. */
export interface ConfigChange {
  /** Bits of the command register (`PCI_COMMAND_…`) that went from 1 to 0. The edge: some drivers never set any. */
  readonly cleared: number;
  /** INTx, MSI or MSI-X may be deliverable now, or no longer. */
  readonly interrupts: boolean;
}

/** A base address register. */
export interface PciBar {
  /** What it maps: memory, or I/O ports. */
  readonly kind: "memory" | "io";
  /** Bytes or ports: a power of two, at least 16 of memory, 4 to 256 ports. */
  readonly size: number;
  /** Where it is at first: fixed, for emulators whose BARs cannot move. Default 0: firmware assigns it. */
  readonly address?: number;
}

/** What a function is: the fixed half of its configuration space. */
export interface PciFunctionLayout {
  /** Vendor. */
  readonly vendor: number;
  /** Device. */
  readonly device: number;
  /** Revision. */
  readonly revision: number;
  /** Base class, subclass, programming interface: 24 bits. */
  readonly classCode: number;
  /** Subsystem vendor. */
  readonly subsystemVendor: number;
  /** Subsystem. */
  readonly subsystem: number;
  /** Interrupt pin: 1 is INTA; 0: the function has no line. */
  readonly interruptPin: number;
  /** Base address registers by number; null where there is none. */
  readonly bars: readonly (PciBar | null)[];
  /** Capabilities, in the order of the list. */
  readonly capabilities: readonly PciCapability[];
}

const FIRST_CAPABILITY = 0x40;
const BARS = 6;
const PCI_OFF_PROGRAMMING = 9;

function checkBar(index: number, { kind, size, address = 0 }: PciBar): void {
  const io = kind === "io";
  const [least, most] = io ? [4, 256] : [16, 2 ** 31];
  if (!(size >= least && size <= most && Number.isInteger(Math.log2(size))))
    throw new VbusError(
      "EINVAL",
      `BAR ${index} of ${size} ${io ? "ports" : "bytes"}; give a power of two from ${least} to ${most}`,
    );
  if (!(
    Number.isSafeInteger(address) &&
    address >= 0 &&
    address <= (io ? 0xffff : 0xffffffff) &&
    address % size === 0
  ))
    throw new VbusError(
      "EINVAL",
      `BAR ${index} at ${io ? "port " : ""}0x${address.toString(16)}; it must be a multiple of ${size}`,
    );
}

/**
 * A configuration space (PCI 3.0 section 6.1): the standard header, base address registers, a list of capabilities. Registers
 * keep what a guest may write and nothing else.
 *
 * An emulator routes its configuration cycles here ({@link PciConfigSpace.read}, {@link PciConfigSpace.write}); one that
 * keeps the space of every function itself takes {@link PciConfigSpace.image} and tells what was written
 * ({@link PciConfigSpace.written}).
 */
export class PciConfigSpace {
  /** Where each capability of the layout lies. */
  readonly capabilities: readonly number[];
  readonly #bytes = new Uint8Array(PCI_CONFIG_SIZE);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #writable = new Uint8Array(PCI_CONFIG_SIZE);
  readonly #initial: Uint8Array;
  /** 0 where there is none. */
  readonly #msi: number;
  readonly #msix: number;

  /** @throws VbusError EINVAL for BARs or capabilities that cannot be */
  constructor(layout: PciFunctionLayout) {
    const view = this.#view;
    view.setUint16(PCI_OFF_VENDOR, layout.vendor, true);
    view.setUint16(PCI_OFF_DEVICE, layout.device, true);
    view.setUint8(PCI_OFF_REVISION, layout.revision);
    view.setUint8(PCI_OFF_PROGRAMMING, layout.classCode);
    view.setUint16(PCI_OFF_PROGRAMMING + 1, layout.classCode >>> 8, true);
    view.setUint16(PCI_OFF_SUBSYSTEM_VENDOR, layout.subsystemVendor, true);
    view.setUint16(PCI_OFF_SUBSYSTEM_DEVICE, layout.subsystem, true);
    view.setUint8(PCI_OFF_INTERRUPT_PIN, layout.interruptPin);
    const mask = new DataView(this.#writable.buffer);
    mask.setUint16(PCI_OFF_COMMAND, PCI_COMMAND_WRITABLE, true);
    for (const at of [PCI_OFF_CACHE_LINE, PCI_OFF_LATENCY, PCI_OFF_INTERRUPT_LINE]) mask.setUint8(at, 0xff);
    if (layout.bars.length > BARS)
      throw new VbusError("EINVAL", `${layout.bars.length} BARs; there are ${BARS}`);
    for (const [i, bar] of layout.bars.entries()) {
      if (bar === null) continue;
      checkBar(i, bar);
      view.setUint32(PCI_OFF_BAR0 + 4 * i, (bar.address ?? 0) | (bar.kind === "io" ? 1 : 0), true);
      mask.setUint32(PCI_OFF_BAR0 + 4 * i, ~(bar.size - 1), true);
    }
    this.capabilities = this.#link(layout.capabilities);
    const find = (id: number): number => {
      const index = layout.capabilities.findIndex((capability) => capability.id === id);
      return index < 0 ? 0 : (this.capabilities[index] as number);
    };
    this.#msi = find(PCI_MSI_ID);
    this.#msix = find(PCI_MSIX_ID);
    this.#initial = this.#bytes.slice();
  }

  /** Lays capabilities out one behind the other, and chains them. */
  #link(capabilities: readonly PciCapability[]): number[] {
    const places: number[] = [];
    let link = PCI_OFF_CAPABILITIES;
    let at = FIRST_CAPABILITY;
    for (const { bytes, writable } of capabilities) {
      if (at + bytes.length > PCI_CONFIG_SIZE)
        throw new VbusError("EINVAL", "the capabilities do not fit into 256 bytes of configuration space");
      this.#bytes.set(bytes, at);
      this.#bytes[at + 1] = 0;
      if (writable !== undefined) this.#writable.set(writable, at);
      this.#bytes[link] = at;
      places.push(at);
      link = at + 1;
      at = (at + bytes.length + 3) & ~3;
    }
    if (places.length > 0) this.#view.setUint16(PCI_OFF_STATUS, PCI_STATUS_CAPABILITIES, true);
    return places;
  }

  /** A copy of all 256 bytes. */
  image(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice();
  }

  /** What a configuration read returns, unsigned. Reads across the end are cut off with ones, as an absent device is. */
  read(offset: number, width: AccessWidth): number {
    let value = 0;
    for (let i = 0; i < width; i++) value += (this.#bytes[offset + i] ?? 0xff) * 2 ** (8 * i);
    return value;
  }

  /** A configuration write: keeps the writable bits. Says what that changed. */
  write(offset: number, width: AccessWidth, value: number): ConfigChange {
    const bytes = new Uint8Array(width);
    for (let i = 0; i < width; i++) bytes[i] = value >>> (8 * i);
    return this.written(offset, bytes);
  }

  /** Takes over bytes that an emulator has stored in its own copy, as if the guest had written them here. */
  written(offset: number, bytes: Uint8Array): ConfigChange {
    const before = this.command;
    for (let i = 0; i < bytes.length; i++) {
      const at = offset + i;
      if (at < 0 || at >= PCI_CONFIG_SIZE) continue;
      const mask = this.#writable[at] as number;
      this.#bytes[at] = ((this.#bytes[at] as number) & ~mask) | ((bytes[i] as number) & mask);
    }
    const end = offset + bytes.length;
    const touches = (from: number, to: number): boolean => from !== 0 && offset < to && end > from;
    return {
      cleared: before & ~this.command,
      interrupts:
        touches(PCI_OFF_COMMAND, PCI_OFF_STATUS) ||
        touches(this.#msi, this.#msi + MSI_OFF_DATA + 2) ||
        touches(this.#msix, this.#msix + PCI_MSIX_OFF_CONTROL + 2),
    };
  }

  /** Stores bytes past the guest's rights: registers that a function keeps here. */
  set(offset: number, bytes: Uint8Array): void {
    this.#bytes.set(bytes, offset);
  }

  /** The command register. */
  get command(): number {
    return this.#view.getUint16(PCI_OFF_COMMAND, true);
  }

  /** First guest-physical address, or port, of a BAR, as the guest set it. */
  barAddress(index: number): number {
    const value = this.#view.getUint32(PCI_OFF_BAR0 + 4 * index, true);
    return (value & 1) === 1 ? value & 0xfffc : (value & ~0xf) >>> 0;
  }

  /** The message that an interrupt is sent by at this moment, or null while MSI is off. */
  get msi(): MsiMessage | null {
    const at = this.#msi;
    if (at === 0 || (this.#view.getUint16(at + MSI_OFF_CONTROL, true) & PCI_MSI_ENABLE) === 0) return null;
    return {
      address: this.#view.getUint32(at + MSI_OFF_ADDRESS, true),
      data: this.#view.getUint16(at + MSI_OFF_DATA, true),
    };
  }

  /** True while MSI-X is enabled: then neither INTx nor MSI is used. */
  get msixEnabled(): boolean {
    return (this.#msixControl & PCI_MSIX_ENABLE) !== 0;
  }

  /** True while the guest masks all MSI-X vectors at once. */
  get msixMasked(): boolean {
    return (this.#msixControl & PCI_MSIX_FUNCTION_MASK) !== 0;
  }

  get #msixControl(): number {
    return this.#msix === 0 ? 0 : this.#view.getUint16(this.#msix + PCI_MSIX_OFF_CONTROL, true);
  }

  /** True when the guest forbids INTx. */
  get intxDisabled(): boolean {
    return (this.command & PCI_COMMAND_INTX_DISABLE) !== 0;
  }

  /** Shows in the status register whether an INTx interrupt is pending. */
  setInterruptStatus(pending: boolean): void {
    const status = this.#view.getUint16(PCI_OFF_STATUS, true) & ~PCI_STATUS_INTERRUPT;
    this.#view.setUint16(PCI_OFF_STATUS, status | (pending ? PCI_STATUS_INTERRUPT : 0), true);
  }

  /** Takes over what a guest may write of an image that was saved. @throws StateError mismatch for one of another function */
  restore(state: StateReader): void {
    const image = state.bytes(PCI_CONFIG_SIZE);
    const view = new DataView(image.buffer);
    if (view.getUint32(PCI_OFF_VENDOR, true) !== this.#view.getUint32(PCI_OFF_VENDOR, true))
      throw new StateError(
        "mismatch",
        `${state.path} is of PCI device ${view.getUint32(PCI_OFF_VENDOR, true).toString(16)}, this is another; attach the same functions in the same slots`,
      );
    for (const [at, byte] of image.entries()) {
      const mask = this.#writable[at] as number;
      this.#bytes[at] = ((this.#initial[at] as number) & ~mask) | (byte & mask);
    }
  }

  /** Back to what it was when it was made. */
  reset(): void {
    this.#bytes.set(this.#initial);
  }
}
