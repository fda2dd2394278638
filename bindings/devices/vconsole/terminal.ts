import { ByteQueue } from "../../bytes/byte-queue.js";
import { ByteInbox, type ByteSink } from "../../bytes/inbox.js";
import { chunksOf, readableOf, writableOf } from "../../bytes/web-streams.js";
import { VbusError } from "../../errors.js";
import { checkGiven } from "../../given.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { ConsoleDropReason, ConsoleStatistics } from "./statistics.js";

/** Size of a terminal's window in characters; 0 = unknown. */
export interface WindowSize {
  /** Characters per line, 0 … 65535. */
  cols: number;
  /** Lines, 0 … 65535. */
  rows: number;
}

/** How a {@link Terminal} begins. */
export interface TerminalOptions extends Partial<WindowSize> {
  /**
   * Bytes held in each direction (default 65536, 1 … 16 MiB): towards the guest, and from it while nobody reads. A chunk
   * that was begun is taken whole, so up to 64 KiB more may be held from the guest.
   */
  backlog?: number;
  /** False: hung up until {@link Terminal.open}. Default true. */
  open?: boolean;
}

/** Who ended a conversation: the guest, the host, the end of the guest's session, or a guest that broke a ring. */
export type HangupReason = "guest" | "host" | "closed" | "broken";

/** What a terminal tells the session that it is connected to. @internal */
export interface TerminalLine {
  /** There are bytes, a break or a hang-up for the guest. */
  inputReady(): void;
  /** There is room for bytes of the guest again. */
  outputReady(): void;
  /** The window size changed. */
  resized(): void;
  /** The terminal was opened. */
  opened(): void;
}

interface Writer {
  bytes: Uint8Array;
  done: number;
  resolve: (accepted: number) => void;
}

/** Largest {@link Terminal.backlog}. */
export const BACKLOG_MAX = 16 << 20;
/** Most lines, or characters per line. */
export const SIZE_MAX = 0xffff;
const BACKLOG_DEFAULT = 65536;
/** Most bytes of one direction that a saved state can hold: a chunk that was begun is taken whole. */
const INPUT_MAX = BACKLOG_MAX + (1 << 20);
const BREAKS_MAX = 1 << 20;

/**
 * The host's end of a console (`docs/abi/vconsole.md`): made by the embedder, handed to `vconsoleClass`. It outlives
 * guests and sessions; conversations with them begin and end (section 5). Bytes are bytes: nothing is interpreted.
 *
 * ```ts
 * const terminal = new Terminal({ cols: 120, rows: 40 });
 * terminal.onData = (bytes) => screen.write(bytes);       // or: for await (const bytes of terminal) …
 * await terminal.write(new TextEncoder().encode("ls\n"));
 * terminal.resize(100, 30);
 * ```
 *
 * Used by the host's thread.
 */
export class Terminal {
  /** A conversation with a guest began. */
  onOpen: (() => void) | null = null;
  /**
   * A conversation ended; told after its last byte was handed out. To go on after {@link Terminal.hangup}, call
   * {@link Terminal.open}; after the guest's hang-up the terminal is ready for the next conversation.
   */
  onHangup: ((reason: HangupReason) => void) | null = null;
  /** The guest sent a break, between the bytes before and after it. */
  onBreak: (() => void) | null = null;

  #cols: number;
  #rows: number;
  #limit: number;
  #open: boolean;
  #connected = false;
  #line: TerminalLine | null = null;
  #report: ((message: string, error: unknown) => void) | null = null;
  #hangingUp: { resolve: () => void; promise: Promise<void> } | null = null;
  readonly #backlog = new ByteQueue();
  /** Bytes that ever left the back-log, and where (on that scale) breaks are due. */
  #left = 0;
  #breaks: number[] = [];
  #writers: Writer[] = [];
  readonly #inbox: ByteInbox;
  readonly #statistics: ConsoleStatistics = {
    tx: { bytes: 0, passed: 0, drops: {}, held: 0 },
    rx: { bytes: 0, passed: 0, drops: {}, held: 0 },
    conversations: 0,
    hangups: 0,
    resizes: 0,
  };

  /** @throws VbusError EINVAL for a size or back-log out of range */
  constructor(options: TerminalOptions = {}) {
    const { cols = 80, rows = 24, backlog = BACKLOG_DEFAULT, open = true } = options;
    checkSize(cols, rows);
    this.#cols = cols;
    this.#rows = rows;
    this.#limit = checkBacklog(backlog);
    this.#open = open;
    this.#inbox = new ByteInbox({
      limit: () => this.#limit,
      onRoom: () => this.#line?.outputReady(),
      onError: (error) => {
        this.#fail(error);
      },
    });
  }

  /** The embedder's callback failed: its own affair, but somebody should hear of it. */
  #fail(error: unknown): void {
    if (this.#report !== null) this.#report("a callback of the terminal failed", error);
    else
      queueMicrotask(() => {
        throw error;
      });
  }

  /** Characters per line. */
  get cols(): number {
    return this.#cols;
  }

  /** Lines. */
  get rows(): number {
    return this.#rows;
  }

  /** Bytes that may be held in each direction. Lowering it drops nothing. @throws VbusError EINVAL */
  get backlog(): number {
    return this.#limit;
  }

  set backlog(bytes: number) {
    this.#limit = checkBacklog(bytes);
    this.#fill();
    this.#inbox.flush();
  }

  /** True while a conversation with a guest is on. */
  get connected(): boolean {
    return this.#connected;
  }

  /** False from {@link Terminal.hangup} to {@link Terminal.open}. */
  get isOpen(): boolean {
    return this.#open && this.#hangingUp === null;
  }

  /** Takes bytes of the guest as they come. A promise that it returns holds the guest back; null: they wait for read(). */
  get onData(): ByteSink | null {
    return this.#inbox.sink;
  }

  set onData(sink: ByteSink | null) {
    this.#inbox.sink = sink;
  }

  #assertOpen(): void {
    if (!this.isOpen)
      throw new VbusError("ENOTCONN", "the terminal hung up; call open() to wait for a guest again");
  }

  /**
   * Writes bytes for the guest, in order. Resolves when all are in the back-log or further, with their number: leave them
   * unchanged until then. While a guest is there, waits for room. While none is there, the back-log keeps what came first
   * for the next conversation; the rest is dropped and counted as "no-guest", and the number is smaller.
   * Bytes that a guest did not take before its conversation ended are dropped and counted as "hangup".
   * Rejects with ENOTCONN when the terminal hung up.
   */
  async write(bytes: Uint8Array): Promise<number> {
    this.#assertOpen();
    if (this.#writers.length === 0 && bytes.length <= this.#room()) return this.#accept(bytes);
    return new Promise((resolve) => {
      this.#writers.push({ bytes, done: 0, resolve });
      this.#fill();
    });
  }

  /**
   * Writes as many of the bytes as the back-log has room for, from the first on. Returns how many: 0 while a write waits.
   * Drops nothing. @throws VbusError ENOTCONN when the terminal hung up
   */
  tryWrite(bytes: Uint8Array): number {
    this.#assertOpen();
    if (this.#writers.length > 0) return 0;
    return this.#accept(bytes.subarray(0, this.#room()));
  }

  #room(): number {
    return Math.max(0, this.#limit - this.#backlog.length);
  }

  #accept(bytes: Uint8Array): number {
    this.#backlog.push(bytes);
    this.#statistics.rx.bytes += bytes.length;
    if (bytes.length > 0) this.#line?.inputReady();
    return bytes.length;
  }

  /** Moves what writers have into the back-log; without a guest nobody waits. */
  #fill(): void {
    for (let writer; (writer = this.#writers[0]) !== undefined;) {
      writer.done += this.#accept(writer.bytes.subarray(writer.done, writer.done + this.#room()));
      if (writer.done < writer.bytes.length) {
        if (this.#connected) return;
        this.#dropRest(writer, "no-guest");
      }
      this.#writers.shift();
      writer.resolve(writer.done);
    }
  }

  #dropRest(writer: Writer, reason: ConsoleDropReason): void {
    const rest = writer.bytes.length - writer.done;
    this.#statistics.rx.bytes += rest;
    this.#drop("rx", reason, rest);
  }

  #drop(direction: "tx" | "rx", reason: ConsoleDropReason, n: number): void {
    if (n === 0) return;
    const { drops } = this.#statistics[direction];
    drops[reason] = (drops[reason] ?? 0) + n;
  }

  /**
   * Sends a break, behind what is in the back-log. Several at one place are one. Returns false, and does nothing, while
   * no conversation is on. @throws VbusError ENOTCONN when the terminal hung up
   */
  sendBreak(): boolean {
    this.#assertOpen();
    if (!this.#connected) return false;
    const position = this.#left + this.#backlog.length;
    if (this.#breaks.at(-1) !== position) this.#breaks.push(position);
    this.#line?.inputReady();
    return true;
  }

  /** Changes the window size; the guest is told of the last one of many. @throws VbusError EINVAL outside 0 … 65535 */
  resize(cols: number, rows: number): void {
    checkSize(cols, rows);
    if (cols === this.#cols && rows === this.#rows) return;
    this.#cols = cols;
    this.#rows = rows;
    this.#statistics.resizes++;
    this.#line?.resized();
  }

  /**
   * Hangs up: bytes written before are delivered first, what the guest sends from now on is dropped and counted, then the
   * guest is told. Resolves when the conversation is over. `now`: bytes not delivered yet are dropped and counted.
   * Nothing is accepted until {@link Terminal.open}. Harmless when hung up.
   */
  hangup(options: { now?: boolean } = {}): Promise<void> {
    if (!this.#open) return Promise.resolve();
    if (!this.#connected) {
      this.#open = false;
      this.#clearInput();
      return Promise.resolve();
    }
    if (this.#hangingUp === null) {
      let resolve = (): void => {};
      const promise = new Promise<void>((settle) => (resolve = settle));
      this.#hangingUp = { resolve, promise };
    }
    const { promise } = this.#hangingUp;
    if (options.now === true) this.#clearInput();
    this.#line?.inputReady();
    return promise;
  }

  /** Ready for the next conversation after {@link Terminal.hangup}. Harmless when open. @throws VbusError EBUSY while hanging up */
  open(): void {
    if (this.#hangingUp !== null)
      throw new VbusError("EBUSY", "the terminal is still hanging up; await hangup() first");
    if (this.#open) return;
    this.#open = true;
    this.#line?.opened();
  }

  /** Forgets what was written for a guest that will not get it. */
  #clearInput(): void {
    const n = this.#backlog.clear();
    this.#left += n;
    this.#breaks = [];
    this.#drop("rx", "hangup", n);
    for (const writer of this.#writers.splice(0)) {
      this.#dropRest(writer, "hangup");
      writer.resolve(writer.done);
    }
  }

  /**
   * Waits for bytes of the guest, when there is no {@link Terminal.onData}. They are yours. Empty once at the end of each
   * conversation.
   */
  read(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#inbox.read();
  }

  /** Chunks until the conversation ends. */
  [Symbol.asyncIterator](): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
    return chunksOf(this);
  }

  /** A web stream of what the guest sends, until the conversation ends. */
  readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return readableOf(this);
  }

  /** A web stream for the guest. Closing it hangs up. */
  writable(): WritableStream<Uint8Array> {
    return writableOf(this);
  }

  /** What was counted. A snapshot. */
  statistics(): ConsoleStatistics {
    const { tx, rx, ...counts } = this.#statistics;
    return {
      tx: { ...tx, drops: { ...tx.drops }, passed: this.#inbox.handedOut, held: this.#inbox.length },
      rx: { ...rx, drops: { ...rx.drops }, held: this.#backlog.length },
      ...counts,
    };
  }

  /** A device takes the terminal. @throws VbusError EBUSY when another one has it @internal */
  claim(report: (message: string, error: unknown) => void): void {
    if (this.#report !== null)
      throw new VbusError("EBUSY", "this terminal belongs to another console; give each its own");
    this.#report = report;
  }

  /** The device is gone. @internal */
  disown(): void {
    this.#report = null;
  }

  /** A session of a guest is connected to the terminal, or (null) ended. @internal */
  connect(line: TerminalLine | null): void {
    this.#line = line;
  }

  /** A conversation begins. @internal */
  begin(): void {
    this.#connected = true;
    this.#statistics.conversations++;
    this.#inbox.begin(() => this.onOpen?.());
  }

  /** The conversation ended. @internal */
  finish(reason: HangupReason): void {
    if (!this.#connected) return;
    this.#connected = false;
    this.#statistics.hangups++;
    this.#clearInput();
    this.#inbox.end(() => this.onHangup?.(reason));
    const hangingUp = this.#hangingUp;
    this.#hangingUp = null;
    if (hangingUp === null) return;
    this.#open = false;
    hangingUp.resolve();
  }

  /** The conversation that is on, as plain data: what waits for the guest, and what it sent that nobody has read. @internal */
  save(): StateValue {
    const output = this.#inbox.copyStream();
    return {
      input: this.#backlog.copy(),
      inputBreaks: this.#breaks.map((position) => position - this.#left),
      output: output.bytes,
      outputBreaks: output.breaks,
      hangingUp: this.#hangingUp !== null,
    };
  }

  /** A conversation that was saved goes on, ahead of what was written for the next one. @internal @throws StateError */
  restore(state: StateReader): void {
    const input = state.get("input").bytes(0, INPUT_MAX);
    const output = state.get("output").bytes(0, INPUT_MAX);
    const inputBreaks = readBreaks(state.get("inputBreaks"), input.length);
    const outputBreaks = readBreaks(state.get("outputBreaks"), output.length);
    const hangingUp = state.get("hangingUp").boolean();
    this.#open = true;
    this.begin();
    const next = this.#backlog.copy();
    this.#backlog.clear();
    this.#backlog.push(input);
    this.#backlog.push(next);
    this.#statistics.rx.bytes += input.length;
    this.#breaks = inputBreaks.map((position) => this.#left + position);
    let from = 0;
    for (const position of outputBreaks) {
      this.deliver(output.subarray(from, position));
      this.deliverBreak();
      from = position;
    }
    this.deliver(output.subarray(from));
    if (hangingUp) void this.hangup();
  }

  /** True when the host hung up and the conversation is not over yet. @internal */
  get hangingUp(): boolean {
    return this.#hangingUp !== null;
  }

  /** Bytes for the guest before the next break. @internal */
  get inputLength(): number {
    const next = this.#breaks[0];
    return next === undefined ? this.#backlog.length : next - this.#left;
  }

  /** True when neither bytes nor breaks wait for the guest. @internal */
  get inputEmpty(): boolean {
    return this.#breaks.length === 0 && this.#backlog.length === 0 && this.#writers.length === 0;
  }

  /** Moves bytes for the guest to its buffer, no more than {@link Terminal.inputLength}. Returns how many. @internal */
  takeInput(target: Uint8Array): number {
    const n = this.#backlog.takeInto(target.subarray(0, this.inputLength));
    this.#left += n;
    this.#statistics.rx.passed += n;
    return n;
  }

  /** The guest took bytes: writers go on. @internal */
  inputTaken(): void {
    this.#fill();
  }

  /** Takes a break that is due. @internal */
  takeBreak(): boolean {
    if (this.#breaks[0] !== this.#left) return false;
    this.#breaks.shift();
    return true;
  }

  /** True when a chunk of the guest may be delivered. @internal */
  hasRoom(): boolean {
    return this.#inbox.hasRoom();
  }

  /** Bytes of the guest: copied; handed out by {@link Terminal.flush}. @internal */
  deliver(bytes: Uint8Array): void {
    this.#statistics.tx.bytes += bytes.length;
    this.#inbox.push(bytes);
  }

  /** Bytes of the guest that nobody will get. @internal */
  discard(reason: ConsoleDropReason, n: number): void {
    this.#statistics.tx.bytes += n;
    this.#drop("tx", reason, n);
  }

  /** The guest sent a break. @internal */
  deliverBreak(): void {
    this.#inbox.mark(() => this.onBreak?.());
  }

  /** Hands out what was delivered. @internal */
  flush(): void {
    this.#inbox.flush();
  }
}

/** Positions among `length` bytes, rising. @throws StateError */
function readBreaks(state: StateReader, length: number): number[] {
  let last = -1;
  return state.items(BREAKS_MAX).map((item) => {
    last = item.number(last + 1, length);
    return last;
  });
}

function checkSize(cols: number, rows: number): void {
  for (const n of [cols, rows]) {
    if (!Number.isInteger(n) || n < 0 || n > SIZE_MAX)
      throw new VbusError("EINVAL", `a window of ${cols} x ${rows}; use whole numbers from 0 to 65535`);
  }
}

function checkBacklog(bytes: number): number {
  if (!Number.isInteger(bytes) || bytes < 1 || bytes > BACKLOG_MAX)
    throw new VbusError("EINVAL", `a back-log of ${bytes} bytes; use 1 to ${BACKLOG_MAX}`);
  return bytes;
}

/**
 * Passes through what a callback or an option of the embedder gave as a terminal.
 * @param what - beginning of the message, such as "`terminal` is"
 * @throws VbusError EINVAL for anything that is none, a promise above all
 */
export function checkTerminal(terminal: Terminal, what: string): Terminal {
  return checkGiven(terminal, what, "give a terminal: `new Terminal()`", "claim", "disown", "connect");
}
