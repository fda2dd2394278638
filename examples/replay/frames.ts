import type { TransmitFrame } from "vbus/drivers/venet";
import { VbusError } from "vbus";
import { isGroupMac, readCapture } from "vbus/net";

/** Frames in one buffer, so that they cross to a thread in one piece: each at a multiple of 8, with its length. */
export interface FramePack {
  /** The bytes. */
  bytes: Uint8Array<ArrayBuffer>;
  /** Where each frame starts. */
  offsets: number[];
  /** Length of each frame. */
  lengths: number[];
}

/** What a frame needs before it may go on a wire: its checksum completed, to be cut. */
export type FrameNeeds = Pick<TransmitFrame, "checksum" | "gso">;

/** Packs frames. */
export function packFrames(frames: readonly Uint8Array[]): FramePack {
  const offsets: number[] = [];
  const lengths: number[] = [];
  let size = 0;
  for (const frame of frames) {
    offsets.push(size);
    lengths.push(frame.length);
    size += (frame.length + 7) & ~7;
  }
  const bytes = new Uint8Array(size);
  for (const [i, frame] of frames.entries()) bytes.set(frame, offsets[i]);
  return { bytes, offsets, lengths };
}

/** The frames of a pack, as views into it. */
export function unpackFrames(pack: FramePack): Uint8Array[] {
  return pack.offsets.map((offset, i) => pack.bytes.subarray(offset, offset + (pack.lengths[i] as number)));
}

/** What one guest sends and stands for. */
export interface Side {
  /** Address of its NIC. */
  mac: number;
  /** What it sends, in order. */
  frames: Uint8Array[];
  /** Other stations behind it: whom the other side's frames go to. The switch has to know them, or it floods. */
  stations: number[];
}

/** A capture, split between two guests. */
export interface Workload {
  /** Guest A: owner of the busiest source address. */
  a: Side;
  /** Guest B: everybody that A talks to. */
  b: Side;
  /** Frames that cannot cross between two guests (between two stations of B's side), left out. */
  left: number;
  /** Frames that no NIC would send, left out: no whole Ethernet frame, too long, or from an address of no station. */
  unfit: number;
  /** True when the capture went one way only, so that the way back is its mirror image. */
  mirrored: boolean;
}

const LINK_ETHERNET = 1;
const HEADER = 14;
const TAG = 4;
/** EtherTypes of frames that begin with 802.1Q tags. */
const TAGGED = [0x8100, 0x88a8];
/** What the other side is called when a capture tells of one station only. */
const STAND_INS = [0x020000000001, 0x020000000002] as const;

const macAt = (frame: Uint8Array, at: number): number =>
  frame.subarray(at, at + 6).reduce((mac, byte) => mac * 256 + byte, 0);
/** True for a frame to a group of stations: the switch floods it, and never waits for anybody with it. */
export const isGroup = (frame: Uint8Array): boolean => ((frame[0] as number) & 1) !== 0;

/** True for a frame that a NIC with this MTU sends: the driver's limit has room for one tag, if there is one. */
function fits(frame: Uint8Array, mtu: number): boolean {
  if (frame.length < HEADER) return false;
  const source = macAt(frame, 6);
  if (source === 0 || isGroupMac(source)) return false;
  const tagged = TAGGED.includes((frame[12] as number) * 256 + (frame[13] as number));
  return frame.length <= mtu + HEADER + (tagged ? TAG : 0);
}

/** Swaps the addresses of a frame: what the other side might have sent. Group addresses stay where they are. */
function mirror(frame: Uint8Array, mac: number): Uint8Array {
  const copy = frame.slice();
  if (isGroup(frame)) {
    for (let i = 0; i < 6; i++) copy[6 + i] = Math.floor(mac / 2 ** (40 - 8 * i)) & 0xff;
  } else {
    copy.set(frame.subarray(6, 12), 0);
    copy.set(frame.subarray(0, 6), 6);
  }
  return copy;
}

/**
 * Reads a capture and gives each frame to the guest that owns its source address. The busiest source is guest A's; B
 * owns every station that exchanges unicast frames with A; stations that only send to groups go with A.
 * @param mtu - MTU of both NICs
 * @throws VbusError EINVAL when the file is no capture, or holds nothing that can be replayed
 */
export async function loadWorkload(file: Uint8Array<ArrayBuffer>, mtu: number): Promise<Workload> {
  const capture = await readCapture(file);
  const frames: Uint8Array[] = [];
  let unfit = 0;
  for (const { data, truncated, interface: number } of capture.frames) {
    const ethernet = capture.interfaces[number]?.linkType === LINK_ETHERNET;
    if (!ethernet || truncated || !fits(data, mtu)) unfit++;
    else frames.push(data);
  }
  const senders = new Map<number, number>();
  for (const frame of frames) {
    const source = macAt(frame, 6);
    senders.set(source, (senders.get(source) ?? 0) + 1);
  }
  const busiest = [...senders].sort((x, y) => y[1] - x[1])[0]?.[0];
  if (busiest === undefined) {
    throw new VbusError(
      "EINVAL",
      capture.frames.length === 0
        ? "the capture holds no frames; give another file"
        : `none of the capture's ${unfit} frames can be sent with an MTU of ${mtu} (no Ethernet, cut off, too short or too long); ` +
            "give another file, or a larger --mtu",
    );
  }
  const peers = new Map<number, number>();
  for (const frame of frames) {
    if (isGroup(frame)) continue;
    const [destination, source] = [macAt(frame, 0), macAt(frame, 6)];
    if (source === busiest && destination !== busiest)
      peers.set(destination, (peers.get(destination) ?? 0) + 1);
    if (destination === busiest && source !== busiest) peers.set(source, (peers.get(source) ?? 0) + 1);
  }
  const peer =
    [...peers].sort((x, y) => y[1] - x[1])[0]?.[0] ??
    (busiest === STAND_INS[0] ? STAND_INS[1] : STAND_INS[0]);
  const a: Uint8Array[] = [];
  const b: Uint8Array[] = [];
  let left = 0;
  for (const frame of frames) {
    const ofB = peers.has(macAt(frame, 6));
    if (!isGroup(frame) && ofB === peers.has(macAt(frame, 0))) left++;
    else (ofB ? b : a).push(frame);
  }
  if (a.length + b.length === 0) {
    throw new VbusError(
      "EINVAL",
      `all ${left} frames go from a station to itself or its side; give another file`,
    );
  }
  const mirrored = a.length === 0 || b.length === 0;
  const fromA = a.length === 0 ? b.map((frame) => mirror(frame, busiest)) : a;
  const fromB = b.length === 0 ? a.map((frame) => mirror(frame, peer)) : b;
  return {
    a: { mac: busiest, frames: fromA, stations: destinations(fromB, busiest) },
    b: { mac: peer, frames: fromB, stations: destinations(fromA, peer) },
    left,
    unfit,
    mirrored,
  };
}

/** Whom frames go to, but for `known`. */
function destinations(frames: readonly Uint8Array[], known: number): number[] {
  const found = new Set<number>();
  for (const frame of frames) if (!isGroup(frame)) found.add(macAt(frame, 0));
  found.delete(known);
  return [...found];
}
