/** The plain model of packed virtqueues; see `virtqueue.ts`. */
import {
  batches,
  INDIRECT,
  NEXT,
  sum,
  takeBatch,
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

const AVAIL = 1 << 7;
const USED = 1 << 15;

/** A place in a packed ring: how many descriptors were passed since the start. The lap gives the wrap counter (2.8.1). */
abstract class PackedSide {
  constructor(
    protected readonly memory: Memory,
    protected readonly setup: Setup,
  ) {}

  protected at(place: number): number {
    return this.setup.descriptors + 16 * (place % this.setup.size);
  }

  /** The wrap counter, which is 1 in the first lap. */
  protected wrap(place: number): boolean {
    return Math.floor(place / this.setup.size) % 2 === 0;
  }

  /** 2.8.1: available is a bit that equals the counter, and one that does not. */
  protected isAvailable(place: number): boolean {
    const flags = this.memory.u16(this.at(place) + 14);
    return ((flags & AVAIL) !== 0) === this.wrap(place) && ((flags & USED) !== 0) !== this.wrap(place);
  }

  /** 2.8.1: used are two bits that equal the counter. */
  protected isUsed(place: number): boolean {
    const flags = this.memory.u16(this.at(place) + 14);
    return ((flags & AVAIL) !== 0) === this.wrap(place) && ((flags & USED) !== 0) === this.wrap(place);
  }

  /** 2.8.10: whether a peer with this event area wants to know of the descriptors from `from` up to `to`. */
  protected needsEvent(area: number, from: number, to: number): boolean {
    const flags = this.memory.u16(area + 2);
    if (flags === 1) return false;
    if (flags !== 2 || !this.setup.eventIndex) return true;
    const word = this.memory.u16(area);
    for (let place = from; place < to; place++) {
      if (place % this.setup.size === (word & 0x7fff) && this.wrap(place) === word >= 0x8000) return true;
    }
    return false;
  }

  protected arm(area: number, place: number): void {
    this.memory.put16(
      area,
      this.setup.eventIndex ? (place % this.setup.size) | (this.wrap(place) ? 0x8000 : 0) : 0,
    );
    this.memory.put16(area + 2, this.setup.eventIndex ? 2 : 0);
  }

  protected disarm(area: number): void {
    this.memory.put16(area, 0);
    this.memory.put16(area + 2, 1);
  }
}

/** Driver of a packed queue. */
export class PackedDriver extends PackedSide implements ReferenceDriver {
  #ids: number[];
  #out: Out[] = [];
  #taken: { out: Out; length: number }[] = [];
  #next = 0;
  #seen = 0;
  #reaped = 0;

  constructor(memory: Memory, setup: Setup) {
    super(memory, setup);
    this.#ids = Array.from({ length: setup.size }, (_, i) => i);
  }

  free(): number {
    return this.setup.size - (this.#next - this.#reaped);
  }

  add(offers: readonly Offer[]): boolean {
    const { memory, setup } = this;
    const from = this.#next;
    for (const offer of offers) {
      const all = [...offer.readable, ...offer.writable];
      const indirect = all.length > 1 && all.length <= setup.pieces;
      const id = setup.inOrder ? this.#next % setup.size : (this.#ids.shift() as number);
      const table = setup.tables + id * setup.pieces * 16;
      const pieces = indirect ? [{ gpa: table, length: 16 * all.length }] : all;
      if (indirect) writeTable(memory, table, offer, false);
      for (const [k, { gpa, length }] of pieces.entries()) {
        const at = this.at(this.#next);
        const kind = indirect
          ? INDIRECT
          : (k >= offer.readable.length ? WRITE : 0) | (k < all.length - 1 ? NEXT : 0);
        memory.put64(at, gpa);
        memory.put32(at + 8, length);
        memory.put16(at + 12, id);
        memory.put16(at + 14, kind | (this.wrap(this.#next) ? AVAIL : USED));
        this.#next++;
      }
      const descriptors = pieces.map((_, k) => k);
      this.#out.push({ id, cookie: offer.cookie, capacity: sum(offer.writable), descriptors });
    }
    return this.needsEvent(setup.device, from, this.#next);
  }

  reap(max: number): Back[] {
    const back: Back[] = [];
    while (back.length < max) {
      if (this.#taken.length === 0) {
        if (this.#out.length === 0 || !this.isUsed(this.#seen)) break;
        const at = this.at(this.#seen);
        const id = this.memory.u16(at + 12);
        const length = (this.memory.u16(at + 14) & WRITE) !== 0 ? this.memory.u32(at + 8) : 0;
        if (this.setup.inOrder) {
          this.#taken = takeBatch(this.#out, id, length);
        } else {
          const found = this.#out.findIndex((each) => each.id === id);
          this.#taken = this.#out.splice(found, 1).map((out) => ({ out, length }));
        }
        for (const { out } of this.#taken) this.#seen += out.descriptors.length;
      }
      const { out, length } = this.#taken.shift() as { out: Out; length: number };
      if (!this.setup.inOrder) this.#ids.unshift(out.id);
      this.#reaped += out.descriptors.length;
      back.push({ cookie: out.cookie, length });
    }
    return back;
  }

  enable(): boolean {
    this.arm(this.setup.driver, this.#reaped);
    return this.#hasWork();
  }

  /** Something was used, or the rest of a batch is left. */
  #hasWork(): boolean {
    return this.#taken.length > 0 || this.isUsed(this.#reaped);
  }

  enableDelayed(): boolean {
    const behind = Math.max(0, Math.ceil(((this.#next - this.#reaped) * 3) / 4) - 1);
    this.arm(this.setup.driver, this.#reaped + behind);
    return this.#hasWork();
  }

  disable(): void {
    this.disarm(this.setup.driver);
  }
}

/** Device of a packed queue. */
export class PackedDevice extends PackedSide implements ReferenceDevice {
  #next = 0;
  #used = 0;
  #peeked: Found[] = [];
  readonly #capacity = new Map<number, number>();

  peek(max: number): Found[] {
    const found: Found[] = [];
    for (let place = this.#next; found.length < max && this.isAvailable(place);) {
      const chain = this.#chain(place);
      this.#capacity.set(chain.id, sum(chain.writable));
      found.push(chain);
      place += chain.slots;
    }
    this.#peeked = found;
    return [...found];
  }

  #chain(first: number): Found {
    const chain: Found = { id: 0, slots: 0, readable: [], writable: [] };
    const put = (at: number, flags: number): void => {
      const piece = { gpa: this.memory.u64(at), length: this.memory.u32(at + 8) };
      ((flags & WRITE) !== 0 ? chain.writable : chain.readable).push(piece);
    };
    for (let more = true; more;) {
      const at = this.at(first + chain.slots);
      const flags = this.memory.u16(at + 14);
      chain.id = this.memory.u16(at + 12);
      chain.slots++;
      more = (flags & NEXT) !== 0;
      if ((flags & INDIRECT) === 0) {
        put(at, flags);
        continue;
      }
      const table = this.memory.u64(at);
      for (let k = 0; k < this.memory.u32(at + 8) / 16; k++)
        put(table + 16 * k, this.memory.u16(table + 16 * k + 14));
    }
    return chain;
  }

  advance(n: number): void {
    for (const { slots } of this.#peeked.splice(0, n)) this.#next += slots;
  }

  complete(done: readonly Done[]): boolean {
    const { memory, setup } = this;
    const from = this.#used;
    const groups = setup.inOrder
      ? batches(done, (id) => this.#capacity.get(id) as number)
      : done.map((each) => [each]);
    for (const group of groups) {
      const { id, used } = group[group.length - 1] as Done;
      const at = this.at(this.#used);
      memory.put32(at + 8, used);
      memory.put16(at + 12, id);
      memory.put16(at + 14, (this.wrap(this.#used) ? AVAIL | USED : 0) | (used > 0 ? WRITE : 0));
      for (const { slots } of group) this.#used += slots;
    }
    return this.needsEvent(setup.driver, from, this.#used);
  }

  enable(pastPeeked: boolean): boolean {
    const place = pastPeeked ? this.#peeked.reduce((n, { slots }) => n + slots, this.#next) : this.#next;
    this.arm(this.setup.device, place);
    return this.isAvailable(place);
  }

  disable(): void {
    this.disarm(this.setup.device);
  }
}
