import {
  DESC_OFF_SOWN,
  EXT_LAZY_INDEXES,
  IDX_OFF_FULL,
  IDX_OFF_HEAD,
  IDX_OFF_TAIL,
  IOQ_DESC_SIZE,
  IOQ_IDX_SIZE,
  IOQ_OFF_IDX,
  IOQ_OFF_RING,
  IOQ_OFF_SIGNAL,
  IRQ_OFF_DIRTY,
  IRQ_OFF_ENABLED,
  IRQ_OFF_PENDING,
  ITER_AUTOUPDATE,
  SIGNAL_IRQ_SIZE,
  SIGNAL_OFF_IRQ,
} from "vbus/abi";
import {
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  BurstTable,
  Queue,
  queueSegmentLength,
  RECHECK_INUSE_HEAD,
  RECHECK_NONE,
  RingIterator,
  WAKEUP_DONE,
  WAKEUP_RUN,
} from "vbus/engine";
import { beforeAll, describe, expect, it } from "vitest";
import { openGuest } from "./guest.js";
import { trace, useTracedEngine, type Access } from "./traced-engine.js";

const COUNT = 4;
const LENGTH = queueSegmentLength(COUNT);
const EVERYTHING = BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID;

/** Names of the bytes and words whose order matters, by their offset in the segment. */
const PLACES = new Map<number, string>();
for (const [locale, side] of ["north", "south"].entries()) {
  const irq = IOQ_OFF_SIGNAL + SIGNAL_OFF_IRQ + locale * SIGNAL_IRQ_SIZE;
  PLACES.set(irq + IRQ_OFF_ENABLED, `${side}.enabled`);
  PLACES.set(irq + IRQ_OFF_PENDING, `${side}.pending`);
  PLACES.set(irq + IRQ_OFF_DIRTY, `${side}.dirty`);
}
for (const [i, index] of ["valid", "inuse"].entries()) {
  const record = IOQ_OFF_IDX + i * IOQ_IDX_SIZE;
  PLACES.set(record + IDX_OFF_HEAD, `${index}.head`);
  PLACES.set(record + IDX_OFF_TAIL, `${index}.tail`);
  PLACES.set(record + IDX_OFF_FULL, `${index}.full`);
}
const sownAt = (position: number): number => IOQ_OFF_RING + position * IOQ_DESC_SIZE + DESC_OFF_SOWN;
for (let i = 0; i < COUNT; i++) PLACES.set(sownAt(i), `ring[${i}].sown`);

const offsetOf = (place: string): number =>
  [...PLACES].find(([, name]) => name === place)?.[0] ?? expect.unreachable(place);
const text = ({ store, offset, value }: Access): string =>
  `${store ? "store" : "load"} ${PLACES.get(offset) ?? offset} ${value}`;

beforeAll(useTracedEngine);

/** Both sides of a ring that north feeds and south takes from. */
class Ring {
  readonly guest = openGuest({ shared: true });
  readonly gpa = this.guest.gpa + 8;
  readonly north: Queue;
  readonly south: Queue;
  readonly out: BurstTable;
  readonly in: BurstTable;

  constructor(lazy = false) {
    const { north, south } = this.guest;
    const extension = lazy ? EXT_LAZY_INDEXES : 0;
    this.north = Queue.create(north, { gpa: this.gpa, count: COUNT, role: "northFeed", offer: extension });
    this.south = Queue.attach(south, { gpa: this.gpa, length: LENGTH, role: "southFeed", accept: extension });
    expect(this.north.negotiated()).toBe(extension);
    this.out = BurstTable.allocate(north, COUNT);
    this.in = BurstTable.allocate(south, COUNT);
  }

  segment(): Uint8Array {
    const view = this.guest.view(this.gpa, LENGTH);
    return new Uint8Array(view.buffer, view.byteOffset, LENGTH).slice();
  }

  trace(work: () => unknown): Access[] {
    const { init, north } = this.guest;
    return trace(init.memory, north.translate(this.gpa, LENGTH), LENGTH, work);
  }

  push(n: number, flags = BURST_SIGNAL): Access[] {
    const { north, out } = this;
    expect(north.reserve("inuse", out, n)).toBe(n);
    for (let i = 0; i < n; i++) {
      out.setCookie(i, 100 + i);
      out.setGpa(i, this.guest.gpa + 4096 * i);
      out.setLength(i, 1000 + i);
    }
    return this.trace(() => north.commit("inuse", out, n, EVERYTHING | flags));
  }

  pop(n: number, flags = BURST_SIGNAL): Access[] {
    expect(this.south.peek("inuse", this.in, n)).toBe(n);
    return this.trace(() => this.south.release("inuse", this.in, n, flags));
  }
}

/** The one store to a place. */
function storeTo(accesses: readonly Access[], place: string): Access {
  const found = accesses.filter(({ store, offset }) => store && PLACES.get(offset) === place);
  expect(found).toHaveLength(1);
  return found[0] as Access;
}

/** Places of the segment that differ between two of its states. */
function changed(before: Uint8Array, after: Uint8Array): string[] {
  const places = new Set<string>();
  for (const [offset, byte] of before.entries())
    if (byte !== after[offset]) places.add(PLACES.get(offset) ?? String(offset));
  return [...places];
}

const INJECT_AND_RING = [
  "store south.dirty 1",
  "load south.enabled 1",
  "load south.pending 0",
  "store south.pending 1",
];

describe("the engine makes the steps that the model proves, in their order", () => {
  it("publishes a burst by the first owner, when all else is in place, and only then signals (O1, O2, O3, Q1, Q2, Q6)", () => {
    const ring = new Ring();
    ring.south.enable(RECHECK_NONE);
    const accesses = ring.push(3);
    expect(accesses.map(text)).toEqual(["load inuse.head 0", "store ring[0].sown 1", ...INJECT_AND_RING]);
    const { before } = storeTo(accesses, "ring[0].sown");
    // bodies, the tail, and the owners of those behind it
    expect(changed(before, ring.segment())).toEqual(["south.pending", "south.dirty", "ring[0].sown"]);
    expect(before[offsetOf("inuse.tail")]).toBe(3);
    expect([before[sownAt(1)], before[sownAt(2)], before[sownAt(3)]]).toEqual([1, 1, 0]);
  });

  it("says full before the tail that makes it so (Q2)", () => {
    const ring = new Ring();
    const accesses = ring.push(COUNT, 0);
    expect(accesses.map(text)).toEqual(["load inuse.head 0", "store inuse.full 1", "store ring[0].sown 1"]);
    ring.pop(1, 0);
    const again = ring.push(1, 0);
    expect(again.map(text)).toEqual(["load inuse.head 1", "store inuse.full 1", "store ring[0].sown 1"]);
    expect(storeTo(again, "inuse.full").before[offsetOf("inuse.tail")]).toBe(0);
    expect(storeTo(again, "ring[0].sown").before[offsetOf("inuse.tail")]).toBe(1);
  });

  it("gives back a burst after head and full, the first owner last (Q3, Q4)", () => {
    const ring = new Ring();
    ring.push(COUNT, 0);
    const accesses = ring.pop(2, 0);
    expect(accesses.map(text)).toEqual(["load inuse.full 1", "store inuse.full 0", "store ring[0].sown 0"]);
    expect(storeTo(accesses, "inuse.full").before[offsetOf("inuse.head")]).toBe(2);
    expect(changed(storeTo(accesses, "ring[0].sown").before, ring.segment())).toEqual(["ring[0].sown"]);
  });

  it("looks at the owner before it reads a descriptor, each time (Q5)", () => {
    const ring = new Ring();
    ring.push(2);
    const accesses = ring.trace(() => ring.south.peek("inuse", ring.in, COUNT));
    expect(accesses.map(text)).toEqual([
      "load ring[0].sown 1",
      "load ring[1].sown 1",
      "load ring[2].sown 0",
      "load ring[2].sown 0", // an owner that is neither side would break the queue
    ]);
  });

  it("pushes and pops one by one in the same order (Q1 to Q4)", () => {
    const ring = new Ring();
    ring.south.enable(RECHECK_NONE);
    const cursor = new RingIterator(ring.north, "inuse", ITER_AUTOUPDATE);
    const one = (): Access[] => {
      cursor.seek("tail");
      return ring.trace(() => cursor.push());
    };
    expect(one().map(text)).toEqual([
      "load ring[0].sown 0",
      "load inuse.head 0",
      "store inuse.tail 1",
      "store ring[0].sown 1",
      ...INJECT_AND_RING,
    ]);
    one();
    one();
    expect(one().map(text)).toEqual([
      "load ring[3].sown 0",
      "load inuse.head 0",
      "store inuse.full 1",
      "store inuse.tail 0",
      "store ring[3].sown 1",
      "store south.dirty 1",
      "load south.enabled 1",
      "load south.pending 1",
    ]);
    const taker = new RingIterator(ring.south, "inuse");
    taker.seek("head");
    expect(ring.trace(() => taker.pop()).map(text)).toEqual([
      "load ring[0].sown 1",
      "store inuse.head 1",
      "load inuse.full 1",
      "store inuse.full 0",
      "store ring[0].sown 0",
    ]);
  });

  it("pushes and takes a single descriptor in one call, in the same order (Q1 to Q6)", () => {
    const ring = new Ring();
    const { north, south, out } = ring;
    south.enable(RECHECK_NONE);
    const one = (): Access[] => ring.trace(() => north.pushOne("inuse", out, EVERYTHING | BURST_SIGNAL));
    out.setCookie(0, 100);
    out.setGpa(0, ring.guest.gpa);
    out.setLength(0, 1000);
    const first = one();
    expect(first.map(text)).toEqual([
      "load ring[0].sown 0",
      "load inuse.head 0",
      "store ring[0].sown 1",
      ...INJECT_AND_RING,
    ]);
    const { before } = storeTo(first, "ring[0].sown");
    expect(changed(before, ring.segment())).toEqual(["south.pending", "south.dirty", "ring[0].sown"]);
    expect(before[offsetOf("inuse.tail")]).toBe(1);
    one();
    one();
    const last = one();
    expect(last.map(text)).toEqual([
      "load ring[3].sown 0",
      "load inuse.head 0",
      "store inuse.full 1",
      "store ring[3].sown 1",
      "store south.dirty 1",
      "load south.enabled 1",
      "load south.pending 1",
    ]);
    expect(storeTo(last, "inuse.full").before[offsetOf("inuse.tail")]).toBe(3);
    expect(ring.trace(() => north.pushOne("inuse", out, EVERYTHING)).map(text)).toEqual([
      "load ring[0].sown 1",
    ]);
    const taken = ring.trace(() => south.takeOne("inuse", ring.in, 0));
    expect(taken.map(text)).toEqual([
      "load ring[0].sown 1",
      "load inuse.full 1",
      "store inuse.full 0",
      "store ring[0].sown 0",
    ]);
    expect(storeTo(taken, "inuse.full").before[offsetOf("inuse.head")]).toBe(1);
    expect(ring.trace(() => south.peekOne("inuse", ring.in)).map(text)).toEqual(["load ring[1].sown 1"]);
    expect(ring.trace(() => south.releaseOne("inuse", ring.in, 0)).map(text)).toEqual([
      "load inuse.full 0",
      "store ring[1].sown 0",
    ]);
  });

  it("unmasks, then looks at the flags, then at the ring (O5, Q7)", () => {
    const ring = new Ring();
    expect(ring.trace(() => ring.south.enable(RECHECK_INUSE_HEAD)).map(text)).toEqual([
      "store south.enabled 1",
      "load south.dirty 0",
      "load south.pending 0",
      "load ring[0].sown 0",
    ]);
  });

  it("clears dirty before the notifier runs, and pending before it looks again (O4, O6, R1b)", () => {
    const ring = new Ring();
    const { south } = ring;
    south.enable(RECHECK_NONE);
    ring.push(1);
    let turn = WAKEUP_DONE as number;
    expect(ring.trace(() => (turn = south.wakeupBegin(8, RECHECK_NONE))).map(text)).toEqual([
      "load south.enabled 1",
      "load south.dirty 1",
      "load south.pending 1",
      "store south.dirty 0",
    ]);
    expect(turn).toBe(WAKEUP_RUN);
    ring.pop(1, 0);
    expect(ring.trace(() => (turn = south.wakeupNext(RECHECK_INUSE_HEAD))).map(text)).toEqual([
      "load south.enabled 1",
      "load south.dirty 0",
      "store south.pending 0",
      "load ring[1].sown 0",
      "load south.enabled 1",
      "load south.dirty 0",
      "load south.pending 0",
    ]);
    expect(turn).toBe(WAKEUP_DONE);
  });

  it("between peers that negotiated it, leaves dirty alone while it is set, which it looks at behind the owner", () => {
    const ring = new Ring(true);
    ring.south.enable(RECHECK_NONE);
    const first = ring.push(2);
    expect(first.map(text)).toEqual(["store ring[0].sown 1", "load south.dirty 0", ...INJECT_AND_RING]);
    expect(ring.push(1).map(text)).toEqual([
      "store ring[2].sown 1",
      "load south.dirty 1",
      "load south.enabled 1",
      "load south.pending 1",
    ]);
    const { before } = storeTo(first, "ring[0].sown");
    expect([before[sownAt(1)], before[offsetOf("inuse.tail")]]).toEqual([1, 0]);
  });
});
