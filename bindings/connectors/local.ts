import type { BusClient, BusEvent } from "../bus/types.js";
import type { DeviceHandle, GuestEvent, GuestSignal, GuestTransport } from "../drivers/transport.js";
import { checkResult, VbusError } from "../errors.js";
import type { GuestMemory } from "../memory/guest.js";
import type { Scheduler } from "../scheduler.js";

/**
 * The `local` connector: guest and host in one thread. Verbs are direct calls into the bus; doorbells and events are
 * tasks of the thread's scheduler, so that neither side ever runs inside the other (`docs/abi/vbus-bus.md` section 9).
 *
 * Guest and host may share one memory (then frames are copied by the engine) or not.
 */
export class LocalConnector implements GuestTransport {
  onEvent: ((event: GuestEvent) => void) | null = null;
  onLost: ((error: Error) => void) | null = null;
  #connected = true;
  #rung = new Set<number>();
  #draining = false;

  /**
   * @param client - opened by the host with `bus.openClient(...)`
   * @param memory - the guest's view of its memory
   * @param scheduler - the thread's scheduler
   */
  constructor(
    private readonly client: BusClient,
    readonly memory: GuestMemory,
    readonly scheduler: Scheduler,
  ) {
    client.onEvents = () => {
      this.#scheduleEvents();
    };
    client.onEnd = () => {
      this.lose(new VbusError("ENOTCONN", "the host took this guest off the bus; connect again"));
    };
  }

  #verb(result: number, what: string): number {
    return checkResult(result, what);
  }

  #assertConnected(): void {
    if (!this.#connected) throw new VbusError("ENOTCONN", "this guest left the bus; connect again");
  }

  /** As `GuestTransport.open` says. */
  async open(id: number, version: number): Promise<number> {
    this.#assertConnected();
    return this.#verb(this.client.open(id, version), `device ${id} does not open with version ${version}`);
  }

  /** As `GuestTransport.close` says. */
  async close(handle: DeviceHandle): Promise<void> {
    this.#assertConnected();
    this.#verb(this.client.close(handle as number), "no such session");
  }

  /** As `GuestTransport.call` says. */
  async call(
    handle: DeviceHandle,
    func: number,
    gpa: number,
    length: number,
    flags: number,
  ): Promise<number> {
    this.#assertConnected();
    return this.#verb(
      this.client.call(handle as number, func, gpa, length, flags),
      `the device refused call ${func}`,
    );
  }

  /** As `GuestTransport.shm` says. */
  async shm(
    handle: DeviceHandle,
    id: number,
    gpa: number,
    length: number,
    signal: GuestSignal | null,
    flags: number,
  ): Promise<number> {
    this.#assertConnected();
    return this.#verb(
      this.client.shm(handle as number, id, gpa, length, signal, flags),
      `the device refused segment ${id} at guest address 0x${gpa.toString(16)}`,
    );
  }

  /** As `GuestTransport.ring` says. */
  ring(signalHandle: number): void {
    if (!this.#connected) return;
    if (this.#rung.size === 0) {
      this.scheduler.post(() => {
        const rung = this.#rung;
        this.#rung = new Set();
        for (const handle of rung) this.client.signal(handle);
      });
    }
    this.#rung.add(signalHandle);
  }

  /** As `GuestTransport.start` says. */
  async start(): Promise<void> {
    this.#assertConnected();
    this.client.listen();
    this.#scheduleEvents();
  }

  #scheduleEvents(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.scheduler.post(() => {
      this.#draining = false;
      try {
        for (let event; this.#connected && (event = this.client.nextEvent()) !== null;)
          this.onEvent?.(guestEvent(event));
      } catch (error) {
        this.#scheduleEvents(); // the rest waits, and nobody would be told of it again
        throw error;
      }
    });
  }

  /** The host's administrator ends this guest's connection. */
  lose(error: Error): void {
    if (!this.#connected) return;
    this.disconnect();
    this.onLost?.(error);
  }

  /** As `GuestTransport.disconnect` says. */
  disconnect(): void {
    if (!this.#connected) return;
    this.#connected = false;
    this.#rung.clear();
    this.client.onEvents = null;
    this.client.disconnect();
  }
}

/** Cookies come back as this connector gave them: numbers of the guest's proxy bus. */
function guestEvent(event: BusEvent): GuestEvent {
  return event.kind === "shmsignal" || event.kind === "shmclose"
    ? { kind: event.kind, cookie: event.cookie as number }
    : event;
}
