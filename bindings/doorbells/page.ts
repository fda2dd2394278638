import {
  LINK_ABSENT,
  LINK_ATTACHED,
  LINK_GONE,
  LINK_BITMAP_WORDS,
  LINK_MAGIC,
  LINK_OFF_CALLS,
  LINK_OFF_GUEST_BITMAP,
  LINK_OFF_GUEST_HEARTBEAT,
  LINK_OFF_GUEST_LEFTOVERS,
  LINK_OFF_GUEST_SEQUENCE,
  LINK_OFF_GUEST_STATE,
  LINK_OFF_HOST_BITMAP,
  LINK_OFF_HOST_HEARTBEAT,
  LINK_OFF_HOST_LEFTOVERS,
  LINK_OFF_HOST_SEQUENCE,
  LINK_OFF_HOST_STATE,
  LINK_OFF_MAGIC,
  LINK_OFF_SLOTS,
  LINK_OFF_VERSION,
  LINK_SIZE,
  LINK_VERSION,
  SLOT_OFF_STATE,
  SLOT_SIZE,
  SLOTS_DEFAULT,
  SLOTS_MAX,
  SLOTS_MIN,
} from "../../assembly/abi/worker-wire.js";
import { VbusError } from "../errors.js";
import type { GuestMemoryInit } from "../memory/guest.js";

/** A side of the page. */
export type LinkSide = "host" | "guest";

const STATE = { host: LINK_OFF_HOST_STATE >>> 2, guest: LINK_OFF_GUEST_STATE >>> 2 } as const;
const HEARTBEAT = { host: LINK_OFF_HOST_HEARTBEAT >>> 2, guest: LINK_OFF_GUEST_HEARTBEAT >>> 2 } as const;
/** Sequence word and bitmap of the doorbells *towards* a side. */
const SEQUENCE = { host: LINK_OFF_HOST_SEQUENCE >>> 2, guest: LINK_OFF_GUEST_SEQUENCE >>> 2 } as const;
const BITMAP = { host: LINK_OFF_HOST_BITMAP >>> 2, guest: LINK_OFF_GUEST_BITMAP >>> 2 } as const;

/** Who accounts for what is left in the ring towards a side. */
const LEFTOVERS = {
  host: LINK_OFF_HOST_LEFTOVERS >>> 2,
  guest: LINK_OFF_GUEST_LEFTOVERS >>> 2,
} as const;

/**
 * The doorbell page of `docs/abi/worker-wire.md` section 1, as one thread sees it: states, doorbells and call slots.
 * All accesses are 32-bit atomics. The other thread may write anything at any time: callers get single, clamped reads.
 */
export class DoorbellPage {
  /** The page's words. Stays valid when the memory grows: it is shared. */
  readonly words: Int32Array;
  /** Number of call slots: copied once when the page was opened; 0 until then. */
  slots = 0;

  private constructor(init: GuestMemoryInit) {
    const { memory, layout } = init;
    const { address, size } = layout.link;
    const buffer = memory.buffer as ArrayBufferLike;
    if (typeof SharedArrayBuffer === "undefined" || !(buffer instanceof SharedArrayBuffer)) {
      throw new VbusError(
        "EOPNOTSUPP",
        "threads need shared memory, and this memory is not shared: allocate it with { shared: true } (a page must be " +
          "cross-origin isolated for that), or use the local connector, or a port over a MessagePort",
      );
    }
    if (address <= 0 || address % 4 !== 0 || size < LINK_SIZE || address + LINK_SIZE > buffer.byteLength) {
      throw new VbusError(
        "EINVAL",
        `no doorbell page fits at ${address} + ${size}; it needs ${LINK_SIZE} bytes inside the memory, 4-byte aligned`,
      );
    }
    const others = [
      ...layout.regions.map(({ address, length }) => ({ address, size: length })),
      layout.guestArena,
      layout.hostArena,
    ];
    if (others.some((range) => address < range.address + range.size && range.address < address + LINK_SIZE)) {
      throw new VbusError(
        "EINVAL",
        `the doorbell page at ${address} overlaps a guest region or an arena; move it out of there`,
      );
    }
    this.words = new Int32Array(buffer, address, LINK_SIZE / 4);
  }

  /**
   * Sets a page up: zeros, then version and number of slots, then the magic. Nobody may be using the page.
   * @throws VbusError EOPNOTSUPP (memory not shared), EINVAL (place, number of slots)
   */
  static format(init: GuestMemoryInit, slots = SLOTS_DEFAULT): DoorbellPage {
    if (!Number.isInteger(slots) || slots < SLOTS_MIN || slots > SLOTS_MAX) {
      throw new VbusError("EINVAL", `${slots} call slots; use ${SLOTS_MIN} to ${SLOTS_MAX}`);
    }
    const page = new DoorbellPage(init);
    for (let i = 0; i < page.words.length; i++) Atomics.store(page.words, i, 0);
    Atomics.store(page.words, LINK_OFF_VERSION >>> 2, LINK_VERSION);
    Atomics.store(page.words, LINK_OFF_SLOTS >>> 2, slots);
    Atomics.store(page.words, LINK_OFF_MAGIC >>> 2, LINK_MAGIC);
    page.slots = slots;
    return page;
  }

  /** Looks at a page that may not be set up yet: check {@link DoorbellPage.isFormatted}. @throws VbusError as format */
  static at(init: GuestMemoryInit): DoorbellPage {
    return new DoorbellPage(init);
  }

  /** True once the magic is there. */
  get isFormatted(): boolean {
    return Atomics.load(this.words, LINK_OFF_MAGIC >>> 2) !== 0;
  }

  /** Checks magic, version and number of slots, and copies the latter. @throws VbusError EINVAL */
  check(): void {
    const magic = Atomics.load(this.words, LINK_OFF_MAGIC >>> 2);
    const version = Atomics.load(this.words, LINK_OFF_VERSION >>> 2);
    const slots = Atomics.load(this.words, LINK_OFF_SLOTS >>> 2);
    if (magic !== LINK_MAGIC || version !== LINK_VERSION || slots < SLOTS_MIN || slots > SLOTS_MAX) {
      throw new VbusError(
        "EINVAL",
        `this is no doorbell page of version ${LINK_VERSION} (magic 0x${(magic >>> 0).toString(16)}, version ${version}, ` +
          `${slots} call slots); set it up with setUpLink()`,
      );
    }
    this.slots = slots;
  }

  /** A side's state (`LINK_…`); anything that is not a state counts as gone. */
  state(side: LinkSide): number {
    const state = Atomics.load(this.words, STATE[side]);
    return state === LINK_ABSENT || state === LINK_ATTACHED ? state : LINK_GONE;
  }

  /** Attaches a side. False: it is, or was, attached already. */
  claim(side: LinkSide): boolean {
    return Atomics.compareExchange(this.words, STATE[side], LINK_ABSENT, LINK_ATTACHED) === LINK_ABSENT;
  }

  /** Stores a side's own state. */
  setState(side: LinkSide, state: number): void {
    Atomics.store(this.words, STATE[side], state);
  }

  /** A side's heartbeat: only whether it changed means something. */
  heartbeat(side: LinkSide): number {
    return Atomics.load(this.words, HEARTBEAT[side]);
  }

  /** Advances a side's own heartbeat. */
  beat(side: LinkSide): void {
    Atomics.add(this.words, HEARTBEAT[side], 1);
  }

  /** Rings a doorbell (0 … 1023) towards a side: W1, W2, W3 of section 3. */
  ring(towards: LinkSide, bell: number): void {
    Atomics.or(this.words, BITMAP[towards] + (bell >>> 5), 1 << (bell & 31)); // W1
    this.wake(towards);
  }

  /** Wakes a side without a doorbell, for it to look at the states. */
  wake(towards: LinkSide): void {
    Atomics.add(this.words, SEQUENCE[towards], 1); // W2
    Atomics.notify(this.words, SEQUENCE[towards]); // W3
  }

  /** Releases whoever waits on a side's sequence word, without changing it. */
  release(side: LinkSide): void {
    Atomics.notify(this.words, SEQUENCE[side]);
  }

  /** The sequence word of the doorbells towards a side. */
  sequence(towards: LinkSide): number {
    return Atomics.load(this.words, SEQUENCE[towards]);
  }

  /** Place of that word in {@link DoorbellPage.words}. */
  sequenceIndex(towards: LinkSide): number {
    return SEQUENCE[towards];
  }

  /** Takes every doorbell towards a side and serves it (W5): cleared first, so a ring during service is not lost. */
  take(towards: LinkSide, serve: (bell: number) => void): number {
    let served = 0;
    for (let i = 0; i < LINK_BITMAP_WORDS; i++) {
      if (Atomics.load(this.words, BITMAP[towards] + i) === 0) continue;
      let bits = Atomics.exchange(this.words, BITMAP[towards] + i, 0);
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits & -bits);
        bits &= bits - 1;
        serve(i * 32 + bit);
        served++;
      }
    }
    return served;
  }

  /**
   * Frame links: whoever gets true accounts for the frames that lie in the ring towards a side when both ends are over. The
   * first that asks gets it, once.
   */
  claimLeftovers(towards: LinkSide): boolean {
    return Atomics.compareExchange(this.words, LEFTOVERS[towards], 0, 1) === 0;
  }

  /** Place of a slot's first word in {@link DoorbellPage.words}; `slot` is below {@link DoorbellPage.slots}. */
  slot(slot: number): number {
    return (LINK_OFF_CALLS + slot * SLOT_SIZE + SLOT_OFF_STATE) >>> 2;
  }
}

/**
 * Sets the doorbell page of a guest memory up, for a connection that is about to be made; also for a second one, when no
 * side uses the page any more. The host does it by itself for a memory that was never used.
 * @param init - as `allocateGuestMemory` gave it, `shared`
 * @param slots - calls that may be under way at once, 1 … 48; default 8
 * @throws VbusError EOPNOTSUPP for a memory that is not shared, EINVAL
 */
export function setUpLink(init: GuestMemoryInit, slots = SLOTS_DEFAULT): void {
  DoorbellPage.format(init, slots);
}
