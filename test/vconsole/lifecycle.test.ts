import { VirtualConsole } from "vbus/drivers/vconsole";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { expectBytes, pattern, readBytes, settle, TestMachine } from "./machine.js";

let machine: TestMachine;

beforeEach(() => {
  machine = new TestMachine();
});

afterEach(async () => {
  await machine.close();
  expect(machine.errors).toEqual([]);
});

describe("two consoles on one bus", () => {
  it("have nothing to do with each other, except that each works", async () => {
    const one = machine.addConsole("console0", { cols: 80 });
    const two = machine.addConsole("console1", { cols: 132 });
    const a = await machine.addGuest("a", 0);
    const b = await machine.addGuest("b", 1);
    await a.console.open();
    await b.console.open();
    expect([a.console.windowSize.cols, b.console.windowSize.cols]).toEqual([80, 132]);
    await Promise.all([one.write(pattern(5000, 1)), two.write(pattern(5000, 2))]);
    expectBytes(await readBytes(a.console, 5000), pattern(5000, 1));
    expectBytes(await readBytes(b.console, 5000), pattern(5000, 2));
    await one.hangup();
    await b.console.write(pattern(3000, 3));
    expectBytes(await readBytes(two, 3000), pattern(3000, 3));
    machine.vbus.removeDevice("console0");
    await settle();
    await b.console.write(pattern(3000, 4));
    expectBytes(await readBytes(two, 3000), pattern(3000, 4));
  });
});

describe("a console that is unplugged", () => {
  it("ends the conversation on both sides; whoever waits is told", async () => {
    const terminal = machine.addConsole("console0");
    const { console, memory } = await machine.addGuest("guest");
    await console.open();
    await settle();
    const read = console.read();
    const again = read.then(() => console.read());
    again.catch(() => {});
    machine.vbus.removeDevice("console0");
    expect((await read).length).toBe(0);
    await expect(again).rejects.toMatchObject({ code: "ENOTCONN" });
    await expect(console.write(pattern(1))).rejects.toMatchObject({ code: "ENOTCONN" });
    expect(terminal.connected).toBe(false);
    await settle();
    expect(memory.ram.available).toBe(memory.ram.size);
  });
});

describe("memory", () => {
  it("comes back completely, on both sides, over 20 cycles of open, traffic, hang-up and close", async () => {
    const terminal = machine.addConsole("console0", { backlog: 2000 });
    let baseline: number[] | null = null;
    const { bus, memory, host, console: first } = await machine.addGuest("guest", 0, { bufferSize: 100 });
    await first.close();
    const device = first.device;
    for (let cycle = 0; cycle < 20; cycle++) {
      const console = await VirtualConsole.probe(device, { bufferSize: 50 + cycle * 10 });
      await console.open();
      const writing = console.write(pattern(4000));
      writing.catch(() => {});
      const typing = terminal.write(pattern(4000));
      if (cycle % 2 === 0) {
        expectBytes(await readBytes(terminal, 4000), pattern(4000));
        expectBytes(await readBytes(console, 4000), pattern(4000));
      } else {
        await settle(1); // closed in the middle
      }
      if (cycle % 4 < 2) await console.hangup({ now: true });
      await console.close();
      await typing;
      terminal.onData = () => {};
      await settle(1);
      terminal.onData = null;
      const now = [memory.ram.available, memory.space.arena.available, host.arena.available];
      baseline ??= now;
      expect(now, `cycle ${cycle}`).toEqual(baseline);
    }
    expect(memory.ram.available).toBe(memory.ram.size);
    await bus.close();
  });

  it("that is too short for a console's buffers fails the probe and comes back", async () => {
    machine.addConsole("console0");
    await expect(machine.addGuest("guest", 0, { rxRing: 2048, bufferSize: 65536 })).rejects.toMatchObject({
      code: "ENOMEM",
    });
    const { memory, console } = await machine.addGuest("other", 0);
    await console.close();
    expect(memory.ram.available).toBe(memory.ram.size);
  });
});

describe("options out of range", () => {
  it.each([{ rxRing: 0 }, { txRing: 2049 }, { bufferSize: 65537 }, { backlog: 0 }, { eventRing: 1.5 }])(
    "%o is refused",
    async (options) => {
      machine.addConsole("console0");
      await expect(machine.addGuest("guest", 0, options)).rejects.toMatchObject({ code: "EINVAL" });
    },
  );
});
