import { RECHECK_INUSE_HEAD, RECHECK_VALID_HEAD } from "../../../assembly/abi/arena.js";
import {
  VCONSOLE_BREAK,
  VCONSOLE_EVENT_BREAK,
  VCONSOLE_EVENT_HANGUP,
  VCONSOLE_EVENT_OPENED,
  VCONSOLE_EVENT_SIZE,
  VCONSOLE_EVENT_WINSIZE,
  VCONSOLE_HANGUP,
  VCONSOLE_QUEUE_EVENTS,
  VCONSOLE_QUEUE_RX,
  VCONSOLE_QUEUE_TX,
  VCONSOLE_READY,
  VCONSOLE_VERSION,
  VCONSOLE_WINSIZE,
  VCONSOLE_WINSIZE_OFF_COLS,
  VCONSOLE_WINSIZE_OFF_ROWS,
  VCONSOLE_WINSIZE_SIZE,
} from "../../../assembly/abi/vconsole.js";
import { ByteInbox, type ByteSink } from "../../bytes/inbox.js";
import { chunksOf, readableOf, writableOf } from "../../bytes/web-streams.js";
import type { QueueCounters } from "../../engine/queue.js";
import { VbusError } from "../../errors.js";
import type { ProxyDevice, ProxyQueue } from "../proxy.js";
import { checkOptions, type VconsoleOptions, type VirtualConsoleStatistics } from "./options.js";
import { parseEvent, type ConsoleEvent } from "./events.js";
import { FilledRing } from "./receive.js";
import { TransmitQueue } from "./transmit.js";

/** Buffers per poll before other work of the thread gets its turn. */
const POLL_BUDGET = 64;

/**
 * A console in a guest (`docs/abi/vconsole.md`). Created by {@link VconsoleDriver}; belongs to the guest's thread.
 *
 * ```ts
 * await console.open();                              // ready; bytes flow as soon as the host's terminal is there
 * await console.write(encoder.encode("login: "));    // waits for room in the ring
 * for await (const bytes of console) …               // until somebody hangs up
 * ```
 */
export class VirtualConsole {
  /** A conversation began: the host's terminal is there. */
  onOpen: (() => void) | null = null;
  /** The host hung up; told after its last byte was handed out. Writes have been failing since it is known. */
  onHangup: (() => void) | null = null;
  /** The window has another size. */
  onResize: ((cols: number, rows: number) => void) | null = null;
  /** The host sent a break, between the bytes before and after it. */
  onBreak: (() => void) | null = null;
  /** Called once when the console cannot go on: a ring broke, or the host is gone. What remains is to close it. */
  onError: ((error: unknown) => void) | null = null;

  readonly #rx: FilledRing;
  readonly #tx: TransmitQueue;
  readonly #events: FilledRing;
  readonly #inbox: ByteInbox;
  /** Conversation that this guest is ready for; 0: none. */
  #conversation = 0;
  /** Number of the last conversation, for READY counts them. */
  #last = 0;
  #opening = false;
  /** Between OPENED and the end, on the RX stream. */
  #up = false;
  /** The same, as far as writing is concerned: events count when they arrive. */
  #writable = false;
  /** Bytes of the RX stream that were taken. */
  #position = 0;
  /** Events that wait for their place in the RX stream. */
  #marks: ConsoleEvent[] = [];
  #cols = 0;
  #rows = 0;
  /** Window sizes told by events; a query that was overtaken by one is out of date. */
  #sizesTold = 0;
  #scheduled = false;
  #closed = false;
  #failure: Error | null = null;
  #finalCounters: Record<"rx" | "tx" | "events", QueueCounters> | null = null;
  #rxBytes = 0;
  #rxDiscarded = 0;
  #rxErrors = 0;

  private constructor(
    /** The device, as the proxy bus knows it. */
    readonly device: ProxyDevice,
    private readonly queues: Record<"rx" | "tx" | "events", ProxyQueue>,
    hooks: Hooks,
    options: Required<VconsoleOptions>,
  ) {
    const { memory } = device.bus.transport;
    const onError = (error: unknown): void => {
      this.#fail(error);
    };
    this.#inbox = new ByteInbox({
      limit: () => options.backlog,
      onRoom: () => {
        this.#schedule();
      },
      onError: (error) => {
        this.#throwLater(error);
      },
    });
    this.#rx = new FilledRing(queues.rx, memory, options.bufferSize);
    try {
      this.#events = new FilledRing(queues.events, memory, VCONSOLE_EVENT_SIZE);
      try {
        const mayPush = (): boolean => this.#writable;
        this.#tx = new TransmitQueue(queues.tx, memory, options.bufferSize, mayPush, onError);
      } catch (error) {
        this.#events.close(true);
        throw error;
      }
    } catch (error) {
      this.#rx.close(true);
      throw error;
    }
    device.onLost = onError;
    hooks.fail = onError;
    hooks.wakeTx = () => {
      this.#tx.wake();
    };
    hooks.wakeRx = () => {
      queues.rx.wakeups.disable();
      this.#schedule();
    };
    hooks.wakeEvents = () => {
      queues.events.wakeups.disable();
      this.#schedule();
    };
  }

  /** Brings a device up to the point where `open()` works: the probe of `docs/abi/vconsole.md` section 7. @internal */
  static async probe(device: ProxyDevice, options: VconsoleOptions): Promise<VirtualConsole> {
    const full = checkOptions(options);
    await device.open(VCONSOLE_VERSION);
    const hooks: Hooks = { wakeRx: () => {}, wakeTx: () => {}, wakeEvents: () => {}, fail: () => {} };
    const onBroken = (error: unknown): void => {
      hooks.fail(error);
    };
    const receive = { role: "northReceive", recheck: RECHECK_INUSE_HEAD, onBroken } as const;
    const rx = await device.createQueue(VCONSOLE_QUEUE_RX, {
      ...receive,
      count: full.rxRing,
      notifier: () => {
        hooks.wakeRx();
      },
    });
    const tx = await device.createQueue(VCONSOLE_QUEUE_TX, {
      count: full.txRing,
      role: "northTransmit",
      recheck: RECHECK_VALID_HEAD,
      notifier: () => {
        hooks.wakeTx();
      },
      onBroken,
    });
    const events = await device.createQueue(VCONSOLE_QUEUE_EVENTS, {
      ...receive,
      count: full.eventRing,
      notifier: () => {
        hooks.wakeEvents();
      },
    });
    const console = new VirtualConsole(device, { rx, tx, events }, hooks, full);
    try {
      console.#rx.post();
      console.#events.post();
      await console.#querySize();
    } catch (error) {
      await console.close();
      throw error;
    }
    return console;
  }

  #reasonUnusable(): Error | null {
    return this.#closed
      ? new VbusError("ENOTCONN", "the console is closed; probe the device again")
      : this.#failure;
  }

  #assertUsable(): void {
    const reason = this.#reasonUnusable();
    if (reason !== null) throw reason;
  }

  async #querySize(): Promise<void> {
    const told = this.#sizesTold;
    const block = new Uint8Array(VCONSOLE_WINSIZE_SIZE);
    await this.device.call(VCONSOLE_WINSIZE, block);
    if (told !== this.#sizesTold) return;
    const view = new DataView(block.buffer);
    this.#cols = view.getUint16(VCONSOLE_WINSIZE_OFF_COLS, true);
    this.#rows = view.getUint16(VCONSOLE_WINSIZE_OFF_ROWS, true);
  }

  /** Window size in characters; 0 = unknown. As of the probe, then of the last open() or onResize. */
  get windowSize(): { cols: number; rows: number } {
    return { cols: this.#cols, rows: this.#rows };
  }

  /** True while a conversation is on. */
  get connected(): boolean {
    return this.#up;
  }

  /**
   * Ready for a conversation, also after a hang-up. It begins when the host's terminal is there ({@link
   * VirtualConsole.onOpen}); writes wait until then. @throws VbusError EINVAL when open already, closed, or the host's
   * errno
   */
  async open(): Promise<void> {
    this.#assertUsable();
    if (this.#conversation !== 0 || this.#opening)
      throw new VbusError("EINVAL", "the console is open already; hang up first");
    this.#opening = true;
    this.#conversation = this.#last === 0x7fffffff ? 1 : this.#last + 1; // events may come before READY's answer
    this.#last = this.#conversation;
    const expected = this.#conversation;
    try {
      const number = await this.device.call(VCONSOLE_READY);
      if (number !== expected)
        throw new VbusError(
          "EPROTO",
          `the host counts conversation ${number}, this guest ${expected}; reopen`,
        );
    } catch (error) {
      this.#fail(error);
      throw error;
    } finally {
      this.#opening = false;
    }
    this.#assertUsable();
    this.queues.rx.wakeups.enable();
    this.queues.events.wakeups.enable();
    await this.#querySize();
  }

  /**
   * Writes bytes, in order. Resolves when all are in the ring (leave them unchanged until then); waits for the
   * conversation to begin, and for room. @throws VbusError ENOTCONN when the console is not open or somebody hangs up
   * (some of the bytes may have been sent), EPROTO
   */
  async write(bytes: Uint8Array): Promise<void> {
    this.#assertWritable();
    await this.#tx.write(bytes);
  }

  /** Writes as many of the bytes as there is room for now, from the first on. Returns how many: 0 while others wait. */
  tryWrite(bytes: Uint8Array): number {
    this.#assertWritable();
    return this.#tx.tryPush(bytes);
  }

  #assertWritable(): void {
    this.#assertUsable();
    if (this.#conversation === 0)
      throw new VbusError("ENOTCONN", "no conversation is on; call open() to begin one");
  }

  /** Sends a break behind what was written before. @throws VbusError ENOTCONN when somebody hangs up first */
  async sendBreak(): Promise<void> {
    this.#assertWritable();
    if (!this.#writable)
      throw new VbusError("ENOTCONN", "the host's terminal is not there yet; wait for onOpen");
    await this.#tx.act(async () => {
      await this.#callUnlessOver(VCONSOLE_BREAK);
    });
  }

  /** ENOENT: the host's hang-up was faster, and is on its way. */
  async #callUnlessOver(func: number): Promise<void> {
    try {
      await this.device.call(func);
    } catch (error) {
      if (!(error instanceof VbusError) || error.code !== "ENOENT") throw error;
    }
  }

  /**
   * Waits for bytes; resolves with all that came, yours. Empty once at the end of a conversation; the next read waits for
   * the one after it. What was received before the console failed or was closed is still handed out.
   * @throws VbusError ENOTCONN, EPROTO
   */
  read(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#inbox.read();
  }

  /** Takes bytes as they come, instead of {@link VirtualConsole.read}. A promise that it returns holds the host back. */
  get onData(): ByteSink | null {
    return this.#inbox.sink;
  }

  set onData(sink: ByteSink | null) {
    this.#inbox.sink = sink;
  }

  /** Chunks until the conversation ends. */
  [Symbol.asyncIterator](): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
    return chunksOf(this);
  }

  /** A web stream of what the host sends, until the conversation ends. */
  readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return readableOf(this);
  }

  /** A web stream for the host. Closing it hangs up. */
  writable(): WritableStream<Uint8Array> {
    return writableOf(this);
  }

  /**
   * Hangs up behind what was written before; the host gets all of it. What it still sends is discarded. `now`: writes
   * that wait for room fail. Harmless when no conversation is on. @throws VbusError the host's errno
   */
  async hangup(options: { now?: boolean } = {}): Promise<void> {
    if (this.#reasonUnusable() !== null || this.#conversation === 0) return;
    const conversation = this.#conversation;
    if (options.now === true || !this.#writable) this.#tx.end(hungUp("this guest"));
    try {
      await this.#tx.act(async () => {
        if (this.#conversation !== conversation) return;
        await this.#callUnlessOver(VCONSOLE_HANGUP);
        if (this.#conversation === conversation) this.#hungUpHere();
      });
    } catch (error) {
      // the other side was faster, or the console was closed: it is over either way
      if (!(error instanceof VbusError) || error.code !== "ENOTCONN" || this.#failure !== null) throw error;
    }
  }

  #hungUpHere(): void {
    const up = this.#up;
    this.#conversation = 0;
    this.#up = false;
    this.#writable = false;
    this.#marks = [];
    this.#tx.end(hungUp("this guest"));
    if (up) this.#inbox.end(() => {});
    this.#inbox.flush();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.device.bus.transport.scheduler.post(() => {
      this.#scheduled = false;
      this.#poll();
    });
  }

  #poll(): void {
    if (this.#reasonUnusable() !== null) return;
    try {
      if (this.#takeBytes()) this.#schedule();
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#inbox.flush();
    this.#tx.pump();
  }

  /** Returns true when there is more to do soon. */
  #takeBytes(): boolean {
    for (let polled = 0; polled < POLL_BUDGET;) {
      // in this order: a mark is published before the bytes behind it, so it is seen with them
      const n = this.#rx.peek();
      this.#takeEvents();
      if (n === 0) {
        this.#applyMarks();
        this.queues.rx.wakeups.enable();
        this.queues.events.wakeups.enable();
        return false;
      }
      let taken = 0;
      while (taken < n && this.#takeBuffer(taken)) taken++;
      this.#rx.release(taken);
      polled += taken;
      if (taken < n) {
        this.queues.events.wakeups.enable();
        return false; // the inbox tells when it has room
      }
    }
    return true;
  }

  /** False: no room for it now. */
  #takeBuffer(i: number): boolean {
    this.#applyMarks();
    const bytes = this.#rx.bytes(i);
    if (bytes === null) {
      this.#rxErrors++;
      throw new VbusError("EPROTO", "the host returned a buffer with a length that it was not given; reopen");
    }
    if (this.#up) {
      if (!this.#inbox.hasRoom()) return false;
      this.#inbox.push(bytes);
      this.#rxBytes += bytes.length;
    } else {
      this.#rxDiscarded += bytes.length; // of a conversation that this guest left
    }
    this.#position += bytes.length;
    return true;
  }

  #takeEvents(): void {
    let resized = false;
    for (let n; (n = this.#events.peek()) > 0;) {
      for (let i = 0; i < n; i++) {
        const record = this.#events.bytes(i);
        const event = record === null ? null : parseEvent(record.slice());
        if (event === null) {
          this.#rxErrors++;
          continue;
        }
        if (event.id === VCONSOLE_EVENT_WINSIZE) resized = this.#resized(event) || resized;
        else this.#arrived(event);
      }
      this.#events.release(n);
    }
    if (resized) this.#tell(() => this.onResize?.(this.#cols, this.#rows));
  }

  #resized({ cols, rows }: ConsoleEvent): boolean {
    this.#sizesTold++;
    const changed = cols !== this.#cols || rows !== this.#rows;
    this.#cols = cols;
    this.#rows = rows;
    return changed;
  }

  /** A mark: for writers it counts now, for readers at its place in the stream. */
  #arrived(event: ConsoleEvent): void {
    if (event.conversation !== this.#conversation || this.#conversation === 0) return; // one that this guest left
    this.#marks.push(event);
    if (event.id === VCONSOLE_EVENT_OPENED) this.#writable = true;
    if (event.id !== VCONSOLE_EVENT_HANGUP) return;
    this.#writable = false;
    this.#conversation = 0;
    this.#tx.end(hungUp("the host"));
  }

  #applyMarks(): void {
    for (let mark; (mark = this.#marks[0]) !== undefined && mark.position <= this.#position;) {
      this.#marks.shift();
      if (mark.id === VCONSOLE_EVENT_OPENED) {
        this.#up = true;
        this.#inbox.begin(() => this.onOpen?.());
      } else if (this.#up && mark.id === VCONSOLE_EVENT_BREAK) {
        this.#inbox.mark(() => this.onBreak?.());
      } else if (this.#up && mark.id === VCONSOLE_EVENT_HANGUP) {
        this.#up = false;
        this.#inbox.end(() => this.onHangup?.());
      }
    }
  }

  /** Calls back; what the callback throws is its own affair. */
  #tell(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      this.#throwLater(error);
    }
  }

  #throwLater(error: unknown): void {
    this.device.bus.transport.scheduler.post(() => {
      throw error;
    });
  }

  /** What was counted. */
  statistics(): VirtualConsoleStatistics {
    return {
      rxBytes: this.#rxBytes,
      rxDiscarded: this.#rxDiscarded,
      rxErrors: this.#rxErrors,
      txBytes: this.#tx.sent,
      txWaits: this.#tx.waits,
      queues: this.#finalCounters ?? this.#counters(),
    };
  }

  #counters(): Record<"rx" | "tx" | "events", QueueCounters> {
    const { rx, tx, events } = this.queues;
    return { rx: rx.queue.counters(), tx: tx.queue.counters(), events: events.queue.counters() };
  }

  #fail(error: unknown): void {
    if (this.#failure !== null || this.#closed) return;
    const reason =
      error instanceof Error ? error : new VbusError("EIO", "the console failed", { cause: error });
    this.#failure = reason;
    this.#stop(reason);
    this.#tell(() => this.onError?.(error));
  }

  #stop(reason: Error): void {
    this.#conversation = 0;
    this.#up = false;
    this.#writable = false;
    this.#marks = [];
    this.#tx.end(reason);
    this.#inbox.fail(reason);
  }

  /**
   * Device closed, buffers given back; a conversation ends, for whoever reads it, too. Other pending reads and writes
   * reject. Twice is harmless.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#finalCounters = this.#counters();
    if (this.#up) this.#inbox.end(() => {});
    this.#stop(new VbusError("ENOTCONN", "the console is closed"));
    this.device.onLost = null;
    // afterwards the host touches no buffer, unless it did not answer: then they are never used again
    const released = await this.device.close();
    this.#rx.close(released);
    this.#events.close(released);
    this.#tx.close(released);
  }
}

interface Hooks {
  wakeRx: () => void;
  wakeTx: () => void;
  wakeEvents: () => void;
  fail: (error: unknown) => void;
}

function hungUp(who: string): VbusError {
  return new VbusError("ENOTCONN", `${who} hung up; call open() for another conversation`);
}
