import {
  VIRTIO_PCI_COMMON_OFF_CONFIG_VECTOR,
  VIRTIO_PCI_COMMON_OFF_DEVICE_FEATURE,
  VIRTIO_PCI_COMMON_OFF_DEVICE_FEATURE_SELECT,
  VIRTIO_PCI_COMMON_OFF_DRIVER_FEATURE,
  VIRTIO_PCI_COMMON_OFF_DRIVER_FEATURE_SELECT,
  VIRTIO_PCI_COMMON_OFF_GENERATION,
  VIRTIO_PCI_COMMON_OFF_NUM_QUEUES,
  VIRTIO_PCI_COMMON_OFF_QUEUE_DESC,
  VIRTIO_PCI_COMMON_OFF_QUEUE_DEVICE,
  VIRTIO_PCI_COMMON_OFF_QUEUE_DRIVER,
  VIRTIO_PCI_COMMON_OFF_QUEUE_ENABLE,
  VIRTIO_PCI_COMMON_OFF_QUEUE_NOTIFY_DATA,
  VIRTIO_PCI_COMMON_OFF_QUEUE_NOTIFY_OFF,
  VIRTIO_PCI_COMMON_OFF_QUEUE_RESET,
  VIRTIO_PCI_COMMON_OFF_QUEUE_SELECT,
  VIRTIO_PCI_COMMON_OFF_QUEUE_SIZE,
  VIRTIO_PCI_COMMON_OFF_QUEUE_VECTOR,
  VIRTIO_PCI_COMMON_OFF_STATUS,
  VIRTIO_PCI_COMMON_SIZE,
} from "../../../assembly/abi/virtio-pci.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { VirtioDevice } from "../../virtio/device.js";
import type { VirtioQueueArea } from "../../virtio/queue.js";
import type { AccessWidth } from "../pci/config-space.js";
import type { VirtioPciInterrupts } from "./interrupts.js";

interface Field {
  readonly width: AccessWidth;
  read(): number;
  /** Missing: read-only. */
  write?(value: number): void;
}

/**
 * The common configuration (virtio 1.2: 4.1.4.3). A driver must access each field with its own width, 64-bit ones as two
 * halves (4.1.3.1). Reads of other widths give the bytes that are there; writes of other widths change nothing, and are
 * counted.
 */
export class VirtioPciCommon {
  readonly #fields: (Field | undefined)[] = [];
  /** For each byte, where its field begins. */
  readonly #starts = new Uint8Array(VIRTIO_PCI_COMMON_SIZE);
  #deviceFeatureSelect = 0;
  #driverFeatureSelect = 0;
  #queueSelect = 0;

  constructor(
    private readonly device: VirtioDevice,
    private readonly interrupts: VirtioPciInterrupts,
  ) {
    this.#features();
    this.#queues();
    for (const [start, field] of this.#fields.entries())
      if (field !== undefined) this.#starts.fill(start, start, start + field.width);
  }

  #features(): void {
    const { device, interrupts } = this;
    this.#field(VIRTIO_PCI_COMMON_OFF_DEVICE_FEATURE_SELECT, {
      width: 4,
      read: () => this.#deviceFeatureSelect,
      write: (value) => {
        this.#deviceFeatureSelect = value;
      },
    });
    this.#field(VIRTIO_PCI_COMMON_OFF_DEVICE_FEATURE, {
      width: 4,
      read: () => device.offeredWord(this.#deviceFeatureSelect),
    });
    this.#field(VIRTIO_PCI_COMMON_OFF_DRIVER_FEATURE_SELECT, {
      width: 4,
      read: () => this.#driverFeatureSelect,
      write: (value) => {
        this.#driverFeatureSelect = value;
      },
    });
    this.#field(VIRTIO_PCI_COMMON_OFF_DRIVER_FEATURE, {
      width: 4,
      read: () => device.chosenWord(this.#driverFeatureSelect),
      write: (value) => {
        device.chooseWord(this.#driverFeatureSelect, value);
      },
    });
    this.#field(VIRTIO_PCI_COMMON_OFF_CONFIG_VECTOR, {
      width: 2,
      read: () => interrupts.configVector,
      write: (value) => {
        interrupts.mapConfig(value);
      },
    });
    this.#field(VIRTIO_PCI_COMMON_OFF_NUM_QUEUES, { width: 2, read: () => device.queues.length });
    this.#field(VIRTIO_PCI_COMMON_OFF_STATUS, {
      width: 1,
      read: () => device.status,
      write: (value) => {
        device.writeStatus(value);
      },
    });
    this.#field(VIRTIO_PCI_COMMON_OFF_GENERATION, { width: 1, read: () => device.config.generation & 0xff });
  }

  #queues(): void {
    const { device, interrupts } = this;
    this.#field(VIRTIO_PCI_COMMON_OFF_QUEUE_SELECT, {
      width: 2,
      read: () => this.#queueSelect,
      write: (value) => {
        this.#queueSelect = value;
      },
    });
    this.#field(VIRTIO_PCI_COMMON_OFF_QUEUE_SIZE, {
      width: 2,
      read: () => device.queue(this.#queueSelect)?.size ?? 0,
      write: (value) => {
        device.setQueueSize(this.#queueSelect, value);
      },
    });
    this.#field(VIRTIO_PCI_COMMON_OFF_QUEUE_VECTOR, {
      width: 2,
      read: () => interrupts.queueVector(this.#queueSelect),
      write: (value) => {
        interrupts.mapQueue(this.#queueSelect, value);
      },
    });
    this.#field(VIRTIO_PCI_COMMON_OFF_QUEUE_ENABLE, {
      width: 2,
      read: () => (device.queue(this.#queueSelect)?.enabled === true ? 1 : 0),
      write: (value) => {
        // a driver must not write 0 (4.1.4.3.2): there is another way to stop a queue
        if (value === 1) device.enableQueue(this.#queueSelect);
        else device.ignoreWrite();
      },
    });
    this.#field(VIRTIO_PCI_COMMON_OFF_QUEUE_NOTIFY_OFF, { width: 2, read: () => 0 });
    this.#area(VIRTIO_PCI_COMMON_OFF_QUEUE_DESC, "descriptors");
    this.#area(VIRTIO_PCI_COMMON_OFF_QUEUE_DRIVER, "driver");
    this.#area(VIRTIO_PCI_COMMON_OFF_QUEUE_DEVICE, "device");
    this.#field(VIRTIO_PCI_COMMON_OFF_QUEUE_NOTIFY_DATA, { width: 2, read: () => this.#queueSelect });
    this.#field(VIRTIO_PCI_COMMON_OFF_QUEUE_RESET, {
      width: 2,
      read: () => 0, // a reset is over when the write is (4.1.4.3.1)
      write: (value) => {
        if (value !== 1) {
          device.ignoreWrite();
          return;
        }
        if (device.resetQueue(this.#queueSelect)) interrupts.resetQueue(this.#queueSelect);
      },
    });
  }

  #area(offset: number, area: VirtioQueueArea): void {
    for (const high of [false, true])
      this.#field(high ? offset + 4 : offset, {
        width: 4,
        read: () => this.device.queue(this.#queueSelect)?.address(area, high) ?? 0,
        write: (value) => {
          this.device.setQueueAddress(this.#queueSelect, area, high, value);
        },
      });
  }

  #field(offset: number, field: Field): void {
    this.#fields[offset] = field;
  }

  /** Unsigned; 0 behind the end. */
  read(offset: number, width: AccessWidth): number {
    const exact = this.#fields[offset];
    if (exact?.width === width) return exact.read();
    let value = 0;
    for (let i = 0; i < width; i++) {
      const at = offset + i;
      const start = this.#starts[at];
      const field = start === undefined ? undefined : this.#fields[start];
      if (field !== undefined && start !== undefined)
        value += ((field.read() >>> (8 * (at - start))) & 0xff) * 2 ** (8 * i);
    }
    return value;
  }

  /** A write; see above for widths. */
  write(offset: number, width: AccessWidth, value: number): void {
    const field = this.#fields[offset];
    if (field?.write === undefined || field.width !== width) {
      this.device.ignoreWrite();
      return;
    }
    field.write(width === 4 ? value >>> 0 : value & (width === 2 ? 0xffff : 0xff));
  }

  /** Selections, as plain data. */
  save(): StateValue {
    return [this.#deviceFeatureSelect, this.#driverFeatureSelect, this.#queueSelect];
  }

  /** Takes them over. @throws StateError */
  restore(state: StateReader): void {
    const [offered, chosen, queue] = state.tuple(3) as [StateReader, StateReader, StateReader];
    this.#deviceFeatureSelect = offered.number(0, 0xffffffff);
    this.#driverFeatureSelect = chosen.number(0, 0xffffffff);
    this.#queueSelect = queue.number(0, 0xffff);
  }

  /** The device was reset: selections are 0. */
  reset(): void {
    this.#deviceFeatureSelect = this.#driverFeatureSelect = this.#queueSelect = 0;
  }
}
