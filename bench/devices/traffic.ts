/** Frames between two guests in threads of their own, through a switch in a third one: with and without offloads. */
import process from "node:process";
import { allocateGuestMemory } from "vbus/memory";
import { BenchThread } from "../harness/thread.js";
import { trafficRow, type TrafficRow, type TrafficSample } from "../harness/traffic-result.js";
import { TRAFFIC_CASES, type TrafficCase } from "./traffic-cases.js";
import type {
  TrafficCard,
  TrafficOpenOrder,
  TrafficPlanOrder,
  TrafficReceived,
  TrafficSent,
} from "./traffic-guest.js";
import type { TrafficGuestOrder, TrafficHostReport } from "./traffic-host.js";

/** How much to measure. */
export interface TrafficEffort {
  /** Samples of each row. */
  rounds: number;
  /** Milliseconds that a sample sends. */
  sampleMs: number;
  /** Most milliseconds for all of them; fewer rounds then, but one at least. */
  ms?: number;
}

/** Efforts of `--quick` and of an ordinary run. */
export const TRAFFIC_EFFORTS = {
  quick: { rounds: 5, sampleMs: 100 },
  normal: { rounds: 15, sampleMs: 200 },
} as const satisfies Record<string, TrafficEffort>;

const GUEST_RAM = 32 << 20;
const [SENDER, RECEIVER] = [1, 2] as const;
const GREET_MS = 5000;
const ARRIVE_MS = 20_000;

/** The threads: a host with a switch, guest A, guest B. */
class TrafficStage {
  readonly #threads: BenchThread[] = [];
  readonly #host = this.#start("traffic-host");
  readonly #a = this.#start("traffic-guest");
  readonly #b = this.#start("traffic-guest");

  #start(program: string): BenchThread {
    const thread = new BenchThread(new URL(`./${program}.js`, import.meta.url), `bench-${program}`);
    this.#threads.push(thread);
    return thread;
  }

  async join(): Promise<void> {
    const guests = [
      ["A", SENDER, this.#a],
      ["B", RECEIVER, this.#b],
    ] as const;
    for (const [name, station, thread] of guests) {
      const init = allocateGuestMemory({ size: GUEST_RAM, shared: true });
      await this.#host.call("addGuest", { name, station, init } satisfies TrafficGuestOrder);
      await thread.call("join", { init });
    }
  }

  /** Both NICs taken as a case wants them, the frames made, the switch knows the receiver; one run thrown away. */
  async open(
    { mtu, sender, receiver, coalesce, plan }: TrafficCase,
    card: TrafficCard,
    warmMs: number,
  ): Promise<void> {
    await this.#host.call("configure", { mtu, coalesce });
    const order = (kind: string): TrafficOpenOrder => ({ card, mtu, offloads: kind === "capable" });
    await this.#a.call("open", order(sender));
    await this.#b.call("open", order(receiver));
    const flow: TrafficPlanOrder = { plan, from: SENDER, to: RECEIVER };
    await this.#a.call("prepare", flow);
    await this.#b.call("greet");
    await this.#a.call("greeted", { timeoutMs: GREET_MS });
    await this.sample(warmMs);
  }

  async closeNics(): Promise<void> {
    for (const guest of [this.#a, this.#b]) await guest.call("close");
  }

  report(): Promise<TrafficHostReport> {
    return this.#host.call("report");
  }

  /** Signals sent by all four ends that frames from A to B pass. */
  async #signals(): Promise<number> {
    const { nics } = await this.report();
    const a = await this.#a.call<{ rx: number; tx: number }>("doorbells");
    const b = await this.#b.call<{ rx: number; tx: number }>("doorbells");
    return a.tx + (nics["A"]?.interrupts.tx ?? 0) + (nics["B"]?.interrupts.rx ?? 0) + b.rx;
  }

  async sample(ms: number): Promise<TrafficSample> {
    await this.#b.call("reset");
    const before = await this.#signals();
    const cpu = process.cpuUsage();
    const sent = await this.#a.call<TrafficSent>("send", { ms });
    const { payload } = sent;
    let arrived: TrafficReceived;
    try {
      arrived = await this.#b.call<TrafficReceived>("received", { payload, timeoutMs: ARRIVE_MS });
    } catch (error) {
      throw new Error(`frames were lost; the host says ${JSON.stringify(await this.report())}`, {
        cause: error,
      });
    }
    const { user, system } = process.cpuUsage(cpu);
    return {
      cpu: (user + system) * 1000,
      frames: sent.frames,
      bytes: sent.bytes,
      seconds: (arrived.last - sent.started) / 1000,
      received: arrived.frames,
      signals: (await this.#signals()) - before,
    };
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  /** The host ends everything. @throws Error when something went wrong meanwhile */
  async finish(): Promise<void> {
    const errors = await this.#host.call<string[]>("finish");
    if (errors.length > 0) throw new Error(`the host of the traffic figures: ${errors.join("; ")}`);
  }
}

/** What the host did to frames, between two reports. */
function doings(before: TrafficHostReport, after: TrafficHostReport): string {
  const counts = ({ offload, nics }: TrafficHostReport): Record<string, number> => ({
    "superframes passed untouched": offload.superframes_passed,
    "superframes cut in software": offload.segmented,
    "superframes made of segments": nics["B"]?.coalesced ?? 0,
  });
  const then = counts(before);
  return Object.entries(counts(after))
    .map(([what, n]) => [what, n - (then[what] ?? 0)] as const)
    .filter(([, n]) => n > 0)
    .map(([what, n]) => `${n} ${what}`)
    .join(", ");
}

/** The MTU that a virtio-net card of these figures has, whatever the case wants. */
const VIRTIO_MTU = 1500;

/** Measures all cases with each card, in rounds, so that each one's samples are spread over the whole time. */
export async function measureTraffic(
  effort: TrafficEffort,
  progress: (what: string) => void,
  cards: readonly TrafficCard[] = ["venet"],
): Promise<TrafficRow[]> {
  const stage = new TrafficStage();
  const results = TRAFFIC_CASES.flatMap((test) =>
    cards
      .filter((card) => card === "venet" || test.mtu === VIRTIO_MTU)
      .map((card) => ({ test, card, samples: [] as TrafficSample[], note: "" })),
  );
  try {
    await stage.join();
    const end = performance.now() + (effort.ms ?? Infinity);
    for (let round = 0; round < effort.rounds; round++) {
      for (const result of results) {
        const { test, card, samples } = result;
        progress(`traffic, round ${round + 1} of ${effort.rounds}: ${test.name}, ${card}`);
        await stage.open(test, card, effort.sampleMs / 2);
        const before = await stage.report();
        samples.push(await stage.sample(effort.sampleMs));
        result.note = doings(before, await stage.report());
        await stage.closeNics();
      }
      if (performance.now() > end) break;
    }
    await stage.finish();
  } finally {
    await stage.close();
  }
  return results.map(({ test, card, samples, note }) =>
    trafficRow({ name: test.name, card, mtu: test.mtu, note }, samples),
  );
}
