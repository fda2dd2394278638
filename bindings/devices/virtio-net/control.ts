import {
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_ANNOUNCE_ACK,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_CTRL_MAC_TABLE_SET,
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
  VIRTIO_NET_CTRL_NOTF_COAL,
  VIRTIO_NET_CTRL_NOTF_COAL_RX_SET,
  VIRTIO_NET_CTRL_NOTF_COAL_TX_SET,
  VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET,
  VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_RX_ALLMULTI,
  VIRTIO_NET_CTRL_RX_ALLUNI,
  VIRTIO_NET_CTRL_RX_NOBCAST,
  VIRTIO_NET_CTRL_RX_NOMULTI,
  VIRTIO_NET_CTRL_RX_NOUNI,
  VIRTIO_NET_CTRL_RX_PROMISC,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_CTRL_VLAN_ADD,
  VIRTIO_NET_CTRL_VLAN_DEL,
  VIRTIO_NET_ERR,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_NOTF_COAL,
  VIRTIO_NET_F_VQ_NOTF_COAL,
  VIRTIO_NET_OK,
} from "../../../assembly/abi/virtio-net.js";
import { readChain, writeChain } from "../../engine/chain-bytes.js";
import { ChainTable } from "../../engine/chain-table.js";
import { VirtQueueWakeups } from "../../engine/virtqueue-wakeup.js";
import { isGroupMac } from "../../net/batch.js";
import type { Scheduler } from "../../scheduler.js";
import type { VirtioQueue } from "../../virtio/types.js";
import { hasFeature } from "./features.js";
import type { ReceiveFilter } from "./filter.js";
import type { Moderation } from "./moderation.js";

/** Longest command: tables of thousands of addresses. */
const COMMAND_MAX = 64 * 1024;
/** Commands per run before other work of the thread gets its turn. */
const COMMANDS_PER_RUN = 16;
const VLAN_MAX = 4094;

/** What commands act on. */
export interface ControlTarget {
  /** Negotiated features: commands of others are refused. */
  readonly features: bigint;
  /** What the driver receives. */
  readonly filter: ReceiveFilter;
  /** The driver took another address. */
  setMac(mac: number): void;
  /** The driver has announced itself. */
  announced(): void;
  /** The driver uses so many pairs. False: there are not as many. */
  setPairs(pairs: number): boolean;
  /** The driver takes other frames unfinished. False: it may not. */
  setGuestOffloads(features: bigint): boolean;
  /** Puts interrupts off, for all queues of a direction. */
  moderate(direction: "rx" | "tx", moderation: Moderation): void;
  /** … of one queue. False: there is none. */
  moderateQueue(index: number, moderation: Moderation): boolean;
  /** What is in force for a queue; null: there is none. */
  moderationOf(index: number): Moderation | null;
  /** A command was done, or refused. */
  counted(done: boolean): void;
  /** The guest broke the queue. */
  failed(error: unknown): void;
}

/**
 * The control queue of virtio-net (virtio 1.2: 5.1.6.5). Whatever a command holds, it is bounded, copied once, and answered:
 * done, or refused and nothing changed.
 */
export class ControlQueue {
  readonly #chains: ChainTable;
  readonly #wakeups: VirtQueueWakeups;
  #closed = false;

  /** @throws VbusError ENOMEM */
  constructor(
    private readonly queue: VirtioQueue,
    scheduler: Scheduler,
    private readonly target: ControlTarget,
  ) {
    this.#chains = ChainTable.allocate(queue.ring.space, 1, 64);
    this.#wakeups = new VirtQueueWakeups(queue.ring, {
      scheduler,
      notifier: () => {
        this.#run();
      },
      onBroken: (error) => {
        target.failed(error);
      },
    });
    queue.onKick = this.#wakeups.wakeup;
    this.#wakeups.enable();
  }

  #run(): void {
    const { ring } = this.queue;
    for (let n = 0; n < COMMANDS_PER_RUN; n++) {
      if (ring.peek(this.#chains, 1) === 0) return;
      const { ack, result } = this.#command();
      if (this.#isClosed()) return; // a command may end the session
      this.target.counted(ack === VIRTIO_NET_OK);
      // the acknowledgement comes before the result (1.3: 5.1.6.5)
      const answer = new Uint8Array(1 + result.length);
      answer[0] = ack;
      answer.set(result, 1);
      this.#chains.setUsed(0, writeChain(this.#chains, 0, 0, answer));
      if (ring.release(this.#chains, 1)) this.queue.interrupt();
    }
  }

  #isClosed(): boolean {
    return this.#closed || this.queue.ring.closed;
  }

  #command(): { ack: number; result: Uint8Array } {
    const none = new Uint8Array(0);
    const refused = { ack: VIRTIO_NET_ERR, result: none };
    if (this.#chains.readableBytes(0) > COMMAND_MAX || this.#chains.writableBytes(0) === 0) return refused;
    const bytes = readChain(this.#chains, 0, 0, COMMAND_MAX);
    if (bytes.length < 2) return refused;
    const [kind = 0, command = 0] = bytes;
    const data = new Command(bytes.subarray(2));
    if (kind === VIRTIO_NET_CTRL_NOTF_COAL && command === VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET) {
      const result = this.#queryModeration(data);
      return result === null ? refused : { ack: VIRTIO_NET_OK, result };
    }
    return this.#change(kind, command, data) ? { ack: VIRTIO_NET_OK, result: none } : refused;
  }

  #has(feature: number): boolean {
    return hasFeature(this.target.features, feature);
  }

  #change(kind: number, command: number, data: Command): boolean {
    switch (kind) {
      case VIRTIO_NET_CTRL_RX:
        return this.#receiveMode(command, data);
      case VIRTIO_NET_CTRL_MAC:
        return this.#address(command, data);
      case VIRTIO_NET_CTRL_VLAN:
        return this.#vlan(command, data);
      case VIRTIO_NET_CTRL_ANNOUNCE:
        if (!this.#has(VIRTIO_NET_F_GUEST_ANNOUNCE) || command !== VIRTIO_NET_CTRL_ANNOUNCE_ACK) return false;
        this.target.announced();
        return true;
      case VIRTIO_NET_CTRL_MQ: {
        const pairs = data.u16();
        return (
          this.#has(VIRTIO_NET_F_MQ) &&
          command === VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET &&
          data.complete &&
          pairs > 0 &&
          this.target.setPairs(pairs)
        );
      }
      case VIRTIO_NET_CTRL_GUEST_OFFLOADS: {
        const features = data.u64();
        return (
          this.#has(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) &&
          command === VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET &&
          data.complete &&
          this.target.setGuestOffloads(features)
        );
      }
      case VIRTIO_NET_CTRL_NOTF_COAL:
        return this.#moderate(command, data);
      default:
        return false;
    }
  }

  #receiveMode(command: number, data: Command): boolean {
    const extra = command > VIRTIO_NET_CTRL_RX_ALLMULTI;
    if (!this.#has(extra ? VIRTIO_NET_F_CTRL_RX_EXTRA : VIRTIO_NET_F_CTRL_RX)) return false;
    const on = data.u8() !== 0;
    if (!data.complete) return false;
    const { modes } = this.target.filter;
    switch (command) {
      case VIRTIO_NET_CTRL_RX_PROMISC:
        modes.promiscuous = on;
        return true;
      case VIRTIO_NET_CTRL_RX_ALLMULTI:
        modes.allMulticast = on;
        return true;
      case VIRTIO_NET_CTRL_RX_ALLUNI:
        modes.allUnicast = on;
        return true;
      case VIRTIO_NET_CTRL_RX_NOMULTI:
        modes.noMulticast = on;
        return true;
      case VIRTIO_NET_CTRL_RX_NOUNI:
        modes.noUnicast = on;
        return true;
      case VIRTIO_NET_CTRL_RX_NOBCAST:
        modes.noBroadcast = on;
        return true;
      default:
        return false;
    }
  }

  #address(command: number, data: Command): boolean {
    if (command === VIRTIO_NET_CTRL_MAC_ADDR_SET) {
      const mac = data.mac();
      if (!this.#has(VIRTIO_NET_F_CTRL_MAC_ADDR) || !data.complete || mac === 0 || isGroupMac(mac))
        return false;
      this.target.setMac(mac);
      return true;
    }
    if (command !== VIRTIO_NET_CTRL_MAC_TABLE_SET || !this.#has(VIRTIO_NET_F_CTRL_RX)) return false;
    const unicast = data.macs();
    const multicast = data.macs();
    if (!data.complete) return false;
    this.target.filter.setTables(unicast, multicast);
    return true;
  }

  #vlan(command: number, data: Command): boolean {
    const id = data.u16();
    if (!this.#has(VIRTIO_NET_F_CTRL_VLAN) || !data.complete || id > VLAN_MAX) return false;
    if (command === VIRTIO_NET_CTRL_VLAN_ADD) this.target.filter.addVlan(id);
    else if (command === VIRTIO_NET_CTRL_VLAN_DEL) this.target.filter.removeVlan(id);
    else return false;
    return true;
  }

  #moderate(command: number, data: Command): boolean {
    if (command === VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET) {
      if (!this.#has(VIRTIO_NET_F_VQ_NOTF_COAL)) return false;
      const index = data.u16();
      data.u16();
      const moderation = data.moderation();
      return data.complete && this.target.moderateQueue(index, moderation);
    }
    if (!this.#has(VIRTIO_NET_F_NOTF_COAL)) return false;
    const moderation = data.moderation();
    if (!data.complete) return false;
    if (command === VIRTIO_NET_CTRL_NOTF_COAL_TX_SET) this.target.moderate("tx", moderation);
    else if (command === VIRTIO_NET_CTRL_NOTF_COAL_RX_SET) this.target.moderate("rx", moderation);
    else return false;
    return true;
  }

  #queryModeration(data: Command): Uint8Array | null {
    if (!this.#has(VIRTIO_NET_F_VQ_NOTF_COAL)) return null;
    const index = data.u16();
    data.u16();
    const moderation = data.complete ? this.target.moderationOf(index) : null;
    if (moderation === null) return null;
    const result = new Uint8Array(8);
    const view = new DataView(result.buffer);
    view.setUint32(0, moderation.packets, true);
    view.setUint32(4, moderation.microseconds, true);
    return result;
  }

  /** Ends it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wakeups.close();
    this.queue.onKick = null;
    this.#chains.close();
  }
}

/** Reads the data of a command: little-endian numbers one after the other. What is missing reads as 0. */
class Command {
  #at = 0;
  #short = false;
  readonly #view: DataView;

  constructor(private readonly bytes: Uint8Array<ArrayBuffer>) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** True when everything that was read was there. More may be: drivers of later versions add members. */
  get complete(): boolean {
    return !this.#short;
  }

  /** Where the next `length` bytes begin; -1 when they are not there. */
  #take(length: number): number {
    const at = this.#at;
    if (length > this.bytes.length - at) {
      this.#short = true;
      return -1;
    }
    this.#at += length;
    return at;
  }

  u8(): number {
    const at = this.#take(1);
    return at < 0 ? 0 : this.#view.getUint8(at);
  }

  u16(): number {
    const at = this.#take(2);
    return at < 0 ? 0 : this.#view.getUint16(at, true);
  }

  u32(): number {
    const at = this.#take(4);
    return at < 0 ? 0 : this.#view.getUint32(at, true);
  }

  u64(): bigint {
    const at = this.#take(8);
    return at < 0 ? 0n : this.#view.getBigUint64(at, true);
  }

  /** An address, as a 48-bit number. */
  mac(): number {
    const at = this.#take(6);
    return at < 0 ? 0 : this.#view.getUint16(at) * 2 ** 32 + this.#view.getUint32(at + 2);
  }

  /** A table of addresses: their number, and they. */
  macs(): number[] {
    const count = this.u32();
    if (count * 6 > this.bytes.length - this.#at) {
      this.#short = true;
      return [];
    }
    return Array.from({ length: count }, () => this.mac());
  }

  moderation(): Moderation {
    return { packets: this.u32(), microseconds: this.u32() };
  }
}
