import { GSO_UDP_L4 } from "vbus/engine";
import { DatagramSink } from "./datagram-sink.js";
import { HeaderTemplate, type Route } from "./header-template.js";
import { IpAddress } from "./ip-address.js";
import { PROTOCOL_UDP, type Packet } from "./packet.js";
import { SERIAL_LENGTH } from "./pattern.js";
import type { FrameFate } from "./peer-counters.js";
import { PeerError } from "./peer-error.js";
import type { PeerHost } from "./peer-host.js";

const HEADER = 8;
const OFF_LENGTH = 4;
const OFF_CHECKSUM = 6;
/** Longest payload of a superframe: what the length in an IP header has room for. */
const SUPER_PAYLOAD_MAX = 65535 - 40 - HEADER;
/** Segments of a UDP superframe: Linux takes no more. */
const SEGMENTS_MAX = 64;
/** Datagrams sent per turn of a source. */
const TURN = 64;

/** A stream of numbered datagrams. */
export interface DatagramSourceOptions {
  /** Number of datagrams. */
  count: number;
  /** Payload bytes of datagram n, at least 4 of them for a number; default 1000. */
  size?: number | ((n: number) => number);
  /** Of the pattern; default 0. */
  seed?: number;
  /** Default 40000. */
  sourcePort?: number;
  /** Tag control information of an 802.1Q tag. */
  tag?: number;
  /**
   * Send superframes of that many datagrams (at most 64), for which `size` must be a number: UDP segmentation. Default 1.
   */
  segments?: number;
}

class DatagramSource {
  #next = 0;
  done!: () => void;
  readonly finished = new Promise<void>((resolve) => {
    this.done = resolve;
  });

  constructor(
    private readonly host: PeerHost,
    private readonly template: HeaderTemplate,
    private readonly options: Required<Omit<DatagramSourceOptions, "sourcePort" | "tag">>,
  ) {}

  /** Sends some. False: that was all. */
  send(): boolean {
    const { count, size, segments } = this.options;
    for (let n = 0; n < TURN && this.host.queue.room; n++) {
      if (this.#next === count) break;
      if (segments > 1) this.#superframe(size as number, Math.min(segments, count - this.#next));
      else this.#datagram(typeof size === "number" ? size : size(this.#next));
    }
    if (this.#next < count) return true;
    this.done();
    return false;
  }

  #datagram(size: number): void {
    const { template, host } = this;
    const { transport, data } = template;
    const { queue } = host;
    const serial = this.#next++;
    const numbered = size >= SERIAL_LENGTH ? SERIAL_LENGTH : 0;
    const position = numbered === 0 ? 0 : serial + SERIAL_LENGTH;
    this.#header(size, serial);
    if (numbered > 0) data.setUint32(transport + HEADER, serial);
    queue.payload.clear();
    if (size > numbered) {
      queue.payload.add(host.pattern.at(position, this.options.seed), size - numbered);
    }
    queue.push(template.bytes, transport + HEADER + numbered);
  }

  #header(payload: number, id: number): void {
    const { template } = this;
    const { transport, data } = template;
    data.setUint16(transport + OFF_LENGTH, HEADER + payload);
    data.setUint16(transport + OFF_CHECKSUM, template.finish(HEADER + payload, id));
    const needs = this.host.queue.needs.clear();
    needs.start = transport;
    needs.offset = OFF_CHECKSUM;
  }

  #superframe(size: number, segments: number): void {
    const { template, host } = this;
    const { queue, space } = host;
    const length = template.transport + HEADER + size * segments;
    this.#header(size * segments, this.#next);
    if (segments > 1) {
      queue.needs.kind = GSO_UDP_L4;
      queue.needs.size = size;
    }
    const handle = queue.block(length);
    if (handle === 0) return;
    let at = queue.blockAddress(handle);
    const { bytes, data } = space.engine;
    bytes.set(template.bytes.subarray(0, template.transport + HEADER), at);
    at += template.transport + HEADER;
    for (let n = 0; n < segments; n++, at += size) {
      const serial = this.#next++;
      const pattern = host.pattern.at(serial, this.options.seed);
      bytes.copyWithin(at, pattern, pattern + size);
      data.setUint32(at, serial);
    }
    queue.pushBlock(handle, length);
  }
}

/** UDP: echoes, verifies and sends datagrams, superframes of them included. */
export class Udp {
  readonly #echoes = new Set<number>();
  readonly #sinks = new Map<number, DatagramSink>();
  readonly #sources = new Set<DatagramSource>();

  constructor(private readonly host: PeerHost) {}

  /** Sends every datagram back that comes to a port. */
  echo(port: number): void {
    this.#checkFree(port);
    this.#echoes.add(port);
  }

  /** Counts and verifies datagrams that come to a port. The result counts on. */
  sink(port: number, seed = 0): DatagramSink {
    this.#checkFree(port);
    const sink = new DatagramSink(seed, this.host.counters);
    this.#sinks.set(port, sink);
    return sink;
  }

  #checkFree(port: number): void {
    if (this.#echoes.has(port) || this.#sinks.has(port)) {
      throw new PeerError("EADDRINUSE", `UDP port ${port} has a service already; choose another`);
    }
  }

  /** Ends the service of a port. */
  release(port: number): void {
    this.#echoes.delete(port);
    this.#sinks.delete(port);
  }

  /**
   * Sends numbered datagrams of the pattern, as fast as the port takes them. Resolves when all are queued.
   * @throws PeerError EHOSTUNREACH, EMSGSIZE
   */
  async send(destination: string, port: number, options: DatagramSourceOptions): Promise<void> {
    const { count, size = 1000, seed = 0, sourcePort = 40000, tag = -1, segments = 1 } = options;
    const to = IpAddress.parse(destination);
    const longest = this.host.mtu - HEADER - (to.version === 4 ? 20 : 40);
    const sizes = typeof size === "number" ? [size] : Array.from({ length: count }, (_, n) => size(n));
    for (const bytes of sizes) {
      if (bytes > longest || bytes < 0) {
        throw new PeerError("EMSGSIZE", `${bytes} bytes; a datagram has 0 to ${longest} at this MTU`);
      }
    }
    if (segments > 1) {
      if (
        typeof size !== "number" ||
        size < SERIAL_LENGTH ||
        segments > SEGMENTS_MAX ||
        size * segments > SUPER_PAYLOAD_MAX
      ) {
        throw new PeerError(
          "EMSGSIZE",
          "a superframe has up to 64 datagrams of one size, 65487 bytes together",
        );
      }
    }
    const route = await this.host.route(to, tag);
    const template = this.#template(route, sourcePort, port);
    const source = new DatagramSource(this.host, template, { count, size, seed, segments });
    this.#sources.add(source);
    this.host.queue.kick();
    await source.finished;
  }

  #template(route: Route, sourcePort: number, destinationPort: number): HeaderTemplate {
    const template = new HeaderTemplate(route, PROTOCOL_UDP);
    template.data.setUint16(template.transport, sourcePort);
    template.data.setUint16(template.transport + 2, destinationPort);
    return template;
  }

  /** Sources that have not sent everything take turns. */
  pull(): void {
    for (const source of this.#sources) {
      if (!this.host.queue.room) return;
      this.#sources.delete(source);
      if (source.send()) this.#sources.add(source);
    }
  }

  /** A packet for this host came in. */
  receive(packet: Packet): FrameFate {
    const { data, transport } = packet;
    if (packet.transportLength < HEADER || transport + HEADER > packet.headLength) return "malformed";
    if (!packet.superframe && data.getUint16(transport + OFF_LENGTH) !== packet.transportLength)
      return "malformed";
    const none = data.getUint16(transport + OFF_CHECKSUM) === 0 && packet.version === 4 && !packet.partial;
    if (!none && !packet.checksumGood(OFF_CHECKSUM)) {
      this.host.counters.checksumErrors.udp++;
      return "checksum";
    }
    const port = data.getUint16(transport + 2);
    const sink = this.#sinks.get(port);
    if (sink !== undefined) this.#deliver(packet, sink);
    else if (this.#echoes.has(port)) this.#answer(packet, port);
    else return "unknown";
    return "udp";
  }

  #deliver(packet: Packet, sink: DatagramSink): void {
    const now = this.host.scheduler.now();
    let at = packet.transport + HEADER;
    if (!packet.datagrams) {
      sink.accept(packet, at, packet.end - at, now);
      return;
    }
    for (const size = Math.max(1, packet.segmentSize); at < packet.end; at += size) {
      sink.accept(packet, at, Math.min(size, packet.end - at), now);
    }
  }

  #answer(packet: Packet, port: number): void {
    const { queue, space } = this.host;
    const n = packet.transportLength;
    const to = packet.data.getUint16(packet.transport);
    const template = this.#template(this.host.reply(packet), port, to);
    const { data, transport } = template;
    data.setUint16(transport + OFF_LENGTH, n);
    data.setUint16(transport + OFF_CHECKSUM, template.finish(n, 0));
    const handle = queue.block(transport + n);
    if (handle === 0) return;
    const at = queue.blockAddress(handle);
    space.bytes.set(template.bytes.subarray(0, transport + HEADER), at);
    packet.reader.copy(packet.transport + HEADER, n - HEADER, space.bytes, at + transport + HEADER);
    const needs = queue.needs.clear();
    needs.start = transport;
    needs.offset = OFF_CHECKSUM;
    if (packet.datagrams) {
      needs.kind = GSO_UDP_L4;
      needs.size = packet.segmentSize;
    }
    queue.pushBlock(handle, transport + n);
  }

  /** Sources end where they are. */
  close(): void {
    for (const source of this.#sources) source.done();
    this.#sources.clear();
  }
}
