/** Samples everybody in turn, and makes one setting's cells of what they found. */
import { placementOf, type Placement } from "../harness/placement.js";
import { FEWEST_PAIRS } from "../harness/result.js";
import { summarize } from "../harness/statistics.js";
import type { Absence, Cell, Duel, ExtraName, Measures, Setting } from "./model.js";

/** One sample. */
export interface Outcome {
  /** In the study's unit. */
  value: number;
  /** Probes around a two-thread sample; null where placement plays no part. */
  probes: { before: number; after: number } | null;
  extras: Measures;
}

/** Somebody who takes part in a setting, or why not. */
export interface Entrant {
  id: string;
  sample: (() => Promise<Outcome> | Outcome) | string;
}

/** How much to measure. */
export interface ContestEffort {
  /** Rounds that count. */
  rounds: number;
  /** Rounds before those, thrown away. */
  warm: number;
  /** Most milliseconds for a setting; fewer rounds then, but at least three. */
  ms: number;
}

/** A setting may take so many times as long as it should before it is cut off with less than three rounds. */
const PATIENCE = 3;
const LEAST_MS = 1000;

interface Sampled {
  id: string;
  /** By round; undefined before it was sampled. */
  outcomes: (Outcome | undefined)[];
}

/** What a setting is made of besides samples. */
export interface ContestRules {
  at: number;
  name: string;
  /** Whom ratios are taken against. */
  reference: string;
  /** Whether less is better. */
  lower: boolean;
  /** Pairs to compare with each other besides, ours first. */
  duels: readonly (readonly [string, string])[];
  /**
   * Whether samples have probes, and are classed by them; `or mixed`: where no class has enough, all samples are taken together.
   */
  placed: boolean | "or mixed";
}

/**
 * Samples the entrants in turn, round after round. One that fails is out, with its reason, and takes nobody along;
 * `recover` then makes sure that the others find what they need. Everybody begins a round once in a while: the first of
 * several finds the cores cooler.
 */
export async function contest(
  rules: ContestRules,
  entrants: readonly Entrant[],
  effort: ContestEffort,
  recover: (id: string) => Promise<void>,
): Promise<Setting[]> {
  const absent: Absence[] = [];
  const sampled: Sampled[] = [];
  const samplers = new Map<string, () => Promise<Outcome> | Outcome>();
  for (const { id, sample } of entrants) {
    if (typeof sample === "string") {
      absent.push({ contestant: id, reason: sample, failed: false });
      continue;
    }
    samplers.set(id, sample);
    sampled.push({ id, outcomes: [] });
  }
  const begin = performance.now();
  const end = begin + effort.ms;
  // on a machine that is very busy even three rounds may take too long
  const last = begin + Math.max(LEAST_MS, PATIENCE * effort.ms);
  const out = new Set<string>();
  for (let round = -effort.warm; round < effort.rounds; round++) {
    // a warm-up that takes so long has warmed everybody up
    if (round < 0 && performance.now() - begin > effort.ms / 2) round = 0;
    for (let i = 0; i < sampled.length; i++) {
      const turn = (i + round + effort.warm) % sampled.length;
      const { id, outcomes } = sampled[turn] as Sampled;
      if (out.has(id) || performance.now() > last) continue;
      try {
        const outcome = await (samplers.get(id) as () => Promise<Outcome> | Outcome)();
        if (round >= 0) outcomes[round] = outcome;
      } catch (error) {
        out.add(id);
        const reason = error instanceof Error ? error.message : String(error);
        absent.push({ contestant: id, reason, failed: true });
        await recover(id);
      }
    }
    if (performance.now() > (round + 1 >= FEWEST_PAIRS ? end : last)) break;
  }
  const standing = sampled.filter(({ id }) => !out.has(id));
  return rules.placed !== false
    ? placedSettings(rules, standing, absent)
    : [
        {
          at: rules.at,
          name: rules.name,
          placement: null,
          ...cellsOf(rules, standing, absent, () => true),
          dropped: 0,
        },
      ];
}

/** One setting for each class that anybody's samples are of; one without cells when there is no such class. */
function placedSettings(rules: ContestRules, sampled: readonly Sampled[], absent: Absence[]): Setting[] {
  const classOf = ({ probes }: Outcome): Placement | null =>
    probes === null ? null : placementOf({ ns: 0, ...probes });
  const dropped = sampled
    .flatMap(({ outcomes }) => outcomes)
    .filter((outcome) => outcome !== undefined && classOf(outcome) === null).length;
  const { at, name } = rules;
  const settings: Setting[] = [];
  for (const placement of ["near", "far"] as const) {
    const of = (outcome: Outcome): boolean => classOf(outcome) === placement;
    const found = cellsOf(rules, sampled, absent, of);
    if (found.cells.length > 0) settings.push({ at, name, placement, ...found, dropped });
  }
  if (settings.length > 0) return settings;
  if (rules.placed === "or mixed") {
    const found = cellsOf(rules, sampled, absent, () => true);
    return [{ at, name, placement: "mixed", ...found, dropped: 0 }];
  }
  const taken = sampled.reduce((sum, { outcomes }) => sum + outcomes.filter(Boolean).length, 0);
  const reason = `too few samples of one class (${taken} of all contestants, ${dropped} dropped): the cores moved, or the machine is busy`;
  const missing = sampled.map(({ id }) => ({ contestant: id, reason, failed: false }));
  return [{ at, name, placement: null, cells: [], absent: [...absent, ...missing], duels: [], dropped }];
}

function cellsOf(
  rules: ContestRules,
  sampled: readonly Sampled[],
  absent: readonly Absence[],
  counts: (outcome: Outcome) => boolean,
): Pick<Setting, "cells" | "absent" | "duels"> {
  const { reference, lower, duels } = rules;
  /** How many times as good one is as another, in the rounds in which both have a sample that counts. */
  const compare = (one: string, other: string): Duel["ratio"] | null => {
    const find = (id: string): Sampled["outcomes"] =>
      sampled.find((entry) => entry.id === id)?.outcomes ?? [];
    const others = find(other);
    const ratios: number[] = [];
    for (const [round, mine] of find(one).entries()) {
      const theirs = others[round];
      if (mine === undefined || theirs === undefined || !counts(mine) || !counts(theirs)) continue;
      ratios.push(lower ? theirs.value / mine.value : mine.value / theirs.value);
    }
    return ratios.length < FEWEST_PAIRS ? null : summarize(ratios);
  };
  const cells: Cell[] = [];
  const missing = [...absent];
  for (const { id, outcomes } of sampled) {
    const own = outcomes.filter((outcome) => outcome !== undefined && counts(outcome)) as Outcome[];
    if (own.length < FEWEST_PAIRS) {
      const reason = `only ${own.length} samples${rules.placed === false ? "" : " of this class"} in the time that there was`;
      missing.push({ contestant: id, reason, failed: false });
      continue;
    }
    cells.push({
      contestant: id,
      value: summarize(own.map(({ value }) => value)),
      ratio: id === reference ? null : compare(id, reference),
      extras: summaries(own),
    });
  }
  const compared = duels.flatMap(([ours, rival]) => {
    const ratio = compare(ours, rival);
    return ratio === null ? [] : [{ ours, rival, ratio }];
  });
  return { cells, absent: missing, duels: compared };
}

function summaries(outcomes: readonly Outcome[]): Cell["extras"] {
  const extras: Cell["extras"] = {};
  const names = new Set(outcomes.flatMap((outcome) => Object.keys(outcome.extras) as ExtraName[]));
  for (const name of names) {
    const values = outcomes.map((outcome) => outcome.extras[name]).filter((value) => value !== undefined);
    extras[name] = summarize(values);
  }
  return extras;
}
