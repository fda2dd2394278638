/** Frames in a memory whose every byte outside of them is watched. */
import {
  BurstTable,
  ENTRY_OFF_CSUM_OFFSET,
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_FRAGMENTS,
  ENTRY_OFF_GSO_KIND,
  ENTRY_OFF_GSO_SIZE,
  ENTRY_OFF_POSITION,
  PIECE_SIZE,
} from "vbus/engine";
import { MemorySpace } from "vbus/memory";

/** A frame and what its sender said about it. */
export interface TestFrame {
  bytes: Uint8Array;
  flags: number;
  kind: number;
  size: number;
  start: number;
  offset: number;
}

/** A frame without offloads. */
export function finished(bytes: Uint8Array, flags = 0): TestFrame {
  return { bytes, flags, kind: 0, size: 0, start: 0, offset: 0 };
}

const GAP = 64;

/**
 * A memory with frames in it, scattered over pieces that lie in any order with canaries between them. Whatever the
 * engine does, neither frames nor canaries may change: {@link Rig.check}.
 */
export class Rig {
  readonly table: BurstTable;
  readonly #start: number;
  readonly #size: number;
  #used = 0;
  #lists: { address: number; image: Uint8Array }[] = [];
  #image: Uint8Array;

  constructor(
    readonly space: MemorySpace,
    capacity = 64,
    size = 1 << 20,
    readonly canary = 0xc7,
  ) {
    this.table = BurstTable.allocate(space, capacity);
    this.#start = space.allocate(size, 64);
    this.#size = size;
    this.#image = new Uint8Array(size).fill(canary);
    space.bytes.set(this.#image, this.#start);
  }

  static async open(capacity = 64, size = 1 << 20, canary = 0xc7): Promise<Rig> {
    return new Rig(await MemorySpace.host(size + (2 << 20)), capacity, size, canary);
  }

  /** Forgets all frames. */
  clear(): void {
    for (const { address } of this.#lists) this.space.free(address);
    this.#lists = [];
    const dirty = this.#used + GAP; // check() watches the rest
    this.#image.fill(this.canary, 0, dirty);
    this.space.bytes.fill(this.canary, this.#start, this.#start + dirty);
    this.#used = 0;
  }

  #place(bytes: Uint8Array): number {
    const at = this.#used + GAP;
    if (at + bytes.length + GAP > this.#size) throw new Error("the rig is full");
    this.#image.set(bytes, at);
    this.space.bytes.set(bytes, this.#start + at);
    this.#used = at + bytes.length;
    return this.#start + at;
  }

  /** Puts a frame into entry i, cut at `cuts` (ascending offsets); every second piece is placed before its neighbour. */
  put(i: number, frame: TestFrame, cuts: readonly number[] = []): void {
    const { bytes } = frame;
    const ends = [...cuts, bytes.length];
    const parts = ends.map((end, n) => bytes.subarray(n === 0 ? 0 : (ends[n - 1] as number), end));
    const addresses: number[] = [];
    for (let n = 0; n < parts.length; n += 2) {
      const second = parts[n + 1];
      if (second !== undefined) addresses[n + 1] = this.#place(second);
      addresses[n] = this.#place(parts[n] as Uint8Array);
    }
    this.table.setBuffer(i, addresses[0] as number, bytes.length);
    const { data } = this.space.engine;
    const entry = this.table.entry(i);
    data.setUint32(entry + ENTRY_OFF_FLAGS, frame.flags, true);
    data.setUint16(entry + ENTRY_OFF_CSUM_START, frame.start, true);
    data.setUint16(entry + ENTRY_OFF_CSUM_OFFSET, frame.offset, true);
    data.setUint8(entry + ENTRY_OFF_GSO_KIND, frame.kind);
    data.setUint16(entry + ENTRY_OFF_GSO_SIZE, frame.size, true);
    data.setUint32(entry + ENTRY_OFF_POSITION, 1000 + i, true);
    if (parts.length === 1) return;
    const image = new Uint8Array((parts.length + 1) * PIECE_SIZE).fill(this.canary);
    const list = this.space.allocate(image.length, 16);
    const view = new DataView(image.buffer);
    for (const [n, part] of parts.entries()) {
      view.setUint32(n * PIECE_SIZE, addresses[n] as number, true);
      view.setUint32(n * PIECE_SIZE + 4, part.length, true);
      view.setBigUint64(n * PIECE_SIZE + 8, 0n, true);
    }
    this.space.bytes.set(image, list);
    this.#lists.push({ address: list, image });
    this.space.engine.data.setUint16(entry + ENTRY_OFF_FRAGMENTS, parts.length, true);
    this.space.engine.data.setUint32(entry + ENTRY_OFF_FRAGMENT_LIST, list, true);
  }

  /** Throws when frames, what lies between them, or their lists of pieces changed. */
  check(): void {
    const { bytes } = this.space;
    if (Buffer.compare(bytes.subarray(this.#start, this.#start + this.#size), this.#image) !== 0) {
      throw new Error("frames or the bytes between them were written to");
    }
    for (const { address, image } of this.#lists) {
      if (Buffer.compare(bytes.subarray(address, address + image.length), image) !== 0) {
        throw new Error("a list of pieces was written to");
      }
    }
  }
}

/** Entry i of a table with its bytes gathered. */
export function readFrame(table: BurstTable, i: number): TestFrame {
  const { data, bytes } = table.space.engine;
  const entry = table.entry(i);
  const length = table.length(i);
  const count = data.getUint16(entry + ENTRY_OFF_FRAGMENTS, true);
  const parts: Uint8Array[] = [];
  if (count <= 1) {
    const address = table.bufferAddress(i);
    parts.push(bytes.subarray(address, address + length));
  } else {
    const list = data.getUint32(entry + ENTRY_OFF_FRAGMENT_LIST, true);
    for (let n = 0; n < count; n++) {
      const address = data.getUint32(list + n * PIECE_SIZE, true);
      parts.push(bytes.subarray(address, address + data.getUint32(list + n * PIECE_SIZE + 4, true)));
    }
  }
  const gathered = new Uint8Array(Buffer.concat(parts));
  if (gathered.length !== length)
    throw new Error(`pieces of ${gathered.length} bytes make a frame of ${length}`);
  return {
    bytes: gathered,
    flags: table.flags(i),
    kind: data.getUint8(entry + ENTRY_OFF_GSO_KIND),
    size: data.getUint16(entry + ENTRY_OFF_GSO_SIZE, true),
    start: data.getUint16(entry + ENTRY_OFF_CSUM_START, true),
    offset: data.getUint16(entry + ENTRY_OFF_CSUM_OFFSET, true),
  };
}

/** All n entries. */
export function readFrames(table: BurstTable, n: number): TestFrame[] {
  return Array.from({ length: n }, (_, i) => readFrame(table, i));
}

/** Private areas for one raw call of the engine, each with canaries in front of it and behind. */
export class Areas {
  readonly #areas: { at: number; size: number }[] = [];
  readonly #block: number;
  readonly #total: number;

  constructor(
    readonly space: MemorySpace,
    sizes: readonly number[],
    readonly canary: number,
  ) {
    let at = GAP;
    for (const size of sizes) {
      this.#areas.push({ at, size });
      at = (at + size + GAP + 63) & ~63;
    }
    this.#total = at;
    this.#block = space.allocate(at, 64);
    this.reset();
  }

  /** Fills everything with the canary. */
  reset(): void {
    this.space.bytes.fill(this.canary, this.#block, this.#block + this.#total);
  }

  /** Address of area n. */
  at(n: number): number {
    return this.#block + (this.#areas[n] as { at: number }).at;
  }

  /** Throws when anything between the areas was written to. */
  check(): void {
    const { bytes } = this.space;
    let from = 0;
    for (const { at, size } of [...this.#areas, { at: this.#total, size: 0 }]) {
      for (let i = from; i < at; i++) {
        if (bytes[this.#block + i] !== this.canary) throw new Error(`wrote outside of its areas, at ${i}`);
      }
      from = at + size;
    }
  }
}
