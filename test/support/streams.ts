import type { MemorySpace } from "vbus/memory";
import type { FrameReader } from "./frame-reader.js";
import { patternPosition, type PatternMemory } from "./pattern.js";
import type { PeerCounters } from "./peer-counters.js";
import type { Payload } from "./transmit-queue.js";

/** What a stream may use. */
export interface StreamContext {
  readonly space: MemorySpace;
  readonly pattern: PatternMemory;
  readonly counters: PeerCounters;
}

/** What is at the end of a TCP connection: gets its bytes, and says what it sends. Offsets count from 0 in each direction. */
export interface Stream {
  /** Bytes that there is room for behind what came in order. */
  window(next: number): number;
  /** Bytes from `offset` on, which were not there before, at [at, at + length) of a frame. In any order. */
  accept(offset: number, frame: FrameReader, at: number, length: number): void;
  /** Everything below `next` is there. */
  advance(next: number): void;
  /** The other side sends no more. */
  ended(): void;
  /** Bytes that may be sent, from the beginning on. */
  readonly available: number;
  /** Nothing follows those. */
  readonly complete: boolean;
  /** Says where bytes lie that are to be sent, for the first time or once more. */
  place(offset: number, length: number, payload: Payload): void;
  /** The other side has everything below `offset`. */
  acknowledged(offset: number): void;
  /** The connection is over. */
  close(): void;
}

/** Makes the stream of a connection. */
export type StreamFactory = (context: StreamContext) => Stream;

/** Options of a {@link PatternStream}. */
export interface PatternStreamOptions {
  /** Bytes to send; Infinity: until somebody stops it. Default 0. */
  send?: number;
  /** Seed of what is sent; default 0. */
  sendSeed?: number;
  /** Compare what comes in with the pattern; default true. */
  verify?: boolean;
  /** Seed of what comes in; default 0. */
  receiveSeed?: number;
  /** Bytes that there is always room for; default 4 MiB. */
  receiveWindow?: number;
}

/** Sends the pattern, and compares what comes in with it: sink and source in one. */
export class PatternStream implements Stream {
  /** Bytes received in order. */
  received = 0;
  /** Bytes that the other side acknowledged. */
  delivered = 0;
  /** Ranges received that were not the pattern. */
  patternErrors = 0;
  /** Where the first one began, -1 while there is none. */
  firstError = -1;
  #total: number;
  #placed = 0;
  #ended = false;
  readonly #sendSeed: number;
  readonly #receiveSeed: number;
  readonly #verify: boolean;
  readonly #window: number;

  constructor(
    private readonly context: StreamContext,
    options: PatternStreamOptions = {},
  ) {
    const { send = 0, sendSeed = 0, verify = true, receiveSeed = 0, receiveWindow = 4 << 20 } = options;
    this.#total = send;
    this.#sendSeed = sendSeed;
    this.#receiveSeed = receiveSeed;
    this.#verify = verify;
    this.#window = receiveWindow;
  }

  window(): number {
    return this.#window;
  }

  accept(offset: number, frame: FrameReader, at: number, length: number): void {
    if (!this.#verify || frame.matches(at, length, patternPosition(offset, this.#receiveSeed))) return;
    this.patternErrors++;
    this.context.counters.patternErrors++;
    if (this.firstError === -1) this.firstError = offset;
  }

  advance(next: number): void {
    this.received = next;
  }

  /** Ends a stream that was to go on for ever; call `refresh` of its connection. */
  stop(): void {
    this.ended();
  }

  ended(): void {
    this.#ended = true;
    if (this.#total === Infinity) this.#total = this.#placed;
  }

  get available(): number {
    return this.#total;
  }

  get complete(): boolean {
    // a mere sink says goodbye when the other side did
    return this.#ended || (this.#total > 0 && this.#total !== Infinity);
  }

  place(offset: number, length: number, payload: Payload): void {
    this.#placed = Math.max(this.#placed, offset + length);
    payload.add(this.context.pattern.at(offset, this.#sendSeed), length);
  }

  acknowledged(offset: number): void {
    this.delivered = offset;
  }

  close(): void {
    this.#ended = true;
  }
}

/** Sends back what comes in, through a ring buffer. */
export class EchoStream implements Stream {
  /** Bytes received in order. */
  received = 0;
  #freed = 0;
  #ended = false;
  #closed = false;
  readonly #buffer: number;

  /** @throws VbusError ENOMEM */
  constructor(
    private readonly context: StreamContext,
    private readonly size = 256 * 1024,
  ) {
    this.#buffer = context.space.allocate(size, 64);
  }

  window(next: number): number {
    return Math.max(0, this.#freed + this.size - next);
  }

  accept(offset: number, frame: FrameReader, at: number, length: number): void {
    const place = offset % this.size;
    const first = Math.min(length, this.size - place);
    const { bytes } = this.context.space;
    frame.copy(at, first, bytes, this.#buffer + place);
    frame.copy(at + first, length - first, bytes, this.#buffer);
  }

  advance(next: number): void {
    this.received = next;
  }

  ended(): void {
    this.#ended = true;
  }

  get available(): number {
    return this.received;
  }

  get complete(): boolean {
    return this.#ended;
  }

  place(offset: number, length: number, payload: Payload): void {
    const place = offset % this.size;
    const first = Math.min(length, this.size - place);
    payload.add(this.#buffer + place, first);
    if (length > first) payload.add(this.#buffer, length - first);
  }

  acknowledged(offset: number): void {
    this.#freed = offset;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.context.space.free(this.#buffer);
  }
}

/** A service that takes everything, and says nothing. */
export function sink(options: Omit<PatternStreamOptions, "send" | "sendSeed"> = {}): StreamFactory {
  return (context) => new PatternStream(context, options);
}

/** A service that sends `bytes` of the pattern (Infinity: as long as the other side listens), and takes everything. */
export function source(bytes: number, options: Omit<PatternStreamOptions, "send"> = {}): StreamFactory {
  return (context) => new PatternStream(context, { ...options, send: bytes });
}

/** A service that sends everything back. */
export function echo(size?: number): StreamFactory {
  return (context) => new EchoStream(context, size);
}
