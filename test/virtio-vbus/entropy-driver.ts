/** The driver of the entropy device (virtio 1.2: 5.4): requests are buffers, and come back filled. */
import {
  initializeVirtio,
  type VirtioDriver,
  type VirtioDriverQueue,
  type VirtioDriverTransport,
} from "vbus/drivers/virtio";
import { BurstTable, CHAIN_WRITABLE, VirtQueueWakeups } from "vbus/engine";

const DRIVER_OK = 4;
const REQUEST = 64;

/** A device at work. */
export class EntropySource {
  interrupts = 0;
  configChanges = 0;
  /** What the transport said when the device went. */
  readonly gone: (Error | null)[] = [];
  #queue: VirtioDriverQueue | null = null;
  #wakeups: VirtQueueWakeups | null = null;
  #table: BurstTable | null = null;
  #buffers = 0;
  readonly #free: number[] = [];
  readonly #waiting = new Map<number, (bytes: Uint8Array) => void>();

  constructor(readonly transport: VirtioDriverTransport) {}

  async begin(choose: (offered: bigint) => bigint, size?: number): Promise<this> {
    const { transport } = this;
    transport.onConfigChange = () => {
      this.configChanges++;
    };
    transport.onGone = (error) => {
      this.gone.push(error);
    };
    await initializeVirtio(transport, choose);
    await this.makeQueue(size);
    await transport.setStatus(DRIVER_OK);
    return this;
  }

  async makeQueue(size?: number): Promise<void> {
    const { transport } = this;
    const queue = await transport.createQueue(0, {
      ...(size === undefined ? {} : { size }),
      onInterrupt: () => {
        this.interrupts++;
        this.#wakeups?.wakeup();
      },
    });
    this.#queue = queue;
    this.#table = BurstTable.allocate(transport.memory.space, queue.ring.size);
    this.#buffers = transport.memory.ram.allocate(queue.ring.size * REQUEST, 64);
    this.#free.length = 0;
    for (let i = 0; i < queue.ring.size; i++) this.#free.push(i);
    this.#wakeups = new VirtQueueWakeups(queue.ring, {
      scheduler: transport.scheduler,
      notifier: () => {
        this.#reap();
      },
    });
    this.#wakeups.enable();
  }

  /** One request; resolves with its bytes. */
  read(length = REQUEST): Promise<Uint8Array> {
    const table = this.#table!;
    const at = this.#free.pop();
    if (at === undefined) throw new Error("no request is free");
    table.setBuffer(0, 0, length);
    table.setGpa(0, this.#buffers + at * REQUEST);
    table.setFlags(0, CHAIN_WRITABLE);
    table.setCookie(0, at);
    const answer = new Promise<Uint8Array>((resolve) => this.#waiting.set(at, resolve));
    if (this.#queue!.ring.add(table, 1)) this.#queue!.kick();
    return answer;
  }

  #reap(): void {
    const { memory } = this.transport;
    const table = this.#table!;
    for (let n; (n = this.#queue!.ring.reap(table, table.capacity)) > 0;) {
      for (let i = 0; i < n; i++) {
        const at = table.cookie(i);
        const bytes = memory.space.copyFrom(this.#buffers + at * REQUEST, table.length(i));
        this.#free.push(at);
        const resolve = this.#waiting.get(at);
        this.#waiting.delete(at);
        resolve?.(bytes);
      }
    }
  }

  /** Forgets its queue; its buffers are used again only when the device has let go of them. */
  dropQueue(confirmed: boolean): void {
    this.#wakeups?.close();
    this.#wakeups = null;
    this.#table?.close();
    this.#table = null;
    this.#queue = null;
    if (confirmed) this.transport.memory.ram.free(this.#buffers);
  }

  get queue(): VirtioDriverQueue {
    return this.#queue!;
  }
}

/** Makes the driver; `choose` and `size` as the test wants its rings. */
export function entropyDriver(
  bound: (source: EntropySource) => void,
  choose: (offered: bigint) => bigint = (offered) => offered,
  size?: number,
): VirtioDriver<EntropySource> {
  return {
    deviceType: 4,
    async probe(transport) {
      const source = await new EntropySource(transport).begin(choose, size);
      bound(source);
      return source;
    },
    async remove(source, transport) {
      const confirmed = await transport.reset();
      source.dropQueue(confirmed);
    },
  };
}
