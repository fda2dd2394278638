import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { ConformanceOutcome, EngineOutcome } from "./outcome.js";
import { Surroundings } from "./surroundings.js";

describe("the engine in Chromium, under a strict content security policy", () => {
  let surroundings: Surroundings;

  beforeAll(async () => {
    surroundings = await Surroundings.start();
  });
  afterAll(() => surroundings.close());
  afterEach(() => {
    surroundings.complaints.length = 0;
  });

  for (const where of ["engine", "worker"] as const) {
    const place = where === "engine" ? "a page" : "a worker";
    for (const [way, what] of [
      ["async", "links asynchronously from the embedded bytes"],
      ["sync", "links synchronously from the embedded bytes"],
      ["url", "links the shipped wasm files, fetched by URL, in both ways"],
    ] as const) {
      it(`${what} in ${place}, both flavours`, async () => {
        const outcome = await surroundings.probe<EngineOutcome>("isolated", `run=${where}&way=${way}`);
        expect(outcome).toMatchObject({ isolated: true, links: { unshared: "unshared", shared: "shared" } });
        expect(outcome.checksum[0]).toBe(outcome.checksum[1]);
        expect(surroundings.complaints).toEqual([]);
      });
    }

    it(`links onto unshared memory in ${place} without cross-origin isolation`, async () => {
      const outcome = await surroundings.probe<EngineOutcome>("plain", `run=${where}&way=async`);
      expect(outcome).toMatchObject({ isolated: false, links: { unshared: "unshared" } });
      expect(outcome.checksum[0]).toBe(outcome.checksum[1]);
      expect(surroundings.complaints).toEqual([]);
    });

    for (const way of ["async", "sync"] as const) {
      it(`without 'wasm-unsafe-eval' linking (${way}) in ${place} fails with an error that names it`, async () => {
        const { links } = await surroundings.probe<EngineOutcome>("no wasm", `run=${where}&way=${way}`);
        for (const flavour of ["unshared", "shared"]) {
          expect(links[flavour]).toMatchObject({
            name: "VbusError",
            code: "EPERM",
            message: expect.stringContaining("add 'wasm-unsafe-eval' to its script-src") as string,
          });
        }
      });
    }
  }

  it("passes the whole conformance table on unshared memory", async () => {
    const { ran, failures } = await surroundings.probe<ConformanceOutcome>("plain", "run=conformance");
    expect(failures).toEqual([]);
    expect(ran).toBeGreaterThan(200);
    expect(surroundings.complaints).toEqual([]);
  });
});
