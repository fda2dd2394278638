import {
  EP_OFF_COUNT,
  EP_OFF_GPA,
  EP_OFF_GRANTED_POP,
  EP_OFF_GRANTED_PUSH,
  EP_OFF_INDEXES,
  EP_OFF_LENGTH,
  EP_OFF_OWNED,
  EP_OFF_OWNER,
  SIG_OFF_LOCALE,
} from "../../assembly/abi/arena.js";
import {
  COMPACT_COOKIE_SIZE,
  COMPACT_DESC_SIZE,
  DESC_OFF_VALID,
  EXT_COMPACT,
  EXT_LAZY_INDEXES,
  IDX_INUSE,
  IDX_OFF_FULL,
  IDX_OFF_HEAD,
  IDX_OFF_TAIL,
  IDX_VALID,
  IOQ_DESC_SIZE_ILP32,
  IOQ_IDX_SIZE,
  IOQ_OFF_IDX,
  IOQ_OFF_RING,
  IOQ_OFF_RING_ILP32,
  IOQ_OFF_SIGNAL,
} from "../../assembly/abi/ioq.js";
import { NORTH, SIGNAL_SIZE, SOUTH } from "../../assembly/abi/shm-signal.js";
import type { Queue, QueueCounters, ViolationName } from "../engine/queue.js";
import { guestBytes } from "./guest-bytes.js";
import { privateAddress, signalBytes, type SignalBytes } from "./signal.js";

/** Both ends of an index of a ring. */
export interface RingIndex {
  /** Position of the head. */
  head: number;
  /** Position of the tail. */
  tail: number;
}

/** Both ends of an index as one side knows them, null where the peer moves them. */
export interface OwnRingIndex {
  /** Position of the head. */
  head: number | null;
  /** Position of the tail. */
  tail: number | null;
}

/** An index as the shared header says; a guest may have written anything there. */
export interface SharedRingIndex extends RingIndex {
  /** The byte `full`. */
  full: number;
}

/** One side of an IOQ (`docs/abi/ioq.md`), and the ring as its memory is at this moment. */
export interface IoqSnapshot {
  kind: "ioq";
  /** Name within its session. */
  name: string;
  /** Whose end this is. */
  side: "north" | "south";
  /** Guest-physical address of the segment. */
  gpa: number;
  /** Length of the segment. */
  length: number;
  /** Number of descriptors. */
  count: number;
  /** Size of a descriptor in bytes. */
  stride: number;
  /** Which layout the descriptors have. */
  layout: "lp64" | "ilp32" | "compact";
  /** Extensions in force: `lazy-indexes`, `compact`. */
  extensions: string[];
  /** Why the queue broke, or null. */
  broken: ViolationName | null;
  /** Index ends that this side moves, such as `inuse.head`: where `indexes` is the truth. */
  moves: string[];
  /** Index ends as this side knows them; those that the peer moves are null. */
  indexes: { valid: OwnRingIndex; inuse: OwnRingIndex };
  /** The shared header; null when the segment is not in memory any more. */
  shared: { valid: SharedRingIndex; inuse: SharedRingIndex } | null;
  /** Descriptors that were looked at to be filled or read, and not given back yet. */
  granted: { push: number; pop: number };
  /**
   * Descriptors by owner, as their bytes `sown` say (other: neither side's number); null as for `shared`, and for more
   * than 65536 descriptors.
   */
  owners: { north: number; south: number; other: number } | null;
  /** Descriptors whose byte `valid` is set; null as for `owners`. */
  valid: number | null;
  /** The ring's signal; null as for `shared`. */
  signal: SignalBytes | null;
  /** What this side counted. */
  counters: QueueCounters;
  /** One character for each descriptor: `n` or `s` for its owner, `?` for neither, capitals when `valid`; null when left out. */
  map: string | null;
}

/** Rings with more descriptors are shown by their headers: a look must not take long. */
const DESCRIPTORS_MAX = 65536;

/** Looks at one side of a ring. Nothing that lies in guest memory is believed, only shown. */
export function inspectIoq(queue: Queue, name: string, withMap: boolean): IoqSnapshot {
  const { space, address } = queue;
  const word = (offset: number): number => space.engine.words[(address + offset) >>> 2] ?? 0;
  const gpa = privateAddress(space, address + EP_OFF_GPA);
  const length = word(EP_OFF_LENGTH);
  const count = word(EP_OFF_COUNT);
  const owned = word(EP_OFF_OWNED);
  const { stride, extensions } = queue;
  const layout = stride === COMPACT_DESC_SIZE ? "compact" : stride === IOQ_DESC_SIZE_ILP32 ? "ilp32" : "lp64";
  const small = count <= DESCRIPTORS_MAX;
  const bytes = guestBytes(space, gpa, small ? length : IOQ_OFF_RING_ILP32);
  const descriptors =
    bytes === null || !small ? null : readOwners(bytes, count, stride, layout, word(EP_OFF_OWNER));
  const own = (index: number, end: number): number | null => {
    const bit = (index << 1) | end;
    return (owned & (1 << bit)) === 0 ? null : word(EP_OFF_INDEXES + bit * 4);
  };
  const indexes = {
    valid: { head: own(IDX_VALID, 0), tail: own(IDX_VALID, 1) },
    inuse: { head: own(IDX_INUSE, 0), tail: own(IDX_INUSE, 1) },
  };
  return {
    kind: "ioq",
    name,
    side: word(SIG_OFF_LOCALE) === NORTH ? "north" : "south",
    gpa,
    length,
    count,
    stride,
    layout,
    extensions: [
      ...((extensions & EXT_LAZY_INDEXES) === 0 ? [] : ["lazy-indexes"]),
      ...((extensions & EXT_COMPACT) === 0 ? [] : ["compact"]),
    ],
    broken: queue.broken,
    moves: Object.entries(indexes).flatMap(([index, ends]) =>
      Object.entries(ends).flatMap(([end, at]) => (at === null ? [] : [`${index}.${end}`])),
    ),
    indexes,
    shared:
      bytes === null ? null : { valid: sharedIndex(bytes, IDX_VALID), inuse: sharedIndex(bytes, IDX_INUSE) },
    granted: { push: word(EP_OFF_GRANTED_PUSH), pop: word(EP_OFF_GRANTED_POP) },
    owners: descriptors?.owners ?? null,
    valid: descriptors?.valid ?? null,
    signal: bytes === null ? null : signalBytes(new DataView(bytes.buffer, IOQ_OFF_SIGNAL, SIGNAL_SIZE)),
    counters: queue.counters(),
    map: withMap ? (descriptors?.map ?? null) : null,
  };
}

function sharedIndex(bytes: DataView, index: number): SharedRingIndex {
  const at = IOQ_OFF_IDX + index * IOQ_IDX_SIZE;
  return {
    head: bytes.getUint32(at + IDX_OFF_HEAD, true),
    tail: bytes.getUint32(at + IDX_OFF_TAIL, true),
    full: bytes.getUint8(at + IDX_OFF_FULL),
  };
}

/** `count`, stride and offsets are the engine's own: it checked at attach that they fit the segment. */
function readOwners(
  bytes: DataView,
  count: number,
  stride: number,
  layout: IoqSnapshot["layout"],
  ownerOffset: number,
): { owners: { north: number; south: number; other: number }; valid: number; map: string } {
  const ring = layout === "ilp32" ? IOQ_OFF_RING_ILP32 : IOQ_OFF_RING;
  const validAt =
    layout === "compact" ? ring + (COMPACT_DESC_SIZE + COMPACT_COOKIE_SIZE) * count : ring + DESC_OFF_VALID;
  const validStride = layout === "compact" ? 1 : stride;
  const owners = { north: 0, south: 0, other: 0 };
  let valid = 0;
  let map = "";
  for (let i = 0; i < count; i++) {
    const sown = bytes.getUint8(ring + i * stride + ownerOffset);
    const isValid = bytes.getUint8(validAt + i * validStride) !== 0;
    const owner = sown === NORTH ? "n" : sown === SOUTH ? "s" : "?";
    owners[owner === "n" ? "north" : owner === "s" ? "south" : "other"]++;
    if (isValid) valid++;
    map += isValid ? owner.toUpperCase() : owner;
  }
  return { owners, valid, map };
}
