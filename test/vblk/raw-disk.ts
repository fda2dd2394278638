/** A guest that speaks vblk itself: no driver, every byte in the test's hand. */
import {
  VBLK_COMPLETION_SIZE,
  VBLK_QUERY,
  VBLK_QUEUE_COMPLETION,
  VBLK_QUEUE_REQUEST,
  VBLK_QUEUE_SEGMENTS,
  VBLK_VERSION,
} from "vbus/abi";
import type { BusEvent, Client } from "vbus/bus";
import {
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SIGNAL,
  BurstTable,
  Queue,
  queueSegmentLength,
  type QueueRole,
} from "vbus/engine";
import { allocateGuestMemory, GuestMemory, MemorySpace } from "vbus/memory";
import type { DiskMachine } from "./machine.js";

/** Members of a request record; offsets are written out, for the test of them. */
export interface RawRequest {
  tag?: number;
  op?: number;
  flags?: number;
  count?: number;
  sector?: number | bigint;
  length?: number | bigint;
  pieces?: { gpa: number | bigint; length: number }[];
}

export interface RawCompletion {
  tag: number;
  status: number;
  value: number;
}

export interface RawRing {
  queue: Queue;
  gpa: number;
  length: number;
  signal: number;
}

let members = 0;

export class RawDisk {
  readonly memory: GuestMemory;
  readonly client: Client;
  /** The host's view of the memory. */
  readonly host: MemorySpace;
  handle = 0;
  /** The queue that everything works on, see {@link RawDisk.use}. */
  queue = 0;
  request!: RawRing;
  completion!: RawRing;
  readonly #others = new Map<number, { request: RawRing; completion: RawRing; completions: number }>();
  /** 1 MiB for data. */
  readonly data: number;
  readonly records: number;
  completions: number;
  readonly table: BurstTable;

  constructor(machine: DiskMachine) {
    const init = allocateGuestMemory({ size: 2 << 20, arenaSize: 1 << 18 });
    this.memory = GuestMemory.openSync(init);
    this.host = MemorySpace.attachSync(init.memory, init.layout.hostArena, init.layout.regions);
    const member = `raw${members++}`;
    machine.bus.admit(member);
    this.client = machine.bus.openClient({ member, memory: this.host });
    this.client.listen();
    this.data = this.memory.ram.allocate(1 << 20, 64);
    this.records = this.memory.ram.allocate(64 * 512, 64);
    this.completions = this.memory.ram.allocate(64 * VBLK_COMPLETION_SIZE, 64);
    this.table = BurstTable.allocate(this.memory.space, 64);
  }

  open(version = VBLK_VERSION): number {
    const handle = this.client.open(0, version);
    if (handle > 0) this.handle = handle;
    return handle;
  }

  query(length = 64): { result: number; info: DataView<ArrayBuffer> } {
    const result = this.client.call(this.handle, VBLK_QUERY, this.data, length, 0);
    return { result, info: new DataView(this.memory.space.copyFrom(this.data, 64).buffer) };
  }

  ring(role: QueueRole, count: number): Omit<RawRing, "signal"> {
    const length = queueSegmentLength(count);
    const gpa = this.memory.ram.allocate(length, { align: 64, offset: 8 });
    return { queue: Queue.create(this.memory.space, { gpa, count, role }), gpa, length };
  }

  share(id: number, ring: Omit<RawRing, "signal">): number {
    const signal = { offset: 8, prio: 0, cookie: id + 1 };
    return this.client.shm(this.handle, id, ring.gpa, ring.length, signal, 0);
  }

  /** From now on everything works on another queue, with the rings that it has got by then or gets by {@link RawDisk.rings}. */
  use(queue: number): this {
    const { request, completion, completions } = this;
    this.#others.set(this.queue, { request, completion, completions });
    const completionsOfItsOwn = (): number => this.memory.ram.allocate(64 * VBLK_COMPLETION_SIZE, 64);
    Object.assign(this, this.#others.get(queue) ?? { completions: completionsOfItsOwn() }, { queue });
    return this;
  }

  /** Both rings; completion buffers are posted when `post`. */
  rings(count = 64, completions = 64, post = true): void {
    const request = this.ring("northFeed", count);
    this.request = { ...request, signal: this.share(this.#segment + VBLK_QUEUE_REQUEST, request) };
    const completion = this.ring("northReceive", completions);
    const signal = this.share(this.#segment + VBLK_QUEUE_COMPLETION, completion);
    this.completion = { ...completion, signal };
    if (post) this.post(completions);
  }

  get #segment(): number {
    return this.queue * VBLK_QUEUE_SEGMENTS;
  }

  /** Posts n completion buffers. */
  post(n: number, size = VBLK_COMPLETION_SIZE): void {
    const { queue, signal } = this.completion;
    const room = queue.reserve("valid", this.table, n);
    for (let i = 0; i < room; i++) {
      this.table.setGpa(i, this.completions + this.table.position(i) * VBLK_COMPLETION_SIZE);
      this.table.setLength(i, size);
    }
    if (queue.commit("valid", this.table, room, BURST_POINTER | BURST_LENGTH | BURST_SIGNAL))
      this.client.signal(signal);
  }

  /** Writes a record into slot `slot`; returns its address. */
  write(request: RawRequest, slot = 0): number {
    const { tag = slot, op = 0, flags = 0, sector = 0, length = 512 } = request;
    const pieces = request.pieces ?? [{ gpa: this.data, length: Number(length) }];
    const { count = pieces.length } = request;
    const gpa = this.records + slot * 512;
    const record = new DataView(new ArrayBuffer(512));
    record.setUint32(0, tag, true);
    record.setUint32(4, op, true);
    record.setUint32(8, flags, true);
    record.setUint32(12, count, true);
    record.setBigUint64(16, BigInt(sector), true);
    record.setBigUint64(24, BigInt(length), true);
    for (const [i, piece] of pieces.entries()) {
      record.setUint32(32 + i * 16, piece.length, true);
      record.setUint32(36 + i * 16, 0xffffffff, true); // padding means nothing
      record.setBigUint64(40 + i * 16, BigInt(piece.gpa), true);
    }
    this.memory.space.copyTo(gpa, new Uint8Array(record.buffer));
    return gpa;
  }

  /** Puts descriptors into the request ring and rings the doorbell. */
  push(...descriptors: { gpa: number; length: number }[]): void {
    const { queue, signal } = this.request;
    const room = queue.reserve("inuse", this.table, descriptors.length);
    if (room < descriptors.length) throw new Error("the request ring is full");
    for (const [i, { gpa, length }] of descriptors.entries()) {
      this.table.setGpa(i, gpa);
      this.table.setLength(i, length);
    }
    if (queue.commit("inuse", this.table, room, BURST_POINTER | BURST_LENGTH | BURST_SIGNAL))
      this.client.signal(signal);
  }

  /** Sends requests, each in a slot of its own. */
  send(...requests: RawRequest[]): void {
    this.push(...requests.map((request, slot) => ({ gpa: this.write(request, slot), length: 288 })));
  }

  /** Takes completions, and posts their buffers anew when `again`. */
  take(again = true): RawCompletion[] {
    const { queue, signal } = this.completion;
    const n = queue.peek("inuse", this.table, 64);
    const completions = Array.from({ length: n }, (_, i) => {
      const at = this.completions + this.table.position(i) * VBLK_COMPLETION_SIZE;
      const record = new DataView(this.memory.space.copyFrom(at, VBLK_COMPLETION_SIZE).buffer);
      return {
        tag: record.getUint32(0, true),
        status: record.getInt32(4, true),
        value: Number(record.getBigUint64(8, true)),
      };
    });
    if (again && queue.release("inuse", null, n, BURST_SIGNAL)) this.client.signal(signal);
    return completions;
  }

  events(): BusEvent[] {
    const events: BusEvent[] = [];
    for (let event; (event = this.client.nextEvent()) !== null;) events.push(event);
    return events;
  }
}
