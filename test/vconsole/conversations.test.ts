import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Terminal } from "vbus/devices/vconsole";
import {
  expectBytes,
  pattern,
  readAll,
  readBytes,
  settle,
  string,
  TestMachine,
  text,
  type TestGuest,
} from "./machine.js";

let machine: TestMachine;
let terminal: Terminal;
let guest: TestGuest;
let log: string[];

/** Both ends write down what they are told, in order. */
function watch(): void {
  log = [];
  terminal.onOpen = () => log.push("host: open");
  terminal.onHangup = (reason) => log.push(`host: hangup (${reason})`);
  terminal.onBreak = () => log.push("host: break");
  guest.console.onOpen = () => log.push("guest: open");
  guest.console.onHangup = () => log.push("guest: hangup");
  guest.console.onBreak = () => log.push("guest: break");
}

/** Reads past the ends of conversations. */
async function skipEnds(end: { read(): Promise<Uint8Array> }): Promise<Uint8Array> {
  for (;;) {
    const bytes = await end.read();
    if (bytes.length > 0) return bytes;
  }
}

beforeEach(async () => {
  machine = new TestMachine();
  terminal = machine.addConsole("console0", { cols: 100, rows: 30, backlog: 1000 });
  guest = await machine.addGuest("guest", 0, { bufferSize: 64, rxRing: 4, txRing: 4, eventRing: 2 });
  watch();
});

afterEach(async () => {
  await machine.close();
  expect(machine.errors).toEqual([]);
});

describe("the window size", () => {
  it("is known before the console is opened, and the latest one when it is", async () => {
    expect(guest.console.windowSize).toEqual({ cols: 100, rows: 30 });
    terminal.resize(120, 40);
    terminal.resize(121, 41);
    await guest.console.open();
    expect(guest.console.windowSize).toEqual({ cols: 121, rows: 41 });
  });

  it("changes while the console is open", async () => {
    const sizes: string[] = [];
    guest.console.onResize = (cols, rows) => sizes.push(`${cols}x${rows}`);
    await guest.console.open();
    for (const cols of [90, 91, 92]) {
      terminal.resize(cols, 25);
      await settle();
    }
    terminal.resize(92, 25); // the same
    machine.bus.write("devices/console0/rows", "50");
    await settle();
    expect(sizes).toEqual(["90x25", "91x25", "92x25", "92x50"]);
    expect(machine.bus.read("devices/console0/rows")).toBe("50");
  });

  it("is told once, the last, after a storm of changes", async () => {
    const sizes: string[] = [];
    guest.console.onResize = (cols, rows) => sizes.push(`${cols}x${rows}`);
    await guest.console.open();
    for (let i = 1; i <= 5000; i++) terminal.resize(i, i);
    await settle();
    expect(sizes).toEqual(["5000x5000"]);
  });

  it("of a storm that goes on and on comes through in the end, though the guest hears of few of them", async () => {
    let last = 0;
    guest.console.onResize = (cols) => (last = cols);
    await guest.console.open();
    for (let i = 1; i <= 2000; i++) {
      terminal.resize(i, 1);
      await Promise.resolve();
    }
    await vi.waitFor(() => {
      expect(last).toBe(2000);
    });
  });

  it("outside 0 … 65535 is refused", () => {
    expect(() => {
      terminal.resize(65536, 1);
    }).toThrow("EINVAL");
    expect(() => {
      machine.bus.write("devices/console0/cols", "-1");
    }).toThrow("EINVAL");
    expect(terminal.cols).toBe(100);
  });
});

describe("a conversation", () => {
  it("begins when the guest is ready, and not twice", async () => {
    expect(terminal.connected).toBe(false);
    await guest.console.open();
    await expect(guest.console.open()).rejects.toMatchObject({ code: "EINVAL" });
    await settle();
    expect(log).toEqual(["host: open", "guest: open"]);
    expect(terminal.connected && guest.console.connected).toBe(true);
    expect(machine.bus.read("devices/console0/line")).toBe("up");
  });

  it("waits for a terminal that is hung up; the guest's writes wait with it", async () => {
    await terminal.hangup();
    await guest.console.open();
    const writing = guest.console.write(text("hello"));
    await settle();
    expect(log).toEqual([]);
    expect(machine.bus.read("devices/console0/line")).toBe("waiting");
    await expect(guest.console.sendBreak()).rejects.toMatchObject({ code: "ENOTCONN" });
    terminal.open();
    expect(string(await terminal.read())).toBe("hello");
    await writing;
  });

  it("ends by the host: what it wrote comes first, then its hang-up; later bytes of the guest are dropped and counted", async () => {
    await guest.console.open();
    const bytes = pattern(5000);
    const writing = terminal.write(bytes);
    const reading = readAll(guest.console).then((all) => {
      log.push(`guest: ${all.length} bytes`);
      return all;
    });
    expect(await writing).toBe(5000);
    const hanging = terminal.hangup();
    const refused = terminal.write(bytes);
    expect(() => terminal.tryWrite(bytes)).toThrow("ENOTCONN");
    expect(() => {
      terminal.open();
    }).toThrow("EBUSY");
    expect(guest.console.tryWrite(text("too late"))).toBe(8);
    await expect(refused).rejects.toMatchObject({ code: "ENOTCONN" });
    await hanging;
    expectBytes(await reading, bytes);
    await settle();
    expect(log).toEqual([
      "host: open",
      "guest: open",
      "host: hangup (host)",
      "guest: hangup",
      "guest: 5000 bytes",
    ]);
    expect(terminal.statistics().tx).toMatchObject({ passed: 0, drops: { hangup: 8 } });
    await expect(guest.console.write(text("x"))).rejects.toMatchObject({ code: "ENOTCONN" });
  });

  it("ends by the guest: what it wrote comes first, then its hang-up, however slow the reader", async () => {
    await guest.console.open();
    const bytes = pattern(5000);
    const writing = guest.console.write(bytes);
    const hanging = guest.console.hangup();
    await settle();
    expect(log).toEqual(["host: open", "guest: open"]);
    expectBytes(await readAll(terminal), bytes);
    await Promise.all([writing, hanging]);
    expect(log).toEqual(["host: open", "guest: open", "host: hangup (guest)"]);
    expect(terminal.isOpen).toBe(true); // for the next conversation
  });

  it("ends at once by the host when told so: what is left is dropped and counted", async () => {
    await guest.console.open();
    const writing = terminal.write(pattern(70_000));
    await settle();
    void terminal.hangup();
    await settle();
    expect(terminal.connected).toBe(true); // the guest does not read
    await terminal.hangup({ now: true });
    expect(await writing).toBeLessThan(70_000);
    const { rx } = terminal.statistics();
    expect(rx.drops.hangup).toBe(70_000 - rx.passed);
    expect((await readAll(guest.console)).length).toBe(rx.passed);
  });

  it("ends at once by the guest when told so: writers are told", async () => {
    await guest.console.open();
    const writing = guest.console.write(pattern(5000));
    writing.catch(() => {});
    await settle();
    await guest.console.hangup({ now: true });
    await expect(writing).rejects.toMatchObject({ code: "ENOTCONN" });
    const got = await readAll(terminal);
    expectBytes(got, pattern(5000).subarray(0, got.length));
    expect(got.length).toBe(guest.console.statistics().txBytes);
  });

  it("can be had again after a hang-up from either side, many times, and none gets a byte of another", async () => {
    for (let i = 0; i < 30; i++) {
      await guest.console.open();
      const down = pattern(200 + i * 11, i);
      const up = pattern(150 + i * 13, i + 1);
      void terminal.write(down);
      const writing = guest.console.write(up);
      if (i % 3 === 0) {
        await writing;
        expectBytes(await readBytes(guest.console, down.length), down);
        await guest.console.hangup();
        expectBytes(await readAll(terminal), up);
        expect((await guest.console.read()).length).toBe(0);
      } else if (i % 3 === 1) {
        expectBytes(await readBytes(terminal, up.length), up);
        await Promise.all([terminal.hangup(), readAll(guest.console).then((got) => expectBytes(got, down))]);
        expect((await terminal.read()).length).toBe(0);
        terminal.open();
      } else {
        writing.catch(() => {});
        await settle(1);
        await Promise.all([guest.console.hangup({ now: true }), terminal.hangup({ now: true })]); // both at once
        const got = await readAll(terminal);
        expectBytes(got, up.subarray(0, got.length));
        const read = await readAll(guest.console);
        expectBytes(read, down.subarray(0, read.length));
        terminal.open();
      }
      machine.assertBalanced();
    }
    const { conversations, hangups } = terminal.statistics();
    expect({ conversations, hangups }).toEqual({ conversations: 30, hangups: 30 });
  });

  it("begins after the last bytes of the one before, when the guest is back faster than the reader reads", async () => {
    await guest.console.open();
    await settle();
    void guest.console.write(pattern(1200)); // more than the terminal holds, less than that and the ring
    await guest.console.hangup();
    await guest.console.open();
    void guest.console.write(text("second"));
    await settle();
    expect(machine.bus.read("devices/console0/line")).toBe("draining");
    expectBytes(await readAll(terminal), pattern(1200));
    expect(string(await terminal.read())).toBe("second");
    expect(log.filter((line) => line.startsWith("host"))).toEqual([
      "host: open",
      "host: hangup (guest)",
      "host: open",
    ]);
  });

  it("that nobody reads does not pile up anything, however often it begins and ends", async () => {
    for (let i = 0; i < 50; i++) {
      await guest.console.open();
      await settle(0);
      if (i === 0) await guest.console.write(text("unread"));
      await guest.console.hangup();
      await settle(0);
    }
    expect(terminal.statistics().conversations).toBe(50);
    expect(log.filter((line) => line.startsWith("host"))).toEqual(["host: open"]);
    expect(string(await terminal.read())).toBe("unread");
    expect(log.filter((line) => line.startsWith("host"))).toEqual([
      "host: open",
      "host: hangup (guest)",
      "host: open", // the last of those without a byte
      "host: hangup (guest)",
    ]);
  });

  it("is not disturbed by news of the one before, whenever the two sides hang up and come back", async () => {
    for (let turns = 0; turns < 40; turns++) {
      await guest.console.open();
      await settle(0);
      const hanging = terminal.hangup({ now: true });
      for (let i = 0; i < turns; i++) await Promise.resolve();
      await guest.console.hangup({ now: true });
      await guest.console.open();
      await hanging;
      terminal.open();
      void terminal.write(text("down"));
      void guest.console.write(text("up"));
      const down = await readBytes({ read: () => skipEnds(guest.console) }, 4);
      const up = await readBytes({ read: () => skipEnds(terminal) }, 2);
      expect([string(down), string(up)], `${turns} turns later`).toEqual(["down", "up"]);
      await guest.console.hangup();
      await settle(0);
    }
  });

  it("is not ended by a late hang-up of the one before", async () => {
    await guest.console.open();
    await settle();
    const { transport } = guest.bus;
    const deliver = transport.onEvent!;
    const late: Parameters<typeof deliver>[0][] = [];
    transport.onEvent = (event) => late.push(event); // the guest is busy elsewhere
    await terminal.hangup();
    await settle();
    expect(guest.console.connected).toBe(true);
    await guest.console.hangup(); // the host knows of no conversation any more, which is no error
    terminal.open();
    await guest.console.open(); // looks at the rings, and finds both events
    transport.onEvent = deliver;
    for (const event of late) deliver(event);
    await guest.console.write(text("second"));
    expect((await terminal.read()).length).toBe(0);
    expect(string(await terminal.read())).toBe("second");
    await settle();
    expect(log.filter((line) => line.startsWith("guest"))).toEqual(["guest: open", "guest: open"]);
  });

  it("ends with the guest's session; what the guest had sent is still delivered", async () => {
    await guest.console.open();
    await settle();
    expect(guest.console.tryWrite(text("kernel panic"))).toBe(12);
    await guest.bus.close();
    expect(string(await readAll(terminal))).toBe("kernel panic");
    await settle();
    expect(log).toEqual(["host: open", "guest: open", "host: hangup (closed)"]);
  });

  it("ends with the guest's session; what the terminal has no room for is counted", async () => {
    await guest.console.open();
    const writing = guest.console.write(pattern(5000));
    writing.catch(() => {});
    await settle();
    await guest.bus.close();
    const { tx } = terminal.statistics();
    expect(tx.drops.closed).toBe(256); // the ring
    expect((await readAll(terminal)).length).toBe(tx.bytes - 256);
    await expect(writing).rejects.toMatchObject({ code: "ENOTCONN" });
  });
});

describe("a break", () => {
  it("comes between the bytes before and after it, both ways", async () => {
    const down: string[] = log;
    guest.console.onData = (bytes) => void down.push(`guest: ${string(bytes)}`);
    terminal.onData = (bytes) => void down.push(`host: ${string(bytes)}`);
    await guest.console.open();
    await settle();
    log.length = 0;
    void terminal.write(text("before"));
    expect(terminal.sendBreak()).toBe(true);
    expect(terminal.sendBreak()).toBe(true); // at one place they are one
    void terminal.write(text("after"));
    await settle();
    expect(log.splice(0)).toEqual(["guest: before", "guest: break", "guest: after"]);
    void guest.console.write(text("before"));
    void guest.console.sendBreak();
    void guest.console.write(text("after"));
    await settle();
    expect(log).toEqual(["host: before", "host: break", "host: after"]);
  });

  it("goes nowhere without a conversation", async () => {
    expect(terminal.sendBreak()).toBe(false);
    await expect(guest.console.sendBreak()).rejects.toMatchObject({ code: "ENOTCONN" });
  });
});

describe("while no guest is there", () => {
  it("the back-log keeps what was written first; the rest is dropped and counted, and nobody waits", async () => {
    expect(await terminal.write(pattern(900))).toBe(900);
    expect(terminal.tryWrite(pattern(1))).toBe(1);
    expect(await terminal.write(pattern(500))).toBe(99);
    expect(await terminal.write(pattern(500))).toBe(0);
    expect(terminal.tryWrite(pattern(1))).toBe(0);
    expect(terminal.statistics().rx).toEqual({
      bytes: 1901,
      passed: 0,
      drops: { "no-guest": 901 },
      held: 1000,
    });
    await guest.console.open();
    expectBytes(
      await readBytes(guest.console, 1000),
      Buffer.concat([pattern(900), pattern(1), pattern(500).subarray(0, 99)]),
    );
  });

  it("the back-log can be made larger and smaller", async () => {
    machine.bus.write("devices/console0/backlog", "2000");
    expect(await terminal.write(pattern(3000))).toBe(2000);
    terminal.backlog = 10;
    expect(terminal.statistics().rx.held).toBe(2000); // nothing that was accepted is lost
    expect(() => {
      terminal.backlog = 0;
    }).toThrow("EINVAL");
    await guest.console.open();
    expectBytes(await readBytes(guest.console, 2000), pattern(3000).subarray(0, 2000));
  });

  it("writers that waited for a guest that leaves are let go", async () => {
    await guest.console.open();
    const writing = terminal.write(pattern(70_000));
    await settle();
    await guest.console.close();
    expect(await writing).toBeLessThan(70_000);
    expect(terminal.statistics().rx.drops.hangup).toBeGreaterThan(0);
  });
});

describe("a terminal", () => {
  it("belongs to one console, until that is gone", () => {
    const shared = new Terminal();
    machine.terminals.set("a", shared);
    machine.terminals.set("b", shared);
    machine.vbus.createDevice("a", "vconsole");
    expect(() => machine.vbus.createDevice("b", "vconsole")).toThrow("EBUSY");
    machine.vbus.removeDevice("a");
    machine.vbus.createDevice("b", "vconsole");
  });

  it("can be hung up and opened by attribute", async () => {
    await guest.console.open();
    machine.bus.write("devices/console0/open", "0");
    await settle();
    expect(log.at(-1)).toBe("guest: hangup");
    expect(machine.bus.read("devices/console0/open")).toBe("0");
    machine.bus.write("devices/console0/open", "1");
    await guest.console.open();
    await settle();
    expect(log.at(-1)).toBe("guest: open");
    expect(() => {
      machine.bus.write("devices/console0/open", "2");
    }).toThrow("EINVAL");
  });
});
