import { describe, expect, it } from "vitest";

import { MUTANTS } from "./mutants.js";
import type { Mutant } from "./mutants.js";
import { faults, kinds, run } from "./protocol.js";
import {
  FALSE_FULL,
  LOST_WAKEUP,
  MASKING,
  PUBLISH,
  receiver,
  RELEASE,
  WRONG_DATA,
  WRONG_INDEX,
} from "./rules.js";
import type { ConsumerRules, PublishStep, Scenario } from "./rules.js";

/** `MODEL_TRACE=O2` (or any rule) prints the shortest counterexamples of that rule's mutants. */
const TRACED = process.env["MODEL_TRACE"];

const RECEIVERS = ["trusting", "rechecking"] as const;
const MODELS = ["tso", "relaxed"] as const;

function ours(size: readonly [number, number, number], consumer: ConsumerRules): Scenario {
  const [ring, burst, items] = size;
  return { ring, burst, items, producer: { publish: PUBLISH }, consumer };
}

function mutated(mutant: Mutant, recheck: ConsumerRules["recheck"]): Scenario {
  return {
    ...ours(mutant.size, { ...receiver(recheck, mutant.masking), ...mutant.consumer }),
    model: mutant.model,
    producer: { publish: mutant.publish ?? PUBLISH },
    ...(mutant.indexes === undefined ? {} : { indexes: mutant.indexes }),
  };
}

describe("burst publication with shm-signal, every interleaving", () => {
  /** Ring, burst, items, and a floor under the states that each of the runs must have visited. */
  const SIZES = [
    [2, 2, 5, 2000],
    [3, 2, 5, 10000],
    [4, 3, 6, 8000],
    [4, 2, 6, 8000],
  ] as const;

  for (const model of MODELS) {
    for (const recheck of RECEIVERS) {
      for (const masking of MASKING) {
        it(`loses no wake-up and no data (${model}, ${recheck} receiver, masked ${masking})`, () => {
          for (const [ring, burst, items, floor] of SIZES) {
            const scenario = ours([ring, burst, items], receiver(recheck, masking));
            const outcome = run({ ...scenario, model, indexes: "covering" });
            expect(faults(outcome)).toBe("");
            expect(outcome.goodEnds).toBeGreaterThan(0);
            expect(outcome.states).toBeGreaterThan(floor);
          }
        });
      }

      it(`loses nothing when both sides sleep and signal each other (${model}, ${recheck})`, () => {
        for (const masking of MASKING) {
          for (const [ring, burst, items, floor] of [
            [2, 2, 4, 6000],
            [3, 2, 4, 20000],
          ] as const) {
            const scenario = ours([ring, burst, items], receiver(recheck, masking));
            const outcome = run({ ...scenario, model, duplex: true });
            expect(faults(outcome)).toBe("");
            expect(outcome.goodEnds).toBeGreaterThan(0);
            expect(outcome.states).toBeGreaterThan(floor);
          }
        }
      });
    }
  }
});

describe("a peer that knows nothing of bursts", () => {
  it("that pops one descriptor at a time takes every burst and is woken for each", () => {
    for (const model of MODELS) {
      for (const masking of MASKING) {
        const consumer: ConsumerRules = { ...receiver("trusting", masking), popsOneByOne: true };
        const outcome = run({ ...ours([3, 2, 5], consumer), model, indexes: "covering" });
        expect(faults(outcome)).toBe("");
        expect(outcome.states).toBeGreaterThan(10_000);
      }
    }
  });

  it("that pushes one descriptor at a time, with full stores, wakes both kinds of receiver", () => {
    for (const model of MODELS) {
      for (const recheck of RECEIVERS) {
        for (const masking of MASKING) {
          const outcome = run({ ...ours([2, 1, 4], receiver(recheck, masking)), model, indexes: "covering" });
          expect(faults(outcome)).toBe("");
          expect(outcome.states).toBeGreaterThan(8000);
        }
      }
    }
  });
});

describe("each ordering rule, broken", () => {
  it("is covered: there is a mutant for O1 to O6, R1, R1b and Q1 to Q7", () => {
    const covered = new Set(MUTANTS.map((mutant) => mutant.rule));
    for (const rule of "O1 O2 O3 O4 O5 O6 R1 R1b Q1 Q2 Q3 Q4 Q5 Q6 Q7".split(" ")) {
      expect(covered).toContain(rule);
    }
  });

  for (const mutant of MUTANTS) {
    it(`${mutant.rule} is caught: ${mutant.what}`, () => {
      for (const recheck of RECEIVERS) {
        const outcome = run(mutated(mutant, recheck));
        if (TRACED === mutant.rule) {
          console.log(
            `${mutant.rule}: ${mutant.what} (${recheck}, ${outcome.states} states)\n${faults(outcome)}`,
          );
        }
        expect(kinds(outcome)).toEqual([...mutant[recheck]].sort());
        expect(outcome.states).toBeGreaterThan(100);
      }
    });
  }

  it("is hidden by the ring re-check of our receiver in every way of masking, where that is claimed", () => {
    const hidden = MUTANTS.filter((mutant) => mutant.rechecking.length === 0);
    expect(hidden.map((mutant) => mutant.rule)).toEqual(["O1", "O2", "O4", "O4", "R1b", "Q6", "Q6"]);
    for (const mutant of hidden) {
      for (const masking of MASKING) {
        expect(faults(run(mutated({ ...mutant, masking }, "rechecking")))).toBe("");
      }
    }
  });

  it("gives a counterexample that ends with every thread asleep and a descriptor left behind", () => {
    const lost = MUTANTS.find((mutant) => mutant.rule === "O2");
    if (lost === undefined) throw new Error("no mutant of O2");
    const violation = run(mutated(lost, "trusting")).violations.get(LOST_WAKEUP);
    expect(violation?.message).toMatch(/all asleep after \d of 3 were consumed/);
    const trace = violation?.trace() ?? [];
    const buffered = trace.findIndex((line) => line.endsWith("producer  buffers irq[1].dirty = 1"));
    const flushed = trace.findIndex((line) => line.endsWith("producer  flushes irq[1].dirty = 1"));
    const passed = trace.slice(buffered, flushed).filter((line) => line.includes("producer  loads irq[1]"));
    expect(buffered).toBeGreaterThan(0);
    expect(passed).not.toEqual([]);
  });
});

describe("what the rules do not ask for", () => {
  const SIZE = [3, 2, 5] as const;

  function everyReceiver(publish: readonly PublishStep[]): Scenario[] {
    return RECEIVERS.flatMap((recheck) =>
      MASKING.map((masking) => ({ ...ours(SIZE, receiver(recheck, masking)), producer: { publish } })),
    );
  }

  it("plain stores of full are enough on x86-TSO", () => {
    const publish = PUBLISH.map((step) => (step === "full!" ? "full" : step));
    const release = RELEASE.map((step) => (step === "full!" ? "full" : step));
    for (const scenario of everyReceiver(publish)) {
      const consumer = { ...scenario.consumer, release };
      expect(faults(run({ ...scenario, consumer, indexes: "covering" }))).toBe("");
    }
  });

  it("a plain pending = 1 is enough before a doorbell that drains the store buffer", () => {
    const publish = PUBLISH.map((step) => (step === "pending!" ? "pending" : step));
    for (const model of MODELS) {
      for (const scenario of everyReceiver(publish)) expect(faults(run({ ...scenario, model }))).toBe("");
    }
  });

  it("a full store of dirty where a full fence follows a plain one", () => {
    const publish = PUBLISH.flatMap((step): PublishStep[] =>
      step === "dirty!" ? ["dirty", "full fence"] : [step],
    );
    for (const model of MODELS) {
      for (const scenario of everyReceiver(publish)) expect(faults(run({ ...scenario, model }))).toBe("");
    }
  });

  it("the shared index, once it was negotiated that nobody reads it", () => {
    const publish = PUBLISH.filter((step) => step !== "full!" && step !== "tail");
    const release = RELEASE.filter((step) => step !== "full!" && step !== "head");
    for (const model of MODELS) {
      for (const scenario of everyReceiver(publish)) {
        const consumer = { ...scenario.consumer, release };
        expect(faults(run({ ...scenario, consumer, model }))).toBe("");
      }
    }
  });

  it("on x86-TSO dirty can be the only full store; elsewhere the data then comes out wrong", () => {
    const publish = PUBLISH.map((step) => (step === "sown first!" ? "sown first" : step));
    for (const scenario of everyReceiver(publish)) {
      expect(faults(run(scenario))).toBe("");
      expect(kinds(run({ ...scenario, model: "relaxed" }))).toContain(WRONG_DATA);
    }
  });
});

describe("a receiver", () => {
  const SIZE = [3, 2, 4] as const;

  it("that leaves descriptors behind loses them when it trusts dirty, and not when it re-checks", () => {
    for (const masking of MASKING) {
      const left = { notifierBudget: 1 };
      expect(kinds(run(ours(SIZE, { ...receiver("trusting", masking), ...left })))).toEqual([LOST_WAKEUP]);
      expect(faults(run(ours(SIZE, { ...receiver("rechecking", masking), ...left })))).toBe("");
    }
  });

  it("whose wake-up runs out of budget keeps pending set until it comes back", () => {
    for (const recheck of RECEIVERS) {
      const spent = { ...receiver(recheck), wakeupBudget: 1 };
      expect(faults(run(ours(SIZE, spent)))).toBe("");
      const clears = { ...spent, clearsPendingOnBudget: true };
      expect(kinds(run(ours(SIZE, clears)))).toEqual([LOST_WAKEUP]);
    }
  });

  it("that re-checks the ring must also begin a wake-up for the ring alone, or a faulty peer still stalls it", () => {
    const publish = PUBLISH.map((step) => (step === "dirty!" ? "dirty" : step));
    for (const masking of MASKING) {
      const complete = { ...ours([2, 2, 3], receiver("rechecking", masking)), producer: { publish } };
      expect(faults(run(complete))).toBe("");
      const flagsOnly = { ...complete.consumer, beginSeesRing: false };
      expect(kinds(run({ ...complete, consumer: flagsOnly }))).toEqual([LOST_WAKEUP]);
    }
  });
});

describe("the shared index", () => {
  const ONE_BY_ONE = ours([2, 1, 4], receiver("trusting"));

  it("shows a consumer that reads full before tail an empty ring that is not, and loses no wake-up by it", () => {
    const consumer: ConsumerRules = { ...ONE_BY_ONE.consumer, indexRead: "full first" };
    expect(kinds(run({ ...ONE_BY_ONE, consumer, indexes: "covering" }))).toEqual([WRONG_INDEX]);
    expect(faults(run({ ...ONE_BY_ONE, consumer }))).toBe("");
  });

  it("can say full for a moment to a producer that owns the descriptor at its tail", () => {
    expect(kinds(run({ ...ONE_BY_ONE, indexes: "exact" }))).toEqual([FALSE_FULL]);
  });
});
