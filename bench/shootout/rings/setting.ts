/** What a contestant of part (a) is asked to do, and what it answers. */
import type { NativeBench } from "../../harness/native.js";
import type { ThreadPair } from "../../harness/pair.js";
import type { Contestant, Measures } from "../model.js";
import type { ContestStage } from "./stage.js";

/** One setting. Plain data. */
export interface RingSetting {
  /**
   * `descriptors`: requests there, completions back. `trips`: one outstanding, each timed. `payload`: bytes one way, the
   * consumer polls. `woken`: bytes one way, the consumer sleeps when it has nothing to do.
   */
  work: "descriptors" | "trips" | "payload" | "woken";
  threads: 1 | 2;
  /** Descriptors handed over at once. */
  burst: number;
  /** Descriptors of a ring. */
  size: number;
  rings: number;
  /** Whether notifications are looked after. */
  notify: boolean;
  /** Bytes of a payload. */
  length: number;
  /** Polls before a consumer goes to sleep. */
  polls: number;
}

/** What one sample found. */
export interface Measured {
  /** Nanoseconds per descriptor, frame or round trip. */
  ns: number;
  /** Probes around a two-thread sample; null for one thread. */
  probes: { before: number; after: number } | null;
  extras: Measures;
}

/** Takes one sample. */
export type Sampler = () => Promise<Measured> | Measured;

/** What the contestants of part (a) work with. */
export interface RingContext {
  /** Two threads. */
  pair: ThreadPair;
  /** A stage over the pair's memory. */
  shared: ContestStage;
  /** A stage that no other thread sees. */
  unshared: ContestStage;
  /** The native contestants, or why there are none. */
  native: NativeBench | { reason: string };
}

/** A contestant of part (a). */
export interface RingContestant extends Contestant {
  /** Who takes a sample in this setting; a text says why nobody does. */
  enter(setting: RingSetting, context: RingContext): Sampler | string;
}

const DESCRIPTORS = { single: 6000, burst: 48_000 };
const PAYLOAD_BYTES = 24 << 20;
const FRAMES = { least: 512, most: 24_000 };

/** Descriptors or frames of a sample: a whole number of bursts. `slowness` divides it, for those that take longer. */
export function itemsOf({ work, burst, length }: RingSetting, slowness = 1): number {
  const wanted =
    work === "payload" || work === "woken"
      ? Math.max(FRAMES.least, Math.min(FRAMES.most, PAYLOAD_BYTES / length))
      : burst < 8
        ? DESCRIPTORS.single
        : DESCRIPTORS.burst;
  return Math.max(1, Math.floor(wanted / slowness / burst)) * burst;
}

/** What was carried, and what it took. `cpu` in ns. */
export function payloadExtras(length: number, frames: number, ns: number, cpu: number): Measured["extras"] {
  return { gigabytes: length / ns, cpu: cpu / (frames * length) };
}
