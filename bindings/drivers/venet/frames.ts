import { FRAME_ECN, FRAME_GSO, FRAME_NEEDS_CSUM } from "../../../assembly/abi/arena.js";
import { ETH_HEADER_SIZE, VENET_GSO_MAX } from "../../../assembly/abi/venet.js";
import { VbusError } from "../../errors.js";
import { nameOf } from "../../given.js";
import { SUPERFRAME_KINDS, type GrantedOffloads, type SuperframeKind } from "./offloads.js";

/** A partial checksum: the field holds the folded sum of the pseudo-header; whoever needs it completes it. */
export interface PartialChecksum {
  /** First byte to sum, from the start of the frame. */
  start: number;
  /** Where the result goes, from there. */
  offset: number;
}

/** What makes a frame a superframe: one that stands for many. */
export interface Superframe {
  /** Kind. */
  kind: SuperframeKind;
  /** Payload bytes of each segment, 1 … 65535. */
  size: number;
  /** Length of all headers in bytes; a hint. */
  headerLength: number;
  /** The TCP flow uses ECN (CWR only on the first segment). Default false. */
  ecn?: boolean;
}

/** A frame that leaves work to the host: see `nic.offloads.tx` for what it takes. */
export interface TransmitFrame {
  /** The frame, in one piece or several. */
  data: Uint8Array | readonly Uint8Array[];
  /** Present: the checksum is partial. */
  checksum?: PartialChecksum;
  /** Present: a superframe, up to 65536 bytes. Needs a partial checksum. */
  gso?: Superframe;
}

/** A frame as the host delivered it. The data is a copy, yours. */
export interface ReceivedFrame {
  /** The frame. */
  data: Uint8Array<ArrayBuffer>;
  /** Where its partial checksum is, or null when the checksum is complete. */
  checksum: PartialChecksum | null;
  /**
   * Nobody needs to check the transport checksum: the host has verified it, or it is partial, that is, the frame comes
   * from a neighbour and was never on a wire. False: unknown.
   */
  verified: boolean;
  /** Set for superframes. */
  gso: Required<Superframe> | null;
}

/** A {@link TransmitFrame} that was checked, as the TX ring wants it; a snapshot of everything but the bytes. */
export interface OutgoingFrame {
  /** The pieces. */
  readonly parts: readonly Uint8Array[];
  /** Their length in all. */
  readonly length: number;
  /** `FRAME_…` flags, which are the VSG's. */
  readonly flags: number;
  /** First byte to sum. */
  readonly checksumStart: number;
  /** Where the sum goes, from there. */
  readonly checksumOffset: number;
  /** Type of the VSG. */
  readonly type: number;
  /** Length of all headers. */
  readonly headerLength: number;
  /** Payload bytes of each segment. */
  readonly segmentSize: number;
}

/** What the TX ring takes: frames with nothing to do, and others. */
export type Sendable = Uint8Array | OutgoingFrame;

/** Checks that a burst is a list; its frames are looked at one by one. @throws VbusError EINVAL */
export function checkBurst(frames: readonly (Uint8Array | TransmitFrame)[]): void {
  if (Array.isArray(frames)) return;
  throw new VbusError("EINVAL", `frames are sent in an array, not as ${nameOf(frames)}: send([frame])`);
}

/**
 * Checks a frame against what was granted. `limit` is the longest ordinary frame.
 * @throws VbusError EINVAL for lengths and positions, EOPNOTSUPP for what was not granted
 */
export function checkFrame(
  frame: Uint8Array | TransmitFrame,
  limit: number,
  mtu: number,
  granted: GrantedOffloads,
): Sendable {
  if (frame instanceof Uint8Array) {
    checkLength(frame.length, limit, mtu);
    return frame;
  }
  const parts = partsOf(frame);
  const { checksum, gso } = frame;
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  if (gso === undefined) checkLength(length, limit, mtu);
  else checkSuperframe(length, gso, checksum, granted);
  if (checksum !== undefined) checkChecksum(length, checksum, granted);
  return {
    parts,
    length,
    flags:
      (checksum === undefined ? 0 : FRAME_NEEDS_CSUM) |
      (gso === undefined ? 0 : FRAME_GSO) |
      (gso?.ecn === true ? FRAME_ECN : 0),
    checksumStart: checksum?.start ?? 0,
    checksumOffset: checksum?.offset ?? 0,
    type: gso === undefined ? 0 : SUPERFRAME_KINDS[gso.kind].vsg,
    headerLength: gso?.headerLength ?? 0,
    segmentSize: gso?.size ?? 0,
  };
}

/** The pieces of a frame that is no plain one. @throws VbusError EINVAL for what is no frame */
function partsOf(frame: TransmitFrame): readonly Uint8Array[] {
  const data = (frame as Partial<TransmitFrame> | null | undefined)?.data;
  if (data instanceof Uint8Array) return [data];
  if (Array.isArray(data) && data.every((part) => part instanceof Uint8Array)) return data.slice();
  const what = data === undefined ? nameOf(frame) : `${nameOf(frame)} with data that is ${nameOf(data)}`;
  throw new VbusError(
    "EINVAL",
    `a frame is a Uint8Array, or { data: Uint8Array or several, … }; not ${what}`,
  );
}

function checkLength(length: number, limit: number, mtu: number): void {
  if (length < ETH_HEADER_SIZE || length > limit) {
    throw new VbusError(
      "EINVAL",
      `a frame of ${length} bytes; send ${ETH_HEADER_SIZE} to ${limit} (MTU ${mtu})`,
    );
  }
}

function isWord(value: number, least: number): boolean {
  return Number.isInteger(value) && value >= least && value <= 0xffff;
}

function checkChecksum(length: number, { start, offset }: PartialChecksum, granted: GrantedOffloads): void {
  if (!granted.checksum) {
    throw new VbusError(
      "EOPNOTSUPP",
      "the host takes no partial checksums: complete the checksum, or check nic.offloads.tx.checksum first",
    );
  }
  if (!isWord(start, 0) || !isWord(offset, 0) || start + offset + 2 > length) {
    throw new VbusError(
      "EINVAL",
      `a checksum at ${start} + ${offset} of a frame of ${length} bytes; both its bytes must lie inside`,
    );
  }
}

function checkSuperframe(
  length: number,
  gso: Superframe,
  checksum: PartialChecksum | undefined,
  granted: GrantedOffloads,
): void {
  const { kind, size, headerLength, ecn } = gso;
  if (!(kind in SUPERFRAME_KINDS)) {
    throw new VbusError("EINVAL", `superframes of kind "${kind}"; there are tcp4, tcp6 and udp`);
  }
  if (!granted[kind] || (ecn === true && !granted.ecn)) {
    throw new VbusError(
      "EOPNOTSUPP",
      `the host takes no ${kind} superframes${granted[kind] ? " with ECN" : ""}: segment the frame, or check nic.offloads.tx first`,
    );
  }
  if (length < ETH_HEADER_SIZE || length > VENET_GSO_MAX) {
    throw new VbusError(
      "EINVAL",
      `a superframe of ${length} bytes; send ${ETH_HEADER_SIZE} to ${VENET_GSO_MAX}`,
    );
  }
  if (!isWord(size, 1)) {
    throw new VbusError("EINVAL", `a superframe with segments of ${size} bytes; use 1 to 65535`);
  }
  if (!isWord(headerLength, 0) || headerLength > length) {
    throw new VbusError("EINVAL", `a superframe of ${length} bytes with headers of ${headerLength}`);
  }
  if (checksum === undefined) {
    throw new VbusError(
      "EINVAL",
      "a superframe needs a partial checksum, for each of its segments gets its own: set checksum",
    );
  }
}
