/**
 * `npm run guest -- --threads`: one Linux guest with everything in the emulator's thread, and one whose emulator has a
 * thread of its own, measured in turn. What is behind the card is the same program both times.
 *
 *     one thread    v86 ─ venet ─ switch ─ network peer
 *     two threads   v86 ─ venet ─ WorkerPort ║ WorkerPort ─ switch ─ network peer
 */
import { MemorySpace } from "vbus/memory";
import { joinPorts, Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { KINDS } from "../linux/experiment.js";
import { Lab } from "../linux/lab.js";
import type { Pieces } from "../linux/pieces.js";
import { median } from "../linux/report.js";
import {
  sampleIn,
  sampleOut,
  samplePing,
  sampleSmall,
  type SampleCard,
  type SampleLab,
} from "../linux/samples.js";
import { NetPeer } from "../../test/support/net-peer.js";
import { RemoteGuest } from "./remote-guest.js";

const MEASURE = { ping: samplePing, small: sampleSmall, out: sampleOut, in: sampleIn };

/** How it is measured. */
export interface ThreadsOptions {
  pieces: Pieces;
  mtu: number;
  seconds: number;
  rounds: number;
  warmUp: number;
  seed: number;
  /** Polls of the doorbells before the network's thread sleeps. */
  spin: number;
}

/** One measurement: values of each round, and how the threads compare. */
export interface ThreadsRow {
  title: string;
  unit: string;
  one: number;
  two: number;
  /** Two threads in proportion to one. */
  ratio: number;
  spread: [number, number];
}

/** The guest in two threads, as something that samples are taken of. */
export class ThreadsLab implements SampleLab {
  private constructor(
    readonly machine: RemoteGuest,
    readonly card: SampleCard,
    readonly net: Switch,
  ) {}

  /** Starts it. */
  static async open(
    options: Pick<ThreadsOptions, "pieces" | "mtu" | "spin"> & { program?: URL },
  ): Promise<ThreadsLab> {
    const { pieces, mtu, spin, program } = options;
    const scheduler = new EventLoopScheduler();
    const space = await MemorySpace.host();
    const net = new Switch({ scheduler, space });
    const [address, peerAddress, peerMac] = ["10.0.1.2", "10.0.1.1", "02:00:00:00:01:01"];
    const peer = new NetPeer({
      port: net.addPort("peer"),
      scheduler,
      space,
      mac: peerMac,
      ip4: peerAddress,
      mtu,
    });
    const machine = await RemoteGuest.start({
      scheduler,
      spin,
      ...(program === undefined ? {} : { program }),
      pieces,
      mtu,
      mac: "02:00:00:00:01:02",
      address,
    });
    joinPorts(net.addPort("guest"), machine.port);
    await machine.check(`ping -c 1 -W 10 ${peerAddress}`, { timeoutMs: 30_000 });
    const card: SampleCard = {
      name: "eth1",
      what: "venet",
      guestAddress: address,
      peerAddress,
      peerAddress6: "",
      peerMac,
      peer,
      // not compared here
      notifications: { read: () => Promise.resolve({ doorbells: 0, lines: 0, interrupts: 0 }) },
      copied: () => net.counters().copiedBytes,
    };
    return new ThreadsLab(machine, card, net);
  }

  /** Ends it. */
  async close(): Promise<void> {
    await this.machine.close();
    this.card.peer.close();
    this.net.close();
  }
}

/** Measures both set-ups in turn. They exist side by side; the one that is not measured is idle. */
export async function runThreads(
  options: ThreadsOptions,
  progress: (message: string) => void,
): Promise<ThreadsRow[]> {
  const { pieces, mtu, seconds, rounds, warmUp, seed } = options;
  // the one in two threads first: see RemoteGuest.start
  const two = await ThreadsLab.open(options);
  const one = await Lab.open({ pieces, cards: ["eth1"], mtu, progress });
  try {
    const sampling = { ms: Math.round(seconds * 1000), mtu, seed };
    const values = KINDS.map(() => ({ one: [] as number[], two: [] as number[] }));
    for (let round = -warmUp; round < rounds; round++) {
      const name = round < 0 ? "warming up" : `round ${round + 1} of ${rounds}`;
      for (const [i, { kind, title, unit, scale }] of KINDS.entries()) {
        const turns = [
          ["one", one, one.card("eth1")],
          ["two", two, two.card],
        ] as const;
        for (const [who, lab, card] of round % 2 === 0 ? turns : [...turns].reverse()) {
          const sample = await MEASURE[kind](lab, card, sampling);
          progress(`${name}: ${who} thread(s), ${title} ${(sample.value / scale).toFixed(1)} ${unit}`);
          if (round >= 0) values[i]![who].push(sample.value / scale);
        }
      }
    }
    return KINDS.map(({ title, unit }, i) => {
      const { one: alone, two: apart } = values[i]!;
      const ratios = apart.map((value, round) => value / alone[round]!);
      return {
        title,
        unit,
        one: median(alone),
        two: median(apart),
        ratio: median(apart) / median(alone),
        spread: [Math.min(...ratios), Math.max(...ratios)],
      };
    });
  } finally {
    await one.close();
    await two.close();
  }
}

/** The table. */
export function formatThreads(rows: readonly ThreadsRow[], { seconds, rounds, mtu }: ThreadsOptions): string {
  const lines = [["", "", "one thread", "two threads", "ratio", "spread"]];
  for (const { title, unit, one, two, ratio, spread } of rows)
    lines.push([
      title,
      unit,
      one.toFixed(1),
      two.toFixed(1),
      `${ratio.toFixed(2)} x`,
      spread.map((value) => value.toFixed(2)).join(" … "),
    ]);
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  const text = lines.map((line) =>
    line
      .map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join("  ")
      .trimEnd(),
  );
  text.push(
    "",
    `venet in a Linux guest, MTU ${mtu}, medians over ${rounds} round(s) of ${seconds} s each, in turn; spread: ratios of single rounds.`,
    "Less is better for ping. Every byte of the TCP streams was verified at the other end, every 60-byte frame counted there.",
  );
  return `${text.join("\n")}\n`;
}
