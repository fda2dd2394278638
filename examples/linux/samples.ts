/** The measurements: what one card did in one turn. Each verifies what it measures; a fault is an error, not a number. */
import { PatternStream } from "../../test/support/streams.js";
import type { Card } from "./cards.js";
import type { GuestShell } from "./guest.js";
import type { NotificationCounts } from "./notifications.js";

/** What is needed of a lab, which may be in another thread. */
export interface SampleLab {
  readonly machine: Pick<GuestShell, "check">;
}

/** What is needed of a card. */
export interface SampleCard extends Omit<Card, "notifications" | "copied"> {
  readonly notifications: { read(): Promise<NotificationCounts> };
  /** Bytes of payload that the host copied. */
  copied(): number | Promise<number>;
}

/** Kinds of measurement. */
export type SampleKind = "ping" | "small" | "out" | "in";

/** One result. */
export interface Sample extends NotificationCounts {
  /** Median round trip in µs (ping), frames per second (small), bytes per second (out, in). */
  value: number;
  /** Round trips, frames, or full frames' worth of payload: what notifications are divided by. */
  frames: number;
  /** Bytes of frames or payload that were carried; null for round trips. */
  bytes: number | null;
  /** Bytes that the host copied for that. */
  copied: number;
  /** Nanoseconds of processor time of the whole process: guest, host and station. Null in pages, which cannot know it. */
  cpu: number | null;
  /** For people who look at the JSON: everything else that was said. */
  details: Record<string, number>;
}

/** Options of all measurements. */
export interface SampleOptions {
  /** Length of a measurement in ms. */
  ms: number;
  mtu: number;
  /** Seed of the patterns; each stream has one of its own. */
  seed: number;
}

const PORT_OUT = 5001;
const PORT_IN = 5002;
const PORT_LO = 5003;
/** IPv4 and TCP headers with time stamps. */
const TCP_HEADERS = 52;
const SMALL_FRAME = 60;
const SPARE_MS = 60_000;
/** How often frames are sent when nobody knows yet how fast they go. */
const SMALL_COUNT = 4000;

let seeds = 0;

/** `name=value` pairs of a line that netprobe prints. @throws Error when there is no such line */
function fields(output: string, first: string): Record<string, number> {
  const line = output.split("\n").find((candidate) => candidate.startsWith(`${first} `));
  if (line === undefined) throw new Error(`netprobe said nothing of what it ${first}:\n${output}`);
  const result: Record<string, number> = {};
  for (const [, name = "", value] of line.matchAll(/(\w+)=(\d+)/g)) result[name] = Number(value);
  return result;
}

/** Starts a clock of the process's own time; what it returns reads it, in nanoseconds. */
function processorClock(): () => number | null {
  if (!("process" in globalThis)) return () => null;
  const before = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(before);
    return (user + system) * 1000;
  };
}

async function counted(
  card: SampleCard,
  work: () => Promise<Omit<Sample, keyof NotificationCounts | "copied" | "cpu">>,
): Promise<Sample> {
  const before = await card.notifications.read();
  const copied = await card.copied();
  const spent = processorClock();
  const result = await work();
  const cpu = spent();
  const copiedAfter = await card.copied();
  const after = await card.notifications.read();
  return {
    ...result,
    copied: copiedAfter - copied,
    cpu,
    doorbells: after.doorbells - before.doorbells,
    lines: after.lines - before.lines,
    interrupts: after.interrupts - before.interrupts,
  };
}

/** Round trips, one at a time. */
export function samplePing(lab: SampleLab, card: SampleCard, { ms }: SampleOptions): Promise<Sample> {
  return counted(card, async () => {
    const command = `netprobe ping -h ${card.peerAddress} -i ${card.name} -d ${ms}`;
    const details = fields(await lab.machine.check(command, { timeoutMs: ms + SPARE_MS }), "pinged");
    return { value: details.p50! / 1000, frames: details.sent!, bytes: null, details };
  });
}

const rates = new Map<string, number>();

/** Frames of 60 bytes out of the guest, by the kernel's packet generator. All of them must reach the peer. */
export function sampleSmall(lab: SampleLab, card: SampleCard, { ms }: SampleOptions): Promise<Sample> {
  return counted(card, async () => {
    const { machine } = lab;
    const count = Math.max(
      1000,
      Math.round(((rates.get(card.name) ?? (SMALL_COUNT * 1000) / ms) * ms) / 1000),
    );
    const before = card.peer.counters.received.frames;
    const settings = [
      `count ${count}`,
      `pkt_size ${SMALL_FRAME}`,
      "delay 0",
      "clone_skb 0",
      `dst ${card.peerAddress}`,
      `dst_mac ${card.peerMac}`,
    ];
    const file = `/proc/net/pktgen/${card.name}`;
    await machine.check(
      `[ -d /proc/net/pktgen ] || insmod /lib/modules/pktgen.ko; echo rem_device_all >/proc/net/pktgen/kpktgend_0; ` +
        `echo add_device ${card.name} >/proc/net/pktgen/kpktgend_0`,
    );
    for (const setting of settings) await machine.check(`echo "${setting}" >${file}`);
    await machine.check("echo start >/proc/net/pktgen/pgctrl", { timeoutMs: ms * 20 + SPARE_MS });
    const text = await machine.check(`cat ${file}`);
    const found = /Result: OK: (\d+)\([^)]*\) \w+, (\d+) /.exec(text);
    if (found === null) throw new Error(`pktgen did not succeed:\n${text}`);
    const [us, sent] = [Number(found[1]), Number(found[2])];
    const received = card.peer.counters.received.frames - before;
    if (received < count)
      throw new Error(
        `${card.name}: ${count} frames were sent, ${received} came: ${JSON.stringify(card.peer.counters)}`,
      );
    const value = (sent / us) * 1e6;
    rates.set(card.name, value);
    return { value, frames: sent, bytes: sent * SMALL_FRAME, details: { us, sent, received } };
  });
}

/** One TCP stream out of the guest, verified by the peer. */
export function sampleOut(
  lab: SampleLab,
  card: SampleCard,
  { ms, mtu, seed }: SampleOptions,
): Promise<Sample> {
  return counted(card, async () => {
    const streamSeed = seed + ++seeds;
    const streams: PatternStream[] = [];
    card.peer.tcp.listen(PORT_OUT, (context) => {
      const stream = new PatternStream(context, { receiveSeed: streamSeed });
      streams.push(stream);
      return stream;
    });
    try {
      const command = `netprobe tcp-send -h ${card.peerAddress} -p ${PORT_OUT} -d ${ms} -s ${streamSeed}`;
      const details = fields(await lab.machine.check(command, { timeoutMs: ms * 10 + SPARE_MS }), "sent");
      const stream = streams[0];
      if (stream === undefined || stream.received !== details.bytes || stream.patternErrors > 0)
        throw new Error(
          `${card.name}: ${details.bytes} bytes were sent, the peer got ${stream?.received}, ` +
            `${stream?.patternErrors} pieces of them wrong, the first at ${stream?.firstError}`,
        );
      const bytes = details.bytes;
      return { value: (bytes / details.ns!) * 1e9, frames: bytes / (mtu - TCP_HEADERS), bytes, details };
    } finally {
      card.peer.tcp.release(PORT_OUT);
    }
  });
}

/** One TCP stream into the guest, verified there. */
export function sampleIn(
  lab: SampleLab,
  card: SampleCard,
  { ms, mtu, seed }: SampleOptions,
): Promise<Sample> {
  return counted(card, async () => {
    const streamSeed = seed + ++seeds;
    const timers: ReturnType<typeof setTimeout>[] = [];
    let stream: PatternStream | undefined;
    card.peer.tcp.listen(
      PORT_IN,
      (context) => (stream = new PatternStream(context, { send: Infinity, sendSeed: streamSeed })),
      (connection) => {
        const own = stream;
        timers.push(
          setTimeout(() => {
            own?.stop();
            connection.refresh();
          }, ms),
        );
      },
    );
    try {
      const command = `netprobe tcp-receive -h ${card.peerAddress} -p ${PORT_IN} -r ${streamSeed}`;
      const output = await lab.machine.check(command, { timeoutMs: ms * 10 + SPARE_MS });
      const details = fields(output, "received");
      const bytes = details.bytes!;
      return { value: (bytes / details.ns!) * 1e9, frames: bytes / (mtu - TCP_HEADERS), bytes, details };
    } finally {
      for (const timer of timers) clearTimeout(timer);
      card.peer.tcp.release(PORT_IN);
    }
  });
}

/** One TCP stream within the guest: what it could do at most, with both ends to serve. Bytes per second. */
export async function sampleLo(lab: SampleLab, { ms, seed }: SampleOptions): Promise<number> {
  const streamSeed = seed + ++seeds;
  const command =
    `netprobe tcp-receive -p ${PORT_LO} -r ${streamSeed} & ` +
    `netprobe tcp-send -h 127.0.0.1 -p ${PORT_LO} -d ${ms} -s ${streamSeed} && wait $!`;
  const output = await lab.machine.check(command, { timeoutMs: ms * 10 + SPARE_MS });
  const { bytes, ns } = fields(output, "sent");
  return (bytes! / ns!) * 1e9;
}
