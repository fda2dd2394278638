import {
  FRAME_BAD_ADDRESS,
  FRAME_BAD_DESCRIPTOR,
  FRAME_BAD_OFFLOAD,
  FRAME_GSO,
} from "../../../assembly/abi/arena.js";
import {
  ETH_HEADER_SIZE,
  ETHERTYPE_QINQ,
  ETHERTYPE_VLAN,
  VLAN_TAG_SIZE,
} from "../../../assembly/abi/venet.js";
import { VbusError } from "../../errors.js";
import type { Batch } from "../../net/batch.js";
import { FrameQueue } from "../../net/frame-queue.js";
import { FRAME_LENGTH_MAX, FrameStore } from "../../net/frame-store.js";
import { longestSegment, OffloadStage } from "../../net/offload.js";
import { countDrop, type DropReason, type Port } from "../../net/port.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { NicEnvironment } from "./environment.js";
import type { FrameSource } from "./source.js";
import { dropFrames } from "./statistics.js";

const FRAME_BAD_ANY = FRAME_BAD_ADDRESS | FRAME_BAD_DESCRIPTOR | FRAME_BAD_OFFLOAD;
/** Most segments that a superframe leaves: it has 64 KiB, and a segment a byte of payload or more. */
const REST_MAX = 65536;
/** Bursts per run before other work of the thread gets its turn. */
const BURSTS_PER_RUN = 8;

/** Longest ordinary frame: MTU and header, and room for the tags that it says it has. */
export function frameLimit(mtu: number, etherType: number): number {
  const tags = etherType === ETHERTYPE_VLAN ? 1 : etherType === ETHERTYPE_QINQ ? 2 : 0;
  return mtu + ETH_HEADER_SIZE + tags * VLAN_TAG_SIZE;
}

/**
 * From the guest to the network: drains what it sends into the port.
 *
 * Frames stay in the guest's ring until the port took them: when it has no room, the ring fills and the guest waits.
 */
export class TransmitSide {
  readonly #stage: OffloadStage;
  /** Segments of a superframe that the port did not take all of: they come first. */
  #rest: FrameQueue | null = null;
  #store: FrameStore | null = null;
  #running = false;
  #scheduled = false;
  #draining = false;
  #failed = false;

  constructor(
    private readonly source: FrameSource,
    private readonly environment: NicEnvironment,
  ) {
    this.#stage = new OffloadStage(environment.statistics);
    source.listen(
      () => {
        this.#drain();
      },
      (error) => {
        this.#fail(error);
      },
    );
  }

  /** Link up: looks at the ring, then waits to be woken. */
  start(): void {
    if (this.source.broken) return; // for good, and reported already
    this.#failed = false;
    this.#running = true;
    this.#schedule();
  }

  /** Link down: what is in the ring stays there. */
  stop(): void {
    this.#running = false;
    this.source.disable();
  }

  /** The port has room again, or there is a port at last. */
  resume(): void {
    if (this.#running) this.#schedule();
  }

  /** Looks for frames that a guest with the orderings of 2009 announced and nobody heard (defect R1). */
  recheck(): void {
    // a ring that turns out to be broken has no payload, but a drain says why
    if (this.#running && (this.source.hasFrames || this.source.broken)) this.#schedule();
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
    if (!this.#running || this.#draining || this.source.closed) return;
    this.#draining = true;
    try {
      this.#drainBursts();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#draining = false;
    }
  }

  /** Where frames go at this moment. */
  get #port(): Port | null {
    return this.environment.carrier ? this.environment.port : null;
  }

  #drainBursts(): void {
    const { source } = this;
    for (let burst = 0; burst < BURSTS_PER_RUN; burst++) {
      if (!this.#sendRest()) return; // the port calls writable()
      if (source.blocked) {
        source.release(0, true); // what waits must be on its way, or nobody would ever drain it
        if (this.#stillBlocked) return; // it resumes by itself
      }
      const n = source.peek();
      if (n === 0) {
        source.release(0, true);
        source.enable(); // looks at the ring again and schedules when something came in between
        return;
      }
      const taken = this.#pass(n);
      if (source.closed) return; // the session ended inside the port
      source.release(taken, taken < n || this.#holds);
      if (taken < n) return; // the port calls writable()
    }
    this.#schedule();
  }

  /** Looks again, after completions went out. */
  get #stillBlocked(): boolean {
    return this.source.blocked;
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
      if (this.source.closed) return false;
      if (port === null) countDrop(tx.drops, "no-link", n);
      else {
        tx.passed += n;
        tx.bytes += n === run ? bytes : batch.byteCount(start, start + n);
      }
      rest.shift(n);
      tx.held -= n;
      if (n < run) return false;
    }
    return true;
  }

  /** Hands n frames to the port, dropping those that no NIC would send. Returns how many are done with. */
  #pass(n: number): number {
    const port = this.#port;
    const { statistics } = this.environment;
    const { tx } = statistics;
    const { batch } = this.source;
    batch.count = n;
    let done = 0;
    while (done < n) {
      let end = done;
      let reason: DropReason | null = null;
      while (end < n && (reason = this.#fault(batch, end)) === null) end++;
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
        if (this.source.closed) return 0; // the session ended inside the port
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
    if (this.source.closed) {
      countDrop(tx.drops, "closed", to - from);
      return to - from;
    }
    this.#store ??= new FrameStore(this.source.space);
    this.#rest ??= new FrameQueue(this.#store, Infinity, Infinity);
    const kept = this.#rest.appendAll(batch, from, to);
    countDrop(tx.drops, "queue-full", to - from - kept); // the arena is full
    tx.held += kept;
    return to - from;
  }

  /** Why a frame must not be sent, or null. */
  #fault(batch: Batch, i: number): DropReason | null {
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

  /** Sends a frame of the card's own, ahead of what the guest sends; counted like the guest's. */
  send(frame: Uint8Array): void {
    const { tx } = this.environment.statistics;
    this.#store ??= new FrameStore(this.source.space);
    this.#rest ??= new FrameQueue(this.#store, Infinity, Infinity);
    const handle = this.#store.keepBytes(frame);
    if (handle === 0) {
      dropFrames(tx, "queue-full"); // the arena is full
      return;
    }
    this.#rest.push(handle);
    tx.frames++;
    tx.held++;
    this.resume();
  }

  /** Segments that the network did not take: the guest believes them sent. Finished frames, oldest first. */
  save(): StateValue {
    const rest = this.#rest;
    const frames: Uint8Array[] = [];
    for (let i = 0; rest !== null && i < rest.count; i++) frames.push(rest.frame(i));
    return { rest: frames, failed: this.#failed };
  }

  /** Takes over what was kept when the state was saved. @throws StateError; VbusError ENOMEM */
  restore(state: StateReader): void {
    this.#failed = state.get("failed").boolean();
    const frames = state.get("rest").items(REST_MAX);
    if (frames.length === 0) return;
    const { space } = this.source;
    this.#store ??= new FrameStore(space);
    this.#rest ??= new FrameQueue(this.#store, Infinity, Infinity);
    for (const item of frames) {
      const bytes = item.bytes(ETH_HEADER_SIZE, FRAME_LENGTH_MAX);
      const handle = this.#store.keepBytes(bytes);
      if (handle === 0)
        throw new VbusError("ENOMEM", "no memory left for frames of a saved state; make the arena larger");
      this.#rest.push(handle);
    }
    this.environment.statistics.tx.held += frames.length;
  }

  /** Ends it. Frames that the guest sent and nobody took are counted as "closed". */
  close(): void {
    this.stop();
    const { tx } = this.environment.statistics;
    if (!this.source.broken) dropFrames(tx, "closed", this.#left());
    const held = this.#rest?.clear() ?? 0;
    countDrop(tx.drops, "closed", held);
    tx.held -= held;
    this.#rest?.close();
    this.#store?.close();
    this.source.close();
  }

  #left(): number {
    try {
      return this.source.left();
    } catch (error) {
      this.#fail(error);
      return 0;
    }
  }
}
