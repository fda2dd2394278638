import { checksumOf } from "./frame-reader.js";
import { HeaderTemplate, putEthernet, putMac, type Route } from "./header-template.js";
import { IpAddress } from "./ip-address.js";
import { ETHERTYPE_ARP, PROTOCOL_ICMP6, type Packet } from "./packet.js";
import type { FrameFate } from "./peer-counters.js";
import { PeerError } from "./peer-error.js";
import type { PeerHost } from "./peer-host.js";

const ARP_LENGTH = 28;
const ARP_REQUEST = 1;
const ARP_REPLY = 2;
const BROADCAST = 0xffffffffffff;
/** Shortest Ethernet frame, without the frame check sequence. */
const FRAME_MIN = 60;
export const NEIGHBOUR_SOLICITATION = 135;
export const NEIGHBOUR_ADVERTISEMENT = 136;
const SOURCE_LINK_ADDRESS = 1;
const TARGET_LINK_ADDRESS = 2;
const FLAG_SOLICITED = 0x40000000;
const FLAG_OVERRIDE = 0x20000000;
const ALL_NODES = IpAddress.parse("ff02::1");
/** Neighbour discovery is believed only from the own link. */
const HOPS_ON_LINK = 255;
/** Stations remembered; one more forgets the oldest. */
const STATIONS_MAX = 4096;
const ASK_AGAIN_MS = 250;
const ASK_TIMES = 8;

interface Question {
  address: IpAddress;
  tag: number;
  asked: number;
  next: number;
  answer(mac: number): void;
  giveUp(error: Error): void;
  promise: Promise<number>;
}

/** Who has which address: ARP for IPv4, neighbour discovery for IPv6. Answers, asks, and remembers. */
export class Neighbours {
  readonly #known = new Map<string, number>();
  readonly #questions = new Map<string, Question>();

  constructor(private readonly host: PeerHost) {}

  #key(address: IpAddress, tag: number): string {
    return `${tag === -1 ? "" : tag & 0xfff}/${address.toString()}`;
  }

  /** MAC address of a station. @throws PeerError EHOSTUNREACH when nobody answers */
  resolve(address: IpAddress, tag: number): Promise<number> {
    const key = this.#key(address, tag);
    const known = this.#known.get(key);
    if (known !== undefined) return Promise.resolve(known);
    const open = this.#questions.get(key);
    if (open !== undefined) return open.promise;
    let answer!: (mac: number) => void;
    let giveUp!: (error: Error) => void;
    const promise = new Promise<number>((resolve, reject) => {
      answer = resolve;
      giveUp = reject;
    });
    const question: Question = { address, tag, asked: 0, next: 0, answer, giveUp, promise };
    this.#questions.set(key, question);
    this.#ask(question);
    this.host.ticker.watch({ tick: (now) => this.#tick(key, question, now) });
    return promise;
  }

  #tick(key: string, question: Question, now: number): boolean {
    if (this.#questions.get(key) !== question) return false;
    if (now < question.next) return true;
    if (question.asked < ASK_TIMES) {
      this.#ask(question);
      return true;
    }
    this.#questions.delete(key);
    question.giveUp(
      new PeerError("EHOSTUNREACH", `nobody answers for ${question.address.toString()}; is its link up?`),
    );
    return false;
  }

  #ask(question: Question): void {
    question.asked++;
    question.next = this.host.scheduler.now() + ASK_AGAIN_MS;
    const { address, tag } = question;
    if (address.version === 4) {
      this.#arp(ARP_REQUEST, BROADCAST, tag, this.host.localAddress(4), 0, address);
      return;
    }
    const group = address.solicitedNode();
    const route: Route = {
      sourceMac: this.host.mac,
      destinationMac: group.groupMac(),
      tag,
      source: this.host.localAddress(6),
      destination: group,
    };
    this.#message(route, NEIGHBOUR_SOLICITATION, 0, address, SOURCE_LINK_ADDRESS);
  }

  #learn(address: IpAddress, tag: number, mac: number): void {
    const key = this.#key(address, tag);
    if (!this.#known.has(key) && this.#known.size >= STATIONS_MAX) {
      const [oldest] = this.#known.keys();
      this.#known.delete(oldest!);
    }
    this.#known.set(key, mac);
    this.#questions.get(key)?.answer(mac);
    this.#questions.delete(key);
  }

  /** An ARP packet came in. */
  receiveArp(packet: Packet): FrameFate {
    const { data, network, tag } = packet;
    if (packet.headLength < network + ARP_LENGTH) return "malformed";
    if (data.getUint32(network) !== 0x00010800 || data.getUint16(network + 4) !== 0x0604) return "unknown";
    const operation = data.getUint16(network + 6);
    const mac = data.getUint16(network + 8) * 2 ** 32 + data.getUint32(network + 10);
    const sender = IpAddress.of(4, Uint32Array.of(data.getUint32(network + 14), 0, 0, 0));
    const target = this.host.ownAddress(4, Uint32Array.of(data.getUint32(network + 24), 0, 0, 0));
    if (target === null) return "foreign";
    if (sender.words[0] !== 0) this.#learn(sender, tag, mac); // 0: a probe, which only asks whether it is taken
    if (operation === ARP_REQUEST) this.#arp(ARP_REPLY, mac, tag, target, mac, sender);
    return "arp";
  }

  #arp(
    operation: number,
    destination: number,
    tag: number,
    own: IpAddress,
    mac: number,
    other: IpAddress,
  ): void {
    const { queue, space, mac: ownMac } = this.host;
    const handle = queue.block(FRAME_MIN);
    if (handle === 0) return;
    const at = queue.blockAddress(handle);
    space.bytes.fill(0, at, at + FRAME_MIN);
    const data = new DataView(space.bytes.buffer, at, FRAME_MIN);
    const network = putEthernet(data, destination, ownMac, tag, ETHERTYPE_ARP);
    data.setUint32(network, 0x00010800);
    data.setUint16(network + 4, 0x0604);
    data.setUint16(network + 6, operation);
    putMac(data, network + 8, ownMac);
    own.write(data, network + 14);
    putMac(data, network + 18, mac);
    other.write(data, network + 24);
    queue.needs.clear();
    queue.pushBlock(handle, FRAME_MIN);
  }

  /** A neighbour solicitation or advertisement came in; its checksum is right. */
  receive(packet: Packet, type: number): FrameFate {
    const { data, transport, tag } = packet;
    if (packet.hopLimit !== HOPS_ON_LINK || packet.transportLength < 24) return "malformed";
    if (packet.end > packet.headLength) return "malformed";
    const words = new Uint32Array(4);
    for (let i = 0; i < 4; i++) words[i] = data.getUint32(transport + 8 + 4 * i);
    let mac = packet.sourceMac;
    for (let at = transport + 24; at + 8 <= packet.end;) {
      const length = data.getUint8(at + 1) * 8;
      if (length === 0) return "malformed";
      const kind = data.getUint8(at);
      if (kind === SOURCE_LINK_ADDRESS || kind === TARGET_LINK_ADDRESS) {
        mac = data.getUint16(at + 2) * 2 ** 32 + data.getUint32(at + 4);
      }
      at += length;
    }
    if (type === NEIGHBOUR_ADVERTISEMENT) {
      this.#learn(IpAddress.of(6, words), tag, mac);
      return "neighbour";
    }
    const target = this.host.ownAddress(6, words);
    if (target === null) return "foreign";
    const sender = IpAddress.of(6, packet.source);
    const anonymous = sender.words.every((word) => word === 0); // it asks whether the address is taken
    if (!anonymous) this.#learn(sender, tag, mac);
    const destination = anonymous ? ALL_NODES : sender;
    const destinationMac = anonymous ? ALL_NODES.groupMac() : mac;
    const route: Route = { sourceMac: this.host.mac, destinationMac, tag, source: target, destination };
    const flags = FLAG_OVERRIDE + (anonymous ? 0 : FLAG_SOLICITED);
    this.#message(route, NEIGHBOUR_ADVERTISEMENT, flags, target, TARGET_LINK_ADDRESS);
    return "neighbour";
  }

  #message(route: Route, type: number, flags: number, target: IpAddress, option: number): void {
    const { queue, space } = this.host;
    const template = new HeaderTemplate(route, PROTOCOL_ICMP6, HOPS_ON_LINK);
    const { data, transport } = template;
    const length = 32;
    data.setUint8(transport, type);
    data.setUint32(transport + 4, flags);
    target.write(data, transport + 8);
    data.setUint16(transport + 24, option * 256 + 1);
    putMac(data, transport + 26, this.host.mac);
    data.setUint16(transport + 2, template.finish(length, 0));
    const handle = queue.block(transport + length);
    if (handle === 0) return;
    const at = queue.blockAddress(handle);
    space.bytes.set(template.bytes.subarray(0, transport + length), at);
    checksumOf(space).complete(at, transport + length, transport, 2);
    queue.needs.clear();
    queue.pushBlock(handle, transport + length);
  }

  /** Nobody waits any longer. */
  close(): void {
    for (const question of this.#questions.values()) {
      question.giveUp(new PeerError("ENOTCONN", "the network peer was closed"));
    }
    this.#questions.clear();
  }
}
