/**
 * One broken program, or more, for every ordering rule of `docs/abi/shm-signal.md` section 4 and
 * `docs/abi/ioq.md` section 7, and for the tempting short forms of a burst.
 */

import {
  LOST_WAKEUP,
  PUBLISH,
  PUBLISH_2009,
  RELEASE,
  STUCK_PENDING,
  WRONG_DATA,
  WRONG_INDEX,
} from "./rules.js";
import type { ConsumerRules, Masking, PublishStep, ReleaseStep } from "./rules.js";
import type { MemoryModel } from "./tso.js";

/** A rule broken in one way, and who notices. */
export interface Mutant {
  readonly rule: string;
  /** Completes the sentence "is caught: …". */
  readonly what: string;
  readonly model: MemoryModel;
  readonly publish?: readonly PublishStep[];
  readonly consumer?: Partial<ConsumerRules>;
  readonly masking: Masking;
  readonly indexes?: "covering";
  /** Ring, burst, items. */
  readonly size: readonly [number, number, number];
  /** Kinds of violation that must be found with the receiver that trusts `dirty`. */
  readonly trusting: readonly string[];
  /** The same with our receiver; empty: the ring re-check hides the mutant, which is asserted. */
  readonly rechecking: readonly string[];
}

/** Moves one step of a sequence to another place. */
export function moved<Step>(steps: readonly Step[], step: Step, after: Step): Step[] {
  const rest = steps.filter((each) => each !== step);
  const at = rest.indexOf(after);
  if (rest.length !== steps.length - 1 || at < 0) throw new Error("no such step to move");
  return [...rest.slice(0, at + 1), step, ...rest.slice(at + 1)];
}

/** Replaces one step of a sequence by others. */
export function replaced<Step>(steps: readonly Step[], step: Step, by: readonly Step[]): Step[] {
  const at = steps.indexOf(step);
  if (at < 0) throw new Error("no such step to replace");
  return [...steps.slice(0, at), ...by, ...steps.slice(at + 1)];
}

/** The signal alone and the publication alone. */
const SIGNAL_STEPS: readonly PublishStep[] = ["load flags", "pending!", "ring"];
const DATA: readonly PublishStep[] = ["bodies", "full!", "tail", "sown rest"];
/** A receiver with the fences of 2009: stores are ordered among themselves and nothing else. */
export const RECEIVER_2009: Partial<ConsumerRules> = {
  dirtyClear: "plain",
  pendingClear: "plain",
  enable: "plain",
  popsOneByOne: true,
  release: [
    "read bodies",
    "head",
    "write fence",
    "full",
    "write fence",
    "sown rest",
    "sown first",
    "write fence",
  ],
};

/** All mutants; the test runs each with both receivers. */
export const MUTANTS: readonly Mutant[] = [
  {
    rule: "O1",
    what: "dirty = 1 before the data it announces",
    model: "tso",
    publish: ["dirty!", ...DATA, "sown first!", ...SIGNAL_STEPS],
    masking: "never",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [],
  },
  {
    rule: "O2",
    what: "dirty = 1 still in the store buffer when enabled and pending are loaded",
    model: "tso",
    publish: replaced(PUBLISH, "dirty!", ["dirty"]),
    masking: "never",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [],
  },
  {
    rule: "O3",
    what: "the doorbell before pending = 1",
    model: "tso",
    publish: moved(PUBLISH, "pending!", "ring"),
    masking: "never",
    size: [2, 1, 3],
    trusting: [LOST_WAKEUP, STUCK_PENDING],
    rechecking: [LOST_WAKEUP, STUCK_PENDING],
  },
  {
    rule: "O3",
    what: "pending = 1 stored plainly and a doorbell that overtakes the store buffer",
    model: "tso",
    publish: replaced(replaced(PUBLISH, "pending!", ["pending"]), "ring", ["ring without draining"]),
    masking: "never",
    size: [2, 1, 3],
    trusting: [LOST_WAKEUP, STUCK_PENDING],
    rechecking: [LOST_WAKEUP, STUCK_PENDING],
  },
  {
    rule: "O4",
    what: "the notifier looks at the data first, dirty = 0 comes after it",
    model: "tso",
    consumer: { dirtyClearedLate: true },
    masking: "never",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [],
  },
  {
    rule: "O4",
    what: "sown loaded plainly, so that the load may pass dirty = 0 (WebAssembly, not x86)",
    model: "relaxed",
    consumer: { sownLoad: "fenced" },
    masking: "never",
    size: [2, 1, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [],
  },
  {
    rule: "R1b",
    what: "dirty = 0 stored plainly wipes out a fresh dirty = 1",
    model: "tso",
    consumer: { dirtyClear: "plain" },
    masking: "never",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [],
  },
  {
    rule: "O5",
    what: "enabled = 1 still in the store buffer when dirty and pending are loaded",
    model: "tso",
    consumer: { enable: "plain" },
    masking: "until polled",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [LOST_WAKEUP],
  },
  {
    rule: "O6",
    what: "pending = 0 still in the store buffer when dirty is loaded",
    model: "tso",
    consumer: { pendingClear: "plain" },
    masking: "never",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [LOST_WAKEUP],
  },
  {
    rule: "R1",
    what: "both sides with the write and read fences of 2009",
    model: "tso",
    publish: PUBLISH_2009,
    consumer: RECEIVER_2009,
    masking: "until polled",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [LOST_WAKEUP],
  },
  {
    rule: "R1",
    what: "a producer of 2009 in front of a receiver with full fences",
    model: "tso",
    publish: PUBLISH_2009,
    masking: "never",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [LOST_WAKEUP],
  },
  {
    rule: "R1",
    what: "our producer in front of a receiver of 2009",
    model: "tso",
    consumer: RECEIVER_2009,
    masking: "never",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [LOST_WAKEUP],
  },
  {
    rule: "Q1",
    what: "sown given away before the bodies are written",
    model: "tso",
    publish: ["full!", "tail", "sown rest", "sown first!", "bodies", "dirty!", ...SIGNAL_STEPS],
    masking: "never",
    size: [2, 2, 3],
    trusting: [WRONG_DATA],
    rechecking: [WRONG_DATA],
  },
  {
    rule: "Q1",
    what: "every sown stored plainly and only dirty a full store (x86 keeps the order, others do not)",
    model: "relaxed",
    publish: replaced(PUBLISH, "sown first!", ["sown first"]),
    masking: "never",
    size: [2, 2, 3],
    trusting: [WRONG_DATA],
    rechecking: [WRONG_DATA],
  },
  {
    rule: "Q2",
    what: "the tail after the sown that it covers",
    model: "tso",
    publish: moved(PUBLISH, "tail", "sown first!"),
    masking: "never",
    indexes: "covering",
    size: [2, 2, 3],
    trusting: [WRONG_INDEX],
    rechecking: [WRONG_INDEX],
  },
  {
    rule: "Q2",
    what: "full = 1 after the tail that makes the ring full",
    model: "tso",
    publish: moved(PUBLISH, "full!", "tail"),
    masking: "never",
    indexes: "covering",
    size: [2, 1, 3],
    trusting: [WRONG_INDEX],
    rechecking: [WRONG_INDEX],
  },
  {
    rule: "Q2",
    what: "full = 1 and the tail both stored plainly (x86 keeps the order, others do not)",
    model: "relaxed",
    publish: replaced(PUBLISH, "full!", ["full"]),
    masking: "never",
    indexes: "covering",
    size: [2, 1, 3],
    trusting: [WRONG_INDEX],
    rechecking: [WRONG_INDEX],
  },
  {
    rule: "Q3",
    what: "the body read after its descriptor was given back",
    model: "tso",
    consumer: { release: moved<ReleaseStep>(RELEASE, "read bodies", "sown first!") },
    masking: "never",
    size: [2, 2, 4],
    trusting: [WRONG_DATA],
    rechecking: [WRONG_DATA],
  },
  {
    rule: "Q4",
    what: "full = 0 before the head that makes room",
    model: "tso",
    consumer: { release: moved<ReleaseStep>(RELEASE, "full!", "read bodies") },
    masking: "never",
    indexes: "covering",
    size: [3, 2, 5],
    trusting: [WRONG_INDEX],
    rechecking: [WRONG_INDEX],
  },
  {
    rule: "Q4",
    what: "full = 0 after the sown that gives the descriptor back",
    model: "tso",
    consumer: { release: moved<ReleaseStep>(RELEASE, "full!", "sown first!") },
    masking: "never",
    indexes: "covering",
    size: [2, 2, 5],
    trusting: [WRONG_INDEX],
    rechecking: [WRONG_INDEX],
  },
  {
    rule: "Q4",
    what: "the head after the sown that gives the descriptor back",
    model: "tso",
    consumer: {
      release: ["read bodies", "sown rest", "sown first!", "head", "full!"],
    },
    masking: "never",
    indexes: "covering",
    size: [2, 2, 5],
    trusting: [WRONG_INDEX],
    rechecking: [WRONG_INDEX],
  },
  {
    rule: "Q4",
    what: "head and full = 0 both stored plainly (x86 keeps the order, others do not)",
    model: "relaxed",
    consumer: { release: replaced<ReleaseStep>(RELEASE, "full!", ["full"]) },
    masking: "never",
    indexes: "covering",
    size: [3, 2, 5],
    trusting: [WRONG_INDEX],
    rechecking: [WRONG_INDEX],
  },
  {
    rule: "Q5",
    what: "the body read before sown says whose it is",
    model: "tso",
    consumer: { bodyBeforeSown: true },
    masking: "never",
    size: [2, 2, 3],
    trusting: [WRONG_DATA],
    rechecking: [WRONG_DATA],
  },
  {
    rule: "Q5",
    what: "sown loaded plainly, so that the body may be read first (WebAssembly, not x86)",
    model: "relaxed",
    consumer: { sownLoad: "plain" },
    masking: "never",
    size: [2, 1, 3],
    trusting: [LOST_WAKEUP, WRONG_DATA],
    rechecking: [WRONG_DATA],
  },
  {
    rule: "Q6",
    what: "dirty = 1 before sown, both full stores",
    model: "tso",
    publish: moved(PUBLISH, "dirty!", "sown rest"),
    masking: "never",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [],
  },
  {
    rule: "Q6",
    what: "dirty = 1 as the one full store, then sown plainly",
    model: "tso",
    publish: [...DATA, "dirty!", "sown first", ...SIGNAL_STEPS],
    masking: "never",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [LOST_WAKEUP],
  },
  {
    rule: "Q6",
    what: "one full store alone: sown, without dirty = 1",
    model: "tso",
    publish: [...DATA, "sown first!", ...SIGNAL_STEPS],
    masking: "never",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [],
  },
  {
    rule: "Q7",
    what: "enable that looks at nothing afterwards",
    model: "tso",
    consumer: { afterEnable: "nothing" },
    masking: "until polled",
    size: [2, 2, 3],
    trusting: [LOST_WAKEUP],
    rechecking: [LOST_WAKEUP],
  },
  {
    rule: "Q7",
    what: "enable that looks at the ring and not at pending",
    model: "tso",
    consumer: { afterEnable: "ring" },
    masking: "until polled",
    size: [2, 1, 4],
    trusting: [LOST_WAKEUP, STUCK_PENDING],
    rechecking: [LOST_WAKEUP, STUCK_PENDING],
  },
];
