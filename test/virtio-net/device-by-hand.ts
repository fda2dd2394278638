/** A virtio-net device that does exactly what a test says, and the driver in a guest, in one thread on virtual time. */
import { VIRTIO_ID_NET, VIRTIO_NET_HDR_SIZE } from "vbus/abi";
import { VirtioLocal } from "vbus/connectors/virtio-local";
import type { VirtioDriverQueue, VirtioDriverQueueOptions } from "vbus/drivers/virtio";
import { VirtioNetDriver, type VirtioNic, type VirtioNicOptions } from "vbus/drivers/virtio-net";
import { ChainTable } from "vbus/engine";
import type { VirtualScheduler } from "vbus/scheduler";
import type { VirtioFace, VirtioQueue, VirtioSession, VirtioSessionContext } from "vbus/virtio";
import { surroundings } from "../virtio-face/machine.js";
import { encodeHeader, type Header } from "./machine.js";

/** A buffer that the driver posted, in the device's hands. */
export interface PostedBuffer {
  readonly id: number;
  readonly slots: number;
  readonly gpa: number;
  readonly length: number;
}

/** What the device offers, and how long its queues are. */
export interface HandOptions {
  features: bigint;
  /** Completes in the order in which it takes, and offers to say so. */
  inOrder?: boolean;
  rxRing?: number;
}

class HandFace implements VirtioFace {
  readonly name = "net-by-hand";
  readonly deviceType = VIRTIO_ID_NET;
  readonly configSize = 12;
  readonly features: bigint;
  readonly inOrder: boolean;
  readonly queueSizes: readonly number[];
  context!: VirtioSessionContext;

  constructor({ features, inOrder = false, rxRing = 256 }: HandOptions) {
    this.features = features;
    this.inOrder = inOrder;
    this.queueSizes = [rxRing, 64];
  }

  acceptable(): boolean {
    return true;
  }

  readConfig(): void {}

  writeConfig(): void {}

  start(context: VirtioSessionContext): VirtioSession {
    this.context = context;
    return { queueStopped: () => undefined, stop: () => undefined };
  }
}

/** Keeps the driver's ends of the queues, so that a test can falsify what they say. */
class ObservedTransport extends VirtioLocal {
  readonly driverQueues = new Map<number, VirtioDriverQueue>();

  override async createQueue(index: number, options: VirtioDriverQueueOptions): Promise<VirtioDriverQueue> {
    const queue = await super.createQueue(index, options);
    this.driverQueues.set(index, queue);
    return queue;
  }
}

export class DeviceByHand {
  readonly #chains: ChainTable;
  readonly failures: unknown[] = [];

  private constructor(
    readonly nic: VirtioNic,
    readonly scheduler: VirtualScheduler,
    readonly transport: ObservedTransport,
    private readonly face: HandFace,
  ) {
    this.#chains = ChainTable.allocate(this.rx.ring.space, 256, 20);
    nic.onError = (error) => {
      this.failures.push(error);
    };
  }

  static async create(options: HandOptions, driver: VirtioNicOptions = {}): Promise<DeviceByHand> {
    const { guest, host, scheduler } = await surroundings();
    const face = new HandFace(options);
    const transport = new ObservedTransport({ face, guest, host, scheduler });
    const nic = await new VirtioNetDriver(undefined, driver).probe(transport);
    return new DeviceByHand(nic, scheduler, transport, face);
  }

  #queue(index: number): VirtioQueue {
    const queue = this.face.context.queue(index);
    if (queue === null) throw new Error(`the driver set no queue ${index} up`);
    return queue;
  }

  get rx(): VirtioQueue {
    return this.#queue(0);
  }

  /** Takes all that the driver made available. */
  take(queue = this.rx): PostedBuffer[] {
    const all: PostedBuffer[] = [];
    const chains = this.#chains;
    for (let n; (n = queue.ring.peek(chains, chains.capacity)) > 0;) {
      for (let i = 0; i < n; i++) {
        const { gpa, length } = chains.piece(i, 0);
        all.push({ id: chains.id(i), slots: chains.slots(i), gpa, length });
      }
      queue.ring.advance(n);
    }
    return all;
  }

  /** Takes what the driver sends. */
  takeSent(): PostedBuffer[] {
    return this.take(this.#queue(1));
  }

  /** Writes bytes into a buffer and gives it back. `written`: how many it says that it wrote. */
  use({ id, slots, gpa }: PostedBuffer, bytes: Uint8Array, written = bytes.length): void {
    const { rx } = this;
    rx.ring.space.copyTo(gpa, bytes);
    if (rx.ring.completeOne(id, slots, written)) rx.interrupt();
  }

  /** Gives buffers back with a frame in them: so many bytes in each; in the last one what is left. */
  deliver(
    buffers: readonly PostedBuffer[],
    frame: Uint8Array,
    cuts: readonly number[] = [],
    header: Header = {},
  ): void {
    for (const [k, part] of cut(frame, cuts, { buffers: cuts.length + 1, ...header }).entries())
      this.use(buffers[k]!, part);
  }

  /** Waits until everybody who has something to do has done it. */
  run(): void {
    this.scheduler.run();
  }
}

/** What the buffers of a frame hold: a header and `cuts[0]` bytes of the frame, `cuts[1]` bytes, …, and the rest. */
export function cut(frame: Uint8Array, cuts: readonly number[], header: Header): Uint8Array[] {
  const ends = [...cuts, frame.length];
  let at = 0;
  return ends.map((length, k) => {
    const part = frame.subarray(at, at + length);
    at += length;
    if (k > 0) return part;
    const first = new Uint8Array(VIRTIO_NET_HDR_SIZE + part.length);
    first.set(encodeHeader(header));
    first.set(part, VIRTIO_NET_HDR_SIZE);
    return first;
  });
}
