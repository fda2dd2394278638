import {
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_GSO_KIND,
  ENTRY_OFF_HEADER_LENGTH,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  GSO_NONE,
  GSO_UDP_L4,
} from "../../../assembly/abi/arena.js";
import type { Batch } from "../batch.js";
import { FRAME_LENGTH_MAX } from "../frame-store.js";
import type { FrameOffload } from "../host-frames.js";

/*
 * A message between two pages or threads: one ArrayBuffer, little-endian 32-bit words (`docs/threads.md`).
 *
 *     0 magic       4 version | type << 8     8 sender     12 receiver, 0: all
 *    16 a          20 b                      24 c          28 d
 *    32 records of 20 bytes, then the frames, each at the next multiple of 4
 *
 *    HELLO   a  1: answer with a HELLO    b  window: frames   c  window: bytes   d  sequence number of the next frame
 *    FRAMES  a  sequence number of the first frame            b  number of frames
 *    TAKEN   a  sequence number before which all were taken   b  1: the last TAKEN
 *    BYE     nothing more comes from the sender
 *
 *    record   0 length    4 flags    8 checksum start    10 checksum offset
 *            12 GSO kind   13 0      14 GSO size         16 header length    18 0
 */

/** "vbfm". */
const MAGIC = 0x6d666276;
const VERSION = 1;
const HEADER_SIZE = 32;
const RECORD_SIZE = 20;
/** Flags that cross. */
const CROSSING = FRAME_NEEDS_CSUM | FRAME_GSO | FRAME_ECN;
/** Most frames in a message. */
export const MESSAGE_FRAMES_MAX = 64;
/** Bytes of frames after which a message is full. A single superframe always fits. */
export const MESSAGE_BYTES = 128 * 1024;
/** Longest message that is read at all. */
const MESSAGE_LENGTH_MAX =
  HEADER_SIZE + MESSAGE_FRAMES_MAX * (RECORD_SIZE + 4) + MESSAGE_BYTES + FRAME_LENGTH_MAX;

/** What a message is about. */
export const MESSAGE_HELLO = 1;
/** Frames. */
export const MESSAGE_FRAMES = 2;
/** Frames were taken. */
export const MESSAGE_TAKEN = 3;
/** The sender leaves. */
export const MESSAGE_BYE = 4;

/** The head of a message. */
export interface MessageHead {
  /** `MESSAGE_…`. */
  readonly type: number;
  /** Who sent it, never 0. */
  readonly sender: number;
  /** Whom it is for; 0: all. */
  readonly receiver: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
}

function putHead(words: DataView, head: MessageHead): void {
  words.setUint32(0, MAGIC, true);
  words.setUint32(4, VERSION | (head.type << 8), true);
  words.setUint32(8, head.sender, true);
  words.setUint32(12, head.receiver, true);
  words.setUint32(16, head.a, true);
  words.setUint32(20, head.b, true);
  words.setUint32(24, head.c, true);
  words.setUint32(28, head.d, true);
}

/** A message without frames. */
export function writeMessage(head: MessageHead): ArrayBuffer {
  const message = new ArrayBuffer(HEADER_SIZE);
  putHead(new DataView(message), head);
  return message;
}

/** A message with frames [from, to) of a batch; at most {@link MESSAGE_FRAMES_MAX}. */
export function writeFrames(head: MessageHead, batch: Batch, from: number, to: number): ArrayBuffer {
  const frames: Uint8Array[] = [];
  let size = HEADER_SIZE + (to - from) * RECORD_SIZE;
  for (let i = from; i < to; i++) {
    const bytes = batch.bytes(i); // its length is read once: the batch may lie in a guest's memory
    frames.push(bytes);
    size += aligned(bytes.length);
  }
  const message = new ArrayBuffer(size);
  const words = new DataView(message);
  const bytes = new Uint8Array(message);
  putHead(words, head);
  const { table } = batch;
  const { data } = batch.space.engine;
  let record = HEADER_SIZE;
  let at = HEADER_SIZE + (to - from) * RECORD_SIZE;
  for (const [k, frame] of frames.entries()) {
    const flags = table.flags(from + k) & CROSSING;
    words.setUint32(record, frame.length, true);
    words.setUint32(record + 4, flags, true);
    if (flags !== 0) {
      const entry = table.entry(from + k);
      words.setUint32(record + 8, data.getUint32(entry + ENTRY_OFF_CSUM_START, true), true);
      words.setUint32(record + 12, data.getUint32(entry + ENTRY_OFF_GSO_KIND, true) & 0xffff00ff, true);
      words.setUint16(record + 16, data.getUint16(entry + ENTRY_OFF_HEADER_LENGTH, true), true);
    }
    bytes.set(frame, at);
    record += RECORD_SIZE;
    at += aligned(frame.length);
  }
  return message;
}

const aligned = (length: number): number => (length + 3) & ~3;

/** Reads the head of a message; null for anything that is none. The buffer is this thread's own: nobody rewrites it. */
export function readHead(message: unknown): MessageHead | null {
  if (!(message instanceof ArrayBuffer)) return null;
  if (message.byteLength < HEADER_SIZE || message.byteLength > MESSAGE_LENGTH_MAX) return null;
  const words = new DataView(message);
  const kind = words.getUint32(4, true);
  const type = kind >>> 8;
  const sender = words.getUint32(8, true);
  if (words.getUint32(0, true) !== MAGIC || (kind & 0xff) !== VERSION) return null;
  if (type < MESSAGE_HELLO || type > MESSAGE_BYE || sender === 0) return null;
  return {
    type,
    sender,
    receiver: words.getUint32(12, true),
    a: words.getUint32(16, true),
    b: words.getUint32(20, true),
    c: words.getUint32(24, true),
    d: words.getUint32(28, true),
  };
}

/** A frame in a message. */
export interface MessageFrame {
  readonly bytes: Uint8Array;
  /** What it needs; null: it contradicts itself. */
  readonly offload: FrameOffload | null;
}

/** The frames of a message that was checked as a whole, read one after the other. */
export class FrameReader {
  readonly #words: DataView;
  #next = 0;
  #at: number;

  private constructor(
    private readonly message: ArrayBuffer,
    /** Number of frames. */
    readonly count: number,
  ) {
    this.#words = new DataView(message);
    this.#at = HEADER_SIZE + count * RECORD_SIZE;
  }

  /** Checks number and lengths of all frames; null for a message that contradicts itself. */
  static open(message: ArrayBuffer, head: MessageHead): FrameReader | null {
    const count = head.b;
    let size = HEADER_SIZE + count * RECORD_SIZE;
    if (count === 0 || count > MESSAGE_FRAMES_MAX || size > message.byteLength) return null;
    const reader = new FrameReader(message, count);
    for (let i = 0; i < count; i++) {
      const length = reader.#words.getUint32(HEADER_SIZE + i * RECORD_SIZE, true);
      if (length > FRAME_LENGTH_MAX) return null;
      size += aligned(length);
    }
    return size === message.byteLength ? reader : null;
  }

  /** Bytes that the message takes. */
  get size(): number {
    return this.message.byteLength;
  }

  /** Frames that were not read. */
  get left(): number {
    return this.count - this.#next;
  }

  /** Length of the next frame. There must be one left. */
  get length(): number {
    return this.#words.getUint32(HEADER_SIZE + this.#next * RECORD_SIZE, true);
  }

  /** Reads the next frame. There must be one {@link FrameReader.left}. */
  read(): MessageFrame {
    const record = HEADER_SIZE + this.#next * RECORD_SIZE;
    const words = this.#words;
    const length = words.getUint32(record, true);
    const bytes = new Uint8Array(this.message, this.#at, length);
    this.#next++;
    this.#at += aligned(length);
    const flags = words.getUint32(record + 4, true) & CROSSING;
    if (flags === 0) return { bytes, offload: {} };
    const checksumStart = words.getUint16(record + 8, true);
    const checksumOffset = words.getUint16(record + 10, true);
    const kind = words.getUint8(record + 12);
    const gsoSize = words.getUint16(record + 14, true);
    const superframe = (flags & FRAME_GSO) !== 0;
    if ((flags & FRAME_NEEDS_CSUM) !== 0 && checksumStart + checksumOffset + 2 > length)
      return { bytes, offload: null };
    if (superframe && (kind === GSO_NONE || kind > GSO_UDP_L4 || gsoSize === 0))
      return { bytes, offload: null };
    return {
      bytes,
      offload: {
        flags,
        checksumStart,
        checksumOffset,
        gsoKind: superframe ? kind : GSO_NONE,
        gsoSize: superframe ? gsoSize : 0,
        headerLength: words.getUint16(record + 16, true),
      },
    };
  }
}
