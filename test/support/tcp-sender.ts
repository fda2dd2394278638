import type { TcpCounters } from "./peer-counters.js";
import { Ranges } from "./ranges.js";

const RTO_FIRST_MS = 1000;
const RTO_MAX_MS = 10_000;
/** Time-outs in a row after which the other side is given up. */
const TIMEOUTS_MAX = 8;
/** Time-outs that probes of a closed window are counted as, at most: they double the time to the next one. */
const ZERO_WINDOW_TIMEOUTS = 4;
const INITIAL_SEGMENTS = 10;
/** The congestion window gets no smaller: less would wait for acknowledgements that receivers delay. */
const LEAST_SEGMENTS = 4;
const DUPLICATE_ACKS = 3;

/** What {@link TcpSender.tick} found. */
export type SenderVerdict = "idle" | "waiting" | "timeout" | "dead";

/**
 * The sending half of a TCP connection: window, congestion window, what was lost. Knows offsets in the stream, of which
 * the FIN is the last one; sequence numbers are the connection's business.
 *
 * Losses are found by selective or duplicate acknowledgements (RFC 6675, in essence: holes below what was acknowledged
 * selectively are sent once more, as fast as acknowledgements come in; without SACK one hole per round trip, RFC 6582),
 * else by time-out (everything from the first byte without acknowledgement is sent again).
 */
export class TcpSender {
  /** First byte that was not acknowledged. */
  una = 0;
  /** Next byte to be sent. */
  next = 0;
  /** End of what was ever sent. */
  max = 0;
  /** Bytes from `una` on that the other side has room for. */
  window = 0;
  mss = 536;
  /** Longest payload of a superframe, a multiple of `mss`. */
  longest = 536;
  /** Bytes that may be on their way. */
  congestionWindow = 0;
  /** Where {@link TcpSender.pick} wants the next bytes from. */
  from = 0;
  readonly #sacked = new Ranges();
  #threshold = Infinity;
  #duplicates = 0;
  /** End of what was sent when a loss was found; -1: no recovery is under way. */
  #recover = -1;
  /** Holes below were sent once more already. */
  #rescanned = 0;
  /** Bytes of holes that may be sent now. */
  #credit = 0;
  #probe = false;
  #deadline = 0;
  #timeouts = 0;
  #smoothed = 0;
  #variation = 0;
  #rto = RTO_FIRST_MS;
  /** End of the bytes whose round trip is being measured, and since when; -1: none. */
  #timedEnd = -1;
  #timedAt = 0;

  constructor(
    private readonly counters: TcpCounters,
    private readonly minRtoMs: number,
  ) {}

  /** The handshake is done. */
  start(mss: number, longest: number, window: number): void {
    this.mss = mss;
    this.longest = Math.max(mss, longest - (longest % mss));
    this.window = window;
    this.congestionWindow = INITIAL_SEGMENTS * mss;
  }

  /** Bytes sent and not acknowledged. */
  get flight(): number {
    return this.next - this.una;
  }

  /** Round trip time, smoothed, in ms; 0: not measured. */
  get roundTripMs(): number {
    return this.#smoothed;
  }

  /**
   * Bytes to be sent now, from {@link TcpSender.from} on; 0: none. `available` is the
   * stream's length so far.
   */
  pick(available: number): number {
    const hole = this.#pickHole();
    if (hole > 0) return hole;
    this.from = this.next;
    const left = available - this.next;
    if (left <= 0) return 0;
    const pipe = this.flight - this.#sacked.total;
    const usable = Math.min(this.una + this.window - this.next, this.congestionWindow - pipe);
    if (this.#probe && usable <= 0) {
      this.#probe = false;
      this.from = this.una;
      return 1;
    }
    if (usable <= 0) return 0;
    let n = Math.min(left, usable, this.longest);
    if (n === left) return n;
    if (n < this.mss) return this.flight === 0 && usable >= this.window ? n : 0;
    n -= n % this.mss;
    // worth a wait: acknowledgements of what is on its way make a longer superframe of it
    const short = n < this.longest && n < this.window / 4 && n < this.congestionWindow / 4;
    return short && this.flight > 0 ? 0 : n;
  }

  #pickHole(): number {
    if (this.#recover === -1 || this.#credit <= 0) return 0;
    const from = this.#sacked.gapFrom(Math.max(this.una, this.#rescanned));
    const limit = this.#sacked.count > 0 ? this.#sacked.end : Math.min(this.una + this.mss, this.max);
    if (from >= limit) return 0;
    const end = Math.min(this.#sacked.nextStart(from), limit, from + this.longest);
    this.from = from;
    const n = Math.min(end - from, Math.max(this.mss, this.#credit - (this.#credit % this.mss)));
    this.#credit -= n;
    this.#rescanned = from + n;
    return n;
  }

  /** Bytes [from, from + n) were sent. True: it was not the first time. */
  sent(from: number, n: number, now: number): boolean {
    const again = from < this.max;
    if (again)
      this.#timedEnd = -1; // nobody can tell which one is acknowledged
    else if (this.#timedEnd === -1) {
      this.#timedEnd = from + n;
      this.#timedAt = now;
    }
    if (from <= this.next) this.next = Math.max(this.next, from + n);
    this.max = Math.max(this.max, this.next);
    if (this.#deadline === 0) this.arm(now);
    return again;
  }

  /** Starts the clock of the retransmission time-out. */
  arm(now: number): void {
    this.#deadline = now + Math.min(RTO_MAX_MS, this.#rto * 2 ** this.#timeouts);
  }

  /** The clock is running. */
  get armed(): boolean {
    return this.#deadline !== 0;
  }

  /** Stops the clock. */
  disarm(): void {
    this.#deadline = 0;
    this.#timeouts = 0;
    this.#probe = false;
  }

  /**
   * An acknowledgement of everything below `offset` came in, with selective ones (begin and end by turns) and the window
   * from `offset` on. `pure`: without payload. Returns the number of bytes that it newly acknowledges.
   */
  acknowledge(
    offset: number,
    window: number,
    sacks: readonly number[],
    pure: boolean,
    wanting: boolean,
    now: number,
  ): number {
    if (offset < this.una) return 0; // overtaken
    const acknowledged = offset - this.una;
    const before = this.#sacked.total;
    for (let i = 0; i + 1 < sacks.length; i += 2) {
      const begin = Math.max(sacks[i]!, offset);
      if (sacks[i + 1]! <= this.max) this.#sacked.add(begin, sacks[i + 1]!);
    }
    const sameWindow = window === this.window;
    if (window === 0) {
      this.#timeouts = Math.min(this.#timeouts, ZERO_WINDOW_TIMEOUTS); // it is alive, and may take its time
    } else if (this.window === 0) {
      this.next = offset; // it opens: what probed it was not taken
      this.#timeouts = 0;
    }
    this.window = window;
    this.una = offset;
    this.next = Math.max(this.next, offset);
    this.#sacked.dropBelow(offset);
    const news = Math.max(0, this.#sacked.total - before);
    if (acknowledged > 0) this.#progress(acknowledged, offset, now);
    else if (this.flight > 0 && pure && (news > 0 || (sameWindow && sacks.length === 0))) this.#duplicates++;
    this.#credit +=
      this.#recover === -1 ? 0 : Math.max(this.mss, Math.min(acknowledged + news, 4 * this.longest));
    const lost = this.#duplicates >= DUPLICATE_ACKS || this.#sacked.total >= DUPLICATE_ACKS * this.mss;
    if (this.#recover === -1 && lost && this.flight > 0) this.#enterRecovery();
    // as long as bytes want to be sent somebody has to wake us, even if the window is closed
    if (this.flight > 0 || wanting) {
      if (acknowledged > 0 || this.#deadline === 0) this.arm(now);
    } else {
      this.#deadline = 0;
    }
    return acknowledged;
  }

  #progress(acknowledged: number, offset: number, now: number): void {
    this.#duplicates = 0;
    this.#timeouts = 0;
    this.#probe = false;
    if (this.#timedEnd !== -1 && offset >= this.#timedEnd) {
      this.#measure(Math.max(0.01, now - this.#timedAt));
      this.#timedEnd = -1;
    }
    if (this.#recover !== -1) {
      if (offset >= this.#recover) {
        this.#recover = -1;
        this.congestionWindow = Math.max(this.#threshold, LEAST_SEGMENTS * this.mss);
      } else if (this.#sacked.count === 0) {
        this.#rescanned = offset; // a partial acknowledgement: the next hole begins there
      }
    } else if (this.congestionWindow < this.#threshold) {
      this.congestionWindow += acknowledged;
    } else {
      this.congestionWindow += (this.mss * acknowledged) / this.congestionWindow;
    }
  }

  #enterRecovery(): void {
    this.counters.fastRecoveries++;
    this.#recover = this.max;
    this.#rescanned = this.una;
    this.#credit = this.mss;
    this.#reduce(Math.max(this.flight / 2, LEAST_SEGMENTS * this.mss));
  }

  #reduce(window: number): void {
    this.#threshold = window;
    this.congestionWindow = window;
  }

  /** A router on the way marked bytes of ours: at most once per round trip is this heeded. True: it was. */
  congested(): boolean {
    if (this.#recover !== -1 || this.una < this.#reducedUntil) return false;
    this.#reducedUntil = this.next;
    this.#reduce(Math.max(this.congestionWindow / 2, LEAST_SEGMENTS * this.mss));
    return true;
  }

  #reducedUntil = 0;

  #measure(ms: number): void {
    if (this.#smoothed === 0) {
      this.#smoothed = ms;
      this.#variation = ms / 2;
    } else {
      this.#variation += (Math.abs(this.#smoothed - ms) - this.#variation) / 4;
      this.#smoothed += (ms - this.#smoothed) / 8;
    }
    this.#rto = this.#smoothed + Math.max(this.minRtoMs, 4 * this.#variation);
  }

  /** Looks at the clock. "timeout": send again, from {@link TcpSender.next} on. */
  tick(now: number): SenderVerdict {
    if (this.#deadline === 0) return "idle";
    if (now < this.#deadline) return "waiting";
    if (++this.#timeouts > TIMEOUTS_MAX) return "dead";
    if (this.flight > 0 && this.window > 0) {
      this.counters.timeouts++;
      this.#reduce(Math.max(this.flight / 2, LEAST_SEGMENTS * this.mss));
      this.congestionWindow = LEAST_SEGMENTS * this.mss;
      this.next = this.una;
    } else {
      this.#probe = true;
    }
    this.#sacked.clear();
    this.#duplicates = 0;
    this.#recover = -1;
    this.#timedEnd = -1;
    this.arm(now);
    return "timeout";
  }
}
