import { BURST_LENGTH, BURST_SIGNAL, FRAME_GSO, RECHECK_INUSE_TAIL } from "../../../assembly/abi/arena.js";
import type { HostSignal } from "../../bus/types.js";
import { RESERVE_BUFFERS, type Queue, type QueueCounters } from "../../engine/queue.js";
import { BurstTable } from "../../engine/table.js";
import { moveFrames } from "../../engine/transfer.js";
import { QueueWakeups } from "../../engine/wakeup.js";
import type { Batch } from "../../net/batch.js";
import { coalesceFrames, takesFrame } from "../../net/offload.js";
import { countDrop, OFFLOAD_ECN, OFFLOAD_TCP4, OFFLOAD_TCP6, OFFLOAD_UDP_L4 } from "../../net/port.js";
import type { Timer } from "../../scheduler.js";
import type { L4roBuffers } from "./l4ro.js";
import { dropFrames } from "./statistics.js";
import type { DataEnvironment } from "./transmit.js";

/** Descriptors per burst. */
const BURST = 64;
const SUPERFRAMES = OFFLOAD_TCP4 | OFFLOAD_TCP6 | OFFLOAD_UDP_L4;

/** How the guest receives, settled at LINKUP. */
export interface ReceiveMode {
  /** Slots and pages; null: linear buffers. */
  l4ro: L4roBuffers | null;
  /** What was negotiated (`OFFLOAD_…` bits). */
  offloads: number;
}

const LINEAR: ReceiveMode = { l4ro: null, offloads: 0 };

/**
 * South of the RX ring: puts frames from the network into the buffers that the guest posted
 * (`docs/abi/venet.md` sections 6, 7, 8 and 11).
 */
export class ReceiveSide {
  readonly #wakeups: QueueWakeups;
  readonly #table: BurstTable;
  #mode = LINEAR;
  #congested = false;
  /** A superframe has waited for pages in vain. */
  #starved = false;
  #pageTimer: Timer | null = null;
  #failed = false;

  constructor(
    private readonly queue: Queue,
    private readonly signal: HostSignal,
    private readonly environment: DataEnvironment,
  ) {
    this.#table = BurstTable.allocate(queue.space, BURST);
    this.#wakeups = new QueueWakeups(queue, {
      scheduler: environment.scheduler,
      recheck: RECHECK_INUSE_TAIL,
      notifier: () => {
        this.#wakeups.disable();
        this.#congested = false;
        environment.port?.ready();
      },
      ring: () => {
        signal.notify();
      },
      onBroken: (error) => {
        this.#fail(error);
      },
    });
    signal.onDoorbell = this.#wakeups.wakeup;
  }

  /** Link up. */
  start(mode: ReceiveMode = LINEAR): void {
    this.#mode = mode;
  }

  /**
   * What the guest takes unfinished at this moment (`OFFLOAD_…` bits): superframes, unless one has waited for pages in
   * vain. Then it gets ordinary frames until there are pages for the largest (defect V8: never wait for ever).
   */
  get offloads(): number {
    const { l4ro, offloads } = this.#mode;
    if (l4ro === null || (offloads & SUPERFRAMES) === 0) return offloads;
    try {
      if (l4ro.takesLargest) {
        this.#fed();
        return offloads;
      }
      return this.#starved ? offloads & ~SUPERFRAMES : offloads;
    } catch (error) {
      this.#fail(error);
      return 0;
    }
  }

  /**
   * Delivers frames [from, to): returns how many are done with. Fewer: the guest has no buffer left; when it posts
   * some, the port's `ready()` is called.
   */
  deliver(batch: Batch, from: number, to: number): number {
    const { rx } = this.environment.statistics;
    if (this.queue.broken !== null) {
      dropFrames(rx, "broken", to - from);
      return to - from;
    }
    let at = from;
    try {
      while (at < to) {
        const n =
          this.#mode.l4ro === null
            ? this.#linear(batch, at, to)
            : this.#scattered(this.#mode.l4ro, batch, at, to);
        if (n === 0) break;
        at += n;
      }
    } catch (error) {
      dropFrames(rx, "broken", to - at);
      this.#fail(error);
      return to - from;
    }
    return at - from;
  }

  /** Fills linear buffers. Returns how many frames are done with; 0: congested. @throws VbusError EPROTO */
  #linear(batch: Batch, at: number, to: number): number {
    const { rx } = this.environment.statistics;
    const room = this.queue.reserve("inuse", this.#table, Math.min(BURST, to - at), RESERVE_BUFFERS);
    if (room === 0) return this.#withoutBuffers();
    const { taken, filled } = moveFrames(batch.table, at, to, this.#table, 0, room);
    if (filled > 0) {
      this.#wakeups.ringIf(this.queue.commit("inuse", this.#table, filled, BURST_LENGTH | BURST_SIGNAL));
    }
    rx.frames += taken;
    rx.passed += filled;
    for (let i = 0; i < filled; i++) rx.bytes += this.#table.length(i);
    countDrop(rx.drops, "buffer-too-small", taken - filled);
    return taken;
  }

  /** Fills slots, with pages for superframes. Returns how many frames are done with; 0: congested. @throws VbusError EPROTO */
  #scattered(l4ro: L4roBuffers, batch: Batch, at: number, to: number): number {
    const { statistics } = this.environment;
    const { rx } = statistics;
    const { offloads } = this;
    if (!takesFrame(offloads, batch, at) && !takesFrame(this.#mode.offloads, batch, at)) {
      dropFrames(rx, "bad-offload"); // the port was told what the guest takes
      return 1;
    }
    const room = l4ro.reserve(Math.min(BURST, to - at));
    if (room === 0) return this.#withoutBuffers();
    const end = at + room;
    let source = batch;
    let first = at;
    let last = end;
    if (this.environment.coalesce && room > 1 && (offloads & (OFFLOAD_TCP4 | OFFLOAD_TCP6)) !== 0) {
      // every frame must find its place once it is merged: buffers are reserved one for each, pages are counted first
      if (l4ro.takes(batch.byteCount(at, end), Math.ceil(room / 2))) {
        source = coalesceFrames(batch, at, end, offloads & (OFFLOAD_TCP4 | OFFLOAD_TCP6 | OFFLOAD_ECN));
        if (source !== batch) {
          first = 0;
          last = source.count;
        }
      }
    }
    const { taken, filled, short } = l4ro.fill(source, first, last, room);
    const { table } = l4ro;
    if (filled > 0) this.#wakeups.ringIf(this.queue.commit("inuse", null, filled, BURST_SIGNAL));
    let superframes = 0;
    for (let i = 0; i < filled; i++) {
      rx.bytes += table.length(i);
      if ((table.flags(i) & FRAME_GSO) !== 0) superframes++;
    }
    rx.passed += filled;
    countDrop(rx.drops, "buffer-too-small", taken - filled);
    if (source !== batch) {
      rx.frames += room;
      rx.merged += room - last;
      statistics.coalesced += superframes;
      // pages were counted, so nothing can be short unless the guest took some back; those frames are lost, and counted
      countDrop(rx.drops, "buffer-too-small", last - taken);
      return room;
    }
    rx.frames += taken;
    statistics.superframes_passed += superframes;
    if (short) {
      statistics.rxPagesShort++;
      // pages that come wake the port at once; when none come it looks anew at what this guest takes
      if (taken > 0) this.#fed(); // a guest that gives pages, if too few at a time, does not starve
      this.#pageTimer ??= this.environment.scheduler.after(this.environment.pageWaitMs, () => {
        this.#pageTimer = null;
        this.#starved = true;
        this.environment.port?.ready();
      });
      if (taken === 0) return 0;
    }
    return taken;
  }

  /** The guest has given pages. */
  #fed(): void {
    this.#starved = false;
    this.#pageTimer?.cancel();
    this.#pageTimer = null;
  }

  #withoutBuffers(): 0 {
    this.environment.statistics.rxCongested++;
    this.#congest();
    return 0;
  }

  #congest(): void {
    this.#congested = true;
    this.#wakeups.enable();
  }

  /**
   * While the guest leaves frames lying in the ring it is told again: a wake-up between LINKUP and the start of its
   * polling is swallowed by the drivers of 2009 (defect V12), and their half of shm-signal may lose one (R1).
   * Costs nothing while the guest polls, for then it is masked.
   */
  recheck(): void {
    if (this.queue.broken !== null) return;
    try {
      if (this.#congested || this.queue.countOf("inuse") > 0) this.#wakeups.inject();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.environment.failed("rx", error);
  }

  /**
   * FLUSHRX: returns every descriptor that south owns with length 0, without a signal. Returns how many.
   * @throws VbusError EPROTO when the guest broke the ring
   */
  flush(): number {
    let flushed = 0;
    try {
      while (flushed < this.queue.count) {
        const n = this.queue.reserve("inuse", this.#table, Math.min(BURST, this.queue.count - flushed));
        if (n === 0) break;
        if (this.#mode.l4ro === null) {
          for (let i = 0; i < n; i++) this.#table.setLength(i, 0);
          this.queue.commit("inuse", this.#table, n, BURST_LENGTH);
        } else {
          // an untouched slot has length 0; the descriptor's own length says the slot size, and must stay
          this.queue.commit("inuse", null, n, 0);
        }
        flushed += n;
      }
    } catch (error) {
      this.#fail(error);
      throw error;
    } finally {
      this.environment.statistics.flushed += flushed;
    }
    this.#congest();
    return flushed;
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** Link down: nothing waits any more. */
  stop(): void {
    this.#pageTimer?.cancel();
    this.#pageTimer = null;
    this.#congested = false;
    this.#wakeups.disable();
  }

  /** Ends it. */
  close(): void {
    this.stop();
    this.#wakeups.close();
    this.signal.onDoorbell = null;
    this.#mode.l4ro?.close();
    this.#mode = LINEAR;
    this.queue.close();
    this.#table.close();
    this.signal.release();
  }
}
