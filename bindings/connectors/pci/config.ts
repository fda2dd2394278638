import {
  BAR0_SIZE,
  BAR1_SIZE,
  PCI_CLASS,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_WRITABLE,
  PCI_CONFIG_SIZE,
  PCI_DEVICE,
  PCI_INTERRUPT_PIN,
  PCI_MSI_ENABLE,
  PCI_MSI_ID,
  PCI_MSI_OFF_ADDRESS,
  PCI_MSI_OFF_CONTROL,
  PCI_MSI_OFF_DATA,
  PCI_MSI_OFFSET,
  PCI_OFF_BAR0,
  PCI_OFF_BAR1,
  PCI_OFF_CACHE_LINE,
  PCI_OFF_CAPABILITIES,
  PCI_OFF_CLASS,
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
  PCI_SUBSYSTEM_DEVICE,
  PCI_SUBSYSTEM_VENDOR,
  PCI_VENDOR,
} from "../../../assembly/abi/pci.js";
import { PCI_ABI_VERSION } from "../../../assembly/abi/vbus.js";
import { VbusError } from "../../errors.js";

/** Width of an access in bytes. */
export type AccessWidth = 1 | 2 | 4;

/** A message-signalled interrupt: what the guest wants written, and where. */
export interface MsiMessage {
  /** Guest-physical address of the write. */
  readonly address: number;
  /** 16 bits of data; the low byte is the vector on x86. */
  readonly data: number;
}

/** What a guest's write to the command register or the MSI capability changed. */
export interface ConfigChange {
  /** Bus mastering or I/O decoding went from 1 to 0: the driver left (`docs/abi/vbus-pci.md` section 10.4). */
  readonly stopped: boolean;
  /** INTx or MSI may be deliverable now, or no longer. */
  readonly interrupts: boolean;
}

/** How a {@link PciConfigSpace} is made. */
export interface PciConfigOptions {
  /** First guest-physical address of BAR 0, when it is fixed; else firmware assigns it. */
  readonly bar0?: number;
  /** First port of BAR 1, when it is fixed; else firmware assigns it. */
  readonly bar1?: number;
  /** What the size probe of BAR 0 answers; a power of two, 64 by default. For emulators that cannot map less than a page. */
  readonly bar0Size?: number;
}

/** Bits that a guest can write, by offset; everything else is read-only. */
function writableBits(bar0Size: number): Uint8Array {
  const mask = new Uint8Array(PCI_CONFIG_SIZE);
  const view = new DataView(mask.buffer);
  view.setUint16(PCI_OFF_COMMAND, PCI_COMMAND_WRITABLE, true);
  mask[PCI_OFF_CACHE_LINE] = 0xff;
  mask[PCI_OFF_LATENCY] = 0xff;
  view.setUint32(PCI_OFF_BAR0, ~(bar0Size - 1), true);
  view.setUint32(PCI_OFF_BAR1, ~(BAR1_SIZE - 1), true);
  mask[PCI_OFF_INTERRUPT_LINE] = 0xff;
  view.setUint16(PCI_MSI_OFF_CONTROL, PCI_MSI_ENABLE, true);
  view.setUint32(PCI_MSI_OFF_ADDRESS, 0xfffffffc, true);
  view.setUint16(PCI_MSI_OFF_DATA, 0xffff, true);
  return mask;
}

/**
 * The bridge's configuration space (`docs/abi/vbus-pci.md` section 1): the standard header, two base address registers,
 * one MSI capability. Registers keep what a guest may write and nothing else.
 *
 * An emulator routes its configuration cycles here ({@link PciConfigSpace.read}, {@link PciConfigSpace.write}); one that
 * keeps the space of every function itself takes {@link PciConfigSpace.image} and tells what was written
 * ({@link PciConfigSpace.written}).
 */
export class PciConfigSpace {
  readonly #bytes = new Uint8Array(PCI_CONFIG_SIZE);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #initial: Uint8Array;
  readonly #writable: Uint8Array;

  /** @throws VbusError EINVAL for addresses that a BAR of that size cannot hold */
  constructor(options: PciConfigOptions = {}) {
    const { bar0 = 0, bar1 = 0, bar0Size = BAR0_SIZE } = options;
    if (bar0Size < BAR0_SIZE || bar0Size > 2 ** 31 || !Number.isInteger(Math.log2(bar0Size)))
      throw new VbusError("EINVAL", `BAR 0 of ${bar0Size} bytes; give a power of two from ${BAR0_SIZE} on`);
    if (!Number.isSafeInteger(bar0) || bar0 < 0 || bar0 > 0xffffffff || bar0 % bar0Size !== 0)
      throw new VbusError("EINVAL", `BAR 0 at 0x${bar0.toString(16)}; it must be a multiple of ${bar0Size}`);
    if (!Number.isSafeInteger(bar1) || bar1 < 0 || bar1 > 0xffff || bar1 % BAR1_SIZE !== 0)
      throw new VbusError(
        "EINVAL",
        `BAR 1 at port 0x${bar1.toString(16)}; it must be a multiple of ${BAR1_SIZE}`,
      );
    const view = this.#view;
    view.setUint16(PCI_OFF_VENDOR, PCI_VENDOR, true);
    view.setUint16(PCI_OFF_DEVICE, PCI_DEVICE, true);
    view.setUint16(PCI_OFF_STATUS, PCI_STATUS_CAPABILITIES, true);
    view.setUint8(PCI_OFF_REVISION, PCI_ABI_VERSION);
    view.setUint16(PCI_OFF_CLASS, PCI_CLASS, true);
    view.setUint32(PCI_OFF_BAR0, bar0, true);
    view.setUint32(PCI_OFF_BAR1, bar1 | 1, true);
    view.setUint16(PCI_OFF_SUBSYSTEM_VENDOR, PCI_SUBSYSTEM_VENDOR, true);
    view.setUint16(PCI_OFF_SUBSYSTEM_DEVICE, PCI_SUBSYSTEM_DEVICE, true);
    view.setUint8(PCI_OFF_CAPABILITIES, PCI_MSI_OFFSET);
    view.setUint8(PCI_OFF_INTERRUPT_PIN, PCI_INTERRUPT_PIN);
    view.setUint8(PCI_MSI_OFFSET, PCI_MSI_ID);
    this.#writable = writableBits(bar0Size);
    this.#initial = this.#bytes.slice();
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
    const gone = before & ~this.command;
    const end = offset + bytes.length;
    return {
      // the edge, never the level: several drivers of 2009 never set bus mastering at all
      stopped: (gone & (PCI_COMMAND_MASTER | PCI_COMMAND_IO)) !== 0,
      interrupts:
        (offset < PCI_OFF_STATUS && end > PCI_OFF_COMMAND) ||
        (offset < PCI_MSI_OFF_DATA + 2 && end > PCI_MSI_OFF_CONTROL),
    };
  }

  /** The command register. */
  get command(): number {
    return this.#view.getUint16(PCI_OFF_COMMAND, true);
  }

  /** First guest-physical address of BAR 0, as the guest set it. */
  get bar0(): number {
    return (this.#view.getUint32(PCI_OFF_BAR0, true) & ~0xf) >>> 0;
  }

  /** First port of BAR 1, as the guest set it. */
  get bar1(): number {
    return this.#view.getUint32(PCI_OFF_BAR1, true) & 0xfffc;
  }

  /** The message that an interrupt is sent by at this moment, or null while MSI is off. */
  get msi(): MsiMessage | null {
    if ((this.#view.getUint16(PCI_MSI_OFF_CONTROL, true) & PCI_MSI_ENABLE) === 0) return null;
    return {
      address: this.#view.getUint32(PCI_MSI_OFF_ADDRESS, true),
      data: this.#view.getUint16(PCI_MSI_OFF_DATA, true),
    };
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

  /** Back to what it was when it was made. */
  reset(): void {
    this.#bytes.set(this.#initial);
  }
}
