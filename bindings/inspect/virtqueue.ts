import {
  VQ_DRIVER,
  VQ_EVENT_INDEX,
  VQ_INDIRECT,
  VQ_IN_ORDER,
  VQ_OFF_AVAIL,
  VQ_OFF_AVAIL_WRAP,
  VQ_OFF_DESC_GPA,
  VQ_OFF_DEVICE_GPA,
  VQ_OFF_DRIVER_GPA,
  VQ_OFF_FLAGS,
  VQ_OFF_SLOTS,
  VQ_OFF_USED,
  VQ_OFF_USED_WRAP,
} from "../../assembly/abi/arena-virtq.js";
import {
  PACKED_DESC_F_AVAIL,
  PACKED_DESC_F_USED,
  PACKED_DESC_OFF_FLAGS,
  PACKED_EVENT_AREA_SIZE,
  PACKED_EVENT_OFF_FLAGS,
  PACKED_EVENT_OFF_POSITION,
  SPLIT_AVAIL_ENTRY_SIZE,
  SPLIT_EVENT_SIZE,
  SPLIT_RING_OFF_ENTRIES,
  SPLIT_RING_OFF_FLAGS,
  SPLIT_RING_OFF_IDX,
  SPLIT_USED_ENTRY_SIZE,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_SIZE,
} from "../../assembly/abi/virtio.js";
import type { Signal } from "../engine/signal.js";
import type {
  VirtQueue,
  VirtQueueCounters,
  VirtQueueFormat,
  VirtQueueViolation,
} from "../engine/virtqueue.js";
import { guestBytes } from "./guest-bytes.js";
import { inspectSignal, privateAddress, type SignalSnapshot } from "./signal.js";

/** What the two rings of a split queue say (virtio 1.2: 2.7); a guest may have written anything there. */
export interface SplitRings {
  /** Where the driver puts the next chain, modulo 2^16. */
  availableIndex: number;
  /** Flags of the available ring: 1 = no interrupts, please. */
  availableFlags: number;
  /** Where the device puts the next used chain, modulo 2^16. */
  usedIndex: number;
  /** Flags of the used ring: 1 = no kicks, please. */
  usedFlags: number;
  /** Used index at which the driver wants an interrupt; means something with `event-index` only. */
  usedEvent: number;
  /** Available index at which the device wants a kick; likewise. */
  availableEvent: number;
}

/** An event area of a packed queue (virtio 1.2: 2.8.10). */
export interface PackedEvent {
  /** Position in the ring. */
  position: number;
  /** Wrap counter that goes with it. */
  wrap: number;
  /** 0: notify; 1: do not; 2: when the position is passed. */
  flags: number;
}

/** Both event areas of a packed queue. */
export interface PackedEvents {
  /** What interrupts the driver wants. */
  driver: PackedEvent;
  /** What kicks the device wants. */
  device: PackedEvent;
}

/** One side of a virtqueue, and its areas as their memory is at this moment. */
export interface VirtqueueSnapshot {
  kind: "virtqueue";
  /** Name within its device: the queue's number. */
  name: string;
  /** Whose end this is. */
  side: "driver" | "device";
  /** Layout. */
  format: VirtQueueFormat;
  /** Number of descriptors. */
  size: number;
  /** What was negotiated of rings: `event-index`, `indirect`, `in-order`. */
  features: string[];
  /** Guest-physical addresses. */
  areas: { descriptors: number; driver: number; device: number };
  /** Why the queue broke, or null. */
  broken: VirtQueueViolation | null;
  /** This side's positions: modulo 2^16 (split), in the ring and with a wrap counter (packed). */
  positions: { available: number; used: number; availableWrap: number; usedWrap: number };
  /** Chains in flight: taken and not completed (device), made available and not reaped (driver). */
  inFlight: number;
  /** Descriptors of the ring that they take. */
  slots: number;
  /**
   * Chains that the peer has put there and this side has not taken; null when the areas are gone, when the peer's index
   * cannot be, and on the driver's side of a packed queue, where one look cannot tell.
   */
  waiting: number | null;
  /** Split: the rings' own words; null when their memory is gone, or the queue is packed. */
  rings: SplitRings | null;
  /** Packed: the event areas; null when their memory is gone, or the queue is split. */
  events: PackedEvents | null;
  /** The signal, where something else than a transport's doorbell carries notifications. */
  signal: SignalSnapshot | null;
  /** What this side counted. */
  counters: VirtQueueCounters;
  /**
   * One character for each entry of the available ring (split) or descriptor (packed): `.` the driver's, `a` available and
   * not taken, `t` taken by the device, `u` used and not reaped; null when left out, or as for `waiting`. Chains are
   * completed in any order: between `t` and `u` the numbers are exact, not the places.
   */
  map: string | null;
}

/** Looks at one side of a virtqueue. Nothing that lies in guest memory is believed, only shown. */
export function inspectVirtqueue(
  queue: VirtQueue,
  name: string,
  withMap: boolean,
  signal: Signal | null,
): VirtqueueSnapshot {
  const { space, address, size, format } = queue;
  const word = (offset: number): number => space.engine.words[(address + offset) >>> 2] ?? 0;
  const flags = word(VQ_OFF_FLAGS);
  const areas = {
    descriptors: privateAddress(space, address + VQ_OFF_DESC_GPA),
    driver: privateAddress(space, address + VQ_OFF_DRIVER_GPA),
    device: privateAddress(space, address + VQ_OFF_DEVICE_GPA),
  };
  const side = (flags & VQ_DRIVER) === 0 ? "device" : "driver";
  const positions = {
    available: word(VQ_OFF_AVAIL),
    used: word(VQ_OFF_USED),
    availableWrap: word(VQ_OFF_AVAIL_WRAP),
    usedWrap: word(VQ_OFF_USED_WRAP),
  };
  const slots = word(VQ_OFF_SLOTS);
  const common = {
    kind: "virtqueue" as const,
    name,
    side,
    format,
    size,
    features: [
      ...((flags & VQ_EVENT_INDEX) === 0 ? [] : ["event-index"]),
      ...((flags & VQ_INDIRECT) === 0 ? [] : ["indirect"]),
      ...((flags & VQ_IN_ORDER) === 0 ? [] : ["in-order"]),
    ],
    areas,
    broken: queue.broken,
    positions,
    inFlight: queue.inFlight,
    slots,
    signal: signal === null ? null : inspectSignal(signal),
    counters: queue.counters(),
  } satisfies Partial<VirtqueueSnapshot>;
  if (format === "split") {
    const rings = splitRings(queue, areas);
    const found = rings === null ? null : splitMap(side, size, positions, rings);
    return {
      ...common,
      waiting: found?.waiting ?? null,
      rings,
      events: null,
      map: withMap ? (found?.map ?? null) : null,
    };
  }
  const events = packedEvents(queue, areas);
  const ring = guestBytes(space, areas.descriptors, size * VIRTQ_DESC_SIZE);
  const found = ring === null ? null : packedMap(side, size, positions, slots, ring);
  return {
    ...common,
    waiting: found?.waiting ?? null,
    rings: null,
    events,
    map: withMap ? (found?.map ?? null) : null,
  };
}

type Areas = VirtqueueSnapshot["areas"];
type Positions = VirtqueueSnapshot["positions"];

function splitRings({ space, size }: VirtQueue, areas: Areas): SplitRings | null {
  const availableLength = SPLIT_RING_OFF_ENTRIES + size * SPLIT_AVAIL_ENTRY_SIZE;
  const usedLength = SPLIT_RING_OFF_ENTRIES + size * SPLIT_USED_ENTRY_SIZE;
  const available = guestBytes(space, areas.driver, availableLength + SPLIT_EVENT_SIZE);
  const used = guestBytes(space, areas.device, usedLength + SPLIT_EVENT_SIZE);
  if (available === null || used === null) return null;
  return {
    availableIndex: available.getUint16(SPLIT_RING_OFF_IDX, true),
    availableFlags: available.getUint16(SPLIT_RING_OFF_FLAGS, true),
    usedIndex: used.getUint16(SPLIT_RING_OFF_IDX, true),
    usedFlags: used.getUint16(SPLIT_RING_OFF_FLAGS, true),
    usedEvent: available.getUint16(availableLength, true),
    availableEvent: used.getUint16(usedLength, true),
  };
}

function packedEvents({ space }: VirtQueue, areas: Areas): PackedEvents | null {
  const event = (gpa: number): PackedEvent | null => {
    const bytes = guestBytes(space, gpa, PACKED_EVENT_AREA_SIZE);
    if (bytes === null) return null;
    const position = bytes.getUint16(PACKED_EVENT_OFF_POSITION, true);
    const flags = bytes.getUint16(PACKED_EVENT_OFF_FLAGS, true);
    return { position: position & 0x7fff, wrap: position >>> 15, flags };
  };
  const driver = event(areas.driver);
  const device = event(areas.device);
  return driver === null || device === null ? null : { driver, device };
}

/** From the oldest chain on: what is taken or used, then what waits; `size` is a power of two. Null: the peer's index cannot be. */
function splitMap(
  side: "driver" | "device",
  size: number,
  { available, used }: Positions,
  rings: SplitRings,
): { waiting: number; map: string } | null {
  const distance = (from: number, to: number): number => (to - from) & 0xffff;
  const taken = distance(used, available);
  const waiting =
    side === "device" ? distance(available, rings.availableIndex) : distance(used, rings.usedIndex);
  if (side === "device" ? taken + waiting > size : waiting > taken || taken > size) return null;
  const slots = new Array<string>(size).fill(".");
  const fill = (from: number, n: number, mark: string): void => {
    for (let i = 0; i < n; i++) slots[(from + i) % size] = mark;
  };
  if (side === "device") {
    fill(used, taken, "t");
    fill(available, waiting, "a");
  } else {
    fill(used, waiting, "u");
    fill(used + waiting, taken - waiting, "a"); // taken or not: the driver cannot tell
  }
  return { waiting, map: slots.join("") };
}

/**
 * Slots of used chains keep flags of earlier laps, so the flags of one descriptor alone say nothing: from the device's
 * position on they do (2.8.6).
 */
function packedMap(
  side: "driver" | "device",
  size: number,
  { available, availableWrap, used }: Positions,
  inFlight: number,
  ring: DataView,
): { waiting: number | null; map: string } | null {
  if (inFlight > size || available >= size || used >= size) return null;
  const slots = new Array<string>(size).fill(".");
  for (let i = 0; i < inFlight; i++) slots[(used + i) % size] = side === "device" ? "t" : "a";
  if (side === "driver") return { waiting: null, map: slots.join("") };
  let waiting = 0;
  let wrap = availableWrap;
  let at = available;
  for (let seen = inFlight; seen < size; seen++) {
    const flags = ring.getUint16(at * VIRTQ_DESC_SIZE + PACKED_DESC_OFF_FLAGS, true);
    const isAvailable = ((flags & PACKED_DESC_F_AVAIL) !== 0) === (wrap !== 0);
    const isUsed = ((flags & PACKED_DESC_F_USED) !== 0) === (wrap !== 0);
    if (!isAvailable || isUsed) break;
    slots[at] = "a";
    if ((flags & VIRTQ_DESC_F_NEXT) === 0) waiting++;
    if (++at === size) {
      at = 0;
      wrap ^= 1;
    }
  }
  return { waiting, map: slots.join("") };
}
