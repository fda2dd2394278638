import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler, Timer } from "../../scheduler.js";
import type { Batch } from "../batch.js";
import { Egress } from "../egress.js";
import { FRAME_LENGTH_MAX, FrameStore } from "../frame-store.js";
import { emptyOffloadCounters, type OffloadCounters } from "../offload.js";
import { checkAttach, OFFLOAD_ALL, type DropReason, type Port, type PortPeer } from "../port.js";
import type { FrameBalance } from "../tally.js";
import { ChannelInbox, type HeldSender } from "./channel-inbox.js";
import {
  FrameReader,
  MESSAGE_BYE,
  MESSAGE_BYTES,
  MESSAGE_FRAMES,
  MESSAGE_FRAMES_MAX,
  MESSAGE_HELLO,
  MESSAGE_TAKEN,
  readHead,
  writeFrames,
  writeMessage,
  type MessageHead,
} from "./channel-wire.js";
import { ThreadPortTally, type ThreadPortCounters } from "./counters.js";
import { sequenceDistance, SendWindow, type WindowPeer } from "./send-window.js";

const HEADER_LENGTH = 14;
/**
 * Looks at those who are waited for, until one that took nothing has stalled. Time is counted in looks, between which messages
 * are taken: a thread that did not get to run, or was suspended, blames nobody.
 */
const STALL_LOOKS = 4;
/** Messages handed on per run before other work of the thread gets its turn. */
const MESSAGES_PER_RUN = 16;
const ANSWER = 1;
const LAST = 1;
const ALL = 0;

/** What every port over messages is made of. */
export interface ChannelPortOptions {
  /** This thread's scheduler. */
  readonly scheduler: Scheduler;
  /** The host's memory: where frames that came are put. */
  readonly space: MemorySpace;
  /** Name for people. */
  readonly name?: string;
  /** What the peer takes unfinished (`OFFLOAD_…` bits) when it does not say; default 0. */
  readonly offloads?: number;
  /** Most frames under way towards each side, 64 … 65536; default 1024. */
  readonly frames?: number;
  /** Most bytes of messages under way towards each side, at least 256 KiB; default 2 MiB. */
  readonly bytes?: number;
  /** After {@link ChannelPort.close}: how long to wait for the other side to say what it has taken, in ms; default 1000. */
  readonly lingerMs?: number;
  /** Told when another side comes or goes. */
  readonly onPeers?: (sides: number) => void;
}

/** The messages of a channel, whatever carries them. */
export interface MessageCarrier {
  /** Hands a message over; it is not used again here. */
  post(message: ArrayBuffer): void;
  /** Has `receive` called with whatever comes, and `gone` when the other side is known to be dead. */
  listen(receive: (data: unknown) => void, gone: () => void): void;
  /** Ends it. */
  close(): void;
}

/** What the two kinds of channel differ in. */
export interface ChannelKind {
  /** Connects; called once. @throws VbusError EOPNOTSUPP where there is no such channel */
  readonly connect: () => MessageCarrier;
  /** Most others. */
  readonly maxPeers: number;
  /** How long nobody is waited for who takes nothing, in ms; Infinity: for ever. */
  readonly stallMs: number;
  /** How long until such a one is forgotten, in ms. */
  readonly forgetMs: number;
  /** Of `name`, when none is given. */
  readonly name: string;
}

/** One of the others, as a sender. */
interface Sender extends HeldSender {
  /** Sequence number of its next frame. */
  expected: number;
  /** What it was told last. */
  told: number;
  /** Bytes of messages that were taken since. */
  untold: number;
}

/** One of the others. */
interface Other extends Sender {
  readonly window: WindowPeer;
  /** It said that nothing more comes from it. */
  said: boolean;
  /** It was told that nothing more comes from here. */
  farewell: boolean;
  /** It said for the last time what it has taken. */
  settled: boolean;
}

/**
 * A port whose other side is in another thread or page that shares no memory with this one: frames cross as messages with
 * many frames each. What either sends is bounded by what the other side has taken, which is its back-pressure; superframes and
 * partial checksums cross untouched. Whatever comes is checked on this side's own copy.
 *
 * Base of `MessagePortPort` and `BroadcastChannelPort`.
 */
export abstract class ChannelPort implements Port {
  readonly name: string;
  /** Everything: what the peers at the other side do not take is finished there. */
  readonly offloads = OFFLOAD_ALL;
  /** Resolves when the port is closed and its books are final. */
  readonly closed: Promise<void>;
  readonly #kind: ChannelKind;
  readonly #carrier: MessageCarrier;
  readonly #id: number;
  readonly #options: ChannelPortOptions;
  readonly #scheduler: Scheduler;
  readonly #limits: { frames: number; bytes: number };
  readonly #tally = new ThreadPortTally();
  readonly #finished: OffloadCounters = emptyOffloadCounters();
  readonly #window: SendWindow;
  readonly #others = new Map<number, Other>();
  readonly #inbox: ChannelInbox<Other>;
  readonly #store: FrameStore;
  readonly #egress: Egress;
  #missing = 0;
  #pushedBack = false;
  #draining = false;
  #drainPosted = false;
  #closing = false;
  #over = false;
  #linger: Timer | null = null;
  #stallTimer: Timer | null = null;
  /** How often it was looked whether somebody stalled. */
  #looks = 0;
  #resolveClosed: () => void = () => undefined;

  /** @internal Use `MessagePortPort` or `BroadcastChannelPort`. */
  protected constructor(options: ChannelPortOptions, kind: ChannelKind) {
    const { scheduler, space, frames = 1024, bytes = 2 << 20, offloads = 0 } = options;
    if (!Number.isInteger(frames) || frames < MESSAGE_FRAMES_MAX || frames > 65536)
      throw new RangeError(`${frames} frames under way; use ${MESSAGE_FRAMES_MAX} to 65536`);
    if (!Number.isInteger(bytes) || bytes < 2 * MESSAGE_BYTES || bytes > 2 ** 30)
      throw new RangeError(`${bytes} bytes under way; use ${2 * MESSAGE_BYTES} to ${2 ** 30}`);
    this.name = options.name ?? kind.name;
    this.#kind = kind;
    this.#options = options;
    this.#scheduler = scheduler;
    this.#limits = { frames, bytes };
    this.#carrier = kind.connect();
    this.#window = new SendWindow(this.#limits);
    this.#store = new FrameStore(space);
    this.#egress = new Egress(this.#store, scheduler, this.#tally.in, offloads, this.#limits, this.#finished);
    this.#inbox = new ChannelInbox(space, this.#egress, this.#tally.in);
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#id = randomId();
    this.#carrier.listen(
      (data) => {
        this.#receive(data);
      },
      () => {
        this.#carrierGone();
      },
    );
    this.#greet(ALL, true);
  }

  /* ---- messages -------------------------------------------------------------------------------- */

  #post(type: number, receiver: number, a: number, b = 0, c = 0, d = 0): void {
    this.#carrier.post(writeMessage({ type, sender: this.#id, receiver, a, b, c, d }));
  }

  #greet(receiver: number, answer: boolean): void {
    const { frames, bytes } = this.#limits;
    this.#post(MESSAGE_HELLO, receiver, answer ? ANSWER : 0, frames, bytes, this.#window.next);
  }

  #receive(data: unknown): void {
    if (this.#over) return;
    const head = readHead(data);
    if (head === null || head.sender === this.#id) {
      this.#tally.violations++;
      return;
    }
    if (head.receiver !== ALL && head.receiver !== this.#id) return;
    if (head.type === MESSAGE_HELLO) {
      this.#receiveHello(head);
      return;
    }
    const other = this.#others.get(head.sender);
    if (other === undefined) return; // one that we did not greet, or that left: what it says is for others
    switch (head.type) {
      case MESSAGE_FRAMES:
        this.#receiveFrames(other, head, data as ArrayBuffer);
        break;
      case MESSAGE_TAKEN:
        this.#receiveTaken(other, head);
        break;
      default:
        this.#receiveBye(other, head.a === LAST);
    }
  }

  #receiveHello({ sender, a, b, c, d }: MessageHead): void {
    if (this.#closing) return;
    if (this.#others.has(sender)) return; // both greeted at once
    if (this.#others.size >= this.#kind.maxPeers || b === 0 || c === 0) {
      this.#tally.violations++;
      return;
    }
    const window = this.#window.add(sender, { frames: b, bytes: c }, this.#looks);
    this.#others.set(sender, {
      window,
      expected: d,
      told: d,
      untold: 0,
      held: 0,
      heldFrames: 0,
      said: false,
      farewell: false,
      settled: false,
    });
    if (a === ANSWER) this.#greet(sender, false);
    this.#options.onPeers?.(this.#others.size);
  }

  #receiveFrames(other: Other, head: MessageHead, message: ArrayBuffer): void {
    const reader = FrameReader.open(message, head);
    const ahead = sequenceDistance(other.expected, head.a);
    if (reader === null || other.said || ahead > 2 ** 31) {
      this.#tally.violations++;
      return;
    }
    this.#missing += ahead;
    const end = (head.a + reader.count) >>> 0;
    other.expected = end;
    this.#tally.in.take(reader.count, reader.size);
    // who waits for this end keeps to the window; who does not, or never would, is held here up to the limits
    const fits =
      other.held === 0 ||
      (other.heldFrames + reader.count <= this.#limits.frames &&
        other.held + reader.size <= this.#limits.bytes);
    const refusal = this.#closing ? "closed" : fits ? null : "queue-full";
    if (refusal === null) {
      this.#inbox.add({ from: other, reader, end });
      this.#schedule();
      return;
    }
    this.#tally.in.drop(refusal, reader.count);
    if (!this.#inbox.holds(other)) this.#take(other, end);
  }

  #receiveTaken(other: Other, head: MessageHead): void {
    if (!this.#window.acknowledge(other.window, head.a, this.#looks)) {
      this.#tally.violations++;
      return;
    }
    if (head.b === LAST) other.settled = true;
    this.#acknowledge();
    this.#forgetIfOver(other);
    this.#wake();
  }

  #receiveBye(other: Other, last: boolean): void {
    if (last) {
      this.#forget(other, "closed"); // it does not listen any more
      this.#wake();
      return;
    }
    if (other.said) {
      this.#tally.violations++;
      return;
    }
    other.said = true;
    other.window.leaving = true;
    this.#sayBye(other);
    this.#post(MESSAGE_TAKEN, other.window.id, other.expected, LAST); // all that it sent is in our books
    this.#forgetIfOver(other);
    this.#wake(); // nobody waits for it any more
    this.#scheduler.after(this.#lingerMs, () => {
      if (this.#others.get(other.window.id) === other) this.#forget(other, "closed");
    });
  }

  get #lingerMs(): number {
    return this.#options.lingerMs ?? 1000;
  }

  #sayBye(other: Other): void {
    if (other.farewell) return;
    other.farewell = true;
    this.#post(MESSAGE_BYE, other.window.id, 0);
  }

  #forgetIfOver(other: Other): void {
    if (other.said && other.settled) this.#forget(other, "closed");
  }

  /** It gets nothing more, and is waited for no more. Frames that nobody took are counted. */
  #forget(other: Other, reason: DropReason): void {
    this.#others.delete(other.window.id);
    this.#losing(reason, () => {
      this.#window.remove(other.window);
    });
    if (this.#closing && this.#others.size === 0) this.#finish();
    this.#options.onPeers?.(this.#others.size);
  }

  #carrierGone(): void {
    for (const other of [...this.#others.values()]) this.#forget(other, "closed");
    this.#wake();
  }

  /** Frames that are on their way to nobody after `change` are counted as dropped, unless somebody else took them. */
  #losing(reason: DropReason, change: () => void): void {
    const before = this.#window.outstanding;
    change();
    if (!this.#window.hasReceivers && this.#window.outstanding === 0) {
      this.#tally.sent -= before;
      this.#tally.out.drop(reason, before);
    }
    this.#acknowledge();
  }

  #acknowledge(): void {
    const acknowledged = this.#tally.sent - this.#window.outstanding;
    this.#tally.out.deliver(Math.max(0, acknowledged - this.#tally.out.delivered), 0);
  }

  /** Frames before `end` are accounted for. It is told now and then, and when nothing more waits. */
  #take(other: Other, end: number): void {
    const due = sequenceDistance(other.told, end);
    const { frames, bytes } = this.#limits;
    if (due === 0 || other.said) return;
    if (due < frames / 4 && other.untold < bytes / 4 && !this.#inbox.empty) return;
    other.told = end;
    other.untold = 0;
    this.#post(MESSAGE_TAKEN, other.window.id, end);
  }

  /* ---- from the peer to the others ------------------------------------------------------------- */

  /** As `Port.transmit` says. */
  transmit(batch: Batch, from: number, to: number): number {
    let n = to - from;
    const refusal = this.#refusal;
    if (refusal !== null) this.#tally.out.drop(refusal, n);
    else n = this.#send(batch, from, to);
    this.#tally.out.take(n, batch.byteCount(from, from + n));
    return n;
  }

  get #refusal(): DropReason | null {
    if (this.#closing) return "closed";
    if (this.#window.hasReceivers) return null;
    for (const peer of this.#window.peers.values()) if (peer.stalled) return "stalled";
    return "no-link";
  }

  #send(batch: Batch, from: number, to: number): number {
    let at = from;
    while (at < to) {
      const length = batch.length(at);
      if (length < HEADER_LENGTH || length > FRAME_LENGTH_MAX) {
        this.#tally.out.drop(length < HEADER_LENGTH ? "undersize" : "oversize", 1);
        at++;
        continue;
      }
      const room = Math.min(this.#window.room(MESSAGE_BYTES), MESSAGE_FRAMES_MAX);
      if (room === 0) {
        this.#pushedBack = true;
        this.#watchStalls();
        break;
      }
      let end = at;
      let bytes = 0;
      while (end < to && end - at < room) {
        const next = batch.length(end);
        if (next < HEADER_LENGTH || next > FRAME_LENGTH_MAX || (end > at && bytes + next > MESSAGE_BYTES))
          break;
        bytes += next;
        end++;
      }
      const head = { type: MESSAGE_FRAMES, sender: this.#id, receiver: ALL, c: 0, d: 0 };
      const message = writeFrames({ ...head, a: this.#window.next, b: end - at }, batch, at, end);
      this.#window.sent(end - at, message.byteLength, this.#looks);
      this.#tally.sent += end - at;
      this.#carrier.post(message);
      at = end;
    }
    return at - from;
  }

  #wake(): void {
    if (!this.#pushedBack || (this.#window.room(MESSAGE_BYTES) === 0 && this.#refusal === null)) return;
    this.#pushedBack = false;
    this.#scheduler.post(() => {
      this.#egress.peer?.writable();
    });
  }

  /** While we wait for somebody: looks whether that makes sense. */
  #watchStalls(): void {
    const { stallMs, forgetMs } = this.#kind;
    if (stallMs === Infinity || this.#stallTimer !== null) return;
    this.#stallTimer = this.#scheduler.after(stallMs / STALL_LOOKS, () => {
      this.#stallTimer = null;
      if (this.#over) return;
      const looks = ++this.#looks;
      this.#losing("stalled", () => {
        this.#window.stall(looks - STALL_LOOKS);
      });
      const forgotten = looks - (forgetMs / stallMs) * STALL_LOOKS;
      for (const other of [...this.#others.values()]) {
        if (other.window.stalled && other.window.progressAt < forgotten) this.#forget(other, "stalled");
      }
      this.#wake();
      if (this.#pushedBack || this.#anyStalled) this.#watchStalls();
    });
  }

  get #anyStalled(): boolean {
    for (const peer of this.#window.peers.values()) if (peer.stalled) return true;
    return false;
  }

  /* ---- from the others to the peer ------------------------------------------------------------- */

  #schedule(): void {
    if (this.#drainPosted) return;
    this.#drainPosted = true;
    this.#scheduler.post(() => {
      this.#drainPosted = false;
      this.#drain();
    });
  }

  #drain(): void {
    if (this.#draining || this.#closing) return;
    this.#draining = true;
    try {
      for (let i = 0; i < MESSAGES_PER_RUN; i++) {
        if (this.#egress.waiting > 0) this.#egress.drain();
        if (this.#isClosing() || !this.#handOn()) return;
      }
    } finally {
      this.#draining = false;
      if (this.#isClosing()) this.#beginEnd();
    }
    this.#schedule();
  }

  readonly #isClosing = (): boolean => this.#closing;

  /** Hands the first message on, as far as the peer takes it. True when it is done with. */
  #handOn(): boolean {
    const message = this.#inbox.handOn(this.#isClosing);
    if (message === null) return false;
    const { from, reader, end } = message;
    from.untold += reader.size;
    this.#take(from, this.#inbox.holds(from) ? end : from.expected);
    return true;
  }

  /** Frames that came and wait for the peer. */
  get #waiting(): number {
    return this.#egress.waiting + this.#inbox.waiting;
  }

  /* ---- the port -------------------------------------------------------------------------------- */

  /** How many others there are at this moment. */
  get sides(): number {
    return this.#others.size;
  }

  /** As `Port.attach` says. */
  attach(peer: PortPeer): void {
    checkAttach(this.name, this.#egress.peer, this.#closing);
    this.#egress.peer = peer;
    this.#egress.blocked = false;
  }

  /** As `Port.detach` says. */
  detach(): void {
    this.#egress.whenIdle(() => {
      this.#egress.close("no-link");
      this.#pushedBack = false;
      this.#schedule(); // what waits is dropped and counted
    });
  }

  /** As `Port.ready` says. */
  ready(): void {
    this.#egress.whenIdle(() => {
      this.#egress.blocked = false;
      this.#schedule();
    });
  }

  /** As `Port.counters` says, and more. */
  counters(): ThreadPortCounters {
    return this.#tally.counters(0, this.#waiting);
  }

  /** Frames that the others say they sent, and that never came. */
  get missing(): number {
    return this.#missing;
  }

  /** The frame equation of this side. */
  balance(): FrameBalance {
    return this.#tally.balance(0, this.#waiting);
  }

  /** Superframes that passed, and what was finished for the peer. */
  offloadCounters(): OffloadCounters {
    return { ...this.#finished };
  }

  /**
   * As `Port.close` says. The others are told, and say what they have taken of what is on its way; then the books are final
   * ({@link ChannelPort.closed}), at the latest after `lingerMs`.
   */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#draining) {
      this.#egress.whenIdle(() => {
        this.#egress.peer = null;
      });
    } else this.#beginEnd();
  }

  #beginEnd(): void {
    const held = this.#inbox.clear();
    this.#tally.in.drop("closed", held);
    this.#egress.close("closed");
    for (const other of this.#others.values()) {
      this.#sayBye(other);
      this.#take(other, other.expected);
    }
    if (this.#others.size === 0) this.#finish();
    else {
      this.#linger = this.#scheduler.after(this.#lingerMs, () => {
        this.#carrierGone();
      });
    }
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#linger?.cancel();
    this.#stallTimer?.cancel();
    this.#inbox.close();
    this.#store.close();
    this.#post(MESSAGE_BYE, ALL, LAST);
    this.#carrier.close();
    this.#resolveClosed();
  }
}

/** A number that nobody else has, and not 0. */
function randomId(): number {
  const words = new Uint32Array(1);
  do crypto.getRandomValues(words);
  while (words[0] === 0);
  return words[0] as number;
}
