import { Random } from "vbus/net";
import { HeaderTemplate } from "./header-template.js";
import { IpAddress } from "./ip-address.js";
import { PROTOCOL_TCP, type Packet } from "./packet.js";
import type { FrameFate } from "./peer-counters.js";
import { PeerError } from "./peer-error.js";
import type { PeerHost } from "./peer-host.js";
import type { Stream, StreamFactory } from "./streams.js";
import { TcpConnection, type TcpOptions } from "./tcp-connection.js";
import {
  ACK,
  FIN,
  RST,
  Segment,
  SYN,
  TCP_HEADER,
  TCP_OFF_ACK,
  TCP_OFF_CHECKSUM,
  TCP_OFF_DATA_OFFSET,
  TCP_OFF_FLAGS,
  TCP_OFF_SEQUENCE,
} from "./tcp-wire.js";

const FIRST_PORT = 49152;
const PORTS = 65536 - FIRST_PORT;
/** Connections at a time; one more is refused. */
const CONNECTIONS_MAX = 8192;

/** Options of {@link Tcp.connect}. */
export interface ConnectOptions {
  /** Tag control information of an 802.1Q tag. */
  tag?: number;
  /** Default: some free one. */
  localPort?: number;
}

/** What happens at a port. */
interface Listener {
  factory: StreamFactory;
  accepted: (connection: TcpConnection) => void;
}

/** TCP: finds the connection of a segment, accepts and opens connections, lets them take turns. */
export class Tcp {
  readonly #listeners = new Map<number, Listener>();
  /** Connections by a hash of addresses and ports. */
  readonly #connections = new Map<number, TcpConnection[]>();
  #count = 0;
  /** Those that may have something to send. */
  readonly #ready = new Set<TcpConnection>();
  readonly #segment = new Segment();
  readonly #random: Random;
  #port = 0;

  /** @param seed - of initial sequence numbers */
  constructor(
    private readonly host: PeerHost,
    private readonly options: TcpOptions,
    seed: number,
  ) {
    this.#random = new Random(seed);
  }

  /** Connections that are not forgotten yet. */
  get connections(): TcpConnection[] {
    return [...this.#connections.values()].flat();
  }

  /**
   * Accepts connections at a port. `accepted` is told of each, before it is established.
   * @throws PeerError EADDRINUSE
   */
  listen(
    port: number,
    factory: StreamFactory,
    accepted: (connection: TcpConnection) => void = () => undefined,
  ): void {
    if (this.#listeners.has(port)) {
      throw new PeerError("EADDRINUSE", `TCP port ${port} has a service already; choose another`);
    }
    this.#listeners.set(port, { factory, accepted });
  }

  /** Accepts no more; connections go on. */
  release(port: number): void {
    this.#listeners.delete(port);
  }

  /**
   * Opens a connection. Resolves when it is established.
   * @throws PeerError EHOSTUNREACH, ECONNREFUSED, ECONNRESET, ETIMEDOUT, EADDRINUSE
   */
  async connect(
    destination: string,
    port: number,
    factory: StreamFactory,
    options: ConnectOptions = {},
  ): Promise<TcpConnection> {
    const route = await this.host.route(IpAddress.parse(destination), options.tag ?? -1);
    const { version, words } = route.destination;
    const localPort = options.localPort ?? this.#freePort(version, words, port, route.tag);
    if (this.#find(version, words, port, localPort, route.tag) !== null) {
      throw new PeerError("EADDRINUSE", `port ${localPort} is connected there already; choose another`);
    }
    const stream = factory(this.host);
    const connection = this.#add(
      new TcpConnection(
        this.host,
        this.#isReady,
        this.#forget,
        route,
        localPort,
        port,
        stream,
        this.options,
        this.#random.u32(),
        null,
      ),
    );
    if (await connection.opened) return connection;
    const where = `${destination} port ${port}`;
    switch (connection.end) {
      case "refused":
        throw new PeerError("ECONNREFUSED", `nobody listens at ${where}`);
      case "timeout":
        throw new PeerError("ETIMEDOUT", `${where} does not answer`);
      default:
        throw new PeerError("ECONNRESET", `the connection to ${where} ended before it began`);
    }
  }

  #freePort(version: number, words: Uint32Array, port: number, tag: number): number {
    for (let n = 0; n < PORTS; n++) {
      const candidate = FIRST_PORT + (this.#port++ % PORTS);
      if (this.#find(version, words, port, candidate, tag) === null) return candidate;
    }
    throw new PeerError("EADDRINUSE", "every local port is connected there; close a connection");
  }

  #hash(words: Uint32Array, remotePort: number, localPort: number): number {
    let hash = Math.imul(words[0]! ^ words[1]! ^ words[2]! ^ words[3]!, 0x9e3779b1);
    hash = Math.imul(hash ^ ((remotePort << 16) | localPort), 0x85ebca6b);
    return hash ^ (hash >>> 15);
  }

  #find(
    version: number,
    words: Uint32Array,
    remotePort: number,
    localPort: number,
    tag: number,
  ): TcpConnection | null {
    for (const connection of this.#connections.get(this.#hash(words, remotePort, localPort)) ?? []) {
      const { route } = connection;
      if (connection.remotePort !== remotePort || connection.localPort !== localPort) continue;
      if ((route.tag & 0xfff) === (tag & 0xfff) && route.destination.is(version, words)) return connection;
    }
    return null;
  }

  #add(connection: TcpConnection): TcpConnection {
    const { words } = connection.route.destination;
    const hash = this.#hash(words, connection.remotePort, connection.localPort);
    const chain = this.#connections.get(hash);
    if (chain === undefined) this.#connections.set(hash, [connection]);
    else chain.push(connection);
    this.#count++;
    return connection;
  }

  readonly #forget = (connection: TcpConnection): void => {
    const { words } = connection.route.destination;
    const hash = this.#hash(words, connection.remotePort, connection.localPort);
    const chain = this.#connections.get(hash) ?? [];
    const i = chain.indexOf(connection);
    if (i === -1) return;
    chain.splice(i, 1);
    if (chain.length === 0) this.#connections.delete(hash);
    this.#ready.delete(connection);
    this.#count--;
  };

  readonly #isReady = (connection: TcpConnection): void => {
    this.#ready.add(connection);
    this.host.queue.kick();
  };

  /** Connections take turns as long as there is room. */
  pull(): void {
    const { queue } = this.host;
    for (const connection of this.#ready) {
      if (!queue.room) return;
      this.#ready.delete(connection);
      if (!connection.output()) this.#ready.add(connection);
    }
  }

  /** A packet for this host came in. */
  receive(packet: Packet): FrameFate {
    const segment = this.#segment;
    if (!segment.parse(packet)) return "malformed";
    if (!packet.checksumGood(TCP_OFF_CHECKSUM)) {
      this.host.counters.checksumErrors.tcp++;
      return "checksum";
    }
    const { sourcePort, destinationPort, flags } = segment;
    let connection = this.#find(packet.version, packet.source, sourcePort, destinationPort, packet.tag);
    const calls = (flags & (SYN | ACK | RST)) === SYN;
    if (calls && connection?.accepts(segment) === true) {
      this.#forget(connection);
      connection = null;
    }
    if (connection !== null) connection.receive(packet, segment);
    else if (calls && this.#count < CONNECTIONS_MAX && this.#accept(packet, segment)) return "tcp";
    else if ((flags & RST) === 0) this.#refuse(packet, segment);
    return "tcp";
  }

  #accept(packet: Packet, segment: Segment): boolean {
    const listener = this.#listeners.get(segment.destinationPort);
    if (listener === undefined) return false;
    const stream: Stream = listener.factory(this.host);
    const connection = new TcpConnection(
      this.host,
      this.#isReady,
      this.#forget,
      this.host.reply(packet),
      segment.destinationPort,
      segment.sourcePort,
      stream,
      this.options,
      this.#random.u32(),
      segment,
    );
    listener.accepted(this.#add(connection));
    return true;
  }

  /** Answers a segment that belongs to no connection with a reset (RFC 9293 3.10.7.1). */
  #refuse(packet: Packet, segment: Segment): void {
    const { queue, counters } = this.host;
    counters.tcp.unacceptable++;
    if (!queue.room) return;
    const template = new HeaderTemplate(this.host.reply(packet), PROTOCOL_TCP);
    const { data, transport } = template;
    const { flags, sequence, length } = segment;
    const acknowledges = (flags & ACK) !== 0;
    const end = sequence + length + ((flags & SYN) === 0 ? 0 : 1) + ((flags & FIN) === 0 ? 0 : 1);
    data.setUint16(transport, segment.destinationPort);
    data.setUint16(transport + 2, segment.sourcePort);
    data.setUint32(transport + TCP_OFF_SEQUENCE, acknowledges ? segment.ack : 0);
    data.setUint32(transport + TCP_OFF_ACK, acknowledges ? 0 : end >>> 0);
    data.setUint8(transport + TCP_OFF_DATA_OFFSET, (TCP_HEADER / 4) << 4);
    data.setUint8(transport + TCP_OFF_FLAGS, acknowledges ? RST : RST | ACK);
    data.setUint16(transport + TCP_OFF_CHECKSUM, template.finish(TCP_HEADER, 0));
    const needs = queue.needs.clear();
    needs.start = transport;
    needs.offset = TCP_OFF_CHECKSUM;
    queue.payload.clear();
    counters.tcp.resetsSent++;
    counters.tcp.segmentsSent++;
    queue.push(template.bytes, transport + TCP_HEADER);
  }

  /** Ends all connections. */
  close(): void {
    this.#listeners.clear();
    for (const connection of this.connections) connection.abort();
    this.#ready.clear();
  }
}
