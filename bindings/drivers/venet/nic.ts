import { VENET_FLUSHRX, VENET_LINKDOWN, VENET_LINKUP } from "../../../assembly/abi/venet.js";
import type { QueueCounters } from "../../engine/queue.js";
import { VbusError } from "../../errors.js";
import type { Batch } from "../../net/batch.js";
import type { ProxyDevice } from "../proxy.js";
import type { EventStatistics } from "./events.js";
import { FrameFinisher } from "./finish.js";
import { checkBurst, checkFrame, type ReceivedFrame, type Sendable, type TransmitFrame } from "./frames.js";
import { FrameInbox } from "./inbox.js";
import type { NicOffloads } from "./offloads.js";
import { checkMtu, resolveOptions, type VenetOptions } from "./options.js";
import type { PageStatistics } from "./pages.js";
import { frameSize, probeNic, type NicParts } from "./probe.js";
import type { ReceiveStatistics } from "./receive.js";
import type { TransmitStatistics } from "./transmit.js";

/** Counters of a NIC, named as `ethtool -S` would, and those of its rings. */
export interface NicStatistics
  extends TransmitStatistics, ReceiveStatistics, PageStatistics, EventStatistics {
  /** The RX ring's counters. */
  rxQueue: QueueCounters;
  /** The TX ring's counters. */
  txQueue: QueueCounters;
}

/**
 * A venet network card in a guest. Created by {@link VenetDriver}; belongs to the guest's thread.
 *
 * ```ts
 * await nic.open();
 * await nic.send([frame]);                       // waits for room in the ring
 * for (const frame of await nic.receive()) …     // copies, yours
 * ```
 *
 * Where the host takes them ({@link VenetNic.offloads}), frames may also be sent with partial checksums and as
 * superframes, and {@link VenetNic.receiveFrames} gives received ones as they came.
 */
export class VenetNic {
  /** The device on the bus. */
  readonly device: ProxyDevice;
  /** MAC address, 6 bytes. */
  readonly mac: Uint8Array;
  /** What the host granted; without anything the NIC is in linear mode. */
  readonly offloads: NicOffloads;
  /** Called when the link begins or ends to carry frames: opened or stopped, and what the host says of its side. */
  onLink: ((up: boolean) => void) | null = null;
  /** Called once when the NIC cannot go on: a ring broke, or the host is gone. What remains is to close it. */
  onError: ((error: unknown) => void) | null = null;
  /**
   * Takes received frames without a copy, instead of {@link VenetNic.receive}: frames [from, to) of the batch, borrowed
   * for the duration of the call. Returns how many it took; after taking fewer, call {@link VenetNic.resumeReceive}.
   * With large receive they may be scattered, unfinished and superframes: see flags and pieces of the batch's table.
   */
  onFrames: ((batch: Batch, from: number, to: number) => number) | null = null;

  #up = false;
  #carrier: boolean;
  /** What onLink was told last. */
  #toldLink = false;
  #closed = false;
  #failure: Error | null = null;
  #flushNeeded = false;
  #finalCounters: { rxQueue: QueueCounters; txQueue: QueueCounters } | null = null;
  readonly #inbox: FrameInbox;
  readonly #finisher: FrameFinisher;
  readonly #parts: NicParts;

  private constructor(parts: NicParts, receiveBacklog: number) {
    const { device, mac, offloads, hooks } = parts;
    this.#parts = parts;
    this.device = device;
    this.mac = mac;
    this.offloads = offloads;
    this.#carrier = !offloads.linkState;
    this.#inbox = new FrameInbox(receiveBacklog, () => {
      parts.rx.schedule();
    });
    this.#finisher = new FrameFinisher(device.bus.transport.memory.space);
    hooks.receive = (batch, from, to) =>
      this.onFrames === null ? this.#inbox.put(batch, from, to) : this.onFrames(batch, from, to);
    hooks.fail = (error) => {
      this.#fail(error);
    };
    hooks.carrier = (up) => {
      this.#carrier = up;
      this.#tellLink();
    };
    device.onLost = hooks.fail;
  }

  /** Brings a device up to the point where `open()` works: the probe of `docs/abi/venet.md` section 10. @internal */
  static async probe(device: ProxyDevice, options: VenetOptions): Promise<VenetNic> {
    const resolved = resolveOptions(options);
    return new VenetNic(await probeNic(device, resolved), resolved.receiveBacklog);
  }

  /** Link up: frames flow from now on. @throws VbusError EINVAL when up already or closed, or the host's errno */
  async open(): Promise<void> {
    this.#assertUsable();
    if (this.#up) throw new VbusError("EINVAL", "the link is up already");
    await this.device.call(VENET_LINKUP);
    this.#assertUsable(); // closed meanwhile
    this.#up = true;
    const { rx } = this.#parts;
    rx.start();
    if (this.#flushNeeded) {
      this.#flushNeeded = false;
      await this.device.call(VENET_FLUSHRX);
      rx.schedule();
    }
    this.#tellLink();
  }

  /** Link down. Frames in the rings stay there. Harmless when down. */
  async stop(): Promise<void> {
    if (!this.#up) return;
    this.#up = false;
    this.#parts.rx.stop();
    await this.device.call(VENET_LINKDOWN);
    // the host says "up" anew after the next LINKUP; what it said before that call must not be taken for it
    this.#parts.events?.drain();
    if (this.offloads.linkState) this.#carrier = false;
    this.#tellLink();
  }

  /** True while the host's side of the link is up; where it does not report that, always. */
  get carrier(): boolean {
    return this.#carrier;
  }

  /** Tells the observer of a change; what it throws is its own. */
  #tellLink(): void {
    const link = this.#up && this.#carrier;
    if (link === this.#toldLink) return;
    this.#toldLink = link;
    try {
      this.onLink?.(link);
    } catch (error) {
      this.device.bus.transport.scheduler.post(() => {
        throw error;
      });
    }
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
    return this.#parts.hooks.mtu;
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
    const { rx, tx, hooks } = this.#parts;
    const needed = rx.growth(size) + tx.growth(size);
    if (needed > ram.available) {
      throw new VbusError(
        "ENOMEM",
        `buffers for an MTU of ${mtu} need ${needed} bytes more, the guest has ${ram.available}; give it more memory or use smaller rings`,
      );
    }
    hooks.mtu = mtu;
    if (this.#up) {
      await this.device.call(VENET_FLUSHRX);
      rx.schedule();
    } else {
      this.#flushNeeded = true;
    }
  }

  /** Longest frame that may be sent, other than superframes: MTU, header and one tag. */
  get frameLimit(): number {
    return frameSize(this.mtu);
  }

  #checkFrames(frames: readonly (Uint8Array | TransmitFrame)[]): readonly Sendable[] {
    this.#assertUsable();
    checkBurst(frames);
    const { frameLimit, mtu } = this;
    const { tx } = this.offloads;
    // frames with nothing to do are what they were: most senders cost no new array
    let checked: Sendable[] | null = null;
    for (const [i, frame] of frames.entries()) {
      const sendable = checkFrame(frame, frameLimit, mtu, tx);
      if (sendable !== frame) checked ??= frames.slice(0, i) as Uint8Array[];
      checked?.push(sendable);
    }
    return checked ?? (frames as readonly Uint8Array[]);
  }

  /**
   * Sends frames in order (copied at once or while waiting: leave them unchanged until the promise resolves).
   * Resolves when all are in the ring. @throws VbusError EINVAL (no frames, a frame's length, contradictory metadata), EOPNOTSUPP
   *   (what {@link VenetNic.offloads} says the host does not take), ENOTCONN, EPROTO, ENOMEM
   */
  async send(frames: readonly (Uint8Array | TransmitFrame)[]): Promise<void> {
    await this.#parts.tx.send(this.#checkFrames(frames));
  }

  /** Sends as many frames as there is room for, from the first on. Returns how many: 0 while others wait. @throws as `send` */
  trySend(frames: readonly (Uint8Array | TransmitFrame)[]): number {
    const checked = this.#checkFrames(frames);
    const { tx } = this.#parts;
    return tx.stopped ? 0 : tx.push(checked, 0);
  }

  /**
   * Waits for frames. Resolves with everything received so far, at least one frame; copies, yours, as they would have
   * come over a wire: superframes are cut, partial checksums completed. What was received before the NIC failed or was
   * closed is still handed out. @throws VbusError ENOTCONN, EPROTO
   */
  receive(): Promise<Uint8Array<ArrayBuffer>[]> {
    return this.#inbox.take(
      (frames) => frames.flatMap((frame) => this.#finish(frame)),
      this.#reasonUnusable(),
    );
  }

  #finish(frame: ReceivedFrame): Uint8Array<ArrayBuffer>[] {
    const finished = this.#finisher.finish(frame);
    if (finished.length === 0) this.#parts.rx.statistics.rx_frame_errors++;
    if (this.#closed) this.#finisher.close(); // nobody else would
    return finished;
  }

  /** As {@link VenetNic.receive}, but frames as the host delivered them, with what is left to do about each. */
  receiveFrames(): Promise<ReceivedFrame[]> {
    return this.#inbox.take((frames) => frames, this.#reasonUnusable());
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
    this.#parts.rx.schedule();
  }

  /** What was counted since the probe; after close: until then. */
  statistics(): NicStatistics {
    const { tx, rx, pages, events } = this.#parts;
    return {
      ...tx.statistics,
      ...rx.statistics,
      ...(pages?.statistics ?? { rx_pages: 0, rx_no_page_refill: 0 }),
      ...(events?.statistics ?? { events: 0, events_unknown: 0 }),
      ...(this.#finalCounters ?? this.#counters()),
    };
  }

  #counters(): { rxQueue: QueueCounters; txQueue: QueueCounters } {
    const { rx, tx } = this.#parts.queues;
    return { rxQueue: rx.queue.counters(), txQueue: tx.queue.counters() };
  }

  #fail(error: unknown): void {
    if (this.#failure !== null || this.#closed) return;
    const reason = error instanceof Error ? error : new VbusError("EIO", "the NIC failed", { cause: error });
    this.#failure = reason;
    this.#parts.rx.stop();
    this.#parts.tx.end(reason);
    this.#inbox.end(reason);
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
    const { rx, tx, events, hooks } = this.#parts;
    const gone = new VbusError("ENOTCONN", "the NIC is closed");
    tx.end(gone);
    this.#inbox.end(gone);
    rx.stop();
    this.#finalCounters = this.#counters();
    this.device.onLost = null;
    hooks.carrier = () => {};
    // ends the link, too; afterwards the host touches no buffer, unless it did not answer: then they are never used again
    this.#up = false;
    const released = await this.device.close();
    rx.close(released);
    tx.close(released);
    events?.close();
    this.#finisher.close();
    this.#tellLink();
  }
}
