/** The reference model as a {@link RingSide}. A burst is, by definition, the same operations done one by one. */
import type { ReferenceRing } from "./reference/ring.js";
import { type IndexEnd, type ReferenceDescriptor, type ReferenceIterator } from "./reference/ring.js";
import type { WakeupEnd } from "./reference/signal.js";
import type { Cursor, Index, Item, Options, Pattern, Recheck, RingSide, Seen, Wakeup } from "./ring-side.js";

/** Which ends each side moves (`docs/abi/ioq.md` section 6). */
export const MODEL_ENDS: Record<Pattern, readonly [north: readonly IndexEnd[], south: readonly IndexEnd[]]> =
  {
    transmit: [["valid.head", "valid.tail", "inuse.tail"], ["inuse.head"]],
    receive: [["valid.head", "valid.tail", "inuse.head"], ["inuse.tail"]],
    feed: [["inuse.tail"], ["inuse.head"]],
  };

const EINVAL = -22;
const EPROTO = -71;

function members(item: Partial<Item>, options: Options): Partial<ReferenceDescriptor> {
  const out: Partial<ReferenceDescriptor> = {};
  if (options.cookie === true) out.cookie = BigInt(item.cookie ?? 0);
  if (options.pointer === true) out.ptr = BigInt(item.gpa ?? 0);
  if (options.length === true) out.len = BigInt(item.length ?? 0);
  if (options.mark !== undefined) out.valid = options.mark;
  return out;
}

function seen(descriptor: ReferenceDescriptor): Seen {
  const { cookie, ptr, len, valid, sown } = descriptor;
  const length = len > 0xffffffffn ? 0xffffffff : Number(len);
  return { cookie: Number(cookie & 0xffffffffn), gpa: Number(ptr), length, valid, owner: sown };
}

class ModelCursor implements Cursor {
  constructor(
    private readonly ring: ReferenceRing,
    private readonly iterator: ReferenceIterator,
    private readonly granted: { push: number; pop: number },
  ) {}

  seek(to: "tail" | "next" | "head" | "set", offset = 0): number {
    return this.iterator.seek(to, offset);
  }

  position(): number | null {
    return this.iterator.position ?? null;
  }

  push(): number {
    const result = this.iterator.push();
    if (result >= 0) this.granted.push = 0; // a grant is for the positions it was given at
    return result;
  }

  pop(): number {
    const result = this.iterator.pop();
    if (result >= 0) this.granted.pop = 0;
    return result;
  }

  read(): Seen | null {
    const { position } = this.iterator;
    return position === undefined ? null : seen(this.ring.descriptor(position));
  }

  write(item: Partial<Item>, options: Options): number {
    const { position } = this.iterator;
    if (position === undefined) return EINVAL;
    const mine = this.ring.owned(position);
    if (mine === null) return EPROTO;
    if (!mine) return EINVAL;
    this.ring.write(position, members(item, options));
    return 0;
  }

  close(): void {}
}

/** One side of a ring, by the reference model. */
export class ModelSide implements RingSide {
  readonly locale: 0 | 1;
  private readonly granted = { push: 0, pop: 0 };
  private turns: Generator<void, WakeupEnd> | undefined;
  private looking: Recheck = "none";

  constructor(readonly ring: ReferenceRing) {
    this.locale = ring.locale;
  }

  cursor(index: Index | "both", options: { autoupdate?: boolean; noflip?: boolean } = {}): Cursor {
    return new ModelCursor(this.ring, this.ring.iterator(index, options), this.granted);
  }

  countOf(index: Index): number {
    return this.ring.countOf(index);
  }

  remain(index: Index): number {
    const n = this.ring.countOf(index);
    return n < 0 ? n : this.ring.count - n;
  }

  private run(index: Index, end: "head" | "tail", limit: number): number {
    const { ring } = this;
    if (ring.fault !== null) return EPROTO;
    if (!ring.moves(index, end)) return EINVAL;
    const first = ring.load(index, end);
    if (first === null) return EPROTO;
    for (let n = 0; n < Math.min(limit, ring.count); n++) {
      const mine = ring.owned((first + n) % ring.count);
      if (mine === null) return EPROTO;
      if (!mine) return n;
    }
    return Math.min(limit, ring.count);
  }

  reserve(index: Index | "both", max: number): number {
    const bound = index === "both" ? "valid" : index;
    const limit = bound === "valid" ? Math.min(max, this.remain("valid")) : max;
    const n = this.run(bound, "tail", limit);
    this.granted.push = Math.max(0, n);
    return n;
  }

  commit(index: Index | "both", items: readonly Item[], options: Options): number {
    if (items.length > this.granted.push) return this.ring.fault === null ? EINVAL : EPROTO;
    this.granted.push -= items.length;
    const iterator = this.ring.iterator(index, { noflip: options.noflip ?? false });
    for (const item of items) {
      let result = iterator.seek("tail");
      if (result !== 0) return result;
      this.ring.write(iterator.position as number, members(item, options));
      result = iterator.push();
      if (result !== 0) return result;
    }
    return options.signal === true && this.inject() ? 1 : 0;
  }

  peek(index: Index, max: number): Item[] | number {
    const limit = index === "valid" ? Math.min(max, Math.max(0, this.countOf("valid"))) : max;
    const n = this.run(index, "head", limit);
    this.granted.pop = Math.max(0, n);
    if (n < 0) return n;
    const first = this.ring.load(index, "head") as number;
    return Array.from({ length: n }, (_, i) => {
      const { gpa, length, cookie } = seen(this.ring.descriptor((first + i) % this.ring.count));
      return { gpa, length, cookie };
    });
  }

  release(index: Index, n: number, options: Options, items: readonly Item[] = []): number {
    if (n > this.granted.pop) return this.ring.fault === null ? EINVAL : EPROTO;
    this.granted.pop -= n;
    const iterator = this.ring.iterator(index, { noflip: options.noflip ?? false });
    for (let i = 0; i < n; i++) {
      let result = iterator.seek("head");
      if (result !== 0) return result;
      this.ring.write(iterator.position as number, members(items[i] ?? {}, options));
      result = iterator.pop();
      if (result !== 0) return result;
    }
    return options.signal === true && this.inject() ? 1 : 0;
  }

  inject(): boolean {
    return this.ring.signal.inject();
  }

  private more(recheck: Recheck): boolean {
    if (recheck === "none" || this.ring.fault !== null) return false;
    const [index, end] = recheck.split(".") as [Index, "head" | "tail"];
    if (recheck === "valid.head" && this.ring.countOf("valid") === 0) return false;
    const position = this.ring.load(index, end);
    return position !== null && this.ring.owned(position) === true;
  }

  enable(recheck: Recheck): boolean {
    return this.ring.signal.enable(() => this.more(recheck));
  }

  disable(): void {
    this.ring.signal.disable();
  }

  private step(): Wakeup {
    if (this.turns === undefined) throw new Error("wakeupNext without wakeupBegin");
    const turn = this.turns.next();
    return turn.done === true ? turn.value : "run";
  }

  wakeupBegin(budget: number, recheck: Recheck): Wakeup {
    this.looking = recheck;
    this.turns = this.ring.signal.wakeup(budget, () => this.more(this.looking));
    return this.step();
  }

  wakeupNext(recheck: Recheck): Wakeup {
    this.looking = recheck;
    return this.step();
  }

  broken(): string | null {
    return this.ring.fault;
  }

  close(): void {}
}
