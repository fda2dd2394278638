/**
 * The rules of publishing, giving back, masking and sleeping as data, so that a mutant is a changed list or word.
 * What each stands for is told at the top of `protocol.ts`.
 */

import type { Order } from "./program.js";
import type { MemoryModel } from "./tso.js";

/**
 * One step of a publication; `!` marks a sequentially consistent store. `… unless set` and `… if set` speak of what
 * `load dirty` found; `inject anew` is a whole second inject, when `dirty` was found set and a doorbell is due.
 */
export type PublishStep =
  | "bodies"
  | "full"
  | "full!"
  | "tail"
  | "sown rest"
  | "sown first"
  | "sown first!"
  | "dirty"
  | "dirty!"
  | "write fence"
  | "full fence"
  | "load dirty"
  | "dirty! unless set"
  | "load flags"
  | "load flags unless set"
  | "inject anew"
  | "expect no doorbell if set"
  | "pending"
  | "pending!"
  | "ring"
  | "ring without draining";

/** One step of a give-back; `!` marks a sequentially consistent store. */
export type ReleaseStep =
  "read bodies" | "head" | "full" | "full!" | "write fence" | "sown rest" | "sown first" | "sown first!";

/** How the producer publishes and signals. */
export interface ProducerRules {
  readonly publish: readonly PublishStep[];
}

/** How the consumer drains, gives back, masks and sleeps. */
export interface ConsumerRules {
  /** Looks at `sown` once more before it sleeps. */
  readonly recheck: "trusting" | "rechecking";
  /** Where the drain happens: see {@link MASKING}. */
  readonly masking: Masking;
  readonly release: readonly ReleaseStep[];
  /** How an answer is signalled after the give-back, in the duplex form (default: inject, with full stores). */
  readonly answer?: readonly PublishStep[];
  /** Reads the body before it looks at `sown`. */
  readonly bodyBeforeSown?: boolean;
  /** How `sown` is loaded; `fenced` is a plain load with a fence after it. */
  readonly sownLoad?: Order | "fenced";
  /** Order of the store `dirty = 0`. */
  readonly dirtyClear?: Order;
  /** Calls the notifier first and clears `dirty` after it. */
  readonly dirtyClearedLate?: boolean;
  /** Order of the store `pending = 0`. */
  readonly pendingClear?: Order;
  /** Order of the store `enabled = 1`. */
  readonly enable?: Order;
  /** What enable looks at after `enabled = 1`. */
  readonly afterEnable?: "flags and ring" | "flags" | "ring" | "nothing";
  /** Whether a wakeup starts for the ring's sake alone (default: when `rechecking`). */
  readonly beginSeesRing?: boolean;
  /** Gives every descriptor back by itself, as the code of 2009 does, instead of in one burst. */
  readonly popsOneByOne?: boolean;
  /** Descriptors one call of the notifier takes at most (default: all). */
  readonly notifierBudget?: number;
  /** Notifier calls before wakeup returns "budget spent" and the caller reschedules it. */
  readonly wakeupBudget?: number;
  /** `budget spent` clears `pending` although work is left. */
  readonly clearsPendingOnBudget?: boolean;
  /** Order in which a v4 consumer reads the index; see the test about torn reads. */
  readonly indexRead?: "tail first" | "full first";
}

/**
 * When the consumer is masked: never after start-up, from the notifier until a later poll has
 * drained the ring (NAPI), or inside the notifier around the drain.
 */
export const MASKING = ["never", "until polled", "inside the notifier"] as const;
/** One of {@link MASKING}. */
export type Masking = (typeof MASKING)[number];

/** Publication as the engine does it: two sequentially consistent stores per burst. */
export const PUBLISH: readonly PublishStep[] = [
  "bodies",
  "full!",
  "tail",
  "sown rest",
  "sown first!",
  "dirty!",
  "load flags",
  "pending!",
  "ring",
];

/** `announce` of the engine (`docs/abi/extensions.md` section 2): `dirty` is left alone while it is still set. */
export const ANNOUNCE: readonly PublishStep[] = [
  "load dirty",
  "dirty! unless set",
  "load flags",
  "inject anew",
  "pending!",
  "ring",
];

/** Publication towards a peer that negotiated LAZY_INDEXES: no index, and the two full stores become one or two. */
export const PUBLISH_NEGOTIATED: readonly PublishStep[] = ["bodies", "sown rest", "sown first!", ...ANNOUNCE];

/** The same steps with the fences that the code of 2009 has (R1). */
export const PUBLISH_2009: readonly PublishStep[] = [
  "bodies",
  "full",
  "write fence",
  "tail",
  "write fence",
  "sown rest",
  "sown first",
  "write fence",
  "dirty",
  "write fence",
  "load flags",
  "pending",
  "write fence",
  "ring",
];

/** Give-back as the engine does it. */
export const RELEASE: readonly ReleaseStep[] = ["read bodies", "head", "full!", "sown rest", "sown first!"];

/** The same between peers that negotiated LAZY_INDEXES. */
export const RELEASE_NEGOTIATED: readonly ReleaseStep[] = ["read bodies", "sown rest", "sown first!"];

/** A correct receiver of either kind. */
export function receiver(recheck: ConsumerRules["recheck"], masking: Masking = "never"): ConsumerRules {
  return { recheck, masking, release: RELEASE };
}

/** Size and rules of one run. */
export interface Scenario {
  readonly model?: MemoryModel;
  readonly ring: number;
  readonly burst: number;
  readonly items: number;
  readonly producer: ProducerRules;
  readonly consumer: ConsumerRules;
  /** The consumer answers and the producer sleeps for the answers. */
  readonly duplex?: boolean;
  /**
   * Both sides also read the shared index, as a v4 peer does (costs states). `covering`: it never
   * hides a descriptor from the consumer, never promises room to the producer that is not there.
   * `exact`: nor does it ever say "full" to a producer that owns the descriptor at its tail.
   */
  readonly indexes?: "covering" | "exact";
}

/** Kinds of violation. */
export const LOST_WAKEUP = "lost wake-up";
/** `pending` stays set with nobody awake to clear it: the next inject will not ring. */
export const STUCK_PENDING = "stuck pending";
/** `dirty` stays set with nobody awake to clear it: a producer that leaves it alone then never signals again. */
export const STUCK_DIRTY = "stuck dirty";
/** A doorbell is rung although `dirty` was found set, so that the peer is about to look anyway. */
export const NEEDLESS_DOORBELL = "needless doorbell";
/** A body was read that is not the one published. */
export const WRONG_DATA = "wrong data";
/** The shared index contradicts the ownership that was already seen. */
export const WRONG_INDEX = "wrong index";
/** The index says full to a producer that owns the descriptor at its tail. */
export const FALSE_FULL = "false full";
