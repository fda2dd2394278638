import { EINVAL } from "../../../assembly/abi/errno.js";
import { BRIDGE_FASTCALL_ADD } from "../../../assembly/abi/vbus.js";
import {
  BELL_CALLS,
  BELL_EVENTQ,
  BELL_RESIDUES,
  BELL_SIGNALS,
  LINK_ABSENT,
  LINK_ATTACHED,
  LINK_GONE,
  SLOT_CANCELLED,
  SLOT_DONE,
  SLOT_IDLE,
  SLOT_OFF_DATAP_HIGH,
  SLOT_OFF_DATAP_LOW,
  SLOT_OFF_LEN,
  SLOT_OFF_RESULT,
  SLOT_OFF_VECTOR,
  SLOT_POSTED,
  SLOT_TAKEN,
} from "../../../assembly/abi/worker-wire.js";
import type { ClientSource } from "../../bus/types.js";
import { VbusError } from "../../errors.js";
import { openHostView, type GuestMemoryInit } from "../../memory/guest.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import { DoorbellWaiter } from "../../doorbells/waiter.js";
import { HeartbeatWatch } from "../../doorbells/heartbeat.js";
import { DoorbellPage } from "../../doorbells/page.js";
import type { BridgeCounters, BridgeHost } from "../bridge/host.js";
import { openBridge } from "../bridge/open.js";

/** How to put a bus in front of a guest in another thread. */
export interface WorkerHostOptions {
  /** The bus. */
  readonly bus: ClientSource;
  /** Member that the guest acts as; the bus must have admitted it. */
  readonly member: string;
  /** The guest's memory, shared with its thread. */
  readonly init: GuestMemoryInit;
  /** This thread's scheduler. */
  readonly scheduler: Scheduler;
  /** Name of the client in the bus tree. */
  readonly label?: string;
  /**
   * Polls of the doorbells before sleeping; default 0. About 2000 pays when no more threads want to run than there are
   * cores, and only then.
   */
  readonly spin?: number;
  /**
   * Milliseconds that the guest's heartbeat may stand still before the guest counts as dead; default 0: never. It may
   * just not get to run (a debugger, a suspended tab), so prefer {@link watchLife} and {@link WorkerHostConnector.close}.
   */
  readonly guestTimeoutMs?: number;
  /** Told, once, that the connection ended without this side having asked: the guest left, died, or broke the page. */
  readonly onClose?: (reason: Error) => void;
  /** Told of errors that hurt nothing but what they name, such as a broken event queue. */
  readonly onError?: (error: unknown) => void;
  /** True: wait for doorbells by timer even where `Atomics.waitAsync` exists. For tests. */
  readonly poll?: boolean;
}

/** What a connector counted. */
export interface WorkerHostCounters extends BridgeCounters {
  /** Doorbells served. */
  doorbells: number;
  /** Times the connector went to sleep. */
  sleeps: number;
  /** Calls that the guest gave up before they were taken. */
  cancelled: number;
}

/**
 * The host half of the worker connector (`docs/abi/worker-wire.md`): one bus in front of one guest in another thread.
 * Made by {@link attachWorkerGuest}; used by the host's thread.
 *
 * Whatever the guest's thread does to the page costs this connection at most: nothing throws out of the waiter.
 */
export class WorkerHostConnector {
  /** The host's view of the guest's memory. */
  readonly memory: MemorySpace;
  /** Calls, events and signals of the guest. */
  readonly bridge: BridgeHost;
  readonly #page: DoorbellPage;
  readonly #waiter: DoorbellWaiter;
  readonly #guestHeart: HeartbeatWatch;
  readonly #options: WorkerHostOptions;
  /** Live signal handles by residue: usually one each. */
  #signals = new Map<number, Set<number>>();
  #cancelled = 0;
  /** Doorbells of residues that no live signal has. */
  #stray = 0;
  #guestSeen = false;
  #closed: Error | null = null;

  /** @internal Use {@link attachWorkerGuest}. */
  constructor(options: WorkerHostOptions, page: DoorbellPage, memory: MemorySpace) {
    const { scheduler, spin = 0, guestTimeoutMs = 0, poll = false } = options;
    this.memory = memory;
    this.#options = options;
    this.#page = page;
    this.#guestHeart = new HeartbeatWatch(page, "guest", guestTimeoutMs);
    const { bus, member, label, onError } = options;
    this.bridge = openBridge(
      { bus, member, label, memory, scheduler, onError },
      {
        interrupt: () => {
          page.ring("guest", BELL_EVENTQ);
        },
        onSignal: (handle, alive) => {
          this.#track(handle, alive);
        },
        ended: () => {
          this.#end(new VbusError("ENOTCONN", "the host took this guest off the bus"));
        },
      },
    );
    this.#waiter = new DoorbellWaiter({
      page,
      side: "host",
      scheduler,
      spin,
      poll,
      serve: (bell) => {
        this.#serve(bell);
      },
      look: () => {
        this.#look();
      },
      tick: () => {
        this.#tick();
      },
      onError: (error) => {
        this.#end(
          error instanceof Error ? error : new VbusError("EIO", "the connector failed", { cause: error }),
        );
      },
    });
    if (!page.claim("host")) {
      this.bridge.close();
      throw pageInUse();
    }
    page.wake("guest");
    this.#waiter.start();
  }

  /** Why the connection is closed, or null while it is open. */
  get closed(): Error | null {
    return this.#closed;
  }

  /** True from the guest's attaching until the end. */
  get guestAttached(): boolean {
    return this.#guestSeen && this.#closed === null;
  }

  /** What was counted so far. */
  counters(): WorkerHostCounters {
    const { served, sleeps } = this.#waiter;
    const counters = this.bridge.counters();
    return {
      ...counters,
      strayDoorbells: counters.strayDoorbells + this.#stray,
      doorbells: served,
      sleeps,
      cancelled: this.#cancelled,
    };
  }

  /**
   * Ends the connection from this side, for instance because the guest's worker exited: the guest is told, its sessions
   * end, memory and arena are given back. Twice is harmless; `onClose` is not called.
   */
  close(reason: Error = new VbusError("ENOTCONN", "the host closed the connection")): void {
    if (this.#closed !== null) return;
    this.#closed = reason;
    this.#waiter.close();
    this.bridge.close(); // before the guest is told: from then on it may use every block and ring again
    this.#signals.clear();
    this.#page.setState("host", LINK_GONE);
    this.#page.wake("guest");
  }

  #end(reason: Error): void {
    if (this.#closed !== null) return;
    this.close(reason);
    this.#options.onClose?.(reason);
  }

  #track(handle: number, alive: boolean): void {
    const residue = handle % BELL_RESIDUES;
    const handles = this.#signals.get(residue);
    if (alive) {
      if (handles === undefined) this.#signals.set(residue, new Set([handle]));
      else handles.add(handle);
    } else if (handles !== undefined) {
      handles.delete(handle);
      if (handles.size === 0) this.#signals.delete(residue);
    }
  }

  #serve(bell: number): void {
    if (this.#closed !== null) return;
    if (bell === BELL_CALLS) this.#calls();
    else if (bell === BELL_EVENTQ) this.bridge.eventqDoorbell();
    else {
      const handles = this.#signals.get(bell - BELL_SIGNALS);
      if (handles === undefined) this.#stray++;
      else for (const handle of [...handles]) this.bridge.shmSignal(handle);
    }
  }

  /** Looks at all slots once. A call runs to its end here: device callbacks are synchronous. */
  #calls(): void {
    const { words, slots } = this.#page;
    for (let i = 0; i < slots && this.#closed === null; i++) {
      const at = this.#page.slot(i);
      const state = Atomics.compareExchange(words, at, SLOT_POSTED, SLOT_TAKEN);
      if (state === SLOT_POSTED) {
        const result = this.#call(at);
        Atomics.store(words, at + (SLOT_OFF_RESULT >>> 2), result);
        Atomics.store(words, at, SLOT_DONE);
        this.#page.ring("guest", BELL_CALLS);
      } else if (state === SLOT_CANCELLED) {
        this.#cancelled++;
        Atomics.store(words, at, SLOT_IDLE);
      } else if (state < SLOT_IDLE || state > SLOT_CANCELLED) {
        this.#end(new VbusError("EPROTO", `the guest put call slot ${i} into state ${state}, which is none`));
      }
    }
  }

  #call(at: number): number {
    const { words } = this.#page;
    // double fetch: each word is read once, here
    const vector = Atomics.load(words, at + (SLOT_OFF_VECTOR >>> 2));
    const length = Atomics.load(words, at + (SLOT_OFF_LEN >>> 2));
    const low = Atomics.load(words, at + (SLOT_OFF_DATAP_LOW >>> 2));
    const high = Atomics.load(words, at + (SLOT_OFF_DATAP_HIGH >>> 2));
    // this wire has no doorbell for fastcall channels: adding one would be a promise that nobody keeps
    return vector === BRIDGE_FASTCALL_ADD ? -EINVAL : this.bridge.call(vector, length, low, high);
  }

  #look(): void {
    const state = this.#page.state("guest");
    if (state === LINK_ATTACHED) this.#guestSeen = true;
    else if (state === LINK_GONE) this.#end(new VbusError("ENOTCONN", "the guest left the bus"));
    else if (this.#guestSeen) this.#end(new VbusError("EPROTO", "the guest took its attachment back"));
  }

  #tick(): void {
    this.#page.beat("host");
    if (this.#guestSeen && this.#guestHeart.expired()) {
      const ms = this.#options.guestTimeoutMs ?? 0;
      this.#end(
        new VbusError("ETIMEDOUT", `the guest showed no sign of life for ${ms} ms; its thread died or hangs`),
      );
    }
  }
}

function pageInUse(): VbusError {
  return new VbusError(
    "EBUSY",
    "this memory carries or carried a connection already; set it up again with setUpLink()",
  );
}

/**
 * Puts a bus in front of a guest that runs in another thread (`worker_threads` or a browser's worker). Call it in the
 * host's thread, which should be a worker of its own. A page that was never used is set up here; one that was must be
 * set up again with {@link setUpLink} first.
 * @throws VbusError EOPNOTSUPP when the memory is not shared (use the local connector), EPERM when the member was not
 *   admitted, EBUSY when the page carries or carried another connection, EINVAL, ENOMEM
 */
export async function attachWorkerGuest(options: WorkerHostOptions): Promise<WorkerHostConnector> {
  const { init } = options;
  let page = DoorbellPage.at(init);
  if (!page.isFormatted) page = DoorbellPage.format(init);
  page.check();
  if (page.state("host") !== LINK_ABSENT) throw pageInUse();
  const memory = await openHostView(init);
  return new WorkerHostConnector(options, page, memory);
}
