import { MTU_DEFAULT, MTU_MAX, MTU_MIN } from "../../../assembly/abi/venet.js";
import {
  VIRTIO_NET_CONFIG_OFF_DUPLEX,
  VIRTIO_NET_CONFIG_OFF_MAC,
  VIRTIO_NET_CONFIG_OFF_MTU,
  VIRTIO_NET_CONFIG_OFF_PAIRS,
  VIRTIO_NET_CONFIG_OFF_SPEED,
  VIRTIO_NET_CONFIG_OFF_STATUS,
  VIRTIO_NET_CONFIG_SIZE,
  VIRTIO_NET_DUPLEX_FULL,
  VIRTIO_NET_DUPLEX_UNKNOWN,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_PAIRS_MAX,
  VIRTIO_NET_S_ANNOUNCE,
  VIRTIO_NET_S_LINK_UP,
  VIRTIO_NET_SPEED_UNKNOWN,
} from "../../../assembly/abi/virtio-net.js";
import { VIRTIO_ID_NET } from "../../../assembly/abi/virtio-status.js";
import { VbusError } from "../../errors.js";
import { formatMac, isGroupMac, parseMac } from "../../net/batch.js";
import { checkPort, type Port } from "../../net/port.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { RestoreOptions } from "../../state/saveable.js";
import { restoreCounters, saveCounters } from "../saved.js";
import type { VirtioFace, VirtioSession, VirtioSessionContext } from "../../virtio/types.js";
import { featuresFit, hasFeature, netFeatures } from "./features.js";
import { VirtioNetSession, type CardEnvironment } from "./session.js";
import { emptyStatistics, type VirtioNetStatistics } from "./statistics.js";

/** How a virtio-net card is set up. */
export interface VirtioNetOptions {
  /** Name for messages and captures. */
  name: string;
  /** Its place in the network; closed with the card. Default none: {@link VirtioNet.port}. */
  port?: Port | null;
  /** MAC address, `02:00:00:00:00:0a`; default a locally administered one at random. */
  mac?: string;
  /** MTU, 68 to 65000; default 1500. */
  mtu?: number;
  /** Pairs of queues; default 1. */
  pairs?: number;
  /** Most descriptors of receive and transmit queues, a power of two; default 256. */
  queueSize?: number;
  /** Offer checksum and segmentation offloads, both ways; default true. */
  offloads?: boolean;
  /** Offer that a received frame may lie in several buffers; default true. */
  mergeable?: boolean;
  /** Merge segments that arrive for drivers that take superframes; default true. */
  coalesce?: boolean;
  /**
   * How long a superframe waits for the driver's buffers when too few are there, in ms, before it is cut; 0: it is cut at once.
   * Default 50.
   */
  bufferWaitMs?: number;
  /** Speed that the driver is told, in Mbit/s; default unknown. */
  speed?: number;
}

/** Descriptors of the control queue. */
const CONTROL_QUEUE_SIZE = 64;
const QUEUE_SIZE = 256;
/** Below what makes a switch give a port up (100 ms); a driver that is alive posts buffers within a few. */
const BUFFER_WAIT_MS = 50;
const BUFFER_WAIT_MAX_MS = 60_000;

/**
 * A virtio-net card without a transport (virtio 1.2: 5.1): hand it to virtio-pci, virtio-mmio or virtio over vbus. It works on
 * the same ports as venet, decides on offloads in the same place and counts alike.
 */
export class VirtioNet implements VirtioFace, CardEnvironment {
  readonly deviceType = VIRTIO_ID_NET;
  readonly queueSizes: readonly number[];
  readonly configSize = VIRTIO_NET_CONFIG_SIZE;
  readonly inOrder = true;
  readonly name: string;
  readonly pairs: number;
  readonly statistics: VirtioNetStatistics = emptyStatistics();
  /** How long superframes wait for buffers before they are cut, in ms; 0: not at all. */
  readonly bufferWaitMs: number;
  /** Merge segments that arrive for drivers that take superframes; may change at any time. */
  coalesce: boolean;
  readonly features: bigint;
  #port: Port | null;
  #mac: number;
  #mtu = MTU_DEFAULT;
  #speed: number;
  #carrier = true;
  /** The address that the driver uses, of a card that was restored with another one. */
  #stale: number | null = null;
  #announce = false;
  #session: VirtioNetSession | null = null;
  #closed = false;

  /** @throws VbusError EINVAL for options that make no sense */
  constructor(options: VirtioNetOptions) {
    const { pairs = 1, queueSize = QUEUE_SIZE, offloads = true, mergeable = true, coalesce = true } = options;
    if (!Number.isInteger(pairs) || pairs < 1 || pairs > VIRTIO_NET_PAIRS_MAX)
      throw new VbusError("EINVAL", `${pairs} pairs of queues; give 1 to ${VIRTIO_NET_PAIRS_MAX}`);
    const { bufferWaitMs = BUFFER_WAIT_MS } = options;
    if (!(bufferWaitMs >= 0 && bufferWaitMs <= BUFFER_WAIT_MAX_MS))
      throw new VbusError("EINVAL", `bufferWaitMs: ${bufferWaitMs}; give 0 to ${BUFFER_WAIT_MAX_MS}`);
    if (typeof options.name !== "string" || options.name === "")
      throw new VbusError(
        "EINVAL",
        'a card needs a name: `virtioNet({ name: "nic0", port: net.addPort("nic0") })`',
      );
    this.name = options.name;
    this.bufferWaitMs = bufferWaitMs;
    this.pairs = pairs;
    this.coalesce = coalesce;
    this.#port = this.#checkPort(options.port ?? null);
    this.#mac = options.mac === undefined ? randomMac() : stationAddress(options.mac);
    if (options.mtu !== undefined) this.mtu = options.mtu;
    this.#speed = options.speed ?? VIRTIO_NET_SPEED_UNKNOWN;
    this.queueSizes = [...Array.from({ length: pairs * 2 }, () => queueSize), CONTROL_QUEUE_SIZE];
    this.features = netFeatures({ offloads, mergeable, pairs });
  }

  /** Whether a driver may have these features: each has what it needs (5.1.3.1). */
  acceptable(features: bigint): boolean {
    return featuresFit(features);
  }

  /** Writes the configuration, as it is at this moment. */
  readConfig(into: Uint8Array): void {
    const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
    const mac = this.#session?.filter.mac ?? this.#mac;
    view.setUint16(VIRTIO_NET_CONFIG_OFF_MAC, Math.floor(mac / 2 ** 32));
    view.setUint32(VIRTIO_NET_CONFIG_OFF_MAC + 2, mac >>> 0);
    const status = (this.linkUp ? VIRTIO_NET_S_LINK_UP : 0) | (this.#announce ? VIRTIO_NET_S_ANNOUNCE : 0);
    view.setUint16(VIRTIO_NET_CONFIG_OFF_STATUS, status, true);
    view.setUint16(VIRTIO_NET_CONFIG_OFF_PAIRS, this.pairs, true);
    view.setUint16(VIRTIO_NET_CONFIG_OFF_MTU, this.#mtu, true);
    view.setUint32(VIRTIO_NET_CONFIG_OFF_SPEED, this.#speed, true);
    const known = this.#speed !== VIRTIO_NET_SPEED_UNKNOWN;
    into[VIRTIO_NET_CONFIG_OFF_DUPLEX] = known ? VIRTIO_NET_DUPLEX_FULL : VIRTIO_NET_DUPLEX_UNKNOWN;
  }

  /** Nothing in the configuration can be written by drivers of version 1 (5.1.4). */
  writeConfig(): void {
    // the address is set by a command
  }

  /** A driver is there. @throws VbusError EBUSY when another transport has the device, ENOTCONN after close */
  start(context: VirtioSessionContext): VirtioSession {
    if (this.#closed) throw new VbusError("ENOTCONN", `${this.name} was closed; make a new card`);
    if (this.#session !== null)
      throw new VbusError("EBUSY", `${this.name} has a driver on another transport`);
    this.#announce = false;
    return (this.#session = new VirtioNetSession(this, context));
  }

  /** What the card remembers for its session: what it waits for from the driver, and what was counted. @internal */
  saveSession(): StateValue {
    return {
      mac: this.#mac,
      stale: this.#stale,
      announce: this.#announce,
      statistics: saveCounters(this.statistics),
    };
  }

  /** Takes it over. @internal @throws StateError */
  restoreSession(state: StateReader, { macs }: RestoreOptions): void {
    const session = this.#session;
    this.#announce = state.get("announce").boolean();
    const mac = readStation(state.get("mac"));
    const stale = state.get("stale").nullable(readStation);
    if (macs !== "renew") this.#mac = mac;
    const used = mac === this.#mac ? stale : (stale ?? session?.filter.mac ?? null);
    if (session !== null && used !== null) {
      session.filter.mac = this.#mac; // drivers that look find it
      if (used !== this.#mac) {
        // the card that was saved may be on this very network, with the address that this driver uses
        this.#stale = used;
        this.#announce = false;
        session.linkChanged();
      }
    }
    const held = this.statistics.tx.held; // what the session brought along
    restoreCounters(this.statistics, state.get("statistics"));
    this.statistics.tx.held = held;
  }

  /** The driver took an address: one of its own, or the card's. @internal @throws what the port throws that refuses the card */
  addressed(mac: number): void {
    if (this.#stale === null || mac === this.#stale) return;
    this.#stale = null;
    // no announcement: nobody knows this address, and the driver's other ones may still be those of the card that was saved
    this.#session?.linkChanged();
    this.#session?.configChanged();
  }

  /** A session ended. @internal */
  ended(session: VirtioNetSession): void {
    if (this.#session === session) this.#session = null;
    this.#announce = false;
    this.#stale = null;
  }

  /** The driver has announced itself. @internal */
  announced(): void {
    if (!this.#announce) return;
    this.#announce = false;
    this.#session?.configChanged();
  }

  /** True while a driver uses the card. */
  get open(): boolean {
    return this.#session !== null;
  }

  /** As `VirtioFace.renewed` says. */
  get renewed(): boolean {
    return this.#stale !== null;
  }

  /** Frames may pass, as far as the card is concerned. @internal */
  get connected(): boolean {
    return this.#carrier && !this.renewed;
  }

  /** True while the card has a carrier and a place in the network, and its driver knows its address. */
  get linkUp(): boolean {
    return this.connected && this.#port !== null;
  }

  /** Where frames go; null: nowhere. Changing it closes nothing: the old port is yours again. @throws VbusError EINVAL for what is no port; what the new port throws that refuses the card; then there is none */
  get port(): Port | null {
    return this.#port;
  }

  set port(port: Port | null) {
    if (port === this.#port) return;
    this.#checkPort(port);
    this.#session?.portLeaves();
    this.#port = port;
    try {
      this.#session?.linkChanged();
    } catch (error) {
      this.#port = null;
      throw error;
    } finally {
      this.#linkTold();
    }
  }

  #checkPort(port: Port | null): Port | null {
    return port === null ? null : checkPort(port, `${this.name}: \`port\` is`, "it must be");
  }

  /** The carrier; taking it away unplugs the card from its port, which stays its own. @throws what the port throws that refuses the card */
  get carrier(): boolean {
    return this.#carrier;
  }

  set carrier(up: boolean) {
    if (up === this.#carrier) return;
    this.#carrier = up;
    try {
      this.#session?.linkChanged();
    } catch (error) {
      this.#carrier = false; // a port that refuses the card is none
      throw error;
    } finally {
      this.#linkTold();
    }
  }

  /** Tells the driver of the link, and has it announce itself where it now is. */
  #linkTold(): void {
    if (this.linkUp) this.announce();
    else this.#session?.configChanged();
  }

  /** Asks the driver to announce itself to the network (5.1.6.5.4); without GUEST_ANNOUNCE it is told of the configuration only. */
  announce(): void {
    const session = this.#session;
    if (session === null) return;
    this.#announce = hasFeature(session.features, VIRTIO_NET_F_GUEST_ANNOUNCE);
    session.configChanged();
  }

  /** The MAC address in force: the card's, or what its driver set. @throws VbusError EINVAL for one that is no station's */
  get mac(): string {
    return formatMac(this.#session?.filter.mac ?? this.#mac);
  }

  set mac(text: string) {
    this.#mac = stationAddress(text);
    if (this.#session === null) return;
    this.#session.filter.mac = this.#mac;
    if (this.#mac === this.#stale) {
      this.#stale = null; // the one that its driver uses, after all
      this.#session.linkChanged();
    }
    this.announce();
  }

  /** The card's own address, as a number. */
  get macNumber(): number {
    return this.#mac;
  }

  /** MTU: longer frames are dropped both ways. Drivers read it when they start. @throws VbusError EINVAL outside 68 … 65000 */
  get mtu(): number {
    return this.#mtu;
  }

  set mtu(mtu: number) {
    if (!Number.isInteger(mtu) || mtu < MTU_MIN || mtu > MTU_MAX)
      throw new VbusError("EINVAL", `an MTU of ${mtu}; give a whole number from ${MTU_MIN} to ${MTU_MAX}`);
    this.#mtu = mtu;
    this.#session?.configChanged();
  }

  /** Speed that the driver is told, in Mbit/s; null: unknown. @throws VbusError EINVAL outside 0 … 2^31 - 1 */
  get speed(): number | null {
    return this.#speed === VIRTIO_NET_SPEED_UNKNOWN ? null : this.#speed;
  }

  set speed(speed: number | null) {
    if (speed !== null && !(Number.isInteger(speed) && speed >= 0 && speed < 2 ** 31))
      throw new VbusError("EINVAL", `a speed of ${speed} Mbit/s; give a whole number below 2^31, or null`);
    this.#speed = speed ?? VIRTIO_NET_SPEED_UNKNOWN;
    this.#session?.configChanged();
  }

  /** Ends the card and closes its port. Its transport should be gone by then; a driver that is left finds the link down. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const { port } = this;
    this.port = null;
    port?.close();
  }
}

/** A virtio-net card; hand it to a transport. @throws VbusError EINVAL for options that make no sense */
export function virtioNet(options: VirtioNetOptions): VirtioNet {
  return new VirtioNet(options);
}

/** @throws StateError */
function readStation(state: StateReader): number {
  const mac = state.number(1, 2 ** 48 - 2);
  if (isGroupMac(mac)) state.fail("the address of a station is wanted");
  return mac;
}

/** @throws VbusError EINVAL */
function stationAddress(text: string): number {
  const mac = parseMac(text);
  if (mac === null || mac === 0 || isGroupMac(mac))
    throw new VbusError("EINVAL", `"${text}" is no station address; write one such as 02:00:00:00:00:0a`);
  return mac;
}

/** A locally administered station address at random. */
function randomMac(): number {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  bytes[0] = ((bytes[0] as number) & 0xfc) | 2;
  return bytes.reduce((mac, byte) => mac * 256 + byte, 0);
}
