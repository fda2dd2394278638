/** G12: does a descriptor cost more in a larger ring, or among many rings? (Ports: `growth-ports.ts`.) */
import { EP_STATE_SIZE, QUEUE_ROLES } from "vbus/engine";
import type { BenchContext } from "../harness/context.js";
import { inTurn, time } from "../harness/interleave.js";
import { linkUnsharedLoops, type OneThreadLoops } from "../harness/loops.js";
import { ratioRow, type Row, type Target } from "../harness/result.js";
import { segmentLength, writeRegions } from "../harness/stage.js";

const TARGET: Target = { sense: "at most", value: 1.5 };
const BURST = 32;
const REGIONS = 0x10000;
const NORTH_TABLE = 0x20000;
const SOUTH_TABLE = 0x30000;
const NORTHS = 0x40000;
const SOUTHS = 0x48000;
const ENDPOINTS = 0x100000;
const RAM = 0x200000;
const RAM_SIZE = 64 << 20;
const RAM_GPA = 0x10000;
const PAGES = (RAM + RAM_SIZE) / 65536;
const DESCRIPTORS_PER_SAMPLE = 131_072;

/** Many rings in one memory. */
class Rings {
  readonly #loops: OneThreadLoops;
  readonly #buffers: number;
  #next = 0;

  constructor(
    private readonly rings: number,
    count: number,
  ) {
    const memory = new WebAssembly.Memory({ initial: PAGES, maximum: PAGES });
    this.#loops = linkUnsharedLoops(memory);
    const data = new DataView(memory.buffer);
    writeRegions(data, REGIONS, { gpa: RAM_GPA, size: RAM_SIZE, address: RAM });
    const segment = segmentLength(count);
    const step = Math.ceil((segment + 8) / 64) * 64;
    for (let i = 0; i < rings; i++) {
      const north = ENDPOINTS + 2 * i * EP_STATE_SIZE;
      const south = north + EP_STATE_SIZE;
      const gpa = RAM_GPA + 8 + i * step;
      const { northTransmit, southTransmit } = QUEUE_ROLES;
      const created = this.#loops.ringCreate(north, REGIONS, gpa, 0, count, 0, northTransmit, 0);
      const attached = this.#loops.ringAttach(south, REGIONS, gpa, 0, segment, 0xffffffff, southTransmit, 0);
      if (created < 0 || attached < 0) throw new Error(`ring ${i} of ${rings}: ${created}, ${attached}`);
      data.setUint32(NORTHS + i * 4, north, true);
      data.setUint32(SOUTHS + i * 4, south, true);
    }
    this.#buffers = RAM_GPA + rings * step;
  }

  /** Some bursts, one on each ring in turn. */
  run(rounds: number): void {
    const next = this.#loops.ringsRounds(
      NORTHS,
      SOUTHS,
      this.rings,
      NORTH_TABLE,
      SOUTH_TABLE,
      BURST,
      rounds,
      this.#buffers,
      this.#next,
    );
    if (next < 0) throw new Error(`${this.rings} rings: the engine answers ${next}`);
    this.#next = next;
  }
}

/** Measures the growth of rings. */
export async function measureGrowth(context: BenchContext): Promise<Row[]> {
  const rows: Row[] = [];
  const compare = async (
    name: string,
    large: Rings,
    small: Rings,
    judged: boolean,
    note: string,
  ): Promise<void> => {
    context.progress(`G12 ${name}`);
    const rounds = DESCRIPTORS_PER_SAMPLE / BURST;
    const sample = (rings: Rings) => (): number =>
      time(() => {
        rings.run(rounds);
      }, DESCRIPTORS_PER_SAMPLE);
    const [a = [], b = []] = await inTurn([sample(large), sample(small)], context.effort);
    const target = judged ? TARGET : null;
    const row = { goal: "G12", name, placement: null, unit: "ns/descriptor", target, note } as const;
    rows.push(ratioRow(row, a, b, "ours/rival"));
  };
  const one = new Rings(1, 256);
  await compare("ring of 16384 vs ring of 64", new Rings(1, 16384), new Rings(1, 64), true, "bursts of 32");
  await compare(
    "1024 rings of 64 vs 1",
    new Rings(1024, 64),
    new Rings(1, 64),
    true,
    "a burst of 32 on each in turn",
  );
  const large = "more than 8 MiB of descriptors: beyond most second-level caches";
  await compare("1024 rings of 256 vs 1", new Rings(1024, 256), one, false, large);
  return rows;
}
