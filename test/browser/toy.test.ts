import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { ToyOutcome } from "./outcome.js";
import { Surroundings } from "./surroundings.js";

describe("an emulator in Chromium, the toy machine", () => {
  let surroundings: Surroundings;

  beforeAll(async () => {
    surroundings = await Surroundings.start();
  });
  afterAll(() => surroundings.close());
  afterEach(() => {
    expect(surroundings.complaints.splice(0)).toEqual([]);
  });

  it.each(["page", "worker"])(
    "boots in a %s without cross-origin isolation, exchanges frames, and switches itself off",
    async (where) => {
      const outcome = await surroundings.probe<ToyOutcome>("plain", `run=toy&where=${where}`);
      expect(outcome).toMatchObject({
        isolated: false,
        frames: 500,
        exitCode: 0,
        balanced: true,
        errors: [],
      });
      expect(outcome.printed).toMatch(/^vbus: at 10010000\n[^]*off\n$/);
    },
  );
});
