import { checksumOf } from "./frame-reader.js";
import { HeaderTemplate, type Route } from "./header-template.js";
import { IpAddress } from "./ip-address.js";
import { NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, type Neighbours } from "./neighbours.js";
import { PROTOCOL_ICMP, PROTOCOL_ICMP6, type Packet } from "./packet.js";
import { patternBytes, patternPosition } from "./pattern.js";
import type { FrameFate } from "./peer-counters.js";
import { PeerError } from "./peer-error.js";
import type { PeerHost } from "./peer-host.js";

const HEADER = 8;
const OFF_CHECKSUM = 2;
const OFF_IDENTIFIER = 4;
const ECHO_REPLY = 0;
const ECHO_REQUEST = 8;
const ECHO_REQUEST6 = 128;
const ECHO_REPLY6 = 129;

interface Ping {
  sentAt: number;
  from: IpAddress;
  size: number;
  deadline: number;
  done(microseconds: number): void;
  giveUp(error: Error): void;
}

/** Options of {@link Icmp.ping}. */
export interface PingOptions {
  /** Bytes of payload; default 56. */
  size?: number;
  /** Tag control information of an 802.1Q tag. */
  tag?: number;
  /** Default 1000. */
  timeoutMs?: number;
}

/** ICMP and ICMPv6: answers echo requests, and sends them. */
export class Icmp {
  readonly #pings = new Map<number, Ping>();
  #serial = 0;

  constructor(
    private readonly host: PeerHost,
    private readonly neighbours: Neighbours,
  ) {}

  /** A packet for this host came in. */
  receive(packet: Packet): FrameFate {
    const { host } = this;
    const { data, transport } = packet;
    const six = packet.version === 6;
    if (packet.transportLength < HEADER || transport + HEADER > packet.headLength) return "malformed";
    const good = six
      ? packet.checksumGood(OFF_CHECKSUM)
      : packet.reader.sum(transport, packet.transportLength) === 0xffff;
    if (!good) {
      host.counters.checksumErrors.icmp++;
      return "checksum";
    }
    const type = data.getUint8(transport);
    if (six && (type === NEIGHBOUR_SOLICITATION || type === NEIGHBOUR_ADVERTISEMENT)) {
      return this.neighbours.receive(packet, type);
    }
    if (type === (six ? ECHO_REQUEST6 : ECHO_REQUEST)) this.#answer(packet, six);
    else if (type === (six ? ECHO_REPLY6 : ECHO_REPLY)) this.#answered(packet);
    else return "unknown";
    return "icmp";
  }

  #answer(packet: Packet, six: boolean): void {
    const { space, queue } = this.host;
    const n = packet.transportLength;
    const template = new HeaderTemplate(this.host.reply(packet), six ? PROTOCOL_ICMP6 : PROTOCOL_ICMP);
    const { data, transport } = template;
    const total = transport + n;
    data.setUint8(transport, six ? ECHO_REPLY6 : ECHO_REPLY);
    data.setUint32(transport + OFF_IDENTIFIER, packet.data.getUint32(packet.transport + OFF_IDENTIFIER));
    const pseudo = template.finish(n, 0);
    if (six) data.setUint16(transport + OFF_CHECKSUM, pseudo);
    const handle = queue.block(total);
    if (handle === 0) return;
    const at = queue.blockAddress(handle);
    space.bytes.set(template.bytes.subarray(0, transport + HEADER), at);
    packet.reader.copy(packet.transport + HEADER, n - HEADER, space.bytes, at + transport + HEADER);
    checksumOf(space).complete(at, total, transport, OFF_CHECKSUM);
    queue.needs.clear();
    queue.pushBlock(handle, total);
  }

  #answered(packet: Packet): void {
    const serial = packet.data.getUint32(packet.transport + OFF_IDENTIFIER);
    const ping = this.#pings.get(serial);
    if (ping?.from.is(packet.version, packet.source) !== true) return; // too late, or never asked
    this.#pings.delete(serial);
    const position = patternPosition(0, serial);
    if (
      packet.transportLength - HEADER !== ping.size ||
      !packet.reader.matches(packet.transport + HEADER, ping.size, position)
    ) {
      this.host.counters.patternErrors++;
      ping.giveUp(new PeerError("EIO", `${ping.from.toString()} answers with other bytes than it was asked`));
      return;
    }
    ping.done((this.host.scheduler.now() - ping.sentAt) * 1000);
  }

  /**
   * Sends an echo request. Resolves with the round trip in microseconds.
   * @throws PeerError EHOSTUNREACH, ETIMEDOUT, EIO when the answer has other contents
   */
  async ping(destination: string, options: PingOptions = {}): Promise<number> {
    const { size = 56, tag = -1, timeoutMs = 1000 } = options;
    const { space, queue, scheduler, ticker } = this.host;
    const to = IpAddress.parse(destination);
    const route: Route = await this.host.route(to, tag);
    const six = to.version === 6;
    const template = new HeaderTemplate(route, six ? PROTOCOL_ICMP6 : PROTOCOL_ICMP);
    const { data, transport } = template;
    const serial = (this.#serial = (this.#serial + 1) >>> 0);
    data.setUint8(transport, six ? ECHO_REQUEST6 : ECHO_REQUEST);
    data.setUint32(transport + OFF_IDENTIFIER, serial);
    const pseudo = template.finish(HEADER + size, serial);
    if (six) data.setUint16(transport + OFF_CHECKSUM, pseudo);
    const total = transport + HEADER + size;
    const handle = queue.block(total);
    if (handle === 0) throw new PeerError("ENOBUFS", "the transmit queue is full; ping later");
    const at = queue.blockAddress(handle);
    space.bytes.set(template.bytes.subarray(0, transport + HEADER), at);
    space.bytes.set(patternBytes(0, serial, size), at + transport + HEADER);
    checksumOf(space).complete(at, total, transport, OFF_CHECKSUM);
    queue.needs.clear();
    return new Promise<number>((done, giveUp) => {
      const sentAt = scheduler.now();
      this.#pings.set(serial, { sentAt, from: to, size, deadline: sentAt + timeoutMs, done, giveUp });
      queue.pushBlock(handle, total);
      ticker.watch({ tick: (now) => this.#tick(serial, now) });
    });
  }

  #tick(serial: number, now: number): boolean {
    const ping = this.#pings.get(serial);
    if (ping === undefined) return false;
    if (now < ping.deadline) return true;
    this.#pings.delete(serial);
    ping.giveUp(new PeerError("ETIMEDOUT", `${ping.from.toString()} does not answer`));
    return false;
  }

  /** Nobody waits any longer. */
  close(): void {
    for (const ping of this.#pings.values()) {
      ping.giveUp(new PeerError("ENOTCONN", "the network peer was closed"));
    }
    this.#pings.clear();
  }
}
