import type { BusPublisher, DeviceInterface, PublishedInterface } from "../bus/types.js";
import { VbusError } from "../errors.js";

/** The place of a device on the one bus that it supports at a time, with the one interface that it publishes there. */
export class BusSeat {
  #bus: BusPublisher | null = null;
  #published: PublishedInterface | null = null;

  /**
   * @param device - name for messages
   * @param implementation - what is published
   */
  constructor(
    private readonly device: string,
    private readonly implementation: DeviceInterface,
  ) {}

  /** As `Device.busConnect` says. @throws VbusError EBUSY when the device sits on a bus */
  connect(bus: BusPublisher): void {
    if (this.#bus !== null) {
      throw new VbusError("EBUSY", `${this.device} is on bus ${this.#bus.name}; disconnect it there first`);
    }
    this.#published = bus.publish(this.implementation);
    this.#bus = bus;
  }

  /** Takes the interface away from the guests; the seat stays taken. Harmless without a seat, and twice. */
  withdraw(): void {
    this.#published?.withdraw();
    this.#published = null;
  }

  /**
   * Publishes what {@link BusSeat.withdraw} took away, under a new number. Harmless otherwise.
   * @param failed - told why that is impossible: the bus has used up its numbers
   */
  publishAgain(failed: (message: string, error: unknown) => void): void {
    if (this.#bus === null || this.#published !== null) return;
    try {
      this.#published = this.#bus.publish(this.implementation);
    } catch (error) {
      failed(`${this.device} cannot be plugged in again`, error);
    }
  }

  /** As `Device.busDisconnect` says. @throws VbusError EINVAL when the device is not on this bus */
  disconnect(bus: BusPublisher): void {
    if (this.#bus !== bus) throw new VbusError("EINVAL", `${this.device} is not on bus ${bus.name}`);
    this.#published?.withdraw();
    this.#published = null;
    this.#bus = null;
  }
}
