/** G12, ports: does a frame cost more on a switch with a thousand ports than on one with two? */
import { BurstTable, ENTRY_OFF_HEAD } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { Batch, Switch, type Port, type PortPeer } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import type { BenchContext } from "../harness/context.js";
import { inTurn, time } from "../harness/interleave.js";
import { ratioRow, type Row, type Target } from "../harness/result.js";

const TARGET: Target = { sense: "at most", value: 1.5 };
const BATCH = 32;
const LENGTH = 64;
const BATCHES_PER_SAMPLE = 500;

/** Takes everything and counts it. */
class Sink implements PortPeer {
  taken = 0;
  receive(_batch: Batch, from: number, to: number): number {
    this.taken += to - from;
    return to - from;
  }
  writable(): void {
    // it never transmits, so there is nothing to resume
  }
}

/** A switch whose ports all have a peer and a known station. */
class SwitchedPorts {
  readonly #sender: Port;
  readonly #batch: Batch;
  readonly #sinks: Sink[] = [];
  #next = 0;

  constructor(
    private readonly ports: number,
    space: MemorySpace,
    /** True: all frames of a batch go to one port; false: each to another. */
    private readonly together: boolean,
  ) {
    const net = new Switch({ scheduler: new VirtualScheduler(), space });
    const table = BurstTable.allocate(space, BATCH);
    this.#batch = new Batch(table);
    for (let i = 0; i < BATCH; i++) table.setBuffer(i, space.allocate(LENGTH, 64), LENGTH);
    const all: Port[] = [];
    for (let i = 0; i < ports; i++) {
      const port = net.addPort(`port${i}`);
      const sink = new Sink();
      port.attach(sink);
      this.#sinks.push(sink);
      all.push(port);
    }
    this.#sender = all[0] as Port;
    this.#batch.count = 1;
    for (const [i, port] of all.entries()) {
      this.#address(0, 0, i);
      port.transmit(this.#batch, 0, 1); // every station speaks once, and is known from then on
    }
    this.#batch.count = BATCH;
  }

  /** Frame i of the batch goes from one station to another. */
  #address(i: number, to: number, from: number): void {
    const { bytes } = this.#batch.space.engine;
    const head = this.#batch.table.entry(i) + ENTRY_OFF_HEAD;
    bytes[head] = 2;
    bytes[head + 4] = to >>> 8;
    bytes[head + 5] = to;
    bytes[head + 6] = 2;
    bytes[head + 10] = from >>> 8;
    bytes[head + 11] = from;
    bytes[head + 12] = 8;
  }

  /** Sends batches from the first station to the others in turn. */
  run(batches: number): void {
    for (let n = 0; n < batches; n++) {
      if (this.together) this.#next = this.#next + 1 >= this.ports ? 1 : this.#next + 1;
      for (let i = 0; i < BATCH; i++) {
        if (!this.together) this.#next = this.#next + 1 >= this.ports ? 1 : this.#next + 1;
        this.#address(i, this.#next, 0);
      }
      const taken = this.#sender.transmit(this.#batch, 0, BATCH);
      if (taken !== BATCH) throw new Error(`the switch took ${taken} of ${BATCH} frames`);
    }
  }

  /** Frames that arrived, for a check that they did. */
  get arrived(): number {
    return this.#sinks.reduce((sum, sink) => sum + sink.taken, 0);
  }
}

/** Measures the growth of a switch. */
export async function measurePorts(context: BenchContext): Promise<Row[]> {
  const space = await MemorySpace.host(8 << 20);
  const rows: Row[] = [];
  for (const together of [true, false]) {
    // a small switch of 33 ports gives frames that each go to another port 32 different ones
    const small = together ? 2 : BATCH + 1;
    const name = `switch of 1000 ports vs ${small}, ${together ? "batch to one port" : "each frame to another port"}`;
    context.progress(`G12 ${name}`);
    const a = new SwitchedPorts(1000, space, together);
    const b = new SwitchedPorts(small, space, together);
    const sample = (ports: SwitchedPorts) => (): number => {
      const before = ports.arrived;
      const ns = time(() => {
        ports.run(BATCHES_PER_SAMPLE);
      }, BATCHES_PER_SAMPLE * BATCH);
      if (ports.arrived - before !== BATCHES_PER_SAMPLE * BATCH)
        throw new Error("frames were lost on the switch");
      return ns;
    };
    const [large = [], few = []] = await inTurn([sample(a), sample(b)], context.effort);
    const note = `known stations, batches of ${BATCH} frames of ${LENGTH} bytes`;
    const row = { goal: "G12", name, placement: null, unit: "ns/frame", target: TARGET, note } as const;
    rows.push(ratioRow(row, large, few, "ours/rival"));
  }
  return rows;
}
