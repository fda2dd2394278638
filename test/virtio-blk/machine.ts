/** A virtio-blk device with a driver that does exactly what a test says. */
import { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from "vbus/abi";
import { VirtioBlk, type VirtioBlkOptions } from "vbus/devices/virtio-blk";
import { expect } from "vitest";
import { pause } from "../event-loop.js";
import {
  FaceMachine,
  surroundings,
  type Piece,
  type Surroundings,
  type TestQueue,
} from "../virtio-face/machine.js";
import { ControlledBackend } from "../vblk/controlled.js";

/** What a request came to. */
export interface Answer {
  status: number;
  /** Bytes that the device says it wrote, the status among them. */
  written: number;
  data: Uint8Array;
}

interface Pending {
  data: Piece[];
  status: Piece | undefined;
}

/** 16 bytes that begin a request. */
export function head(type: number, sector: number | bigint, reserved = 0): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, reserved, true);
  view.setBigUint64(8, BigInt(sector), true);
  return bytes;
}

/** Segments of a discard or write-zeroes: sector, sectors, flags. */
export function segments(...all: [number | bigint, number, number?][]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(all.length * 16);
  const view = new DataView(bytes.buffer);
  for (const [i, [sector, sectors, flags = 0]] of all.entries()) {
    view.setBigUint64(i * 16, BigInt(sector), true);
    view.setUint32(i * 16 + 8, sectors, true);
    view.setUint32(i * 16 + 12, flags, true);
  }
  return bytes;
}

export class BlkMachine extends FaceMachine<VirtioBlk> {
  readonly #pending = new Map<string, Pending>();

  private constructor(
    readonly disk: ControlledBackend,
    face: VirtioBlk,
    around: Surroundings,
    readonly told: unknown[],
  ) {
    super(face, around);
  }

  static async create(
    options: Partial<VirtioBlkOptions> & { content?: number | Uint8Array; hold?: boolean } = {},
  ): Promise<BlkMachine> {
    const { content = 1 << 20, hold = false, ...rest } = options;
    const disk = new ControlledBackend(content);
    disk.hold = hold;
    const told: unknown[] = [];
    const face = new VirtioBlk({
      name: "disk0",
      backend: disk,
      onError: (error) => told.push(error),
      ...rest,
    });
    return new BlkMachine(disk, face, await surroundings(), told);
  }

  /** Sends a request. Returns its cookie. */
  request(readable: readonly Uint8Array[], writable: readonly number[] = [], queue = this.queue(0)): number {
    const room = [...this.room(...writable), ...this.room(1)];
    for (const { gpa, length } of room) this.guest.space.copyTo(gpa, new Uint8Array(length).fill(0xee));
    const cookie = queue.add(this.place(...readable), room);
    this.#pending.set(this.#key(queue, cookie), { data: room.slice(0, -1), status: room.at(-1) });
    return cookie;
  }

  #key(queue: TestQueue, cookie: number): string {
    return `${[...this.queues.values()].indexOf(queue)}/${cookie}`;
  }

  /** Lets everything happen that can. */
  async settle(): Promise<void> {
    for (let n = 0; n < 4; n++) {
      this.scheduler.run();
      await pause(0);
    }
    this.scheduler.run();
  }

  /** Requests that came back, by cookie. */
  answers(queue = this.queue(0)): Map<number, Answer> {
    const all = new Map<number, Answer>();
    for (const { cookie, written } of queue.reap()) {
      const pending = this.#pending.get(this.#key(queue, cookie));
      if (pending?.status === undefined) throw new Error(`nobody asked for ${cookie}`);
      const data = this.gather(
        pending.data,
        pending.data.reduce((sum, { length }) => sum + length, 0),
      );
      all.set(cookie, {
        status: this.guest.space.copyFrom(pending.status.gpa, 1)[0] as number,
        written,
        data,
      });
    }
    return all;
  }

  /** Sends one request and waits for its answer. */
  async ask(readable: readonly Uint8Array[], writable: readonly number[] = []): Promise<Answer> {
    const cookie = this.request(readable, writable);
    await this.settle();
    const answer = this.answers().get(cookie);
    if (answer === undefined) throw new Error("the request was not answered");
    return answer;
  }

  read(sector: number, ...lengths: number[]): Promise<Answer> {
    return this.ask([head(VIRTIO_BLK_T_IN, sector)], lengths);
  }

  write(sector: number, ...data: Uint8Array[]): Promise<Answer> {
    return this.ask([head(VIRTIO_BLK_T_OUT, sector), ...data]);
  }

  /** Each request was answered, cancelled, or is under way. */
  assertBalanced(): void {
    const { requests, completed, failed, unsupported, cancelled, outstanding } = this.face.statistics;
    expect(requests).toBe(completed + failed + unsupported + cancelled + outstanding);
  }

  async config(): Promise<DataView> {
    const bytes = await this.transport.readConfig(0, this.transport.configSize);
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
}
