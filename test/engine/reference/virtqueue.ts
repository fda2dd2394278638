/**
 * Plain model of virtqueues, written from the specification (virtio 1.2, sections 2.7 and 2.8). It reads shared memory
 * whenever it needs something of its peer, does one thing at a time, and shares no code and no constants with the
 * engine. What the specification leaves open (which free descriptor is taken next, when a batch in order ends) it does
 * as the engine does, so that every shared byte can be compared.
 */

/** A buffer in guest memory. */
export interface Piece {
  gpa: number;
  length: number;
}

/** A chain that a driver makes available. */
export interface Offer {
  cookie: number;
  readable: Piece[];
  writable: Piece[];
}

/** A chain that a device finds. */
export interface Found {
  id: number;
  /** Descriptors of the ring. */
  slots: number;
  readable: Piece[];
  writable: Piece[];
}

/** A chain that a device completes. */
export interface Done {
  id: number;
  slots: number;
  /** Bytes written. */
  used: number;
}

/** A chain that a driver gets back. */
export interface Back {
  cookie: number;
  length: number;
}

/** What was negotiated, and where the queue lies. */
export interface Setup {
  size: number;
  descriptors: number;
  driver: number;
  device: number;
  eventIndex: boolean;
  inOrder: boolean;
  /** Indirect tables of so many descriptors at this address; 0: not negotiated. */
  pieces: number;
  tables: number;
}

/** Guest memory by guest-physical addresses, little endian. */
export class Memory {
  readonly #view: DataView;

  constructor(
    buffer: ArrayBufferLike,
    address: number,
    length: number,
    readonly start: number,
  ) {
    this.#view = new DataView(buffer, address, length);
  }

  u16(gpa: number): number {
    return this.#view.getUint16(gpa - this.start, true);
  }

  u32(gpa: number): number {
    return this.#view.getUint32(gpa - this.start, true);
  }

  u64(gpa: number): number {
    return this.u32(gpa) + this.u32(gpa + 4) * 2 ** 32;
  }

  put16(gpa: number, value: number): void {
    this.#view.setUint16(gpa - this.start, value, true);
  }

  put32(gpa: number, value: number): void {
    this.#view.setUint32(gpa - this.start, value, true);
  }

  put64(gpa: number, value: number): void {
    this.put32(gpa, value % 2 ** 32);
    this.put32(gpa + 4, Math.floor(value / 2 ** 32));
  }
}

export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;

export const sum = (pieces: readonly Piece[]): number => pieces.reduce((n, { length }) => n + length, 0);
export const wrap16 = (n: number): number => ((n % 65536) + 65536) % 65536;

/** 2.7.7.2, 2.7.10.2: the event lies among the entries that were just published. */
export function needsEvent(event: number, from: number, to: number): boolean {
  for (let at = from; at !== to; at = wrap16(at + 1)) if (at === event) return true;
  return false;
}

/** A chain that the driver has out. */
export interface Out {
  id: number;
  cookie: number;
  capacity: number;
  descriptors: number[];
}

/** Writes an indirect table (2.7.5.3.2, 2.8.7). */
export function writeTable(
  memory: Memory,
  table: number,
  { readable, writable }: Offer,
  linked: boolean,
): void {
  const all = [...readable, ...writable];
  for (const [i, { gpa, length }] of all.entries()) {
    const at = table + 16 * i;
    const flags = i >= readable.length ? WRITE : 0;
    const last = i === all.length - 1;
    memory.put64(at, gpa);
    memory.put32(at + 8, length);
    if (linked) {
      memory.put16(at + 12, flags | (last ? 0 : NEXT));
      memory.put16(at + 14, last ? 0 : i + 1);
    } else {
      memory.put16(at + 12, 0);
      memory.put16(at + 14, flags);
    }
  }
}

/** How a used element of a batch in order is taken (2.7.9, 2.8.8): all chains up to the one that it names. */
export function takeBatch(out: Out[], id: number, length: number): { out: Out; length: number }[] {
  const n = out.findIndex((each) => each.id === id) + 1;
  if (n === 0) throw new Error(`${id} is not in flight`);
  return out.splice(0, n).map((each, i) => ({ out: each, length: i === n - 1 ? length : each.capacity }));
}

/** The batches that a device in order completes a burst in: each ends with a chain that was not written completely, or the last. */
export function batches(done: readonly Done[], capacity: (id: number) => number): Done[][] {
  const all: Done[][] = [];
  let batch: Done[] = [];
  for (const each of done) {
    batch.push(each);
    if (each.used !== capacity(each.id)) {
      all.push(batch);
      batch = [];
    }
  }
  return batch.length === 0 ? all : [...all, batch];
}

/** What a driver does. */
export interface ReferenceDriver {
  free(): number;
  add(offers: readonly Offer[]): boolean;
  reap(max: number): Back[];
  enable(): boolean;
  enableDelayed(): boolean;
  disable(): void;
}

/** What a device does. */
export interface ReferenceDevice {
  peek(max: number): Found[];
  advance(n: number): void;
  complete(done: readonly Done[]): boolean;
  enable(pastPeeked: boolean): boolean;
  disable(): void;
}
