import { VbusError } from "../errors.js";
import { checkGiven, nameOf } from "../given.js";
import { RangeAllocator } from "./allocator.js";
import { MemorySpace, type ArenaRange, type MemoryRegion } from "./space.js";

/** Where things lie in a memory allocated by {@link allocateGuestMemory}. Plain data: may be posted to other threads. */
export interface GuestLayout {
  /** Guest-physical regions. */
  regions: MemoryRegion[];
  /** Arena of the guest thread's engine. */
  guestArena: ArenaRange;
  /** Arena of the host thread's engine. */
  hostArena: ArenaRange;
  /** Doorbell page and call slots of the worker connector. */
  link: ArenaRange;
  /** True: the memory can never grow, which makes access cheaper. */
  fixedSize?: boolean;
}

/** A memory for a guest, and its layout. */
export interface GuestMemoryInit {
  /** The memory; shared when asked for. */
  memory: WebAssembly.Memory;
  /** What lies where. */
  layout: GuestLayout;
}

/** What {@link allocateGuestMemory} should allocate. */
export interface GuestMemoryOptions {
  /** Size of guest RAM in bytes; default 16 MiB. Rounded up to 64 KiB. */
  size?: number;
  /** First guest-physical address; default 0x10000, so that 0 stays an invalid address. */
  gpa?: number;
  /** True: a shared memory, for guests in another thread. Needs cross-origin isolation in pages. Default false. */
  shared?: boolean;
  /** Size of each arena in bytes; default 2 MiB. */
  arenaSize?: number;
  /** Bytes left free before guest RAM, to place it high in the memory (for tests of addresses above 2 GiB). */
  padding?: number;
}

const PAGE = 65536;
const pages = (bytes: number): number => Math.ceil(bytes / PAGE);

/**
 * Allocates a memory for a guest that is written in TypeScript (or for an emulator that takes its RAM from us):
 * an unused page, the link page, one arena for each side, then guest RAM.
 * @throws VbusError EINVAL for sizes that are none, or do not fit a 32-bit memory; EOPNOTSUPP for a shared memory in a page without
 *   cross-origin isolation; ENOMEM when the platform refuses
 */
export function allocateGuestMemory(options: GuestMemoryOptions = {}): GuestMemoryInit {
  const { size = 16 << 20, gpa = PAGE, shared = false, arenaSize = 2 << 20, padding = 0 } = options;
  const arenaBytes = pages(arenaSize) * PAGE;
  const ramBytes = pages(size) * PAGE;
  const ramAddress = 2 * PAGE + 2 * arenaBytes + pages(padding) * PAGE;
  const total = (ramAddress + ramBytes) / PAGE;
  for (const [what, value, least] of [
    ["size", size, 1],
    ["arenaSize", arenaSize, 1],
    ["padding", padding, 0],
  ] as const) {
    if (typeof value !== "number" || !(value >= least))
      throw new VbusError(
        "EINVAL",
        `${what}: ${nameOf(value)}; give a number of bytes, such as 16 << 20 for 16 MiB`,
      );
  }
  if (total > 65536) {
    throw new VbusError(
      "EINVAL",
      `${size} bytes of guest RAM with arenas of ${arenaSize} bytes do not fit a 32-bit memory (4 GiB)`,
    );
  }
  // the constructor succeeds without isolation; only posting such a memory fails, later and less clearly
  if (shared && (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated === false) {
    throw new VbusError(
      "EOPNOTSUPP",
      "shared memory needs a cross-origin isolated page (COOP: same-origin and COEP: require-corp); use the local connector, or send those headers",
    );
  }
  let memory: WebAssembly.Memory;
  try {
    memory = new WebAssembly.Memory({ initial: total, maximum: total, ...(shared ? { shared: true } : {}) });
  } catch (cause) {
    throw new VbusError("ENOMEM", `cannot allocate ${total * PAGE} bytes for a guest`, { cause });
  }
  return {
    memory,
    layout: {
      fixedSize: true,
      link: { address: PAGE, size: PAGE },
      guestArena: { address: 2 * PAGE, size: arenaBytes },
      hostArena: { address: 2 * PAGE + arenaBytes, size: arenaBytes },
      regions: [{ gpa, length: Math.min(ramBytes, 2 ** 32 - 1), address: ramAddress }],
    },
  };
}

/**
 * A guest's view of its own memory: a {@link MemorySpace} with an allocator for guest-physical memory, for guests
 * written in TypeScript. Belongs to the guest's thread.
 */
export class GuestMemory {
  /** Allocator of guest-physical addresses in the first region. */
  readonly ram: RangeAllocator;

  private constructor(
    /** This thread's engine and arena on the memory. */
    readonly space: MemorySpace,
  ) {
    const region = space.regions[0];
    if (region === undefined) throw new VbusError("EINVAL", "a guest needs at least one region of memory");
    const skip = region.gpa === 0 ? 4096 : 0; // address 0 means "none" to drivers
    this.ram = new RangeAllocator(region.gpa + skip, region.length - skip, "guest's memory");
  }

  /** Opens a guest memory in the guest's thread. @throws VbusError as `MemorySpace.attach` */
  static async open(init: GuestMemoryInit): Promise<GuestMemory> {
    const space = await MemorySpace.attach(init.memory, init.layout.guestArena, init.layout.regions);
    return new GuestMemory(sized(space, init));
  }

  /** {@link GuestMemory.open} where synchronous compilation is allowed. */
  static openSync(init: GuestMemoryInit): GuestMemory {
    const space = MemorySpace.attachSync(init.memory, init.layout.guestArena, init.layout.regions);
    return new GuestMemory(sized(space, init));
  }

  /** Wraps a space that exists already, when one thread is guest and host (`local` connector). */
  static over(space: MemorySpace): GuestMemory {
    return new GuestMemory(space);
  }
}

/** Opens the host's view of a guest memory, in the host's thread. @throws VbusError as `MemorySpace.attach` */
export async function openHostView(init: GuestMemoryInit): Promise<MemorySpace> {
  return sized(await MemorySpace.attach(init.memory, init.layout.hostArena, init.layout.regions), init);
}

function sized(space: MemorySpace, init: GuestMemoryInit): MemorySpace {
  if (init.layout.fixedSize === true) space.engine.assumeFixedSize();
  return space;
}

/** Passes through what a guest gave as its memory. @throws VbusError EINVAL for anything that is none, such as a MemorySpace */
export function checkGuestMemory(memory: GuestMemory): GuestMemory {
  const wanted = "give a GuestMemory: `await GuestMemory.open(init)`, or `GuestMemory.over(space)`";
  return checkGiven(memory, "the guest's `memory` is", wanted, "ram", "space");
}
