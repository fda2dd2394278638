import { PCI_COMMAND_MASTER } from "../../../assembly/abi/pci.js";
import {
  VIRTIO_PCI_ACCESS_CAP_OFF_DATA,
  VIRTIO_PCI_CAP_LONG_SIZE,
  VIRTIO_PCI_CAP_OFF_BAR,
  VIRTIO_PCI_CAP_OFF_OFFSET,
  VIRTIO_PCI_CAP_OFF_SIZE,
  VIRTIO_PCI_COMMON_SIZE,
  VIRTIO_PCI_MSIX_BAR,
  VIRTIO_PCI_NOTIFY_SIZE,
  VIRTIO_PCI_OFF_DEVICE,
  VIRTIO_PCI_OFF_ISR,
  VIRTIO_PCI_OFF_MSIX_PENDING,
  VIRTIO_PCI_OFF_NOTIFY,
  VIRTIO_PCI_REGISTER_BAR,
  VIRTIO_PCI_VECTORS_MAX,
} from "../../../assembly/abi/virtio-pci.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { RestoreOptions, Saveable } from "../../state/saveable.js";
import { VirtioDevice, type VirtioDeviceCounters } from "../../virtio/device.js";
import type { VirtioRingOptions } from "../../virtio/features.js";
import type { VirtioFace } from "../../virtio/types.js";
import type { AccessWidth, ConfigChange, PciBar, PciConfigSpace } from "../pci/config-space.js";
import type { PciInterruptSink } from "../pci/function.js";
import { VirtioPciCommon } from "./common.js";
import { VirtioPciInterrupts, type VirtioPciInterruptCounters } from "./interrupts.js";
import { virtioBars, virtioConfigSpace, type VirtioPciPlace } from "./layout.js";

/** How a {@link VirtioPci} is wired. */
export interface VirtioPciOptions {
  /** The device. */
  readonly face: VirtioFace;
  /** The guest's memory. */
  readonly memory: MemorySpace;
  /** Where deferred work of the emulator's thread runs. */
  readonly scheduler: Scheduler;
  /** Where interrupts go. */
  readonly interrupts: PciInterruptSink;
  /** What is offered of rings and transport. */
  readonly rings?: VirtioRingOptions;
  /** MSI-X vectors, 0 (no MSI-X) to 128; default: one for each queue and one for the configuration. */
  readonly vectors?: number;
  /** Offers an MSI capability besides; default false. */
  readonly msi?: boolean;
  /** BARs. */
  readonly place?: VirtioPciPlace;
  /** What a saved state finds it by; default the device's name. */
  readonly stateName?: string;
  /** Told of errors that hurt nothing but this device: what its driver did wrong, and why it needs a reset. */
  readonly onError?: (error: unknown) => void;
}

/** What a function counted. */
export interface VirtioPciCounters extends VirtioDeviceCounters, VirtioPciInterruptCounters {}

/**
 * A virtio device as a PCI function (virtio 1.2: 4.1): modern, not transitional. It knows no emulator: accesses come in
 * through `config…` and `bar…`, interrupts go out through the sink, memory is a `MemorySpace`. Used by the emulator's thread.
 *
 * Accesses come from a guest and never throw. A kick runs the device's work within the access; an emulator that has a better
 * moment gives `onKick`.
 */
export class VirtioPci implements Saveable {
  /** As `Saveable.stateName` says: the device's name, or what the options said. */
  readonly stateName: string;
  /** Configuration space. */
  readonly config: PciConfigSpace;
  /** Status, features and queues. */
  readonly device: VirtioDevice;
  /** Base address registers by number, for emulators that must know them beforehand. */
  readonly bars: readonly (PciBar | null)[];
  /** Where kicks go: the number of a queue, which may not exist. Default: {@link VirtioDevice.kick}, at once. */
  onKick: (queue: number) => void;
  readonly #access: number;
  readonly #interrupts: VirtioPciInterrupts;
  readonly #common: VirtioPciCommon;

  /** @throws VbusError EINVAL for a face, vectors or addresses that cannot be */
  constructor(options: VirtioPciOptions) {
    const { face, memory, scheduler, interrupts, rings, msi = false, place = {}, onError } = options;
    this.stateName = options.stateName ?? face.name;
    const { vectors = Math.min(face.queueSizes.length + 1, VIRTIO_PCI_VECTORS_MAX) } = options;
    if (!Number.isInteger(vectors) || vectors < 0 || vectors > VIRTIO_PCI_VECTORS_MAX)
      throw new VbusError("EINVAL", `${vectors} MSI-X vectors; give 0 to ${VIRTIO_PCI_VECTORS_MAX}`);
    const { config, access } = virtioConfigSpace(face, place, { vectors, msi });
    this.config = config;
    this.#access = access;
    this.bars = virtioBars(place, vectors);
    this.#interrupts = new VirtioPciInterrupts(face.queueSizes.length, vectors, config, interrupts, onError);
    this.device = new VirtioDevice({
      face,
      memory,
      scheduler,
      queueInterrupt: (index) => {
        this.#interrupts.queue(index);
      },
      configInterrupt: () => {
        this.#interrupts.configuration();
      },
      onReset: () => {
        this.#interrupts.reset();
        this.#common.reset();
      },
      ...(rings === undefined ? {} : { rings }),
      ...(onError === undefined ? {} : { onError }),
    });
    this.#common = new VirtioPciCommon(this.device, this.#interrupts);
    this.onKick = (queue) => {
      this.device.kick(queue);
    };
  }

  /** A configuration read; unsigned. Of the access capability's data it reads a BAR (virtio 1.2: 4.1.4.9). */
  configRead(offset: number, width: AccessWidth): number {
    if (this.touchesAccessData(offset, width)) {
      const window = this.#window();
      if (window !== null) {
        const data = new Uint8Array(4);
        new DataView(data.buffer).setUint32(0, this.barRead(window.bar, window.offset, window.width), true);
        this.config.set(this.#access + VIRTIO_PCI_ACCESS_CAP_OFF_DATA, data.subarray(0, window.width));
      }
    }
    return this.config.read(offset, width);
  }

  /** A configuration write. A 1 → 0 edge of bus mastering resets the device: it must reach memory no more. */
  configWrite(offset: number, width: AccessWidth, value: number): void {
    this.#configChanged(this.config.write(offset, width, value), offset, width);
  }

  /** {@link VirtioPci.configWrite} for emulators that keep configuration spaces themselves: what they stored. */
  configWritten(offset: number, bytes: Uint8Array): void {
    this.#configChanged(this.config.written(offset, bytes), offset, bytes.length);
  }

  /** True for accesses that reach a BAR through configuration space, reads too: an emulator must pass them on. */
  touchesAccessData(offset: number, width: number): boolean {
    const data = this.#access + VIRTIO_PCI_ACCESS_CAP_OFF_DATA;
    return offset < this.#access + VIRTIO_PCI_CAP_LONG_SIZE && offset + width > data;
  }

  #configChanged(change: ConfigChange, offset: number, width: number): void {
    if ((change.cleared & PCI_COMMAND_MASTER) !== 0) this.device.reset();
    if (change.interrupts) this.#interrupts.configWritten();
    if (!this.touchesAccessData(offset, width)) return;
    const window = this.#window();
    if (window === null) return;
    const value = this.config.read(this.#access + VIRTIO_PCI_ACCESS_CAP_OFF_DATA, window.width);
    this.barWrite(window.bar, window.offset, window.width, value);
  }

  /** What the access capability points at; null for what it cannot (4.1.4.9.2: lengths of 1, 2, 4, aligned). */
  #window(): { bar: number; offset: number; width: AccessWidth } | null {
    const { config } = this;
    const bar = config.read(this.#access + VIRTIO_PCI_CAP_OFF_BAR, 1);
    const offset = config.read(this.#access + VIRTIO_PCI_CAP_OFF_OFFSET, 4);
    const width = config.read(this.#access + VIRTIO_PCI_CAP_OFF_SIZE, 4);
    if ((width !== 1 && width !== 2 && width !== 4) || offset % width !== 0) return null;
    return { bar, offset, width };
  }

  /** A read of a BAR; unsigned, 0 where nothing is. */
  barRead(bar: number, offset: number, width: AccessWidth): number {
    if (bar === VIRTIO_PCI_MSIX_BAR) return this.#msixRead(offset, width);
    if (bar !== VIRTIO_PCI_REGISTER_BAR) return 0;
    if (offset < VIRTIO_PCI_COMMON_SIZE) return this.#common.read(offset, width);
    if (offset === VIRTIO_PCI_OFF_ISR) return this.#interrupts.readIsr();
    if (offset >= VIRTIO_PCI_OFF_DEVICE)
      return this.device.config.read(offset - VIRTIO_PCI_OFF_DEVICE, width);
    return 0;
  }

  /** A write to a BAR. */
  barWrite(bar: number, offset: number, width: AccessWidth, value: number): void {
    if (bar === VIRTIO_PCI_MSIX_BAR) this.#msixWrite(offset, width, value);
    else if (bar !== VIRTIO_PCI_REGISTER_BAR) return;
    else if (offset < VIRTIO_PCI_COMMON_SIZE) this.#common.write(offset, width, value);
    else if (offset >= VIRTIO_PCI_OFF_NOTIFY && offset < VIRTIO_PCI_OFF_NOTIFY + VIRTIO_PCI_NOTIFY_SIZE) {
      // 16 bits: the queue; 32 bits: and its ring's position, which the ring knows itself (4.1.5.2)
      if (offset === VIRTIO_PCI_OFF_NOTIFY && width !== 1) this.onKick(value & 0xffff);
      else this.device.ignoreWrite();
    } else if (offset >= VIRTIO_PCI_OFF_DEVICE)
      this.device.config.write(offset - VIRTIO_PCI_OFF_DEVICE, width, value);
    else this.device.ignoreWrite();
  }

  #msixRead(offset: number, width: AccessWidth): number {
    const { table } = this.#interrupts;
    if (table === null) return 0;
    return offset < VIRTIO_PCI_OFF_MSIX_PENDING
      ? table.readTable(offset, width)
      : table.readPending(offset - VIRTIO_PCI_OFF_MSIX_PENDING, width);
  }

  #msixWrite(offset: number, width: AccessWidth, value: number): void {
    if (offset < VIRTIO_PCI_OFF_MSIX_PENDING) this.#interrupts.table?.writeTable(offset, width, value);
  }

  /** The machine was reset: configuration space and device are what they were at the start. */
  machineReset(): void {
    this.device.reset();
    this.config.reset();
    this.#interrupts.table?.reset();
    this.#interrupts.configWritten();
  }

  /** True while the INTA line is up. */
  get line(): boolean {
    return this.#interrupts.line;
  }

  /** As `Saveable.settle` says. @throws VbusError EOPNOTSUPP */
  async settle(): Promise<void> {
    await this.device.settle();
  }

  /** As `Saveable.hold` says. */
  hold(): void {
    this.device.hold();
  }

  /** As `Saveable.release` says. */
  release(): void {
    this.device.release();
  }

  /** As `Saveable.save` says. */
  save(): StateValue {
    return {
      config: this.config.image(),
      interrupts: this.#interrupts.save(),
      selected: this.#common.save(),
      device: this.device.save(),
    };
  }

  /** As `Saveable.check` says. @throws StateError */
  check(state: StateReader): void {
    this.device.check(state.get("device"));
  }

  /** As `Saveable.clear` says. */
  clear(): void {
    this.machineReset();
  }

  /** As `Saveable.restore` says; the emulator's interrupt controller knows the level of the line. @throws StateError; VbusError ENOMEM */
  restore(state: StateReader, options: RestoreOptions = {}): void {
    try {
      this.config.restore(state.get("config"));
      this.device.restore(state.get("device"), options);
      this.#interrupts.restore(state.get("interrupts"));
      this.#common.restore(state.get("selected"));
    } catch (error) {
      this.machineReset();
      throw error;
    }
  }

  /** What was counted so far. */
  counters(): VirtioPciCounters {
    return { ...this.device.counters(), ...this.#interrupts.counters() };
  }

  /** Ends everything, lowers the line. Twice is harmless. */
  close(): void {
    this.device.close();
  }
}
