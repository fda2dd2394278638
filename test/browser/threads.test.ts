import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { PortOutcome } from "./port-probe.js";
import { Surroundings, type Serving } from "./surroundings.js";

describe("ports between threads and tabs in Chromium", () => {
  let surroundings: Surroundings;

  beforeAll(async () => {
    surroundings = await Surroundings.start();
  });
  afterAll(() => surroundings.close());
  afterEach(() => {
    expect(surroundings.complaints.splice(0)).toEqual([]);
  });

  it.each<[string, string, Serving]>([
    ["over shared memory", "memory", "isolated"],
    ["over a MessagePort, without isolation", "messages", "plain"],
  ])("a worker gives back what it gets %s", async (_what, over, serving) => {
    const [outcome] = await surroundings.probes<PortOutcome>(serving, "port-probe.html", [`over=${over}`]);
    expect(outcome).toMatchObject({
      isolated: serving === "isolated",
      sent: 2000,
      intact: 2000,
      balanced: true,
      counters: { acknowledged: 2000, arrived: 2000, drops: {}, inFlight: 0, violations: 0 },
    });
  });

  it("two tabs without isolation exchange frames by a BroadcastChannel, a switch in each", async () => {
    const channel = randomUUID();
    const outcomes = await surroundings.probes<PortOutcome>(
      "plain",
      "port-probe.html",
      [1, 2].map((own) => `own=${own}&channel=${channel}`),
    );
    for (const [i, outcome] of outcomes.entries()) {
      expect(outcome, `tab ${i + 1}`).toMatchObject({
        isolated: false,
        intact: 2000,
        balanced: true,
        counters: { received: 2000, arrived: 2000, drops: {}, inFlight: 0, violations: 0 },
      });
    }
    expect(outcomes[0]!.counters.acknowledged).toBe(outcomes[1]!.counters.arrived);
    expect(outcomes[1]!.counters.acknowledged).toBe(outcomes[0]!.counters.arrived);
  });
});
