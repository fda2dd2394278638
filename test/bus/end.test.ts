import { describe, expect, it } from "vitest";

import { Bench } from "./mailbox.js";

describe("the end of a client", () => {
  it("by expelling its member is told to the connector once, after its sessions have ended", async () => {
    const bench = await Bench.open();
    bench.session();
    const told: number[] = [];
    bench.client.onEnd = () => told.push(bench.mailbox.sessions.size);
    bench.bus.expel("guest");
    bench.client.disconnect();
    expect(told).toEqual([0]);
    expect(bench.client.connected).toBe(false);
  });

  it("by closing the bus is told as well", async () => {
    const bench = await Bench.open();
    let told = 0;
    bench.client.onEnd = () => told++;
    bench.vbus.removeBus("bus0");
    expect(told).toBe(1);
  });

  it("by the connector itself is not told", async () => {
    const bench = await Bench.open();
    let told = 0;
    bench.client.onEnd = () => told++;
    bench.client.disconnect();
    bench.bus.expel("guest");
    expect(told).toBe(0);
  });

  it("is not disturbed by a connector that throws, which is reported", async () => {
    const bench = await Bench.open();
    const errors: string[] = [];
    bench.vbus.on("error", (event) => errors.push(event.message));
    bench.client.onEnd = () => {
      throw new Error("no");
    };
    bench.bus.expel("guest");
    expect(bench.bus.members).toEqual([]);
    expect(errors.join()).toContain("onEnd");
  });
});
