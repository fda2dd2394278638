/** One end of a connection between two threads, with random traffic (`test/stress/thread-ports.test.ts`). */
import { parentPort, workerData, type MessagePort } from "node:worker_threads";
import { MemorySpace } from "vbus/memory";
import { HostFrames, type Batch } from "vbus/net";
import {
  MessagePortPort,
  WorkerPort,
  type FrameLink,
  type FrameMessagePort,
  type ThreadPortCounters,
} from "vbus/net/threads";
import { EventLoopScheduler } from "vbus/scheduler";
import { generator } from "../engine/seed.js";
import { frame, serialOf, station } from "../net/rig.js";

/** What the thread is given. */
export interface PortTrafficWork {
  /** Over shared memory … */
  link?: FrameLink;
  side: "host" | "guest";
  /** … or over messages. */
  port?: MessagePort | globalThis.MessagePort;
  seed: number;
  /** How long it sends, in ms. */
  ms: number;
  /** Polls before it sleeps. */
  spin: number;
}

/** What it says when it has sent all and got all. */
export interface PortTrafficReport {
  sent: number;
  got: number;
  /** What was wrong with what came. */
  faults: string[];
}

/** What it says at last. */
export interface PortTrafficEnd {
  counters: ThreadPortCounters;
  balanced: boolean;
}

const { link, side, port: channel, seed, ms, spin } = workerData as PortTrafficWork;
const random = generator(seed);
const scheduler = new EventLoopScheduler();
const space = await MemorySpace.host();
const port =
  link === undefined
    ? new MessagePortPort(channel as unknown as FrameMessagePort, { scheduler, space, frames: 128 })
    : await WorkerPort.open(link, { side, scheduler, spin });

const END = 0x8000_0000;
const faults: string[] = [];
let got = 0;
let expected = Infinity;
let room = 0;
let opening = false;
let finish: () => void = () => undefined;
const finished = new Promise<void>((resolve) => (finish = resolve));
let wake: () => void = () => undefined;

function open(): void {
  opening = false;
  room += 1 + (random() % 200);
  port.ready();
}

function later(): void {
  if (opening) return;
  opening = true;
  if (random() % 4 === 0) setTimeout(open, random() % 3);
  else setImmediate(open);
}

/** Length and contents follow from the number. */
function lengthOf(serial: number): number {
  return serial % 64 === 0 ? 9000 + (serial % 50_000) : 60 + ((serial * 397) % 1440);
}

port.attach({
  receive: (batch: Batch, from: number, to: number) => {
    const n = Math.min(to - from, room);
    for (let i = from; i < from + n; i++) {
      const bytes = batch.bytes(i);
      const serial = serialOf(bytes);
      if (serial >= END) {
        expected = serial - END;
        continue;
      }
      if (serial !== got) faults.push(`frame ${serial} instead of ${got}`);
      else if (random() % 16 === 0) {
        const right = frame(station(2), station(1), serial, lengthOf(serial));
        if (Buffer.compare(bytes, right) !== 0) faults.push(`frame ${serial} is not what was sent`);
      }
      got++;
    }
    room -= n;
    if (n < to - from) later();
    if (got === expected) finish();
    return n;
  },
  writable: () => {
    wake();
  },
});

async function send(host: HostFrames): Promise<void> {
  const { count } = host.batch;
  for (let at = 0; at < count;) {
    const roomAgain = new Promise<void>((resolve) => (wake = resolve));
    const taken = port.transmit(host.batch, at, count);
    at += taken;
    if (at < count) await roomAgain;
  }
}

if (port instanceof WorkerPort) await port.whenUp();
else while (port.sides === 0) await new Promise((resolve) => setTimeout(resolve, 1));
parentPort!.postMessage("up");

parentPort!.on("message", (order: string) => {
  void (async () => {
    if (order === "died" && port instanceof WorkerPort) port.otherDied();
    if (order === "close") port.close();
    if (!(port instanceof WorkerPort)) await (order === "close" ? port.closed : undefined);
    parentPort!.postMessage({
      counters: port.counters(),
      balanced: port.balance().balanced,
    } satisfies PortTrafficEnd);
    if (order === "close") process.exit();
  })();
});

const host = new HostFrames(space, 64, 4 << 20);
const until = Date.now() + ms;
let sent = 0;
while (Date.now() < until) {
  host.clear();
  for (let n = 1 + (random() % 64); n > 0; n--) {
    host.add(frame(station(2), station(1), sent, lengthOf(sent)));
    sent++;
  }
  await send(host);
  const pause = random() % 16;
  if (pause === 0) await new Promise((resolve) => setTimeout(resolve, random() % 4));
  else if (pause < 6) await new Promise((resolve) => setImmediate(resolve));
}
host.clear();
host.add(frame(station(2), station(1), END + sent));
await send(host);
await finished;
parentPort!.postMessage({ sent, got, faults: faults.slice(0, 5) } satisfies PortTrafficReport);
