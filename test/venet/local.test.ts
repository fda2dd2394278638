import { afterEach, describe, expect, it } from "vitest";
import { cable } from "./cable.js";
import { expectFrames, TestMachine, testFrame, type TestGuest } from "./machine.js";

describe("two guests with a cable between their NICs, in one thread", () => {
  let machine: TestMachine;
  let a: TestGuest;
  let b: TestGuest;

  async function start(options = {}): Promise<void> {
    const [left, right] = cable();
    machine = new TestMachine((name) => (name === "nic0" ? left : right));
    machine.addNic("nic0", { client_mac: "02:00:00:00:00:0a" });
    machine.addNic("nic1", { client_mac: "02:00:00:00:00:0b" });
    a = await machine.addGuest("a", 0, options);
    b = await machine.addGuest("b", 1, options);
    await a.nic.open();
    await b.nic.open();
  }

  afterEach(async () => {
    await machine.close();
    expect(machine.errors).toEqual([]);
  });

  it("delivers frames unchanged and in order, many more than the rings hold", async () => {
    await start();
    const frames = Array.from({ length: 3000 }, (_, n) =>
      testFrame(b.nic.mac, a.nic.mac, 60 + (n % 1400), n),
    );
    const sending = a.nic.send(frames);
    const received: Uint8Array[] = [];
    while (received.length < frames.length) received.push(...(await b.nic.receive()));
    await sending;
    expectFrames(received, frames);
    const { tx } = machine.statistics("nic0");
    expect(tx).toMatchObject({ frames: 3000, passed: 3000, drops: {} });
    expect(machine.statistics("nic1").rx).toMatchObject({ frames: 3000, passed: 3000, drops: {} });
  });
});
