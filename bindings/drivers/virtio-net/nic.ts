import {
  VIRTIO_NET_CONFIG_OFF_MAC,
  VIRTIO_NET_CONFIG_OFF_MTU,
  VIRTIO_NET_CONFIG_OFF_STATUS,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_S_LINK_UP,
} from "../../../assembly/abi/virtio-net.js";
import { VIRTIO_STATUS_DRIVER_OK, VIRTIO_STATUS_NEEDS_RESET } from "../../../assembly/abi/virtio-status.js";
import type { VirtQueueCounters } from "../../engine/virtqueue.js";
import { VbusError } from "../../errors.js";
import type { Batch } from "../../net/batch.js";
import { FrameFinisher } from "../venet/finish.js";
import {
  checkBurst,
  checkFrame,
  type ReceivedFrame,
  type Sendable,
  type TransmitFrame,
} from "../venet/frames.js";
import { FrameInbox } from "../venet/inbox.js";
import type { GrantedOffloads } from "../venet/offloads.js";
import { initializeVirtio } from "../virtio/initialize.js";
import type { VirtioDriverTransport } from "../virtio/transport.js";
import { VirtioNetFeatures } from "./features.js";
import { resolveOptions, type VirtioNicOptions } from "./options.js";
import { ReceiveSide, type VirtioReceiveStatistics } from "./receive.js";
import { TransmitSide, type VirtioTransmitStatistics } from "./transmit.js";

const RX = 0;
const TX = 1;
/** What a frame has besides its payload of MTU bytes: header and one tag. */
const FRAME_EXTRA = 18;

/** Counters of a card, named as `ethtool -S` would, and those of its rings. */
export interface VirtioNicStatistics extends VirtioTransmitStatistics, VirtioReceiveStatistics {
  /** The receive ring's counters. */
  rxQueue: VirtQueueCounters;
  /** The transmit ring's counters. */
  txQueue: VirtQueueCounters;
}

/**
 * A virtio-net card in a guest (virtio 1.2: 5.1). Made by `VirtioNetDriver`; belongs to the guest's thread. It works from
 * the beginning; frames are sent and received as with venet's card.
 *
 * ```ts
 * await nic.send([frame]);                       // waits for room in the ring
 * for (const frame of await nic.receive()) …     // copies, yours
 * ```
 */
export class VirtioNic {
  /** Called when the link begins or ends to carry frames. */
  onLink: ((up: boolean) => void) | null = null;
  /** Called once when the card cannot go on: a ring broke, the device wants a reset, or the host is gone. What remains is to close it. */
  onError: ((error: unknown) => void) | null = null;
  /**
   * Takes received frames without a copy, instead of {@link VirtioNic.receive}: frames [from, to) of the batch, borrowed
   * for the duration of the call. Returns how many it took; after taking fewer, call {@link VirtioNic.resumeReceive}.
   * They may be scattered, unfinished and superframes: see flags and pieces of the batch's table.
   */
  onFrames: ((batch: Batch, from: number, to: number) => number) | null = null;
  /** What may be left unfinished, both ways. */
  readonly offloads: { readonly tx: GrantedOffloads; readonly rx: GrantedOffloads };
  #carrier: boolean;
  #closed = false;
  #failure: Error | null = null;
  #rx!: ReceiveSide;
  #tx!: TransmitSide;
  #counters!: () => { rxQueue: VirtQueueCounters; txQueue: VirtQueueCounters };
  readonly #inbox: FrameInbox;
  readonly #finisher: FrameFinisher;

  private constructor(
    /** How it is reached. */
    readonly transport: VirtioDriverTransport,
    /** Features that were negotiated. */
    readonly features: VirtioNetFeatures,
    /** MAC address, 6 bytes. */
    readonly mac: Uint8Array,
    /** The device's MTU. */
    readonly mtu: number,
    carrier: boolean,
    receiveBacklog: number,
  ) {
    this.offloads = { tx: features.tx, rx: features.rx };
    this.#carrier = carrier;
    this.#inbox = new FrameInbox(receiveBacklog, () => {
      this.#rx.resume();
    });
    this.#finisher = new FrameFinisher(transport.memory.space);
    transport.onConfigChange = () => {
      void this.#configChanged().catch((error: unknown) => {
        this.#fail(error);
      });
    };
    transport.onGone = (error) => {
      if (error !== null) this.#fail(error);
    };
  }

  /** Takes a device: negotiation, queues, DRIVER_OK. @throws VbusError @internal */
  static async probe(transport: VirtioDriverTransport, options: VirtioNicOptions): Promise<VirtioNic> {
    const resolved = resolveOptions(options);
    const bits = await initializeVirtio(transport, (offered) => VirtioNetFeatures.choose(offered, resolved));
    const features = new VirtioNetFeatures(bits);
    const word = async (offset: number): Promise<number> => {
      const [low = 0, high = 0] = await transport.readConfig(offset, 2);
      return low + high * 256;
    };
    const mac = features.has(VIRTIO_NET_F_MAC)
      ? await transport.readConfig(VIRTIO_NET_CONFIG_OFF_MAC, 6)
      : randomMac();
    const mtu = features.has(VIRTIO_NET_F_MTU) ? await word(VIRTIO_NET_CONFIG_OFF_MTU) : resolved.mtu;
    const carrier =
      !features.has(VIRTIO_NET_F_STATUS) ||
      ((await word(VIRTIO_NET_CONFIG_OFF_STATUS)) & VIRTIO_NET_S_LINK_UP) !== 0;
    const nic = new VirtioNic(transport, features, mac, mtu, carrier, resolved.receiveBacklog);
    try {
      await nic.#begin(resolved.rxRing, resolved.txRing, resolved.superframeMemory);
    } catch (error) {
      await nic.close();
      throw error;
    }
    return nic;
  }

  async #begin(rxRing: number, txRing: number, superframeMemory: number): Promise<void> {
    const { transport, frameLimit } = this;
    const fail = (error: unknown): void => {
      this.#fail(error);
    };
    const [rxMax, txMax] = [await transport.queueSizeMax(RX), await transport.queueSizeMax(TX)];
    const rx = await transport.createQueue(RX, {
      size: Math.min(rxRing, rxMax),
      onInterrupt: () => {
        this.#rx.interrupt();
      },
    });
    const tx = await transport.createQueue(TX, {
      size: Math.min(txRing, txMax),
      onInterrupt: () => {
        this.#tx.interrupt();
      },
    });
    this.#counters = () => ({ rxQueue: rx.ring.counters(), txQueue: tx.ring.counters() });
    this.#rx = new ReceiveSide(
      rx,
      transport,
      frameLimit,
      this.offloads.rx,
      (batch, from, to) =>
        this.onFrames === null ? this.#inbox.put(batch, from, to) : this.onFrames(batch, from, to),
      fail,
    );
    this.#tx = new TransmitSide(tx, transport, frameLimit, superframeMemory, fail);
    await transport.setStatus(VIRTIO_STATUS_DRIVER_OK);
    this.#rx.start();
  }

  async #configChanged(): Promise<void> {
    const { transport, features } = this;
    if (this.#closed) return;
    if (((await transport.status()) & VIRTIO_STATUS_NEEDS_RESET) !== 0)
      throw new VbusError("EIO", "the card wants to be reset; close it and probe the device again");
    if (!features.has(VIRTIO_NET_F_STATUS)) return;
    const [status = 0] = await transport.readConfig(VIRTIO_NET_CONFIG_OFF_STATUS, 1);
    const carrier = (status & VIRTIO_NET_S_LINK_UP) !== 0;
    if (carrier === this.#carrier || this.#isClosed()) return;
    this.#carrier = carrier;
    this.onLink?.(carrier);
  }

  /** True while the device says that its link is up; where it does not report that, always. */
  get carrier(): boolean {
    return this.#carrier;
  }

  /** Longest frame that may be sent, other than superframes: MTU, header and one tag. */
  get frameLimit(): number {
    return this.mtu + FRAME_EXTRA;
  }

  #reasonUnusable(): Error | null {
    return this.#closed
      ? new VbusError("ENOTCONN", "the card is closed; probe the device again")
      : this.#failure;
  }

  #checkFrames(frames: readonly (Uint8Array | TransmitFrame)[]): readonly Sendable[] {
    const reason = this.#reasonUnusable();
    if (reason !== null) throw reason;
    checkBurst(frames);
    const { frameLimit, mtu } = this;
    return frames.map((frame) => checkFrame(frame, frameLimit, mtu, this.offloads.tx));
  }

  /**
   * Sends frames in order (copied at once or while waiting: leave them unchanged until the promise resolves).
   * Resolves when all are in the ring. @throws VbusError EINVAL (no array, a frame's length, contradictory metadata), EOPNOTSUPP
   *   (what {@link VirtioNic.offloads} says the device does not take), ENOTCONN, EPROTO, ENOMEM
   */
  async send(frames: readonly (Uint8Array | TransmitFrame)[]): Promise<void> {
    await this.#tx.send(this.#checkFrames(frames));
  }

  /** Sends as many frames as there is room for, from the first on. Returns how many: 0 while others wait. @throws as `send` */
  trySend(frames: readonly (Uint8Array | TransmitFrame)[]): number {
    const checked = this.#checkFrames(frames);
    return this.#tx.stopped ? 0 : this.#tx.push(checked, 0);
  }

  /**
   * Waits for frames. Resolves with everything received so far, at least one frame; copies, yours, as they would have
   * come over a wire: superframes are cut, partial checksums completed. What was received before the card failed or was
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
    if (finished.length === 0) this.#rx.statistics.rx_frame_errors++;
    if (this.#closed) this.#finisher.close(); // nobody else would
    return finished;
  }

  /** As {@link VirtioNic.receive}, but frames as the device delivered them, with what is left to do about each. */
  receiveFrames(): Promise<ReceivedFrame[]> {
    return this.#inbox.take((frames) => frames, this.#reasonUnusable());
  }

  /** {@link VirtioNic.onFrames} can take frames again. */
  resumeReceive(): void {
    this.#rx.resume();
  }

  /** What was counted since the probe; after close: until then. */
  statistics(): VirtioNicStatistics {
    return { ...this.#tx.statistics, ...this.#rx.statistics, ...this.#counters() };
  }

  #isClosed(): boolean {
    return this.#closed;
  }

  #fail(error: unknown): void {
    if (this.#failure !== null || this.#closed) return;
    const reason = error instanceof Error ? error : new VbusError("EIO", "the card failed", { cause: error });
    this.#failure = reason;
    this.#end(reason);
    this.onError?.(error);
  }

  #end(reason: Error): void {
    (this.#rx as ReceiveSide | undefined)?.end();
    (this.#tx as TransmitSide | undefined)?.end(reason);
    this.#inbox.end(reason);
  }

  /** Device reset, buffers given back. Pending sends and receives reject. Twice is harmless. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.transport.onConfigChange = null;
    this.transport.onGone = null;
    this.#end(new VbusError("ENOTCONN", "the card is closed"));
    const rx = this.#rx as ReceiveSide | undefined;
    const tx = this.#tx as TransmitSide | undefined;
    if (rx !== undefined && tx !== undefined) {
      const final = this.#counters();
      this.#counters = () => final;
    }
    // afterwards the device touches no buffer, unless it did not answer: then they are never used again
    const released = await this.transport.reset();
    rx?.close(released);
    tx?.close(released);
    this.#finisher.close();
  }
}

/** A locally administered station address at random. */
function randomMac(): Uint8Array {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  bytes[0] = ((bytes[0] as number) & 0xfc) | 2;
  return bytes;
}
