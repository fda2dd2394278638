/** The two captures of `test/data/`: what a Linux kernel was given, and what it made of it. */
import fs from "node:fs";
import zlib from "node:zlib";
import {
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  GSO_NONE,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
} from "vbus/engine";
import type { TestFrame } from "./rig.js";

const VIRTIO_HEADER = 10;
const KINDS = new Map([
  [0, GSO_NONE],
  [1, GSO_TCP4],
  [4, GSO_TCP6],
  [5, GSO_UDP_L4],
]);

function records(file: string): Uint8Array[] {
  const bytes = new Uint8Array(zlib.gunzipSync(fs.readFileSync(new URL(`../data/${file}`, import.meta.url))));
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const found: Uint8Array[] = [];
  for (let at = 24; at < bytes.length;) {
    const length = data.getUint32(at + 8, true);
    found.push(bytes.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
  return found;
}

/** The frames before segmentation, with what the kernel said about them. */
export function superframes(): TestFrame[] {
  return records("superframes.pcap.gz").map((record) => {
    const header = new DataView(record.buffer, record.byteOffset, VIRTIO_HEADER);
    const type = header.getUint8(1);
    const kind = KINDS.get(type & 0x7f);
    if (kind === undefined) throw new Error(`unknown gso_type ${type}`);
    const flags =
      (header.getUint8(0) === 1 ? FRAME_NEEDS_CSUM : 0) |
      (kind === GSO_NONE ? 0 : FRAME_GSO) |
      ((type & 0x80) === 0 ? 0 : FRAME_ECN);
    return {
      bytes: record.subarray(VIRTIO_HEADER),
      flags,
      kind,
      size: header.getUint16(4, true),
      start: header.getUint16(6, true),
      offset: header.getUint16(8, true),
    };
  });
}

/** The frames on the wire. */
export function segments(): Uint8Array[] {
  return records("segments.pcap.gz");
}

/** What is in order in both files: addresses and ports, or kind of traffic, of a frame without tags. */
export function flowOf(frame: Uint8Array): string {
  const hex = (from: number, to: number): string => Buffer.from(frame.subarray(from, to)).toString("hex");
  const type = hex(12, 14);
  if (type === "0800") return `${hex(0, 14)} ${hex(23, 24)} ${hex(26, 34)} ${hex(34, 38)}`;
  if (type === "86dd") return `${hex(0, 14)} ${hex(20, 21)} ${hex(22, 54)} ${hex(54, 58)}`;
  return hex(0, 14);
}

/** Frames by flow, each in order, as text that compares exactly. */
export function byFlow(frames: Iterable<Uint8Array>): Map<string, string[]> {
  const flows = new Map<string, string[]>();
  for (const frame of frames) {
    const key = flowOf(frame);
    const flow = flows.get(key) ?? [];
    flow.push(Buffer.from(frame).toString("hex"));
    flows.set(key, flow);
  }
  return new Map([...flows].sort(([a], [b]) => (a < b ? -1 : 1)));
}
