import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { DeathOutcome, LocalOutcome, RefusalOutcome } from "./outcome.js";
import { Surroundings } from "./surroundings.js";

describe("guests in Chromium", () => {
  let surroundings: Surroundings;

  beforeAll(async () => {
    surroundings = await Surroundings.start();
  });
  afterAll(() => surroundings.close());
  afterEach(() => {
    expect(surroundings.complaints).toEqual([]);
  });

  it("without isolation shared memory and the worker connector are refused, and the local connector is named", async () => {
    const outcome = await surroundings.probe<RefusalOutcome>("plain", "run=refusal");
    expect(outcome).toMatchObject({ isolated: false, sharedArrayBuffer: "undefined" });
    for (const refused of [outcome.allocate, outcome.host, outcome.guest, outcome.ownMemory]) {
      expect(refused).toMatchObject({
        name: "VbusError",
        code: "EOPNOTSUPP",
        message: expect.stringMatching(/use the local connector/) as string,
      });
    }
  });

  for (const serving of ["plain", "isolated"] as const) {
    const how = serving === "plain" ? "without isolation" : "with isolation";
    it(`${how} two guests on local connectors exchange frames through a switch in the page's thread`, async () => {
      const outcome = await surroundings.probe<LocalOutcome>(serving, "run=local");
      expect(outcome).toEqual({
        sent: 2000,
        intact: [2000, 2000],
        balanced: true,
        drops: {},
        inFlight: 0,
        errors: [],
      });
    });
  }

  for (const [end, what] of [
    ["terminate", "a guest that is terminated"],
    ["close", "a guest that ends itself"],
  ] as const)
    it(`${what} while it sends is noticed by its Web Lock, its session is closed, every frame is accounted for`, async () => {
      const outcome = await surroundings.probe<DeathOutcome>("isolated", `run=death&end=${end}`);
      expect(outcome.reason).toMatch(/its lock "probe-A-.*" is free/);
      expect(outcome.before).toMatch(/nic0[^]*?link: up/);
      expect(outcome.after).toMatch(/nic0[^]*?link: down/);
      expect(outcome.before).toContain("── A\n");
      expect(outcome.after).not.toContain("── A\n");
      expect(outcome.successor).toBe(outcome.device);
      expect(outcome.nic.frames).toBeGreaterThanOrEqual(2000);
      expect(outcome.nic.frames).toBe(outcome.nic.passed + outcome.nic.drops);
      const { balance, living } = outcome;
      expect(balance).toMatchObject({ balanced: true, inFlight: 0 });
      const dropped = Object.values(balance.drops).reduce((total, n) => total + n, 0);
      expect(balance.received + balance.replicated).toBe(balance.delivered + dropped);
      expect(living.received).toBe(living.passed);
      expect(outcome.errors).toEqual([]);
    });
});
