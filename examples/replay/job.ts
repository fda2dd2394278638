/**
 * The job: a host thread with one bus and a switch, two guests in threads and memories of their own, a capture replayed
 * through their NICs and checked. The same in Node and in a page; what differs comes in as {@link JobEnvironment}.
 */
import type { VenetStatistics } from "vbus/devices/venet";
import type { NicStatistics } from "vbus/drivers/venet";
import type { QueueCounters } from "vbus/engine";
import { allocateGuestMemory } from "vbus/memory";
import { formatMac, type PortCounters, type FrameBalance, type OffloadCounters } from "vbus/net";
import { copyThroughDisk, runSuperframes, type DiskResult, type SuperframeResult } from "./showcase.js";
import { loadWorkload, packFrames, type FramePack, type Workload } from "./frames.js";
import type { PingOrder, ReceiveResult } from "./guest.js";
import type { HostCapture, HostStart } from "./host.js";
import type { JobOptions } from "./options.js";
import { Thread } from "./threads.js";

/** What the surroundings provide. */
export interface JobEnvironment {
  /** Where the built worker programs are. */
  host: URL;
  guest: URL;
  /** The capture file. */
  capture: Uint8Array<ArrayBuffer>;
  /** A capture of superframes with a virtio_net_hdr before each (link type 147); null: no such run. */
  superframes: Uint8Array<ArrayBuffer> | null;
  /** Where the host writes its capture: a path in Node, null in a page (it comes back as bytes). */
  capturePath: string | null;
  /** How long a receiver waits for a frame that does not come, in ms; default 3000. */
  quietMs?: number;
  /** Told what happens. */
  log: (line: string) => void;
  /** Told how far a phase is (0 … 1). */
  progress: (phase: string, done: number, framesPerSecond: number) => void;
}

/** What the host reports. */
export interface HostReport {
  tree: string;
  balance: FrameBalance;
  /** What the switch did to frames that needed something. */
  offload: OffloadCounters;
  ports: Record<string, PortCounters>;
  nics: Record<
    string,
    { statistics: VenetStatistics; queues: { rx: QueueCounters | null; tx: QueueCounters | null } | null }
  >;
  errors: string[];
}

/** One direction of one phase. */
export interface DirectionResult {
  phase: string;
  from: string;
  to: string;
  frames: number;
  unicast: number;
  flooded: number;
  bytes: number;
  framesPerSecond: number;
  gigabitsPerSecond: number;
  signalsPerThousand: number;
  suppressedPerThousand: number;
  received: ReceiveResult;
}

/** Round trips with one frame outstanding, in microseconds. */
export interface LatencyResult {
  from: string;
  to: string;
  rounds: number;
  lost: number;
  p50: number;
  p99: number;
}

/** The frame equation over the whole run. */
export interface Equation {
  /** Frames that the guests' drivers put into their rings. */
  sent: number;
  /** Extra copies that the switch made by flooding, and the fault injector by duplicating. */
  replicated: number;
  /** Frames that the guests' drivers took out of their rings. */
  delivered: number;
  /** Drops by place and reason. */
  drops: Record<string, number>;
  /** Frames in rings and queues. */
  inFlight: number;
  /** True when sent + replicated = delivered + drops + in flight. */
  balanced: boolean;
}

/** What a run found. */
export interface JobResult {
  options: JobOptions;
  workload: { a: number; b: number; left: number; unfit: number; mirrored: boolean };
  tree: string;
  directions: DirectionResult[];
  latency: LatencyResult[];
  /** Null when faults were asked for, or there is no capture of superframes. */
  superframes: SuperframeResult | null;
  disk: DiskResult;
  equation: Equation;
  capture: HostCapture | null;
  /**
   * True when every frame arrived unchanged and in order (without faults; flooded ones may be lost, but not unseen), and
   * the equation holds.
   */
  ok: boolean;
  complaints: string[];
}

const NAMES = ["A", "B"] as const;
/** Guest RAM beside frame buffers, and the least that a guest gets. */
const RAM_BESIDE = 4 << 20;
const RAM_LEAST = 32 << 20;
const QUIET_MS = 3000;
/** How long a latency run waits for an answer, and may take in all. */
const ANSWER_MS = 1000;
const ANSWER_FAULTS_MS = 200;
const LATENCY_MS = 10_000;

/** Room for a buffer in every descriptor of both rings, rounded as the driver aligns them. */
function guestRam({ rxRing, txRing, mtu }: JobOptions): number {
  const buffer = (mtu + 18 + 63) & ~63;
  return Math.max(RAM_LEAST, RAM_BESIDE + (rxRing + txRing) * buffer);
}

/** A running job; stop it by {@link Job.close}. */
export class Job {
  #started: Thread | null = null;
  #guests: Thread[] = [];
  #workload!: Workload;
  #complaints: string[] = [];

  constructor(
    private readonly options: JobOptions,
    private readonly environment: JobEnvironment,
  ) {}

  /** The guests' threads that run so far, A's first. Ending one ends the run with an error. */
  get guests(): readonly Thread[] {
    return this.#guests;
  }

  get #host(): Thread {
    if (this.#started === null) throw new Error("the job has not started its host yet");
    return this.#started;
  }

  /** Starts the threads, brings the links up, runs all phases. */
  async run(): Promise<JobResult> {
    const { options, environment } = this;
    this.#workload = await loadWorkload(environment.capture, options.mtu);
    const { a, b, left, unfit, mirrored } = this.#workload;
    environment.log(
      `capture: guest A owns ${formatMac(a.mac)} and sends ${a.frames.length} frames, ` +
        `guest B owns ${formatMac(b.mac)} and sends ${b.frames.length}` +
        (mirrored ? " (one way is the other, mirrored)" : "") +
        (left > 0 ? `; ${left} frames between other stations left out` : "") +
        (unfit > 0
          ? `; ${unfit} frames left out that are cut off, too short, longer than the MTU allows, or no Ethernet`
          : ""),
    );
    await this.#start();
    const before = await this.#host.call<HostReport>("report");
    environment.log(before.tree);

    const directions: DirectionResult[] = [];
    const packs = [packFrames(a.frames), packFrames(b.frames)] as const;
    directions.push(...(await this.#phase("A to B", [packs[0], null])));
    directions.push(...(await this.#phase("B to A", [null, packs[1]])));
    directions.push(...(await this.#phase("both at once", [packs[0], packs[1]])));
    const latency = options.rounds > 0 ? [await this.#latency(0, 1), await this.#latency(1, 0)] : [];
    for (const guest of this.#guests) await guest.call("settle", { ms: 50 });

    const report = await this.#host.call<HostReport>("report");
    const equation = await this.#equation(report);
    if (!equation.balanced) this.#complaints.push("the frame equation does not hold");
    for (const error of report.errors) this.#complaints.push(`host: ${error}`);
    const showcase = await this.#showcase(directions);
    for (const guest of this.#guests) await guest.call("close");
    const capture = await this.#host.call<HostCapture | null>("finish");
    const { faults } = options;
    const dropped = Object.values(equation.drops).reduce((sum, n) => sum + n, 0);
    const flooded = directions.reduce((sum, { received }) => sum + received.missingFlooded, 0);
    if (faults === null && dropped > flooded)
      this.#complaints.push(`${dropped - flooded} frames were dropped`);
    return {
      options,
      workload: { a: a.frames.length, b: b.frames.length, left, unfit, mirrored },
      tree: report.tree,
      directions,
      latency,
      ...showcase,
      equation,
      capture,
      ok: this.#complaints.length === 0,
      complaints: this.#complaints,
    };
  }

  async #start(): Promise<void> {
    const { options, environment } = this;
    this.#started = await Thread.start(environment.host, "vbus-host");
    const { a, b } = this.#workload;
    await this.#host.call("start", {
      options,
      capturePath: environment.capturePath,
      stations: 2 + a.stations.length + b.stations.length,
    } satisfies HostStart);
    for (const [i, name] of NAMES.entries()) {
      const { mac } = i === 0 ? a : b;
      const init = allocateGuestMemory({ size: guestRam(options), shared: true });
      await this.#host.call("addGuest", { name, init, mac: formatMac(mac), mtu: options.mtu });
      const life = `vbus-replay-${name}-${crypto.randomUUID()}`;
      const guest = await Thread.start(environment.guest, `vbus-guest-${name}`, life);
      guest.onExit = (reason) => {
        // the host is told at once; a guest that ends by itself at the end of the run is none of its business any more
        this.#host.call("guestDied", { name, reason: reason.message }).catch(() => undefined);
      };
      this.#guests.push(guest);
      const found = await guest.call<{ modalias: string; id: number }>("start", {
        name,
        life,
        init,
        timeoutMs: 10_000,
        // linear: the replay compares frame by frame, so nobody may merge any
        nic: {
          rxRing: options.rxRing,
          txRing: options.txRing,
          mtu: options.mtu,
          lazyIndexes: options.lazy,
          offloads: false,
        },
      });
      environment.log(`guest ${name}: found ${found.modalias} as device ${found.id}`);
    }
    for (const guest of this.#guests) await guest.call("open");
    for (const guest of this.#guests) await guest.call("announce");
    await this.#guest(0).call("introduce", { stations: a.stations, to: b.mac });
    await this.#guest(1).call("introduce", { stations: b.stations, to: a.mac });
    for (const guest of this.#guests) await guest.call("settle", { ms: 50 });
  }

  /** Superframes, and the disk: what the run shows beside the replay, without faults. */
  async #showcase(
    directions: readonly DirectionResult[],
  ): Promise<{ superframes: SuperframeResult | null; disk: DiskResult }> {
    const guests = [this.#guest(0), this.#guest(1)] as const;
    const { superframes: file, capture, quietMs = QUIET_MS, log } = this.environment;
    let superframes: SuperframeResult | null = null;
    if (file !== null && this.options.faults === null) {
      const macs = [this.#workload.a.mac, this.#workload.b.mac] as const;
      const mtu = directions[0]?.gigabitsPerSecond ?? NaN;
      superframes = await runSuperframes(this.#host, guests, this.options, file, macs, mtu, quietMs);
      const { received, frames } = superframes;
      if (received.matched + received.missingFlooded !== frames || received.unexpected > 0) {
        this.#complaints.push(
          `superframes: B got ${received.matched} of ${frames} as sent, ${received.unexpected} others` +
            (received.complaint === null ? "" : ` (${received.complaint})`),
        );
      }
    }
    log("copying the capture through the block device");
    const disk = await copyThroughDisk(guests, capture);
    if (!disk.verified) this.#complaints.push("guest B read something else from the disk than guest A wrote");
    return { superframes, disk };
  }

  /** Replays in one or both directions at once, measures, checks. */
  async #phase(
    phase: string,
    packs: readonly [FramePack | null, FramePack | null],
  ): Promise<DirectionResult[]> {
    const { repetitions, batch, faults } = this.options;
    const { quietMs = QUIET_MS } = this.environment;
    const active = packs.flatMap((pack, from) =>
      pack === null || pack.lengths.length === 0 ? [] : [{ pack, from, to: 1 - from }],
    );
    for (const { pack, to } of active)
      await this.#guest(to).call("expect", { pack, repetitions, tolerant: faults !== null });
    const before = await this.#snapshot();
    const expected = active.reduce((sum, { pack }) => sum + pack.lengths.length * repetitions, 0);
    const watch = this.#watch(phase, expected, before.report);
    const results: DirectionResult[] = [];
    try {
      const sending = active.map(({ pack, from }) =>
        this.#guest(from).call<{ frames: number; started: number }>("send", { pack, repetitions, batch }),
      );
      const sent = await Promise.all(sending);
      const received = await Promise.all(
        active.map(({ to }) => this.#guest(to).call<ReceiveResult>("received", { quietMs })),
      );
      const after = await this.#snapshot();
      for (const [i, { from, to, pack }] of active.entries()) {
        const result = received[i] as ReceiveResult;
        const { frames, started } = sent[i] as { frames: number; started: number };
        const seconds = Math.max(result.last - started, 0.001) / 1000;
        const flooded =
          pack.offsets.filter((offset) => ((pack.bytes[offset] as number) & 1) !== 0).length * repetitions;
        const signals = this.#signals(before, after, from, to);
        results.push({
          phase,
          from: NAMES[from] as string,
          to: NAMES[to] as string,
          frames,
          unicast: frames - flooded,
          flooded,
          bytes: result.bytes,
          framesPerSecond: (result.matched + result.unexpected) / seconds,
          gigabitsPerSecond: (result.bytes * 8) / seconds / 1e9,
          signalsPerThousand: (signals.sent / frames) * 1000,
          suppressedPerThousand: (signals.suppressed / frames) * 1000,
          received: result,
        });
        const arrived = result.matched + result.missingFlooded;
        if (faults === null && (arrived !== frames || result.unexpected > 0)) {
          this.#complaints.push(
            `${phase}: ${NAMES[to]} got ${result.matched} of ${frames} frames as sent, ${result.unexpected} others` +
              (result.complaint === null ? "" : ` (${result.complaint})`),
          );
        }
      }
    } finally {
      watch();
    }
    for (const guest of this.#guests) await guest.call("settle", { ms: 1 });
    return results;
  }

  #guest(i: number): Thread {
    return this.#guests[i] as Thread;
  }

  async #snapshot(): Promise<{ report: HostReport; guests: NicStatistics[] }> {
    const report = await this.#host.call<HostReport>("report");
    return {
      report,
      guests: await Promise.all(this.#guests.map((guest) => guest.call<NicStatistics>("statistics"))),
    };
  }

  /** Notifications of all four rings' ends that a direction uses. */
  #signals(
    before: { report: HostReport; guests: NicStatistics[] },
    after: { report: HostReport; guests: NicStatistics[] },
    from: number,
    to: number,
  ): { sent: number; suppressed: number } {
    const ends = (snapshot: {
      report: HostReport;
      guests: NicStatistics[];
    }): (QueueCounters | null | undefined)[] => [
      snapshot.guests[from]?.txQueue,
      snapshot.report.nics[`nic${from}`]?.queues?.tx,
      snapshot.report.nics[`nic${to}`]?.queues?.rx,
      snapshot.guests[to]?.rxQueue,
    ];
    const sum = (
      list: (QueueCounters | null | undefined)[],
      value: (counters: QueueCounters) => number,
    ): number => list.reduce((total, counters) => total + (counters ? value(counters) : 0), 0);
    const suppressed = (counters: QueueCounters): number => counters.suppressed + counters.masked;
    return {
      sent: sum(ends(after), (c) => c.sent) - sum(ends(before), (c) => c.sent),
      suppressed: sum(ends(after), suppressed) - sum(ends(before), suppressed),
    };
  }

  /** Reports progress until the returned function is called. */
  #watch(phase: string, expected: number, before: HostReport): () => void {
    const delivered = (report: HostReport): number => report.balance.delivered;
    const start = delivered(before);
    let last = { at: performance.now(), delivered: start };
    const timer = setInterval(() => {
      this.#host
        .call<HostReport>("report")
        .then((report) => {
          const now = performance.now();
          const count = delivered(report);
          const rate = ((count - last.delivered) / Math.max(now - last.at, 1)) * 1000;
          last = { at: now, delivered: count };
          this.environment.progress(phase, Math.min((count - start) / Math.max(expected, 1), 1), rate);
        })
        .catch(() => undefined); // the phase itself reports a dead host
    }, 500);
    return () => {
      clearInterval(timer);
    };
  }

  async #latency(from: number, to: number): Promise<LatencyResult> {
    const { faults } = this.options;
    const { frames } = from === 0 ? this.#workload.a : this.#workload.b;
    const frame = frames.find((f) => ((f[0] as number) & 1) === 0 && f.length >= 60) ?? frames[0];
    if (frame === undefined) throw new Error("a guest without frames has nothing to measure latency with");
    await this.#guest(to).call("reflect");
    const { rounds, times } = await this.#guest(from).call<{ rounds: number; times: number[] }>("ping", {
      frame,
      rounds: this.options.rounds,
      timeoutMs: faults === null ? ANSWER_MS : ANSWER_FAULTS_MS + 2 * faults.delayMs,
      limitMs: LATENCY_MS,
    } satisfies PingOrder);
    await this.#guest(to).call("settle", { ms: 1 });
    times.sort((x, y) => x - y);
    const percentile = (p: number): number =>
      times[Math.min(times.length - 1, Math.floor(times.length * p))] ?? NaN;
    return {
      from: NAMES[from] as string,
      to: NAMES[to] as string,
      rounds,
      lost: rounds - times.length,
      p50: percentile(0.5),
      p99: percentile(0.99),
    };
  }

  /** The equation from ring to ring: what the drivers sent, against what the drivers got and what is accounted for. */
  async #equation(report: HostReport): Promise<Equation> {
    const guests = await Promise.all(this.#guests.map((guest) => guest.call<NicStatistics>("statistics")));
    const sent = guests.reduce((sum, guest) => sum + guest.tx_packets, 0);
    const delivered = guests.reduce((sum, guest) => sum + guest.rx_packets, 0);
    const drops: Record<string, number> = {};
    const add = (place: string, counts: Record<string, number | undefined>): void => {
      for (const [reason, n] of Object.entries(counts))
        if (n !== undefined && n > 0) drops[`${place}: ${reason}`] = n;
    };
    let inRings = sent + 0;
    let inReceiveRings = -delivered - guests.reduce((sum, guest) => sum + guest.rx_length_errors, 0);
    for (const [name, { statistics }] of Object.entries(report.nics)) {
      inRings -= statistics.tx.frames;
      inReceiveRings += statistics.rx.passed;
      add(`${name} tx`, statistics.tx.drops);
      add(`${name} rx`, statistics.rx.drops);
    }
    add("switch", report.balance.drops);
    for (const [i, guest] of guests.entries())
      add(`guest ${NAMES[i] as string}`, { rx_length_errors: guest.rx_length_errors });
    const { replicated } = report.balance;
    const inFlight = inRings + inReceiveRings + report.balance.inFlight;
    const dropped = Object.values(drops).reduce((sum, n) => sum + n, 0);
    return {
      sent,
      replicated,
      delivered,
      drops,
      inFlight,
      balanced: sent + replicated === delivered + dropped + inFlight && inFlight >= 0,
    };
  }

  /** Ends all threads. Harmless at any time. */
  close(): void {
    for (const guest of this.#guests) {
      guest.onExit = null;
      guest.terminate();
    }
    this.#started?.terminate();
  }
}
