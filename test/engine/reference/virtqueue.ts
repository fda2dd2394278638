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

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

const sum = (pieces: readonly Piece[]): number => pieces.reduce((n, { length }) => n + length, 0);
const wrap16 = (n: number): number => ((n % 65536) + 65536) % 65536;

/** 2.7.7.2, 2.7.10.2: the event lies among the entries that were just published. */
function needsEvent(event: number, from: number, to: number): boolean {
  for (let at = from; at !== to; at = wrap16(at + 1)) if (at === event) return true;
  return false;
}

/** A chain that the driver has out. */
interface Out {
  id: number;
  cookie: number;
  capacity: number;
  descriptors: number[];
}

/** Writes an indirect table (2.7.5.3.2, 2.8.7). */
function writeTable(memory: Memory, table: number, { readable, writable }: Offer, linked: boolean): void {
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
function takeBatch(out: Out[], id: number, length: number): { out: Out; length: number }[] {
  const n = out.findIndex((each) => each.id === id) + 1;
  if (n === 0) throw new Error(`${id} is not in flight`);
  return out.splice(0, n).map((each, i) => ({ out: each, length: i === n - 1 ? length : each.capacity }));
}

/** The batches that a device in order completes a burst in: each ends with a chain that was not written completely, or the last. */
function batches(done: readonly Done[], capacity: (id: number) => number): Done[][] {
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

/* ---- split ------------------------------------------------------------------------------------- */

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

/* ---- packed ------------------------------------------------------------------------------------ */

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
