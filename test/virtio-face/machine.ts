/** A virtio device with a driver that does exactly what a test says, in one thread on virtual time. */
import { expect } from "vitest";
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
} from "vbus/abi";
import { VirtioLocal } from "vbus/connectors/virtio-local";
import { BurstTable, ChainTable, type DriverVirtQueue } from "vbus/engine";
import { allocateGuestMemory, GuestMemory, openHostView, type MemorySpace } from "vbus/memory";
import { VirtualScheduler } from "vbus/scheduler";
import type { VirtioFace, VirtioRingOptions } from "vbus/virtio";

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

/** Kinds of rings that every device works on. */
export const RINGS: [string, bigint][] = [
  ["split", 0n],
  ["split, event index, indirect", bit(VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC)],
  ["packed", bit(VIRTIO_F_RING_PACKED)],
  ["packed, event index, indirect", bit(VIRTIO_F_RING_PACKED, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC)],
];

/** A piece of a chain, in guest memory. */
export interface Piece {
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
    space: MemorySpace,
    readonly ring: DriverVirtQueue,
    private readonly bell: () => void,
  ) {
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

/** Both views of one guest memory, and time. */
export interface Surroundings {
  guest: GuestMemory;
  host: MemorySpace;
  scheduler: VirtualScheduler;
}

export async function surroundings(bytes = 8 << 20): Promise<Surroundings> {
  const init = allocateGuestMemory({ size: bytes });
  return {
    guest: await GuestMemory.open(init),
    host: await openHostView(init),
    scheduler: new VirtualScheduler(),
  };
}

/** A device and a guest. */
export class FaceMachine<Face extends VirtioFace = VirtioFace> {
  readonly scheduler: VirtualScheduler;
  readonly guest: GuestMemory;
  readonly host: MemorySpace;
  readonly transport: VirtioLocal;
  readonly errors: unknown[] = [];
  configChanges = 0;
  readonly queues = new Map<number, TestQueue>();
  features = 0n;

  constructor(
    readonly face: Face,
    { guest, host, scheduler }: Surroundings,
    rings?: VirtioRingOptions,
  ) {
    this.guest = guest;
    this.host = host;
    this.scheduler = scheduler;
    this.transport = new VirtioLocal({
      face,
      guest,
      host,
      scheduler,
      ...(rings === undefined ? {} : { rings }),
      onError: (error) => this.errors.push(error),
    });
    this.transport.onConfigChange = () => this.configChanges++;
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
    holder.queue = new TestQueue(this.guest.space, queue.ring, () => {
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

  /** The first `written` bytes of a chain's pieces. */
  gather(pieces: readonly Piece[], written: number): Uint8Array {
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
}
