import type { FrameReader } from "./frame-reader.js";
import type { TcpCounters } from "./peer-counters.js";
import { Ranges } from "./ranges.js";
import type { Stream } from "./streams.js";
import { SACKS_MAX } from "./tcp-wire.js";

/** Longest that an acknowledgement waits for more to acknowledge. */
const DELAY_MS = 20;
/** Acknowledgements sent for segments out of order in one burst, to somebody who counts them. */
const REPEATS_MAX = 3;

/**
 * The receiving half of a TCP connection: what came in, in which order, and what is to be acknowledged when. Knows offsets
 * in the stream, of which the FIN is the last one. Bytes out of order go to the stream like all others: it knows where
 * they belong.
 */
export class TcpReceiver {
  /** First byte that has not come. */
  next = 0;
  /** The other side's FIN has come, and everything before it. */
  finished = false;
  /** Acknowledgements to be sent now: more than one for somebody who counts repetitions. */
  due = 0;
  readonly #early = new Ranges();
  /** Offset of the FIN; -1: not known. */
  #end = -1;
  /** Bytes received since the last acknowledgement. */
  #unacknowledged = 0;
  #deadline = 0;
  /** Right edge of the window that was told: it never goes back. */
  #edge = 0;
  /** The latest bytes out of order. */
  #latest = 0;

  constructor(
    private readonly stream: Stream,
    private readonly counters: TcpCounters,
  ) {}

  /**
   * Payload of a segment. `at` is where it lies in the frame; `offset` where it belongs in the stream. `whole`: a
   * superframe, or the end of what its sender had to say, which is acknowledged at once. `counting`: the other side counts
   * repeated acknowledgements.
   */
  receive(
    offset: number,
    frame: FrameReader,
    at: number,
    length: number,
    fin: boolean,
    whole: boolean,
    mss: number,
    counting: boolean,
    now: number,
  ): void {
    if (this.finished) {
      if (length > 0 || fin) this.demand(); // nothing can follow: it has not heard that we know
      return;
    }
    if (fin && this.#end === -1) this.#end = offset + length;
    const begin = offset;
    const limit = this.#end === -1 ? Infinity : this.#end;
    const end = Math.min(offset + length, Math.max(this.#edge, this.next), limit);
    if (offset < this.next) offset = this.next;
    if (offset < end) {
      if (offset === this.next && this.#early.count === 0) {
        this.stream.accept(offset, frame, at + offset - begin, end - offset);
        this.#advance(end, whole, mss, now);
      } else {
        this.#fill(offset, end, frame, at - begin, counting);
      }
    } else if (length > 0) {
      if (begin + length <= this.next) this.counters.duplicates++;
      else this.counters.unacceptable++;
      this.due = Math.max(this.due, 1);
    }
    if (this.next === this.#end) {
      this.finished = true;
      this.next = this.#end + 1;
      this.due = Math.max(this.due, 1);
      this.stream.ended();
    } else if (fin) {
      this.due = Math.max(this.due, 1);
    }
  }

  #advance(end: number, whole: boolean, mss: number, now: number): void {
    this.counters.bytesReceived += end - this.next;
    this.#unacknowledged += end - this.next;
    this.next = end;
    this.stream.advance(end);
    if (whole || this.#unacknowledged >= 2 * mss) this.due = Math.max(this.due, 1);
    else if (this.#deadline === 0) this.#deadline = now + DELAY_MS;
  }

  #fill(offset: number, end: number, frame: FrameReader, base: number, counting: boolean): void {
    const early = this.#early;
    if (offset > this.next) {
      this.counters.outOfOrder++;
      this.#latest = offset;
    }
    let fresh = false;
    for (let from = early.gapFrom(offset); from < end; from = early.gapFrom(from)) {
      const to = Math.min(end, early.nextStart(from));
      if (!early.add(from, to)) break; // too many holes: it will come again
      this.stream.accept(from, frame, base + from, to - from);
      fresh = true;
    }
    if (!fresh) this.counters.duplicates++;
    const gap = early.gapFrom(this.next);
    if (gap > this.next) {
      early.dropBelow(gap);
      this.#advance(gap, true, 1, 0);
    }
    this.due = counting ? Math.min(REPEATS_MAX, this.due + 1) : 1;
  }

  /** Asks for an acknowledgement, for whatever reason. */
  demand(): void {
    this.due = Math.max(this.due, 1);
  }

  /** The window, in bytes. An acknowledgement with it is being sent. */
  acknowledge(scale: number): number {
    this.due = Math.max(0, this.due - 1);
    this.#unacknowledged = 0;
    this.#deadline = 0;
    const room = this.finished ? 0 : this.stream.window(this.next);
    const step = 2 ** scale;
    const window = Math.min(65535, Math.max(0, Math.floor(Math.max(room, this.#edge - this.next) / step)));
    this.#edge = Math.max(this.#edge, this.next + window * step);
    return window;
  }

  /** The stream made room: tells the other side when that is worth a segment. */
  update(mss: number): void {
    if (this.finished) return;
    const told = this.#edge - this.next;
    const room = this.stream.window(this.next);
    if (room - told >= 2 * mss && told < room / 2) this.demand();
  }

  /** Selective acknowledgements: begin and end by turns, the latest first. */
  sacks(): number[] {
    const { starts, ends, count } = this.#early;
    if (count === 0) return [];
    const edges: number[] = [];
    let latest = 0;
    while (latest < count - 1 && ends[latest]! <= this.#latest) latest++;
    for (let n = 0; n < Math.min(SACKS_MAX, count); n++) {
      const i = (latest + n) % count;
      edges.push(starts[i]!, ends[i]!);
    }
    return edges;
  }

  /** Looks at the clock of the delayed acknowledgement. True: it is still running. */
  tick(now: number): boolean {
    if (this.#deadline === 0) return false;
    if (now < this.#deadline) return true;
    this.#deadline = 0;
    this.demand();
    return false;
  }

  /** A delayed acknowledgement waits. */
  get waiting(): boolean {
    return this.#deadline !== 0;
  }
}
