/**
 * Plain model of IOQ version 4, written from `docs/abi/ioq.md`. It behaves like a peer of 2009: it keeps no private
 * copies, so every index is read from shared memory when it is needed, and it never does more than the document says.
 * It shares no code and no constants with the engine.
 */
import { formatSignal, isSignal, ReferenceSignal } from "./signal.js";

const MAGIC = 0x47fa2fe4;
const VERSION = 4;
const COMPACT = 2;
const ACCEPTED = 0x80000000;
const EPERM = -1;
const EINVAL = -22;
const EPROTO = -71;

/** The two layouts of section 1.4, and compact descriptors (`docs/abi/extensions.md` 5). */
export const LAYOUTS = {
  lp64: { header: 56, stride: 32 },
  ilp32: { header: 52, stride: 28 },
  compact: { header: 56, stride: 16 },
} as const;
/** Name of a layout. */
export type LayoutName = keyof typeof LAYOUTS;

/** An index that exists in memory. */
export type IndexName = "valid" | "inuse";
/** What an iterator may be bound to (section 5). */
export type IteratorIndex = IndexName | "both";
/** An index end that a side moves (section 6). */
export type IndexEnd = `${IndexName}.${"head" | "tail"}`;

/** What is stored in a descriptor. */
export interface ReferenceDescriptor {
  cookie: bigint;
  ptr: bigint;
  len: bigint;
  valid: number;
  sown: number;
}

const INDEX_AT = { valid: 24, inuse: 36 } as const;
const ALL_ENDS: readonly IndexEnd[] = ["valid.head", "valid.tail", "inuse.head", "inuse.tail"];

/** Length of a segment (section 1.1). */
export function segmentLength(count: number, layout: LayoutName): number {
  // a segment is announced before anything is negotiated: it has room for the descriptors of version 4
  const { header, stride } = layout === "compact" ? LAYOUTS.lp64 : LAYOUTS[layout];
  return header + stride * count;
}

/** One side of a ring. */
export class ReferenceRing {
  /** Set when shared memory contradicted the protocol: from then on everything answers -EPROTO. */
  fault: string | null = null;
  /** The embedded signal. */
  readonly signal: ReferenceSignal;

  private constructor(
    private readonly view: DataView,
    private readonly at: number,
    readonly count: number,
    readonly layout: LayoutName,
    readonly locale: 0 | 1,
    private readonly ends: readonly IndexEnd[],
  ) {
    this.signal = new ReferenceSignal(view, at + 8, locale);
  }

  /** North: formats a segment (section 2). */
  static create(
    view: DataView,
    at: number,
    count: number,
    layout: LayoutName,
    ends = ALL_ENDS,
  ): ReferenceRing {
    for (let i = 0; i < segmentLength(count, layout); i++) view.setUint8(at + i, 0);
    view.setUint32(at, MAGIC, true);
    view.setUint32(at + 4, VERSION, true);
    view.setUint32(at + 48, count, true);
    if (layout === "compact") view.setUint32(at + 52, COMPACT, true);
    formatSignal(view, at + 8);
    return new ReferenceRing(view, at, count, layout, 0, ends);
  }

  /** South: the checks of section 2 in their order, and zero (D4). The ring, or -EINVAL. */
  static attach(
    view: DataView,
    at: number,
    length: number,
    limit: number,
    ends = ALL_ENDS,
  ): ReferenceRing | typeof EINVAL {
    if (length < 52 || !isSignal(view, at + 8)) return EINVAL;
    if (view.getUint32(at, true) !== MAGIC || view.getUint32(at + 4, true) !== VERSION) return EINVAL;
    const count = view.getUint32(at + 48, true);
    if (count === 0 || (limit !== -1 && count > limit)) return EINVAL;
    if (segmentLength(count, "lp64") === length && view.getUint32(at + 52, true) === COMPACT) {
      view.setUint32(at + 52, ACCEPTED + COMPACT, true);
      return new ReferenceRing(view, at, count, "compact", 1, ends);
    }
    for (const layout of ["lp64", "ilp32"] as const) {
      if (segmentLength(count, layout) === length) return new ReferenceRing(view, at, count, layout, 1, ends);
    }
    return EINVAL;
  }

  /** True when this side moves that end. */
  moves(index: IndexName, end: "head" | "tail"): boolean {
    return this.ends.includes(`${index}.${end}`);
  }

  /** An index end as it stands in memory, or null after a fault (an original guest's kernel stops there: D1). */
  load(index: IndexName, end: "head" | "tail"): number | null {
    const value = this.view.getUint32(this.at + INDEX_AT[index] + (end === "head" ? 0 : 4), true);
    if (value < this.count) return value;
    this.fault ??= "index";
    return null;
  }

  /** Stores an index end. */
  store(index: IndexName, end: "head" | "tail", value: number): void {
    this.view.setUint32(this.at + INDEX_AT[index] + (end === "head" ? 0 : 4), value, true);
  }

  /** The `full` byte. */
  full(index: IndexName): boolean {
    return this.view.getUint8(this.at + INDEX_AT[index] + 8) !== 0;
  }

  /** Stores the `full` byte. */
  setFull(index: IndexName, value: 0 | 1): void {
    this.view.setUint8(this.at + INDEX_AT[index] + 8, value);
  }

  /** Section 3: is full = `full` and head == tail. */
  isFull(index: IndexName): boolean {
    return this.full(index) && this.load(index, "head") === this.load(index, "tail");
  }

  /** Section 3: number of descriptors on an index, or -EPROTO. */
  countOf(index: IndexName): number {
    if (this.fault !== null) return EPROTO;
    const head = this.load(index, "head");
    const tail = this.load(index, "tail");
    if (head === null || tail === null) return EPROTO;
    if (this.isFull(index)) return this.count;
    return (tail - head + this.count) % this.count;
  }

  private place(position: number): number {
    return this.at + LAYOUTS[this.layout].header + LAYOUTS[this.layout].stride * position;
  }

  /** Where the cookie of a compact descriptor lies: behind all descriptors. */
  private cookie(position: number): number {
    return this.place(this.count) + 8 * position;
  }

  /** Where its `valid` lies: behind all cookies. */
  private mark(position: number): number {
    return this.cookie(this.count) + position;
  }

  /** Reads a descriptor. */
  descriptor(position: number): ReferenceDescriptor {
    const at = this.place(position);
    if (this.layout === "compact") {
      return {
        cookie: this.view.getBigUint64(this.cookie(position), true),
        ptr: this.view.getBigUint64(at, true),
        len: BigInt(this.view.getUint32(at + 8, true)),
        valid: this.view.getUint8(this.mark(position)),
        sown: this.view.getUint8(at + 12),
      };
    }
    return {
      cookie: this.view.getBigUint64(at, true),
      ptr: this.view.getBigUint64(at + 8, true),
      len: this.view.getBigUint64(at + 16, true),
      valid: this.view.getUint8(at + 24),
      sown: this.view.getUint8(at + 25),
    };
  }

  /** Writes members of a descriptor. */
  write(position: number, members: Partial<ReferenceDescriptor>): void {
    const at = this.place(position);
    if (this.layout === "compact") {
      if (members.cookie !== undefined) this.view.setBigUint64(this.cookie(position), members.cookie, true);
      if (members.ptr !== undefined) this.view.setBigUint64(at, members.ptr, true);
      if (members.len !== undefined) this.view.setUint32(at + 8, Number(members.len), true);
      if (members.valid !== undefined) this.view.setUint8(this.mark(position), members.valid);
      if (members.sown !== undefined) this.view.setUint8(at + 12, members.sown);
      return;
    }
    if (members.cookie !== undefined) this.view.setBigUint64(at, members.cookie, true);
    if (members.ptr !== undefined) this.view.setBigUint64(at + 8, members.ptr, true);
    if (members.len !== undefined) this.view.setBigUint64(at + 16, members.len, true);
    if (members.valid !== undefined) this.view.setUint8(at + 24, members.valid);
    if (members.sown !== undefined) this.view.setUint8(at + 25, members.sown);
  }

  /** True when the descriptor belongs to this side; null after a fault (an owner that is neither side). */
  owned(position: number): boolean | null {
    const { sown } = this.descriptor(position);
    if (sown > 1) {
      this.fault ??= "owner";
      return null;
    }
    return sown === this.locale;
  }

  /** An iterator (section 5). */
  iterator(
    index: IteratorIndex,
    options: { autoupdate?: boolean; noflip?: boolean } = {},
  ): ReferenceIterator {
    return new ReferenceIterator(this, index, options.autoupdate ?? false, options.noflip ?? false);
  }
}

/** The iterator of section 5. Results: 0, 1 (ring the doorbell), or a negated errno. */
export class ReferenceIterator {
  /** Position, undefined until the first seek. */
  position: number | undefined;
  private readonly index: IndexName;
  private readonly dual: boolean;

  constructor(
    private readonly ring: ReferenceRing,
    index: IteratorIndex,
    private readonly autoupdate: boolean,
    private readonly noflip: boolean,
  ) {
    this.dual = index === "both";
    this.index = index === "both" ? "valid" : index;
  }

  /** Moves the iterator. */
  seek(to: "tail" | "next" | "head" | "set", n = 0): number {
    const { ring } = this;
    if (to === "set") {
      if (n >= ring.count) return EPERM;
      this.position = n;
      return 0;
    }
    if (to === "next") {
      if (this.position === undefined) return EINVAL;
      this.position = (this.position + 1) % ring.count;
      return 0;
    }
    if (ring.fault !== null) return EPROTO;
    const value = ring.load(this.index, to);
    if (value === null) return EPROTO;
    this.position = value;
    return 0;
  }

  private turn(end: "head" | "tail"): number {
    const { ring } = this;
    if (ring.fault !== null) return EPROTO;
    if (!ring.moves(this.index, end)) return EINVAL;
    const value = ring.load(this.index, end);
    if (value === null) return EPROTO;
    if (this.position !== value) return EINVAL;
    const mine = ring.owned(value);
    if (mine === null) return EPROTO;
    return mine ? 0 : EINVAL;
  }

  private advanceTail(index: IndexName): number {
    const { ring } = this;
    const tail = ring.load(index, "tail");
    const head = ring.load(index, "head");
    if (tail === null || head === null) return EPROTO;
    const next = (tail + 1) % ring.count;
    if (next === head) ring.setFull(index, 1);
    ring.store(index, "tail", next);
    return 0;
  }

  private handOver(position: number): number {
    if (!this.noflip) this.ring.write(position, { sown: 1 - this.ring.locale });
    this.position = (position + 1) % this.ring.count;
    return this.autoupdate && this.ring.signal.inject() ? 1 : 0;
  }

  /** Puts the descriptor at the tail into service. */
  push(): number {
    const { ring, position } = this;
    const error = this.turn("tail");
    if (error !== 0) return error;
    if (this.dual) {
      if (!ring.moves("inuse", "tail")) return EINVAL;
      if (ring.load("valid", "tail") !== ring.load("inuse", "tail")) {
        ring.fault ??= "tails";
        return EPROTO;
      }
    }
    let result = this.advanceTail(this.index);
    if (result === 0 && this.dual) result = this.advanceTail("inuse");
    return result === 0 ? this.handOver(position as number) : result;
  }

  /** Takes the descriptor at the head out of service. */
  pop(): number {
    const { ring, position } = this;
    const error = this.turn("head");
    if (error !== 0) return error;
    ring.store(this.index, "head", ((position as number) + 1) % ring.count);
    if (ring.full(this.index)) ring.setFull(this.index, 0);
    return this.handOver(position as number);
  }
}
