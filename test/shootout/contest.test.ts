import { describe, expect, it } from "vitest";
import { contest, type ContestRules, type Outcome } from "../../bench/shootout/contest.js";

const rules: ContestRules = {
  at: 32,
  name: "bursts of 32",
  reference: "a",
  lower: true,
  placed: true,
  duels: [["a", "b"]],
};
const effort = { rounds: 4, warm: 1, ms: 60_000 };
const near = { before: 50, after: 60 };
const far = { before: 200, after: 210 };
const outcome = (value: number, probes: Outcome["probes"] = near): Outcome => ({ value, probes, extras: {} });
const nothing = (): Promise<void> => Promise.resolve();

describe("a contest", () => {
  it("samples everybody in turn, lets another one begin each round, and throws the warm-up away", async () => {
    const order: string[] = [];
    const entrant = (id: string) => ({
      id,
      sample: () => {
        order.push(id);
        return outcome(order.length <= 2 ? 1000 : id === "a" ? 2 : 8);
      },
    });
    const [setting] = await contest(rules, [entrant("a"), entrant("b")], effort, nothing);
    expect(order.join("")).toBe("abbaabbaab");
    expect(setting).toMatchObject({ at: 32, placement: "near", dropped: 0, absent: [] });
    expect(setting?.cells.map(({ value }) => value.median)).toEqual([2, 8]);
    expect(setting?.cells.map(({ ratio }) => ratio?.median)).toEqual([undefined, 0.25]);
    expect(setting?.duels).toMatchObject([{ ours: "a", rival: "b", ratio: { median: 4 } }]);
  });

  it("goes on without one that fails, says why, and lets the others find working threads", async () => {
    const recovered: string[] = [];
    const settings = await contest(
      rules,
      [
        { id: "a", sample: () => outcome(1) },
        { id: "b", sample: () => Promise.reject(new Error("the ring is stuck")) },
        { id: "c", sample: "it has no notifications" },
      ],
      effort,
      (id) => {
        recovered.push(id);
        return Promise.resolve();
      },
    );
    expect(recovered).toEqual(["b"]);
    expect(settings).toHaveLength(1);
    expect(settings[0]?.cells.map(({ contestant }) => contestant)).toEqual(["a"]);
    expect(settings[0]?.absent).toEqual([
      { contestant: "c", reason: "it has no notifications", failed: false },
      { contestant: "b", reason: "the ring is stuck", failed: true },
    ]);
  });

  it("never mixes samples of cores that are near with those of cores that are far", async () => {
    let n = 0;
    const sample = (value: number) => (): Outcome => {
      const isFar = Math.floor(n++ / 2) % 2 === 1;
      return outcome(isFar ? value * 10 : value, isFar ? far : near);
    };
    const settings = await contest(
      rules,
      [
        { id: "a", sample: sample(1) },
        { id: "b", sample: sample(3) },
      ],
      { rounds: 6, warm: 0, ms: 60_000 },
      nothing,
    );
    expect(settings.map(({ placement }) => placement)).toEqual(["near", "far"]);
    expect(settings.map(({ cells }) => cells.map(({ value }) => value.median))).toEqual([
      [1, 3],
      [10, 30],
    ]);
    for (const { duels } of settings) expect(duels[0]?.ratio.median).toBe(3);
  });

  it("says so when the cores moved too much for any class", async () => {
    const between = { before: 130, after: 140 };
    const [setting] = await contest(rules, [{ id: "a", sample: () => outcome(1, between) }], effort, nothing);
    expect(setting).toMatchObject({ placement: null, cells: [], dropped: 4 });
    expect(setting?.absent[0]?.reason).toContain("4 dropped");
  });

  it("takes all samples together where that is better than none, and says so", async () => {
    const between = { before: 130, after: 140 };
    const orMixed: ContestRules = { ...rules, placed: "or mixed" };
    const sample = (value: number) => (): Outcome => outcome(value, between);
    const entrants = [
      { id: "a", sample: sample(1) },
      { id: "b", sample: sample(4) },
    ];
    const [setting] = await contest(orMixed, entrants, effort, nothing);
    expect(setting).toMatchObject({ placement: "mixed", dropped: 0, absent: [] });
    expect(setting?.cells.map(({ value }) => value.median)).toEqual([1, 4]);
    const classed = await contest(orMixed, [{ id: "a", sample: () => outcome(1, far) }], effort, nothing);
    expect(classed.map(({ placement }) => placement)).toEqual(["far"]);
  });
});
