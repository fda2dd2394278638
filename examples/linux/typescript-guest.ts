/**
 * A guest written in TypeScript that speaks IP: its own memory, its own venet driver, and on top of that the network stack of
 * `test/support/`. The stack is the peer of a port, and the port is the guest's network card.
 */
import type { Bus } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import { ProxyBus } from "vbus/drivers";
import { VenetDriver, type SuperframeKind, type TransmitFrame, type VenetNic } from "vbus/drivers/venet";
import {
  ENTRY_OFF_GSO_SIZE,
  ENTRY_OFF_HEADER_LENGTH,
  FRAME_ECN,
  FRAME_GSO,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
} from "vbus/engine";
import { allocateGuestMemory, GuestMemory, openHostView } from "vbus/memory";
import { FrameTally, OFFLOAD_ALL, type Batch, type Port, type PortCounters, type PortPeer } from "vbus/net";
import type { Scheduler } from "vbus/scheduler";
import { NetPeer } from "../../test/support/net-peer.js";

const KINDS: Record<number, SuperframeKind> = {
  [GSO_TCP4]: "tcp4",
  [GSO_TCP6]: "tcp6",
  [GSO_UDP_L4]: "udp",
};

/** A guest's network card as a port: what its peer, the guest's network stack, transmits, the driver sends. */
class NicPort implements Port {
  readonly name = "nic";
  readonly offloads = OFFLOAD_ALL;
  readonly #tally = new FrameTally();
  #peer: PortPeer | null = null;
  #sending = false;

  constructor(private readonly nic: VenetNic) {
    nic.onFrames = (batch, from, to) => {
      const n = this.#peer === null ? to - from : this.#peer.receive(batch, from, to);
      if (this.#peer === null) this.#tally.drop("no-link", n);
      else this.#tally.deliver(n, batch.byteCount(from, from + n));
      return n;
    };
  }

  transmit(batch: Batch, from: number, to: number): number {
    const frames = Array.from({ length: to - from }, (_, i) => transmitFrame(batch, from + i));
    let n = this.#sending ? 0 : this.nic.trySend(frames);
    if (n < frames.length && !this.#sending) {
      // one more, as a copy that may wait for room
      this.#sending = true;
      void this.nic.send([frames[n]!]).then(
        () => {
          this.#sending = false;
          this.#peer?.writable();
        },
        () => undefined, // the NIC is closed
      );
      n++;
    }
    this.#tally.take(n, batch.byteCount(from, from + n));
    return n;
  }

  attach(peer: PortPeer): void {
    this.#peer = peer;
  }

  detach(): void {
    this.#peer = null;
  }

  ready(): void {
    this.nic.resumeReceive();
  }

  counters(): PortCounters {
    const { received, receivedBytes, delivered, deliveredBytes, drops } = this.#tally;
    return { received, receivedBytes, delivered, deliveredBytes, drops: { ...drops }, inFlight: 0 };
  }

  close(): void {
    this.#peer = null;
  }
}

function transmitFrame(batch: Batch, i: number): TransmitFrame {
  const frame: TransmitFrame = { data: batch.copy(i) };
  if (!batch.needsChecksum(i)) return frame;
  frame.checksum = batch.checksumPlace(i);
  const flags = batch.table.flags(i);
  if ((flags & FRAME_GSO) === 0) return frame;
  const { data } = batch.space.engine;
  const entry = batch.table.entry(i);
  frame.gso = {
    kind: KINDS[batch.gsoKind(i)]!,
    size: data.getUint16(entry + ENTRY_OFF_GSO_SIZE, true),
    headerLength: data.getUint16(entry + ENTRY_OFF_HEADER_LENGTH, true),
    ecn: (flags & FRAME_ECN) !== 0,
  };
  return frame;
}

/** What a {@link TypeScriptGuest} is made of. */
export interface TypeScriptGuestOptions {
  /** The bus that its card is connected to, and nothing else. */
  bus: Bus;
  scheduler: Scheduler;
  mac: string;
  address: string;
  mtu: number;
}

/** The guest. */
export class TypeScriptGuest {
  private constructor(
    readonly nic: VenetNic,
    /** Its network stack. */
    readonly stack: NetPeer,
    private readonly proxy: ProxyBus,
  ) {}

  /** Starts it, and brings its card up. */
  static async start(options: TypeScriptGuestOptions): Promise<TypeScriptGuest> {
    const { bus, scheduler, mac, address, mtu } = options;
    const init = allocateGuestMemory({ size: 16 << 20, arenaSize: 8 << 20 });
    const memory = await GuestMemory.open(init);
    bus.admit("typescript");
    const client = bus.openClient({ member: "typescript", memory: await openHostView(init) });
    const proxy = new ProxyBus(new LocalConnector(client, memory, scheduler));
    const nic = await new Promise<VenetNic>((resolve, reject) => {
      proxy.registerDriver(new VenetDriver(resolve, { mtu }));
      proxy.start().catch(reject);
    });
    await nic.open();
    const stack = new NetPeer({
      port: new NicPort(nic),
      scheduler,
      space: memory.space,
      mac,
      ip4: address,
      mtu,
    });
    return new TypeScriptGuest(nic, stack, proxy);
  }

  /** Ends it. */
  async close(): Promise<void> {
    this.stack.close();
    await this.proxy.close();
  }
}
