import { VbusError } from "../errors.js";
import type { DeviceNode } from "./device.js";
import type { Emitter, InterfaceNotice } from "./emitter.js";
import { checkName, checkType } from "./names.js";
import type { BusPublisher, DeviceInterface, PublishedInterface } from "./types.js";

/** Who is told at once of what is published: the clients of the bus. Must not throw. */
export interface InterfaceObserver {
  /** An interface was published. */
  published(entry: Published): void;
  /** An interface was withdrawn. */
  withdrawn(entry: Published): void;
}

/** An interface on a bus. */
export class Published implements PublishedInterface {
  /** Its name under `devices/<device>/interfaces/`: plain, or with `@<bus>` when another bus has it plain. */
  readonly entryName: string;
  readonly #table: InterfaceTable;

  constructor(
    table: InterfaceTable,
    readonly id: number,
    /** The device it belongs to. */
    readonly device: DeviceNode,
    /** The device's half. */
    readonly implementation: DeviceInterface,
  ) {
    this.#table = table;
    const { name } = implementation;
    const taken = device.published.some((other) => other.entryName === name);
    this.entryName = taken ? `${name}@${table.bus}` : name;
  }

  /** Name of the bus. */
  get bus(): string {
    return this.#table.bus;
  }

  /** {@inheritDoc PublishedInterface.withdraw} */
  withdraw(): void {
    this.#table.withdraw(this);
  }

  /** What listeners are told about it. */
  get notice(): InterfaceNotice {
    const { name, type } = this.implementation;
    return { bus: this.bus, device: this.device.name, id: this.id, name, type };
  }
}

/** The interfaces of one bus by number; numbers start at 0 and are never used twice (`docs/abi/vbus-bus.md` section 1). */
export class InterfaceTable {
  readonly #entries = new Map<number, Published>();
  readonly #observers = new Set<InterfaceObserver>();
  #nextId = 0;

  constructor(
    /** Name of the bus. */
    readonly bus: string,
    private readonly emitter: Emitter,
    /** Highest number to hand out. */
    readonly lastId: number,
  ) {}

  /** Takes a number. @throws VbusError ENOSPC when all were used */
  allocateId(): number {
    if (this.#nextId > this.lastId) {
      throw new VbusError(
        "ENOSPC",
        `bus "${this.bus}" has used all its interface numbers; move the devices to a new bus`,
      );
    }
    return this.#nextId++;
  }

  /** All interfaces, in the order of their numbers. */
  get entries(): Iterable<Published> {
    return this.#entries.values();
  }

  /** Tells an observer of everything from now on. Returns what ends it. */
  observe(observer: InterfaceObserver): () => void {
    this.#observers.add(observer);
    return () => {
      this.#observers.delete(observer);
    };
  }

  /** Publishes an interface. @throws VbusError EINVAL (name, type), EEXIST (name), ENOSPC */
  publish(device: DeviceNode, implementation: DeviceInterface): Published {
    const { name, type } = implementation;
    checkName("interface", name);
    checkType(type);
    for (const other of device.published) {
      if (other.bus === this.bus && other.implementation.name === name) {
        throw new VbusError(
          "EEXIST",
          `device "${device.name}" has an interface "${name}" on bus "${this.bus}" already; give it another name`,
        );
      }
    }
    const entry = new Published(this, this.allocateId(), device, implementation);
    this.#entries.set(entry.id, entry);
    device.published.push(entry);
    for (const observer of [...this.#observers]) observer.published(entry);
    this.emitter.emit("interfacePublished", entry.notice);
    return entry;
  }

  /** Withdraws an interface. Twice is harmless. */
  withdraw(entry: Published): void {
    if (!this.#entries.delete(entry.id)) return;
    entry.device.published.splice(entry.device.published.indexOf(entry), 1);
    for (const observer of [...this.#observers]) observer.withdrawn(entry);
    this.emitter.emit("interfaceWithdrawn", entry.notice);
  }
}

/** One device's seat on one bus: the publisher that the device is given. */
export class Attachment implements BusPublisher {
  readonly #table: InterfaceTable;
  readonly #device: DeviceNode;
  #open = true;

  constructor(table: InterfaceTable, device: DeviceNode) {
    this.#table = table;
    this.#device = device;
  }

  /** {@inheritDoc BusPublisher.name} */
  get name(): string {
    return this.#table.bus;
  }

  /** False once the device was disconnected. */
  get open(): boolean {
    return this.#open;
  }

  /** {@inheritDoc BusPublisher.publish} */
  publish(implementation: DeviceInterface): PublishedInterface {
    if (!this.#open) {
      throw new VbusError(
        "ENOTCONN",
        `device "${this.#device.name}" is no longer connected to bus "${this.name}"; publish only between busConnect and busDisconnect`,
      );
    }
    return this.#table.publish(this.#device, implementation);
  }

  /** The device left: withdraws what it left behind. */
  close(): void {
    this.#open = false;
    for (const entry of [...this.#device.published]) {
      if (entry.bus === this.name) entry.withdraw();
    }
  }
}
