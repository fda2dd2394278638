import { SIGNAL_SIZE } from "../../assembly/abi/shm-signal.js";
import { Signal } from "../engine/signal.js";
import { SignalWakeups } from "../engine/signal-wakeup.js";
import type { GuestTransport } from "./transport.js";

/** What a proxy bus does with the events of one signal. */
export interface SignalSink {
  /** Comes back in events. */
  readonly cookie: number;
  /** SHMSIGNAL. */
  woken(): void;
  /** SHMCLOSE, while the driver still has it: it never wakes up again. */
  released(): void;
}

/** How a driver wants a signal that stands alone. */
export interface ProxySignalOptions {
  /** Runs when the device has something to tell; may find nothing. What it throws goes to the scheduler's error handler. */
  notifier: () => void;
  /** The host let it go. */
  onReleased?: () => void;
}

/**
 * A signal in a segment of its own, of an opened device (`docs/abi/shm-signal.md`): 16 bytes that the device is told to look
 * at, or looks at. Masked until the driver enables it.
 */
export class ProxySignal implements SignalSink {
  /** Drives notifications. */
  readonly wakeups: SignalWakeups;
  /** Handle to ring, once the host accepted the segment. */
  signalHandle: number | null = null;
  readonly #onReleased: (() => void) | undefined;

  /** @internal */
  constructor(
    transport: GuestTransport,
    readonly gpa: number,
    readonly cookie: number,
    options: ProxySignalOptions,
  ) {
    const { scheduler } = transport;
    this.#onReleased = options.onReleased;
    this.wakeups = new SignalWakeups(Signal.create(transport.memory.space, gpa), {
      scheduler,
      notifier: () => {
        try {
          options.notifier();
        } catch (error) {
          scheduler.post(() => {
            throw error;
          });
        }
      },
      ring: () => {
        if (this.signalHandle !== null) transport.ring(this.signalHandle);
      },
    });
  }

  /** Bytes of the segment. */
  static readonly length = SIGNAL_SIZE;

  /** @internal */
  woken(): void {
    this.wakeups.wakeup();
  }

  /** @internal */
  released(): void {
    this.wakeups.close();
    this.#onReleased?.();
  }
}
