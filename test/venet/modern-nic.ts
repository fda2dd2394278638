/**
 * A guest driver of late 2009 and after, written out by hand from `docs/abi/venet.md` sections 4 to 12: it negotiates,
 * sends scatter-gather descriptors, receives into slots and pages, and takes events. What it asks for, and how it lays
 * things out, is for the test to say: each generation of drivers did it differently.
 */
import {
  ITER_AUTOUPDATE,
  ITER_NOFLIPOWNER,
  VENET_EVQQUERY,
  VENET_GROUP_EVENTQ,
  VENET_GROUP_L4RO,
  VENET_GROUP_SG,
  VENET_GROUP_USO,
  VENET_L4ROQUERY,
  VENET_NEGCAP,
  VENET_PMTDQUERY,
} from "vbus/abi";
import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SET_VALID,
  GSO_NONE,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
  RECHECK_NONE,
  RingIterator,
} from "vbus/engine";
import type { BusEvent } from "vbus/bus";
import { block, RX_COOKIE, TX_COOKIE, words, type RawGuest, type RawRing } from "./raw-guest.js";
import { readVsg, vsgSize, writeVsg, type Iov, type Vsg } from "./vsg.js";

const ALL = BURST_POINTER | BURST_LENGTH | BURST_COOKIE;
const GRANT_ALL = 0xffffffff;
export const EVENT_COOKIE = 0x33;
export const PAGE_COOKIE = 0x44;
const PAGE_COOKIES = 0x5000_0000;
const KINDS = [GSO_TCP4, GSO_NONE, GSO_TCP6, GSO_UDP_L4];

/** What a driver asks for and how it does things. */
export interface ModernOptions {
  count?: number;
  ilp32?: boolean;
  /** Size of TX and RX slots; default that of 18 pieces. */
  slotSize?: number;
  mtu?: number;
  pageSize?: number;
  /** Pages kept in the page queue; default: enough for a superframe. */
  pages?: number;
  /** Bits asked for, by group; undefined: no call at all. */
  sg?: number | undefined;
  events?: number | undefined;
  l4ro?: number | undefined;
  uso?: number | undefined;
  /** False: slots lie anywhere although PMTD was granted. */
  pool?: boolean;
  /** N1: the descriptor's length is that of the slot, always. */
  fullLength?: boolean;
  /** N3: TX descriptors are pushed on inuse alone, and freed by events. */
  inuseOnly?: boolean;
  /** False: granted, but no event queue is shared. */
  eventQueue?: boolean;
  /** False: granted, but no page queue is shared. */
  pageQueue?: boolean;
}

/** A frame as the driver's kernel hands it over, or gets it. */
export interface KernelFrame {
  bytes: Uint8Array;
  /** NEEDS_CSUM 1, GSO 2, ECN 4. */
  flags?: number;
  kind?: number;
  size?: number;
  start?: number;
  offset?: number;
}

/** A frame that arrived, with its slot. */
export interface Arrived extends Required<KernelFrame> {
  vsg: Vsg | null;
}

/** An event as it lay in the pool. */
export interface ModernEvent {
  id: number;
  size: number;
  state: number;
  cookie: bigint;
  /** TX descriptors that north still waited for when the event was read. */
  unpopped: number;
}

export class ModernNic {
  readonly granted: { sg: number; events: number; l4ro: number; uso: number };
  readonly rx: RawRing;
  readonly tx: RawRing;
  readonly eventRing: RawRing | null = null;
  readonly pageRing: RawRing | null = null;
  readonly count: number;
  readonly mtu: number;
  readonly slotSize: number;
  readonly ilp32: boolean;
  /** Guest addresses of the pools. */
  readonly txPool: number;
  readonly rxPool: number;
  readonly eventPool: number;
  readonly arrived: Arrived[] = [];
  readonly events: ModernEvent[] = [];
  flushed = 0;
  /** Cookies of frames whose buffers came back. */
  readonly freed: bigint[] = [];
  readonly buffers: number[] = [];
  readonly signals: { rx: number; tx: number; events: number; pages: number };
  readonly #send: RingIterator;
  readonly #options: ModernOptions;
  readonly #pages = new Map<number, number>();
  readonly #outstanding = new Map<bigint, number[]>();
  readonly #atPosition: bigint[] = [];
  #freePages: number[] = [];
  #nextCookie = 0xffff_8880_0000_0000n;

  constructor(
    readonly guest: RawGuest,
    options: ModernOptions = {},
  ) {
    this.#options = options;
    const { count = 8, ilp32 = false, mtu = 1500, pageSize = 4096 } = options;
    this.count = count;
    this.ilp32 = ilp32;
    this.mtu = mtu;
    this.slotSize = options.slotSize ?? vsgSize(18, ilp32);
    this.granted = {
      sg: this.negotiate(VENET_GROUP_SG, options.sg),
      events: this.negotiate(VENET_GROUP_EVENTQ, options.events),
      l4ro: 0,
      uso: this.negotiate(VENET_GROUP_USO, options.uso),
    };
    const { ram } = guest.memory;
    this.txPool = ram.allocate(count * this.slotSize, 8);
    this.rxPool = ram.allocate(count * this.slotSize, 8);
    this.eventPool = ram.allocate(count * 24, 8);
    this.signals = { rx: -1, tx: -1, events: -1, pages: -1 };
    if (this.granted.events !== 0 && options.eventQueue !== false) {
      this.eventRing = guest.ring("northReceive", count, ilp32);
      this.signals.events = this.#shareEvents(this.eventRing);
    }
    this.granted.l4ro = this.negotiate(VENET_GROUP_L4RO, options.l4ro);
    if (this.l4ro) {
      const query = block(0, 0, 0, 0, 0, 0, 0, 0);
      must(guest.callWith(VENET_L4ROQUERY, query));
      const [, pool = 0, pageQueue = 0] = words(query);
      must(guest.client.shm(guest.handle, pool, this.rxPool, count * this.slotSize, null, 0));
      if (options.pageQueue !== false) {
        const pages = options.pages ?? Math.ceil(65536 / pageSize) + 2;
        this.pageRing = guest.ring("northFeed", Math.max(1, pages), ilp32);
        this.signals.pages = must(guest.share(pageQueue, this.pageRing, PAGE_COOKIE));
        for (let n = 0; n < pages; n++) {
          const cookie = PAGE_COOKIES + n;
          this.#pages.set(cookie, ram.allocate(pageSize, 16));
          this.#freePages.push(cookie);
        }
      }
    }
    this.rx = guest.ring("northReceive", count, ilp32);
    this.tx = guest.ring(options.inuseOnly === true ? "northFeed" : "northTransmit", count, ilp32);
    this.signals.rx = must(guest.share(0, this.rx, RX_COOKIE));
    this.signals.tx = must(guest.share(1, this.tx, TX_COOKIE));
    const post = new RingIterator(this.rx.queue, "valid");
    post.seek("tail");
    for (let n = 0; n < count; n++) {
      this.buffers.push(ram.allocate(mtu + 14, 4));
      this.#post(post, n);
      post.push();
    }
    post.close();
    this.refill();
    if (this.pooled) {
      const id = must(guest.call(VENET_PMTDQUERY));
      must(guest.client.shm(guest.handle, id, this.txPool, count * this.slotSize, null, 0));
    }
    this.rx.queue.enable(RECHECK_NONE);
    if (!this.completions) this.tx.queue.enable(RECHECK_NONE);
    this.#send = new RingIterator(
      this.tx.queue,
      options.inuseOnly === true ? "inuse" : "both",
      ITER_AUTOUPDATE,
    );
  }

  get scatterGather(): boolean {
    return (this.granted.sg & 1) !== 0;
  }

  get pooled(): boolean {
    return (this.granted.sg & 0x20) !== 0 && this.#options.pool !== false;
  }

  get l4ro(): boolean {
    return (this.granted.l4ro & 1) !== 0;
  }

  get completions(): boolean {
    return (this.granted.events & 2) !== 0;
  }

  /** NEGCAP; what was granted. */
  negotiate(group: number, bits?: number): number {
    if (bits === undefined) return 0;
    const capabilities = block(group, bits);
    must(this.guest.callWith(VENET_NEGCAP, capabilities));
    return words(capabilities)[1] ?? 0;
  }

  #shareEvents(ring: RawRing): number {
    const { guest } = this;
    const query = block(0, 0, 0, 0, 0, 0, 0, 0);
    must(guest.callWith(VENET_EVQQUERY, query));
    const [, size = 0, pool = 0, queue = 0] = words(query);
    must(guest.client.shm(guest.handle, pool, this.eventPool, this.count * size, null, 0));
    const post = new RingIterator(ring.queue, "valid");
    post.seek("tail");
    for (let n = 0; n < this.count; n++) {
      post.write({ gpa: n * size, length: size, cookie: n }, ALL);
      post.push();
    }
    post.close();
    const signal = must(guest.share(queue, ring, EVENT_COOKIE));
    ring.queue.enable(RECHECK_NONE);
    return signal;
  }

  /** Writes receive descriptor n: a linear buffer, or a zeroed slot with the buffer in it. */
  #post(iterator: RingIterator, n: number): void {
    const gpa = this.buffers[n] as number;
    const length = this.mtu + 14;
    const { space } = this.guest.memory;
    space.copyTo(gpa, new Uint8Array(length).fill(0xee));
    if (!this.l4ro) {
      iterator.write({ gpa, length, cookie: n }, ALL | BURST_SET_VALID);
      return;
    }
    const at = n * this.slotSize;
    space.copyTo(this.rxPool + at, new Uint8Array(this.slotSize));
    writeVsg(
      space,
      this.rxPool + at,
      { cookie: BigInt(n), length: 0, iovs: [{ length, ptr: BigInt(gpa) }] },
      this.ilp32,
    );
    iterator.write({ gpa: at, length: this.slotSize, cookie: n }, ALL | BURST_SET_VALID);
  }

  /** Feeds free pages, and signals once. Returns how many. */
  refill(most = Infinity): number {
    const ring = this.pageRing;
    if (ring === null) return 0;
    const feed = new RingIterator(ring.queue, "inuse");
    let n = 0;
    for (; n < most && this.#freePages.length > 0 && feed.seek("tail") === 0; n++) {
      if (feed.read()?.owner !== 0) break;
      const cookie = this.#freePages.shift() as number;
      feed.write(
        { gpa: this.#pages.get(cookie) as number, length: this.#options.pageSize ?? 4096, cookie },
        ALL,
      );
      feed.push();
    }
    feed.close();
    if (n > 0 && ring.queue.inject()) this.guest.doorbell(this.signals.pages);
    return n;
  }

  /** False: every TX descriptor is in use. */
  get room(): boolean {
    if (this.#options.inuseOnly !== true) return this.tx.queue.countOf("valid") < this.count;
    return this.#outstanding.size < this.count;
  }

  /** Sends a frame cut at these places (zero-length pieces where two are equal); undefined: the ring is full. */
  send(frame: KernelFrame, cuts: readonly number[] = [], tweak: Partial<Vsg> = {}): bigint | undefined {
    if (!this.room) return undefined;
    const { ram, space } = this.guest.memory;
    const edges = [0, ...[...cuts].sort((a, b) => a - b), frame.bytes.length];
    const gpas: number[] = [];
    const iovs: Iov[] = edges.slice(1).map((end, i) => {
      const piece = frame.bytes.subarray(edges[i], end);
      if (piece.length === 0) return { length: 0, ptr: 0xdead_beef_dead_beefn };
      const gpa = ram.allocate(piece.length, 1);
      space.copyTo(gpa, piece);
      gpas.push(gpa);
      return { length: piece.length, ptr: BigInt(gpa) };
    });
    if (!this.scatterGather) return this.#push(gpas, gpas[0] ?? 0, frame.bytes.length);
    const { flags = 0, kind = GSO_NONE, size = 0, start = 0, offset = 0 } = frame;
    const type = kind === GSO_NONE ? 0 : KINDS.indexOf(kind);
    const cookie = this.#nextCookie;
    return this.sendVsg(
      { cookie, flags, start, offset, type, size, length: frame.bytes.length, iovs, ...tweak },
      gpas,
    );
  }

  /** Sends a descriptor as it is. `length`: what the ring says about it. */
  sendVsg(
    vsg: Partial<Vsg>,
    gpas: number[] = [],
    descriptor: { gpa?: number; length?: number } = {},
  ): bigint | undefined {
    return this.room ? this.sendUnbounded(vsg, gpas, descriptor) : undefined;
  }

  /** … whether or not its own books say that there is room: the ring must have some. */
  sendUnbounded(
    vsg: Partial<Vsg>,
    gpas: number[] = [],
    descriptor: { gpa?: number; length?: number } = {},
  ): bigint {
    this.#send.seek("tail");
    const position = this.#send.position ?? 0;
    const { space } = this.guest.memory;
    const at = this.txPool + position * this.slotSize;
    const size = writeVsg(space, at, { cookie: this.#nextCookie, ...vsg }, this.ilp32);
    const length = this.#options.fullLength === true ? this.slotSize : size;
    return this.#push(
      gpas,
      descriptor.gpa ?? (this.pooled ? position * this.slotSize : at),
      descriptor.length ?? length,
      vsg.cookie,
    );
  }

  #push(gpas: number[], gpa: number, length: number, cookie = this.#nextCookie): bigint {
    this.#send.seek("tail");
    const position = this.#send.position ?? 0;
    const mark = this.#options.inuseOnly === true ? 0 : BURST_SET_VALID;
    this.#send.write({ gpa, length, cookie: position }, ALL | mark);
    // linear frames are known by their descriptor's cookie
    const known = this.scatterGather ? cookie : BigInt(position);
    this.#outstanding.set(known, gpas);
    this.#atPosition[position] = known;
    this.#nextCookie++;
    if (this.#send.push() === 1) this.guest.doorbell(this.signals.tx);
    return known;
  }

  #free(cookie: bigint): void {
    const gpas = this.#outstanding.get(cookie);
    if (gpas === undefined) throw new Error(`freed twice, or never sent: ${cookie}`);
    this.#outstanding.delete(cookie);
    for (const gpa of gpas) this.guest.memory.ram.free(gpa);
    this.freed.push(cookie);
  }

  /** Advances the valid index; without completion events it frees, too. Returns how many came back. */
  reap(): number {
    if (this.#options.inuseOnly === true) return 0;
    const reclaim = new RingIterator(this.tx.queue, "valid", ITER_NOFLIPOWNER);
    let n = 0;
    for (; reclaim.seek("head") === 0 && reclaim.read()?.valid === 1 && reclaim.read()?.owner === 0; n++) {
      if (!this.completions) this.#free(this.#atPosition[reclaim.position ?? 0] as bigint);
      reclaim.write({}, BURST_CLEAR_VALID);
      reclaim.pop();
    }
    reclaim.close();
    return n;
  }

  /** Harvests the RX ring and posts anew. `refill` false: no pages are given. Returns how many. */
  poll(budget = Infinity, refill = true): number {
    const { space } = this.guest.memory;
    const harvest = new RingIterator(this.rx.queue, "inuse", ITER_AUTOUPDATE);
    let n = 0;
    for (; n < budget && harvest.seek("head") === 0 && harvest.read()?.owner === 0; n++) {
      const { length, cookie } = harvest.read() ?? { length: 0, cookie: 0 };
      const vsg = this.l4ro
        ? readVsg(space, this.rxPool + cookie * this.slotSize, this.ilp32, this.slotSize)
        : null;
      if (vsg !== null && length !== this.slotSize) throw new Error(`the length of a slot became ${length}`);
      if ((vsg?.length ?? length) === 0) this.flushed++;
      else this.#take(cookie, vsg, length);
      this.#post(harvest, cookie);
      if (harvest.pop() === 1) this.guest.doorbell(this.signals.rx);
    }
    harvest.close();
    if (n > 0 && refill) this.refill();
    if (n < budget) this.rx.queue.enable(RECHECK_NONE);
    return n;
  }

  #take(n: number, vsg: Vsg | null, length: number): void {
    const { space } = this.guest.memory;
    const buffer = this.buffers[n] as number;
    if (vsg === null) {
      const bytes = space.copyFrom(buffer, length);
      this.arrived.push({ bytes, flags: 0, kind: GSO_NONE, size: 0, start: 0, offset: 0, vsg });
      return;
    }
    const parts = vsg.iovs.map((iov, i) => {
      if (i === 0) {
        if (Number(iov.ptr) !== buffer) throw new Error("the first piece is not the posted buffer");
        return space.copyFrom(buffer, iov.length);
      }
      const page = this.#pages.get(Number(iov.ptr));
      if (page === undefined) throw new Error(`piece ${i} quotes ${iov.ptr}, which is no page's cookie`);
      this.#freePages.push(Number(iov.ptr));
      return space.copyFrom(page, iov.length);
    });
    const { flags, type, size, start, offset } = vsg;
    const kind = (flags & 2) === 0 ? GSO_NONE : (KINDS[type] ?? -1);
    this.arrived.push({ bytes: new Uint8Array(Buffer.concat(parts)), flags, kind, size, start, offset, vsg });
  }

  /** Takes the events that wait, at most `budget`; completions free what they quote. Returns how many. */
  takeEvents(budget = Infinity): number {
    const ring = this.eventRing;
    if (ring === null) return 0;
    const { space } = this.guest.memory;
    const harvest = new RingIterator(ring.queue, "inuse", ITER_AUTOUPDATE);
    let n = 0;
    for (; n < budget && harvest.seek("head") === 0 && harvest.read()?.owner === 0; n++) {
      const slot = harvest.read()?.cookie ?? 0;
      const view = new DataView(space.copyFrom(this.eventPool + slot * 24, 24).buffer);
      const id = view.getUint32(8, true);
      const cookie = view.getBigUint64(16, true);
      this.events.push({
        id,
        size: view.getUint32(4, true),
        state: view.getUint8(12),
        cookie,
        unpopped: this.tx.queue.countOf("inuse"),
      });
      if (id > 1) throw new Error(`kernel panic: unknown event ${id}`);
      if ((this.granted.events & (1 << id)) === 0) throw new Error(`event ${id} was not granted`);
      if (id === 1) {
        this.reap(); // N2 advances first, then frees what is quoted
        this.#free(cookie);
      }
      space.copyTo(this.eventPool + slot * 24, new Uint8Array(24));
      harvest.write({ gpa: slot * 24, length: 24, cookie: slot }, ALL);
      if (harvest.pop() === 1) this.guest.doorbell(this.signals.events);
    }
    harvest.close();
    return n;
  }

  /** Takes the bus's events and does what a driver does. Returns how many there were. */
  interrupts(): number {
    const events = this.guest.events();
    for (const event of events) {
      if (event.kind !== "shmsignal") continue;
      if (event.cookie === RX_COOKIE) this.#serve(this.rx, () => this.poll());
      else if (event.cookie === TX_COOKIE) this.#serve(this.tx, () => this.reap());
      else if (event.cookie === EVENT_COOKIE && this.eventRing !== null) {
        this.#serve(this.eventRing, () => this.takeEvents());
      }
    }
    return events.length;
  }

  #serve({ queue }: RawRing, notifier: () => void): void {
    let turn = queue.wakeupBegin(8, RECHECK_NONE);
    while (turn === 1) {
      notifier();
      turn = queue.wakeupNext(RECHECK_NONE);
    }
  }
}

/** All bits of a group. */
export const EVERYTHING = GRANT_ALL;

/** Events of the bus of one kind. */
export function shmSignals(events: readonly BusEvent[], cookie: number): number {
  return events.filter((event) => event.kind === "shmsignal" && event.cookie === cookie).length;
}

function must(result: number): number {
  if (result < 0) throw new Error(`kernel panic: the host refused with ${result}`);
  return result;
}
