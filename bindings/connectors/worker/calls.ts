import {
  BELL_CALLS,
  SLOT_CANCELLED,
  SLOT_DONE,
  SLOT_IDLE,
  SLOT_OFF_DATAP_HIGH,
  SLOT_OFF_DATAP_LOW,
  SLOT_OFF_LEN,
  SLOT_OFF_RESULT,
  SLOT_OFF_SERIAL,
  SLOT_OFF_VECTOR,
  SLOT_POSTED,
  SLOT_TAKEN,
} from "../../../assembly/abi/worker-wire.js";
import { VbusError } from "../../errors.js";
import type { Scheduler, Timer } from "../../scheduler.js";
import type { DoorbellPage } from "../../doorbells/page.js";

/** A call on its way: waiting for a slot, or in one. */
interface PendingCall {
  readonly vector: number;
  readonly length: number;
  readonly gpa: number;
  readonly resolve: (result: number) => void;
  readonly reject: (error: Error) => void;
  timer: Timer | null;
  /** Slot, or null while none was idle. */
  slot: number | null;
  /** True after its time ended while the host was executing it. */
  overdue: boolean;
}

/** How {@link GuestCalls} is wired. */
export interface GuestCallsOptions {
  /** The page. */
  readonly page: DoorbellPage;
  /** Where time-outs run. */
  readonly scheduler: Scheduler;
  /** How long a call may take, in ms. */
  readonly timeoutMs: number;
  /** The connection cannot go on. */
  readonly onBroken: (error: VbusError) => void;
}

/**
 * The guest's half of the call slots (`docs/abi/worker-wire.md` section 4). A call whose time ends
 *
 * * before it got a slot, or while POSTED, is withdrawn: ETIMEDOUT, and the host has read nothing of it;
 * * while TAKEN, gets the same time again; then the connection is broken, for the call can never be withdrawn and its
 *   block never be used again.
 */
export class GuestCalls {
  /** Calls that ended in ETIMEDOUT. */
  timeouts = 0;
  #slots: (PendingCall | null)[];
  #queue: PendingCall[] = [];
  #ended: VbusError | null = null;

  constructor(private readonly options: GuestCallsOptions) {
    this.#slots = new Array<PendingCall | null>(options.page.slots).fill(null);
  }

  /** Calls under way. */
  get pending(): number {
    return this.#queue.length + this.#slots.filter((call) => call !== null).length;
  }

  /** Makes a call. Resolves with the result; rejects with ETIMEDOUT or ENOTCONN. */
  call(vector: number, length: number, gpa: number): Promise<number> {
    if (this.#ended !== null) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const call: PendingCall = {
        vector,
        length,
        gpa,
        resolve,
        reject,
        timer: null,
        slot: null,
        overdue: false,
      };
      this.#armTimer(call);
      this.#queue.push(call);
      this.#postQueued();
    });
  }

  #armTimer(call: PendingCall): void {
    call.timer = this.options.scheduler.after(this.options.timeoutMs, () => {
      this.#timeout(call);
    });
  }

  /** Puts waiting calls into idle slots, oldest first. */
  #postQueued(): void {
    const { page } = this.options;
    const { words } = page;
    let posted = false;
    for (let i = 0; i < this.#slots.length && this.#queue.length > 0; i++) {
      const at = page.slot(i);
      // a slot whose call was cancelled is idle only once the host saw it
      if (this.#slots[i] !== null || Atomics.load(words, at) !== SLOT_IDLE) continue;
      const call = this.#queue.shift() as PendingCall;
      this.#slots[i] = call;
      call.slot = i;
      Atomics.store(words, at + (SLOT_OFF_VECTOR >>> 2), call.vector);
      Atomics.store(words, at + (SLOT_OFF_LEN >>> 2), call.length);
      Atomics.store(words, at + (SLOT_OFF_DATAP_LOW >>> 2), call.gpa >>> 0);
      Atomics.store(words, at + (SLOT_OFF_DATAP_HIGH >>> 2), Math.floor(call.gpa / 2 ** 32));
      Atomics.add(words, at + (SLOT_OFF_SERIAL >>> 2), 1);
      Atomics.store(words, at, SLOT_POSTED);
      posted = true;
    }
    if (posted) page.ring("host", BELL_CALLS);
  }

  /** Looks at every slot: takes results, breaks the connection for a state that is none, posts what waits. */
  look(): void {
    const { page } = this.options;
    for (const [i, call] of this.#slots.entries()) {
      if (call === null) continue;
      const state = Atomics.load(page.words, page.slot(i));
      if (state === SLOT_DONE) this.#take(i, call);
      else if (state !== SLOT_POSTED && state !== SLOT_TAKEN) {
        this.options.onBroken(
          new VbusError("EPROTO", `the host put call slot ${i} into state ${state}; connect again`),
        );
        return;
      }
    }
    if (this.#queue.length > 0) this.#postQueued();
  }

  #take(slot: number, call: PendingCall): void {
    const { page } = this.options;
    const at = page.slot(slot);
    const result = Atomics.load(page.words, at + (SLOT_OFF_RESULT >>> 2));
    Atomics.store(page.words, at, SLOT_IDLE);
    this.#slots[slot] = null;
    call.timer?.cancel();
    call.resolve(result);
  }

  /** Withdraws a call that the host has not taken. False: it has. */
  #cancel(slot: number): boolean {
    const { page } = this.options;
    return Atomics.compareExchange(page.words, page.slot(slot), SLOT_POSTED, SLOT_CANCELLED) === SLOT_POSTED;
  }

  #timeout(call: PendingCall): void {
    if (this.#ended !== null) return;
    const { timeoutMs, onBroken } = this.options;
    const { slot } = call;
    if (slot === null) {
      const waiting = this.#queue.indexOf(call);
      if (waiting >= 0) this.#queue.splice(waiting, 1);
      this.#fail(call, `no call slot was free for ${timeoutMs} ms: the host does not answer`);
      return;
    }
    if (this.#slots[slot] !== call) return;
    if (this.#cancel(slot)) {
      this.#slots[slot] = null;
      this.#fail(call, `the host did not take the call for ${timeoutMs} ms`);
      return;
    }
    this.look(); // done just now?
    if (this.#slots[slot] !== call) return;
    if (call.overdue) {
      onBroken(
        new VbusError(
          "ETIMEDOUT",
          `the host has been executing a call for ${2 * timeoutMs} ms; connect again`,
        ),
      );
      return;
    }
    call.overdue = true;
    this.#armTimer(call);
  }

  #fail(call: PendingCall, what: string): void {
    this.timeouts++;
    call.reject(new VbusError("ETIMEDOUT", what));
  }

  /**
   * Ends every call. What the host may be executing rejects with ETIMEDOUT, for it may still write to the block, unless
   * `hostGone` says that it will not; everything else with ENOTCONN.
   */
  end(reason: VbusError, hostGone: boolean): void {
    if (this.#ended !== null) return;
    for (const [i, call] of this.#slots.entries()) {
      if (call === null) continue;
      if (Atomics.load(this.options.page.words, this.options.page.slot(i)) === SLOT_DONE) {
        this.#take(i, call);
        continue;
      }
      this.#slots[i] = null;
      call.timer?.cancel();
      if (hostGone || this.#cancel(i))
        call.reject(new VbusError("ENOTCONN", reason.message, { cause: reason }));
      else this.#fail(call, `the connection ended while the host was executing the call (${reason.message})`);
    }
    for (const call of this.#queue) {
      call.timer?.cancel();
      call.reject(new VbusError("ENOTCONN", reason.message, { cause: reason }));
    }
    this.#queue = [];
    this.#ended = new VbusError("ENOTCONN", "the connection to the host has ended; connect again", {
      cause: reason,
    });
  }
}
