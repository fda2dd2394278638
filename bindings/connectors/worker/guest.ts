import {
  BELL_CALLS,
  BELL_EVENTQ,
  BELL_RESIDUES,
  BELL_SIGNALS,
  LINK_ABSENT,
  LINK_ATTACHED,
  LINK_GONE,
} from "../../../assembly/abi/worker-wire.js";
import { BridgeGuest, type BridgeCarrier } from "../../drivers/bridge.js";
import { VbusError } from "../../errors.js";
import { GuestMemory, type GuestMemoryInit } from "../../memory/guest.js";
import type { Scheduler } from "../../scheduler.js";
import { GuestCalls } from "./calls.js";
import { DoorbellWaiter } from "../../doorbells/waiter.js";
import { HeartbeatWatch } from "../../doorbells/heartbeat.js";
import { DoorbellPage } from "../../doorbells/page.js";

/** How often a guest looks whether its host is there. */
const CONNECT_POLL_MS = 2;

/** How to reach a host in another thread. */
export interface WorkerGuestOptions {
  /** The guest's memory, shared with the host's thread. */
  readonly init: GuestMemoryInit;
  /** This thread's scheduler. */
  readonly scheduler: Scheduler;
  /** The guest's view of the memory, when the thread has opened one already; there may be only one per thread. */
  readonly memory?: GuestMemory;
  /** How long to wait for the host, in ms; default 5000. */
  readonly connectTimeoutMs?: number;
  /** How long a call may take, in ms; default 5000. A call that the host took but never ends breaks the connection. */
  readonly callTimeoutMs?: number;
  /** How long the host's heartbeat may stand still, in ms; default 10000; 0: for ever. */
  readonly hostTimeoutMs?: number;
  /** Polls of the doorbells before sleeping; default 0, about 2000 where a core is free for it. */
  readonly spin?: number;
  /** Number of event records, 1 … 2048; default 1024. */
  readonly eventCount?: number;
  /** True: wait for doorbells by timer even where `Atomics.waitAsync` exists. For tests. */
  readonly poll?: boolean;
}

/** Carries a bridge over a doorbell page: the guest half of `docs/abi/worker-wire.md`. */
class WorkerCarrier implements BridgeCarrier {
  onInterrupt: (() => void) | null = null;
  onLost: ((error: Error) => void) | null = null;
  readonly #page: DoorbellPage;
  readonly #calls: GuestCalls;
  readonly #waiter: DoorbellWaiter;
  readonly #hostHeart: HeartbeatWatch;
  readonly #hostTimeoutMs: number;
  #closed = false;

  constructor(page: DoorbellPage, options: WorkerGuestOptions) {
    const { scheduler, callTimeoutMs = 5000, hostTimeoutMs = 10_000, spin = 0, poll = false } = options;
    this.#page = page;
    this.#hostTimeoutMs = hostTimeoutMs;
    this.#hostHeart = new HeartbeatWatch(page, "host", hostTimeoutMs);
    this.#calls = new GuestCalls({
      page,
      scheduler,
      timeoutMs: callTimeoutMs,
      onBroken: (error) => {
        this.#lose(error, false);
      },
    });
    this.#waiter = new DoorbellWaiter({
      page,
      side: "guest",
      scheduler,
      spin,
      poll,
      serve: (bell) => {
        if (bell === BELL_CALLS) this.#calls.look();
        else if (bell === BELL_EVENTQ) this.onInterrupt?.();
      },
      look: () => {
        if (page.state("host") !== LINK_ATTACHED) {
          this.#lose(new VbusError("ENOTCONN", "the host closed the connection; connect again"), true);
        }
      },
      tick: () => {
        this.#tick();
      },
      onError: (error) => {
        this.#lose(
          new VbusError("EIO", "the guest's connector failed; connect again", { cause: error }),
          false,
        );
      },
    });
    page.wake("host");
    this.#waiter.start();
  }

  call(vector: number, length: number, gpa: number): Promise<number> {
    return this.#calls.call(vector, length, gpa);
  }

  eventqDoorbell(): void {
    if (!this.#closed) this.#page.ring("host", BELL_EVENTQ);
  }

  shmSignal(handle: number): void {
    if (!this.#closed) this.#page.ring("host", BELL_SIGNALS + (handle % BELL_RESIDUES));
  }

  #tick(): void {
    this.#page.beat("guest");
    this.#calls.look(); // slots that the host freed without a doorbell
    if (this.#hostHeart.expired()) {
      const text = `the host showed no sign of life for ${this.#hostTimeoutMs} ms; its thread died or hangs`;
      this.#lose(new VbusError("ENOTCONN", text), false);
    }
  }

  #lose(error: VbusError, hostGone: boolean): void {
    if (this.#closed) return;
    this.#end(error, hostGone);
    this.onLost?.(error);
  }

  #end(reason: VbusError, hostGone: boolean): void {
    this.#closed = true;
    this.#waiter.close();
    this.#calls.end(reason, hostGone);
    this.#page.setState("guest", LINK_GONE);
    this.#page.wake("host");
  }

  close(): void {
    if (!this.#closed) this.#end(new VbusError("ENOTCONN", "this guest left the bus"), false);
  }
}

/** Waits until a condition holds. @returns false when the time ended first */
function waitFor(scheduler: Scheduler, ms: number, condition: () => boolean): Promise<boolean> {
  const end = scheduler.now() + ms;
  return new Promise((resolve) => {
    const look = (): void => {
      if (condition()) resolve(true);
      else if (scheduler.now() >= end) resolve(false);
      else scheduler.after(CONNECT_POLL_MS, look);
    };
    look();
  });
}

/**
 * Connects a guest to the host that called {@link attachWorkerGuest} on the same memory, in another thread; waits for it
 * for a while. The result is what a `ProxyBus` takes. Call it in the guest's thread.
 * @throws VbusError EOPNOTSUPP when the memory is not shared (use the local connector), ETIMEDOUT when no host comes,
 *   ENOTCONN when it has gone already, EBUSY when another guest uses the page, EINVAL (page, version), ENOMEM
 */
export async function connectWorkerHost(options: WorkerGuestOptions): Promise<BridgeGuest> {
  const { init, scheduler, connectTimeoutMs = 5000, eventCount } = options;
  const page = DoorbellPage.at(init);
  const memory = options.memory ?? (await GuestMemory.open(init));
  const there = await waitFor(
    scheduler,
    connectTimeoutMs,
    () => page.isFormatted && page.state("host") !== LINK_ABSENT,
  );
  if (!there) {
    throw new VbusError(
      "ETIMEDOUT",
      `no host attached to this memory in ${connectTimeoutMs} ms; call attachWorkerGuest()`,
    );
  }
  page.check();
  if (page.state("host") === LINK_GONE) {
    throw new VbusError(
      "ENOTCONN",
      "the host has closed this page; set it up again with setUpLink() and attach anew",
    );
  }
  if (!page.claim("guest")) {
    throw new VbusError(
      "EBUSY",
      "this page carries or carried another guest; set it up again with setUpLink()",
    );
  }
  const carrier = new WorkerCarrier(page, options);
  try {
    return await BridgeGuest.connect({
      carrier,
      memory,
      scheduler,
      ...(eventCount === undefined ? {} : { eventCount }),
    });
  } catch (error) {
    carrier.close();
    throw error;
  }
}
