/**
 * Publication between peers that negotiated LAZY_INDEXES (`docs/abi/extensions.md` section 2): no shared index is
 * written, and `dirty` is left alone while it is still set. The same programs and machines as in `protocol.test.ts`.
 */

import { describe, expect, it } from "vitest";

import { moved, MUTANTS, RECEIVER_2009, replaced } from "./mutants.js";
import { faults, kinds, run } from "./protocol.js";
import {
  ANNOUNCE,
  LOST_WAKEUP,
  MASKING,
  NEEDLESS_DOORBELL,
  PUBLISH,
  PUBLISH_NEGOTIATED,
  receiver,
  RELEASE_NEGOTIATED,
  STUCK_DIRTY,
  STUCK_PENDING,
  WRONG_DATA,
} from "./rules.js";
import type { ConsumerRules, Masking, PublishStep, ReleaseStep, Scenario } from "./rules.js";
import type { MemoryModel, Outcome } from "./tso.js";

const RECEIVERS = ["trusting", "rechecking"] as const;
const MODELS = ["tso", "relaxed"] as const;
type Size = readonly [ring: number, burst: number, items: number];

/** The rule alone, without the second inject that the engine makes when `dirty` was set and a doorbell is due. */
const SHORT = PUBLISH_NEGOTIATED.filter((step) => step !== "inject anew");
/** Shorter still: a set `dirty` ends the publication. */
const SKIPPING = replaced<PublishStep>(SHORT, "load flags", ["load flags unless set"]);
/** What a peer that negotiated nothing is sent, less the index, which nobody reads here. */
const STRICT = PUBLISH.filter((step) => step !== "full!" && step !== "tail");
/** Receiver of 2009, less the index. */
const FENCES_OF_2009: Partial<ConsumerRules> = {
  ...RECEIVER_2009,
  release: (RECEIVER_2009.release ?? []).filter((step) => step !== "head" && step !== "full"),
};

interface Setting {
  readonly model: MemoryModel;
  readonly recheck: ConsumerRules["recheck"];
  readonly masking: Masking;
}

/** Both machines, both receivers, all ways of masking. */
const SETTINGS: readonly Setting[] = MODELS.flatMap((model) =>
  RECEIVERS.flatMap((recheck) => MASKING.map((masking) => ({ model, recheck, masking }))),
);

/** The signal's part of a publication, for answers. */
function signalOf(publish: readonly PublishStep[]): readonly PublishStep[] {
  return publish.slice(publish.indexOf("sown first!") + 1);
}

function scenario(
  [ring, burst, items]: Size,
  publish: readonly PublishStep[],
  { model, recheck, masking }: Setting,
  rules: Partial<ConsumerRules> = {},
): Scenario {
  const consumer = { ...receiver(recheck, masking), release: RELEASE_NEGOTIATED, ...rules };
  return { model, ring, burst, items, producer: { publish }, consumer };
}

/** The same with answers; they are announced as `rules.answer` says, or else by the engine's steps. */
function duplex(
  size: Size,
  publish: readonly PublishStep[],
  setting: Setting,
  rules: Partial<ConsumerRules> = {},
): Scenario {
  return { ...scenario(size, publish, setting, { answer: ANNOUNCE, ...rules }), duplex: true };
}

function expectCorrect(outcome: Outcome, floor: number): void {
  expect(faults(outcome)).toBe("");
  expect(outcome.goodEnds).toBeGreaterThan(0);
  expect(outcome.states).toBeGreaterThan(floor);
}

describe("publication that leaves a set dirty alone, every interleaving", () => {
  for (const setting of SETTINGS) {
    const { model, recheck, masking } = setting;
    it(`loses nothing and rests with dirty clear (${model}, ${recheck} receiver, masked ${masking})`, () => {
      for (const [size, floor] of [
        [[2, 2, 5], 1500],
        [[3, 2, 5], 5000],
        [[4, 3, 6], 3000],
        [[4, 2, 6], 4000],
      ] as const) {
        expectCorrect(run(scenario(size, PUBLISH_NEGOTIATED, setting)), floor);
      }
    });

    it(`loses nothing when answers are announced the same way (${model}, ${recheck}, masked ${masking})`, () => {
      for (const [size, floor] of [
        [[2, 2, 4], 5000],
        [[3, 2, 4], 15_000],
      ] as const) {
        expectCorrect(run(duplex(size, PUBLISH_NEGOTIATED, setting)), floor);
      }
    });
  }

  it("serves a receiver that takes one descriptor at a time, and one whose wake-up runs out of budget", () => {
    for (const setting of SETTINGS) {
      for (const rules of [{ popsOneByOne: true }, { wakeupBudget: 1 }]) {
        expectCorrect(run(scenario([3, 2, 5], PUBLISH_NEGOTIATED, setting, rules)), 6000);
      }
    }
  });
});

describe("the rule of a set dirty, broken", () => {
  interface Broken {
    readonly what: string;
    readonly publish?: readonly PublishStep[];
    readonly rules?: Partial<ConsumerRules>;
    readonly model?: MemoryModel;
    readonly masking?: Masking;
    readonly answers?: true;
    readonly trusting: readonly string[];
    readonly rechecking: readonly string[];
  }
  const BOTH = { trusting: [LOST_WAKEUP], rechecking: [LOST_WAKEUP] };
  const TRUSTING = { trusting: [LOST_WAKEUP], rechecking: [] };
  const plainOwner = (steps: readonly PublishStep[]): PublishStep[] =>
    replaced<PublishStep>(steps, "sown first!", ["sown first"]);

  const BROKEN: readonly Broken[] = [
    {
      what: "dirty loaded before the owner is stored",
      publish: moved<PublishStep>(PUBLISH_NEGOTIATED, "load dirty", "sown rest"),
      ...TRUSTING,
    },
    {
      what: "dirty loaded before the owner is stored, and nothing else looked at when it was set",
      publish: moved<PublishStep>(SKIPPING, "load dirty", "sown rest"),
      ...BOTH,
    },
    {
      what: "the owner stored plainly, so that the load of dirty passes it",
      publish: plainOwner(PUBLISH_NEGOTIATED),
      ...BOTH,
    },
    {
      what: "the owner stored plainly, and nothing else looked at when dirty was set",
      publish: plainOwner(SKIPPING),
      ...BOTH,
    },
    {
      what: "the owner stored plainly, on a machine that does not even keep stores in order",
      publish: plainOwner(PUBLISH_NEGOTIATED),
      model: "relaxed",
      trusting: [LOST_WAKEUP, WRONG_DATA],
      rechecking: [LOST_WAKEUP, WRONG_DATA],
    },
    {
      what: "the owner stored plainly when answers are given back",
      rules: { release: replaced<ReleaseStep>(RELEASE_NEGOTIATED, "sown first!", ["sown first"]) },
      answers: true,
      ...BOTH,
    },
    {
      what: "O4: the peer's dirty = 0 after its look at the ring",
      rules: { dirtyClearedLate: true },
      ...TRUSTING,
    },
    { what: "R1b: the peer's dirty = 0 stored plainly", rules: { dirtyClear: "plain" }, ...TRUSTING },
    {
      what: "O4: the peer's look at the ring is a plain load (WebAssembly, not x86)",
      rules: { sownLoad: "fenced" },
      model: "relaxed",
      ...TRUSTING,
    },
    {
      what: "O5: the peer's enabled = 1 stored plainly",
      rules: { enable: "plain" },
      masking: "until polled",
      trusting: [LOST_WAKEUP, STUCK_DIRTY],
      rechecking: [LOST_WAKEUP, STUCK_DIRTY],
    },
    {
      what: "O6: the peer's pending = 0 stored plainly",
      rules: { pendingClear: "plain" },
      trusting: [LOST_WAKEUP, STUCK_DIRTY],
      rechecking: [LOST_WAKEUP, STUCK_DIRTY],
    },
    {
      what: "Q7: the peer looks at nothing after enabled = 1",
      rules: { afterEnable: "nothing" },
      masking: "until polled",
      trusting: [LOST_WAKEUP, STUCK_DIRTY, STUCK_PENDING],
      rechecking: [LOST_WAKEUP, STUCK_DIRTY, STUCK_PENDING],
    },
  ];

  for (const broken of BROKEN) {
    it(`is caught: ${broken.what}`, () => {
      for (const recheck of RECEIVERS) {
        const setting = { model: broken.model ?? "tso", recheck, masking: broken.masking ?? "never" };
        const build = broken.answers === true ? duplex : scenario;
        const publish = broken.publish ?? PUBLISH_NEGOTIATED;
        const outcome = run(build([3, 2, 5], publish, setting, broken.rules));
        expect(kinds(outcome)).toEqual([...broken[recheck]].sort());
      }
    });
  }

  it("is hidden by the ring re-check of our receiver in every way of masking, where that is claimed", () => {
    for (const broken of BROKEN.filter((each) => each.rechecking.length === 0)) {
      for (const masking of MASKING) {
        const setting: Setting = { model: broken.model ?? "tso", recheck: "rechecking", masking };
        const publish = broken.publish ?? PUBLISH_NEGOTIATED;
        expect(faults(run(scenario([3, 2, 5], publish, setting, broken.rules)))).toBe("");
      }
    }
  });

  it("gives a counterexample in which the load of dirty passes the owner", () => {
    const setting: Setting = { model: "tso", recheck: "trusting", masking: "never" };
    const outcome = run(scenario([3, 2, 5], plainOwner(PUBLISH_NEGOTIATED), setting));
    const trace = outcome.violations.get(LOST_WAKEUP)?.trace() ?? [];
    const found = trace.findLastIndex((line) => line.endsWith("producer  loads irq[1].dirty -> 1"));
    const cleared = trace.findIndex(
      (line, at) => at > found && line.endsWith("consumer  stores irq[1].dirty = 0"),
    );
    const flushed = trace.findIndex(
      (line, at) => at > found && /producer {2}flushes sown\[\d\] = 1$/.test(line),
    );
    expect(found).toBeGreaterThan(0);
    expect(cleared).toBeGreaterThan(found);
    expect(flushed).toBeGreaterThan(cleared);
  });
});

describe("what the rule of a set dirty does not ask for", () => {
  /** One way and with answers, everywhere. */
  function expectCorrectEverywhere(publish: readonly PublishStep[]): void {
    for (const setting of SETTINGS) {
      expectCorrect(run(scenario([3, 2, 5], publish, setting)), 4000);
      expectCorrect(run(duplex([3, 2, 4], publish, setting, { answer: signalOf(publish) })), 10_000);
    }
  }

  it("a second store of dirty when it was set and a doorbell is due", () => {
    expectCorrectEverywhere(SHORT);
  });

  it("a look at enabled and pending when dirty was set: whoever set it has seen to it that the peer looks", () => {
    expectCorrectEverywhere(SKIPPING);
    for (const setting of SETTINGS) {
      expectCorrect(run(scenario([3, 2, 5], SKIPPING, setting, { wakeupBudget: 1 })), 4000);
    }
  });

  it("a doorbell when dirty was set: the one that the look leads to is needless, and it happens", () => {
    const publish = replaced<PublishStep>(PUBLISH_NEGOTIATED, "inject anew", ["expect no doorbell if set"]);
    for (const setting of SETTINGS) {
      expect(kinds(run(scenario([3, 2, 5], publish, setting)))).toEqual([NEEDLESS_DOORBELL]);
    }
  });

  it("one full store of the owner where a full fence follows a plain one on x86-TSO", () => {
    const publish = replaced<PublishStep>(PUBLISH_NEGOTIATED, "sown first!", ["sown first", "full fence"]);
    for (const setting of SETTINGS.filter((each) => each.model === "tso")) {
      expectCorrect(run(scenario([3, 2, 5], publish, setting)), 6000);
    }
  });
});

describe("the same step towards a receiver that does not keep the full orderings", () => {
  /** What is at stake for the peer: a stuck `dirty` is a fault only where somebody leaves it alone. */
  function losses(
    size: Size,
    publish: readonly PublishStep[],
    setting: Setting,
    rules: Partial<ConsumerRules>,
  ): string[] {
    return kinds(run(scenario(size, publish, setting, rules))).filter((kind) => kind !== STUCK_DIRTY);
  }

  it("loses wake-ups with the write and read fences of 2009, as any publication does there", () => {
    for (const recheck of RECEIVERS) {
      for (const masking of MASKING) {
        const setting: Setting = { model: "tso", recheck, masking };
        for (const publish of [STRICT, PUBLISH_NEGOTIATED, SKIPPING]) {
          expect(losses([2, 2, 3], publish, setting, FENCES_OF_2009)).toEqual([LOST_WAKEUP]);
        }
      }
    }
  });

  it("leaves dirty set at rest there, which ends all signals if nothing else is looked at", () => {
    for (const recheck of RECEIVERS) {
      const setting: Setting = { model: "tso", recheck, masking: "never" };
      for (const publish of [PUBLISH_NEGOTIATED, SKIPPING]) {
        expect(kinds(run(scenario([2, 2, 3], publish, setting, FENCES_OF_2009)))).toContain(STUCK_DIRTY);
      }
    }
  });

  it("loses exactly where the unconditional store would, for each fault of a receiver", () => {
    const faulty = MUTANTS.filter(({ publish, consumer }) => {
      if (publish !== undefined || consumer === undefined) return false;
      return consumer.release === undefined; // faults of the give-back concern the other direction
    });
    expect(faulty.length).toBeGreaterThan(8);
    let lossy = 0;
    for (const { model, consumer } of faulty) {
      for (const setting of SETTINGS.filter((each) => each.model === model)) {
        const strict = losses([3, 2, 5], STRICT, setting, consumer ?? {});
        expect(losses([3, 2, 5], PUBLISH_NEGOTIATED, setting, consumer ?? {})).toEqual(strict);
        if (strict.length > 0) lossy++;
      }
    }
    expect(lossy).toBeGreaterThan(20);
  });
});
