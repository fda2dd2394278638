import {
  REGION_OFF_ADDRESS,
  REGION_OFF_GPA,
  REGION_OFF_LENGTH,
  REGION_SIZE,
  REGIONS_MAX,
  REGIONS_OFF_COUNT,
  REGIONS_OFF_ENTRIES,
  REGIONS_OFF_WRITE_LOG,
  REGIONS_SIZE,
  WRITE_LOG_ENTRY_OFF_GPA,
  WRITE_LOG_ENTRY_OFF_LENGTH,
  WRITE_LOG_ENTRY_SIZE,
  WRITE_LOG_OFF_CAPACITY,
  WRITE_LOG_OFF_COUNT,
  WRITE_LOG_OFF_ENTRIES,
  WRITE_LOG_OFF_OVERFLOW,
} from "../../assembly/abi/arena.js";
import { Engine } from "../engine/engine.js";
import { VbusError } from "../errors.js";
import { checkGiven } from "../given.js";
import { RangeAllocator } from "./allocator.js";

/** A piece of guest-physical address space and where it lies in the memory. */
export interface MemoryRegion {
  /** First guest-physical address. */
  gpa: number;
  /** Length in bytes, less than 4 GiB. */
  length: number;
  /** Where the region starts in the WebAssembly.Memory. */
  address: number;
}

/** A range of a memory that belongs to one thread's engine; outside every guest region. */
export interface ArenaRange {
  /** Where it starts in the memory; not 0. */
  address: number;
  /** Length in bytes. */
  size: number;
}

/** A guest range that the engine wrote. */
export interface WrittenRange {
  /** First guest-physical address. */
  gpa: number;
  /** Length in bytes. */
  length: number;
}

const WRITE_LOG_ENTRIES = 1024;

/**
 * One thread's hold on one memory: the engine linked onto it, the arena for private state, and the table of guest
 * regions. Everything that reaches guest memory goes through the translation here or in the engine.
 *
 * A space without regions is the host's own memory, for ports that have no guest.
 */
export class MemorySpace {
  /** Allocator of the arena; addresses, not guest-physical ones. */
  readonly arena: RangeAllocator;
  /** Address of the engine's region table. */
  readonly regionTable: number;
  #regions: MemoryRegion[] = [];
  #writeLog = 0;
  readonly #growable: boolean;

  protected constructor(
    /** The engine that works on this memory, in this thread. */
    readonly engine: Engine,
    arena: ArenaRange,
    regions: readonly MemoryRegion[],
    growable: boolean,
  ) {
    if (arena.address <= 0 || arena.address + arena.size > engine.memory.buffer.byteLength) {
      throw new VbusError(
        "EINVAL",
        `the arena at ${arena.address} + ${arena.size} does not lie inside the memory, or starts at 0`,
      );
    }
    this.arena = new RangeAllocator(arena.address, arena.size, "arena");
    this.regionTable = this.arena.allocate(REGIONS_SIZE, 64);
    this.#growable = growable;
    this.engine.bytes.fill(0, this.regionTable, this.regionTable + REGIONS_SIZE);
    this.#setRegions(regions, arena);
  }

  /**
   * Binds to regions and an arena of a memory that exists already: an emulator's, or one that another thread allocated.
   * @throws VbusError EINVAL for regions or an arena outside the memory, or overlapping each other
   */
  static async attach(
    memory: WebAssembly.Memory,
    arena: ArenaRange,
    regions: readonly MemoryRegion[],
  ): Promise<MemorySpace> {
    return new MemorySpace(await Engine.link(memory), arena, regions, false);
  }

  /** {@link MemorySpace.attach} where synchronous compilation is allowed. */
  static attachSync(
    memory: WebAssembly.Memory,
    arena: ArenaRange,
    regions: readonly MemoryRegion[],
  ): MemorySpace {
    return new MemorySpace(Engine.linkSync(memory), arena, regions, false);
  }

  /** The host's own memory: no guest, an arena that grows when {@link MemorySpace.allocate} needs it. */
  static async host(initialBytes = 1 << 20): Promise<MemorySpace> {
    const pages = Math.max(2, Math.ceil(initialBytes / 65536) + 1);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: 65536 });
    const arena = { address: 65536, size: (pages - 1) * 65536 };
    return new MemorySpace(await Engine.link(memory), arena, [], true);
  }

  #setRegions(regions: readonly MemoryRegion[], arena: ArenaRange): void {
    if (regions.length > REGIONS_MAX) {
      throw new VbusError(
        "EINVAL",
        `${regions.length} guest regions; the engine handles ${REGIONS_MAX}: merge neighbours`,
      );
    }
    const limit = this.engine.memory.buffer.byteLength;
    const overlaps = (a: number, b: number, c: number, d: number): boolean => a < c + d && c < a + b;
    for (const [i, region] of regions.entries()) {
      const { gpa, length, address } = region;
      const where = `guest region ${i} (gpa 0x${gpa.toString(16)}, ${length} bytes at ${address})`;
      if (
        ![gpa, length, address].every((n) => Number.isSafeInteger(n) && n >= 0) ||
        length === 0 ||
        length >= 2 ** 32
      ) {
        throw new VbusError("EINVAL", `${where}: give whole numbers, a length of 1 byte to 4 GiB - 1`);
      }
      if (address === 0 || address + length > limit)
        throw new VbusError("EINVAL", `${where} does not lie inside the memory, or starts at 0`);
      if (overlaps(address, length, arena.address, arena.size)) {
        throw new VbusError(
          "EINVAL",
          `${where} overlaps the arena; a guest must not reach the engine's private state`,
        );
      }
      for (const other of regions.slice(0, i)) {
        if (overlaps(gpa, length, other.gpa, other.length))
          throw new VbusError("EINVAL", `${where} overlaps another region's guest addresses`);
      }
    }
    const data = this.engine.data;
    for (const [i, region] of regions.entries()) {
      const at = this.regionTable + REGIONS_OFF_ENTRIES + i * REGION_SIZE;
      data.setUint32(at + REGION_OFF_GPA, region.gpa >>> 0, true);
      data.setUint32(at + REGION_OFF_GPA + 4, Math.floor(region.gpa / 2 ** 32), true);
      data.setUint32(at + REGION_OFF_LENGTH, region.length, true);
      data.setUint32(at + REGION_OFF_ADDRESS, region.address, true);
    }
    data.setUint32(this.regionTable + REGIONS_OFF_COUNT, regions.length, true);
    this.#regions = regions.map((region) => ({ ...region }));
  }

  /**
   * Replaces the regions (an emulator moved its RAM). Call `rebase()` of every queue and signal afterwards.
   * @throws VbusError EINVAL as {@link MemorySpace.attach}; the old regions stay
   */
  moveRegions(regions: readonly MemoryRegion[]): void {
    this.#setRegions(regions, { address: this.arena.start, size: this.arena.end - this.arena.start });
  }

  /** The guest regions, as given. */
  get regions(): readonly MemoryRegion[] {
    return this.#regions;
  }

  /** The engine's memory as bytes. Borrowed: fetch anew for every use (growing kills views). */
  get bytes(): Uint8Array {
    return this.engine.bytes;
  }

  /**
   * Allocates private memory; grows the memory when this space is the host's own.
   * @throws VbusError ENOMEM when the arena is exhausted and cannot grow
   */
  allocate(size: number, align = 16): number {
    try {
      return this.arena.allocate(size, align);
    } catch (error) {
      if (!this.#growable || !(error instanceof VbusError) || error.code !== "ENOMEM") throw error;
      const pages = Math.ceil(Math.max(size + align, this.arena.size / 2) / 65536);
      try {
        this.engine.memory.grow(pages);
      } catch (cause) {
        throw new VbusError("ENOMEM", `the host's memory cannot grow by ${pages} pages`, { cause });
      }
      this.arena.extend(pages * 65536);
      return this.arena.allocate(size, align);
    }
  }

  /** Gives back what {@link MemorySpace.allocate} gave. */
  free(address: number): void {
    this.arena.free(address);
  }

  /**
   * Address of a guest range in the memory. The bytes belong to the guest: it may rewrite them at any time.
   * @throws VbusError EFAULT, naming the address, when any byte lies outside every region
   */
  translate(gpa: number, length: number): number {
    if (
      Number.isSafeInteger(gpa) &&
      gpa >= 0 &&
      Number.isSafeInteger(length) &&
      length >= 0 &&
      length < 2 ** 32
    ) {
      const address =
        this.engine.exports.translate(this.regionTable, gpa >>> 0, Math.floor(gpa / 2 ** 32), length) >>> 0;
      if (address !== 0) return address;
    }
    throw new VbusError(
      "EFAULT",
      `guest range 0x${gpa.toString(16)} + ${length} lies outside the guest's memory`,
    );
  }

  /** Copies bytes out of guest memory. The result is yours. @throws VbusError EFAULT naming the address. */
  copyFrom(gpa: number, length: number): Uint8Array<ArrayBuffer> {
    const address = this.translate(gpa, length);
    const copy = new Uint8Array(length);
    copy.set(this.bytes.subarray(address, address + length));
    return copy;
  }

  /** Copies bytes into guest memory and notes it in the write log. @throws VbusError EFAULT naming the address. */
  copyTo(gpa: number, data: Uint8Array): void {
    const address = this.translate(gpa, data.length);
    this.bytes.set(data, address);
    this.noteWrite(gpa, data.length);
  }

  /** A view of a guest range. Borrowed: dead after the memory grows. @throws VbusError EFAULT naming the address. */
  view(gpa: number, length: number): Uint8Array {
    const address = this.translate(gpa, length);
    return this.bytes.subarray(address, address + length);
  }

  /** Turns the write log on (`true`) or off. While on, {@link MemorySpace.takeWrites} reports what the engine wrote. */
  logWrites(on: boolean): void {
    if (on === (this.#writeLog !== 0)) return;
    if (on) {
      this.#writeLog = this.allocate(WRITE_LOG_OFF_ENTRIES + WRITE_LOG_ENTRIES * WRITE_LOG_ENTRY_SIZE, 16);
      const data = this.engine.data;
      data.setUint32(this.#writeLog + WRITE_LOG_OFF_CAPACITY, WRITE_LOG_ENTRIES, true);
      data.setUint32(this.#writeLog + WRITE_LOG_OFF_COUNT, 0, true);
      data.setUint32(this.#writeLog + WRITE_LOG_OFF_OVERFLOW, 0, true);
    } else {
      this.free(this.#writeLog);
      this.#writeLog = 0;
    }
    this.engine.data.setUint32(this.regionTable + REGIONS_OFF_WRITE_LOG, this.#writeLog, true);
  }

  /**
   * Guest ranges written since the last call, or `"everything"` when there were too many to list. Empty while the log
   * is off. An emulator calls it after each burst to invalidate translated code.
   */
  takeWrites(): WrittenRange[] | "everything" {
    const ranges: WrittenRange[] = [];
    const told = this.#drainWrites((gpa, length) => ranges.push({ gpa, length }));
    return told < 0 ? "everything" : ranges;
  }

  /**
   * {@link MemorySpace.takeWrites} without allocating: tells `visit` every range, or each region as a whole when there were
   * too many to list. Returns how many were told.
   */
  visitWrites(visit: (gpa: number, length: number) => void): number {
    const told = this.#drainWrites(visit);
    if (told >= 0) return told;
    for (const { gpa, length } of this.#regions) visit(gpa, length);
    return this.#regions.length;
  }

  /** Empties the log and tells its ranges. Returns how many; -1, and nothing told, when it overflowed. */
  #drainWrites(visit: (gpa: number, length: number) => void): number {
    if (this.#writeLog === 0) return 0;
    const { words } = this.engine;
    const log = this.#writeLog >>> 2;
    const count = Math.min(words[log + (WRITE_LOG_OFF_COUNT >>> 2)] as number, WRITE_LOG_ENTRIES);
    const overflow = words[log + (WRITE_LOG_OFF_OVERFLOW >>> 2)] !== 0;
    words[log + (WRITE_LOG_OFF_COUNT >>> 2)] = 0;
    words[log + (WRITE_LOG_OFF_OVERFLOW >>> 2)] = 0;
    if (overflow) return -1;
    for (let i = 0; i < count; i++) {
      const at = log + ((WRITE_LOG_OFF_ENTRIES + i * WRITE_LOG_ENTRY_SIZE) >>> 2);
      const low = words[at + (WRITE_LOG_ENTRY_OFF_GPA >>> 2)] as number;
      const high = words[at + (WRITE_LOG_ENTRY_OFF_GPA >>> 2) + 1] as number;
      visit(low + high * 2 ** 32, words[at + (WRITE_LOG_ENTRY_OFF_LENGTH >>> 2)] as number);
    }
    return count;
  }

  /** Notes a guest range that JavaScript wrote, when the log is on. */
  noteWrite(gpa: number, length: number): void {
    if (this.#writeLog === 0) return;
    const data = this.engine.data;
    const count = data.getUint32(this.#writeLog + WRITE_LOG_OFF_COUNT, true);
    if (count >= WRITE_LOG_ENTRIES) {
      data.setUint32(this.#writeLog + WRITE_LOG_OFF_OVERFLOW, 1, true);
      return;
    }
    const at = this.#writeLog + WRITE_LOG_OFF_ENTRIES + count * WRITE_LOG_ENTRY_SIZE;
    data.setUint32(at + WRITE_LOG_ENTRY_OFF_GPA, gpa >>> 0, true);
    data.setUint32(at + WRITE_LOG_ENTRY_OFF_GPA + 4, Math.floor(gpa / 2 ** 32), true);
    data.setUint32(at + WRITE_LOG_ENTRY_OFF_LENGTH, length, true);
    data.setUint32(this.#writeLog + WRITE_LOG_OFF_COUNT, count + 1, true);
  }
}

/**
 * Passes through what the embedder gave as a memory space.
 * @param what - beginning of the message, such as "`space` is"
 * @param call - what makes one here, for the message
 * @throws VbusError EINVAL for anything that is none, a promise above all
 */
export function checkSpace(space: MemorySpace, what: string, call: string): MemorySpace {
  return checkGiven(space, what, `give a MemorySpace: \`${call}\``, "engine", "translate", "allocate");
}
