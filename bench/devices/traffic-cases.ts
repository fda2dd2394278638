import { ALL_OFFLOADS, NO_OFFLOADS, type CardOffloads } from "./card.js";
import type { SegmentPlan } from "./segments.js";

/** What the two guests and the switch are asked to do for one row of the traffic table. */
export interface TrafficCase {
  name: string;
  /** MTU of both NICs. */
  mtu: number;
  /** Frames that guest A sends, over and over. */
  plan: SegmentPlan;
  /** What each guest asks of its card; one that asks for nothing has linear frames only. */
  sender: CardOffloads;
  receiver: CardOffloads;
  /** Whether the host merges segments for a capable receiver. */
  coalesce: boolean;
}

/** Frames of flows whose frames nobody merges. */
const FRAMES = 64;
const SUPERFRAME: SegmentPlan = { length: 65_536, count: 16, checksum: "partial", segment: 1446 };
const linear = (length: number): SegmentPlan => ({
  length,
  count: FRAMES,
  checksum: "complete",
  segment: null,
});

/** The rows, in order. */
export const TRAFFIC_CASES: readonly TrafficCase[] = [
  {
    name: "64 B, linear",
    mtu: 1500,
    plan: linear(64),
    sender: NO_OFFLOADS,
    receiver: NO_OFFLOADS,
    coalesce: false,
  },
  {
    name: "1500 B, linear",
    mtu: 1500,
    plan: linear(1500),
    sender: NO_OFFLOADS,
    receiver: NO_OFFLOADS,
    coalesce: false,
  },
  {
    name: "1500 B, partial checksums",
    mtu: 1500,
    plan: { length: 1500, count: FRAMES, checksum: "partial", segment: null },
    sender: ALL_OFFLOADS,
    receiver: ALL_OFFLOADS,
    coalesce: false,
  },
  {
    name: "9000 B, linear",
    mtu: 9000,
    plan: linear(9000),
    sender: NO_OFFLOADS,
    receiver: NO_OFFLOADS,
    coalesce: false,
  },
  {
    name: "64 KiB superframes, untouched",
    mtu: 1500,
    plan: SUPERFRAME,
    sender: ALL_OFFLOADS,
    receiver: ALL_OFFLOADS,
    coalesce: false,
  },
  {
    name: "64 KiB superframes, cut for a linear guest",
    mtu: 1500,
    plan: SUPERFRAME,
    sender: ALL_OFFLOADS,
    receiver: NO_OFFLOADS,
    coalesce: false,
  },
  {
    name: "1500 B segments, merged for a capable guest",
    mtu: 1500,
    plan: { length: 1500, count: 450, checksum: "complete", segment: null },
    sender: NO_OFFLOADS,
    receiver: ALL_OFFLOADS,
    coalesce: true,
  },
];
