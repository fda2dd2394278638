/** Two guests in threads of their own, and the host with its switch in a third: what all traffic figures are taken on. */
import process from "node:process";
import { allocateGuestMemory } from "vbus/memory";
import { BenchThread } from "../harness/thread.js";
import type { TrafficSample } from "../harness/traffic-result.js";
import type { CardOrder, TrafficCard } from "./card.js";
import type { TrafficCase } from "./traffic-cases.js";
import type {
  TrafficGuestCounters,
  TrafficPlanOrder,
  TrafficReceived,
  TrafficSent,
  TrafficTrips,
} from "./traffic-guest.js";
import type { TrafficGuestOrder, TrafficHostReport } from "./traffic-host.js";

const GUEST_RAM = 32 << 20;
const [SENDER, RECEIVER] = [1, 2] as const;
const GREET_MS = 5000;
const ARRIVE_MS = 20_000;

/** Doorbells, interrupts and copied bytes of everybody on the way from A to B, since the cards were opened. */
interface Totals {
  doorbells: number;
  interrupts: number;
  copied: number;
}

/** The threads: a host with a switch, guest A, guest B. Frames go from A to B. */
export class TrafficStage {
  readonly #threads: BenchThread[] = [];
  readonly #host = this.#start("traffic-host");
  readonly #a = this.#start("traffic-guest");
  readonly #b = this.#start("traffic-guest");

  #start(program: string): BenchThread {
    const thread = new BenchThread(new URL(`./${program}.js`, import.meta.url), `bench-${program}`);
    this.#threads.push(thread);
    return thread;
  }

  /** Puts both guests on the bus of the host. Once, before anything else. */
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
    const order = (offloads: TrafficCase["sender"]): CardOrder => ({
      card,
      mtu,
      transmit: offloads,
      receive: offloads,
    });
    await this.#a.call("open", order(sender));
    await this.#b.call("open", order(receiver));
    const flow: TrafficPlanOrder = { plan, from: SENDER, to: RECEIVER };
    await this.#a.call("prepare", flow);
    await this.#b.call("expect", flow);
    await this.#b.call("greet");
    await this.#a.call("greeted", { timeoutMs: GREET_MS });
    if (warmMs > 0) await this.sample(warmMs);
  }

  /** Gives both cards back. */
  async closeNics(): Promise<void> {
    for (const guest of [this.#a, this.#b]) await guest.call("close");
  }

  /** What the host counted. */
  report(): Promise<TrafficHostReport> {
    return this.#host.call("report");
  }

  /** A report of a host that has nothing to complain of. @throws Error */
  async #healthy(): Promise<TrafficHostReport> {
    const report = await this.report();
    if (report.errors.length > 0) throw new Error(`the host: ${report.errors.join("; ")}`);
    return report;
  }

  async #totals(): Promise<Totals> {
    const { nics, copied } = await this.#healthy();
    const a = await this.#a.call<TrafficGuestCounters>("counters");
    const b = await this.#b.call<TrafficGuestCounters>("counters");
    return {
      doorbells: a.doorbells.tx + b.doorbells.rx,
      interrupts: (nics["A"]?.interrupts.tx ?? 0) + (nics["B"]?.interrupts.rx ?? 0),
      copied: a.copied + copied,
    };
  }

  /** Round trips of one small frame, A to B and back, so many one after the other. Cards are open. */
  async trips(count: number): Promise<TrafficTrips & { doorbells: number; interrupts: number }> {
    await this.#b.call("echo", { from: RECEIVER, to: SENDER });
    const before = await this.#signals();
    const found = await this.#a.call<TrafficTrips>("trips", { from: SENDER, to: RECEIVER, count });
    const after = await this.#signals();
    return {
      ...found,
      doorbells: after.doorbells - before.doorbells,
      interrupts: after.interrupts - before.interrupts,
    };
  }

  /** Signals of all rings, for both ways. */
  async #signals(): Promise<Omit<Totals, "copied">> {
    const { nics } = await this.#healthy();
    const sum = ({ rx, tx }: { rx: number; tx: number }): number => rx + tx;
    const guests = [this.#a, this.#b].map((guest) => guest.call<TrafficGuestCounters>("counters"));
    const bells = (await Promise.all(guests)).map(({ doorbells }) => sum(doorbells));
    return {
      doorbells: bells.reduce((all, one) => all + one, 0),
      interrupts: Object.values(nics).reduce((all, { interrupts }) => all + sum(interrupts), 0),
    };
  }

  /** Sends for so long, and waits until everything has arrived. @throws Error when something did not */
  async sample(ms: number): Promise<TrafficSample> {
    await this.#b.call("reset");
    const before = await this.#totals();
    const cpu = process.cpuUsage();
    const sent = await this.#a.call<TrafficSent>("send", { ms });
    const { payload } = sent;
    let arrived: TrafficReceived;
    try {
      arrived = await this.#b.call<TrafficReceived>("received", { payload, timeoutMs: ARRIVE_MS });
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      throw new Error(`${what}; the host says ${JSON.stringify(await this.report())}`, { cause: error });
    }
    const { user, system } = process.cpuUsage(cpu);
    const after = await this.#totals();
    const doorbells = after.doorbells - before.doorbells;
    const interrupts = after.interrupts - before.interrupts;
    return {
      cpu: (user + system) * 1000,
      frames: sent.frames,
      bytes: sent.bytes,
      seconds: (arrived.last - sent.started) / 1000,
      payload,
      received: arrived.frames,
      signals: doorbells + interrupts,
      doorbells,
      interrupts,
      copied: after.copied - before.copied,
      verified: arrived.verified,
    };
  }

  /** Ends all threads, wherever they are. */
  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  /** The host ends everything. @throws Error when something went wrong meanwhile */
  async finish(): Promise<void> {
    const errors = await this.#host.call<string[]>("finish");
    if (errors.length > 0) throw new Error(`the host of the traffic figures: ${errors.join("; ")}`);
  }
}
