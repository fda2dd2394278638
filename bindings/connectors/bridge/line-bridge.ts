import { ENOTCONN } from "../../../assembly/abi/errno.js";
import {
  VBUS_INTERRUPT_EVENTS,
  VBUS_STATE_BROKEN,
  VBUS_STATE_GONE,
  VBUS_STATE_NEGOTIATED,
  VBUS_STATE_REGISTERED,
} from "../../../assembly/abi/vbus-mmio.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { RestoreOptions } from "../../state/saveable.js";
import type { BridgeCounters, BridgeHost } from "./host.js";
import { InterruptLine } from "../interrupt-line.js";
import { openBridge, type BridgeAttachOptions } from "./open.js";

/** How a {@link LineBridge} is wired. */
export interface LineBridgeOptions extends BridgeAttachOptions {
  /**
   * Sets the level of the interrupt line. Told only when it changes. May be called from within any access that comes from
   * the guest, and from tasks of the scheduler; an emulator that must not touch its interrupt controller in some of these
   * keeps it for later.
   */
  readonly interrupt: (asserted: boolean) => void;
}

/** What it counted. */
export interface LineBridgeCounters extends BridgeCounters {
  /** Times the interrupt line was raised. */
  lines: number;
  /** Times the guest acknowledged it. */
  acknowledged: number;
}

/**
 * A bridge with one interrupt line and a status to acknowledge: what the register page and the hypercalls have in common
 * (`docs/abi/vbus-mmio.md` sections 3 to 6). Everything comes from a guest, and nothing throws. Used by the thread that the
 * guest's accesses come in on.
 */
export class LineBridge {
  /** Calls, events and signals of the guest. */
  readonly bridge: BridgeHost;
  /** Where doorbells of signals go: a handle, which may not exist. Default: {@link LineBridge.serveSignal}, at once. */
  onSignal: (handle: number) => void;
  readonly #line: InterruptLine;
  #status = 0;
  #gone = false;
  #acknowledged = 0;

  /** @throws VbusError EPERM when the member was not admitted; ENOMEM */
  constructor(options: LineBridgeOptions) {
    this.#line = new InterruptLine(options.interrupt, options.onError);
    this.bridge = openBridge(options, {
      interrupt: () => {
        this.#raise();
      },
      ended: () => {
        this.#gone = true;
        this.#clear();
      },
    });
    this.onSignal = (handle) => {
      this.serveSignal(handle);
    };
  }

  /** Why the line is up: `VBUS_INTERRUPT_…`, or 0. */
  get status(): number {
    return this.#status;
  }

  /** What the guest may know of the bridge: `VBUS_STATE_…`. */
  get state(): number {
    const { bridge } = this;
    return (
      (bridge.negotiated ? VBUS_STATE_NEGOTIATED : 0) |
      (bridge.registered ? VBUS_STATE_REGISTERED : 0) |
      (bridge.eventQueueViolation !== null ? VBUS_STATE_BROKEN : 0) |
      (this.#gone ? VBUS_STATE_GONE : 0)
    );
  }

  /** The guest has seen reasons of an interrupt; the line goes down with the last of them. */
  acknowledge(reasons: number): void {
    if ((this.#status & reasons) === 0) return;
    this.#acknowledged++;
    this.#status &= ~reasons;
    this.#line.asserted = this.#status !== 0;
  }

  /** A bridge call; as `BridgeHost.call` says. */
  call(vector: number, length: number, gpaLow: number, gpaHigh: number): number {
    if (this.#gone) return -ENOTCONN;
    const result = this.bridge.call(vector, length, gpaLow, gpaHigh);
    if (!this.bridge.registered) this.#clear(); // NEGOTIATE: the old incarnation interrupts no more
    return result;
  }

  /** Executes a fastcall channel; false: there is none of that id. */
  fastcall(channelId: number): boolean {
    return this.bridge.fastcall(channelId);
  }

  /** The doorbell of an event queue; false: there is only number 0. */
  eventq(queue: number): boolean {
    if (queue !== 0) return false;
    this.bridge.eventqDoorbell();
    return true;
  }

  /** The guest rang a signal: serves it, as `BridgeHost.shmSignal` says. */
  serveSignal(handle: number): void {
    this.bridge.shmSignal(handle);
  }

  /** Everything is what it was at the start: for the guest's wish, and for a reset of the machine. */
  reset(): void {
    this.#clear();
    this.bridge.reset();
  }

  /** True while the interrupt line is up. */
  get asserted(): boolean {
    return this.#line.asserted;
  }

  /** What it is, as plain data, while the bridge is held. */
  save(): StateValue {
    return { status: this.#status, line: this.#line.asserted, bridge: this.bridge.save() };
  }

  /** As `Saveable.restore` says; the emulator's interrupt controller knows the level of the line. @throws StateError; VbusError ENOMEM */
  restore(state: StateReader, options: RestoreOptions = {}): void {
    try {
      const status = state.get("status").number(0, VBUS_INTERRUPT_EVENTS);
      this.#line.restore(state.get("line"), status !== 0);
      this.#status = status;
      this.bridge.restore(state.get("bridge"), options);
    } catch (error) {
      this.reset();
      throw error;
    }
  }

  /** The guest looks at its events again, whatever became of an interrupt. */
  restored(): void {
    if (this.bridge.registered) this.#raise();
  }

  /** What was counted so far. */
  counters(): LineBridgeCounters {
    return { ...this.bridge.counters(), lines: this.#line.raised, acknowledged: this.#acknowledged };
  }

  /** Ends everything, lowers the line, gives the arena back what the bridge took. Twice is harmless. */
  close(): void {
    this.#gone = true;
    this.#clear();
    this.bridge.close();
  }

  #raise(): void {
    this.#status |= VBUS_INTERRUPT_EVENTS;
    this.#line.asserted = true;
  }

  #clear(): void {
    this.#status = 0;
    this.#line.asserted = false;
  }
}
