import { OWNS_INUSE_HEAD, QUEUE_ROLES } from "vbus/engine";
import type { OneThreadLoops, TwoThreadLoops } from "./loops.js";

/**
 * Where things lie in the memory of a ring figure. Each side's private state has pages of its own, so that nothing but
 * the ring itself is shared; ring headers start at 8 (mod 64), so that no descriptor straddles a cache line.
 */
export const STAGE = {
  /** Region table of north and of south. */
  northRegions: 0x10000,
  southRegions: 0x11000,
  northEndpoint: 0x12000,
  southEndpoint: 0x13000,
  /** Where the loops of each side stand, and what they work on. */
  northSide: 0x14000,
  southSide: 0x15000,
  /** Cache line of the probe. */
  line: 0x16000,
  /** Words that the two threads and JavaScript meet at. */
  gate: 0x17000,
  northTable: 0x20000,
  reapTable: 0x28000,
  southTable: 0x30000,
  /** What frames are copied from and to: 256 KiB each. */
  source: 0x40000,
  sink: 0x80000,
  /** Guest RAM. */
  ram: 0xc0000,
} as const;

/** Guest-physical address of guest RAM. */
export const RAM_GPA = 0x10000;
/** Size of guest RAM. */
export const RAM_SIZE = 16 << 20;
/** Pages of a memory that holds a stage. */
export const STAGE_PAGES = (STAGE.ram + RAM_SIZE) / 65536;
/** Guest-physical address of the ring segment. */
export const RING_GPA = RAM_GPA + 8;
/** Guest-physical address of the buffers. */
export const BUFFERS_GPA = RAM_GPA + (1 << 20);

const SHARED_LAZY = 1;
const HEADER = 56;
const DESCRIPTOR = 32;
const BUFFER_SIZE = 2048;

/** How to set a stage up. */
export interface RingPlan {
  /** Descriptors. */
  count: number;
  /** Shared indexes written lazily (negotiated). */
  lazy: boolean;
  /** `transmit`: north reclaims (`docs/abi/ioq.md` 6a); `feed`: one way through inuse alone (6d). */
  pattern: "transmit" | "feed";
}

/** Length of the segment of a plan. */
export function segmentLength(count: number): number {
  return HEADER + DESCRIPTOR * count;
}

/** Guest RAM: where it is for the guest, and in this memory. */
export interface RamPlace {
  gpa: number;
  size: number;
  address: number;
}

/** Writes a region table with guest RAM as its one region. */
export function writeRegions(data: DataView, at: number, { gpa, size, address }: RamPlace): void {
  data.setUint32(at, 1, true);
  data.setUint32(at + 4, 0, true);
  data.setBigUint64(at + 16, BigInt(gpa), true);
  data.setUint32(at + 24, size, true);
  data.setUint32(at + 28, address, true);
}

function check(result: number, what: string): void {
  if (result < 0) throw new Error(`${what} failed with ${result}`);
}

/** Creates the stage's ring, attaches south, negotiates; both receivers unmasked and pending, as inside a wakeup. */
export function setStage(loops: OneThreadLoops, memory: WebAssembly.Memory, plan: RingPlan): void {
  const data = new DataView(memory.buffer);
  const ram = { gpa: RAM_GPA, size: RAM_SIZE, address: STAGE.ram };
  writeRegions(data, STAGE.northRegions, ram);
  writeRegions(data, STAGE.southRegions, ram);
  const offer = plan.lazy ? SHARED_LAZY : 0;
  const north = plan.pattern === "transmit" ? QUEUE_ROLES.northTransmit : QUEUE_ROLES.northFeed;
  const { northEndpoint, southEndpoint } = STAGE;
  check(
    loops.ringCreate(northEndpoint, STAGE.northRegions, RING_GPA, 0, plan.count, 0, north, offer),
    "creating the ring",
  );
  check(
    loops.ringAttach(
      southEndpoint,
      STAGE.southRegions,
      RING_GPA,
      0,
      segmentLength(plan.count),
      0xffffffff,
      OWNS_INUSE_HEAD,
      offer,
    ),
    "attaching to the ring",
  );
  if (loops.ringNegotiated(northEndpoint) !== offer) throw new Error("the extension was not negotiated");
  const ring = STAGE.ram + RING_GPA - RAM_GPA;
  const bytes = new Uint8Array(memory.buffer);
  for (const irq of [ring + 16, ring + 19]) {
    bytes[irq] = 1;
    bytes[irq + 1] = 1;
  }
}

/** Lays out both sides of a ring that was set, about to begin. `same`: descriptors keep their buffers and are not written again. */
export function setSides(loops: TwoThreadLoops, same: boolean): void {
  const { northSide, northEndpoint, northTable, reapTable, southSide, southEndpoint, southTable } = STAGE;
  loops.stageSide(northSide, northEndpoint, northTable, reapTable, BUFFERS_GPA, same ? 1 : 0);
  loops.stageSide(southSide, southEndpoint, southTable, southTable, BUFFERS_GPA, same ? 1 : 0);
}

/** Points the descriptors of a feed at buffers of `size` bytes each. North owns them all, so plain stores do. */
export function postBuffers(memory: WebAssembly.Memory, count: number, size = BUFFER_SIZE): void {
  const data = new DataView(memory.buffer);
  const first = STAGE.ram + RING_GPA - RAM_GPA + HEADER;
  for (let i = 0; i < count; i++) {
    data.setBigUint64(first + i * DESCRIPTOR + 8, BigInt(BUFFERS_GPA + i * size), true);
    data.setBigUint64(first + i * DESCRIPTOR + 16, BigInt(size), true);
  }
}

/** South unmasked, nothing pending; north masked: it polls for room. */
export function idleReceiver(memory: WebAssembly.Memory): void {
  const bytes = new Uint8Array(memory.buffer);
  const ring = STAGE.ram + RING_GPA - RAM_GPA;
  bytes.fill(0, ring + 16, ring + 22);
  bytes[ring + 19] = 1;
}
