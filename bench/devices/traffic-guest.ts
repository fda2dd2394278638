/** A guest of the traffic figures: sends the frames of a plan, or counts what arrives. Runs as a worker. */
import type { ProxyBus } from "vbus/drivers";
import type { TransmitFrame, VenetNic } from "vbus/drivers/venet";
import type { VirtioNic } from "vbus/drivers/virtio-net";
import type { GuestMemoryInit } from "vbus/memory";
import type { Batch } from "vbus/net";
import { quantile } from "../harness/statistics.js";
import { serveCommands } from "../harness/thread.js";
import { takeCard, type CardOrder } from "./card.js";
import { joinBus, type Taken } from "./join.js";
import { buildSegments, FLOWS, type SegmentPlan } from "./segments.js";
import { OutgoingFlow, Verifier } from "./stack.js";

/** What `prepare` takes: the flow to send or to expect, between two stations. */
export interface TrafficPlanOrder {
  plan: SegmentPlan;
  from: number;
  to: number;
}

/** What `send` answers; times in ms since the epoch. */
export interface TrafficSent {
  frames: number;
  /** Bytes of all frames. */
  bytes: number;
  /** Bytes behind their headers. */
  payload: number;
  started: number;
}

/** What `trips` answers: round trips, in ns. */
export interface TrafficTrips {
  p50: number;
  p90: number;
  p99: number;
  max: number;
}

/** What `counters` answers. */
export interface TrafficGuestCounters {
  doorbells: { rx: number; tx: number };
  copied: number;
}

/** What `received` answers. */
export interface TrafficReceived {
  frames: number;
  /** Frames whose checksum this guest had to verify. */
  verified: number;
  /** When the last one arrived. */
  last: number;
}

/** Frames handed to the ring at once, and their bytes at most. */
const BURST = 64;
const BURST_BYTES = 1 << 20;
/** The EtherType for local experiments. */
const GREETING = 0x88b5;
const TRIP_FRAME: SegmentPlan = { length: 64, count: 1, checksum: "complete", segment: null };
/** Each round trip has that long. */
const TRIP_MS = 5000;
const wallClock = (): number => performance.timeOrigin + performance.now();

let bus: ProxyBus | undefined;
let taken: Taken<VenetNic | VirtioNic> | undefined;
let failure: unknown;
/** By the order that they were made for. */
const flows = new Map<string, OutgoingFlow>();
let flow: OutgoingFlow | undefined;
let bursts: (Uint8Array | TransmitFrame)[][] = [];
let plan: SegmentPlan = TRIP_FRAME;
const verifier = new Verifier();

const counted = { frames: 0, payload: 0, last: 0, greeted: false };
/** Told of frames of the flow instead of counting them. */
let onFlow: (() => void) | null = null;
let expected = Infinity;
let wake: (() => void) | null = null;

function theNic(): VenetNic | VirtioNic {
  if (failure !== undefined) throw new Error("the NIC failed", { cause: failure });
  if (taken === undefined) throw new Error("open the NIC first");
  return taken.device;
}

function count(batch: Batch, from: number, to: number): number {
  const { kind = "tcp4" } = plan;
  const { etherType, headers } = FLOWS[kind];
  for (let i = from; i < to; i++) {
    const type = batch.etherType(i);
    if (type === GREETING) counted.greeted = true;
    if (type !== etherType) continue;
    if (onFlow !== null) {
      onFlow();
      continue;
    }
    if (!verifier.accepts(batch, i, kind)) failure ??= new Error("a frame came with a wrong checksum");
    counted.frames++;
    counted.payload += batch.length(i) - headers;
  }
  counted.last = wallClock();
  if (counted.payload >= expected || counted.greeted) wake?.();
  return to - from;
}

/** Waits for what {@link count} is told of. Returns false when the time is over. */
async function waitFor(done: () => boolean, timeoutMs: number): Promise<boolean> {
  const end = performance.now() + timeoutMs;
  while (!done() && performance.now() < end) {
    theNic();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 100);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    wake = null;
  }
  return done();
}

serveCommands({
  async join({ init }: { init: GuestMemoryInit }) {
    bus = await joinBus(init);
  },

  /** Takes the NIC; the link is up afterwards. */
  async open(order: CardOrder) {
    if (bus === undefined) throw new Error("join the bus first");
    counted.greeted = false;
    onFlow = null;
    taken = await takeCard(bus, order);
    const nic = taken.device;
    nic.onFrames = count;
    nic.onError = (error) => {
      failure ??= error;
    };
  },

  /** Gives the NIC back. */
  async close() {
    const last = taken;
    taken = undefined;
    await last?.giveBack();
  },

  /** One broadcast frame, so that the switch learns where this guest is. */
  async greet() {
    const nic = theNic();
    const frame = new Uint8Array(60).fill(0xff, 0, 6);
    frame.set(nic.mac, 6);
    frame.set([GREETING >> 8, GREETING & 0xff], 12);
    await nic.send([frame]);
  },

  /** Waits until the other guest has said that it is there. */
  async greeted({ timeoutMs }: { timeoutMs: number }) {
    if (!(await waitFor(() => counted.greeted, timeoutMs)))
      throw new Error(`the other guest was not heard within ${timeoutMs} ms`);
    counted.greeted = false;
  },

  /** Makes the frames of a plan, unless they were made before. */
  async prepare(order: TrafficPlanOrder) {
    const key = JSON.stringify(order);
    const { from, to } = order;
    plan = order.plan;
    flow = flows.get(key) ?? (await OutgoingFlow.make(plan, from, to));
    flows.set(key, flow);
    bursts = flow.bursts(BURST, BURST_BYTES);
  },

  /** Frames of that plan will come. */
  expect({ plan: wanted }: TrafficPlanOrder) {
    plan = wanted;
    flow = undefined;
  },

  /** From now on, until the card is opened again, each frame of the other guest's is answered. */
  echo({ from, to }: { from: number; to: number }) {
    const [reply] = buildSegments(TRIP_FRAME, from, to);
    const nic = theNic();
    plan = TRIP_FRAME;
    flow = undefined;
    onFlow = () => {
      if (nic.trySend([(reply as TransmitFrame).data as Uint8Array]) === 0)
        failure ??= new Error("there was no room for an answer");
    };
  },

  /** So many round trips of one small frame, one after the other, each timed. */
  async trips({
    from,
    to,
    count: trips,
  }: {
    from: number;
    to: number;
    count: number;
  }): Promise<TrafficTrips> {
    const [request] = buildSegments(TRIP_FRAME, from, to);
    const frame = [(request as TransmitFrame).data as Uint8Array];
    const nic = theNic();
    plan = TRIP_FRAME;
    flow = undefined;
    const times: number[] = [];
    await new Promise<void>((resolve, reject) => {
      let before = 0;
      let timer: ReturnType<typeof setTimeout> | undefined;
      const send = (): void => {
        before = performance.now();
        if (nic.trySend(frame) === 0) reject(new Error("there was no room for one frame"));
      };
      const watch = (): void => {
        const seen = times.length;
        timer = setTimeout(() => {
          if (times.length === seen) reject(new Error(`no answer within ${TRIP_MS} ms: ${String(failure)}`));
          else watch();
        }, TRIP_MS);
      };
      onFlow = () => {
        times.push((performance.now() - before) * 1e6);
        if (times.length < trips) {
          send();
          return;
        }
        clearTimeout(timer);
        resolve();
      };
      watch();
      send();
    });
    onFlow = null;
    const at = (q: number): number => quantile(times, q);
    return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) };
  },

  /** From now on frames are counted from 0. */
  reset() {
    Object.assign(counted, { frames: 0, payload: 0, last: 0 });
    verifier.summed = 0;
    expected = Infinity;
  },

  /** Sends the prepared frames as fast as the ring takes them, over and over, for about `ms` milliseconds. */
  async send({ ms }: { ms: number }): Promise<TrafficSent> {
    const nic = theNic();
    if (flow === undefined) throw new Error("prepare the frames first");
    const { kind = "tcp4", length } = plan;
    const started = wallClock();
    const end = performance.now() + ms;
    let frames = 0;
    do {
      for (const burst of bursts) {
        flow.finish(burst);
        await nic.send(burst);
        frames += burst.length;
      }
    } while (performance.now() < end);
    return { frames, bytes: frames * length, payload: frames * (length - FLOWS[kind].headers), started };
  },

  /** Waits until that many bytes of payload have come, in however many frames. */
  async received({ payload, timeoutMs }: { payload: number; timeoutMs: number }): Promise<TrafficReceived> {
    expected = payload;
    await waitFor(() => counted.payload >= payload, timeoutMs);
    if (counted.payload !== payload)
      throw new Error(
        `${counted.payload} of ${payload} bytes of payload arrived, in ${counted.frames} frames`,
      );
    return { frames: counted.frames, verified: verifier.summed, last: counted.last };
  },

  /** What this guest's card counted since it was opened: doorbells of its rings, bytes that its driver copied into buffers. */
  counters(): TrafficGuestCounters {
    const { rxQueue, txQueue, tx_bytes } = theNic().statistics();
    const sent = (counters: typeof rxQueue): number =>
      "sent" in counters ? counters.sent : counters.notified;
    return { doorbells: { rx: sent(rxQueue), tx: sent(txQueue) }, copied: tx_bytes };
  },
});
