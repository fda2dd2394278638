/**
 * Guests without PCI that write anything anywhere: their host survives, and a neighbour on the same bus notices nothing. Seeds
 * are fixed; VBUS_SEED explores.
 */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { generator, seedOr } from "../engine/seed.js";
import { COOKIE, DEVADD, LP64, SHMSIGNAL } from "./bare-guest.js";
import { ECHO_RELEASE, ECHO_REVERSE, ECHO_SIGNAL, ECHO_SIGNALLED, ECHO_VERSION, echoed } from "./echo.js";
import { EchoHost } from "./machine.js";
import { FORMS, LineMachine } from "./mmio-machine.js";

const STEPS = 30_000;
const SHAKES = 4000;
const PAGE = 0x1000;
const WIDTHS = [1, 2, 4] as const;
/** Registers, `docs/abi/vbus-mmio.md` section 2. */
const READABLE = [0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x20, 0x40, 0x54];
const WRITABLE = [0x10, 0x14, 0x18, 0x1c, 0x30, 0x34, 0x38, 0x44, 0x50];

let host: EchoHost;
/** Guests of the test; the first one is the bad one, the second its neighbour on the same bus. */
let bad: LineMachine;
let good: LineMachine;
/** The neighbour's session. */
let session: bigint;

beforeEach(() => {
  host = new EchoHost(2);
  host.bus.admit("neighbour");
  bad = new LineMachine(host);
  good = new LineMachine(host, "neighbour");
});

afterEach(() => {
  for (const machine of [bad, good]) {
    machine.bridge.close();
    expect(machine.line).toBe(false);
    expect(machine.memory.arena.available).toBe(machine.free);
  }
  expect(good.errors).toEqual([]);
});

async function boot(form: (typeof FORMS)[number]): Promise<void> {
  await bad.boot(form, LP64);
  await good.boot("page", LP64);
  expect(good.bringUp()).toHaveLength(2);
  const { result, handle } = good.guest.open(1, ECHO_VERSION);
  expect(result).toBe(0);
  session = handle;
}

/** The neighbour's call and signal work, and it gets exactly what is its own. */
function expectNeighbourAtWork(): void {
  const { guest } = good;
  const data = guest.allocate(8);
  guest.setU8(data + 7, 9);
  expect(guest.call(session, ECHO_REVERSE, data, 8)).toBe(8);
  expect(guest.u8(data)).toBe(9);
  const segment = guest.signalSegment();
  expect(
    guest.shm(session, ECHO_SIGNALLED, segment, 64, { offset: 0, cookie: COOKIE }),
  ).toBeGreaterThanOrEqual(0);
  expect(guest.call(session, ECHO_SIGNAL, 0, 0, 1)).toBe(1);
  expect(guest.call(session, ECHO_RELEASE, 0, 0)).toBe(0);
  const events = good.events();
  expect(events.every(({ value }) => value === COOKIE)).toBe(true);
}

describe("a guest's accesses to the register page", () => {
  beforeEach(() => boot("page"));

  it("of every width at every offset are answered by the registers, with 32 bits at their own offset, and by nothing else", () => {
    const { page } = bad;
    bad.bringUp();
    const start = page.counters();
    let ignored = 0;
    const answered: string[] = [];
    for (const width of WIDTHS) {
      for (let offset = 0; offset < PAGE + 8; offset++) {
        const value = page.read(offset, width);
        if (width === 4 && READABLE.includes(offset)) continue;
        ignored++;
        if (value !== 0) answered.push(`${8 * width} bits at 0x${offset.toString(16)}: ${value}`);
      }
    }
    expect(answered).toEqual([]);
    for (const width of WIDTHS) {
      for (let offset = 0; offset < PAGE + 8; offset++) {
        if (width === 4 && WRITABLE.includes(offset)) continue;
        page.write(offset, width, 0xffffffff);
        ignored++;
      }
    }
    expect(page.counters()).toEqual({ ...start, ignored: start.ignored + ignored });
    // nothing of it had an effect: the driver goes on where it was
    bad.plug("later");
    expect(bad.events()).toEqual([expect.objectContaining({ id: DEVADD })]);
    good.events();
    expectNeighbourAtWork();
  });

  it("that read what is only written give 0 and do nothing, and those that write what is only read are ignored", () => {
    const { page } = bad;
    bad.bringUp();
    bad.plug("later");
    bad.scheduler.run();
    expect(bad.line).toBe(true);
    const before = page.counters();
    for (const offset of [0x1c, 0x30, 0x34, 0x38, 0x44, 0x50]) expect(page.read(offset, 4)).toBe(0);
    for (const offset of [0x00, 0x04, 0x08, 0x0c, 0x20, 0x40, 0x54]) page.write(offset, 4, 1);
    expect(page.counters()).toEqual({ ...before, ignored: before.ignored + 13 });
    expect([bad.line, page.read(0x40, 4), page.read(0x00, 4)]).toEqual([true, 1, 0x73756276]);
  });

  it("that acknowledge what is not pending, or bits that do not exist, lower nothing", () => {
    const { page } = bad;
    bad.bringUp();
    bad.plug("later");
    bad.scheduler.run();
    const before = page.counters().acknowledged;
    page.write(0x44, 4, 0xfffffffe);
    page.write(0x44, 4, 0);
    expect([bad.line, page.counters().acknowledged]).toEqual([true, before]);
    page.write(0x44, 4, 0xffffffff);
    expect([bad.line, page.counters().acknowledged]).toEqual([false, before + 1]);
  });
});

describe.each(FORMS)("a guest that makes garbage of its %s", (form) => {
  beforeEach(() => boot(form));

  /** A number that a guest might take for an address, a length, an id, or nothing of it. */
  function garbage(random: () => number): number {
    const gpa = bad.guest.base + (random() % (1 << 20));
    return [random(), random() & 0xff, random() % 5, gpa, gpa & ~7, 0xffffffff, 0, 1, 16, 24, 32][
      random() % 11
    ] as number;
  }

  function act(random: () => number): void {
    if (form === "page") {
      const offset =
        random() % 4 === 0 ? random() % (PAGE + 16) : (WRITABLE[random() % WRITABLE.length] as number);
      const width = random() % 8 === 0 ? WIDTHS[random() % 3]! : 4;
      if (random() % 3 === 0) {
        const value = bad.page.read(offset, width);
        if (!(Number.isInteger(value) && value >= 0 && value < 2 ** 32))
          throw new Error(`a read returned ${value}`);
      } else bad.page.write(offset, width, garbage(random));
      return;
    }
    const { bridge } = bad;
    if (!("cpuid" in bridge)) throw new Error("no hypercalls");
    const number = random() % 16 === 0 ? random() : 0x76620000 + (random() % 8);
    const result = bridge.call(
      number,
      garbage(random),
      garbage(random),
      garbage(random),
      random() % 4 && garbage(random),
    );
    if (result !== null && !(Number.isInteger(result) && result >= -(2 ** 31) && result < 2 ** 31))
      throw new Error(`a hypercall returned ${result}`);
  }

  it.each([1, 2, 3])("gets plain numbers back, and hurts nobody (seed %i)", (n) => {
    const seed = seedOr(4711 * n);
    const random = generator(seed);
    console.log(`seed ${seed}`);
    for (let step = 0; step < STEPS; step++) {
      act(random);
      // what the guest's memory holds is garbage, too, and changes all the time
      bad.guest.setU32(bad.guest.base + ((random() % (1 << 20)) & ~3), garbage(random));
      if (step % 64 === 0) bad.scheduler.run();
      // now and then there is a driver, so that garbage meets a bridge at work
      if (step % 3000 === 0) {
        bad.door.reset();
        bad.bringUp();
      }
      if (step % 5000 === 0) expectNeighbourAtWork();
    }
    expectNeighbourAtWork();
    // and the guest itself can begin anew
    bad.door.reset();
    expect(bad.line).toBe(false);
    const [first] = bad.bringUp();
    expect(bad.guest.open(first!.value, ECHO_VERSION).result).toBe(0);
  });

  it("and shakes its signals and interrupts gets no more interrupts than it acknowledges, in bounded time", () => {
    bad.bringUp();
    const { guest, door } = bad;
    const { handle } = guest.open(0, ECHO_VERSION);
    const signal = guest.shm(handle, ECHO_SIGNALLED, guest.signalSegment(), 64, {
      offset: 0,
      cookie: COOKIE,
    });
    const { channel } = guest.addChannel(0);
    const signalOnce = guest.block(32);
    guest.setU64(signalOnce, handle);
    guest.setU32(signalOnce + 8, ECHO_SIGNAL);
    guest.setU32(signalOnce + 12, 0);
    guest.setU32(signalOnce + 16, 1);
    const before = bad.bridge.counters();
    const raised = bad.raised;
    const rung = echoed.doorbells;
    const wrong: number[] = [];
    for (let i = 0; i < SHAKES; i++) {
      guest.setU8(guest.ring + 16, 1); // enabled, and never pending: it asks for every interrupt
      guest.setU8(guest.ring + 17, 0);
      guest.setU8(guest.ring + 21, 1); // south's dirty
      wrong.push(guest.busCall(2, 32, signalOnce, channel) - 1);
      door.shmSignal(signal);
      door.eventqDoorbell();
      bad.scheduler.run();
      wrong.push(...guest.takeEvents().events.map(({ id }) => id - SHMSIGNAL));
      if (i % 40 === 39) door.acknowledge();
    }
    expect(wrong.filter((difference) => difference !== 0)).toEqual([]);
    const after = bad.bridge.counters();
    expect(after.interrupts - before.interrupts).toBe(SHAKES); // the host signals each time …
    expect(bad.raised - raised).toBe(SHAKES / 40); // … and the line rises once for each acknowledge
    expect(after.lines - before.lines).toBe(SHAKES / 40);
    expect(after.acknowledged - before.acknowledged).toBe(SHAKES / 40);
    expect(echoed.doorbells - rung).toBe(SHAKES);
    expectNeighbourAtWork();
    expect(good.raised).toBeLessThan(10);
  });
});
