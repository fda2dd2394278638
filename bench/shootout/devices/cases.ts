/** What is asked of network cards between two guests: sizes of frames, and each offload on and off. */
import type { SuperframeKind } from "vbus/drivers/venet";
import { ALL_OFFLOADS, NO_OFFLOADS, type CardOffloads, type TrafficCard } from "../../devices/card.js";
import { FLOWS, type SegmentPlan } from "../../devices/segments.js";
import type { TrafficCase } from "../../devices/traffic-cases.js";

/** A row of a study. */
export interface DeviceCase extends TrafficCase {
  /** The row that it is measured against: the first of its flow. */
  base: string;
  /** Cards that cannot be asked for this, and why. */
  lacks: Partial<Record<TrafficCard, string>>;
  /** Whether `--quick` has it. */
  quick: boolean;
}

const MTU = 1500;
/** Bytes of an ordinary frame, headers included. */
const FRAME = 1500;
const SUPERFRAME = 65_536;
const SUPERFRAMES = 16;
/** Frames of a flow: as many as can be merged before it begins anew. */
const FRAMES = 450;

/** What a guest sends that has data of a flow to send, and a card with these offloads. */
export function planOf(kind: SuperframeKind, card: CardOffloads): SegmentPlan {
  if (card.checksum && card[kind]) {
    const segment = FRAME - FLOWS[kind].headers;
    return { kind, length: SUPERFRAME, count: SUPERFRAMES, checksum: "partial", segment };
  }
  const checksum = card.checksum ? "partial" : "summed";
  return { kind, length: FRAME, count: FRAMES, checksum, segment: null };
}

interface Row {
  name: string;
  kind: SuperframeKind;
  sender: CardOffloads;
  receiver: CardOffloads;
  merge: boolean;
  lacks?: DeviceCase["lacks"];
  quick?: boolean;
}

function casesOf(rows: readonly Row[]): DeviceCase[] {
  return rows.map(({ name, kind, sender, receiver, merge, lacks = {}, quick = false }) => ({
    name,
    mtu: MTU,
    plan: planOf(kind, sender),
    sender,
    receiver,
    coalesce: merge,
    base: (rows.find((row) => row.kind === kind) as Row).name,
    lacks,
    quick,
  }));
}

const on = (...names: (keyof CardOffloads)[]): CardOffloads => ({
  ...NO_OFFLOADS,
  ...Object.fromEntries(names.map((name) => [name, true])),
});
const off = (...names: (keyof CardOffloads)[]): CardOffloads => ({
  ...ALL_OFFLOADS,
  ...Object.fromEntries(names.map((name) => [name, false])),
});
const [ALL, NONE] = [ALL_OFFLOADS, NO_OFFLOADS];
const LARGE_RECEIVE = "its large receive is one thing with the checksums of what it receives";

/** Everything on, then one thing off. A superframe needs a checksum that is left to others; without checksums none is sent. */
export const OFFLOADS_OFF: readonly DeviceCase[] = casesOf([
  { name: "TCP/IPv4, all on", kind: "tcp4", sender: ALL, receiver: ALL, merge: true, quick: true },
  {
    name: "… sender cuts (TSO4 off)",
    kind: "tcp4",
    sender: off("tcp4"),
    receiver: ALL,
    merge: true,
    quick: true,
  },
  {
    name: "… sender cuts and sums (checksum out off)",
    kind: "tcp4",
    sender: off("checksum"),
    receiver: ALL,
    merge: true,
    quick: true,
  },
  {
    name: "… no superframes in (guest TSO4 off)",
    kind: "tcp4",
    sender: ALL,
    receiver: off("tcp4"),
    merge: true,
    quick: true,
  },
  {
    name: "… receiver verifies (guest checksum off)",
    kind: "tcp4",
    sender: ALL,
    receiver: off("checksum"),
    merge: true,
    lacks: { venet: LARGE_RECEIVE },
    quick: true,
  },
  {
    name: "… one buffer per frame (mergeable buffers, L4RO off)",
    kind: "tcp4",
    sender: ALL,
    receiver: off("mergeable"),
    merge: true,
    quick: true,
  },
  {
    name: "… sender cuts, host does not merge",
    kind: "tcp4",
    sender: off("tcp4"),
    receiver: ALL,
    merge: false,
    quick: true,
  },
  { name: "TCP/IPv6, all on", kind: "tcp6", sender: ALL, receiver: ALL, merge: true },
  { name: "… TSO6 off", kind: "tcp6", sender: off("tcp6"), receiver: ALL, merge: true },
  { name: "… guest TSO6 off", kind: "tcp6", sender: ALL, receiver: off("tcp6"), merge: true },
  { name: "UDP, all on", kind: "udp", sender: ALL, receiver: ALL, merge: true },
  { name: "… USO off", kind: "udp", sender: off("udp"), receiver: ALL, merge: true },
  { name: "… guest USO off", kind: "udp", sender: ALL, receiver: off("udp"), merge: true },
]);

/** Everything off, then one thing on, with what it cannot be without. */
export const OFFLOADS_ON: readonly DeviceCase[] = casesOf([
  { name: "TCP/IPv4, all off", kind: "tcp4", sender: NONE, receiver: NONE, merge: false, quick: true },
  {
    name: "… checksum out on",
    kind: "tcp4",
    sender: on("checksum"),
    receiver: NONE,
    merge: false,
    quick: true,
  },
  {
    name: "… guest checksum on",
    kind: "tcp4",
    sender: NONE,
    receiver: on("checksum"),
    merge: false,
    lacks: { venet: LARGE_RECEIVE },
  },
  {
    name: "… mergeable buffers on",
    kind: "tcp4",
    sender: NONE,
    receiver: on("mergeable"),
    merge: false,
    lacks: { venet: LARGE_RECEIVE },
  },
  {
    name: "… checksum both ways, L4RO",
    kind: "tcp4",
    sender: on("checksum"),
    receiver: on("checksum", "mergeable"),
    merge: false,
    quick: true,
  },
  {
    name: "… TSO4 on",
    kind: "tcp4",
    sender: on("checksum", "tcp4"),
    receiver: NONE,
    merge: false,
    quick: true,
  },
  {
    name: "… guest TSO4 on, host merges",
    kind: "tcp4",
    sender: NONE,
    receiver: on("checksum", "mergeable", "tcp4"),
    merge: true,
    quick: true,
  },
  { name: "TCP/IPv6, all off", kind: "tcp6", sender: NONE, receiver: NONE, merge: false },
  { name: "… TSO6 on", kind: "tcp6", sender: on("checksum", "tcp6"), receiver: NONE, merge: false },
  {
    name: "… guest TSO6 on, host merges",
    kind: "tcp6",
    sender: NONE,
    receiver: on("checksum", "mergeable", "tcp6"),
    merge: true,
  },
  { name: "UDP, all off", kind: "udp", sender: NONE, receiver: NONE, merge: false },
  { name: "… USO on", kind: "udp", sender: on("checksum", "udp"), receiver: NONE, merge: false },
]);

/** Finished frames of one size, one to a buffer. */
export const FRAME_SIZES: readonly DeviceCase[] = [64, 1500, 9000].map((length) => ({
  name: `${length} B`,
  mtu: Math.max(MTU, length),
  plan: { kind: "tcp4", length, count: 64, checksum: "summed", segment: null },
  sender: NONE,
  receiver: NONE,
  coalesce: false,
  base: "64 B",
  lacks: {},
  quick: true,
}));

/** How cards are opened whose round trips are timed: as guests usually do. */
export const ROUND_TRIPS: DeviceCase = {
  name: "one frame there and back",
  mtu: MTU,
  plan: planOf("tcp4", ALL),
  sender: ALL,
  receiver: ALL,
  coalesce: true,
  base: "one frame there and back",
  lacks: {},
  quick: true,
};
