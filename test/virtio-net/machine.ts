/** A virtio-net card with a driver that does exactly what a test says, in one thread on virtual time. */
import { expect } from "vitest";
import { VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_HDR_SIZE } from "vbus/abi";
import { VirtioNet, type VirtioNetOptions } from "vbus/devices/virtio-net";
import { totalDrops } from "vbus/net";
import type { VirtioRingOptions } from "vbus/virtio";
import { TestPort } from "../venet/port.js";
import { bit, FaceMachine, surroundings, type Surroundings, type TestQueue } from "../virtio-face/machine.js";

export {
  ACKNOWLEDGE,
  bit,
  DRIVER,
  DRIVER_OK,
  FEATURES_OK,
  NEEDS_RESET,
  RING_FEATURES,
} from "../virtio-face/machine.js";

/** A header as a test writes it; what is left out is 0. */
export interface Header {
  flags?: number;
  type?: number;
  headerLength?: number;
  size?: number;
  start?: number;
  offset?: number;
  buffers?: number;
}

export function encodeHeader(header: Header): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(VIRTIO_NET_HDR_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, header.flags ?? 0);
  view.setUint8(1, header.type ?? 0);
  view.setUint16(2, header.headerLength ?? 0, true);
  view.setUint16(4, header.size ?? 0, true);
  view.setUint16(6, header.start ?? 0, true);
  view.setUint16(8, header.offset ?? 0, true);
  view.setUint16(10, header.buffers ?? 0, true);
  return bytes;
}

export function decodeHeader(bytes: Uint8Array): Required<Header> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    flags: view.getUint8(0),
    type: view.getUint8(1),
    headerLength: view.getUint16(2, true),
    size: view.getUint16(4, true),
    start: view.getUint16(6, true),
    offset: view.getUint16(8, true),
    buffers: view.getUint16(10, true),
  };
}

/** A frame that the driver received, with its header. */
export interface Received {
  header: Required<Header>;
  frame: Uint8Array;
  /** Buffers that it came in. */
  buffers: number;
}

export interface NetMachineOptions extends Partial<VirtioNetOptions> {
  rings?: VirtioRingOptions;
  /** Bytes of guest memory. */
  memory?: number;
}

/** A card, a guest and a network's end. */
export class NetMachine extends FaceMachine<VirtioNet> {
  private constructor(
    readonly port: TestPort,
    card: VirtioNet,
    around: Surroundings,
    rings?: VirtioRingOptions,
  ) {
    super(card, around, rings);
  }

  static async create(options: NetMachineOptions = {}): Promise<NetMachine> {
    const { rings, memory, ...rest } = options;
    const port = new TestPort();
    const card = new VirtioNet({ name: "net0", port, mac: "02:00:00:00:00:0a", ...rest });
    return new NetMachine(port, card, await surroundings(memory), rings);
  }

  get card(): VirtioNet {
    return this.face;
  }

  get rx(): TestQueue {
    return this.queue(0);
  }

  get tx(): TestQueue {
    return this.queue(1);
  }

  /** The control queue, of a driver without several pairs. */
  get control(): TestQueue {
    return this.queue(2);
  }

  /** Sends a frame: header and frame in one piece, unless `cuts` says after how many bytes to cut. */
  send(frame: Uint8Array, header: Header = {}, cuts: number[] = [], queue = this.tx): number {
    const all = new Uint8Array(VIRTIO_NET_HDR_SIZE + frame.length);
    all.set(encodeHeader(header));
    all.set(frame, VIRTIO_NET_HDR_SIZE);
    const ends = [...cuts, all.length];
    let from = 0;
    const parts = ends.map((end) => {
      const part = all.subarray(from, end);
      from = end;
      return part;
    });
    return queue.add(this.place(...parts), []);
  }

  /** Posts `n` receive buffers, each of pieces of these lengths; a kick arrives while nothing else happens. */
  post(n: number, ...lengths: number[]): void {
    for (let i = 0; i < n; i++) this.rx.add([], this.room(...lengths));
    this.scheduler.run();
  }

  /** Frames that the driver received on a queue, as it would put them together. */
  received(queue = this.rx): Received[] {
    const mergeable = (this.features & bit(VIRTIO_NET_F_MRG_RXBUF)) !== 0n;
    const used = queue.reap().map(({ written, pieces }) => this.gather(pieces, written));
    const frames: Received[] = [];
    for (let i = 0; i < used.length;) {
      const first = used[i] as Uint8Array;
      const header = decodeHeader(first);
      const buffers = mergeable ? header.buffers : 1;
      const parts = used.slice(i, i + buffers);
      expect(parts.length, "buffers of a frame come together").toBe(buffers);
      const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
      let at = 0;
      for (const part of parts) {
        whole.set(part, at);
        at += part.length;
      }
      frames.push({ header, frame: whole.slice(VIRTIO_NET_HDR_SIZE), buffers });
      i += buffers;
    }
    return frames;
  }

  /** Runs a command on the control queue. Returns the acknowledgement and what came behind it. */
  command(
    kind: number,
    command: number,
    data: Uint8Array | number[] = [],
    room = 1,
    queue = this.control,
  ): { ack: number; result: Uint8Array } {
    const bytes = Uint8Array.from([kind, command, ...data]);
    const writable = room === 0 ? [] : this.room(room);
    for (const { gpa, length } of writable) this.guest.space.copyTo(gpa, new Uint8Array(length).fill(0xee));
    queue.add(this.place(bytes), writable);
    this.scheduler.run();
    const [used] = queue.reap();
    if (used === undefined) throw new Error("the command was not answered");
    const answer = this.gather(writable, used.written);
    return { ack: answer[0] ?? -1, result: answer.slice(1) };
  }

  /** Configuration of the card. */
  async config(): Promise<{
    mac: string;
    status: number;
    pairs: number;
    mtu: number;
    speed: number;
    duplex: number;
  }> {
    const bytes = await this.transport.readConfig(0, this.transport.configSize);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return {
      mac: Buffer.from(bytes.subarray(0, 6)).toString("hex"),
      status: view.getUint16(6, true),
      pairs: view.getUint16(8, true),
      mtu: view.getUint16(10, true),
      speed: view.getUint32(12, true),
      duplex: view.getUint8(16),
    };
  }

  /** Asserts that each frame that entered either left or was dropped and counted. */
  assertBalanced(): void {
    for (const direction of ["tx", "rx"] as const) {
      const { frames, replicated, passed, merged, drops, held } = this.card.statistics[direction];
      expect(frames + replicated, `${direction}: frames + replicated = passed + merged + drops + held`).toBe(
        passed + merged + totalDrops(drops) + held,
      );
    }
  }
}
