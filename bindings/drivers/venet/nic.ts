import { RECHECK_INUSE_HEAD, RECHECK_VALID_HEAD } from "../../../assembly/abi/arena.js";
import { EXT_LAZY_INDEXES, IOQ_MAX_COUNT } from "../../../assembly/abi/ioq.js";
import {
  ETH_ADDRESS_SIZE,
  ETH_HEADER_SIZE,
  MTU_DEFAULT,
  MTU_MAX,
  MTU_MIN,
  VENET_FLUSHRX,
  VENET_LINKDOWN,
  VENET_LINKUP,
  VENET_MACQUERY,
  VENET_QUEUE_RX,
  VENET_QUEUE_TX,
  VENET_VERSION,
  VLAN_TAG_SIZE,
} from "../../../assembly/abi/venet.js";
import type { QueueCounters } from "../../engine/queue.js";
import { VbusError } from "../../errors.js";
import type { Batch } from "../../net/batch.js";
import type { ProxyDevice, ProxyQueue } from "../proxy.js";
import { ReceiveRing, type ReceiveStatistics } from "./receive.js";
import { TransmitRing, type TransmitStatistics } from "./transmit.js";

/** How a NIC is driven. */
export interface VenetOptions {
  /** Descriptors of the RX ring; default 256, at most 2048. */
  rxRing?: number;
  /** Descriptors of the TX ring; default 256, at most 2048. */
  txRing?: number;
  /** MTU at the start; default 1500. Must not exceed the host's attribute, or larger frames are dropped there. */
  mtu?: number;
  /** Offer lazily written indexes (an extension; the host must allow it). Default false: strict IOQ v4. */
  lazyIndexes?: boolean;
  /** Frames kept for `receive()` before the ring is left to fill (back-pressure); default 1024. */
  receiveBacklog?: number;
}

/** Counters of a NIC, named as `ethtool -S` would, and those of its rings. */
export interface NicStatistics extends TransmitStatistics, ReceiveStatistics {
  /** The RX ring's counters. */
  rxQueue: QueueCounters;
  /** The TX ring's counters. */
  txQueue: QueueCounters;
}

/**
 * A venet network card in a guest (linear mode). Created by {@link VenetDriver}; belongs to the guest's thread.
 *
 * ```ts
 * await nic.open();
 * await nic.send([frame]);                       // waits for room in the ring
 * for (const frame of await nic.receive()) …     // copies, yours
 * ```
 */
export class VenetNic {
  /** MAC address, 6 bytes. */
  readonly mac: Uint8Array;
  /** Called when link state changes. */
  onLink: ((up: boolean) => void) | null = null;
  /** Called once when the NIC cannot go on: a ring broke, or the host is gone. What remains is to close it. */
  onError: ((error: unknown) => void) | null = null;
  /**
   * Takes received frames without a copy, instead of {@link VenetNic.receive}: frames [from, to) of the batch, borrowed
   * for the duration of the call. Returns how many it took; after taking fewer, call {@link VenetNic.resumeReceive}.
   */
  onFrames: ((batch: Batch, from: number, to: number) => number) | null = null;

  #mtu: number;
  #up = false;
  #closed = false;
  #failure: Error | null = null;
  #flushNeeded = false;
  /** The ring holds frames that the back-log had no room for. */
  #left = false;
  #finalCounters: { rxQueue: QueueCounters; txQueue: QueueCounters } | null = null;
  readonly #backlog: number;
  #received: Uint8Array<ArrayBuffer>[] = [];
  #receivers: { resolve: (frames: Uint8Array<ArrayBuffer>[]) => void; reject: (error: Error) => void }[] = [];
  readonly #rx: ReceiveRing;
  readonly #tx: TransmitRing;

  private constructor(
    readonly device: ProxyDevice,
    private readonly queues: { rx: ProxyQueue; tx: ProxyQueue },
    hooks: { rx: () => void; tx: () => void; fail: (error: unknown) => void },
    mac: Uint8Array,
    options: VenetOptions,
  ) {
    this.mac = mac;
    this.#mtu = options.mtu ?? MTU_DEFAULT;
    this.#backlog = options.receiveBacklog ?? 1024;
    const size = (): number => frameSize(this.#mtu);
    this.#rx = new ReceiveRing(
      queues.rx,
      device,
      size,
      (batch, from, to) => this.#receive(batch, from, to),
      (error) => {
        this.#fail(error);
      },
    );
    const onError = (error: unknown): void => {
      this.#fail(error);
    };
    try {
      this.#tx = new TransmitRing(queues.tx, device, size, onError);
    } catch (error) {
      this.#rx.close(true);
      throw error;
    }
    device.onLost = onError;
    hooks.rx = () => {
      this.#rx.wake();
    };
    hooks.tx = () => {
      this.#tx.wake();
    };
    hooks.fail = (error) => {
      this.#fail(error);
    };
  }

  /** Brings a device up to the point where `open()` works: the probe of `docs/abi/venet.md` section 10. @internal */
  static async probe(device: ProxyDevice, options: VenetOptions): Promise<VenetNic> {
    checkOptions(options);
    await device.open(VENET_VERSION);
    const hooks = { rx: () => {}, tx: () => {}, fail: (_error: unknown) => {} };
    const offer = options.lazyIndexes === true ? EXT_LAZY_INDEXES : 0;
    const onBroken = (error: unknown): void => {
      hooks.fail(error);
    };
    const rx = await device.createQueue(VENET_QUEUE_RX, {
      count: options.rxRing ?? 256,
      role: "northReceive",
      recheck: RECHECK_INUSE_HEAD,
      notifier: () => {
        hooks.rx();
      },
      onBroken,
      offer,
    });
    const tx = await device.createQueue(VENET_QUEUE_TX, {
      count: options.txRing ?? 256,
      role: "northTransmit",
      recheck: RECHECK_VALID_HEAD,
      notifier: () => {
        hooks.tx();
      },
      onBroken,
      offer,
    });
    const mac = new Uint8Array(ETH_ADDRESS_SIZE);
    await device.call(VENET_MACQUERY, mac);
    const nic = new VenetNic(device, { rx, tx }, hooks, mac, options);
    try {
      nic.#rx.post();
    } catch (error) {
      await nic.close();
      throw error;
    }
    return nic;
  }

  /** Link up: frames flow from now on. @throws VbusError EINVAL when up already or closed, or the host's errno */
  async open(): Promise<void> {
    this.#assertUsable();
    if (this.#up) throw new VbusError("EINVAL", "the link is up already");
    await this.device.call(VENET_LINKUP);
    this.#assertUsable(); // closed meanwhile
    this.#up = true;
    this.#rx.start();
    if (this.#flushNeeded) {
      this.#flushNeeded = false;
      await this.device.call(VENET_FLUSHRX);
      this.#rx.schedule();
    }
    this.onLink?.(true);
  }

  /** Link down. Frames in the rings stay there. Harmless when down. */
  async stop(): Promise<void> {
    if (!this.#up) return;
    this.#up = false;
    this.#rx.stop();
    await this.device.call(VENET_LINKDOWN);
    this.onLink?.(false);
  }

  #reasonUnusable(): Error | null {
    return this.#closed
      ? new VbusError("ENOTCONN", "the NIC is closed; probe the device again")
      : this.#failure;
  }

  #assertUsable(): void {
    const reason = this.#reasonUnusable();
    if (reason !== null) throw reason;
  }

  /** True between {@link VenetNic.open} and {@link VenetNic.stop}. */
  get up(): boolean {
    return this.#up;
  }

  /** Current MTU. */
  get mtu(): number {
    return this.#mtu;
  }

  /**
   * Changes the MTU: buffers of the new size replace the old ones by FLUSHRX.
   * @throws VbusError EINVAL outside 68 … 65000, ENOMEM when the guest's memory cannot hold the buffers
   */
  async setMtu(mtu: number): Promise<void> {
    this.#assertUsable();
    checkMtu(mtu);
    const { ram } = this.device.bus.transport.memory;
    const size = frameSize(mtu);
    const needed = this.#rx.growth(size) + this.#tx.growth(size);
    if (needed > ram.available) {
      throw new VbusError(
        "ENOMEM",
        `buffers for an MTU of ${mtu} need ${needed} bytes more, the guest has ${ram.available}; give it more memory or use smaller rings`,
      );
    }
    this.#mtu = mtu;
    if (this.#up) {
      await this.device.call(VENET_FLUSHRX);
      this.#rx.schedule();
    } else {
      this.#flushNeeded = true;
    }
  }

  /** Longest frame that may be sent: MTU, header and one tag. */
  get frameLimit(): number {
    return frameSize(this.#mtu);
  }

  #checkFrames(frames: readonly Uint8Array[]): void {
    this.#assertUsable();
    for (const frame of frames) {
      if (frame.length < ETH_HEADER_SIZE || frame.length > this.frameLimit) {
        throw new VbusError(
          "EINVAL",
          `a frame of ${frame.length} bytes; send ${ETH_HEADER_SIZE} to ${this.frameLimit} (MTU ${this.#mtu})`,
        );
      }
    }
  }

  /**
   * Sends frames in order (copied at once or while waiting: leave them unchanged until the promise resolves).
   * Resolves when all are in the ring. @throws VbusError EINVAL (a frame's length), ENOTCONN, EPROTO
   */
  async send(frames: readonly Uint8Array[]): Promise<void> {
    this.#checkFrames(frames);
    await this.#tx.send(frames);
  }

  /** Sends as many frames as there is room for, from the first on. Returns how many: 0 while others wait. */
  trySend(frames: readonly Uint8Array[]): number {
    this.#checkFrames(frames);
    return this.#tx.stopped ? 0 : this.#tx.push(frames, 0);
  }

  #receive(batch: Batch, from: number, to: number): number {
    if (this.onFrames !== null) return this.onFrames(batch, from, to);
    const take = Math.min(to - from, this.#backlog - this.#received.length);
    for (let i = from; i < from + take; i++) this.#received.push(batch.copy(i));
    const receiver = this.#received.length > 0 ? this.#receivers.shift() : undefined;
    receiver?.resolve(this.#received.splice(0));
    this.#left = take < to - from;
    if (receiver !== undefined) this.#takeLeft();
    return take;
  }

  /** The back-log has room again: fetches what it had none for. */
  #takeLeft(): void {
    if (!this.#left) return;
    this.#left = false;
    this.#rx.schedule();
  }

  /**
   * Waits for frames. Resolves with everything received so far, at least one frame; copies, yours. What was received
   * before the NIC failed or was closed is still handed out. @throws VbusError ENOTCONN, EPROTO
   */
  receive(): Promise<Uint8Array<ArrayBuffer>[]> {
    if (this.#received.length > 0) {
      this.#takeLeft();
      return Promise.resolve(this.#received.splice(0));
    }
    const reason = this.#reasonUnusable();
    if (reason !== null) return Promise.reject(reason);
    return new Promise((resolve, reject) => {
      this.#receivers.push({ resolve, reject });
    });
  }

  /** Received frames, batch by batch, until the NIC is closed. */
  async *frames(): AsyncGenerator<Uint8Array<ArrayBuffer>[], void, void> {
    while (!this.#closed) {
      try {
        yield await this.receive();
      } catch (error) {
        if (this.#isClosed()) return;
        throw error;
      }
    }
  }

  #isClosed(): boolean {
    return this.#closed;
  }

  /** {@link VenetNic.onFrames} can take frames again. */
  resumeReceive(): void {
    this.#rx.schedule();
  }

  /** What was counted since the probe; after close: until then. */
  statistics(): NicStatistics {
    return { ...this.#tx.statistics, ...this.#rx.statistics, ...(this.#finalCounters ?? this.#counters()) };
  }

  #counters(): { rxQueue: QueueCounters; txQueue: QueueCounters } {
    const { rx, tx } = this.queues;
    return { rxQueue: rx.queue.counters(), txQueue: tx.queue.counters() };
  }

  #fail(error: unknown): void {
    if (this.#failure !== null || this.#closed) return;
    const reason = error instanceof Error ? error : new VbusError("EIO", "the NIC failed", { cause: error });
    this.#failure = reason;
    this.#rx.stop();
    this.#tx.end(reason);
    for (const receiver of this.#receivers.splice(0)) receiver.reject(reason);
    this.onError?.(error);
  }

  /** The host is gone, or a ring broke. @internal */
  fail(error: unknown): void {
    this.#fail(error);
  }

  /** Link down, device closed, buffers given back. Pending sends and receives reject. Twice is harmless. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const gone = new VbusError("ENOTCONN", "the NIC is closed");
    this.#tx.end(gone);
    for (const receiver of this.#receivers.splice(0)) receiver.reject(gone);
    this.#rx.stop();
    this.#finalCounters = this.#counters();
    this.device.onLost = null;
    // ends the link, too; afterwards the host touches no buffer, unless it did not answer: then they are never used again
    const wasUp = this.#up;
    this.#up = false;
    const released = await this.device.close();
    this.#rx.close(released);
    this.#tx.close(released);
    if (wasUp) this.onLink?.(false);
  }
}

function checkOptions({ mtu, rxRing, txRing, receiveBacklog }: VenetOptions): void {
  checkMtu(mtu ?? MTU_DEFAULT);
  for (const [name, count] of Object.entries({ rxRing, txRing })) {
    if (count !== undefined && !(Number.isInteger(count) && count >= 1 && count <= IOQ_MAX_COUNT)) {
      throw new VbusError("EINVAL", `${name}: a ring of ${count} descriptors; use 1 to ${IOQ_MAX_COUNT}`);
    }
  }
  if (receiveBacklog !== undefined && !(receiveBacklog >= 1)) {
    throw new VbusError("EINVAL", `a receiveBacklog of ${receiveBacklog} frames; use at least 1`);
  }
}

/** Size of buffers: a frame of the MTU with one tag. */
function frameSize(mtu: number): number {
  return mtu + ETH_HEADER_SIZE + VLAN_TAG_SIZE;
}

function checkMtu(mtu: number): void {
  if (!Number.isInteger(mtu) || mtu < MTU_MIN || mtu > MTU_MAX) {
    throw new VbusError("EINVAL", `an MTU of ${mtu}; use ${MTU_MIN} to ${MTU_MAX}`);
  }
}
