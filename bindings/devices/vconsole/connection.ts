import { IOQ_MAX_COUNT } from "../../../assembly/abi/ioq.js";
import {
  VCONSOLE_BREAK,
  VCONSOLE_EVENT_BREAK,
  VCONSOLE_EVENT_HANGUP,
  VCONSOLE_EVENT_OPENED,
  VCONSOLE_HANGUP,
  VCONSOLE_QUEUE_EVENTS,
  VCONSOLE_QUEUE_RX,
  VCONSOLE_QUEUE_TX,
  VCONSOLE_READY,
  VCONSOLE_WINSIZE,
  VCONSOLE_WINSIZE_OFF_COLS,
  VCONSOLE_WINSIZE_OFF_ROWS,
  VCONSOLE_WINSIZE_SIZE,
} from "../../../assembly/abi/vconsole.js";
import type {
  Connection,
  HostSignal,
  RestoredSignals,
  SavedSignals,
  SessionQueue,
  SharedSegment,
} from "../../bus/types.js";
import type { Queue, QueueCounters } from "../../engine/queue.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import { shownQueues } from "../queues.js";
import { SessionRings } from "../session-rings.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { EventSide } from "./events.js";
import { ReceiveSide } from "./receive.js";
import type { HangupReason, Terminal, TerminalLine } from "./terminal.js";
import { TransmitSide, type RingEnvironment, type Verdict } from "./transmit.js";

/** What a connection needs of its device. */
export interface VconsoleEnvironment {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** The host's end. */
  readonly terminal: Terminal;
  /** The guest broke a ring (EPROTO), or the host failed; told once per session. */
  failed(error: unknown): void;
  /** The session ended. */
  closed(): void;
}

/**
 * Where the session's conversation stands (`docs/abi/vconsole.md` section 5): none; the guest is ready and the terminal
 * is not; on; the guest hung up and its last bytes are under way; the host hung up and its last bytes are under way.
 */
export type LineState = "down" | "waiting" | "up" | "draining" | "closing";

/** Chunks and breaks per run before other work of the thread gets its turn. */
const STEPS_PER_RUN = 16;
const CONVERSATION_MAX = 0x7fffffff;
/** Breaks that a saved state may hold: one for each descriptor of a ring, and one behind them. */
const BREAKS_MAX = IOQ_MAX_COUNT + 1;

/** One session of a guest with a console: the calls, segments and conversations of `docs/abi/vconsole.md`. */
export class VconsoleConnection implements Connection, TerminalLine, RingEnvironment {
  #rx: ReceiveSide | null = null;
  #tx: TransmitSide | null = null;
  #events: EventSide | null = null;
  #state: LineState = "down";
  /** The guest said READY, and neither side hung up since. */
  #ready = false;
  #conversation = 0;
  /** TX descriptors before this number belong to no conversation any more. */
  #begins = 0;
  /** While draining: number of the first TX descriptor behind the conversation. */
  #ends = 0;
  /** Numbers of TX descriptors before which the guest sent a break. */
  #breaks: number[] = [];
  #scheduled = false;
  #running = false;
  /** Closed or broken: the rings are not touched any more. */
  #over = false;
  #held = false;
  readonly #sessionRings: SessionRings;

  constructor(
    private readonly memory: MemorySpace,
    private readonly environment: VconsoleEnvironment,
  ) {
    this.#sessionRings = new SessionRings(memory);
    this.scheduler = environment.scheduler;
    environment.terminal.connect(this);
  }

  readonly scheduler: Scheduler;

  /** Where the conversation stands. */
  get state(): LineState {
    return this.#state;
  }

  /** Counters of the rings that are there, by this side; RX and TX are the guest's. */
  queueCounters(): Record<"rx" | "tx" | "events", QueueCounters | null> {
    return {
      rx: this.#rx?.counters() ?? null,
      tx: this.#tx?.counters() ?? null,
      events: this.#events?.counters() ?? null,
    };
  }

  /** {@inheritDoc Connection.queues} */
  queues(): readonly SessionQueue[] {
    return shownQueues({ rx: this.#rx, tx: this.#tx, events: this.#events });
  }

  /** {@inheritDoc Connection.call} */
  call(func: number, gpa: number, length: number): number {
    switch (func) {
      case VCONSOLE_READY:
        return this.#guestReady();
      case VCONSOLE_HANGUP:
        return this.#guestHangup();
      case VCONSOLE_WINSIZE: {
        if (length !== VCONSOLE_WINSIZE_SIZE)
          throw new VbusError("EINVAL", `WINSIZE takes ${VCONSOLE_WINSIZE_SIZE} bytes, not ${length}`);
        const block = new Uint8Array(VCONSOLE_WINSIZE_SIZE);
        const view = new DataView(block.buffer);
        const { cols, rows } = this.environment.terminal;
        view.setUint16(VCONSOLE_WINSIZE_OFF_COLS, cols, true);
        view.setUint16(VCONSOLE_WINSIZE_OFF_ROWS, rows, true);
        this.memory.copyTo(gpa, block);
        return 0;
      }
      case VCONSOLE_BREAK:
        return this.#guestBreak();
      default:
        throw new VbusError("EINVAL", `vconsole has no call ${func}`);
    }
  }

  #rings(): { rx: ReceiveSide; tx: TransmitSide; events: EventSide } {
    if (this.#over)
      throw new VbusError("EPROTO", "a ring of this console broke; close the device and open it again");
    if (this.#rx === null || this.#tx === null || this.#events === null)
      throw new VbusError("EINVAL", "share the RX, TX and event rings before READY");
    return { rx: this.#rx, tx: this.#tx, events: this.#events };
  }

  #guestReady(): number {
    const { tx, events } = this.#rings();
    if (this.#ready) throw new VbusError("EEXIST", "the guest is ready already; hang up first");
    this.#begins = tx.end();
    events.forget();
    this.#conversation = this.#conversation === CONVERSATION_MAX ? 1 : this.#conversation + 1;
    this.#ready = true;
    if (this.#state === "down") this.#begin(); // else the last bytes of the conversation before go first
    this.#schedule();
    return this.#conversation;
  }

  #guestHangup(): number {
    const { tx, events } = this.#rings();
    if (!this.#ready) throw new VbusError("ENOENT", "the guest hung up already, or the terminal did");
    const end = tx.end();
    this.#ready = false;
    events.forget();
    switch (this.#state) {
      case "up":
        this.#state = "draining";
        this.#ends = end;
        break;
      case "closing":
        this.#begins = end;
        this.#end("guest");
        break;
      case "waiting":
        this.#state = "down";
        break;
      default: // an earlier conversation is still draining; the one that is hung up never began
        break;
    }
    this.#schedule();
    return 0;
  }

  #guestBreak(): number {
    const { tx } = this.#rings();
    if (this.#state === "closing") return 0; // like the bytes around it, it comes too late
    if (this.#state !== "up") throw new VbusError("ENOENT", "no conversation is on; wait for OPENED");
    const at = tx.end();
    if (this.#breaks.at(-1) !== at) this.#breaks.push(at);
    this.#schedule();
    return 0;
  }

  /** The guest is ready: the conversation begins as soon as the terminal is open. */
  #begin(): void {
    const { terminal } = this.environment;
    this.#state = "waiting";
    if (!terminal.isOpen) return;
    this.#state = "up";
    this.#events?.mark(VCONSOLE_EVENT_OPENED);
    terminal.begin();
  }

  #end(reason: HangupReason): void {
    this.#state = "down";
    this.#breaks = [];
    this.environment.terminal.finish(reason);
    if (this.#ready) this.#begin();
  }

  /** {@inheritDoc TerminalLine.inputReady} */
  inputReady(): void {
    this.#schedule();
  }

  /** {@inheritDoc TerminalLine.outputReady} */
  outputReady(): void {
    this.#schedule();
  }

  /** {@inheritDoc TerminalLine.resized} */
  resized(): void {
    if (!this.#ready) return; // it will ask
    this.#events?.resized();
    this.#schedule();
  }

  /** {@inheritDoc TerminalLine.opened} */
  opened(): void {
    if (this.#state !== "waiting") return;
    this.#begin();
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#over) return;
    this.#scheduled = true;
    this.scheduler.post(() => {
      this.#scheduled = false;
      this.run();
    });
  }

  /** Does whatever can be done on the three rings. */
  run(): void {
    if (this.#running || this.#over) return;
    const { terminal } = this.environment;
    const rx = this.#rx;
    const tx = this.#tx;
    const events = this.#events;
    if (rx === null || tx === null || events === null) return;
    this.#running = true;
    try {
      this.#noticeHangup();
      if (tx.drain(this.#judge, this.#take)) this.#schedule();
      this.#sendInput(rx, events);
      events.flush();
    } catch (error) {
      this.failed(error);
    } finally {
      this.#running = false;
    }
    terminal.flush(); // runs the embedder's callbacks, which may do anything
  }

  #noticeHangup(): void {
    if (!this.environment.terminal.hangingUp) return;
    if (this.#state === "up") {
      this.#state = "closing";
    } else if (this.#state === "draining") {
      this.#begins = Math.max(this.#begins, this.#ends);
      this.#end("guest");
    }
  }

  readonly #judge = (number: number): Verdict => {
    const { terminal } = this.environment;
    for (let at; (at = this.#breaks[0]) !== undefined && at <= number;) {
      this.#breaks.shift();
      if (this.#state !== "closing") terminal.deliverBreak();
    }
    if (this.#state === "draining") {
      if (number < this.#ends) return terminal.hasRoom() ? "deliver" : "stop";
      this.#end("guest");
    }
    if (number < this.#begins || this.#isClosing()) return "discard";
    return this.#state === "up" && terminal.hasRoom() ? "deliver" : "stop";
  };

  #isClosing(): boolean {
    return this.#state === "closing";
  }

  readonly #take = (bytes: Uint8Array, verdict: Verdict): void => {
    const { terminal } = this.environment;
    if (verdict === "deliver") terminal.deliver(bytes);
    else terminal.discard("hangup", bytes.length);
  };

  #sendInput(rx: ReceiveSide, events: EventSide): void {
    if (this.#state !== "up" && this.#state !== "closing") return;
    const { terminal } = this.environment;
    events.flush();
    for (let step = 0; !events.marksWait; step++) {
      if (step === STEPS_PER_RUN) {
        this.#schedule();
        return;
      }
      const n = terminal.inputLength;
      if (n > 0) {
        const sent = rx.send(n, (target) => terminal.takeInput(target));
        terminal.inputTaken();
        if (sent < n) return;
      } else if (terminal.takeBreak()) {
        events.mark(VCONSOLE_EVENT_BREAK);
        events.flush();
      } else {
        break;
      }
    }
    if (this.#isClosing() && terminal.inputEmpty) {
      events.mark(VCONSOLE_EVENT_HANGUP);
      this.#ready = false;
      this.#end("host");
    }
  }

  /** The guest broke a ring, or the host failed: this session is over, but for its closing. */
  readonly failed = (error: unknown): void => {
    if (this.#over) return;
    this.#over = true;
    this.#tx?.stop();
    this.#rx?.stop();
    this.#events?.stop();
    this.#ready = false;
    const { terminal } = this.environment;
    terminal.connect(null);
    this.#end("broken");
    this.environment.failed(error);
    this.scheduler.post(() => {
      terminal.flush();
    });
  };

  /** {@inheritDoc Connection.shm} */
  shm(id: number, segment: SharedSegment, signal: HostSignal | null): number {
    switch (id) {
      case VCONSOLE_QUEUE_RX:
        requireAbsent(this.#rx, "an RX ring");
        this.#rx = this.#sessionRings.attach(segment, signal, "southReceive", this.#buildReceive);
        return 0;
      case VCONSOLE_QUEUE_TX:
        requireAbsent(this.#tx, "a TX ring");
        this.#tx = this.#sessionRings.attach(segment, signal, "southTransmit", this.#buildTransmit);
        return 0;
      case VCONSOLE_QUEUE_EVENTS:
        requireAbsent(this.#events, "an event ring");
        this.#events = this.#sessionRings.attach(segment, signal, "southReceive", this.#buildEvents);
        return 0;
      default:
        throw new VbusError("EINVAL", `vconsole has no segment ${id}; use 0 (RX), 1 (TX) and 2 (events)`);
    }
  }

  readonly #buildReceive = (queue: Queue, own: HostSignal): ReceiveSide => new ReceiveSide(queue, own, this);

  readonly #buildTransmit = (queue: Queue, own: HostSignal): TransmitSide =>
    new TransmitSide(queue, own, this);

  readonly #buildEvents = (queue: Queue, own: HostSignal): EventSide =>
    new EventSide(queue, own, this, () => this.#facts());

  #facts(): { conversation: number; position: number; cols: number; rows: number } {
    const { cols, rows } = this.environment.terminal;
    return { conversation: this.#conversation, position: this.#rx?.position ?? 0, cols, rows };
  }

  /** {@inheritDoc Connection.hold} */
  hold(): void {
    this.#held = true;
  }

  /** {@inheritDoc Connection.resume} */
  resume(): void {
    this.#held = false;
    this.#schedule();
  }

  /** {@inheritDoc Connection.save} */
  save(signals: SavedSignals): StateValue {
    const ring = (side: ReceiveSide | TransmitSide | EventSide | null): StateValue =>
      side && { signal: this.#sessionRings.signalOf(side, signals), ring: side.save() };
    const { terminal } = this.environment;
    return {
      rx: ring(this.#rx),
      tx: ring(this.#tx),
      events: ring(this.#events),
      over: this.#over,
      state: this.#state,
      ready: this.#ready,
      conversation: this.#conversation,
      begins: this.#begins,
      ends: this.#ends,
      breaks: this.#breaks.slice(),
      terminal: terminal.connected ? terminal.save() : null,
    };
  }

  /** The session that was saved; held. @throws StateError; VbusError ENOMEM */
  static restore(
    memory: MemorySpace,
    environment: VconsoleEnvironment,
    state: StateReader,
    signals: RestoredSignals,
  ): VconsoleConnection {
    const connection = new VconsoleConnection(memory, environment);
    try {
      connection.#restore(state, signals);
    } catch (error) {
      connection.#over = true; // nothing of it was heard: there are no last words
      connection.close();
      throw error;
    }
    return connection;
  }

  #restore(state: StateReader, signals: RestoredSignals): void {
    const rings = this.#sessionRings;
    const rx = rings.restore(state, "rx", signals, "southReceive", this.#buildReceive);
    this.#rx = rx?.side ?? null;
    const tx = rings.restore(state, "tx", signals, "southTransmit", this.#buildTransmit);
    this.#tx = tx?.side ?? null;
    const events = rings.restore(state, "events", signals, "southReceive", this.#buildEvents);
    this.#events = events?.side ?? null;
    for (const built of [rx, tx, events]) built?.side.restore(built.saved.get("ring"));
    const complete = this.#rx !== null && this.#tx !== null && this.#events !== null;
    const line = state.get("state").oneOf("down", "waiting", "up", "draining", "closing");
    const ready = state.get("ready").boolean();
    const whole = (name: string): number => state.get(name).number(0, Number.MAX_SAFE_INTEGER);
    this.#conversation = state.get("conversation").number(0, CONVERSATION_MAX);
    this.#begins = whole("begins");
    this.#ends = whole("ends");
    this.#breaks = state
      .get("breaks")
      .items(BREAKS_MAX)
      .map((item) => item.number(0, Number.MAX_SAFE_INTEGER));
    const { terminal } = this.environment;
    if (state.get("over").boolean()) {
      this.#over = true;
      terminal.connect(null);
      return;
    }
    if ((ready || line !== "down") && !complete) state.fail("a conversation without rings");
    if (ready ? line === "down" : line === "waiting" || line === "up" || line === "closing")
      state.fail("the guest is ready just as long as a conversation waits or is on");
    const talking = state.get("terminal").nullable((at) => at);
    if ((talking !== null) !== (line === "up" || line === "draining" || line === "closing"))
      state.fail("bytes wait just as long as a conversation is on");
    this.#state = line;
    this.#ready = ready;
    if (talking !== null) terminal.restore(talking);
    else if (line === "waiting" && terminal.isOpen) this.#begin(); // the saved one was hung up, this one is not
  }

  /** {@inheritDoc Connection.close} */
  close(): void {
    const { terminal } = this.environment;
    this.#ready = false;
    try {
      // a session that another one takes over from a saved state says nothing more: it will say it again
      if (!this.#over && !this.#held && this.#tx !== null) this.#lastWords(this.#tx);
    } catch (error) {
      this.failed(error);
    } finally {
      this.#over = true;
      terminal.connect(null);
      this.#end("closed");
      this.#tx?.close();
      this.#rx?.close();
      this.#events?.close();
      this.#tx = null;
      this.#rx = null;
      this.#events = null;
      this.environment.closed();
      this.scheduler.post(() => {
        terminal.flush();
      });
    }
  }

  /** What a guest sent before it died is often what matters most: the terminal gets all that it has room for. */
  #lastWords(tx: TransmitSide): void {
    const { terminal } = this.environment;
    this.#noticeHangup();
    const end = tx.end();
    const judge = (number: number): Verdict => {
      if (number >= end) return "stop"; // a guest that goes on sending must not keep its session alive
      const verdict = this.#judge(number);
      return verdict === "stop" ? "discard" : verdict;
    };
    const take = (bytes: Uint8Array, verdict: Verdict): void => {
      if (verdict === "deliver") terminal.deliver(bytes);
      else terminal.discard(terminal.connected && !terminal.hangingUp ? "closed" : "hangup", bytes.length);
    };
    while (tx.drain(judge, take));
  }
}

function requireAbsent(ring: object | null, what: string): void {
  if (ring !== null) throw new VbusError("EEXIST", `there is ${what} already`);
}
