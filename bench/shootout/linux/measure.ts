/** Part (c): one Linux guest in v86 with three network cards: the emulator's virtio-net, ours, and venet. */
import process from "node:process";
import {
  runExperiment,
  KINDS,
  type ExperimentResult,
  type Kind,
} from "../../../examples/linux/experiment.js";
import { CARD_NAMES, Lab, type CardName } from "../../../examples/linux/lab.js";
import { readPieces } from "../../../examples/linux/pieces.js";
import type { Sample } from "../../../examples/linux/samples.js";
import { FEWEST_PAIRS, type Target } from "../../harness/result.js";
import { summarize, type Summary } from "../../harness/statistics.js";
import type { Cell, Contestant, GoalResult, Setting, Study } from "../model.js";
import type { EffortName } from "../rings/studies.js";
import { PartUnavailable, type PartResult } from "../run.js";

/** Where a script leaves the reason why there are no pieces of a guest. */
export const NO_GUEST_VARIABLE = "VBUS_NO_GUEST";

const MTU = 1500;
const SEED = 1;
const REFERENCE: CardName = "eth0";
/** Samples of a round, all cards, and TCP over lo; the first counts for the warm-up. */
const EFFORTS = {
  tiny: { seconds: 0.1, rounds: FEWEST_PAIRS, warmUp: 0 },
  quick: { seconds: 0.4, rounds: 3, warmUp: 1 },
  full: { seconds: 2, rounds: 7, warmUp: 2 },
} as const satisfies Record<EffortName, object>;

const IDS: Record<CardName, string> = { eth0: "v86-virtio", eth1: "venet-linux", eth2: "vbus-virtio" };

/** The cards. */
export const LINUX_CONTESTANTS: readonly Contestant[] = [
  {
    id: IDS.eth0,
    name: "v86's virtio-net",
    about:
      "eth0: the network card that the emulator has, in JavaScript, with the driver of the kernel. Of its copies one out and two in are v86's own, by its source; the port that the station is plugged into adds one each way.",
    runs: "guest",
    copies: null,
  },
  {
    id: IDS.eth2,
    name: "our virtio-net",
    about: "eth2: our virtio device on the engine's virtqueues, with the same driver of the kernel.",
    runs: "guest",
    copies: null,
  },
  {
    id: IDS.eth1,
    name: "venet",
    about: "eth1: venet over IOQ rings, with a kernel module of its own.",
    runs: "guest",
    copies: null,
  },
];

const COUNTED =
  "Doorbells and interrupts are per 1000 frames, or full frames' worth of payload. Copies are the host's, between the guest's memory and the station, counted in bytes; what the guest's kernel copies is the same with any card. Processor time is that of the whole process: the emulated guest, the host and the station, which share one thread, so that no core can move away from another.";

const ABOUT: Record<Kind["kind"], string> = {
  ping: "Round trips of an echo request from a process in the guest, one at a time; the median of each round. Doorbells and interrupts are per 1000 trips.",
  small: `Frames of 60 bytes by the kernel's packet generator; all of them have to reach the station. ${COUNTED}`,
  out: `One TCP stream out of the guest; every byte is checked by the station. ${COUNTED}`,
  in: `One TCP stream into the guest; every byte is checked there. ${COUNTED}`,
};

function cellOf(samples: readonly Sample[], base: readonly Sample[], kind: Kind, card: CardName): Cell {
  const ratios = samples.flatMap((sample, round) => {
    const other = base[round];
    if (other === undefined || card === REFERENCE) return [];
    return [kind.lower ? other.value / sample.value : sample.value / other.value];
  });
  const perThousand = (count: (sample: Sample) => number): Summary =>
    summarize(samples.map((sample) => (1000 * count(sample)) / sample.frames));
  const perByte = (count: (sample: Sample) => number): Summary | null => {
    const found = samples.flatMap((sample) => (sample.bytes === null ? [] : [count(sample) / sample.bytes]));
    return found.length === 0 ? null : summarize(found);
  };
  const copies = perByte(({ copied }) => copied);
  const cpu = perByte((sample) => sample.cpu!); // in Node it is known
  return {
    contestant: IDS[card],
    value: summarize(samples.map(({ value }) => value / kind.scale)),
    ratio: ratios.length < FEWEST_PAIRS ? null : summarize(ratios),
    extras: {
      doorbells: perThousand(({ doorbells }) => doorbells),
      interrupts: perThousand(({ interrupts }) => interrupts),
      ...(copies === null ? {} : { copies }),
      ...(cpu === null ? {} : { cpu }),
      ...(kind.kind === "ping" ? quantilesOf(samples) : {}),
    },
  };
}

/** What netprobe says of the round trips, in ns; medians of the rounds. */
function quantilesOf(samples: readonly Sample[]): Cell["extras"] {
  const found: Cell["extras"] = {};
  for (const name of ["p50", "p90", "p99", "max"] as const) {
    const values = samples.map(({ details }) => details[name]).filter((value) => value !== undefined);
    if (values.length > 0) found[name] = summarize(values);
  }
  return found;
}

/** Studies of an experiment. */
export function linuxStudies(result: ExperimentResult): Study[] {
  return KINDS.map((kind): Study => {
    const samples = result.samples[kind.kind];
    const base = samples[REFERENCE] ?? [];
    const setting: Setting = {
      at: 1,
      name: kind.title,
      placement: null,
      cells: (["eth0", "eth2", "eth1"] as const).flatMap((card) => {
        const own = samples[card];
        return own === undefined || own.length === 0 ? [] : [cellOf(own, base, kind, card)];
      }),
      absent: [],
      duels: [],
      dropped: 0,
    };
    return {
      id: `linux-${kind.kind}`,
      part: "linux",
      title: `${kind.title}, MTU ${MTU}`,
      about: ABOUT[kind.kind],
      axis: "setting",
      unit: kind.unit,
      lower: kind.lower,
      reference: IDS[REFERENCE],
      settings: [setting],
    };
  });
}

const GOALS: readonly { goal: string; card: CardName; wanted: Partial<Record<Kind["kind"], number>> }[] = [
  { goal: "G11", card: "eth2", wanted: { out: 3, in: 2.5, small: 2 } },
  { goal: "G10", card: "eth1", wanted: { out: 4, in: 3, small: 3, ping: 1 / 0.8 } },
];

/** Judges G11, and G10 beside it, by the studies. */
export function judgeLinux(studies: readonly Study[]): GoalResult[] {
  return GOALS.flatMap(({ goal, card, wanted }) =>
    studies.flatMap((study): GoalResult[] => {
      const kind = study.id.slice("linux-".length) as Kind["kind"];
      const value = wanted[kind];
      if (value === undefined) return [];
      const cell = study.settings[0]?.cells.find(({ contestant }) => contestant === IDS[card]);
      const target: Target = { sense: "at least", value };
      const figure = cell?.ratio ?? null;
      const name = `${card === "eth2" ? "our virtio-net" : "venet"}: ${study.title}`;
      const note = figure === null ? "too few rounds, or no such card" : `${figure.count} rounds`;
      return [{ goal, name, placement: null, figure, target, note }];
    }),
  );
}

/** Measures part (c). `ms` is what it should take; a guest that is slow takes longer. */
export async function measureLinux(
  effort: EffortName,
  ms: number,
  progress: (what: string) => void,
): Promise<PartResult> {
  const reason = process.env[NO_GUEST_VARIABLE];
  if (reason !== undefined && reason !== "") throw new PartUnavailable(reason);
  const end = performance.now() + ms;
  const lab = await Lab.open({ pieces: readPieces(), cards: CARD_NAMES, mtu: MTU, state: "use", progress });
  try {
    const result = await runExperiment(lab, { ...EFFORTS[effort], mtu: MTU, seed: SEED }, progress, end);
    const studies = linuxStudies(result);
    return { studies, contestants: LINUX_CONTESTANTS, goals: judgeLinux(studies) };
  } finally {
    await lab.close();
  }
}
