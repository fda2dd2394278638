/** Part (b): frames between two guests in threads of their own, through a switch in a third. */
import type { TrafficCard } from "../../devices/card.js";
import { TrafficStage } from "../../devices/traffic-stage.js";
import { ThreadPair } from "../../harness/pair.js";
import { contest, type ContestEffort, type ContestRules, type Entrant, type Outcome } from "../contest.js";
import type { Summary } from "../../harness/statistics.js";
import type { Cell, Contestant, Measures, Setting, Study } from "../model.js";
import type { EffortName } from "../rings/studies.js";
import type { PartResult } from "../run.js";
import { FRAME_SIZES, OFFLOADS_OFF, OFFLOADS_ON, ROUND_TRIPS, type DeviceCase } from "./cases.js";

interface DeviceEffort extends Omit<ContestEffort, "ms"> {
  /** Milliseconds that a sample sends. */
  sampleMs: number;
  /** Round trips of a sample. */
  trips: number;
  /** Whether samples are classed by where the cores are; tests have no use for that. */
  placed: boolean;
}

const EFFORTS = {
  tiny: { rounds: 3, warm: 0, sampleMs: 15, trips: 30, placed: false },
  quick: { rounds: 6, warm: 1, sampleMs: 40, trips: 200, placed: true },
  full: { rounds: 20, warm: 2, sampleMs: 150, trips: 2000, placed: true },
} as const satisfies Record<EffortName, DeviceEffort>;

const CARDS: readonly TrafficCard[] = ["venet", "split", "packed"];
const IDS: Record<TrafficCard, string> = {
  venet: "venet",
  split: "virtio-split",
  packed: "virtio-packed",
};
const REFERENCE = IDS.venet;

/** Who carries frames between guests. */
export const DEVICE_CONTESTANTS: readonly Contestant[] = [
  {
    id: IDS.venet,
    name: "venet",
    about:
      "our network card over IOQ rings, strict v4, as its TypeScript driver and its host use it. No thread spins: all of them sleep when there is nothing to do.",
    runs: "guest",
    copies: null,
  },
  {
    id: IDS.split,
    name: "our virtio-net, split",
    about:
      "our virtio-net over the same bus and the same data path behind it, with a TypeScript driver; split rings, event index, in order.",
    runs: "guest",
    copies: null,
  },
  {
    id: IDS.packed,
    name: "our virtio-net, packed",
    about: "… with packed rings.",
    runs: "guest",
    copies: null,
  },
];

interface DeviceStudy extends Omit<Study, "settings" | "reference" | "part" | "axis"> {
  cases: readonly DeviceCase[];
  /** Whether rows are compared with the first one of their flow. */
  compared: boolean;
  /** Milliseconds of traffic before a sample; round trips need none. */
  warmMs: (effort: DeviceEffort) => number;
  /** Takes a sample; cards are open. */
  sample: (stage: TrafficStage, test: DeviceCase, effort: DeviceEffort) => Promise<Sampled>;
}

type Sampled = Omit<Outcome, "probes">;

const HOW =
  "Two guests and the host are three threads, and none of them spins. Frames go from one guest's memory to the other's through a switch; every byte of payload has to arrive. ";
const WORK =
  "What no offload does is done by the guests, with the engine's own SIMD: the sender sums what it sends, the receiver verifies what the host has not vouched for. ";
const ROWS =
  "Rows have their flow (MTU 1500, 1500-byte frames or 64 KiB superframes) and what is switched. Doorbells and interrupts are per 1000 ordinary frames, whatever these were sent as. ";
const PARTLY = "This is a part of the rows: --full has IPv6 and UDP, too. ";

/** What was carried, and what it took. */
async function carried(
  stage: TrafficStage,
  { plan }: DeviceCase,
  { sampleMs }: DeviceEffort,
): Promise<{ kiloframes: number; gigabits: number; extras: Measures }> {
  const sample = await stage.sample(sampleMs);
  const { frames, bytes, payload, seconds, doorbells, interrupts, copied, received, cpu } = sample;
  const ordinary = plan.segment === null ? frames : payload / plan.segment;
  return {
    kiloframes: frames / seconds / 1000,
    gigabits: (payload * 8) / seconds / 1e9,
    extras: {
      gigabytes: bytes / seconds / 1e9,
      received: received / frames,
      doorbells: (doorbells * 1000) / ordinary,
      interrupts: (interrupts * 1000) / ordinary,
      copies: copied / bytes,
      cpu: cpu / bytes,
    },
  };
}

const half = ({ sampleMs }: DeviceEffort): number => sampleMs / 2;

async function sampleGigabits(stage: TrafficStage, test: DeviceCase, effort: DeviceEffort): Promise<Sampled> {
  const { gigabits, extras } = await carried(stage, test, effort);
  return { value: gigabits, extras };
}

function deviceStudies(effort: EffortName): DeviceStudy[] {
  const full = effort === "full";
  const rows = (cases: readonly DeviceCase[]): readonly DeviceCase[] =>
    full ? cases : effort === "tiny" ? cases.slice(0, 4) : cases.filter(({ quick }) => quick);
  const partly = full ? "" : PARTLY;
  const gigabits = { unit: "Gbit/s of payload", lower: false, compared: true, warmMs: half } as const;
  return [
    {
      id: "devices-trips",
      title: "One frame there and back between two guests",
      about:
        "A 64-byte frame from one guest's program to the other's, which answers with another one; then the next. Each trip wakes the host twice and each guest once. The median, and the percentiles of all trips of a sample. Doorbells and interrupts are per 1000 trips.",
      unit: "µs",
      lower: true,
      compared: false,
      cases: [ROUND_TRIPS],
      warmMs: () => 0,
      sample: async (stage, _test, { trips }) => {
        const { p50, p90, p99, max, doorbells, interrupts } = await stage.trips(trips);
        const perThousand = 1000 / trips;
        const signals = { doorbells: doorbells * perThousand, interrupts: interrupts * perThousand };
        return { value: p50 / 1000, extras: { p50, p90, p99, max, ...signals } };
      },
    },
    {
      id: "devices-sizes",
      title: "Frames of one size between two guests, no offloads",
      about: HOW + WORK + "Doorbells and interrupts are per 1000 frames.",
      unit: "1000 frames/s",
      lower: false,
      compared: false,
      cases: FRAME_SIZES,
      warmMs: half,
      sample: async (stage, test, own) => {
        const { kiloframes, extras } = await carried(stage, test, own);
        return { value: kiloframes, extras };
      },
    },
    {
      ...gigabits,
      id: "devices-off",
      title: "All offloads on, then one off",
      about: HOW + WORK + ROWS + partly,
      cases: rows(OFFLOADS_OFF),
      sample: sampleGigabits,
    },
    {
      ...gigabits,
      id: "devices-on",
      title: "All offloads off, then one on",
      about: HOW + WORK + ROWS + partly,
      cases: rows(OFFLOADS_ON),
      sample: sampleGigabits,
    },
  ];
}

/** Threads: a host and two guests, and a pair that tells where the cores are while the others rest. */
class Devices {
  #pair = ThreadPair.start();
  stage = new TrafficStage();

  /** Puts the guests on their bus. */
  async begin(): Promise<void> {
    await this.stage.join();
  }

  /** Nanoseconds that a cache line takes from one core to the other. */
  async probe(): Promise<number> {
    const { before, after } = await this.#pair.sample({ kind: "line", rounds: 1 }, 1);
    return Math.max(before, after);
  }

  /** After a failure: threads that are known to answer. */
  async restart(): Promise<void> {
    await this.close();
    this.#pair = ThreadPair.start();
    this.stage = new TrafficStage();
    await this.begin();
  }

  async close(): Promise<void> {
    await Promise.all([this.stage.close(), this.#pair.close()]);
  }
}

/** Rows and cards are sampled in one contest, so that each can be compared with each. */
const entryOf = (row: string, card: TrafficCard): string => `${row}|${card}`;

async function measureStudy(
  study: DeviceStudy,
  devices: Devices,
  effort: DeviceEffort,
  ms: number,
  progress: (what: string) => void,
): Promise<Study> {
  const { cases, sample, warmMs, compared, ...rest } = study;
  const entrants = cases.flatMap((test) =>
    CARDS.map((card): Entrant => {
      const id = entryOf(test.name, card);
      const lack = test.lacks[card];
      if (lack !== undefined) return { id, sample: lack };
      return {
        id,
        sample: async () => {
          const { stage } = devices;
          progress(`${study.title}: ${test.name}, ${card}`);
          await stage.open(test, card, warmMs(effort));
          const before = effort.placed ? await devices.probe() : 0;
          const found = await sample(stage, test, effort);
          const after = effort.placed ? await devices.probe() : 0;
          await stage.closeNics();
          return { ...found, probes: effort.placed ? { before, after } : null };
        },
      };
    }),
  );
  const duels = cases.flatMap(({ name, base }) =>
    CARDS.flatMap((card) => [
      [entryOf(name, card), entryOf(name, "venet")] as const,
      [entryOf(name, card), entryOf(base, card)] as const,
    ]),
  );
  const rules: ContestRules = {
    at: 0,
    name: study.title,
    reference: "",
    lower: study.lower,
    duels,
    placed: effort.placed && "or mixed",
  };
  const found = await contest(rules, entrants, { ...effort, ms }, () => devices.restart());
  return {
    ...rest,
    part: "devices",
    axis: "setting",
    reference: REFERENCE,
    settings: cases.flatMap((test, at) => found.map((all) => settingOf(test, at, all, compared))),
  };
}

/** One row of what was found. */
function settingOf(
  { name, base }: DeviceCase,
  at: number,
  { placement, cells, absent, duels, dropped }: Setting,
  compared: boolean,
): Setting {
  const own = new Map(CARDS.map((card) => [entryOf(name, card), card]));
  const ratio = (card: TrafficCard, row: string, other: TrafficCard): Summary | null =>
    duels.find(({ ours, rival }) => ours === entryOf(name, card) && rival === entryOf(row, other))?.ratio ??
    null;
  return {
    at,
    name,
    placement,
    cells: cells.flatMap(({ contestant, value, extras }): Cell[] => {
      const card = own.get(contestant);
      if (card === undefined) return [];
      const change = compared && name !== base ? ratio(card, base, card) : null;
      return [
        {
          contestant: IDS[card],
          value,
          ratio: card === "venet" ? null : ratio(card, name, "venet"),
          extras: { ...extras, ...(change === null ? {} : { change }) },
        },
      ];
    }),
    absent: absent.flatMap(({ contestant, ...why }) => {
      const card = own.get(contestant);
      return card === undefined ? [] : [{ ...why, contestant: IDS[card] }];
    }),
    duels: [],
    // of all rows together
    dropped: at === 0 ? dropped : 0,
  };
}

/** Measures part (b) within so many milliseconds. */
export async function measureDevices(
  effort: EffortName,
  ms: number,
  progress: (what: string) => void,
): Promise<PartResult> {
  const studies = deviceStudies(effort);
  let left = studies.reduce((sum, { cases }) => sum + cases.length, 0);
  const end = performance.now() + ms;
  const devices = new Devices();
  const found: Study[] = [];
  try {
    await devices.begin();
    for (const study of studies) {
      // what one study does not need is the others'
      const share = (Math.max(0, end - performance.now()) * study.cases.length) / left;
      left -= study.cases.length;
      found.push(await measureStudy(study, devices, EFFORTS[effort], share, progress));
    }
    await devices.stage.finish();
  } finally {
    await devices.close();
  }
  return { studies: found, contestants: DEVICE_CONTESTANTS, goals: [] };
}
