/**
 * The guest driver of 2009, written out by hand from `docs/abi/venet.md` sections 10 and 11: one descriptor at a time,
 * iterators with AUTOUPDATE, both indexes, a signal for every frame and every buffer.
 */
import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SET_VALID,
  RingIterator,
  WAKEUP_RUN,
  RECHECK_NONE,
} from "vbus/engine";
import { ITER_AUTOUPDATE, ITER_NOFLIPOWNER } from "vbus/abi";
import { RX_COOKIE, TX_COOKIE, type RawGuest, type RawRing } from "./raw-guest.js";

const ALL = BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID;

export class V4Nic {
  readonly rx: RawRing;
  readonly tx: RawRing;
  readonly received: Uint8Array[] = [];
  flushed = 0;
  /** Doorbells rung. */
  doorbells = 0;
  /** False: the guest announces nothing it sends. */
  signals = true;
  /** True: wake-ups find polling disabled and are swallowed (defect V12). */
  deaf = false;
  readonly #rxSignal: number;
  readonly #txSignal: number;
  readonly #send: RingIterator;

  constructor(
    readonly guest: RawGuest,
    readonly count = 8,
    ilp32 = false,
    readonly mtu = 1500,
  ) {
    const { rx, tx, rxSignal, txSignal } = guest.rings(count, ilp32);
    this.rx = rx;
    this.tx = tx;
    this.#rxSignal = rxSignal;
    this.#txSignal = txSignal;
    const post = new RingIterator(rx.queue, "valid");
    post.seek("tail");
    while (post.read()?.valid === 0) {
      post.write(this.#freshBuffer(), ALL);
      post.push();
    }
    post.close();
    rx.queue.enable(RECHECK_NONE);
    tx.queue.enable(RECHECK_NONE);
    this.#send = new RingIterator(tx.queue, "both", ITER_AUTOUPDATE);
  }

  #freshBuffer(): { gpa: number; length: number; cookie: number } {
    const length = this.mtu + 14;
    const gpa = this.guest.memory.ram.allocate(length, 4);
    return { gpa, length, cookie: gpa };
  }

  /** Sends one frame; false: the ring is full. */
  send(frame: Uint8Array, descriptor: { gpa?: number; length?: number } = {}): boolean {
    if (this.tx.queue.countOf("valid") === this.count) return false;
    const { ram, space } = this.guest.memory;
    const gpa = ram.allocate(Math.max(frame.length, 1), 4);
    space.copyTo(gpa, frame);
    this.#send.seek("tail");
    this.#send.write({ gpa, length: frame.length, cookie: gpa, ...descriptor }, ALL);
    if (this.#send.push() === 1 && this.signals) {
      this.doorbells++;
      this.guest.doorbell(this.#txSignal);
    }
    return true;
  }

  /** Frees what the host has sent. Returns how many. */
  reap(): number {
    const reclaim = new RingIterator(this.tx.queue, "valid", ITER_NOFLIPOWNER);
    let n = 0;
    for (; reclaim.seek("head") === 0 && reclaim.read()?.valid === 1 && reclaim.read()?.owner === 0; n++) {
      this.guest.memory.ram.free(reclaim.read()?.cookie ?? 0);
      reclaim.write({}, BURST_CLEAR_VALID);
      reclaim.pop();
    }
    reclaim.close();
    return n;
  }

  /** Harvests the RX ring, reposting a buffer for each descriptor. Returns how many. */
  poll(budget = Infinity): number {
    const harvest = new RingIterator(this.rx.queue, "inuse", ITER_AUTOUPDATE);
    let n = 0;
    for (; n < budget && harvest.seek("head") === 0 && harvest.read()?.owner === 0; n++) {
      const { length, cookie } = harvest.read() ?? { length: 0, cookie: 0 };
      if (length === 0) this.flushed++;
      else this.received.push(this.guest.memory.space.copyFrom(cookie, length));
      this.guest.memory.ram.free(cookie);
      harvest.write(this.#freshBuffer(), ALL);
      if (harvest.pop() === 1) {
        this.doorbells++;
        this.guest.doorbell(this.#rxSignal);
      }
    }
    harvest.close();
    if (n < budget) this.rx.queue.enable(RECHECK_NONE);
    return n;
  }

  /** Takes events and serves them as the drivers did. Returns how many there were. */
  interrupts(): number {
    const events = this.guest.events();
    for (const event of events) {
      if (event.kind !== "shmsignal") continue;
      if (event.cookie === RX_COOKIE) {
        this.#wakeup(this.rx, () => {
          this.rx.queue.disable();
          if (!this.deaf) this.poll();
          else this.rx.queue.enable(RECHECK_NONE);
        });
      } else if (event.cookie === TX_COOKIE) {
        this.#wakeup(this.tx, () => this.reap());
      }
    }
    return events.length;
  }

  #wakeup({ queue }: RawRing, notifier: () => void): void {
    let turn = queue.wakeupBegin(8, RECHECK_NONE);
    while (turn === WAKEUP_RUN) {
      notifier();
      turn = queue.wakeupNext(RECHECK_NONE);
    }
  }
}
