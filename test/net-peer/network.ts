/** Two network peers on a switch, on virtual time. */
import { MemorySpace } from "vbus/memory";
import { FaultInjector, Switch, type FaultOptions, type Port } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { NetPeer, type NetPeerOptions } from "../support/net-peer.js";

/** Addresses of the peers. */
export const A = { mac: "02:00:00:00:00:0a", ip4: "10.0.0.1", ip6: "fd00::1" };
export const B = { mac: "02:00:00:00:00:0b", ip4: "10.0.0.2", ip6: "fd00::2" };

/** What differs between tests. */
export interface NetworkOptions {
  a?: Partial<NetPeerOptions>;
  b?: Partial<NetPeerOptions>;
  /** Both. */
  both?: Partial<NetPeerOptions>;
  /** Faults of what a sends and receives. */
  faults?: Partial<FaultOptions>;
  /** Wraps A's port of the switch. */
  wrap?: (port: Port) => Port;
  /** Wraps B's port of the switch. */
  wrapB?: (port: Port) => Port;
  /** B's frames lie in a memory of its own, as a guest's do. */
  apart?: boolean;
}

const unwrapped = (port: Port): Port => port;

/** The network, and the time that passes in it. */
export class Network {
  readonly scheduler = new VirtualScheduler();
  readonly net: Switch;
  readonly a: NetPeer;
  readonly b: NetPeer;
  readonly injector: FaultInjector | null;

  private constructor(space: MemorySpace, other: MemorySpace, options: NetworkOptions) {
    const { scheduler } = this;
    this.net = new Switch({ scheduler, space });
    const { wrap = unwrapped, wrapB = unwrapped } = options;
    const own = wrap(this.net.addPort("a"));
    this.injector =
      options.faults === undefined
        ? null
        : new FaultInjector(own, { scheduler, space, direction: "both", ...options.faults });
    this.a = new NetPeer({
      port: this.injector ?? own,
      scheduler,
      space,
      ...A,
      seed: 11,
      ...options.both,
      ...options.a,
    });
    this.b = new NetPeer({
      port: wrapB(this.net.addPort("b")),
      scheduler,
      space: other,
      ...B,
      seed: 12,
      ...options.both,
      ...options.b,
    });
  }

  static async open(options: NetworkOptions = {}): Promise<Network> {
    const space = await MemorySpace.host();
    return new Network(space, options.apart === true ? await MemorySpace.host() : space, options);
  }

  /** Lets time pass until something is settled, at most a virtual minute. */
  async until<T>(promise: Promise<T>, ms = 60_000): Promise<T> {
    const done = { settled: false };
    const noted = promise.finally(() => (done.settled = true));
    noted.catch(() => undefined);
    const end = this.scheduler.now() + ms;
    for (;;) {
      for (let i = 0; i < 20; i++) await Promise.resolve(); // what awaits what was settled
      if (done.settled) return noted;
      if (this.scheduler.now() >= end) throw new Error(`nothing was settled within ${ms} virtual ms`);
      this.scheduler.advance(5);
    }
  }

  /** Lets time pass. */
  pass(ms: number): void {
    this.scheduler.advance(ms);
  }

  /** What must hold whatever happened: every frame is accounted for, once. Complaints, none if all is well. */
  complaints(): string[] {
    const found: string[] = [];
    for (const [name, peer] of [
      ["a", this.a],
      ["b", this.b],
    ] as const) {
      const { received, fates, refused } = peer.counters;
      const sum = Object.values(fates).reduce((total, n) => total + n, 0);
      if (sum !== received.frames)
        found.push(`${name} received ${received.frames} frames, ${sum} came to something`);
      if (refused !== 0) found.push(`${name} sent ${refused} frames that its port had malformed`);
      if (peer.queue.waiting !== 0) found.push(`${peer.queue.waiting} frames wait in ${name}`);
    }
    if (!this.net.balance().balanced) found.push("the switch's frame equation does not hold");
    if (Object.keys(this.net.balance().drops).length > 0) {
      found.push(`the switch dropped frames: ${JSON.stringify(this.net.balance().drops)}`);
    }
    return found;
  }

  close(): void {
    this.a.close();
    this.b.close();
    this.net.close();
  }
}

/** What was found wrong with frames and contents so far, all peers together. */
export function errorsOf(...peers: NetPeer[]): number {
  return peers.reduce((sum, { counters }) => {
    const { ip, icmp, udp, tcp } = counters.checksumErrors;
    const { malformed, unknown, fragment } = counters.fates;
    return sum + ip + icmp + udp + tcp + malformed + unknown + fragment + counters.patternErrors;
  }, 0);
}

/** Kinds of networks: what the two peers take and send unfinished. */
export const OFFLOAD_CASES = [
  { name: "superframes both ways", both: {} },
  { name: "a receiver that takes finished frames only", both: {}, b: { takes: 0 } },
  { name: "a sender that finishes its frames itself", both: {}, a: { sends: 0 } },
  { name: "no offloads at all", both: { takes: 0, sends: 0 } },
] satisfies (NetworkOptions & { name: string })[];
