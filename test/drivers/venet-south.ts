/**
 * The other side of a venet driver, written by hand over raw queues: no device, no bus. Every verb is recorded, every byte
 * is the test's; the segment ids are not those of our host, so that a driver that hard-codes them is found out.
 */
import { BurstTable, Queue, VbusError, type QueueRole } from "vbus/engine";
import type { GuestEvent, GuestSignal, GuestTransport } from "vbus/drivers";
import { ProxyBus } from "vbus/drivers";
import { VenetDriver, type TransmitFrame, type VenetNic, type VenetOptions } from "vbus/drivers/venet";
import { allocateGuestMemory, GuestMemory, MemorySpace, type GuestMemoryOptions } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";
import { expect } from "vitest";
import { pause } from "../event-loop.js";

/** Segment ids of this host. */
export const PMTD_POOL = 700;
export const EVENT_POOL = 711;
export const EVENT_QUEUE = 712;
export const L4RO_POOL = 723;
export const PAGE_QUEUE = 724;
export const USO = 0x76620001;

const ROLES: Record<number, QueueRole> = {
  0: "southReceive",
  1: "southTransmit",
  [EVENT_QUEUE]: "southReceive",
  [PAGE_QUEUE]: "southFeed",
};

/** Everything that a host may grant. */
export const EVERYTHING: [number, number][] = [
  [0, 0x2f],
  [1, 0x03],
  [2, 0x0f],
  [USO, 0x03],
];

/** A transmit descriptor with the scatter-gather descriptor that it points to. */
export interface SentFrame {
  position: number;
  pointer: number;
  cookie: number;
  /** The bytes of the VSG, as long as the descriptor says. */
  vsg: Uint8Array;
  pieces: { length: number; gpa: number }[];
  frame: Uint8Array;
}

/** What a slot says besides its pieces. */
export interface SlotFields {
  flags?: number;
  start?: number;
  offset?: number;
  type?: number;
  headerLength?: number;
  size?: number;
  /** Instead of the sum of the pieces. */
  length?: number;
  /** Instead of the number of pieces. */
  count?: number;
}

export class South implements GuestTransport {
  onEvent: ((event: GuestEvent) => void) | null = null;
  onLost: ((error: Error) => void) | null = null;
  readonly memory: GuestMemory;
  readonly host: MemorySpace;
  readonly errors: unknown[] = [];
  readonly scheduler = new EventLoopScheduler((error) => this.errors.push(error));
  /** Verbs in order. */
  readonly log: string[] = [];
  /** Runs before each verb; may throw. */
  intercept: (verb: string) => void = () => {};
  readonly segments = new Map<number, { gpa: number; length: number }>();
  readonly queues = new Map<number, { queue: Queue; cookie: number; table: BurstTable }>();
  readonly rung: number[] = [];
  readonly granted: Map<number, number>;
  eventSize = 24;
  /** What DEVCLOSE does instead of succeeding. */
  closeError: Error | null = null;
  readonly proxy: ProxyBus;
  readonly failures: unknown[] = [];
  readonly #nics: VenetNic[] = [];

  constructor(granted: [number, number][], options: GuestMemoryOptions = {}) {
    this.granted = new Map(granted);
    const init = allocateGuestMemory({ size: 8 << 20, ...options });
    this.memory = GuestMemory.openSync(init);
    this.host = MemorySpace.attachSync(init.memory, init.layout.hostArena, init.layout.regions);
    this.proxy = new ProxyBus(this, { error: (_device, error) => this.failures.push(error) });
  }

  /** Probes the one NIC. */
  async probe(options: VenetOptions = {}): Promise<VenetNic> {
    const driver = new VenetDriver((nic) => this.#nics.push(nic), options);
    this.proxy.registerDriver(driver);
    this.onEvent?.({ kind: "devadd", id: 0, type: "virtual-ethernet" });
    await this.proxy.settled();
    const nic = this.#nics[0];
    if (nic === undefined) throw this.failures.shift();
    return nic;
  }

  #verb(verb: string): void {
    this.log.push(verb);
    this.intercept(verb);
  }

  async open(id: number, version: number): Promise<number> {
    this.#verb(`open ${id} ${version}`);
    return 1;
  }

  async close(): Promise<void> {
    this.#verb("close");
    if (this.closeError !== null) throw this.closeError;
    for (const { queue, table } of this.queues.values()) {
      queue.close();
      table.close();
    }
    this.queues.clear();
    this.segments.clear();
  }

  async call(_handle: unknown, func: number, gpa: number, length: number): Promise<number> {
    const data = length === 0 ? new Uint8Array(0) : this.host.view(gpa, length);
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    switch (func) {
      case 2:
        this.#verb("macquery");
        for (let i = 0; i < 6; i++) view.setUint8(i, i === 5 ? 0x0a : i === 0 ? 2 : 0);
        return 0;
      case 3: {
        const group = view.getUint32(0, true);
        const bits = view.getUint32(4, true);
        this.#verb(`negcap ${group} 0x${bits.toString(16)}`);
        view.setUint32(4, this.granted.get(group) ?? 0, true);
        return 0;
      }
      case 5:
        this.#verb("pmtdquery");
        return PMTD_POOL;
      case 6:
      case 7: {
        this.#verb(func === 6 ? "evqquery" : "l4roquery");
        for (let i = 0; i < 32; i++) if (view.getUint8(i) !== 0) throw new Error("a query is not zeroed");
        const answers = func === 6 ? [this.eventSize, EVENT_POOL, EVENT_QUEUE] : [L4RO_POOL, PAGE_QUEUE];
        for (const [i, answer] of answers.entries()) view.setUint32(4 + i * 4, answer, true);
        return 0;
      }
      default:
        this.#verb(["linkup", "linkdown"][func] ?? (func === 4 ? "flushrx" : `call ${func}`));
        return 0;
    }
  }

  async shm(
    _handle: unknown,
    id: number,
    gpa: number,
    length: number,
    signal: GuestSignal | null,
  ): Promise<number> {
    this.#verb(`shm ${id}${signal === null ? "" : " signal"}`);
    this.segments.set(id, { gpa, length });
    const role = ROLES[id];
    if (role === undefined || signal === null) return 0;
    const queue = Queue.attach(this.host, { gpa, length, role });
    this.queues.set(id, { queue, cookie: signal.cookie, table: BurstTable.allocate(this.host, 64) });
    return id;
  }

  ring(signalHandle: number): void {
    this.rung.push(signalHandle);
  }

  async start(): Promise<void> {}

  disconnect(): void {}

  queue(id: number): { queue: Queue; cookie: number; table: BurstTable } {
    const found = this.queues.get(id);
    if (found === undefined) throw new Error(`segment ${id} was not shared`);
    return found;
  }

  segment(id: number): { gpa: number; length: number } {
    const found = this.segments.get(id);
    if (found === undefined) throw new Error(`segment ${id} was not shared`);
    return found;
  }

  /** Signals the guest, as the host does after it moved descriptors. */
  signal(id: number): void {
    const { queue, cookie } = this.queue(id);
    if (!queue.inject()) return;
    this.scheduler.post(() => this.onEvent?.({ kind: "shmsignal", cookie }));
  }

  u32(gpa: number): number {
    return new DataView(this.host.copyFrom(gpa, 4).buffer).getUint32(0, true);
  }

  setU32(gpa: number, ...values: number[]): void {
    const bytes = new Uint8Array(values.length * 4);
    const view = new DataView(bytes.buffer);
    for (const [i, value] of values.entries()) view.setUint32(i * 4, value, true);
    this.host.copyTo(gpa, bytes);
  }

  /** Takes what the guest sent, at most `max`; as scatter-gather descriptors, whose pool is segment `pool` if there is one. */
  takeSent(max = 64, signal = true): SentFrame[] {
    const { queue, table } = this.queue(1);
    const pool = this.segments.get(PMTD_POOL);
    const n = queue.peek("inuse", table, max);
    const sent: SentFrame[] = [];
    for (let i = 0; i < n; i++) {
      const pointer = table.gpa(i);
      if (pool !== undefined && pointer + table.length(i) > pool.length) throw new Error("outside the pool");
      const vsg = this.host.copyFrom((pool?.gpa ?? 0) + pointer, table.length(i));
      const view = new DataView(vsg.buffer);
      const pieces = Array.from({ length: view.getUint32(28, true) }, (_, k) => ({
        length: view.getUint32(32 + k * 16, true),
        gpa: Number(view.getBigUint64(40 + k * 16, true)),
      }));
      const frame = Buffer.concat(pieces.map((piece) => this.host.copyFrom(piece.gpa, piece.length)));
      sent.push({
        position: table.position(i),
        pointer,
        cookie: table.cookie(i),
        vsg,
        pieces,
        frame: new Uint8Array(frame),
      });
    }
    queue.release("inuse", null, n, 0);
    if (signal && n > 0) this.signal(1);
    return sent;
  }

  /** Takes linear frames that the guest sent. */
  takeLinear(): Uint8Array[] {
    const { queue, table } = this.queue(1);
    const n = queue.peek("inuse", table, 64);
    const frames = Array.from({ length: n }, (_, i) => this.host.copyFrom(table.gpa(i), table.length(i)));
    queue.release("inuse", null, n, 0);
    return frames;
  }

  /** The bytes of an event. */
  event(id: number, size: number, ...words: number[]): void {
    const { queue, table } = this.queue(EVENT_QUEUE);
    if (queue.reserve("inuse", table, 1) !== 1) throw new Error("the event ring is full");
    this.setU32(this.segment(EVENT_POOL).gpa + table.gpa(0), 0, size, id, ...words);
    queue.commit("inuse", null, 1, 0);
    this.signal(EVENT_QUEUE);
  }

  /** Completion events for positions, quoting position + 1. */
  complete(...positions: number[]): void {
    for (const position of positions) this.event(1, 24, 0, position + 1, 0);
  }

  link(up: boolean): void {
    this.event(0, 16, up ? 1 : 0);
  }

  /** Address of the slot of the next RX descriptor. */
  nextSlot(): number {
    const { queue, table } = this.queue(0);
    if (queue.reserve("inuse", table, 1) !== 1) throw new Error("no RX descriptor is posted");
    const pool = this.segment(L4RO_POOL);
    if (table.gpa(0) + 320 > pool.length) throw new Error("a slot outside the pool");
    return pool.gpa + table.gpa(0);
  }

  /** Takes a page: where it is, and the guest's reference to it. */
  takePage(): { gpa: number; cookie: number } {
    const { queue, table } = this.queue(PAGE_QUEUE);
    if (queue.peek("inuse", table, 1) !== 1) throw new Error("the page queue is empty");
    const page = { gpa: table.gpa(0), cookie: table.cookie(0) };
    if (table.length(0) !== 4096) throw new Error(`a page of ${table.length(0)} bytes`);
    queue.release("inuse", null, 1, 0);
    return page;
  }

  /** Pages that wait in the page queue. */
  get pages(): number {
    const { queue } = this.queue(PAGE_QUEUE);
    return queue.peek("inuse", null, queue.count);
  }

  /**
   * Writes a frame in pieces of the given lengths (the first into the posted buffer, each other into a page) and
   * publishes it. `pages` gives other cookies than those of the pages taken.
   */
  deliver(frame: Uint8Array, lengths: number[], fields: SlotFields = {}, cookies?: number[][]): void {
    const slot = this.nextSlot();
    const buffer = this.u32(slot + 40) + this.u32(slot + 44) * 2 ** 32;
    let at = 0;
    for (const [i, length] of lengths.entries()) {
      const part = frame.subarray(at, at + length);
      at += length;
      if (i === 0) {
        this.host.copyTo(buffer, part);
        this.setU32(slot + 32, length);
        continue;
      }
      const forged = cookies?.[i - 1];
      if (forged !== undefined) {
        this.setU32(slot + 32 + i * 16, length, 0, ...forged);
        continue;
      }
      const page = this.takePage();
      this.host.copyTo(page.gpa, part.subarray(0, 4096));
      this.setU32(slot + 32 + i * 16, length, 0, page.cookie, 0);
    }
    this.finish(slot, at, lengths.length, fields);
  }

  /** Writes the head of a slot and publishes it. */
  finish(slot: number, length: number, count: number, fields: SlotFields = {}): void {
    const { flags = 0, start = 0, offset = 0, type = 0, headerLength = 0, size = 0 } = fields;
    this.setU32(
      slot + 8,
      flags,
      fields.length ?? length,
      start | (offset << 16),
      type | (headerLength << 16),
      size,
      fields.count ?? count,
    );
    this.queue(0).queue.commit("inuse", null, 1, 0);
    this.signal(0);
  }

  /** Lets everything that is under way in this thread happen. */
  async settle(): Promise<void> {
    await pause(2);
  }
}

/** No answer in time. */
export const noAnswer = (): VbusError => new VbusError("ETIMEDOUT", "no answer");

/** Bytes that tell their place. */
export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 7 + (i >>> 8) * 13 + seed * 31) & 0xff;
  return bytes;
}

/** A TCP superframe of `length` bytes, as far as its description goes. */
export function tcp4(length: number, seed = 1): TransmitFrame {
  return {
    data: pattern(length, seed),
    checksum: { start: 34, offset: 16 },
    gso: { kind: "tcp4", size: 1448, headerLength: 66 },
  };
}

/** A host that grants so much, and a card that the driver found there and opened. */
export async function openNic(
  options: VenetOptions = {},
  granted = EVERYTHING,
  memory: GuestMemoryOptions = {},
): Promise<{ south: South; nic: VenetNic }> {
  const south = new South(granted, memory);
  const nic = await south.probe({ rxRing: 8, txRing: 8, ...options });
  await nic.open();
  south.log.length = 0;
  return { south, nic };
}

/** The guest leaves, and everything comes back: RAM at once, the arena but for what a space keeps for good. */
export async function leave(south: South): Promise<void> {
  await south.proxy.close();
  expect(south.memory.ram.available).toBe(south.memory.ram.size);
  expect(south.errors).toEqual([]);
}
