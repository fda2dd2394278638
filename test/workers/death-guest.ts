// A guest in a thread of its own that streams numbered frames, checks those of others, and ends in many ways.
import { connectWorkerHost } from "vbus/connectors/worker";
import { ProxyBus, type GuestTransport } from "vbus/drivers";
import { VenetDriver, type VenetNic, type VenetOptions } from "vbus/drivers/venet";
import { VbusError } from "vbus/engine";
import type { GuestMemoryInit } from "vbus/memory";
import type { Batch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";

import { serve } from "../../examples/replay/threads.js";

/** What came from one station, by one kind of address. */
export interface Received {
  frames: number;
  /** Frames whose number was not the one after the last. */
  gaps: number;
  /** Frames whose number was not even a later one. */
  disorder: number;
  /** Frames whose payload was not the sender's. */
  damaged: number;
  next: number;
}

/** What `start` takes. */
export interface DeathGuestStart {
  init: GuestMemoryInit;
  /** Which NIC to take: number on the bus. */
  nic: number;
  /** Number of its first frame: higher than that of any guest which had this NIC before. */
  first: number;
  options: VenetOptions;
  /** One word: frames in the ring at the moment of death. */
  committed: Int32Array;
  callTimeoutMs: number;
  hostTimeoutMs: number;
}

const FRAME_MAX = 300;
/** Frames of a burst, and its share of frames for everybody. */
const BURST = 16;

const scheduler = new EventLoopScheduler();
const received = new Map<string, Received>();
const outcomes: Record<string, string> = {};
let transport: GuestTransport;
let bus: ProxyBus;
let driver: VenetDriver;
let nic: VenetNic;
let committed: Int32Array;
let failure: string | null = null;
let streaming: Promise<Record<string, number>> | null = null;
let endStream = false;

function textOf(error: unknown): string {
  return error instanceof VbusError ? error.message : String(error instanceof Error ? error.stack : error);
}

/** A frame whose bytes follow from sender and number. */
function frame(to: number[], number: number): Uint8Array {
  const bytes = new Uint8Array(64 + ((number * 37) % (FRAME_MAX - 64)));
  bytes.set(to, 0);
  bytes.set(nic.mac, 6);
  bytes.set([0x88, 0xb5], 12);
  new DataView(bytes.buffer).setUint32(14, number);
  for (let i = 18; i < bytes.length; i++) bytes[i] = (number + i * nic.mac[5]!) & 0xff;
  return bytes;
}

function check(batch: Batch, from: number, to: number): number {
  for (let i = from; i < to; i++) {
    const bytes = batch.copy(i);
    const toAll = (bytes[0]! & 1) === 1;
    if (!toAll && bytes.subarray(0, 6).some((byte, at) => byte !== nic.mac[at])) continue; // flooded, for somebody else
    const key = `${bytes[11]!}${toAll ? " to all" : ""}`;
    let state = received.get(key);
    if (state === undefined)
      received.set(key, (state = { frames: 0, gaps: 0, disorder: 0, damaged: 0, next: -1 }));
    const number = new DataView(bytes.buffer).getUint32(14);
    if (state.next >= 0 && number !== state.next) state.gaps++;
    if (number < state.next) state.disorder++;
    state.next = number + 1;
    state.frames++;
    let sound = bytes.length === 64 + ((number * 37) % (FRAME_MAX - 64));
    for (let b = 18; b < bytes.length; b++) sound &&= bytes[b] === ((number + b * bytes[11]!) & 0xff);
    if (!sound) state.damaged++;
  }
  return to - from;
}

/** The next frame's number, by destination. */
const numbers = new Map<string, number>();
let first = 0;

function nextFrame(to: number[]): Uint8Array {
  const key = String(to);
  const number = numbers.get(key) ?? first;
  numbers.set(key, number + 1);
  return frame(to, number);
}

async function stream(destinations: number[][], pauseMs: number): Promise<Record<string, number>> {
  endStream = false;
  while (!endStream) {
    const frames: Uint8Array[] = [];
    for (let i = 0; i < BURST; i++) frames.push(nextFrame(destinations[i % destinations.length]!));
    await nic.send(frames);
    Atomics.store(committed, 0, nic.statistics().tx_packets);
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
  return Object.fromEntries([...numbers].map(([to, number]) => [to, number - first]));
}

/** Leaves the number of committed frames behind, and ends the thread here and now. */
function exit(): never {
  Atomics.store(committed, 0, nic.statistics().tx_packets);
  process.exit(1);
}

/** A burst whose `n`th frame ends the thread when the driver comes to copy it. */
function deadlyBurst(to: number[], length: number, n: number): Uint8Array[] {
  const frames = Array.from({ length }, () => nextFrame(to));
  const deadly = frames[n]!;
  let looks = 0;
  Object.defineProperty(frames, n, {
    get: () => {
      if (looks++ > 0) exit(); // the first look is the check of its length
      return deadly;
    },
  });
  return frames;
}

function listen(): void {
  nic.onError = (error) => (failure = textOf(error));
  nic.onFrames = check;
}

const handlers = {
  async start({
    init,
    nic: wanted,
    first: given,
    options,
    committed: shared,
    callTimeoutMs,
    hostTimeoutMs,
  }: DeathGuestStart) {
    committed = shared;
    first = given;
    transport = await connectWorkerHost({ init, scheduler, callTimeoutMs, hostTimeoutMs });
    driver = new VenetDriver(undefined, options);
    bus = new ProxyBus(transport, { lost: (error) => (outcomes.lost = textOf(error)) });
    nic = await new Promise<VenetNic>((resolve, reject) => {
      bus.events.error = (device, error) => {
        if (device.id === wanted) reject(new Error("the NIC cannot be taken", { cause: error }));
      };
      bus.registerDriver({
        type: driver.type,
        probe: async (device) => {
          if (device.id !== wanted) throw new VbusError("EBUSY", "another guest's NIC");
          const card = await driver.probe(device);
          resolve(card);
          return card;
        },
        remove: () => nic.close(), // not always the one that was probed first
      });
      bus.start().catch(reject);
    });
    listen();
    return [...nic.mac];
  },

  open: () => nic.open(),
  stop: () => nic.stop(),
  mtu: ({ mtu }: { mtu: number }) => nic.setMtu(mtu),
  close: () => nic.close(),
  /** Closes the NIC, takes it anew, and brings the link up. */
  async reopen() {
    const { device } = nic;
    await nic.close();
    nic = await driver.probe(device);
    listen();
    await nic.open();
  },
  async leave() {
    await bus.close();
  },

  /** Sends to all destinations in turn until told to end. */
  stream({ to, pauseMs }: { to: number[][]; pauseMs: number }) {
    streaming = stream(to, pauseMs);
    streaming.catch((error: unknown) => (failure ??= textOf(error)));
  },
  /** Ends the stream. Returns how many frames went to whom, since the beginning. */
  async endStream(): Promise<Record<string, number>> {
    endStream = true;
    return (await streaming) ?? {};
  },
  status: () => ({ received: Object.fromEntries(received), failure, up: nic.up }),
  statistics: () => nic.statistics(),

  /** One way to go. Those that do not end the thread by themselves leave it running, to be terminated. */
  end({ how, to }: { how: string; to: number[] }) {
    switch (how) {
      case "exit":
        return exit();
      case "exit after a burst":
        nic.trySend(Array.from({ length: 32 }, () => nextFrame(to)));
        return exit();
      case "exit in a burst":
        nic.trySend(deadlyBurst(to, 100, 80)); // the first 64 are in the ring, 16 of the next are copied
        throw new Error("the deadly frame was not looked at");
      case "exit in a call":
        for (let i = 0; i < 20; i++) void nic.setMtu(1000 + i);
        return exit();
      case "exit in open":
        void nic.open();
        return exit();
      case "bursts":
        setImmediate(() => {
          for (;;) Atomics.add(committed, 0, nic.trySend(Array.from({ length: 32 }, () => nextFrame(to))));
        });
        return;
      case "calls":
        void (async () => {
          for (let i = 0; ; i++) await Promise.all([nic.setMtu(1000 + (i & 1)), nic.setMtu(1000)]);
        })();
        return;
      case "opens":
        void (async () => {
          for (;;) await nic.open().then(() => nic.stop());
        })();
        return;
      case "hang":
        setImmediate(() => {
          for (;;);
        });
        return;
      default:
        throw new Error(`no way to end: ${how}`);
    }
  },

  /** Begins one thing of each kind that a host that is gone can never finish. */
  pend({ to }: { to: number[] }) {
    const note = (what: string, promise: Promise<unknown>): void => {
      promise.then(
        (value) => (outcomes[what] = `resolved: ${String(value)}`),
        (error: unknown) => (outcomes[what] = textOf(error)),
      );
    };
    nic.onFrames = null;
    note("send", nic.send(Array.from({ length: 2000 }, () => nextFrame(to))));
    note("receive", nic.receive());
    note("call", nic.setMtu(900));
    note("stop", nic.stop());
  },
  outcomes: () => outcomes,
  async after({ to }: { to: number[] }) {
    return nic.send([nextFrame(to)]).then(() => "sent", textOf);
  },
};

await serve(handlers);
