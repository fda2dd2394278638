/** The plain model of split virtqueues; see `virtqueue.ts`. */
import {
  batches,
  INDIRECT,
  needsEvent,
  NEXT,
  sum,
  takeBatch,
  wrap16,
  WRITE,
  writeTable,
  type Back,
  type Done,
  type Found,
  type Memory,
  type Offer,
  type Out,
  type ReferenceDevice,
  type ReferenceDriver,
  type Setup,
} from "./virtqueue.js";

abstract class SplitSide {
  constructor(
    protected readonly memory: Memory,
    protected readonly setup: Setup,
  ) {}

  protected get availIndex(): number {
    return this.memory.u16(this.setup.driver + 2);
  }

  protected get usedIndex(): number {
    return this.memory.u16(this.setup.device + 2);
  }

  protected availEntry(position: number): number {
    return this.setup.driver + 4 + 2 * (position % this.setup.size);
  }

  protected usedEntry(position: number): number {
    return this.setup.device + 4 + 8 * (position % this.setup.size);
  }

  protected get usedEvent(): number {
    return this.setup.driver + 4 + 2 * this.setup.size;
  }

  protected get availEvent(): number {
    return this.setup.device + 4 + 8 * this.setup.size;
  }
}

/** Driver of a split queue. */
export class SplitDriver extends SplitSide implements ReferenceDriver {
  #free: number[];
  #out: Out[] = [];
  #taken: { out: Out; length: number }[] = [];
  #seen = 0;
  #reaped = 0;

  constructor(memory: Memory, setup: Setup) {
    super(memory, setup);
    this.#free = Array.from({ length: setup.size }, (_, i) => i);
  }

  free(): number {
    return this.#free.length;
  }

  add(offers: readonly Offer[]): boolean {
    const { memory, setup } = this;
    const from = this.availIndex;
    for (const [i, offer] of offers.entries()) {
      const all = [...offer.readable, ...offer.writable];
      const indirect = all.length > 1 && all.length <= setup.pieces;
      const descriptors = this.#free.splice(0, indirect ? 1 : all.length);
      const id = descriptors[0] as number;
      if (indirect) {
        const table = setup.tables + id * setup.pieces * 16;
        writeTable(memory, table, offer, true);
        memory.put64(setup.descriptors + 16 * id, table);
        memory.put32(setup.descriptors + 16 * id + 8, 16 * all.length);
        memory.put16(setup.descriptors + 16 * id + 12, INDIRECT);
        memory.put16(setup.descriptors + 16 * id + 14, 0);
      } else {
        for (const [k, { gpa, length }] of all.entries()) {
          const at = setup.descriptors + 16 * (descriptors[k] as number);
          const last = k === all.length - 1;
          memory.put64(at, gpa);
          memory.put32(at + 8, length);
          memory.put16(at + 12, (k >= offer.readable.length ? WRITE : 0) | (last ? 0 : NEXT));
          memory.put16(at + 14, last ? 0 : (descriptors[k + 1] as number));
        }
      }
      memory.put16(this.availEntry(from + i), id);
      this.#out.push({ id, cookie: offer.cookie, capacity: sum(offer.writable), descriptors });
    }
    const to = wrap16(from + offers.length);
    memory.put16(setup.driver + 2, to);
    return setup.eventIndex
      ? needsEvent(memory.u16(this.availEvent), from, to)
      : (memory.u16(setup.device) & 1) === 0;
  }

  reap(max: number): Back[] {
    const back: Back[] = [];
    while (back.length < max) {
      if (this.#taken.length === 0) {
        if (this.#seen === this.usedIndex) break;
        const entry = this.usedEntry(this.#seen);
        const [id, length] = [this.memory.u32(entry), this.memory.u32(entry + 4)];
        if (this.setup.inOrder) {
          this.#taken = takeBatch(this.#out, id, length);
        } else {
          const at = this.#out.findIndex((each) => each.id === id);
          this.#taken = this.#out.splice(at, 1).map((out) => ({ out, length }));
        }
        this.#seen = wrap16(this.#seen + this.#taken.length);
      }
      const { out, length } = this.#taken.shift() as { out: Out; length: number };
      this.#free = this.setup.inOrder
        ? [...this.#free, ...out.descriptors]
        : [...out.descriptors, ...this.#free];
      this.#reaped = wrap16(this.#reaped + 1);
      back.push({ cookie: out.cookie, length });
    }
    return back;
  }

  enable(): boolean {
    return this.#arm(0);
  }

  enableDelayed(): boolean {
    const flying = this.#out.length + this.#taken.length;
    return this.#arm(this.setup.eventIndex ? Math.max(0, Math.ceil((flying * 3) / 4) - 1) : 0);
  }

  #arm(behind: number): boolean {
    if (this.setup.eventIndex) this.memory.put16(this.usedEvent, wrap16(this.#reaped + behind));
    else this.memory.put16(this.setup.driver, 0);
    return wrap16(this.usedIndex - this.#reaped) > behind;
  }

  disable(): void {
    if (!this.setup.eventIndex) this.memory.put16(this.setup.driver, 1);
  }
}

/** Device of a split queue. */
export class SplitDevice extends SplitSide implements ReferenceDevice {
  #next = 0;
  #peeked = 0;
  readonly #capacity = new Map<number, number>();

  peek(max: number): Found[] {
    const found: Found[] = [];
    for (let at = this.#next; at !== this.availIndex && found.length < max; at = wrap16(at + 1)) {
      const chain = this.#chain(this.memory.u16(this.availEntry(at)));
      this.#capacity.set(chain.id, sum(chain.writable));
      found.push(chain);
    }
    this.#peeked = found.length;
    return found;
  }

  #chain(id: number): Found {
    const chain: Found = { id, slots: 0, readable: [], writable: [] };
    const walk = (table: number, first: number, direct: boolean): void => {
      for (let at: number | null = first; at !== null;) {
        const place: number = table + 16 * at;
        const flags = this.memory.u16(place + 12);
        const piece = { gpa: this.memory.u64(place), length: this.memory.u32(place + 8) };
        if (direct) chain.slots++;
        if ((flags & INDIRECT) !== 0) walk(piece.gpa, 0, false);
        else ((flags & WRITE) !== 0 ? chain.writable : chain.readable).push(piece);
        at = (flags & NEXT) !== 0 ? this.memory.u16(place + 14) : null;
      }
    };
    walk(this.setup.descriptors, id, true);
    return chain;
  }

  advance(n: number): void {
    this.#next = wrap16(this.#next + n);
    this.#peeked -= n;
  }

  complete(done: readonly Done[]): boolean {
    const { memory, setup } = this;
    const from = this.usedIndex;
    const groups = setup.inOrder
      ? batches(done, (id) => this.#capacity.get(id) as number)
      : done.map((each) => [each]);
    let at = from;
    for (const group of groups) {
      const last = group[group.length - 1] as Done;
      memory.put32(this.usedEntry(at), last.id);
      memory.put32(this.usedEntry(at) + 4, last.used);
      at += group.length;
    }
    memory.put16(setup.device + 2, wrap16(at));
    return setup.eventIndex
      ? needsEvent(memory.u16(this.usedEvent), from, wrap16(at))
      : (memory.u16(setup.driver) & 1) === 0;
  }

  enable(pastPeeked: boolean): boolean {
    const position = wrap16(this.#next + (pastPeeked ? this.#peeked : 0));
    if (this.setup.eventIndex) this.memory.put16(this.availEvent, position);
    else this.memory.put16(this.setup.device, 0);
    return this.availIndex !== position;
  }

  disable(): void {
    if (!this.setup.eventIndex) this.memory.put16(this.setup.device, 1);
  }
}
