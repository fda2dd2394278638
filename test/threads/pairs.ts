/** Two ends of a connection in one thread, of each kind: what the tests of ports between threads run on. */
import { randomUUID } from "node:crypto";
import { MemorySpace } from "vbus/memory";
import {
  countDrop,
  HostFrames,
  type Batch,
  type DropCounts,
  type DropReason,
  type FrameBalance,
  type Port,
  type PortPeer,
} from "vbus/net";
import {
  BroadcastChannelPort,
  createFrameLink,
  MessagePortPort,
  WorkerPort,
  type ChannelPort,
  type FrameMessagePort,
} from "vbus/net/threads";
import { EventLoopScheduler } from "vbus/scheduler";
import { turns } from "../event-loop.js";
import { readFrame, type TestFrame } from "../offload/rig.js";

/** An end, of whatever kind. */
export type ThreadPort = WorkerPort | ChannelPort;

/** Two of them. */
export interface Pair<P extends ThreadPort = ThreadPort> {
  a: P;
  b: P;
  scheduler: EventLoopScheduler;
  space: MemorySpace;
}

/** Options that differ from test to test. */
export interface PairOptions {
  /** What peers take that do not say. */
  offloads?: number;
  /** Most frames under way; at least 64. */
  frames?: number;
  bytes?: number;
  poll?: boolean;
}

/** Two ends over shared memory. */
export async function workers(options: PairOptions = {}): Promise<Pair<WorkerPort>> {
  const { frames = 128, bytes = 1 << 20, offloads = 0, poll = false } = options;
  const scheduler = new EventLoopScheduler();
  const link = createFrameLink({ frames, bytes });
  const [a, b] = await Promise.all(
    (["host", "guest"] as const).map((side) => WorkerPort.open(link, { side, scheduler, offloads, poll })),
  );
  await Promise.all([a!.whenUp(), b!.whenUp()]);
  return { a: a!, b: b!, scheduler, space: await MemorySpace.host() };
}

async function channels(
  make: (options: object) => [ChannelPort, ChannelPort],
  options: PairOptions,
): Promise<Pair> {
  const { frames = 128, bytes = 1 << 20, offloads = 0 } = options;
  const scheduler = new EventLoopScheduler();
  const space = await MemorySpace.host();
  const [a, b] = make({ scheduler, space, frames, bytes, offloads });
  await until(() => a.sides === 1 && b.sides === 1);
  return { a, b, scheduler, space };
}

/** Every kind of connection. */
export const KINDS: readonly [name: string, open: (options?: PairOptions) => Promise<Pair>][] = [
  ["worker", workers],
  [
    "MessagePort",
    (options = {}) =>
      channels((given) => {
        const { port1, port2 } = new MessageChannel();
        return [port1, port2].map(
          (port) => new MessagePortPort(port as unknown as FrameMessagePort, given as never),
        ) as [ChannelPort, ChannelPort];
      }, options),
  ],
  [
    "BroadcastChannel",
    (options = {}) =>
      channels((given) => {
        const channel = `test-${randomUUID()}`;
        return [0, 1].map(() => new BroadcastChannelPort({ ...given, channel } as never)) as [
          ChannelPort,
          ChannelPort,
        ];
      }, options),
  ],
];

/** Lets the event loop turn until a condition holds. @throws when it does not in very many turns */
export async function until(condition: () => boolean, what = "a condition"): Promise<void> {
  const end = performance.now() + 60_000;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`still waiting for ${what}`);
    await turns(1);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

/** A peer that keeps what it gets, with what was said of it. */
export class Collector implements PortPeer {
  readonly frames: TestFrame[] = [];
  /** Frames that it still takes. */
  room = Infinity;
  writables = 0;
  onWritable: () => void = () => {};
  /** Runs after each receive. */
  onReceive: () => void = () => {};

  constructor(
    readonly port: Port,
    readonly offloads?: number,
  ) {
    port.attach(this);
  }

  receive(batch: Batch, from: number, to: number): number {
    const n = Math.min(to - from, this.room);
    for (let i = from; i < from + n; i++) this.frames.push(readFrame(batch.table, i));
    this.room -= n;
    this.onReceive();
    return n;
  }

  writable(): void {
    this.writables++;
    this.onWritable();
  }

  makeRoom(n: number): void {
    this.room += n;
    this.port.ready();
  }
}

/** Sends frames through a port with back-pressure, in bursts. */
export class Source {
  sent = 0;
  readonly #frames: TestFrame[] = [];
  readonly #host: HostFrames;

  constructor(
    private readonly port: Port,
    space: MemorySpace,
    collector: Collector,
    private readonly burst = 32,
  ) {
    this.#host = new HostFrames(space, burst, 1 << 20);
    collector.onWritable = () => {
      this.pump();
    };
  }

  /** Frames that wait. */
  get waiting(): number {
    return this.#frames.length;
  }

  send(...frames: TestFrame[]): void {
    this.#frames.push(...frames);
    this.pump();
  }

  pump(): void {
    while (this.#frames.length > 0) {
      this.#host.clear();
      for (const frame of this.#frames.slice(0, this.burst)) {
        const { flags, kind, size, start, offset } = frame;
        const added = this.#host.add(frame.bytes, {
          flags,
          gsoKind: kind,
          gsoSize: size,
          checksumStart: start,
          checksumOffset: offset,
        });
        if (!added) break;
      }
      const { count } = this.#host.batch;
      const taken = this.port.transmit(this.#host.batch, 0, count);
      this.sent += taken;
      this.#frames.splice(0, taken);
      if (taken < count) return;
    }
  }

  /** What was not taken is forgotten. */
  stop(): void {
    this.#frames.length = 0;
  }
}

/** Sum of two counts of drops. */
export function allDrops(...counts: DropCounts[]): DropCounts {
  const sum: DropCounts = {};
  for (const drops of counts)
    for (const [reason, n] of Object.entries(drops)) countDrop(sum, reason as DropReason, n);
  return sum;
}

/** Of a balance that does not hold, what it says. */
export function unbalanced(...balances: FrameBalance[]): FrameBalance[] {
  return balances.filter(({ balanced }) => !balanced);
}

/** Resolves when the books of a port that was closed are final. */
export async function settled(port: ThreadPort): Promise<void> {
  if (!(port instanceof WorkerPort)) await port.closed;
}
