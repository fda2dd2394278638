/**
 * What every implementation of one side of a ring looks like to the conformance table: the reference model, the engine,
 * and an engine in another thread. Results are the ABI's: counts, 0, 1 (ring the doorbell), or a negated errno.
 */

/** An index in memory. */
export type Index = "valid" | "inuse";

/** Which of the ways of `docs/abi/ioq.md` section 6 the ring is used in; each has a role for either side. */
export type Pattern = "transmit" | "receive" | "feed";

/** Size of descriptors: 32, 28 or 16 bytes. */
export type Layout = "lp64" | "ilp32" | "compact";

/** Members of a descriptor that a driver or device writes. */
export interface Item {
  gpa: number;
  length: number;
  cookie: number;
}

/** A descriptor as read. */
export interface Seen extends Item {
  valid: number;
  owner: number;
}

/** What to write to a descriptor, or to do besides, by name. */
export interface Options {
  pointer?: boolean;
  cookie?: boolean;
  length?: boolean;
  /** North's private mark: set it to 1 or 0. */
  mark?: 0 | 1;
  noflip?: boolean;
  signal?: boolean;
}

/** What counts like `dirty` in a wakeup, and is looked at when enabling. */
export type Recheck = "none" | "inuse.head" | "inuse.tail" | "valid.head";

/** Answer of the inverted wakeup loop. */
export type Wakeup = "done" | "run" | "budget";

/** An iterator. */
export interface Cursor {
  seek(to: "tail" | "next" | "head" | "set", offset?: number): number;
  position(): number | null;
  push(): number;
  pop(): number;
  read(): Seen | null;
  write(item: Partial<Item>, options: Options): number;
  close(): void;
}

/** One side of a ring. */
export interface RingSide {
  readonly locale: 0 | 1;
  cursor(index: Index | "both", options?: { autoupdate?: boolean; noflip?: boolean }): Cursor;
  countOf(index: Index): number;
  remain(index: Index): number;
  /** How many descriptors may be pushed (at most `max`), or a negated errno. */
  reserve(index: Index | "both", max: number): number;
  /** Pushes as many reserved descriptors as there are items. */
  commit(index: Index | "both", items: readonly Item[], options: Options): number;
  /** Descriptors that may be popped (at most `max`), or a negated errno. */
  peek(index: Index, max: number): Item[] | number;
  /** Pops n peeked descriptors; `items` are written to them as the options say. */
  release(index: Index, n: number, options: Options, items?: readonly Item[]): number;
  inject(): boolean;
  enable(recheck: Recheck): boolean;
  disable(): void;
  wakeupBegin(budget: number, recheck: Recheck): Wakeup;
  wakeupNext(recheck: Recheck): Wakeup;
  broken(): string | null;
  close(): void;
}

/** Both sides of one ring and a raw look at its memory. */
export interface Rig {
  readonly count: number;
  readonly layout: Layout;
  readonly north: RingSide;
  readonly south: RingSide;
  /** The segment's bytes, as any peer sees them. */
  readonly segment: DataView;
}

/** One of the implementations under test. */
export interface Implementation {
  readonly name: string;
  /** Largest ring for rows that work one by one: each call into another thread costs two context switches. */
  readonly largest: number;
  /** Creates north and attaches south on fresh memory. */
  open(pattern: Pattern, layout: Layout, count: number): Rig;
  /** Frees threads and memory. */
  close(): Promise<void>;
}
