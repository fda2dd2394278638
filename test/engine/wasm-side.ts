/** The engine, through its typed door, as a {@link RingSide}. */
import { ITER_AUTOUPDATE, ITER_NOFLIPOWNER } from "vbus/abi";
import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  BurstTable,
  ONE_DOORBELL,
  Queue,
  RECHECK_INUSE_HEAD,
  RECHECK_INUSE_TAIL,
  RECHECK_NONE,
  RECHECK_VALID_HEAD,
  RingIterator,
  VbusError,
  WAKEUP_BUDGET,
  WAKEUP_DONE,
  WAKEUP_RUN,
  type QueueRole,
} from "vbus/engine";
import type { MemorySpace } from "vbus/memory";
import type { Cursor, Index, Item, Options, Pattern, Recheck, RingSide, Seen, Wakeup } from "./ring-side.js";

/** The engine's name for what each side does. */
export const ROLES: Record<Pattern, readonly [north: QueueRole, south: QueueRole]> = {
  transmit: ["northTransmit", "southTransmit"],
  receive: ["northReceive", "southReceive"],
  feed: ["northFeed", "southFeed"],
};

const RECHECK: Record<Recheck, number> = {
  none: RECHECK_NONE,
  "inuse.head": RECHECK_INUSE_HEAD,
  "inuse.tail": RECHECK_INUSE_TAIL,
  "valid.head": RECHECK_VALID_HEAD,
};
const WAKEUP: Record<number, Wakeup> = {
  [WAKEUP_DONE]: "done",
  [WAKEUP_RUN]: "run",
  [WAKEUP_BUDGET]: "budget",
};

function flagsOf(options: Options): number {
  return (
    (options.pointer === true ? BURST_POINTER : 0) |
    (options.cookie === true ? BURST_COOKIE : 0) |
    (options.length === true ? BURST_LENGTH : 0) |
    (options.mark === 1 ? BURST_SET_VALID : 0) |
    (options.mark === 0 ? BURST_CLEAR_VALID : 0) |
    (options.noflip === true ? BURST_NOFLIP : 0) |
    (options.signal === true ? BURST_SIGNAL : 0)
  );
}

/** Result of a call, or the negated errno of what it threw. Anything but a VbusError is a defect and goes on up. */
export function resultOf<T>(call: () => T): T | number {
  try {
    return call();
  } catch (error) {
    if (error instanceof VbusError) return -error.errno;
    throw error;
  }
}

class WasmCursor implements Cursor {
  constructor(private readonly iterator: RingIterator) {}

  seek(to: "tail" | "next" | "head" | "set", offset = 0): number {
    return this.iterator.seek(to, offset);
  }

  position(): number | null {
    return this.iterator.position;
  }

  push(): number {
    return this.iterator.push();
  }

  pop(): number {
    return this.iterator.pop();
  }

  read(): Seen | null {
    return this.iterator.read();
  }

  write(item: Partial<Item>, options: Options): number {
    return this.iterator.write(item, flagsOf(options));
  }

  close(): void {
    this.iterator.close();
  }
}

/** One side of a ring, by the engine. */
export class WasmSide implements RingSide {
  protected readonly table: BurstTable;

  constructor(
    readonly queue: Queue,
    readonly locale: 0 | 1,
  ) {
    this.table = BurstTable.allocate(queue.space, queue.count + 1);
  }

  /** North: creates the ring. */
  static create(
    space: MemorySpace,
    pattern: Pattern,
    gpa: number,
    count: number,
    ilp32: boolean,
    offer = 0,
  ): WasmSide {
    return new this(Queue.create(space, { gpa, count, role: ROLES[pattern][0], ilp32, offer }), 0);
  }

  /** South: attaches to it. */
  static attach(space: MemorySpace, pattern: Pattern, gpa: number, length: number, accept = 0): WasmSide {
    return new this(Queue.attach(space, { gpa, length, role: ROLES[pattern][1], accept }), 1);
  }

  cursor(index: Index | "both", options: { autoupdate?: boolean; noflip?: boolean } = {}): Cursor {
    const flags =
      (options.autoupdate === true ? ITER_AUTOUPDATE : 0) | (options.noflip === true ? ITER_NOFLIPOWNER : 0);
    return new WasmCursor(new RingIterator(this.queue, index, flags));
  }

  countOf(index: Index): number {
    return resultOf(() => this.queue.countOf(index));
  }

  remain(index: Index): number {
    return resultOf(() => this.queue.remain(index));
  }

  protected fill(items: readonly Item[]): void {
    for (const [i, item] of items.entries()) {
      this.table.setGpa(i, item.gpa);
      this.table.setLength(i, item.length);
      this.table.setCookie(i, item.cookie);
    }
  }

  reserve(index: Index | "both", max: number): number {
    return resultOf(() => this.queue.reserve(index, this.table, max, BURST_COOKIE));
  }

  commit(index: Index | "both", items: readonly Item[], options: Options): number {
    this.fill(items);
    return resultOf(() => (this.queue.commit(index, this.table, items.length, flagsOf(options)) ? 1 : 0));
  }

  peek(index: Index, max: number): Item[] | number {
    return resultOf(() => {
      const n = this.queue.peek(index, this.table, max, BURST_COOKIE);
      const { table } = this;
      return Array.from({ length: n }, (_, i) => ({
        gpa: table.gpa(i),
        length: table.length(i),
        cookie: table.cookie(i),
      }));
    });
  }

  release(index: Index, n: number, options: Options, items: readonly Item[] = []): number {
    this.fill(items);
    return resultOf(() => (this.queue.release(index, this.table, n, flagsOf(options)) ? 1 : 0));
  }

  inject(): boolean {
    return this.queue.inject();
  }

  enable(recheck: Recheck): boolean {
    return this.queue.enable(RECHECK[recheck]);
  }

  disable(): void {
    this.queue.disable();
  }

  wakeupBegin(budget: number, recheck: Recheck): Wakeup {
    return WAKEUP[this.queue.wakeupBegin(budget, RECHECK[recheck])] as Wakeup;
  }

  wakeupNext(recheck: Recheck): Wakeup {
    return WAKEUP[this.queue.wakeupNext(RECHECK[recheck])] as Wakeup;
  }

  broken(): string | null {
    return this.queue.broken;
  }

  close(): void {
    this.queue.close();
    this.table.close();
  }
}

/**
 * One side of a ring, by the engine's operations on single descriptors: what the table asks for in bursts is done one by
 * one, and only the last of a burst signals.
 */
export class SingleSide extends WasmSide {
  private pushable = 0;

  override reserve(index: Index | "both", max: number): number {
    const granted = super.reserve(index, max);
    this.pushable = Math.max(0, granted);
    return granted;
  }

  /** A step of an iterator ends what was granted. */
  override cursor(index: Index | "both", options: { autoupdate?: boolean; noflip?: boolean } = {}): Cursor {
    const cursor = super.cursor(index, options);
    const push = cursor.push.bind(cursor);
    cursor.push = () => {
      this.pushable = 0;
      return push();
    };
    return cursor;
  }

  override commit(index: Index | "both", items: readonly Item[], options: Options): number {
    // a burst of none, and more than was granted, are things that only bursts know
    if (items.length === 0 || items.length > this.pushable) return super.commit(index, items, options);
    this.pushable -= items.length;
    this.fill(items);
    return resultOf(() =>
      this.eachOf(items.length, options, (flags, i) => {
        const done = this.queue.pushOne(index, this.table, flags, i);
        if (done === 0) throw new Error("a descriptor that was granted cannot be pushed");
        return done;
      }),
    );
  }

  override peek(index: Index, max: number): Item[] | number {
    if (max !== 1) return super.peek(index, max);
    return resultOf(() => {
      const { table } = this;
      if (this.queue.peekOne(index, table, BURST_COOKIE) === 0) return [];
      return [{ gpa: table.gpa(0), length: table.length(0), cookie: table.cookie(0) }];
    });
  }

  override release(index: Index, n: number, options: Options, items: readonly Item[] = []): number {
    if (n === 0) return super.release(index, n, options, items);
    this.fill(items);
    return resultOf(() =>
      this.eachOf(n, options, (flags, i) => this.queue.releaseOne(index, this.table, flags, i)),
    );
  }

  private eachOf(n: number, options: Options, one: (flags: number, i: number) => number): number {
    const flags = flagsOf(options);
    let last = 0;
    for (let i = 0; i < n; i++) last = one(i + 1 === n ? flags : flags & ~BURST_SIGNAL, i);
    return (last & ONE_DOORBELL) === 0 ? 0 : 1;
  }
}
