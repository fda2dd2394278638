import { GSO_TCP4, GSO_TCP6 } from "vbus/engine";
import { HeaderTemplate, type Route } from "./header-template.js";
import { PROTOCOL_TCP, type Packet } from "./packet.js";
import type { PeerHost } from "./peer-host.js";
import type { Stream } from "./streams.js";
import { TcpReceiver } from "./tcp-receiver.js";
import { TcpSender } from "./tcp-sender.js";
import {
  ACK,
  CWR,
  ECE,
  ECN_CAPABLE,
  ECN_MARKED,
  ECN_MASK,
  FIN,
  PSH,
  putSacks,
  putSynOptions,
  RST,
  SYN,
  TCP_HEADER,
  TCP_OFF_ACK,
  TCP_OFF_CHECKSUM,
  TCP_OFF_DATA_OFFSET,
  TCP_OFF_FLAGS,
  TCP_OFF_SEQUENCE,
  TCP_OFF_WINDOW,
  type Segment,
} from "./tcp-wire.js";

const NONE: readonly number[] = [];
const MSS_DEFAULT = 536;
const MSS_MIN = 88;
const OWN_WINDOW_SCALE = 7;
/** Longest frame: what the length of an IP packet has room for, and what a frame store keeps. */
const FRAME_MAX = 65535;
/** Bytes sent before other connections get their turn. */
const TURN = 256 * 1024;

/** How a connection ended. */
export type TcpEnd =
  | "finished" // both sides said goodbye
  | "reset" // by the other side
  | "refused" // nobody listens
  | "timeout" // the other side does not answer
  | "aborted"; // by this side

/** Options of all connections of a peer. */
export interface TcpOptions {
  /** Ask for and grant ECN; default false. */
  ecn?: boolean;
  /** Use selective acknowledgements; default true. */
  sack?: boolean;
  /** Retransmission time-out beyond the round trip time, at least, in ms; default 200: receivers delay as long. */
  minRtoMs?: number;
  /** How long a finished connection is remembered, in ms; default 500. */
  timeWaitMs?: number;
  /**
   * Plays a congested router: of every so many bytes sent one segment carries a congestion mark, and of every so many
   * received one counts as marked. Makes both sides use ECE and CWR. Default: never.
   */
  markEvery?: number;
}

type State = "syn-sent" | "syn-received" | "established" | "time-wait" | "closed";

/** One TCP connection of a network peer. */
export class TcpConnection {
  state: State;
  /** How it ended; null while it goes on. */
  end: TcpEnd | null = null;
  /** True when ECN was negotiated. */
  ecn = false;
  readonly sender: TcpSender;
  readonly receiver: TcpReceiver;
  /** Resolves with true when it is established, with false when that failed. */
  readonly opened: Promise<boolean>;
  /** Resolves when it is over. */
  readonly closed: Promise<TcpEnd>;
  #open!: (established: boolean) => void;
  #close!: (end: TcpEnd) => void;
  readonly #template: HeaderTemplate;
  readonly #options: Required<TcpOptions>;
  readonly #mssLimit: number;
  /** Own initial sequence number, and the other side's. */
  readonly #iss: number;
  #irs = 0;
  #id = 0;
  #sendScale = 0;
  #receiveScale = 0;
  #sack = false;
  #handshakeDue = false;
  /** Offset of the own FIN; -1: not sent. */
  #fin = -1;
  #closeFirst = false;
  #forgetAt = 0;
  /** Congestion marks were received, and are to be echoed until the other side says CWR. */
  #echoing = false;
  /** The next new segment says CWR. */
  #reduced = false;
  #markedSent = 0;
  #markedReceived = 0;

  constructor(
    private readonly host: PeerHost,
    private readonly ready: (connection: TcpConnection) => void,
    private readonly forget: (connection: TcpConnection) => void,
    readonly route: Route,
    readonly localPort: number,
    readonly remotePort: number,
    /** What is at this end. */
    readonly stream: Stream,
    options: TcpOptions,
    iss: number,
    syn: Segment | null,
  ) {
    const { ecn = false, sack = true, minRtoMs = 200, timeWaitMs = 500, markEvery = Infinity } = options;
    this.#options = { ecn, sack, minRtoMs, timeWaitMs, markEvery };
    this.opened = new Promise((resolve) => (this.#open = resolve));
    this.closed = new Promise((resolve) => (this.#close = resolve));
    this.sender = new TcpSender(host.counters.tcp, minRtoMs);
    this.receiver = new TcpReceiver(stream, host.counters.tcp);
    this.#template = new HeaderTemplate(route, PROTOCOL_TCP);
    this.#template.data.setUint16(this.#template.transport, localPort);
    this.#template.data.setUint16(this.#template.transport + 2, remotePort);
    this.#mssLimit = host.mtu - TCP_HEADER - (this.#template.transport - this.#template.network);
    this.#iss = iss;
    this.state = syn === null ? "syn-sent" : "syn-received";
    this.#handshakeDue = true;
    if (syn !== null) {
      this.ecn = ecn && (syn.flags & (ECE | CWR)) === (ECE | CWR);
      this.#synOptions(syn);
    }
    ready(this);
    host.ticker.watch(this);
  }

  /** The other side's options; its window is not scaled in a SYN. */
  #synOptions(syn: Segment): void {
    this.#irs = syn.sequence;
    const theirs = syn.mss === -1 ? MSS_DEFAULT : Math.max(MSS_MIN, syn.mss);
    const mss = Math.min(theirs, this.#mssLimit);
    if (syn.windowScale !== -1) {
      this.#sendScale = syn.windowScale;
      this.#receiveScale = OWN_WINDOW_SCALE;
    }
    this.#scaled = syn.windowScale !== -1;
    this.#sack = syn.sackPermitted && this.#options.sack;
    this.sender.start(mss, FRAME_MAX - this.#template.transport - TCP_HEADER, syn.window);
  }

  #scaled = false;

  #sequence(offset: number): number {
    return (this.#iss + 1 + (offset >>> 0)) >>> 0;
  }

  /** A segment of this connection came in; its checksum is right. */
  receive(packet: Packet, segment: Segment): void {
    const { flags } = segment;
    if (this.state === "closed") return;
    if (this.state === "syn-sent") {
      this.#receiveInSynSent(segment);
      return;
    }
    const offset = this.receiver.next + ((segment.sequence - this.#irs - 1 - (this.receiver.next >>> 0)) | 0);
    if ((flags & RST) !== 0) {
      if (offset === this.receiver.next) this.#reset();
      else this.receiver.demand(); // may be a forgery: let the other side confirm (RFC 5961)
    } else if ((flags & SYN) !== 0) {
      if (this.state === "syn-received" && segment.sequence === this.#irs) this.#handshakeDue = true;
      else this.receiver.demand();
    } else if ((flags & ACK) !== 0 && this.#acknowledged(segment)) {
      this.#congestion(packet, flags);
      this.receiver.receive(
        offset,
        packet.reader,
        segment.payload,
        segment.length,
        (flags & FIN) !== 0,
        packet.superframe || (flags & PSH) !== 0,
        this.sender.mss,
        !this.#sack,
        this.host.scheduler.now(),
      );
      this.#settle();
    }
    if (this.receiver.waiting) this.host.ticker.watch(this);
    this.ready(this);
  }

  #receiveInSynSent(segment: Segment): void {
    const { flags, ack } = segment;
    if ((flags & ACK) !== 0 && ack !== this.#sequence(0)) {
      this.host.counters.tcp.unacceptable++;
      return;
    }
    if ((flags & RST) !== 0) {
      if ((flags & ACK) !== 0) this.#finish("refused");
      return;
    }
    if ((flags & SYN) === 0) return;
    this.ecn = this.#options.ecn && (flags & (ECE | CWR)) === ECE;
    this.#synOptions(segment);
    if ((flags & ACK) === 0) {
      this.state = "syn-received"; // both called each other
      this.#handshakeDue = true;
    } else {
      this.#establish();
      this.receiver.demand();
    }
    this.ready(this);
  }

  #establish(): void {
    this.state = "established";
    this.#handshakeDue = false;
    this.sender.disarm();
    this.host.counters.tcp.established++;
    if (this.ecn) this.host.counters.tcp.ecn++;
    this.#open(true);
  }

  /** False: what it acknowledges was never sent. */
  #acknowledged(segment: Segment): boolean {
    const { sender, stream } = this;
    const delta = (segment.ack - this.#sequence(sender.una)) | 0;
    const offset = sender.una + delta;
    if (offset > sender.max) {
      this.host.counters.tcp.unacceptable++;
      this.receiver.demand();
      return false;
    }
    if (this.state === "syn-received") {
      if (delta < 0) return false;
      this.#establish();
    }
    if (delta < 0) return true; // overtaken by a later one, but its payload counts
    const window = segment.window * 2 ** this.#sendScale;
    const sacks =
      segment.sacks.length === 0 ? NONE : segment.sacks.map((edge) => offset + ((edge - segment.ack) | 0));
    const pure = segment.length === 0 && (segment.flags & FIN) === 0;
    const wanting = stream.available > sender.next;
    const n = sender.acknowledge(offset, window, sacks, pure, wanting, this.host.scheduler.now());
    if (sender.armed) this.host.ticker.watch(this);
    if (n > 0) {
      const bytes = this.#fin !== -1 && offset > this.#fin ? n - 1 : n;
      this.host.counters.tcp.bytesAcknowledged += bytes;
      stream.acknowledged(this.#fin === -1 ? offset : Math.min(offset, this.#fin));
      this.receiver.update(sender.mss);
    }
    return true;
  }

  #congestion(packet: Packet, flags: number): void {
    if (!this.ecn) return;
    const { tcp } = this.host.counters;
    if ((flags & CWR) !== 0) this.#echoing = false;
    const length = packet.transportLength;
    this.#markedReceived += length;
    const simulated = this.#markedReceived >= this.#options.markEvery;
    if (simulated) this.#markedReceived = 0;
    if ((packet.tos & ECN_MASK) === ECN_MARKED || simulated) {
      tcp.congestionMarks++;
      this.#echoing = true;
    }
    if ((flags & ECE) === 0) return;
    tcp.congestionEchoes++;
    if (this.sender.congested()) this.#reduced = true;
  }

  /** Moves on when both sides have said all. */
  #settle(): void {
    const finAcknowledged = this.#fin !== -1 && this.sender.una > this.#fin;
    if (!finAcknowledged || !this.receiver.finished || this.state !== "established") return;
    if (this.#closeFirst) {
      this.state = "time-wait";
      this.#forgetAt = this.host.scheduler.now() + this.#options.timeWaitMs;
      this.#over("finished");
      this.host.ticker.watch(this);
    } else {
      this.#finish("finished");
    }
  }

  #reset(): void {
    this.host.counters.tcp.resetsReceived++;
    this.#finish(this.state === "time-wait" ? "finished" : "reset");
  }

  #over(end: TcpEnd): void {
    if (this.end !== null) return;
    this.end = end;
    if (end !== "finished") this.host.counters.tcp.failed++;
    this.#open(false);
    this.stream.close();
    this.#close(end);
  }

  #finish(end: TcpEnd): void {
    this.#over(end);
    this.state = "closed";
    this.forget(this);
  }

  /** Ends it with a reset. */
  abort(): void {
    if (this.state === "closed") return;
    if (this.state !== "time-wait" && this.state !== "syn-sent" && this.host.queue.room) {
      this.host.counters.tcp.resetsSent++;
      this.#emit(this.sender.max, 0, RST | ACK, 0);
    }
    this.#finish("aborted");
  }

  /** It may be used again: its other side begins anew (RFC 9293 3.6.1). */
  accepts(syn: Segment): boolean {
    return (
      this.state === "time-wait" && ((syn.sequence - this.#irs - 1 - (this.receiver.next >>> 0)) | 0) > 0
    );
  }

  /** The stream has more to send, or has come to its end: looks at it again. */
  refresh(): void {
    this.ready(this);
  }

  /** Looks at its deadlines. */
  tick(now: number): boolean {
    if (this.state === "closed") return false;
    if (this.state === "time-wait" && now >= this.#forgetAt) {
      this.#finish("finished");
      return false;
    }
    const verdict = this.sender.tick(now);
    if (verdict === "dead") {
      this.#finish("timeout");
      return false;
    }
    if (verdict === "timeout" && this.state !== "established") this.#handshakeDue = true;
    const delayed = this.receiver.tick(now);
    if (verdict === "timeout" || this.receiver.due > 0) this.ready(this);
    return verdict !== "idle" || delayed || this.state === "time-wait";
  }

  /** Sends what there is to be sent. False: there is more, but it is the turn of others, or the queue is full. */
  output(): boolean {
    const { queue } = this.host;
    if (this.state === "closed") return true;
    if (!queue.room) return false;
    if (this.state === "syn-sent" || this.state === "syn-received") {
      if (this.#handshakeDue) this.#sendSyn();
      return true;
    }
    if (this.state === "established" && !this.#sendStream()) return false;
    while (this.receiver.due > 0) {
      if (!this.host.queue.room) return false;
      this.host.counters.tcp.acksSent++;
      this.#emit(this.sender.max, 0, ACK, 0);
    }
    return true;
  }

  #sendSyn(): void {
    this.#handshakeDue = false;
    const now = this.host.scheduler.now();
    if (!this.sender.armed) this.sender.arm(now);
    const { data, transport } = this.#template;
    const calling = this.state === "syn-sent";
    const scale = calling || this.#scaled ? OWN_WINDOW_SCALE : -1;
    const sack = calling ? this.#options.sack : this.#sack;
    const options = putSynOptions(data, transport + TCP_HEADER, this.#mssLimit, scale, sack);
    const ecn = calling ? (this.#options.ecn ? ECE | CWR : 0) : this.ecn ? ECE : 0;
    this.#emit(-1, 0, SYN | (calling ? 0 : ACK) | ecn, options);
    this.host.ticker.watch(this);
  }

  /** False: there is more, but not now. */
  #sendStream(): boolean {
    const { sender, stream, host } = this;
    const { tcp } = host.counters;
    const now = host.scheduler.now();
    const begin = sender.next;
    for (;;) {
      const { available, complete } = stream;
      const n = sender.pick(available);
      const from = n === 0 ? sender.next : sender.from;
      const fin = complete && from + n === available;
      if (n === 0 && !fin) return true;
      if (!host.queue.room) return false;
      if (fin && this.#fin === -1) {
        this.#fin = available;
        this.#closeFirst = !this.receiver.finished;
      }
      this.#sendSegment(from, n, fin, from + n === available);
      if (sender.sent(from, n + (fin ? 1 : 0), now)) tcp.retransmissions++;
      host.ticker.watch(this);
      if (sender.next - begin > TURN) return false;
    }
  }

  #sendSegment(from: number, n: number, fin: boolean, push: boolean): void {
    const { queue } = this.host;
    queue.payload.clear();
    if (n > 0) this.stream.place(from, n, queue.payload);
    const cwr = this.#reduced && n > 0 && from >= this.sender.max ? CWR : 0;
    if (cwr !== 0) this.#reduced = false;
    this.#markedSent += n;
    this.#emit(from, n, ACK | cwr | (fin ? FIN : 0) | (push ? PSH : 0), 0);
  }

  /** Queues a segment with the payload that lies in the queue's `payload`. Offset -1 is the SYN's. */
  #emit(offset: number, length: number, flags: number, options: number): void {
    const { host, sender, receiver } = this;
    const { queue, counters } = host;
    const { data, transport, bytes } = this.#template;
    if (length === 0) queue.payload.clear();
    const syn = (flags & SYN) !== 0;
    const window = receiver.acknowledge(syn ? 0 : this.#receiveScale);
    if (options === 0 && this.#sack) {
      const edges = receiver.sacks().map((edge) => (this.#irs + 1 + (edge >>> 0)) >>> 0);
      if (edges.length > 0 && length + TCP_HEADER + 36 <= sender.mss) {
        options = putSacks(data, transport + TCP_HEADER, edges);
      }
    }
    if (this.ecn && this.#echoing && !syn) flags |= ECE;
    data.setUint32(transport + TCP_OFF_SEQUENCE, this.#sequence(offset));
    const acknowledged = (this.#irs + 1 + (receiver.next >>> 0)) >>> 0;
    data.setUint32(transport + TCP_OFF_ACK, (flags & ACK) === 0 ? 0 : acknowledged);
    data.setUint8(transport + TCP_OFF_DATA_OFFSET, ((TCP_HEADER + options) / 4) << 4);
    data.setUint8(transport + TCP_OFF_FLAGS, flags);
    data.setUint16(transport + TCP_OFF_WINDOW, window);
    const headerLength = transport + TCP_HEADER + options;
    const segments = length > sender.mss ? Math.ceil(length / sender.mss) : 1;
    // only new data is marked as ECN capable (RFC 3168 6.1.5)
    let tos = 0;
    if (this.ecn && length > 0 && offset >= sender.max) {
      tos = ECN_CAPABLE;
      if (this.#markedSent >= this.#options.markEvery) {
        tos = ECN_MARKED;
        this.#markedSent = 0;
      }
    }
    const pseudo = this.#template.finish(TCP_HEADER + options + length, this.#id, tos);
    this.#id = (this.#id + segments) & 0xffff;
    data.setUint16(transport + TCP_OFF_CHECKSUM, pseudo);
    const needs = queue.needs.clear();
    needs.start = transport;
    needs.offset = TCP_OFF_CHECKSUM;
    if (segments > 1) {
      needs.kind = this.route.source.version === 4 ? GSO_TCP4 : GSO_TCP6;
      needs.size = sender.mss;
      needs.ecn = (flags & CWR) !== 0;
    }
    counters.tcp.segmentsSent++;
    queue.push(bytes, headerLength);
  }
}
