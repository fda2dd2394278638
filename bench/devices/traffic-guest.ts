/** A guest of the traffic figures: sends the frames of a plan, or counts what arrives. Runs as a worker. */
import type { ProxyBus } from "vbus/drivers";
import { VenetDriver, type TransmitFrame, type VenetNic } from "vbus/drivers/venet";
import { virtioBusDriver } from "vbus/drivers/virtio";
import { VirtioNetDriver, type VirtioNic } from "vbus/drivers/virtio-net";
import type { GuestMemoryInit } from "vbus/memory";
import type { Batch } from "vbus/net";
import { serveCommands } from "../harness/thread.js";
import { joinBus, takeDevice, type Taken } from "./join.js";
import { buildSegments, HEADERS, type SegmentPlan } from "./segments.js";

/** Network cards there are: venet, or virtio-net over the same bus with rings of one format. */
export type TrafficCard = "venet" | "split" | "packed";

/** What `open` takes. */
export interface TrafficOpenOrder {
  card: TrafficCard;
  mtu: number;
  offloads: boolean;
}

/** What `prepare` takes: the flow to send, between two stations. */
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

/** What `received` answers. */
export interface TrafficReceived {
  frames: number;
  /** When the last one arrived. */
  last: number;
}

/** Frames handed to the ring at once, and their bytes at most. */
const BURST = 64;
const BURST_BYTES = 1 << 20;
/** EtherTypes: IPv4, and the one for local experiments. */
const IPV4 = 0x0800;
const GREETING = 0x88b5;
const wallClock = (): number => performance.timeOrigin + performance.now();

let bus: ProxyBus | undefined;
let taken: Taken<VenetNic | VirtioNic> | undefined;
let failure: unknown;
let bursts: (Uint8Array | TransmitFrame)[][] = [];
let frameBytes = 0;

const counted = { frames: 0, payload: 0, last: 0, greeted: false };
let expected = Infinity;
let wake: (() => void) | null = null;

/** Takes the card of a kind, and sees to it that its link is up. */
async function takeCard(
  bus: ProxyBus,
  { card, mtu, offloads }: TrafficOpenOrder,
): Promise<Taken<VenetNic | VirtioNic>> {
  if (card === "venet") {
    const venet = await takeDevice(bus, new VenetDriver(undefined, { mtu, offloads }));
    await venet.device.open();
    return venet;
  }
  const found: VirtioNic[] = [];
  const options = { packed: card === "packed", offloads };
  const driver = virtioBusDriver([new VirtioNetDriver((nic) => found.push(nic), options)]);
  const binding = await takeDevice(bus, driver);
  const [nic] = found;
  if (nic === undefined) throw new Error("the virtio device is no network card");
  return { device: nic, giveBack: () => binding.giveBack() };
}

function theNic(): VenetNic | VirtioNic {
  if (failure !== undefined) throw new Error("the NIC failed", { cause: failure });
  if (taken === undefined) throw new Error("open the NIC first");
  return taken.device;
}

function count(batch: Batch, from: number, to: number): number {
  for (let i = from; i < to; i++) {
    const type = batch.etherType(i);
    if (type === GREETING) counted.greeted = true;
    if (type !== IPV4) continue;
    counted.frames++;
    counted.payload += batch.length(i) - HEADERS;
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
  async open(order: TrafficOpenOrder) {
    if (bus === undefined) throw new Error("join the bus first");
    counted.greeted = false;
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

  /** Makes the frames of a plan. */
  prepare({ plan, from, to }: TrafficPlanOrder) {
    // plain frames as the bytes that they are: the driver's shortest way
    const frames = buildSegments(plan, from, to).map((frame) =>
      frame.checksum === undefined ? (frame.data as Uint8Array) : frame,
    );
    const burst = Math.min(BURST, Math.ceil(BURST_BYTES / plan.length));
    bursts = [];
    for (let i = 0; i < frames.length; i += burst) bursts.push(frames.slice(i, i + burst));
    frameBytes = plan.length;
  },

  /** From now on frames are counted from 0. */
  reset() {
    Object.assign(counted, { frames: 0, payload: 0, last: 0 });
    expected = Infinity;
  },

  /** Sends the prepared frames as fast as the ring takes them, over and over, for about `ms` milliseconds. */
  async send({ ms }: { ms: number }): Promise<TrafficSent> {
    const nic = theNic();
    const started = wallClock();
    const end = performance.now() + ms;
    let frames = 0;
    do {
      for (const burst of bursts) {
        await nic.send(burst);
        frames += burst.length;
      }
    } while (performance.now() < end);
    return { frames, bytes: frames * frameBytes, payload: frames * (frameBytes - HEADERS), started };
  },

  /** Waits until that many bytes of payload have come, in however many frames. */
  async received({ payload, timeoutMs }: { payload: number; timeoutMs: number }): Promise<TrafficReceived> {
    expected = payload;
    await waitFor(() => counted.payload >= payload, timeoutMs);
    if (counted.payload !== payload)
      throw new Error(
        `${counted.payload} of ${payload} bytes of payload arrived, in ${counted.frames} frames`,
      );
    return { frames: counted.frames, last: counted.last };
  },

  /** Doorbells that this guest's rings sent. */
  doorbells(): { rx: number; tx: number } {
    const { rxQueue, txQueue } = theNic().statistics();
    const sent = (counters: typeof rxQueue): number =>
      counters === null ? 0 : "sent" in counters ? counters.sent : counters.notified;
    return { rx: sent(rxQueue), tx: sent(txQueue) };
  },
});
