/** The experiment: all cards in one guest, in turn, several rounds, after a round that only warms up. */
import type { CardLab, CardName } from "./cards.js";
import {
  sampleIn,
  sampleLo,
  sampleOut,
  samplePing,
  sampleSmall,
  type Sample,
  type SampleKind,
  type SampleOptions,
} from "./samples.js";

/** How much is measured. */
export interface ExperimentOptions {
  /** Seconds per measurement. */
  seconds: number;
  /** Rounds that count. */
  rounds: number;
  /** Rounds before those: the emulator translates code that it sees often, and the first seconds are slow. */
  warmUp: number;
  mtu: number;
  seed: number;
}

/** What is compared with the goals of `docs/performance.md`. */
export interface Kind {
  kind: SampleKind;
  title: string;
  unit: string;
  /** What `Sample.value` is divided by for people. */
  scale: number;
  /** A card in proportion to v86's own: G10 for venet, G11 for our virtio-net. */
  goals: Partial<Record<CardName, number>>;
  /** Whether less is better. */
  lower: boolean;
}

/** All measurements, in the order in which they are made. */
export const KINDS: readonly Kind[] = [
  { kind: "ping", title: "ping, median", unit: "µs", scale: 1, goals: { eth1: 0.8 }, lower: true },
  {
    kind: "small",
    title: "60-byte frames out",
    unit: "kframes/s",
    scale: 1e3,
    goals: { eth1: 3, eth2: 2 },
    lower: false,
  },
  { kind: "out", title: "TCP out", unit: "MB/s", scale: 1e6, goals: { eth1: 4, eth2: 3 }, lower: false },
  { kind: "in", title: "TCP in", unit: "MB/s", scale: 1e6, goals: { eth1: 3, eth2: 2.5 }, lower: false },
];

const MEASURE = { ping: samplePing, small: sampleSmall, out: sampleOut, in: sampleIn };

/** Everything measured. */
export interface ExperimentResult {
  options: ExperimentOptions;
  /** Samples of the rounds that count, by kind and card. */
  samples: Record<SampleKind, Partial<Record<CardName, Sample[]>>>;
  /** TCP within the guest, bytes per second. */
  lo: number[];
}

/** Rounds that are made however long they take. */
const FEWEST_ROUNDS = 3;

/** Runs it. `progress` is told of each measurement. No fourth round begins after `end`, on the clock of `performance.now()`. */
export async function runExperiment(
  lab: CardLab,
  options: ExperimentOptions,
  progress: (message: string) => void,
  end = Infinity,
): Promise<ExperimentResult> {
  const { rounds, warmUp, mtu, seed } = options;
  const sampling: SampleOptions = { ms: Math.round(options.seconds * 1000), mtu, seed };
  const result: ExperimentResult = { options, samples: { ping: {}, small: {}, out: {}, in: {} }, lo: [] };
  for (let round = -warmUp; round < rounds; round++) {
    if (round >= FEWEST_ROUNDS && performance.now() > end) break;
    const counts = round >= 0;
    const name = counts ? `round ${round + 1} of ${rounds}` : "warming up";
    // who begins changes: what one leaves behind is no advantage of another
    const first = Math.abs(round) % lab.cards.length;
    const cards = [...lab.cards.slice(first), ...lab.cards.slice(0, first)];
    for (const { kind, title, unit, scale } of KINDS) {
      for (const card of cards) {
        const sample = await MEASURE[kind](lab, card, sampling);
        progress(`${name}: ${card.name} ${title} ${(sample.value / scale).toFixed(1)} ${unit}`);
        if (counts) (result.samples[kind][card.name] ??= []).push(sample);
      }
    }
    const lo = await sampleLo(lab, sampling);
    progress(`${name}: lo TCP ${(lo / 1e6).toFixed(1)} MB/s`);
    if (counts) result.lo.push(lo);
  }
  return result;
}
