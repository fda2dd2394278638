/**
 * A page that exchanges frames with another thread or with other tabs, as its query says, and writes what it found; see
 * `threads.test.ts`.
 */
import { MemorySpace } from "vbus/memory";
import { HostFrames, joinPorts, OFFLOAD_ALL, Switch, type Batch, type Port } from "vbus/net";
import {
  BroadcastChannelPort,
  createFrameLink,
  MessagePortPort,
  WorkerPort,
  type ChannelPort,
  type ThreadPortCounters,
} from "vbus/net/threads";
import { EventLoopScheduler } from "vbus/scheduler";
import type { PortWorkerStart } from "./port-worker.js";

/** What a page found. */
export interface PortOutcome {
  isolated: boolean;
  /** Frames sent. */
  sent: number;
  /** Frames that came as they were sent, in order. */
  intact: number;
  counters: ThreadPortCounters;
  balanced: boolean;
}

const query = new URLSearchParams(location.search);
const COUNT = 2000;
const scheduler = new EventLoopScheduler();
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function frameOf(to: number, from: number, serial: number): Uint8Array {
  const bytes = new Uint8Array(60 + ((serial * 397) % 8000));
  bytes.set([2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]);
  new DataView(bytes.buffer).setUint32(14, serial);
  for (let i = 18; i < bytes.length; i++) bytes[i] = (serial + i) & 0xff;
  return bytes;
}

/** Sends COUNT frames from one station to another, and takes what comes from there. */
class Traffic {
  intact = 0;
  got = 0;
  #writable: () => void = () => undefined;

  constructor(
    private readonly port: Port,
    private readonly own: number,
    private readonly other: number,
    /** Whether what comes was sent by the other, or by us. */
    echoes: boolean,
  ) {
    port.attach({
      offloads: OFFLOAD_ALL,
      receive: (batch: Batch, from: number, to: number) => {
        for (let i = from; i < to; i++) {
          const expected = echoes ? frameOf(other, own, this.got) : frameOf(own, other, this.got);
          const bytes = batch.bytes(i);
          if (bytes.length === expected.length && bytes.every((byte, at) => byte === expected[at]))
            this.intact++;
          this.got++;
        }
        return to - from;
      },
      writable: () => {
        this.#writable();
      },
    });
  }

  /** Sends frames [first, end). */
  async send(space: MemorySpace, first = 0, end = COUNT): Promise<void> {
    const frames = new HostFrames(space, 32, 1 << 19);
    for (let serial = first; serial < end;) {
      frames.clear();
      while (serial < end && frames.add(frameOf(this.other, this.own, serial))) serial++;
      for (let at = 0; at < frames.batch.count;) {
        const room = new Promise<void>((resolve) => (this.#writable = resolve));
        at += this.port.transmit(frames.batch, at, frames.batch.count);
        if (at < frames.batch.count) await room;
      }
    }
  }

  async receive(count = COUNT): Promise<void> {
    while (this.got < count) await pause(5);
  }
}

function outcome(traffic: Traffic, port: WorkerPort | ChannelPort): PortOutcome {
  return {
    isolated: crossOriginIsolated,
    sent: COUNT,
    intact: traffic.intact,
    counters: port.counters(),
    balanced: port.balance().balanced,
  };
}

/** A worker that echoes. */
async function echo(): Promise<PortOutcome> {
  const space = await MemorySpace.host();
  const worker = new Worker(new URL("./port-worker.js", import.meta.url), { type: "module" });
  let port: WorkerPort | ChannelPort;
  if (query.get("over") === "memory") {
    const link = createFrameLink();
    port = await WorkerPort.open(link, { side: "host", scheduler });
    worker.postMessage({ link } satisfies PortWorkerStart);
    await port.whenUp();
  } else {
    const { port1, port2 } = new MessageChannel();
    port = new MessagePortPort(port1, { scheduler, space });
    worker.postMessage({ port: port2 } satisfies PortWorkerStart, [port2]);
    while (port.sides === 0) await pause(1);
  }
  const traffic = new Traffic(port, 1, 2, true);
  await traffic.send(space);
  await traffic.receive();
  while (port.counters().inFlight > 0) await pause(1);
  worker.terminate();
  return outcome(traffic, port);
}

/** One of two tabs, each with a switch and a station. */
async function tab(): Promise<PortOutcome> {
  const own = Number(query.get("own"));
  const other = 3 - own;
  const space = await MemorySpace.host();
  const net = new Switch({ scheduler, space, stallMs: 60_000 }); // tabs may get few turns
  const port = new BroadcastChannelPort({
    scheduler,
    space,
    channel: query.get("channel") ?? "",
    stallMs: 60_000,
  });
  joinPorts(net.addPort("tabs"), port);
  const traffic = new Traffic(net.addPort("station"), own, other, false);
  while (port.sides === 0) await pause(5);
  await traffic.send(space, 0, 1);
  await traffic.receive(1); // now the switches know where the stations are: nothing is flooded, nothing is lost
  await traffic.send(space, 1);
  await traffic.receive();
  while (port.counters().inFlight > 0) await pause(5);
  const found = outcome(traffic, port);
  port.close();
  await port.closed;
  return { ...found, counters: port.counters(), balanced: found.balanced && net.balance().balanced };
}

const target = document.querySelector("#outcome");
try {
  if (target === null) throw new Error("no place for the outcome");
  target.textContent = JSON.stringify(await (query.has("own") ? tab() : echo()));
  document.documentElement.dataset.state = "done";
} catch (error) {
  if (target !== null)
    target.textContent = error instanceof Error ? (error.stack ?? error.message) : String(error);
  document.documentElement.dataset.state = "failed";
}
