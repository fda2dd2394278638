import assert from "node:assert/strict";
import fc from "fast-check";
import { describe, it } from "vitest";
import { bytesOf, item, wake, WRITE_ALL } from "./conformance-case.js";
import { engine, modelOnly } from "./implementations.js";
import type { Cursor, Index, Item, Layout, Options, Pattern, Recheck, Rig, RingSide } from "./ring-side.js";
import { seedOr } from "./seed.js";

const SEED = seedOr(20090401);
const RUNS = 400;

/** The model first: the others are compared with it. */
const LANES = [
  modelOnly(),
  engine(false, "both"),
  engine(true, "both"),
  engine(false, "north"),
  engine(true, "south"),
  engine(false, "both", "singles"),
];

/** Something that a side does; its result is compared between the lanes, and so is every shared byte afterwards. */
type Operation = { text: string; run: (rig: Rig, lane: LaneState) => unknown };

/** Iterators of one lane, by what they are. */
class LaneState {
  readonly #cursors = new Map<string, Cursor>();

  cursor(side: RingSide, index: Index | "both", options: { autoupdate?: boolean; noflip?: boolean }): Cursor {
    const key = `${side.locale} ${index} ${JSON.stringify(options)}`;
    let cursor = this.#cursors.get(key);
    if (cursor === undefined) this.#cursors.set(key, (cursor = side.cursor(index, options)));
    return cursor;
  }
}

function compare(pattern: Pattern, layout: Layout, count: number, operations: readonly Operation[]): void {
  const rigs = LANES.map((lane) => lane.open(pattern, layout, count));
  const states = rigs.map(() => new LaneState());
  for (const [step, { text, run }] of operations.entries()) {
    const results = rigs.map((rig, i) => run(rig, states[i] as LaneState));
    const shared = rigs.map(bytesOf);
    for (let i = 1; i < rigs.length; i++) {
      const where = `${(LANES[i] as { name: string }).name}, step ${step}: ${text}`;
      assert.deepEqual(results[i], results[0], `result of ${where}`);
      const at = (shared[i] as Uint8Array).findIndex((byte, n) => byte !== (shared[0] as Uint8Array)[n]);
      if (at >= 0) {
        assert.fail(`shared byte ${at} is ${shared[i]?.[at]} instead of ${shared[0]?.[at]} after ${where}`);
      }
    }
  }
}

const layouts = fc.constantFrom<Layout>("lp64", "ilp32", "compact");
const counts = fc.constantFrom(1, 2, 3, 5, 8, 17);
const patterns = fc.constantFrom<Pattern>("transmit", "receive", "feed");
const locales = fc.constantFrom<"north" | "south">("north", "south");
const options = fc.record({ autoupdate: fc.boolean(), noflip: fc.boolean() });
const items = fc.array(
  fc.record({
    gpa: fc.maxSafeNat(),
    length: fc.nat({ max: 0xffffffff }),
    cookie: fc.nat({ max: 0xffffffff }),
  }),
  { minLength: 0, maxLength: 18 },
);
const members: fc.Arbitrary<Options> = fc.record(
  {
    pointer: fc.boolean(),
    cookie: fc.boolean(),
    length: fc.boolean(),
    mark: fc.constantFrom<0 | 1>(0, 1),
    signal: fc.boolean(),
  },
  { requiredKeys: [] },
);

const signalling: fc.Arbitrary<Operation> = fc.oneof(
  locales.map((who) => ({ text: `${who} injects`, run: (rig: Rig) => rig[who].inject() })),
  locales.map((who) => ({ text: `${who} disables`, run: (rig: Rig) => rig[who].disable() })),
  fc.tuple(locales, fc.nat(4), fc.boolean()).map(([who, budget, again]) => ({
    text: `${who} wakes up with a budget of ${budget}`,
    run: (rig: Rig) =>
      wake(
        rig[who],
        (run) => {
          if (!again || run > 2) return;
          rig[who].disable();
          rig[who === "north" ? "south" : "north"].inject();
          rig[who].enable("none");
        },
        budget,
      ),
  })),
);

/** Any step of any iterator, sensible or not. */
const anything: fc.Arbitrary<Operation> = fc.oneof(
  signalling,
  fc
    .tuple(
      locales,
      fc.constantFrom<Index | "both">("valid", "inuse", "both"),
      options,
      fc.constantFrom(
        "tail",
        "head",
        "next",
        "set",
        "push",
        "pop",
        "push at tail",
        "pop at head",
        "write",
        "read",
      ),
      fc.nat(20),
      members,
    )
    .map(([who, index, how, what, n, write]) => ({
      text: `${who} iterator over ${index} ${JSON.stringify(how)}: ${what} ${n} ${JSON.stringify(write)}`,
      run(rig: Rig, lane: LaneState): unknown {
        const cursor = lane.cursor(rig[who], index, how);
        switch (what) {
          case "push":
            return cursor.push();
          case "pop":
            return cursor.pop();
          case "push at tail":
            return [cursor.seek("tail"), cursor.push(), cursor.position()];
          case "pop at head":
            return [cursor.seek("head"), cursor.pop(), cursor.position()];
          case "read":
            return cursor.read();
          case "write":
            return cursor.write(item(n), write);
          case "tail":
          case "head":
          case "next":
          case "set":
            return [cursor.seek(what, n), cursor.position()];
          default:
            throw new Error(what);
        }
      },
    })),
  locales.map((who) => ({
    text: `${who} counts inuse`,
    run: (rig: Rig) => [rig[who].countOf("inuse"), rig[who].remain("inuse"), rig[who].broken()],
  })),
);

/** What the sides of a pattern do: who pushes and pops which index, and with what. */
const STEPS: Record<
  Pattern,
  readonly { who: "north" | "south"; index: Index | "both"; push: boolean; noflip?: true }[]
> = {
  transmit: [
    { who: "north", index: "both", push: true },
    { who: "south", index: "inuse", push: false },
    { who: "north", index: "valid", push: false, noflip: true },
  ],
  receive: [
    { who: "north", index: "valid", push: true },
    { who: "south", index: "inuse", push: true },
    { who: "north", index: "inuse", push: false },
  ],
  feed: [
    { who: "north", index: "inuse", push: true },
    { who: "south", index: "inuse", push: false },
  ],
};

/** What a side can wait for: something at an index end that it moves itself. */
const WAITS: Record<Pattern, Record<"north" | "south", readonly Recheck[]>> = {
  transmit: { north: ["none", "valid.head", "inuse.tail"], south: ["none", "inuse.head"] },
  receive: { north: ["none", "valid.head", "inuse.head"], south: ["none", "inuse.tail"] },
  feed: { north: ["none", "inuse.tail"], south: ["none", "inuse.head"] },
};

function orderly(pattern: Pattern): fc.Arbitrary<Operation> {
  const steps = fc.constantFrom(...STEPS[pattern]);
  const bursts = fc.tuple(steps, fc.nat(18), items, members).map(([step, max, contents, write]) => ({
    text: `${step.who} burst: ${step.push ? "push" : "pop"} ${step.index}, up to ${max}, ${JSON.stringify(write)}`,
    run(rig: Rig): unknown {
      const side = rig[step.who];
      const how: Options = step.noflip === true ? { ...write, noflip: true } : write;
      if (step.push) {
        const granted = side.reserve(step.index, max);
        return [granted, side.commit(step.index, contents.slice(0, granted), how)];
      }
      const index = step.index as Index;
      const found = side.peek(index, max) as Item[];
      const fresh = found.map((each, i) => contents[i] ?? each);
      const n = Math.min(found.length, contents.length);
      return [found, side.release(index, n, how, fresh.slice(0, n))];
    },
  }));
  const single = fc.tuple(steps, fc.boolean(), members).map(([step, autoupdate, write]) => ({
    text: `${step.who} iterator: ${step.push ? "push" : "pop"} ${step.index} ${JSON.stringify(write)}`,
    run(rig: Rig, lane: LaneState): unknown {
      const cursor = lane.cursor(rig[step.who], step.index, { autoupdate, noflip: step.noflip ?? false });
      // reclaiming takes what came back, and posting stops where a buffer is posted already
      if (step.noflip === true && rig[step.who].countOf("valid") === 0) return "nothing in service";
      if (step.push && step.index !== "inuse" && rig[step.who].remain("valid") === 0) return "full";
      cursor.seek(step.push ? "tail" : "head");
      return [cursor.read(), cursor.write(item(7), write), step.push ? cursor.push() : cursor.pop()];
    },
  }));
  const waits = locales.chain((who) => fc.tuple(fc.constant(who), fc.constantFrom(...WAITS[pattern][who])));
  const looking = waits.map(([who, recheck]) => ({
    text: `${who} enables and looks at ${recheck}`,
    run: (rig: Rig) => [
      rig[who].enable(recheck),
      (["valid", "inuse"] as const).map((index) => [rig[who].countOf(index), rig[who].remain(index)]),
    ],
  }));
  const draining = fc.tuple(fc.nat(3), fc.boolean()).map(([budget, drain]) => ({
    text: `south wakes up, ${drain ? "taking" : "leaving"} what is there, budget ${budget}`,
    run: (rig: Rig) =>
      wake(
        rig.south,
        () => {
          if (!drain || pattern === "receive") return;
          const found = rig.south.peek("inuse", 4) as Item[];
          rig.south.release("inuse", found.length, {});
        },
        budget,
        pattern === "receive" ? "none" : "inuse.head",
      ),
  }));
  return fc.oneof(
    { weight: 4, arbitrary: bursts },
    { weight: 3, arbitrary: single },
    { weight: 1, arbitrary: signalling },
    { weight: 1, arbitrary: looking },
    { weight: 1, arbitrary: draining },
  );
}

/**
 * North posts everything first, as drivers do on a receive ring (section 6 (b), step 1): until then descriptors that
 * are north's because nobody used them yet would look harvestable.
 */
function filled(pattern: Pattern, count: number): Operation {
  const index = pattern === "transmit" ? "both" : "valid";
  const all = Array.from({ length: count }, (_, i) => item(i));
  return {
    text: "north fills the ring",
    run: ({ north }) => [north.reserve(index, count), north.commit(index, all, WRITE_ALL)],
  };
}

/** The readable form that fast-check prints when a run fails. */
function printed(operations: fc.Arbitrary<Operation[]>): fc.Arbitrary<Operation[]> {
  return operations.map((list) =>
    Object.assign(list, { [fc.toStringMethod]: () => list.map(({ text }) => `\n  ${text}`).join("") }),
  );
}

describe(`random runs, every lane like the model (seed ${SEED}, VBUS_SEED=n for another)`, () => {
  it("any iterator operation, sensible or not: same results, same shared bytes", () => {
    fc.assert(
      fc.property(patterns, layouts, counts, printed(fc.array(anything, { maxLength: 60 })), compare),
      { seed: SEED, numRuns: RUNS * 2 },
    );
  });

  for (const pattern of ["transmit", "receive", "feed"] as const) {
    it(`${pattern}: iterators and bursts mixed; a burst ends like the same operations one by one`, () => {
      fc.assert(
        fc.property(
          layouts,
          counts,
          printed(fc.array(orderly(pattern), { maxLength: 80, size: "max" })),
          fc.boolean(),
          (layout, count, operations, full) => {
            const first =
              pattern === "receive" || (full && pattern === "transmit") ? [filled(pattern, count)] : [];
            compare(pattern, layout, count, [...first, ...operations]);
          },
        ),
        { seed: SEED, numRuns: RUNS },
      );
    });
  }

  it("wraps and partial bursts on a ring of 256", () => {
    fc.assert(
      fc.property(
        patterns.chain((pattern) =>
          fc.tuple(
            fc.constant(pattern),
            layouts,
            printed(fc.array(orderly(pattern), { maxLength: 120, size: "max" })),
          ),
        ),
        ([pattern, layout, operations]) =>
          compare(
            pattern,
            layout,
            256,
            pattern === "receive" ? [filled(pattern, 256), ...operations] : operations,
          ),
      ),
      { seed: SEED, numRuns: 25 },
    );
  });
});
