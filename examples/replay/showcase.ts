/**
 * What the run shows beside the replay: the same traffic as superframes with partial checksums, as a guest's network
 * stack hands them to its NIC; and a file that goes from one guest to the other by way of a block device.
 */
import type { NicOffloads } from "vbus/drivers/venet";
import { readCapture } from "vbus/net";
import { isGroup, packFrames, type FrameNeeds, type FramePack } from "./frames.js";
import type { ReceiveResult, SendFrames } from "./guest.js";
import type { HostReport } from "./job.js";
import type { JobOptions } from "./options.js";
import { sha256 } from "./digest.js";
import type { Thread } from "./threads.js";

/** Superframes against MTU frames. */
export interface SuperframeResult {
  /** What the guests agreed on with the host. */
  offloads: NicOffloads;
  /** Frames handed to the NIC, superframes among them. */
  frames: number;
  superframes: number;
  bytes: number;
  framesPerSecond: number;
  gigabitsPerSecond: number;
  /** MTU frames that the same traffic was in the replay, and its speed there. */
  mtuGigabitsPerSecond: number;
  /** What the switch did with them: passed untouched, or cut and summed in software. */
  passed: number;
  segmented: number;
  received: ReceiveResult;
}

/** A file through the block device. */
export interface DiskResult {
  bytes: number;
  digest: string;
  /** True when guest B read what guest A wrote. */
  verified: boolean;
  writeMs: number;
  readMs: number;
}

const HEADER = 10; // struct virtio_net_hdr without mergeable buffers
const LINK_USER0 = 147;
const NEEDS_CSUM = 1;
const ECN = 0x80;
const KINDS = new Map([
  [1, "tcp4"],
  [4, "tcp6"],
  [5, "udp"],
] as const);

/** Reads a capture of frames with a virtio_net_hdr before each: what a guest hands to its NIC. */
export async function loadSuperframes(
  file: Uint8Array<ArrayBuffer>,
  from: number,
  to: number,
): Promise<{ pack: FramePack; needs: FrameNeeds[]; superframes: number }> {
  const capture = await readCapture(file);
  const frames: Uint8Array[] = [];
  const needs: FrameNeeds[] = [];
  let superframes = 0;
  for (const { data, interface: number } of capture.frames) {
    if (capture.interfaces[number]?.linkType !== LINK_USER0) continue;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const type = view.getUint8(1);
    const kind = KINDS.get((type & ~ECN) as 1 | 4 | 5);
    const need: FrameNeeds = {};
    if ((view.getUint8(0) & NEEDS_CSUM) !== 0) {
      need.checksum = { start: view.getUint16(6, true), offset: view.getUint16(8, true) };
    }
    if (kind !== undefined) {
      superframes++;
      need.gso = {
        kind,
        size: view.getUint16(4, true),
        headerLength: view.getUint16(2, true),
        ecn: (type & ECN) !== 0,
      };
    }
    const frame = data.slice(HEADER);
    setMac(frame, 6, from);
    if (!isGroup(frame)) setMac(frame, 0, to);
    frames.push(frame);
    needs.push(need);
  }
  return { pack: packFrames(frames), needs, superframes };
}

function setMac(frame: Uint8Array, at: number, mac: number): void {
  for (let i = 0; i < 6; i++) frame[at + i] = Math.floor(mac / 2 ** (40 - 8 * i)) & 0xff;
}

/** Guest A sends the superframes, guest B gets them as they are: nobody cuts or sums anything. */
export async function runSuperframes(
  host: Thread,
  guests: readonly [Thread, Thread],
  options: JobOptions,
  file: Uint8Array<ArrayBuffer>,
  macs: readonly [number, number],
  mtuGigabitsPerSecond: number,
  quietMs: number,
): Promise<SuperframeResult> {
  const [a, b] = guests;
  const { pack, needs, superframes } = await loadSuperframes(file, macs[0], macs[1]);
  const { repetitions, batch } = options;
  const nic = { rxRing: options.rxRing, txRing: options.txRing, mtu: options.mtu, lazyIndexes: options.lazy };
  await host.call("coalesce", { on: false }); // frames are compared one by one
  const offloads = await a.call<NicOffloads>("reopen", { name: "A", nic: { ...nic, offloads: true } });
  await b.call("reopen", { name: "B", nic: { ...nic, offloads: true } });
  for (const guest of guests) await guest.call("announce");
  for (const guest of guests) await guest.call("settle", { ms: 50 });
  await b.call("expect", { pack, repetitions, tolerant: false });
  const before = await host.call<HostReport>("report");
  const order: SendFrames = { pack, needs, repetitions, batch };
  const [sent, received] = await Promise.all([
    a.call<{ frames: number; started: number }>("sendFrames", order),
    b.call<ReceiveResult>("received", { quietMs }),
  ]);
  const after = await host.call<HostReport>("report");
  const seconds = Math.max(received.last - sent.started, 0.001) / 1000;
  return {
    offloads,
    frames: sent.frames,
    superframes: superframes * repetitions,
    bytes: received.bytes,
    framesPerSecond: (received.matched + received.unexpected) / seconds,
    gigabitsPerSecond: (received.bytes * 8) / seconds / 1e9,
    mtuGigabitsPerSecond,
    passed: after.offload.superframes_passed - before.offload.superframes_passed,
    segmented: after.offload.segmented - before.offload.segmented,
    received,
  };
}

/** Guest A writes a file to the disk, guest B reads it: never both at once, for a disk serves one session at a time. */
export async function copyThroughDisk(
  guests: readonly [Thread, Thread],
  file: Uint8Array<ArrayBuffer>,
): Promise<DiskResult> {
  const [a, b] = guests;
  const written = await a.call<{ ms: number }>("writeDisk", { bytes: file });
  const read = await b.call<{ digest: string; ms: number }>("readDisk", { length: file.length });
  const digest = await sha256(file);
  return {
    bytes: file.length,
    digest,
    verified: read.digest === digest,
    writeMs: written.ms,
    readMs: read.ms,
  };
}
