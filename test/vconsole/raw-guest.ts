/** A guest that speaks the verbs of the bus and writes its rings itself: every byte is in the test's hand. */
import {
  VCONSOLE_EVENT_SIZE,
  VCONSOLE_QUEUE_EVENTS,
  VCONSOLE_QUEUE_RX,
  VCONSOLE_QUEUE_TX,
  VCONSOLE_READY,
  VCONSOLE_VERSION,
} from "vbus/abi";
import type { Client } from "vbus/bus";
import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  BurstTable,
  Queue,
  queueSegmentLength,
  type QueueRole,
} from "vbus/engine";
import { allocateGuestMemory, GuestMemory, MemorySpace } from "vbus/memory";
import type { TestMachine } from "./machine.js";

export interface RawRing {
  queue: Queue;
  gpa: number;
  length: number;
  /** First of `count` buffers. */
  buffers: number;
  size: number;
  /** To ring, once shared. */
  signal: number;
}

const WRITE = BURST_POINTER | BURST_LENGTH | BURST_COOKIE;

export class RawGuest {
  readonly memory: GuestMemory;
  readonly host: MemorySpace;
  readonly client: Client;
  readonly table: BurstTable;
  handle = 0;
  rings!: Record<"rx" | "tx" | "events", RawRing>;

  constructor(
    readonly machine: TestMachine,
    name = "raw",
  ) {
    const init = allocateGuestMemory({ size: 1 << 18, arenaSize: 1 << 17 });
    this.memory = GuestMemory.openSync(init);
    this.host = MemorySpace.attachSync(init.memory, init.layout.hostArena, init.layout.regions);
    this.table = BurstTable.allocate(this.memory.space, 16);
    machine.bus.admit(name);
    this.client = machine.bus.openClient({ member: name, memory: this.host });
    this.client.listen();
  }

  open(id = 0, version = VCONSOLE_VERSION): number {
    const handle = this.client.open(id, version);
    if (handle > 0) this.handle = handle;
    return handle;
  }

  call(func: number, gpa = 0xdead0000, length = 0): number {
    return this.client.call(this.handle, func, gpa, length, 0);
  }

  ring(role: QueueRole, size: number, count = 4, ilp32 = false): RawRing {
    const length = queueSegmentLength(count, ilp32);
    const gpa = this.memory.ram.allocate(length, { align: 64, offset: 8 });
    const buffers = this.memory.ram.allocate(size * count, 64);
    const queue = Queue.create(this.memory.space, { gpa, count, role, ilp32 });
    return { queue, gpa, length, buffers, size, signal: -1 };
  }

  share(id: number, ring: RawRing): number {
    ring.signal = this.client.shm(
      this.handle,
      id,
      ring.gpa,
      ring.length,
      { offset: 8, prio: 0, cookie: id },
      0,
    );
    return ring.signal;
  }

  /** All three rings, shared, buffers posted. */
  setUp(ilp32 = false, count = 4): void {
    const rx = this.ring("northReceive", 16, count, ilp32);
    const tx = this.ring("northTransmit", 16, count, ilp32);
    const events = this.ring("northReceive", VCONSOLE_EVENT_SIZE, count, ilp32);
    this.rings = { rx, tx, events };
    this.share(VCONSOLE_QUEUE_RX, rx);
    this.share(VCONSOLE_QUEUE_TX, tx);
    this.share(VCONSOLE_QUEUE_EVENTS, events);
    this.post(rx);
    this.post(events);
  }

  ready(): number {
    return this.call(VCONSOLE_READY);
  }

  #fill(ring: RawRing, i: number, gpa?: number, length?: number): void {
    const position = this.table.position(i);
    this.table.setGpa(i, gpa ?? ring.buffers + position * ring.size);
    this.table.setLength(i, length ?? ring.size);
    this.table.setCookie(i, position + 1);
  }

  /** Posts every free descriptor, as it should be or as told. */
  post(ring: RawRing, gpa?: number, length?: number): void {
    const n = ring.queue.reserve("valid", this.table, 16);
    for (let i = 0; i < n; i++) this.#fill(ring, i, gpa, length);
    ring.queue.commit("valid", this.table, n, WRITE | BURST_SET_VALID);
  }

  /** Sends bytes in one descriptor (address and length as told). False: no room. */
  send(bytes: Uint8Array, gpa?: number, length?: number): boolean {
    const { tx } = this.rings;
    const done = tx.queue.peek("valid", null, tx.queue.count);
    if (done > 0) tx.queue.release("valid", null, done, BURST_NOFLIP | BURST_CLEAR_VALID);
    if (tx.queue.reserve("both", this.table, 1) === 0) return false;
    this.#fill(tx, 0, gpa, length ?? bytes.length);
    if (gpa === undefined) this.memory.space.copyTo(this.table.gpa(0), bytes);
    tx.queue.commit("both", this.table, 1, WRITE | BURST_SET_VALID | BURST_SIGNAL);
    this.client.signal(tx.signal);
    return true;
  }

  /** Takes what the host filled, one array per descriptor, and posts the buffers again. */
  take(name: "rx" | "events"): Uint8Array[] {
    const ring = this.rings[name];
    const n = ring.queue.peek("inuse", this.table, 16);
    const taken: Uint8Array[] = [];
    for (let i = 0; i < n; i++) {
      taken.push(
        this.memory.space.copyFrom(ring.buffers + this.table.position(i) * ring.size, this.table.length(i)),
      );
      this.#fill(ring, i);
    }
    ring.queue.release("inuse", this.table, n, WRITE | BURST_SIGNAL);
    this.client.signal(ring.signal);
    return taken;
  }

  /** Events as 32-bit words: size, id, conversation, position, cols | rows << 16. */
  events(): number[][] {
    return this.take("events").map((record) => {
      const view = new DataView(record.buffer);
      return [4, 8, 12, 16, 24].map((offset) => view.getUint32(offset, true));
    });
  }

  close(): number {
    const result = this.client.close(this.handle);
    for (const ring of Object.values(this.rings)) ring.queue.close();
    return result;
  }
}
