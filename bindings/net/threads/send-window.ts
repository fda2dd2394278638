/** A message that was sent: the sequence number after its last frame, and all bytes sent up to there. */
interface SentMessage {
  readonly end: number;
  readonly bytes: number;
}

/** What the other side is willing to have under way. */
export interface WindowLimits {
  frames: number;
  bytes: number;
}

/** One of those who get what is sent. */
export interface WindowPeer {
  readonly id: number;
  /** Frames before this one were taken. */
  acknowledged: number;
  /** All bytes sent up to there. */
  acknowledgedBytes: number;
  /** What it is willing to have under way. */
  limits: WindowLimits;
  /** When it took something, or had nothing to take, by the clock of whoever uses the window. */
  progressAt: number;
  /** It made no progress for too long: nobody waits for it. */
  stalled: boolean;
  /** It said that it leaves. */
  leaving: boolean;
}

/** Distance from one sequence number (32 bits, wrapping) to a later one. */
export function sequenceDistance(from: number, to: number): number {
  return (to - from) >>> 0;
}

/**
 * What was sent and not yet taken, by each of those who get it. Sequence numbers count frames, wrap at 2^32, and are
 * compared by distance. Who is slowest decides, unless it is stalled.
 */
export class SendWindow {
  readonly peers = new Map<number, WindowPeer>();
  /** Sequence number of the next frame. */
  next = 0;
  #bytes = 0;
  readonly #sent: SentMessage[] = [];
  /** The last message that is not kept any more: all who are waited for took it. */
  #trimmed: SentMessage = { end: 0, bytes: 0 };

  /** @param own - our own limits */
  constructor(private readonly own: WindowLimits) {}

  /** Somebody who gets what is sent from now on. */
  add(id: number, limits: WindowLimits, now: number): WindowPeer {
    const peer: WindowPeer = {
      id,
      acknowledged: this.next,
      acknowledgedBytes: this.#bytes,
      limits: {
        frames: Math.min(limits.frames, this.own.frames),
        bytes: Math.min(limits.bytes, this.own.bytes),
      },
      progressAt: now,
      stalled: false,
      leaving: false,
    };
    this.peers.set(id, peer);
    return peer;
  }

  /** True when somebody gets what is sent. */
  get hasReceivers(): boolean {
    for (const peer of this.peers.values()) if (!peer.stalled && !peer.leaving) return true;
    return false;
  }

  /** How many frames may be sent now, in messages of `bytes` at most; those who are not waited for do not count. */
  room(bytes: number): number {
    let room = Infinity;
    for (const peer of this.peers.values()) {
      if (peer.stalled || peer.leaving) continue;
      const frames = sequenceDistance(peer.acknowledged, this.next);
      // somebody with nothing under way takes any one message
      const fits = frames === 0 || this.#bytes - peer.acknowledgedBytes + bytes <= peer.limits.bytes;
      room = Math.min(room, fits ? Math.max(frames === 0 ? 1 : 0, peer.limits.frames - frames) : 0);
    }
    return room;
  }

  /** Notes a message of n frames. */
  sent(n: number, bytes: number, now: number): void {
    for (const peer of this.peers.values()) if (peer.acknowledged === this.next) peer.progressAt = now;
    this.next = (this.next + n) >>> 0;
    this.#bytes += bytes;
    this.#sent.push({ end: this.next, bytes: this.#bytes });
  }

  /** A peer took all frames before `sequence`. False: it cannot have. */
  acknowledge(peer: WindowPeer, sequence: number, now: number): boolean {
    const more = sequenceDistance(peer.acknowledged, sequence);
    if (more > sequenceDistance(peer.acknowledged, this.next)) return false;
    if (more === 0) return true;
    peer.acknowledged = sequence;
    peer.progressAt = now;
    const left = sequenceDistance(sequence, this.next);
    if (left > sequenceDistance(this.#trimmed.end, this.next)) return true; // stalled, and still far behind
    let { bytes } = this.#trimmed;
    for (const message of this.#sent) {
      if (sequenceDistance(message.end, this.next) < left) break;
      bytes = message.bytes;
    }
    peer.acknowledgedBytes = bytes;
    peer.stalled = false;
    this.#trim();
    return true;
  }

  /** Frames sent that somebody who is waited for has not taken. */
  get outstanding(): number {
    let most = 0;
    for (const peer of this.peers.values()) {
      if (!peer.stalled) most = Math.max(most, sequenceDistance(peer.acknowledged, this.next));
    }
    return most;
  }

  /** Nobody waits for a peer any more that took nothing since `before`. True: there is one more of those. */
  stall(before: number): boolean {
    let any = false;
    for (const peer of this.peers.values()) {
      if (peer.stalled || peer.leaving || peer.acknowledged === this.next || peer.progressAt > before)
        continue;
      peer.stalled = true;
      any = true;
    }
    if (any) this.#trim();
    return any;
  }

  /** Forgets a peer. Returns how many frames it has not taken. */
  remove(peer: WindowPeer): number {
    const left = sequenceDistance(peer.acknowledged, this.next);
    this.peers.delete(peer.id);
    this.#trim();
    return left;
  }

  #trim(): void {
    let least = Infinity;
    for (const peer of this.peers.values()) {
      if (!peer.stalled) least = Math.min(least, peer.acknowledgedBytes);
    }
    let n = 0;
    while (n < this.#sent.length && (this.#sent[n] as SentMessage).bytes <= least) n++;
    if (n > 0) this.#trimmed = this.#sent.splice(0, n)[n - 1] as SentMessage;
  }
}
