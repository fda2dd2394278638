import { GuestMemory, LocalConnector, ProxyBus, VenetDriver, allocateGuestMemory, openHostView } from "vbus";
import type { VenetNic, Bus } from "vbus";
import type { Scheduler } from "vbus/scheduler";
import {
  arpAnswer,
  arpRequest,
  command,
  COMMAND_FLOOD,
  COMMAND_OFF,
  echoRequest,
  floodedSequence,
  isAnnouncement,
  isEchoReply,
  type Station,
} from "./frames.js";

const PING_ID = 0x7079;
/** How often ARP asks. */
const ASK_AGAIN_MS = 20;
/** How long an answer may take; the machine may have other things to do. */
const PATIENCE_MS = 60_000;

/** What a flood was like at the far end. */
export interface FloodResult {
  /** Frames that arrived, each as it was sent and in order. */
  readonly frames: number;
  /** From the command to the last of them, in ms. */
  readonly ms: number;
}

/** A guest written in TypeScript, with a venet of its own: what the toy machine talks to. */
export class Peer implements Station {
  readonly ip = Uint8Array.of(10, 0, 0, 1);
  /** Sequence number of the next frame of a flood. */
  expected = 0;

  private constructor(private readonly nic: VenetNic) {}

  /** Brings up a guest on a bus that has admitted `member` and has a venet. */
  static async start(bus: Bus, member: string, scheduler: Scheduler): Promise<Peer> {
    const init = allocateGuestMemory({ size: 8 << 20 });
    const client = bus.openClient({ member, memory: await openHostView(init) });
    const proxy = new ProxyBus(new LocalConnector(client, await GuestMemory.open(init), scheduler));
    const nic = await new Promise<VenetNic>((resolve, reject) => {
      proxy.registerDriver(new VenetDriver(resolve));
      proxy.start().catch(reject);
    });
    await nic.open();
    return new Peer(nic);
  }

  get mac(): Uint8Array {
    return this.nic.mac;
  }

  /** Waits for frames until one of them is what is waited for. @throws Error when it takes too long */
  async #until<T>(wanted: (frame: Uint8Array) => T | null, what: string): Promise<T> {
    let late: ReturnType<typeof setTimeout> | undefined;
    const tooLate = new Promise<never>((_resolve, reject) => {
      late = setTimeout(() => {
        reject(new Error(`no ${what} within ${PATIENCE_MS / 1000} s`));
      }, PATIENCE_MS);
    });
    try {
      for (;;) {
        for (const frame of await Promise.race([this.nic.receive(), tooLate])) {
          const found = wanted(frame);
          if (found !== null) return found;
        }
      }
    } finally {
      clearTimeout(late);
    }
  }

  /** Finds the station with an IP address: asks again and again, it may not be up yet. */
  async find(ip: Uint8Array): Promise<Station> {
    const request = [arpRequest(this, ip)];
    this.nic.trySend(request);
    const again = setInterval(() => this.nic.trySend(request), ASK_AGAIN_MS);
    try {
      return { mac: await this.#until((frame) => arpAnswer(frame, ip), "answer to ARP"), ip };
    } finally {
      clearInterval(again);
    }
  }

  /** Pings a station; returns the milliseconds that it took. */
  async ping(to: Station, sequence: number, size = 56): Promise<number> {
    const request = echoRequest(this, to, { id: PING_ID, sequence, size });
    const start = performance.now();
    await this.nic.send([request]);
    await this.#until((frame) => (isEchoReply(frame, request) ? true : null), "answer to a ping");
    return performance.now() - start;
  }

  /** Has the toy machine send frames, and checks each. @throws Error when one is missing, out of order or damaged */
  async flood(from: Station, count: number, size: number): Promise<FloodResult> {
    await this.nic.send([command(from.mac, this.mac, COMMAND_FLOOD, count, size)]);
    return this.followFlood(0, count, size);
  }

  /** Takes the rest of a flood, from a sequence number on, and checks each frame. @throws Error as {@link Peer.flood} */
  async followFlood(first: number, count: number, size: number): Promise<FloodResult> {
    const start = performance.now();
    this.expected = first;
    await this.#until((frame) => {
      if (isAnnouncement(frame)) return null;
      const sequence = floodedSequence(frame, size);
      if (sequence !== this.expected)
        throw new Error(
          `frame ${this.expected} of the flood is ${sequence === null ? "not one of it" : `number ${sequence}`}`,
        );
      this.expected++;
      return this.expected === count ? true : null;
    }, `end of the flood`);
    return { frames: this.expected - first, ms: performance.now() - start };
  }

  /** Switches the toy machine off. */
  async powerOff(machine: Station): Promise<void> {
    await this.nic.send([command(machine.mac, this.mac, COMMAND_OFF)]);
  }

  /** Gives everything back. */
  async close(): Promise<void> {
    await this.nic.close();
  }
}
