/** Part (b): frames between two guests in threads of their own, through a switch in a third. */
import { measureTraffic, type TrafficEffort } from "../../devices/traffic.js";
import type { TrafficRow } from "../../harness/traffic-result.js";
import type { Cell, Contestant, Setting, Study } from "../model.js";
import type { EffortName } from "../rings/studies.js";
import type { PartResult } from "../run.js";

const EFFORTS = {
  tiny: { rounds: 3, sampleMs: 20 },
  quick: { rounds: 4, sampleMs: 100 },
  full: { rounds: 20, sampleMs: 300 },
} as const satisfies Record<EffortName, TrafficEffort>;

/** Who carries frames between guests. */
export const DEVICE_CONTESTANTS: readonly Contestant[] = [
  {
    id: "venet",
    name: "venet",
    about:
      "our network card over IOQ rings, strict v4, as its TypeScript driver and its host use it; superframes, checksums left to whoever needs them, and merging are on or off as the row says.",
    runs: "guest",
    // into the sender's buffer by its driver, from guest to guest by the host
    copies: 2,
  },
];

function cellOf(row: TrafficRow, value: Cell["value"]): Cell {
  const { gigabits, signals, received } = row;
  return {
    contestant: "venet",
    value,
    ratio: null,
    extras: {
      gigabytes: gigabits.median / 8,
      doorbells: signals.median,
      copies: 2,
      received: received.median,
      ...(row.cpu === null ? {} : { cpu: row.cpu.median }),
    },
  };
}

/** Measures part (b) within so many milliseconds. */
export async function measureDevices(
  effort: EffortName,
  ms: number,
  progress: (what: string) => void,
): Promise<PartResult> {
  const rows = await measureTraffic({ ...EFFORTS[effort], ms }, progress);
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
    settings: rows.map((row, at): Setting => ({
      at,
      name: row.name,
      placement: null,
      cells: [cellOf(row, row.kiloframes)],
      absent: [],
      duels: [],
      dropped: 0,
    })),
  };
  return { studies: [study], contestants: DEVICE_CONTESTANTS, goals: [] };
}
