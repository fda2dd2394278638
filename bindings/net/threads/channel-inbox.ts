import type { MemorySpace } from "../../memory/space.js";
import type { Batch } from "../batch.js";
import type { Egress } from "../egress.js";
import { FRAME_LENGTH_MAX } from "../frame-store.js";
import { HostFrames } from "../host-frames.js";
import type { DropReason, PortPeer } from "../port.js";
import type { FrameTally } from "../tally.js";
import { MESSAGE_BYTES, MESSAGE_FRAMES_MAX, type FrameReader } from "./channel-wire.js";
import { frameFault } from "./fault.js";

/** Who sent messages that are held here. */
export interface HeldSender {
  /** Bytes of its messages. */
  held: number;
  /** Their frames. */
  heldFrames: number;
}

/** A message with frames that waits, or is being handed on. */
export interface HeldMessage<Sender extends HeldSender> {
  readonly from: Sender;
  readonly reader: FrameReader;
  /** Sequence number after its last frame. */
  readonly end: number;
}

/**
 * Messages with frames that came and wait for the peer, in the order in which they came. A message is copied to the host's
 * memory piece by piece, and looked at there: whatever it says, frames that must not go on are dropped and counted. It has no
 * bound of its own; whoever fills it has one for each sender.
 */
export class ChannelInbox<Sender extends HeldSender> {
  readonly #messages: HeldMessage<Sender>[] = [];
  readonly #frames: HostFrames;
  /** Why frame i of what was unpacked must not go on. */
  readonly #faults: (DropReason | null)[] = [];
  /** Frames that were unpacked and handed on. */
  #handed = 0;

  /**
   * @param space - the host's memory
   * @param egress - the way to the peer
   * @param tally - counts what is dropped
   * @throws VbusError ENOMEM
   */
  constructor(
    space: MemorySpace,
    private readonly egress: Egress,
    private readonly tally: FrameTally,
  ) {
    this.#frames = new HostFrames(space, MESSAGE_FRAMES_MAX, MESSAGE_BYTES + 2 * FRAME_LENGTH_MAX);
  }

  /** True while no message waits. */
  get empty(): boolean {
    return this.#messages.length === 0;
  }

  /** True while a message of that sender waits. */
  holds(from: Sender): boolean {
    return this.#messages.some((message) => message.from === from);
  }

  /** Keeps a message. */
  add(message: HeldMessage<Sender>): void {
    message.from.held += message.reader.size;
    message.from.heldFrames += message.reader.count;
    this.#messages.push(message);
  }

  /**
   * Hands the first message on, as far as the peer takes it.
   * @param stopped - asked between frames: no more is to be handed on
   * @returns the message, when it is done with; null when the peer takes no more, which calls `ready()`, or there is none
   */
  handOn(stopped: () => boolean): HeldMessage<Sender> | null {
    const [message] = this.#messages;
    if (message === undefined) return null;
    const { reader, from } = message;
    const { batch } = this.#frames;
    while (this.#handed < batch.count || reader.left > 0) {
      if (this.#handed === batch.count) this.#unpack(reader);
      this.#handed += this.#pass(batch, this.#handed, batch.count, stopped);
      if (this.#handed < batch.count) return null;
    }
    this.#messages.shift();
    from.held -= reader.size;
    from.heldFrames -= reader.count;
    return message;
  }

  /** Copies the next frames of a message to our memory, as many as fit, and looks at them. */
  #unpack(reader: FrameReader): void {
    this.#frames.clear();
    this.#handed = 0;
    const { batch } = this.#frames;
    while (reader.left > 0 && this.#frames.fits(reader.length)) {
      const { bytes, offload } = reader.read();
      const i = batch.count;
      this.#frames.add(bytes, offload ?? {});
      this.#faults[i] = offload === null ? "bad-offload" : frameFault(batch, i);
    }
  }

  /** Hands frames [from, to) to the peer. Returns how many are done with. */
  #pass(batch: Batch, from: number, to: number, stopped: () => boolean): number {
    const { egress, tally } = this;
    let done = from;
    while (done < to && !stopped()) {
      let end = done;
      while (end < to && this.#faults[end] === null) end++;
      if (end === done) {
        tally.drop(this.#faults[done] as DropReason, 1);
        done++;
      } else if (egress.peer === null) {
        tally.drop("no-link", end - done);
        done = end;
      } else {
        done += egress.offer(batch, done, end);
        if (done < end && (egress.peer as PortPeer | null) !== null) break;
      }
    }
    return done - from;
  }

  /** Frames that wait. */
  get waiting(): number {
    let n = this.#frames.batch.count - this.#handed;
    for (const { reader } of this.#messages) n += reader.left;
    return n;
  }

  /** Forgets everything. Returns how many frames waited: the caller counts them. */
  clear(): number {
    const n = this.waiting;
    this.#messages.length = 0;
    this.#frames.clear();
    this.#handed = 0;
    return n;
  }

  /** Gives the memory back. */
  close(): void {
    this.#frames.close();
  }
}
