import { PCI_VENDOR } from "../../../assembly/abi/pci.js";
import { VIRTIO_ISR_CONFIG, VIRTIO_ISR_QUEUE } from "../../../assembly/abi/virtio-pci.js";
import {
  VIRTIO_MMIO_MAGIC,
  VIRTIO_MMIO_OFF_CONFIG,
  VIRTIO_MMIO_OFF_DEVICE_FEATURES,
  VIRTIO_MMIO_OFF_DEVICE_FEATURES_SELECT,
  VIRTIO_MMIO_OFF_DEVICE_ID,
  VIRTIO_MMIO_OFF_DRIVER_FEATURES,
  VIRTIO_MMIO_OFF_DRIVER_FEATURES_SELECT,
  VIRTIO_MMIO_OFF_GENERATION,
  VIRTIO_MMIO_OFF_INTERRUPT_ACK,
  VIRTIO_MMIO_OFF_INTERRUPT_STATUS,
  VIRTIO_MMIO_OFF_MAGIC,
  VIRTIO_MMIO_OFF_QUEUE_DESC,
  VIRTIO_MMIO_OFF_QUEUE_DEVICE,
  VIRTIO_MMIO_OFF_QUEUE_DRIVER,
  VIRTIO_MMIO_OFF_QUEUE_MAX,
  VIRTIO_MMIO_OFF_QUEUE_NOTIFY,
  VIRTIO_MMIO_OFF_QUEUE_READY,
  VIRTIO_MMIO_OFF_QUEUE_RESET,
  VIRTIO_MMIO_OFF_QUEUE_SELECT,
  VIRTIO_MMIO_OFF_QUEUE_SIZE,
  VIRTIO_MMIO_OFF_SHM,
  VIRTIO_MMIO_OFF_SHM_SELECT,
  VIRTIO_MMIO_OFF_STATUS,
  VIRTIO_MMIO_OFF_VENDOR_ID,
  VIRTIO_MMIO_OFF_VERSION,
  VIRTIO_MMIO_VERSION,
} from "../../../assembly/abi/virtio-mmio.js";
import { VIRTIO_F_NOTIFICATION_DATA } from "../../../assembly/abi/virtio.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { RestoreOptions, Saveable } from "../../state/saveable.js";
import { InterruptLine } from "../interrupt-line.js";
import { VirtioDevice, type VirtioDeviceCounters } from "../../virtio/device.js";
import { featureMask, type VirtioRingOptions } from "../../virtio/features.js";
import type { VirtioQueueArea } from "../../virtio/queue.js";
import type { VirtioFace } from "../../virtio/types.js";

/** Width of an access in bytes. */
export type MmioWidth = 1 | 2 | 4;

/** How a {@link VirtioMmio} is wired. */
export interface VirtioMmioOptions {
  /** The device. */
  readonly face: VirtioFace;
  /** The guest's memory. */
  readonly memory: MemorySpace;
  /** Where deferred work of the emulator's thread runs. */
  readonly scheduler: Scheduler;
  /**
   * Sets the level of the interrupt line. Told when it changes, and (down, up) when the guest acknowledged some of several
   * reasons: a controller that looks at edges sees one. May be called from within any access and from tasks.
   */
  readonly interrupt: (asserted: boolean) => void;
  /** What is offered of rings and transport. */
  readonly rings?: VirtioRingOptions;
  /** What a saved state finds it by; default the device's name. */
  readonly stateName?: string;
  /** Vendor register; default that of the vbus bridge. */
  readonly vendor?: number;
  /** Told of errors that hurt nothing but this device: what its driver did wrong, and why it needs a reset. */
  readonly onError?: (error: unknown) => void;
}

/** What the registers counted. */
export interface VirtioMmioCounters extends VirtioDeviceCounters {
  /** Times the interrupt line was raised. */
  lines: number;
  /** Times the guest acknowledged something. */
  acknowledged: number;
}

const AREAS = new Map<number, VirtioQueueArea>([
  [VIRTIO_MMIO_OFF_QUEUE_DESC, "descriptors"],
  [VIRTIO_MMIO_OFF_QUEUE_DRIVER, "driver"],
  [VIRTIO_MMIO_OFF_QUEUE_DEVICE, "device"],
]);
const SHM_END = VIRTIO_MMIO_OFF_SHM + 16;

/**
 * A virtio device behind memory-mapped registers (virtio 1.2: 4.2), for emulators without PCI: 0x200 bytes and one interrupt
 * line. It knows no emulator. Used by the emulator's thread. Accesses come from a guest and never throw.
 */
export class VirtioMmio implements Saveable {
  /** As `Saveable.stateName` says: the device's name, or what the options said. */
  readonly stateName: string;
  /** Status, features and queues. */
  readonly device: VirtioDevice;
  /** Where kicks go: the number of a queue, which may not exist. Default: {@link VirtioDevice.kick}, at once. */
  onKick: (queue: number) => void;
  readonly #options: VirtioMmioOptions;
  #deviceFeaturesSelect = 0;
  #driverFeaturesSelect = 0;
  #queueSelect = 0;
  #status = 0;
  readonly #line: InterruptLine;
  #acknowledged = 0;

  /** @throws VbusError EINVAL for a face that no transport can carry */
  constructor(options: VirtioMmioOptions) {
    const { face, memory, scheduler, rings, onError } = options;
    this.#options = options;
    this.#line = new InterruptLine(options.interrupt, onError);
    this.stateName = options.stateName ?? face.name;
    this.device = new VirtioDevice({
      face,
      memory,
      scheduler,
      queueInterrupt: () => {
        this.#raise(VIRTIO_ISR_QUEUE);
      },
      configInterrupt: () => {
        this.#raise(VIRTIO_ISR_CONFIG);
      },
      onReset: () => {
        this.#deviceFeaturesSelect = this.#driverFeaturesSelect = this.#queueSelect = 0;
        this.#status = 0;
        this.#line.asserted = false;
      },
      ...(rings === undefined ? {} : { rings }),
      ...(onError === undefined ? {} : { onError }),
    });
    this.onKick = (queue) => {
      this.device.kick(queue);
    };
  }

  /** A read; unsigned. Registers are read with 32 bits, configuration with any width; anything else is 0. */
  read(offset: number, width: MmioWidth): number {
    if (offset >= VIRTIO_MMIO_OFF_CONFIG)
      return this.device.config.read(offset - VIRTIO_MMIO_OFF_CONFIG, width);
    if (width !== 4) return 0;
    if (offset >= VIRTIO_MMIO_OFF_SHM && offset < SHM_END) return 0xffffffff; // no such region (4.2.2.1)
    const { device } = this;
    switch (offset) {
      case VIRTIO_MMIO_OFF_MAGIC:
        return VIRTIO_MMIO_MAGIC;
      case VIRTIO_MMIO_OFF_VERSION:
        return VIRTIO_MMIO_VERSION;
      case VIRTIO_MMIO_OFF_DEVICE_ID:
        return device.face.deviceType;
      case VIRTIO_MMIO_OFF_VENDOR_ID:
        return this.#options.vendor ?? PCI_VENDOR;
      case VIRTIO_MMIO_OFF_DEVICE_FEATURES:
        return device.offeredWord(this.#deviceFeaturesSelect);
      case VIRTIO_MMIO_OFF_QUEUE_MAX:
        return device.queue(this.#queueSelect)?.maximum ?? 0;
      case VIRTIO_MMIO_OFF_QUEUE_READY:
        return device.queue(this.#queueSelect)?.enabled === true ? 1 : 0;
      case VIRTIO_MMIO_OFF_INTERRUPT_STATUS:
        return this.#status;
      case VIRTIO_MMIO_OFF_STATUS:
        return device.status;
      case VIRTIO_MMIO_OFF_GENERATION:
        return device.config.generation;
      default:
        return 0; // write-only, reserved, or (queue reset) over when the write is
    }
  }

  /** A write. Registers are written with 32 bits, configuration with any width; anything else is ignored. */
  write(offset: number, width: MmioWidth, value: number): void {
    const { device } = this;
    if (offset >= VIRTIO_MMIO_OFF_CONFIG) {
      device.config.write(offset - VIRTIO_MMIO_OFF_CONFIG, width, value);
      return;
    }
    if (width !== 4) {
      device.ignoreWrite();
      return;
    }
    const word = value >>> 0;
    const area = AREAS.get(offset & ~7);
    if (area !== undefined && (offset & 3) === 0) {
      device.setQueueAddress(this.#queueSelect, area, (offset & 4) !== 0, word);
      return;
    }
    switch (offset) {
      case VIRTIO_MMIO_OFF_DEVICE_FEATURES_SELECT:
        this.#deviceFeaturesSelect = word;
        return;
      case VIRTIO_MMIO_OFF_DRIVER_FEATURES:
        device.chooseWord(this.#driverFeaturesSelect, word);
        return;
      case VIRTIO_MMIO_OFF_DRIVER_FEATURES_SELECT:
        this.#driverFeaturesSelect = word;
        return;
      case VIRTIO_MMIO_OFF_QUEUE_SELECT:
        this.#queueSelect = word;
        return;
      case VIRTIO_MMIO_OFF_QUEUE_SIZE:
        device.setQueueSize(this.#queueSelect, word);
        return;
      case VIRTIO_MMIO_OFF_QUEUE_READY:
        if (word === 1) device.enableQueue(this.#queueSelect);
        else if (word === 0) device.stopQueue(this.#queueSelect);
        else device.ignoreWrite();
        return;
      case VIRTIO_MMIO_OFF_QUEUE_NOTIFY:
        this.onKick(this.#notifiesPosition ? word & 0xffff : word);
        return;
      case VIRTIO_MMIO_OFF_INTERRUPT_ACK:
        this.#acknowledge(word);
        return;
      case VIRTIO_MMIO_OFF_STATUS:
        device.writeStatus(word);
        return;
      case VIRTIO_MMIO_OFF_SHM_SELECT:
        return;
      case VIRTIO_MMIO_OFF_QUEUE_RESET:
        if (word === 1) device.resetQueue(this.#queueSelect);
        else device.ignoreWrite();
        return;
      default:
        device.ignoreWrite();
    }
  }

  get #notifiesPosition(): boolean {
    return (this.device.negotiated & featureMask(VIRTIO_F_NOTIFICATION_DATA)) !== 0n;
  }

  /** The machine was reset. */
  machineReset(): void {
    this.device.reset();
  }

  /** True while the interrupt line is up. */
  get line(): boolean {
    return this.#line.asserted;
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
      selected: [this.#deviceFeaturesSelect, this.#driverFeaturesSelect, this.#queueSelect],
      status: this.#status,
      line: this.#line.asserted,
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
      this.device.restore(state.get("device"), options);
      const [offered, chosen, queue] = state
        .get("selected")
        .tuple(3)
        .map((at) => at.number(0, 0xffffffff)) as [number, number, number];
      this.#deviceFeaturesSelect = offered;
      this.#driverFeaturesSelect = chosen;
      this.#queueSelect = queue;
      this.#status = state.get("status").number(0, VIRTIO_ISR_QUEUE | VIRTIO_ISR_CONFIG);
      this.#line.restore(state.get("line"), this.#status !== 0);
    } catch (error) {
      this.machineReset();
      throw error;
    }
  }

  /** What was counted so far. */
  counters(): VirtioMmioCounters {
    return { ...this.device.counters(), lines: this.#line.raised, acknowledged: this.#acknowledged };
  }

  /** Ends everything, lowers the line. Twice is harmless. */
  close(): void {
    this.device.close();
  }

  #raise(reason: number): void {
    this.#status |= reason;
    this.#line.asserted = true;
  }

  #acknowledge(reasons: number): void {
    if ((this.#status & reasons) === 0) return;
    this.#status &= ~reasons;
    this.#acknowledged++;
    this.#line.asserted = false;
    if (this.#status !== 0) this.#line.asserted = true;
  }
}
