/** A virtio-net card with a driver that does exactly what a test says, in one thread on virtual time. */
import { expect } from "vitest";
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_HDR_SIZE,
} from "vbus/abi";
import { VirtioLocal } from "vbus/connectors/virtio-local";
import { VirtioNet, type VirtioNetOptions } from "vbus/devices/virtio-net";
import { BurstTable, ChainTable, type DriverVirtQueue } from "vbus/engine";
import { allocateGuestMemory, GuestMemory, openHostView, type MemorySpace } from "vbus/memory";
import { totalDrops } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import type { VirtioRingOptions } from "vbus/virtio";
import { TestPort } from "../venet/port.js";

export const ACKNOWLEDGE = 1;
export const DRIVER = 2;
export const DRIVER_OK = 4;
export const FEATURES_OK = 8;
export const NEEDS_RESET = 64;

/** A feature as a mask. */
export const bit = (...features: number[]): bigint =>
  features.reduce((all, n) => all | (1n << BigInt(n)), 0n);
const VERSION_1 = bit(32);
/** What concerns rings alone. */
export const RING_FEATURES = bit(
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_RESET,
);

/** A header as a test writes it; what is left out is 0. */
export interface Header {
  flags?: number;
  type?: number;
  headerLength?: number;
  size?: number;
  start?: number;
  offset?: number;
  buffers?: number;
}

export function encodeHeader(header: Header): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(VIRTIO_NET_HDR_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, header.flags ?? 0);
  view.setUint8(1, header.type ?? 0);
  view.setUint16(2, header.headerLength ?? 0, true);
  view.setUint16(4, header.size ?? 0, true);
  view.setUint16(6, header.start ?? 0, true);
  view.setUint16(8, header.offset ?? 0, true);
  view.setUint16(10, header.buffers ?? 0, true);
  return bytes;
}

export function decodeHeader(bytes: Uint8Array): Required<Header> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    flags: view.getUint8(0),
    type: view.getUint8(1),
    headerLength: view.getUint16(2, true),
    size: view.getUint16(4, true),
    start: view.getUint16(6, true),
    offset: view.getUint16(8, true),
    buffers: view.getUint16(10, true),
  };
}

/** A frame that the driver received, with its header. */
export interface Received {
  header: Required<Header>;
  frame: Uint8Array;
  /** Buffers that it came in. */
  buffers: number;
}

/** A piece of a chain, in guest memory. */
interface Piece {
  gpa: number;
  length: number;
}

/** One queue as the test drives it. */
export class TestQueue {
  readonly chains: ChainTable;
  readonly reaped: BurstTable;
  /** Pieces of what is in the ring, by cookie. */
  readonly pieces = new Map<number, Piece[]>();
  interrupts = 0;
  #cookie = 0;

  constructor(
    readonly machine: NetMachine,
    readonly ring: DriverVirtQueue,
    private readonly bell: () => void,
  ) {
    const { space } = machine.guest;
    this.chains = ChainTable.allocate(space, 1, 64);
    this.reaped = BurstTable.allocate(space, 64);
    ring.enable();
  }

  /** Makes one chain available. Returns its cookie. */
  add(readable: readonly Piece[], writable: readonly Piece[], kick = true): number {
    const cookie = ++this.#cookie;
    this.chains.setChain(0, readable, writable);
    this.chains.table.setCookie(0, cookie);
    if (this.ring.add(this.chains, 1) && kick) this.bell();
    this.pieces.set(cookie, [...readable, ...writable]);
    return cookie;
  }

  /** Everything that the device has used: cookies and bytes written. Asks for interrupts again. */
  reap(): { cookie: number; written: number; pieces: Piece[] }[] {
    const all: { cookie: number; written: number; pieces: Piece[] }[] = [];
    for (let n; (n = this.ring.reap(this.reaped, 64)) > 0;) {
      for (let i = 0; i < n; i++) {
        const cookie = this.reaped.cookie(i);
        all.push({ cookie, written: this.reaped.length(i), pieces: this.pieces.get(cookie) ?? [] });
        this.pieces.delete(cookie);
      }
    }
    this.ring.enable();
    return all;
  }
}

export interface NetMachineOptions extends Partial<VirtioNetOptions> {
  rings?: VirtioRingOptions;
  /** Bytes of guest memory. */
  memory?: number;
}

/** A card, a guest and a network's end. */
export class NetMachine {
  readonly scheduler = new VirtualScheduler();
  readonly port = new TestPort();
  readonly card: VirtioNet;
  readonly errors: unknown[] = [];
  readonly transport: VirtioLocal;
  configChanges = 0;
  readonly queues = new Map<number, TestQueue>();
  features = 0n;

  private constructor(
    readonly guest: GuestMemory,
    readonly host: MemorySpace,
    options: NetMachineOptions,
  ) {
    const { rings, memory: _memory, ...card } = options;
    this.card = new VirtioNet({ name: "net0", port: this.port, mac: "02:00:00:00:00:0a", ...card });
    this.transport = new VirtioLocal({
      face: this.card,
      guest,
      host,
      scheduler: this.scheduler,
      ...(rings === undefined ? {} : { rings }),
      onError: (error) => this.errors.push(error),
    });
    this.transport.onConfigChange = () => this.configChanges++;
  }

  static async create(options: NetMachineOptions = {}): Promise<NetMachine> {
    const init = allocateGuestMemory({ size: options.memory ?? 8 << 20 });
    return new NetMachine(await GuestMemory.open(init), await openHostView(init), options);
  }

  /**
   * Negotiates and sets queues up, to DRIVER_OK.
   * @param wanted - features of the card; all of what is offered when left out
   * @param ring - features of the rings
   * @param sizes - descriptors of each queue, by index; those left out are as large as they may be
   */
  async start(wanted?: bigint, ring: bigint = 0n, sizes: Record<number, number> = {}): Promise<void> {
    const { transport } = this;
    await transport.reset();
    this.queues.clear();
    await transport.setStatus(ACKNOWLEDGE);
    await transport.setStatus(DRIVER);
    const offered = await transport.offeredFeatures();
    this.features = ((wanted ?? offered & ~RING_FEATURES) | ring | VERSION_1) & offered;
    await transport.acceptFeatures(this.features);
    expect((await transport.setStatus(FEATURES_OK)) & FEATURES_OK, "FEATURES_OK sticks").toBe(FEATURES_OK);
    for (let index = 0; index < transport.queueCount; index++) await this.addQueue(index, sizes[index]);
    await transport.setStatus(DRIVER_OK);
    this.scheduler.run();
  }

  async addQueue(index: number, size?: number): Promise<TestQueue> {
    const holder: { queue?: TestQueue } = {};
    const queue = await this.transport.createQueue(index, {
      ...(size === undefined ? {} : { size }),
      onInterrupt: () => {
        if (holder.queue !== undefined) holder.queue.interrupts++;
      },
    });
    holder.queue = new TestQueue(this, queue.ring, () => {
      queue.kick();
    });
    this.queues.set(index, holder.queue);
    return holder.queue;
  }

  /** Queue `index`, which is there. */
  queue(index: number): TestQueue {
    const queue = this.queues.get(index);
    if (queue === undefined) throw new Error(`no queue ${index}`);
    return queue;
  }

  get rx(): TestQueue {
    return this.queue(0);
  }

  get tx(): TestQueue {
    return this.queue(1);
  }

  /** The control queue, of a driver without several pairs. */
  get control(): TestQueue {
    return this.queue(2);
  }

  /** Puts bytes into guest memory, each piece on its own. */
  place(...pieces: Uint8Array[]): Piece[] {
    return pieces.map((bytes) => {
      const gpa = this.guest.ram.allocate(Math.max(1, bytes.length), 16);
      this.guest.space.copyTo(gpa, bytes);
      return { gpa, length: bytes.length };
    });
  }

  /** Room in guest memory. */
  room(...lengths: number[]): Piece[] {
    return lengths.map((length) => ({ gpa: this.guest.ram.allocate(length, 16), length }));
  }

  /** Sends a frame: header and frame in one piece, unless `cuts` says after how many bytes to cut. */
  send(frame: Uint8Array, header: Header = {}, cuts: number[] = [], queue = this.tx): number {
    const all = new Uint8Array(VIRTIO_NET_HDR_SIZE + frame.length);
    all.set(encodeHeader(header));
    all.set(frame, VIRTIO_NET_HDR_SIZE);
    const ends = [...cuts, all.length];
    let from = 0;
    const parts = ends.map((end) => {
      const part = all.subarray(from, end);
      from = end;
      return part;
    });
    return queue.add(this.place(...parts), []);
  }

  /** Posts `n` receive buffers, each of pieces of these lengths; a kick arrives while nothing else happens. */
  post(n: number, ...lengths: number[]): void {
    for (let i = 0; i < n; i++) this.rx.add([], this.room(...lengths));
    this.scheduler.run();
  }

  /** Frames that the driver received on a queue, as it would put them together. */
  received(queue = this.rx): Received[] {
    const mergeable = (this.features & bit(VIRTIO_NET_F_MRG_RXBUF)) !== 0n;
    const used = queue.reap().map(({ written, pieces }) => this.#gather(pieces, written));
    const frames: Received[] = [];
    for (let i = 0; i < used.length;) {
      const first = used[i] as Uint8Array;
      const header = decodeHeader(first);
      const buffers = mergeable ? header.buffers : 1;
      const parts = used.slice(i, i + buffers);
      expect(parts.length, "buffers of a frame come together").toBe(buffers);
      const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
      let at = 0;
      for (const part of parts) {
        whole.set(part, at);
        at += part.length;
      }
      frames.push({ header, frame: whole.slice(VIRTIO_NET_HDR_SIZE), buffers });
      i += buffers;
    }
    return frames;
  }

  #gather(pieces: readonly Piece[], written: number): Uint8Array {
    const bytes = new Uint8Array(written);
    let at = 0;
    for (const { gpa, length } of pieces) {
      const n = Math.min(length, written - at);
      bytes.set(this.guest.space.copyFrom(gpa, n), at);
      at += n;
    }
    expect(at, "no more was written than there was room").toBe(written);
    return bytes;
  }

  /** Runs a command on the control queue. Returns the acknowledgement and what came behind it. */
  command(
    kind: number,
    command: number,
    data: Uint8Array | number[] = [],
    room = 1,
    queue = this.control,
  ): { ack: number; result: Uint8Array } {
    const bytes = Uint8Array.from([kind, command, ...data]);
    const writable = room === 0 ? [] : this.room(room);
    for (const { gpa, length } of writable) this.guest.space.copyTo(gpa, new Uint8Array(length).fill(0xee));
    queue.add(this.place(bytes), writable);
    this.scheduler.run();
    const [used] = queue.reap();
    if (used === undefined) throw new Error("the command was not answered");
    const answer = this.#gather(writable, used.written);
    return { ack: answer[0] ?? -1, result: answer.slice(1) };
  }

  /** Configuration of the card. */
  async config(): Promise<{
    mac: string;
    status: number;
    pairs: number;
    mtu: number;
    speed: number;
    duplex: number;
  }> {
    const bytes = await this.transport.readConfig(0, this.transport.configSize);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return {
      mac: Buffer.from(bytes.subarray(0, 6)).toString("hex"),
      status: view.getUint16(6, true),
      pairs: view.getUint16(8, true),
      mtu: view.getUint16(10, true),
      speed: view.getUint32(12, true),
      duplex: view.getUint8(16),
    };
  }

  /** Asserts that each frame that entered either left or was dropped and counted. */
  assertBalanced(): void {
    for (const direction of ["tx", "rx"] as const) {
      const { frames, replicated, passed, merged, drops, held } = this.card.statistics[direction];
      expect(frames + replicated, `${direction}: frames + replicated = passed + merged + drops + held`).toBe(
        passed + merged + totalDrops(drops) + held,
      );
    }
  }
}
