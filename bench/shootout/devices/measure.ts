/** Part (b): frames between two guests in threads of their own, through a switch in a third. */
import { measureTraffic, type TrafficEffort } from "../../devices/traffic.js";
import { FEWEST_PAIRS } from "../../harness/result.js";
import { pairedRatios, summarize } from "../../harness/statistics.js";
import type { TrafficRow } from "../../harness/traffic-result.js";
import type { Cell, Contestant, Setting, Study } from "../model.js";
import type { EffortName } from "../rings/studies.js";
import type { PartResult } from "../run.js";

const EFFORTS = {
  tiny: { rounds: 3, sampleMs: 20 },
  quick: { rounds: 4, sampleMs: 100 },
  full: { rounds: 20, sampleMs: 300 },
} as const satisfies Record<EffortName, TrafficEffort>;

/** Into the sender's buffer by its driver, from guest to guest by the host. */
const COPIES = 2;
const IDS = { venet: "venet", split: "virtio-split", packed: "virtio-packed" } as const;
const CARDS = ["venet", "split", "packed"] as const;
const OFFLOADS =
  "Superframes, checksums left to whoever needs them, and merging are on or off as the row says; no guest spins.";

/** Who carries frames between guests. */
export const DEVICE_CONTESTANTS: readonly Contestant[] = [
  {
    id: IDS.venet,
    name: "venet",
    about: `our network card over IOQ rings, strict v4, as its TypeScript driver and its host use it. ${OFFLOADS}`,
    runs: "guest",
    copies: COPIES,
  },
  {
    id: IDS.split,
    name: "our virtio-net, split",
    about: `our virtio-net over the same bus and the same data path behind it, with a TypeScript driver; split rings, event index. ${OFFLOADS}`,
    runs: "guest",
    copies: COPIES,
  },
  {
    id: IDS.packed,
    name: "our virtio-net, packed",
    about: "… with packed rings.",
    runs: "guest",
    copies: COPIES,
  },
];

function cellOf(row: TrafficRow, base: TrafficRow | undefined): Cell {
  const { kiloframes, gigabits, signals, received, cpu } = row;
  const ratios = base === undefined || base === row ? [] : pairedRatios(row.rounds, base.rounds);
  return {
    contestant: IDS[row.card as keyof typeof IDS],
    value: kiloframes,
    ratio: ratios.length < FEWEST_PAIRS ? null : summarize(ratios),
    extras: {
      gigabytes: gigabits.median / 8,
      doorbells: signals.median,
      received: received.median,
      // what is cut or merged on its way is copied more often, which nobody counts
      ...(received.median === 1 ? { copies: COPIES } : {}),
      ...(cpu === null ? {} : { cpu: cpu.median }),
    },
  };
}

/** Measures part (b) within so many milliseconds. */
export async function measureDevices(
  effort: EffortName,
  ms: number,
  progress: (what: string) => void,
): Promise<PartResult> {
  const rows = await measureTraffic({ ...EFFORTS[effort], ms }, progress, CARDS);
  const names = [...new Set(rows.map(({ name }) => name))];
  const study: Study = {
    id: "traffic",
    part: "devices",
    title: "Frames between two guests, each offload on and off",
    about:
      "Two guests and the host are three threads; frames go from one guest's memory to the other's through a switch, and every byte of payload has to arrive. Signals are the doorbells and interrupts of all rings on the way, of sender and receiver together.",
    axis: "setting",
    unit: "1000 frames/s",
    lower: false,
    reference: "venet",
    settings: names.map((name, at): Setting => {
      const own = rows.filter((row) => row.name === name);
      const base = own.find(({ card }) => card === "venet");
      const missing = CARDS.filter((card) => !own.some((row) => row.card === card));
      return {
        at,
        name,
        placement: null,
        cells: own.map((row) => cellOf(row, base)),
        absent: missing.map((card) => ({
          contestant: IDS[card],
          reason: "its MTU is 1500 in this study",
          failed: false,
        })),
        duels: [],
        dropped: 0,
      };
    }),
  };
  return { studies: [study], contestants: DEVICE_CONTESTANTS, goals: [] };
}
