/** Where the sides and rings of a wasm contestant lie in memory, and how each contestant sets them up. */
import { COMPACT_DESC_SIZE, COMPACT_OFF_LEN, COMPACT_OFF_PTR, EXT_COMPACT } from "vbus/abi";
import {
  EP_STATE_SIZE,
  OWNS_INUSE_HEAD,
  QUEUE_ROLES,
  VQ_DRIVER,
  VQ_EVENT_INDEX,
  VQ_IN_ORDER,
  VQ_ORDER_SIZE,
  VQ_PACKED,
  VQ_RECORD_SIZE,
  VQ_STATE_SIZE,
} from "vbus/engine";
import { loopOf, type NamedLoops } from "../../harness/loops.js";
import { segmentLength, STAGE, writeRegions } from "../../harness/stage.js";

/**
 * The first pages are those of the harness (`harness/stage.ts`: probe, gate). Behind them each side has pages of its own, so
 * that nothing but the rings is shared.
 */
const PLACES = {
  /** Region tables, one for each side. */
  northRegions: STAGE.northRegions,
  southRegions: STAGE.southRegions,
  /** A burst table for each side and one for what north reaps, 1024 entries of 64 bytes each; a piece for each entry. */
  northTable: 0x100000,
  reapTable: 0x110000,
  southTable: 0x120000,
  southLists: 0x130000,
  /** Private state of each side: 1024 times what a side and its endpoint take. */
  north: 0x200000,
  south: 0x400000,
  /** Addresses of all sides, for the loops over many rings. */
  norths: 0x600000,
  souths: 0x610000,
  /** What payloads are copied from, and to. */
  source: 0x620000,
  sink: 0x700000,
  /** Guest memory: rings, then buffers. */
  ram: 0xf00000,
} as const;

const RAM_GPA = 0x10000;
const RAM_SIZE = 24 << 20;
const PRIVATE_SIZE = PLACES.south - PLACES.north;
const SINK_SIZE = PLACES.ram - PLACES.sink;
const LINE = 64;
const SIDE_SIZE = 256;
const SPSC_HEADER = 192;
const SPSC_RECORD = 16;
const DESCRIPTOR = 32;
const RING_HEADER = 56;
const IRQ = 16;

/** Pages of a memory that holds this stage. */
export const CONTEST_PAGES = (PLACES.ram + RAM_SIZE) / 65536;

/** What a contestant is asked to do. Plain data. */
export interface ContestPlan {
  /** `descriptors`: north posts, south completes, north reaps. `payload`: bytes one way, in buffers that stay. */
  work: "descriptors" | "payload";
  /** Descriptors of a ring, a power of two. */
  size: number;
  /** Rings. */
  rings: number;
  /** Whether notifications are looked after. */
  notify: boolean;
  /** The receivers are within a wake-up; or the consumer sleeps until it is rung. */
  receivers: "awake" | "asleep";
  /** Bytes of each buffer, for payloads. */
  slot: number;
}

/** Sides that were laid out, by address. */
export interface LaidOut {
  norths: number[];
  souths: number[];
}

/** A memory with its contestants linked, and the means to lay sides out in it. */
export class ContestStage {
  #north = 0;
  #south = 0;
  #ram = 0;

  constructor(
    readonly memory: WebAssembly.Memory,
    readonly contestants: NamedLoops,
  ) {}

  /** Places that loops are called with. */
  get places(): { norths: number; souths: number; source: number; sink: number } {
    return PLACES;
  }

  /** Lays out a contestant's sides in zeroed memory. @throws Error when the engine refuses, or there is no room */
  lay(contestant: WasmContestant, plan: ContestPlan): LaidOut {
    this.#north = 0;
    this.#south = 0;
    this.#ram = 0;
    const bytes = new Uint8Array(this.memory.buffer);
    for (const at of [PLACES.north, PLACES.south]) bytes.fill(0, at, at + PRIVATE_SIZE);
    const data = new DataView(this.memory.buffer);
    const ram = { gpa: RAM_GPA, size: RAM_SIZE, address: PLACES.ram };
    for (const at of [PLACES.northRegions, PLACES.southRegions]) writeRegions(data, at, ram);
    const laid: LaidOut = { norths: [], souths: [] };
    for (let ring = 0; ring < plan.rings; ring++) {
      const { north, south } = contestant.lay(this, plan);
      data.setUint32(PLACES.norths + ring * 4, north, true);
      data.setUint32(PLACES.souths + ring * 4, south, true);
      laid.norths.push(north);
      laid.souths.push(south);
    }
    return laid;
  }

  /** Zeroed memory that one side keeps to itself. */
  private(side: "north" | "south", size: number): number {
    const used = side === "north" ? this.#north : this.#south;
    const next = used + Math.ceil(size / LINE) * LINE;
    if (next > PRIVATE_SIZE) throw new Error(`the stage has no room for ${size} more private bytes`);
    if (side === "north") this.#north = next;
    else this.#south = next;
    return PLACES[side] + used;
  }

  /** Zeroed guest memory, at `skew` behind a cache line's beginning. */
  shared(size: number, skew = 0): { address: number; gpa: number } {
    const at = this.#ram + skew;
    this.#ram = Math.ceil((at + size) / LINE) * LINE;
    if (this.#ram > RAM_SIZE) throw new Error(`the stage has no room for ${size} more bytes of guest memory`);
    const address = PLACES.ram + at;
    new Uint8Array(this.memory.buffer).fill(0, address, address + size);
    return { address, gpa: RAM_GPA + at };
  }

  /** Buffers for the payloads of a plan, or a place that descriptors may point at. */
  buffers(plan: ContestPlan): { address: number; gpa: number } {
    return plan.work === "payload"
      ? this.shared(plan.size * plan.slot)
      : { address: PLACES.ram, gpa: RAM_GPA };
  }

  /** Calls an exported function that answers with an errno. @throws Error */
  call(name: string, ...args: number[]): number {
    const result = loopOf(this.contestants, name)(...args);
    if (result < 0) throw new Error(`${name} answers ${result}`);
    return result;
  }

  /** Doorbells that a side asked for. */
  doorbells(side: number): number {
    return loopOf(this.contestants, "doorbellsOf")(side);
  }

  /** Most payload bytes of one burst. */
  get burstBytes(): number {
    return SINK_SIZE;
  }
}

/** A contestant whose loops are in wasm. */
export interface WasmContestant {
  /** Prefix of its loops. */
  readonly prefix: string;
  /** Lays out both sides of one ring. */
  lay(stage: ContestStage, plan: ContestPlan): { north: number; south: number };
}

/** The signal's bytes as a plan wants them: all unmasked and pending, or the consumer unmasked and idle. */
function setSignal(stage: ContestStage, ring: number, plan: ContestPlan): void {
  const bytes = new Uint8Array(stage.memory.buffer);
  const [north, south] = [ring + IRQ, ring + IRQ + 3];
  bytes.fill(0, north, south + 3);
  if (plan.receivers === "asleep") {
    bytes[south] = 1;
    return;
  }
  for (const irq of [north, south]) bytes.fill(1, irq, irq + 2);
}

/** Points every descriptor at its buffer. North owns them all, so plain stores do. */
function postBuffers(
  stage: ContestStage,
  ring: number,
  gpa: number,
  plan: ContestPlan,
  extensions: number,
): void {
  const data = new DataView(stage.memory.buffer);
  for (let i = 0; i < plan.size; i++) {
    if ((extensions & EXT_COMPACT) !== 0) {
      const descriptor = ring + RING_HEADER + i * COMPACT_DESC_SIZE;
      data.setBigUint64(descriptor + COMPACT_OFF_PTR, BigInt(gpa + i * plan.slot), true);
      data.setUint32(descriptor + COMPACT_OFF_LEN, plan.slot, true);
      continue;
    }
    const descriptor = ring + RING_HEADER + i * DESCRIPTOR;
    data.setBigUint64(descriptor + 8, BigInt(gpa + i * plan.slot), true);
    data.setBigUint64(descriptor + 16, BigInt(plan.slot), true);
  }
}

/** The ring of an IOQ in guest memory, with an endpoint on each side. */
function layRing(
  stage: ContestStage,
  plan: ContestPlan,
  extensions: number,
): { ring: number; north: number; south: number } {
  const length = segmentLength(plan.size);
  const { address, gpa } = stage.shared(length, 8); // descriptors then never straddle a line
  const north = stage.private("north", EP_STATE_SIZE);
  const south = stage.private("south", EP_STATE_SIZE);
  const role = plan.work === "payload" ? QUEUE_ROLES.northFeed : QUEUE_ROLES.northTransmit;
  stage.call("ringCreate", north, PLACES.northRegions, gpa, 0, plan.size, 0, role, extensions);
  stage.call(
    "ringAttach",
    south,
    PLACES.southRegions,
    gpa,
    0,
    length,
    0xffffffff,
    OWNS_INUSE_HEAD,
    extensions,
  );
  if (stage.call("ringNegotiated", north) !== extensions) throw new Error("an extension was not negotiated");
  setSignal(stage, address, plan);
  return { ring: address, north, south };
}

/** IOQ as the engine runs it, with the extensions that are to be negotiated. */
export function ioqContestant(extensions: number): WasmContestant {
  return {
    prefix: "ioq",
    lay(stage, plan) {
      const { ring, north, south } = layRing(stage, plan, extensions);
      const buffers = stage.buffers(plan);
      if (plan.work === "payload") postBuffers(stage, ring, buffers.gpa, plan, extensions);
      const side = (which: "north" | "south", endpoint: number, table: number): number => {
        const at = stage.private(which, SIDE_SIZE);
        const notify = plan.notify ? 1 : 0;
        stage.call("ioqSide", at, endpoint, table, buffers.gpa, buffers.address, plan.slot, notify);
        return at;
      };
      return {
        north: side("north", north, PLACES.northTable),
        south: side("south", south, PLACES.southTable),
      };
    },
  };
}

/** IOQ as in 2009: the same segment, and nothing but that. */
export const IOQ_2009: WasmContestant = {
  prefix: "ioq2009",
  lay(stage, plan) {
    const { ring } = layRing(stage, plan, 0);
    const buffers = stage.buffers(plan);
    if (plan.work === "payload") postBuffers(stage, ring, buffers.gpa, plan, 0);
    const side = (which: "north" | "south", regions: number, locale: number): number => {
      const at = stage.private(which, SIDE_SIZE);
      stage.call(
        "ioq2009Side",
        at,
        ring,
        regions,
        locale,
        plan.size,
        buffers.gpa,
        buffers.address,
        plan.slot,
        plan.notify ? 1 : 0,
      );
      return at;
    };
    return {
      north: side("north", PLACES.northRegions, 0),
      south: side("south", PLACES.southRegions, 1),
    };
  },
};

/** Bytes of the driver and device areas: a split ring's entries, or a packed ring's event. */
const areaSizes = (packed: boolean, size: number): readonly [number, number, number] =>
  packed ? [16 * size, 4, 4] : [16 * size, 6 + 2 * size, 6 + 8 * size];

/**
 * A virtqueue. Without notifications no event index is negotiated and both sides say that they want none: the engine looks
 * at that one word.
 */
export function virtqueueContestant(format: "split" | "packed", inOrder: boolean): WasmContestant {
  return {
    prefix: "virtqueue",
    lay(stage, plan) {
      const flags =
        (format === "packed" ? VQ_PACKED : 0) |
        (inOrder ? VQ_IN_ORDER : 0) |
        (plan.notify ? VQ_EVENT_INDEX : 0);
      const areas = areaSizes(format === "packed", plan.size).map((size) => stage.shared(size).gpa);
      const buffers = stage.buffers(plan);
      const { northTable, reapTable, southTable, southLists } = PLACES;
      const side = (
        which: "north" | "south",
        own: number,
        regions: number,
        record: number,
        table: number,
      ): { at: number; queue: number } => {
        const queue = stage.private(which, VQ_STATE_SIZE + plan.size * record);
        const gpas = areas.flatMap((gpa) => [gpa, 0]);
        stage.call("virtqBind", queue, regions, flags | own, plan.size, 1, queue + VQ_STATE_SIZE, ...gpas);
        const at = stage.private(which, SIDE_SIZE);
        const { gpa, address } = buffers;
        stage.call("virtqueueSide", at, queue, table, reapTable, southLists, gpa, address, plan.slot);
        return { at, queue };
      };
      const north = side("north", VQ_DRIVER, PLACES.northRegions, VQ_RECORD_SIZE, northTable);
      const south = side("south", 0, PLACES.southRegions, VQ_ORDER_SIZE, southTable);
      stage.call("virtqDisable", north.queue);
      if (plan.receivers === "asleep") stage.call("virtqEnable", south.queue, 0);
      else stage.call("virtqDisable", south.queue);
      return { north: north.at, south: south.at };
    },
  };
}

/** A pair of plain rings. */
export const SPSC: WasmContestant = {
  prefix: "spsc",
  lay(stage, plan) {
    const ring = (): number => stage.shared(SPSC_HEADER + plan.size * SPSC_RECORD).address;
    const [there, back] = [ring(), ring()];
    const buffers = stage.buffers(plan);
    const data = new DataView(stage.memory.buffer);
    if (plan.receivers === "asleep") data.setUint32(there + 128, 1, true);
    const side = (which: "north" | "south", output: number, input: number): number => {
      const at = stage.private(which, SIDE_SIZE);
      const notify = plan.notify ? 1 : 0;
      stage.call("spscSide", at, output, input, plan.size, buffers.address, plan.slot, notify);
      return at;
    };
    return { north: side("north", there, back), south: side("south", back, there) };
  },
};
