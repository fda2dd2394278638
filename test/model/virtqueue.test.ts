import { describe, expect, it } from "vitest";

import { faults, kinds } from "./protocol.js";
import { LOST_WAKEUP, WRONG_DATA } from "./rules.js";
import type { MemoryModel } from "./tso.js";
import { engineRules, FORMATS, publication, runVirtq } from "./virtqueue.js";
import type { Format, PublishStep, VirtqRules, VirtqScenario } from "./virtqueue.js";

const MODELS = ["tso", "relaxed"] as const;
/** Ring, burst, items. */
type Size = readonly [number, number, number];

function scenario(
  format: Format,
  model: MemoryModel,
  [ring, burst, items]: Size,
  rules: Partial<VirtqRules> = {},
): VirtqScenario {
  return { format, model, ring, burst, items, rules: { ...engineRules(format), ...rules } };
}

/** Replaces a step by others. */
function replaced(
  steps: readonly PublishStep[],
  step: PublishStep,
  by: readonly PublishStep[],
): PublishStep[] {
  if (!steps.includes(step)) throw new Error(`no step ${step}`);
  return steps.flatMap((each) => (each === step ? by : [each]));
}

describe("virtqueues, every interleaving", () => {
  for (const format of FORMATS) {
    for (const model of MODELS) {
      it(`lose no wake-up and no data, both sides asleep in turn (${format}, ${model})`, () => {
        for (const size of [
          [1, 1, 3],
          [2, 1, 4],
          [2, 2, 5],
          [3, 2, 5],
        ] as const) {
          const outcome = runVirtq(scenario(format, model, size));
          expect(faults(outcome)).toBe("");
          expect(outcome.goodEnds).toBeGreaterThan(0);
          expect(outcome.states).toBeGreaterThan(size[0] === 1 ? 100 : 1000);
        }
      });
    }
  }

  for (const format of FORMATS) {
    it(`lose none either when the driver wants to be told late (${format})`, () => {
      for (const model of MODELS) {
        for (const size of [
          [2, 2, 5],
          [4, 2, 6],
        ] as const) {
          const outcome = runVirtq(scenario(format, model, size, { delayed: true }));
          expect(faults(outcome)).toBe("");
          expect(outcome.goodEnds).toBeGreaterThan(0);
        }
      }
    });
  }

  it("take many laps of a queue and of its indexes", () => {
    for (const format of FORMATS) {
      const outcome = runVirtq(scenario(format, "tso", [2, 2, 18]));
      expect(faults(outcome)).toBe("");
    }
  });
});

/** A rule broken in one way, and what comes of it. */
interface Mutant {
  rule: string;
  what: string;
  formats: readonly Format[];
  model: MemoryModel;
  size?: Size;
  rules: (format: Format) => Partial<VirtqRules>;
  found: readonly string[];
}

const EVENTS = FORMATS.filter((format) => format.endsWith("event index"));
const PACKED = FORMATS.filter((format) => format.startsWith("packed"));
const first = (format: Format): "index!" | "flags first!" =>
  format.startsWith("split") ? "index!" : "flags first!";
const plain = (format: Format): PublishStep => (format.startsWith("split") ? "index" : "flags first");

const MUTANTS: readonly Mutant[] = [
  {
    rule: "A1, U1",
    what: "the store that publishes is not fully ordered before the load of what the peer wants",
    formats: FORMATS,
    model: "tso",
    rules: (format) => ({ publish: replaced(publication(format), first(format), [plain(format)]) }),
    found: [LOST_WAKEUP],
  },
  {
    rule: "A1, U1",
    what: "the store that publishes does not order what it publishes",
    formats: FORMATS,
    model: "relaxed",
    rules: (format) => ({ publish: replaced(publication(format), first(format), [plain(format)]) }),
    found: [LOST_WAKEUP, WRONG_DATA],
  },
  {
    rule: "A1, U1",
    what: "bodies behind the store that publishes them",
    formats: FORMATS,
    model: "tso",
    rules: (format) => ({
      publish: replaced(
        publication(format).filter((step) => step !== "bodies"),
        first(format),
        [first(format), "bodies"],
      ),
    }),
    found: [WRONG_DATA],
  },
  {
    rule: "A2, U2",
    what: "what the peer wants is looked at before the publication",
    formats: FORMATS,
    model: "tso",
    rules: (format) => ({
      publish: ["load wish", ...publication(format).filter((step) => step !== "load wish")],
    }),
    found: [LOST_WAKEUP],
  },
  {
    rule: "A2, U2",
    what: "only the last entry of a burst is compared with the event index",
    formats: EVENTS,
    model: "tso",
    size: [3, 2, 4],
    rules: () => ({ compares: "last" }),
    found: [LOST_WAKEUP],
  },
  {
    rule: "A1, U1",
    what: "the first descriptor of a burst is published before the others",
    formats: PACKED,
    model: "tso",
    size: [3, 2, 4],
    rules: (format) => ({
      publish: replaced(replaced(publication(format), "flags rest", []), "flags first!", [
        "flags first!",
        "flags rest",
      ]),
    }),
    found: [LOST_WAKEUP],
  },
  {
    rule: "N1",
    what: "arming is not fully ordered before the second look",
    formats: FORMATS,
    model: "tso",
    rules: () => ({ arm: "plain" }),
    found: [LOST_WAKEUP],
  },
  {
    rule: "N1",
    what: "the event index is one entry too far ahead",
    formats: EVENTS,
    model: "tso",
    rules: () => ({ eventAhead: 1 }),
    found: [LOST_WAKEUP],
  },
  {
    rule: "N2",
    what: "there is no second look",
    formats: FORMATS,
    model: "tso",
    rules: () => ({ looksAgain: false }),
    found: [LOST_WAKEUP],
  },
  {
    rule: "look",
    what: "the peer's index or flags are loaded plainly",
    formats: FORMATS,
    model: "relaxed",
    rules: () => ({ look: "plain" }),
    found: [LOST_WAKEUP, WRONG_DATA],
  },
  {
    rule: "use",
    what: "a body is read when its descriptor was given back",
    formats: FORMATS,
    model: "tso",
    size: [2, 2, 5],
    rules: () => ({ readsFirst: false }),
    found: [WRONG_DATA],
  },
];

describe("each rule of a virtqueue, broken", () => {
  for (const mutant of MUTANTS) {
    for (const format of mutant.formats) {
      it(`${mutant.rule} is caught: ${mutant.what} (${format}, ${mutant.model})`, () => {
        const outcome = runVirtq(
          scenario(format, mutant.model, mutant.size ?? [2, 2, 3], mutant.rules(format)),
        );
        expect(kinds(outcome), faults(outcome)).toEqual([...mutant.found].sort());
      });
    }
  }
});

describe("what the rules of a virtqueue do not ask for", () => {
  it("an event area in one piece, when the piece that is stored last is fully ordered", () => {
    for (const model of MODELS) {
      const outcome = runVirtq(scenario("packed, event index", model, [2, 2, 5], { torn: true }));
      expect(faults(outcome)).toBe("");
    }
    const plainly = runVirtq(scenario("packed, event index", "tso", [2, 2, 3], { torn: true, arm: "plain" }));
    expect(kinds(plainly)).toEqual([LOST_WAKEUP]);
  });
});
