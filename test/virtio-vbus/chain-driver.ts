/** A driver for any virtio device of the bus: makes queues, sends chains, hands back what comes. */
import {
  initializeVirtio,
  type VirtioDriver,
  type VirtioDriverQueue,
  type VirtioDriverTransport,
} from "vbus/drivers/virtio";
import { BurstTable, ChainTable, VirtQueueWakeups, type ChainPiece } from "vbus/engine";

const DRIVER_OK = 4;
const PIECES = 8;
const INDIRECT_PIECES = 4;

/** A queue, and what waits in it. */
class ChainQueue {
  readonly #out: ChainTable;
  readonly #back: BurstTable;
  readonly #wakeups: VirtQueueWakeups;
  readonly #waiting = new Map<number, (written: number) => void>();
  #cookie = 0;

  constructor(
    readonly queue: VirtioDriverQueue,
    transport: VirtioDriverTransport,
  ) {
    const { space } = transport.memory;
    this.#out = ChainTable.allocate(space, 1, PIECES);
    this.#back = BurstTable.allocate(space, queue.ring.size);
    this.#wakeups = new VirtQueueWakeups(queue.ring, {
      scheduler: transport.scheduler,
      notifier: () => {
        this.#reap();
      },
    });
  }

  enable(): void {
    this.#wakeups.enable();
  }

  interrupt(): void {
    this.#wakeups.wakeup();
  }

  /** Sends a chain; resolves with the bytes that the device wrote. */
  send(readable: readonly ChainPiece[], writable: readonly ChainPiece[]): Promise<number> {
    const cookie = this.#cookie++;
    this.#out.setChain(0, readable, writable);
    this.#out.table.setCookie(0, cookie);
    const answer = new Promise<number>((resolve) => this.#waiting.set(cookie, resolve));
    if (this.queue.ring.add(this.#out, 1)) this.queue.kick();
    return answer;
  }

  #reap(): void {
    const { ring } = this.queue;
    for (let n; (n = ring.reap(this.#back, this.#back.capacity)) > 0;)
      for (let i = 0; i < n; i++) {
        const cookie = this.#back.cookie(i);
        const resolve = this.#waiting.get(cookie);
        this.#waiting.delete(cookie);
        resolve?.(this.#back.length(i));
      }
  }

  close(): void {
    this.#wakeups.close();
    this.#out.close();
    this.#back.close();
  }
}

/** A device at work. */
export class ChainDevice {
  readonly queues: ChainQueue[] = [];
  configChanges = 0;
  readonly #memory: number[] = [];

  constructor(readonly transport: VirtioDriverTransport) {
    transport.onConfigChange = () => {
      this.configChanges++;
    };
  }

  async begin(choose: (offered: bigint) => bigint, queues: number, size: number): Promise<this> {
    const { transport } = this;
    await initializeVirtio(transport, choose);
    for (let index = 0; index < queues; index++) {
      const queue = await transport.createQueue(index, {
        size,
        indirectPieces: INDIRECT_PIECES,
        onInterrupt: () => this.queues[index]?.interrupt(),
      });
      this.queues.push(new ChainQueue(queue, transport));
    }
    await transport.setStatus(DRIVER_OK);
    for (const queue of this.queues) queue.enable();
    return this;
  }

  /** Guest memory with these bytes, or so many zeros; given back with the device. */
  place(content: Uint8Array | number): ChainPiece {
    const bytes = typeof content === "number" ? new Uint8Array(content) : content;
    const gpa = this.transport.memory.ram.allocate(bytes.length, 16);
    this.#memory.push(gpa);
    this.transport.memory.space.copyTo(gpa, bytes);
    return { gpa, length: bytes.length };
  }

  read({ gpa, length }: ChainPiece): Uint8Array {
    return this.transport.memory.space.copyFrom(gpa, length);
  }

  async end(): Promise<void> {
    const confirmed = await this.transport.reset();
    for (const queue of this.queues) queue.close();
    if (confirmed) for (const gpa of this.#memory) this.transport.memory.ram.free(gpa);
  }
}

/** Makes the driver. */
export function chainDriver(
  deviceType: number,
  queues: number,
  bound: (device: ChainDevice) => void,
  choose: (offered: bigint) => bigint = (offered) => offered,
  size = 16,
): VirtioDriver<ChainDevice> {
  return {
    deviceType,
    async probe(transport) {
      const device = await new ChainDevice(transport).begin(choose, queues, size);
      bound(device);
      return device;
    },
    async remove(device) {
      await device.end();
    },
  };
}
