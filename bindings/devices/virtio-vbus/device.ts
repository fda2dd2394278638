import { VIRTIO_VBUS_VERSION } from "../../../assembly/abi/virtio-vbus.js";
import type {
  Attribute,
  BusPublisher,
  Connection,
  Device,
  DeviceClass,
  DeviceContext,
  DeviceInterface,
  RestoredSignals,
} from "../../bus/types.js";
import { VbusError } from "../../errors.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { RestoreOptions } from "../../state/saveable.js";
import { isKept, restoreAttributes, saveAttributes } from "../saved.js";
import type { MemorySpace } from "../../memory/space.js";
import { checkFace } from "../../virtio/device.js";
import type { VirtioRingOptions } from "../../virtio/features.js";
import type { VirtioFace } from "../../virtio/types.js";
import { isWritable } from "../../bus/saved-tree.js";
import { BusSeat } from "../seat.js";
import { VirtioVbusConnection, type VirtioVbusEnvironment } from "./connection.js";

/** A virtio device for the bus, and what belongs to it there. */
export interface VirtioVbusDevice {
  /** The virtio device; used by this vbus device alone. */
  face: VirtioFace;
  /** Attributes of its own, besides those that every virtio device has (`docs/abi/virtio-vbus.md` section 8). */
  attributes?: ReadonlyMap<string, Attribute>;
  /** The device was removed, and no guest uses it any more: close it. */
  release?: () => void;
}

/** How a class of virtio devices is set up. */
export interface VirtioClassOptions {
  /** Name of the class, such as `virtio-net`. */
  name: string;
  /** Makes a device. Asynchronous resources must have been opened before. @throws VbusError */
  create: (context: DeviceContext) => VirtioVbusDevice;
  /** What is offered of rings; `notificationData` never is. */
  rings?: VirtioRingOptions;
}

/** Type of the interface that drivers match, whatever kind of virtio device it is. */
const INTERFACE_TYPE = "virtio";

/**
 * A device class whose devices are virtio devices, carried by the bus itself (`docs/abi/virtio-vbus.md`): for guests with
 * virtio drivers and a vbus transport for them. Register it with `vbus.registerClass(...)`.
 */
export function virtioClass(options: VirtioClassOptions): DeviceClass {
  return {
    name: options.name,
    create: (context) => new BusDevice(context, options.create(context), options.rings ?? {}),
  };
}

class BusDevice implements Device, DeviceInterface, VirtioVbusEnvironment {
  readonly name = "default";
  readonly type = INTERFACE_TYPE;
  readonly attributes: ReadonlyMap<string, Attribute>;
  readonly face: VirtioFace;
  readonly #seat: BusSeat;
  #connection: VirtioVbusConnection | null = null;

  constructor(
    private readonly context: DeviceContext,
    private readonly device: VirtioVbusDevice,
    readonly rings: VirtioRingOptions,
  ) {
    checkFace(device.face);
    this.face = device.face;
    this.#seat = new BusSeat(context.name, this);
    const json = (get: (connection: VirtioVbusConnection) => unknown): Attribute => ({
      get: () => JSON.stringify(this.#connection === null ? null : get(this.#connection)),
    });
    this.attributes = new Map<string, Attribute>([
      ["virtio_type", { get: () => String(this.face.deviceType) }],
      ["virtio_status", { get: () => hex(this.#connection?.device.status ?? 0) }],
      ["virtio_features", { get: () => hex(this.#connection?.device.negotiated ?? 0n) }],
      ["virtio_queues", json((connection) => connection.queueReports())],
      ["virtio_counters", json((connection) => connection.counters())],
      ...(device.attributes ?? []),
    ]);
  }

  /** What the virtio device counted. */
  get statistics(): object {
    return this.face.statistics ?? {};
  }

  get scheduler(): DeviceContext["scheduler"] {
    return this.context.scheduler;
  }

  busConnect(bus: BusPublisher): void {
    this.#seat.connect(bus);
  }

  busDisconnect(bus: BusPublisher): void {
    this.#seat.disconnect(bus);
  }

  connect(memory: MemorySpace, version: number): Connection {
    if (version !== VIRTIO_VBUS_VERSION)
      throw new VbusError("EINVAL", `virtio over vbus has version ${VIRTIO_VBUS_VERSION}, not ${version}`);
    if (this.#connection !== null) throw new VbusError("EBUSY", `${this.context.name} is open already`);
    return (this.#connection = new VirtioVbusConnection(memory, this));
  }

  resumed(): void {
    // a driver that knows another address gets the device anew, when it has let go of it
    if (this.face.renewed === true) this.#seat.withdraw();
  }

  closed(): void {
    this.#connection = null;
    this.#seat.publishAgain((message, error) => {
      this.context.report(message, error);
    });
  }

  /** Attributes of the device's own; the rest shows sessions. */
  get #saved(): string[] {
    return [...(this.device.attributes ?? [])]
      .filter(([, attribute]) => isWritable(attribute))
      .map(([name]) => name);
  }

  save(): StateValue {
    return { attributes: saveAttributes(this.attributes, this.#saved) };
  }

  restore(state: StateReader, options: RestoreOptions): void {
    const kept = this.#saved.filter((name) => isKept(name, options));
    restoreAttributes(this.attributes, state.get("attributes"), kept);
  }

  restoreSession(
    memory: MemorySpace,
    state: StateReader,
    signals: RestoredSignals,
    options: RestoreOptions,
  ): Connection {
    if (this.#connection !== null) throw new VbusError("EBUSY", `${this.context.name} is open already`);
    return (this.#connection = VirtioVbusConnection.restore(memory, this, state, signals, options));
  }

  failed(error: unknown): void {
    this.context.report(`${this.context.name}: ${this.face.name} or its driver failed`, error);
  }

  release(): void {
    this.device.release?.();
  }
}

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;
