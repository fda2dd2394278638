import {
  EBUSY,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  EPROTO,
  VCONSOLE_BREAK,
  VCONSOLE_EVENT_BREAK,
  VCONSOLE_EVENT_HANGUP,
  VCONSOLE_EVENT_OPENED,
  VCONSOLE_EVENT_WINSIZE,
  VCONSOLE_HANGUP,
  VCONSOLE_WINSIZE,
} from "vbus/abi";
import type { Terminal } from "vbus/devices/vconsole";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";
import { expectBalanced, pattern, string, TestMachine, text } from "./machine.js";
import { RawGuest } from "./raw-guest.js";

let scheduler: VirtualScheduler;
let machine: TestMachine;
let terminal: Terminal;
let guest: RawGuest;
let log: string[];

beforeEach(() => {
  scheduler = new VirtualScheduler();
  machine = new TestMachine(scheduler);
  terminal = machine.addConsole("console0", { cols: 80, rows: 25, backlog: 100 });
  log = [];
  terminal.onOpen = () => log.push("open");
  terminal.onBreak = () => log.push("break");
  terminal.onHangup = (reason) => log.push(reason);
  terminal.onData = (bytes) => void log.push(string(bytes));
  guest = new RawGuest(machine);
});

const SIZE = 80 | (25 << 16);
/** Lets `onData` be set, which is told in a microtask, and the host work. */
async function run(): Promise<void> {
  await Promise.resolve();
  scheduler.run();
}

describe("the calls and segments", () => {
  it("check version, order, lengths and addresses", () => {
    expect(guest.open(0, 2)).toBe(-EINVAL);
    expect(guest.open()).toBeGreaterThan(0);
    expect(guest.client.open(0, 1)).toBe(-EBUSY);
    expect(guest.ready()).toBe(-EINVAL); // no rings
    expect(guest.call(VCONSOLE_HANGUP)).toBe(-EINVAL);
    expect(guest.call(VCONSOLE_BREAK)).toBe(-EINVAL);
    const gpa = guest.memory.ram.allocate(16, 8);
    expect(guest.call(VCONSOLE_WINSIZE, gpa, 7)).toBe(-EINVAL);
    expect(guest.call(VCONSOLE_WINSIZE, gpa, 9)).toBe(-EINVAL);
    expect(guest.call(VCONSOLE_WINSIZE, 0x7fff0000, 8)).toBe(-EFAULT);
    expect(guest.call(VCONSOLE_WINSIZE, gpa, 8)).toBe(0);
    expect([...guest.memory.space.copyFrom(gpa, 8)]).toEqual([80, 0, 25, 0, 0, 0, 0, 0]);
    expect(guest.call(4)).toBe(-EINVAL);
    guest.setUp();
    for (const id of [0, 1, 2]) expect(guest.share(id, guest.ring("northReceive", 16))).toBe(-EEXIST);
    expect(guest.share(3, guest.ring("northReceive", 16))).toBe(-EINVAL);
    expect(guest.call(VCONSOLE_HANGUP)).toBe(-ENOENT);
    expect(guest.call(VCONSOLE_BREAK)).toBe(-ENOENT);
    expect(guest.ready()).toBe(1);
    expect(guest.ready()).toBe(-EEXIST);
    expect(guest.call(VCONSOLE_HANGUP)).toBe(0);
    expect(guest.call(VCONSOLE_HANGUP)).toBe(-ENOENT);
    expect(guest.ready()).toBe(2);
  });

  it("refuse a ring without its signal, too long, or of another format", () => {
    guest.open();
    const ring = guest.ring("northReceive", 16);
    const { gpa, length } = ring;
    const share = (signal: number | null, size: number): number =>
      guest.client.shm(
        guest.handle,
        0,
        gpa,
        size,
        signal === null ? null : { offset: signal, prio: 0, cookie: 1 },
        0,
      );
    expect(share(null, length)).toBe(-EINVAL);
    expect(share(8, length - 1)).toBe(-EINVAL);
    expect(share(8, length + 1)).toBe(-EINVAL);
    guest.memory.space.copyTo(gpa, Uint8Array.of(0));
    expect(share(8, length)).toBe(-EINVAL);
    expect(machine.errors).toEqual([]);
  });
});

describe.each([
  ["LP64", false],
  ["ILP32", true],
])("rings of %s guests", (_name, ilp32) => {
  beforeEach(() => {
    guest.open();
    guest.setUp(ilp32);
  });

  it("carry bytes, marks with their positions, and the window size", async () => {
    await terminal.write(text("early"));
    expect(guest.ready()).toBe(1);
    await run();
    expect(guest.events()).toEqual([[32, VCONSOLE_EVENT_OPENED, 1, 0, SIZE]]);
    expect(guest.take("rx").map(string)).toEqual(["early"]);
    void terminal.write(pattern(20)); // buffers have 16
    terminal.sendBreak();
    void terminal.write(text("end"));
    terminal.resize(81, 25);
    await run();
    expect(guest.take("rx").map((bytes) => bytes.length)).toEqual([16, 4, 3]);
    expect(guest.events()).toEqual([
      [32, VCONSOLE_EVENT_WINSIZE, 1, 5, SIZE + 1], // as soon as possible, for it is no mark of the stream
      [32, VCONSOLE_EVENT_BREAK, 1, 25, SIZE + 1],
    ]);
    guest.send(text("up"));
    expect(guest.call(VCONSOLE_BREAK)).toBe(0);
    guest.send(new Uint8Array(0)); // nothing, and harmless
    guest.send(text("per"));
    await run();
    expect(log.splice(0)).toEqual(["open", "up", "break", "per"]);
    void terminal.hangup();
    await run();
    expect(guest.events()).toEqual([[32, VCONSOLE_EVENT_HANGUP, 1, 28, SIZE + 1]]);
    expect(guest.ready()).toBe(2);
    await run();
    expect(guest.events()).toEqual([]); // the terminal is not back
    terminal.open();
    await run();
    expect(guest.events()).toEqual([[32, VCONSOLE_EVENT_OPENED, 2, 28, SIZE + 1]]);
    expect(guest.close()).toBe(0);
    await run();
    expect(log).toEqual(["host", "open", "closed"]);
    expect(machine.errors).toEqual([]);
  });
});

describe("what the host writes to guest memory", () => {
  it("is noted for emulators that translated it to code: the bytes, and the event records", async () => {
    guest.open();
    guest.setUp();
    guest.ready();
    guest.host.logWrites(true);
    await terminal.write(pattern(20));
    await run();
    const { rx, events } = guest.rings;
    const written = guest.host.takeWrites();
    for (const range of [
      { gpa: events.buffers, length: 32 },
      { gpa: rx.buffers, length: 16 },
      { gpa: rx.buffers + 16, length: 4 },
    ])
      expect(written).toContainEqual(range);
  });
});

describe("a guest that takes no events", () => {
  it("gets no byte past a mark that waits, then everything in order; window sizes do not pile up", async () => {
    guest.open();
    guest.setUp(false, 1); // one event record
    guest.ready();
    await run(); // OPENED takes it
    for (let i = 1; i < 100; i++) {
      terminal.resize(i, i);
      scheduler.run();
    }
    void terminal.write(text("one"));
    terminal.sendBreak();
    void terminal.write(text("two"));
    await run();
    expect(guest.take("rx").map(string)).toEqual(["one"]);
    await run();
    expect(guest.take("rx")).toEqual([]);
    const ids: number[] = [];
    const bytes: string[] = [];
    for (let i = 0; i < 6; i++) {
      ids.push(...guest.events().map(([, id]) => id!));
      await run();
      bytes.push(...guest.take("rx").map(string));
      await run();
    }
    expect(ids).toEqual([VCONSOLE_EVENT_OPENED, VCONSOLE_EVENT_BREAK, VCONSOLE_EVENT_WINSIZE]);
    expect(bytes).toEqual(["two"]);
  });
});

describe("a guest that hung up", () => {
  it("hears nothing any more of the conversation that it left", async () => {
    guest.open();
    guest.setUp(false, 1); // one event record
    guest.ready();
    await run(); // OPENED takes it
    terminal.sendBreak();
    await run();
    guest.call(VCONSOLE_HANGUP);
    await run();
    expect(guest.events().map(([, id]) => id)).toEqual([VCONSOLE_EVENT_OPENED]);
    await run();
    expect(guest.events()).toEqual([]);
  });
});

describe("bytes outside a conversation", () => {
  it("that lie in the TX ring at READY, or come after the guest's own hang-up, are dropped and counted", async () => {
    guest.open();
    guest.setUp();
    guest.send(text("too early"));
    await run();
    guest.ready();
    guest.send(text("right"));
    await run();
    guest.call(VCONSOLE_HANGUP);
    guest.send(text("too late"));
    await run();
    guest.ready();
    guest.send(text("again"));
    await run();
    expect(log).toEqual(["open", "right", "guest", "open", "again"]);
    expect(terminal.statistics().tx).toEqual({ bytes: 27, passed: 10, drops: { hangup: 17 }, held: 0 });
  });

  it("do not stop a hang-up from both sides at once", async () => {
    guest.open();
    guest.setUp();
    guest.ready();
    await run();
    await terminal.write(pattern(90)); // more than the guest's buffers
    const hanging = terminal.hangup();
    scheduler.run();
    expect(guest.call(VCONSOLE_BREAK)).toBe(0);
    expect(guest.call(VCONSOLE_HANGUP)).toBe(0);
    await hanging;
    await run();
    expect(log).toEqual(["open", "guest"]);
    expect(terminal.isOpen).toBe(false);
    expect(terminal.statistics().rx).toEqual({ bytes: 90, passed: 64, drops: { hangup: 26 }, held: 0 });
  });

  it("wait no longer than the host's patience: a guest that hung up drains no more once the host does, too", async () => {
    let release = (): void => {};
    terminal.onData = () => new Promise((resolve) => (release = resolve));
    guest.open();
    guest.setUp();
    guest.ready();
    await run();
    for (let i = 0; i < 20; i++) {
      guest.send(pattern(16));
      await run();
    }
    guest.call(VCONSOLE_HANGUP);
    await run();
    expect(machine.bus.read("devices/console0/line")).toBe("draining");
    const hanging = terminal.hangup();
    await run();
    await hanging;
    release();
    await run();
    expect(machine.bus.read("devices/console0/line")).toBe("down");
    expectBalanced("console0", terminal.statistics());
  });
});

describe("a guest that breaks a ring", () => {
  const outside = 0x7fff0000;
  it.each([
    ["an RX buffer without room", (g: RawGuest) => g.post(g.rings.rx, undefined, 0)],
    ["an RX buffer outside its memory", (g: RawGuest) => g.post(g.rings.rx, outside)],
    ["an RX buffer that ends outside its memory", (g: RawGuest) => g.post(g.rings.rx, undefined, 0xfffffff0)],
    ["an event record that is too short", (g: RawGuest) => g.post(g.rings.events, undefined, 31)],
    ["an event record outside its memory", (g: RawGuest) => g.post(g.rings.events, outside)],
  ])("with %s ends its conversation, is reported once, and can reopen", async (_what, post) => {
    guest.open();
    const rx = guest.ring("northReceive", 16);
    const tx = guest.ring("northTransmit", 16);
    const events = guest.ring("northReceive", 32);
    guest.rings = { rx, tx, events };
    guest.share(0, rx);
    guest.share(1, tx);
    guest.share(2, events);
    post(guest);
    guest.post(rx);
    guest.post(events);
    await terminal.write(text("x"));
    guest.ready();
    await run();
    await expectBroken();
  });

  it.each([
    ["a chunk that is too long", undefined, 65537],
    ["a chunk of 4 GiB", undefined, 0xffffffff],
    ["a chunk outside its memory", outside, 4],
  ])("with %s ends its conversation, is reported once, and can reopen", async (_what, gpa, length) => {
    guest.open();
    guest.setUp();
    guest.ready();
    guest.send(new Uint8Array(0), gpa, length);
    await run();
    await expectBroken();
  });

  async function expectBroken(): Promise<void> {
    expect(log).toEqual(["open", "broken"]);
    expect(machine.errors.splice(0)).toMatchObject([
      { source: "devices/console0", error: { code: "EPROTO" } },
    ]);
    expect(guest.ready()).toBe(-EPROTO);
    expect(guest.call(VCONSOLE_BREAK)).toBe(-EPROTO);
    await terminal.write(text("kept")); // for the next conversation
    guest.close();
    await run();
    expect(machine.errors).toEqual([]);
    guest.open();
    guest.setUp();
    expect(guest.ready()).toBe(1);
    await run();
    expect(guest.take("rx").map(string)).toEqual(["kept"]);
    expectBalanced("console0", terminal.statistics());
  }
});
