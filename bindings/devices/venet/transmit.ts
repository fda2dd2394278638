import {
  BURST_SIGNAL,
  ENTRY_OFF_COOKIE,
  FRAME_BAD_ADDRESS,
  FRAME_BAD_DESCRIPTOR,
  FRAME_BAD_OFFLOAD,
  FRAME_COOKIE_READ,
  FRAME_GSO,
  RECHECK_INUSE_HEAD,
} from "../../../assembly/abi/arena.js";
import {
  ETH_HEADER_SIZE,
  ETHERTYPE_QINQ,
  ETHERTYPE_VLAN,
  VLAN_TAG_SIZE,
} from "../../../assembly/abi/venet.js";
import type { HostSignal } from "../../bus/types.js";
import { PEEK_FRAMES, type Queue, type QueueCounters } from "../../engine/queue.js";
import { BurstTable } from "../../engine/table.js";
import { VsgReader, type DescriptorPool } from "../../engine/vsg.js";
import { QueueWakeups } from "../../engine/wakeup.js";
import { Batch } from "../../net/batch.js";
import { FrameQueue } from "../../net/frame-queue.js";
import { FrameStore } from "../../net/frame-store.js";
import { longestSegment, OffloadStage } from "../../net/offload.js";
import { countDrop, type DropReason, type Port } from "../../net/port.js";
import type { Scheduler } from "../../scheduler.js";
import type { EventSide } from "./events.js";
import { dropFrames, type VenetStatistics } from "./statistics.js";

/** Frames per burst. */
const BURST = 64;
const FRAME_BAD_ANY = FRAME_BAD_ADDRESS | FRAME_BAD_DESCRIPTOR | FRAME_BAD_OFFLOAD;
/** Bursts per run before other work of the thread gets its turn. */
const BURSTS_PER_RUN = 8;

/** What both sides of the data path need of their NIC; read anew for every burst, for attributes may change under way. */
export interface DataEnvironment {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** Counters of the NIC. */
  readonly statistics: VenetStatistics;
  /** Where frames go; null: nowhere (they are dropped as "no-link"). */
  readonly port: Port | null;
  /** True while the administrator has not taken the carrier away. */
  readonly carrier: boolean;
  /** Current MTU. */
  readonly mtu: number;
  /** Frames per completion signal; 0 = every frame. */
  readonly txMitigation: number;
  /** Merge segments for guests that take superframes. */
  readonly coalesce: boolean;
  /** How long superframes wait for pages of the guest before they are cut, in ms. */
  readonly pageWaitMs: number;
  /** The guest broke the queue (EPROTO), or something of the host failed; told once for a queue that is broken. */
  failed(queue: "rx" | "tx" | "event", error: unknown): void;
}

/** How the guest sends, settled at LINKUP. */
export interface TransmitMode {
  /** Descriptors are scatter-gather descriptors. */
  scatterGather: boolean;
  /** … in this pool; null: anywhere in guest memory. */
  pool: DescriptorPool | null;
  /** Kinds of superframes granted: bit 1 << GSO_…, bit 0 for ECN. */
  kinds: number;
  /** Where completions are told instead of on the TX ring; null: on the TX ring. */
  completions: EventSide | null;
}

const LINEAR: TransmitMode = { scatterGather: false, pool: null, kinds: 0, completions: null };

/** Longest ordinary frame: MTU and header, and room for the tags that it says it has. */
export function frameLimit(mtu: number, etherType: number): number {
  const tags = etherType === ETHERTYPE_VLAN ? 1 : etherType === ETHERTYPE_QINQ ? 2 : 0;
  return mtu + ETH_HEADER_SIZE + tags * VLAN_TAG_SIZE;
}

/**
 * South of the TX ring: drains what the guest sends into the port (`docs/abi/venet.md` section 11).
 *
 * Frames stay in the guest's ring until the port took them: when it has no room, the ring fills and the guest waits.
 */
export class TransmitSide {
  readonly #wakeups: QueueWakeups;
  readonly #linear: Batch;
  readonly #stage: OffloadStage;
  #reader: VsgReader | null = null;
  #scattered: Batch | null = null;
  /** Segments of a superframe that the port did not take all of: they come first. */
  #rest: FrameQueue | null = null;
  #store: FrameStore | null = null;
  #mode = LINEAR;
  #running = false;
  #scheduled = false;
  #unsignalled = 0;
  #draining = false;
  #failed = false;

  constructor(
    private readonly queue: Queue,
    private readonly signal: HostSignal,
    private readonly environment: DataEnvironment,
  ) {
    this.#linear = new Batch(BurstTable.allocate(queue.space, BURST));
    this.#stage = new OffloadStage(environment.statistics);
    this.#wakeups = new QueueWakeups(queue, {
      scheduler: environment.scheduler,
      recheck: RECHECK_INUSE_HEAD,
      notifier: () => {
        this.#wakeups.disable();
        this.#drain();
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

  /** Link up: looks at the ring, then waits for doorbells. @throws VbusError ENOMEM */
  start(mode: TransmitMode = LINEAR): void {
    if (this.queue.broken !== null) return; // for good, and reported already
    this.#mode = mode;
    if (mode.scatterGather && this.#reader === null) {
      this.#reader = new VsgReader(this.queue, BURST);
      this.#scattered = new Batch(this.#reader.table);
    }
    this.#failed = false;
    this.#running = true;
    this.#schedule();
  }

  /** Link down: what is in the ring stays there. */
  stop(): void {
    this.#running = false;
    this.#wakeups.disable();
  }

  /** The port has room again, or there is a port at last. */
  resume(): void {
    if (this.#running) this.#schedule();
  }

  /** Looks for frames that a guest with the orderings of 2009 announced and nobody heard (defect R1). */
  recheck(): void {
    // a ring that turns out to be broken has no payload, but a drain says why
    if (this.#running && (this.queue.hasPayload || this.queue.broken !== null)) this.#schedule();
  }

  #fail(error: unknown): void {
    this.stop();
    if (this.#failed) return;
    this.#failed = true;
    this.environment.failed("tx", error);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.environment.scheduler.post(() => {
      this.#scheduled = false;
      this.#drain();
    });
  }

  #drain(): void {
    if (!this.#running || this.#draining || this.queue.closed) return;
    this.#draining = true;
    try {
      this.#drainBursts();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#draining = false;
    }
  }

  /** The table that descriptors are read into. */
  get #batch(): Batch {
    return this.#mode.scatterGather && this.#scattered !== null ? this.#scattered : this.#linear;
  }

  /** Where frames go at this moment. */
  get #port(): Port | null {
    return this.environment.carrier ? this.environment.port : null;
  }

  #peek(): number {
    const { scatterGather, pool, kinds } = this.#mode;
    return scatterGather && this.#reader !== null
      ? this.#reader.peek(BURST, pool, kinds)
      : this.queue.peek("inuse", this.#linear.table, BURST, PEEK_FRAMES);
  }

  #drainBursts(): void {
    const { queue } = this;
    for (let burst = 0; burst < BURSTS_PER_RUN; burst++) {
      if (!this.#sendRest()) return; // the port calls writable()
      if (this.#waitsForEvents()) {
        this.#complete(0, true); // what waits must be on its way, or nobody would ever drain it
        if (this.#waitsForEvents()) return; // eventsDrained() resumes
      }
      const n = this.#peek();
      if (n === 0) {
        this.#complete(0, true);
        this.#wakeups.enable(); // looks at the ring again and schedules when something came in between
        return;
      }
      const taken = this.#pass(n);
      if (queue.closed) return; // the session ended inside the port
      this.#complete(taken, taken < n || this.#holds);
      if (taken < n) return; // the port calls writable()
    }
    this.#schedule();
  }

  /** The guest leaves so many completions undrained that it may send no more. */
  #waitsForEvents(): boolean {
    return this.#mode.completions?.full === true;
  }

  /** Segments of a superframe wait for the network. */
  get #holds(): boolean {
    return this.#rest !== null && this.#rest.count > 0;
  }

  /** Hands over what is left of a superframe. False: the port has no room. */
  #sendRest(): boolean {
    const rest = this.#rest;
    if (rest === null) return true;
    const { tx } = this.environment.statistics;
    while (rest.count > 0) {
      const port = this.#port;
      const { start, run, batch } = rest;
      const bytes = batch.byteCount(start, start + run);
      const n = port === null ? run : port.transmit(batch, start, start + run);
      if (this.queue.closed) return false;
      if (port === null) countDrop(tx.drops, "no-link", n);
      else {
        tx.passed += n;
        tx.bytes += n === run ? bytes : batch.byteCount(start, start + n);
      }
      rest.shift(n);
      tx.held = rest.count;
      if (n < run) return false;
    }
    return true;
  }

  /** Hands n frames to the port, dropping those that no NIC would send. Returns how many are done with. */
  #pass(n: number): number {
    const port = this.#port;
    const { statistics } = this.environment;
    const { tx } = statistics;
    const batch = this.#batch;
    batch.count = n;
    let done = 0;
    while (done < n) {
      let end = done;
      let reason: DropReason | null = null;
      while (end < n && (reason = this.#fault(end)) === null) end++;
      if (end > done) {
        if (port === null) {
          dropFrames(tx, "no-link", end - done);
        } else {
          const taken = this.#transmit(port, batch, done, end);
          tx.frames += taken;
          // nothing may overtake the rest of a superframe, which waits
          if (taken < end - done || this.#holds) {
            statistics.txCongested++;
            return done + taken;
          }
        }
      }
      if (reason !== null) {
        dropFrames(tx, reason);
        end++;
      }
      done = end;
    }
    return done;
  }

  /** Hands frames to the port, finished where it does not take them as they are. Returns how many are gone. */
  #transmit(port: Port, batch: Batch, from: number, to: number): number {
    const { tx } = this.environment.statistics;
    return this.#stage.hand(
      batch,
      from,
      to,
      port.offloads,
      (frames, first, end) => {
        if (this.queue.closed) return 0; // the session ended inside the port
        const n = port.transmit(frames, first, end);
        tx.passed += n;
        tx.bytes += frames.byteCount(first, first + n);
        return n;
      },
      (frames, first, end) => this.#keep(frames, first, end),
      (refused) => {
        countDrop(tx.drops, "bad-offload", refused);
      },
      (more) => {
        tx.replicated += more;
      },
    );
  }

  /** Keeps segments that the port did not take: their superframe goes back to the guest as sent. */
  #keep(batch: Batch, from: number, to: number): number {
    const { tx } = this.environment.statistics;
    if (this.queue.closed) {
      countDrop(tx.drops, "closed", to - from);
      return to - from;
    }
    this.#store ??= new FrameStore(this.queue.space);
    this.#rest ??= new FrameQueue(this.#store, Infinity, Infinity);
    const kept = this.#rest.appendAll(batch, from, to);
    countDrop(tx.drops, "queue-full", to - from - kept); // the arena is full
    tx.held = this.#rest.count;
    return to - from;
  }

  /** Why a frame must not be sent, or null. */
  #fault(i: number): DropReason | null {
    const batch = this.#batch;
    const flags = batch.table.flags(i);
    if ((flags & FRAME_BAD_ANY) !== 0) {
      if ((flags & FRAME_BAD_ADDRESS) !== 0) return "bad-address";
      return (flags & FRAME_BAD_DESCRIPTOR) !== 0 ? "bad-descriptor" : "bad-offload";
    }
    if (batch.table.bufferAddress(i) === 0) return "bad-address"; // and its head was not read
    const length = batch.length(i);
    if (length < ETH_HEADER_SIZE) return "undersize";
    const limit = frameLimit(this.environment.mtu, batch.etherType(i));
    if ((flags & FRAME_GSO) !== 0) {
      // validated here even when it passes untouched: whoever gets it may believe its headers
      const longest = longestSegment(batch, i);
      return longest < 0 || longest > limit ? "bad-offload" : null;
    }
    return length > limit ? "oversize" : null;
  }

  /** Gives n descriptors back, and signals every `txMitigation` frames and after the last. */
  #complete(n: number, last: boolean): void {
    const { completions } = this.#mode;
    this.#unsignalled += n;
    const due = this.#unsignalled > 0 && (last || this.#unsignalled >= this.environment.txMitigation);
    if (due) this.#unsignalled = 0;
    if (n > 0) {
      const signal = due && completions === null ? BURST_SIGNAL : 0;
      this.#wakeups.ringIf(this.queue.release("inuse", null, n, signal)); // strictly before its completions are told
      if (completions !== null) this.#tell(completions, n);
    } else if (due && completions === null) {
      this.#wakeups.ringIf(this.queue.release("inuse", null, 0, BURST_SIGNAL));
    }
    if (due) completions?.flush();
  }

  /** Adds a completion for each of the n descriptors just released, where its cookie is known (defect V1). */
  #tell(completions: EventSide, n: number): void {
    const { table } = this.#batch;
    const { bytes } = table.space;
    for (let i = 0; i < n; i++) {
      if (this.#mode.scatterGather && (table.flags(i) & FRAME_COOKIE_READ) === 0) continue;
      const at = table.entry(i) + ENTRY_OFF_COOKIE;
      completions.complete(bytes.slice(at, at + 8));
    }
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** Ends it. Frames that the guest sent and nobody took are counted as "closed". */
  close(): void {
    this.stop();
    this.#wakeups.close();
    const { tx } = this.environment.statistics;
    if (this.queue.broken === null) dropFrames(tx, "closed", this.#left());
    countDrop(tx.drops, "closed", this.#rest?.clear() ?? 0);
    tx.held = 0;
    this.signal.onDoorbell = null;
    this.#rest?.close();
    this.#store?.close();
    this.#reader?.close();
    this.queue.close();
    this.#linear.table.close();
    this.signal.release();
  }

  #left(): number {
    try {
      return this.queue.peek("inuse", null, this.queue.count);
    } catch (error) {
      this.#fail(error);
      return 0;
    }
  }
}
