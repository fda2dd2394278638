import {
  ENTRY_HEAD_SIZE,
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_GPA,
  ENTRY_OFF_GSO_KIND,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_HEADER_LENGTH,
  ENTRY_OFF_LENGTH,
  ENTRY_OFF_POSITION,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  PIECE_OFF_ADDRESS,
  PIECE_OFF_GPA,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
} from "../../../assembly/abi/arena.js";
import {
  VENET_GSO_MAX,
  VSG_IOV_OFF_LEN,
  VSG_IOV_OFF_PTR,
  VSG_IOV_SIZE,
  VSG_OFF_COOKIE,
  VSG_OFF_COUNT,
  VSG_OFF_CSUM_START,
  VSG_OFF_FLAGS,
  VSG_OFF_GSO_SIZE,
  VSG_OFF_GSO_TYPE,
  VSG_OFF_LEN,
  VSG_SIZE_FIXED,
} from "../../../assembly/abi/venet.js";
import type { BurstTable } from "../../engine/table.js";
import type { MemorySpace } from "../../memory/space.js";
import type { RingBuffers } from "./buffers.js";
import { SUPERFRAME_KINDS, type GrantedOffloads } from "./offloads.js";
import { PAGE_SIZE, type PageRing } from "./pages.js";
import { SLOT_PIECES, SLOT_SIZE } from "./transmit-slots.js";

/** What a returned slot holds: a frame. */
export const SLOT_FRAME = 0;
/** … nothing: it was flushed. */
export const SLOT_FLUSHED = 1;
/** … lengths that contradict each other, or what was posted. */
export const SLOT_BAD_LENGTH = 2;
/** … a page that the host was not given. */
export const SLOT_BAD_PAGE = 3;
/** … checksum or segmentation data that contradicts itself, or was not granted. */
export const SLOT_BAD_OFFLOAD = 4;

/**
 * The scatter-gather descriptors of an RX ring, one slot for each ring position (`docs/abi/venet.md` section 7). Turns
 * what the host wrote into entries of a burst table: every member is read once, checked, and the addresses are our own,
 * of the posted buffer and of pages found by their cookies.
 */
export class ReceiveSlots {
  readonly #space: MemorySpace;
  readonly #address: number;
  /** Pieces of every entry of a burst. */
  readonly #lists: number;
  /** What each entry of the burst is. */
  readonly #verdicts: Uint8Array;
  /** Pages that each entry holds. */
  readonly #held: number[][];
  /** Segmentation kind by type of VSG; absent: not granted. */
  readonly #kinds = new Map<number, number>();
  #closed = false;

  /**
   * @param table - the ring's table; burst by burst its entries become frames
   * @param gpa - where the slots lie, a multiple of 64
   * @param count - number of slots
   * @param buffers - the posted buffers
   * @param pages - where pages come from
   * @param granted - what the host may send
   */
  constructor(
    private readonly table: BurstTable,
    private readonly gpa: number,
    count: number,
    private readonly buffers: RingBuffers,
    readonly pages: PageRing,
    private readonly granted: GrantedOffloads,
  ) {
    this.#space = table.space;
    this.#address = this.#space.translate(gpa, count * SLOT_SIZE);
    this.#lists = this.#space.allocate(table.capacity * SLOT_PIECES * PIECE_SIZE, 64);
    this.#verdicts = new Uint8Array(table.capacity);
    this.#held = Array.from({ length: table.capacity }, () => []);
    for (const name of ["tcp4", "tcp6", "udp"] as const) {
      const { vsg, gso } = SUPERFRAME_KINDS[name];
      if (granted[name]) this.#kinds.set(vsg, gso);
    }
  }

  /** Offset of a position's slot in the pool: what its descriptor points to. */
  pointer(position: number): number {
    return position * SLOT_SIZE;
  }

  /** Makes the slot of a position offer the position's buffer. */
  post(position: number): void {
    const { words } = this.#space.engine;
    const at = (this.#address + position * SLOT_SIZE) >>> 2;
    words.fill(0, at, at + (SLOT_SIZE >>> 2));
    words[at + (VSG_OFF_COOKIE >>> 2)] = position + 1;
    words[at + (VSG_OFF_COUNT >>> 2)] = 1;
    const iov = at + (VSG_SIZE_FIXED >>> 2);
    const gpa = this.buffers.gpa(position);
    words[iov + (VSG_IOV_OFF_LEN >>> 2)] = this.buffers.size(position);
    words[iov + (VSG_IOV_OFF_PTR >>> 2)] = gpa >>> 0;
    words[iov + (VSG_IOV_OFF_PTR >>> 2) + 1] = Math.floor(gpa / 2 ** 32);
    this.#space.noteWrite(this.gpa + position * SLOT_SIZE, SLOT_SIZE);
  }

  /** Reads the slots of the table's first n entries. Their pages are held until {@link ReceiveSlots.settle}. */
  open(n: number): void {
    const { words } = this.#space.engine;
    for (let i = 0; i < n; i++) {
      const entry = this.table.entry(i) >>> 2;
      const position = words[entry + (ENTRY_OFF_POSITION >>> 2)] as number;
      this.#verdicts[i] = this.#read(words, i, entry, position);
    }
  }

  /** What entry i of the burst is (`SLOT_…`). */
  verdict(i: number): number {
    return this.#verdicts[i] as number;
  }

  /** The first `done` of n entries are done with; the others stay in the ring, to be opened again. */
  settle(done: number, n: number): void {
    const { pages } = this;
    for (let i = 0; i < n; i++) {
      const held = this.#held[i] as number[];
      if (held.length === 0) continue;
      for (const page of held) {
        if (i < done) pages.free(page);
        else pages.unhold(page);
      }
      held.length = 0;
    }
  }

  #read(words: Uint32Array, i: number, entry: number, position: number): number {
    const slot = (this.#address + position * SLOT_SIZE) >>> 2;
    const total = words[slot + (VSG_OFF_LEN >>> 2)] as number;
    const count = words[slot + (VSG_OFF_COUNT >>> 2)] as number;
    if (total === 0 && count <= 1) return SLOT_FLUSHED;
    if (count === 0 || count > SLOT_PIECES) return SLOT_BAD_LENGTH;
    const list = this.#lists + i * (SLOT_PIECES * PIECE_SIZE);
    const { buffers } = this;
    const iov = slot + (VSG_SIZE_FIXED >>> 2);
    const own = words[iov] as number;
    let verdict = own <= buffers.size(position) ? SLOT_FRAME : SLOT_BAD_LENGTH;
    let pieces = 0;
    if (own > 0) putPiece(words, list, pieces++, buffers.address(position), own, buffers.gpa(position));
    let sum = own;
    // to the end, whatever is wrong: pages that are named come back
    for (let k = 1; k < count; k++) {
      const at = iov + k * (VSG_IOV_SIZE >>> 2);
      const length = words[at + (VSG_IOV_OFF_LEN >>> 2)] as number;
      const low = words[at + (VSG_IOV_OFF_PTR >>> 2)] as number;
      const high = words[at + (VSG_IOV_OFF_PTR >>> 2) + 1] as number;
      const page = this.pages.hold(low, high);
      if (page < 0) {
        verdict = SLOT_BAD_PAGE;
        continue;
      }
      (this.#held[i] as number[]).push(page);
      if (length > PAGE_SIZE) verdict = SLOT_BAD_LENGTH;
      else if (length > 0)
        putPiece(words, list, pieces++, this.pages.address(page), length, this.pages.gpa(page));
      sum += length;
    }
    if (verdict !== SLOT_FRAME) return verdict;
    if (sum !== total || total > VENET_GSO_MAX) return SLOT_BAD_LENGTH;
    if (pieces === 0) return SLOT_FLUSHED;
    words[entry + (ENTRY_OFF_ADDRESS >>> 2)] = words[(list + PIECE_OFF_ADDRESS) >>> 2] as number;
    words[entry + (ENTRY_OFF_LENGTH >>> 2)] = total;
    words[entry + (ENTRY_OFF_GPA >>> 2)] = words[(list + PIECE_OFF_GPA) >>> 2] as number;
    words[entry + (ENTRY_OFF_GPA >>> 2) + 1] = words[((list + PIECE_OFF_GPA) >>> 2) + 1] as number;
    words[entry + (ENTRY_OFF_FRAGMENT_LIST >>> 2)] = list;
    copyHead(this.#space.bytes, words, entry, list, pieces);
    return this.#readOffload(words, slot, entry, total, pieces);
  }

  #readOffload(words: Uint32Array, slot: number, entry: number, total: number, pieces: number): number {
    let flags = (words[slot + (VSG_OFF_FLAGS >>> 2)] as number) & (FRAME_NEEDS_CSUM | FRAME_GSO | FRAME_ECN);
    // two 16-bit members to a word: checksum start and offset; type and header length; segment size and padding
    let checksum = words[slot + (VSG_OFF_CSUM_START >>> 2)] as number;
    let kind = 0;
    let size = 0;
    let headerLength = 0;
    if ((flags & FRAME_NEEDS_CSUM) === 0) checksum = 0;
    else if ((checksum & 0xffff) + (checksum >>> 16) + 2 > total) return SLOT_BAD_OFFLOAD;
    if ((flags & FRAME_GSO) === 0) {
      flags &= ~FRAME_ECN;
    } else {
      const type = words[slot + (VSG_OFF_GSO_TYPE >>> 2)] as number;
      kind = this.#kinds.get(type & 0xff) ?? 0;
      headerLength = type >>> 16;
      size = (words[slot + (VSG_OFF_GSO_SIZE >>> 2)] as number) & 0xffff;
      if (kind === 0 || size === 0) return SLOT_BAD_OFFLOAD;
      if ((flags & FRAME_ECN) !== 0 && !this.granted.ecn) return SLOT_BAD_OFFLOAD;
    }
    words[entry + (ENTRY_OFF_FLAGS >>> 2)] = flags;
    words[entry + (ENTRY_OFF_CSUM_START >>> 2)] = checksum;
    words[entry + (ENTRY_OFF_GSO_KIND >>> 2)] = kind | (size << 16);
    words[entry + (ENTRY_OFF_HEADER_LENGTH >>> 2)] = headerLength | (pieces << 16);
    return SLOT_FRAME;
  }

  /** Gives the private memory back; pool and pages are the device's. Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#space.free(this.#lists);
    this.pages.close();
  }
}

function putPiece(
  words: Uint32Array,
  list: number,
  k: number,
  address: number,
  length: number,
  gpa: number,
): void {
  const at = (list + k * PIECE_SIZE) >>> 2;
  words[at + (PIECE_OFF_ADDRESS >>> 2)] = address;
  words[at + (PIECE_OFF_LENGTH >>> 2)] = length;
  words[at + (PIECE_OFF_GPA >>> 2)] = gpa >>> 0;
  words[at + (PIECE_OFF_GPA >>> 2) + 1] = Math.floor(gpa / 2 ** 32);
}

/** Takes the private copy of a frame's first bytes; what a shorter frame lacks reads as zero. */
function copyHead(bytes: Uint8Array, words: Uint32Array, entry: number, list: number, pieces: number): void {
  const head = entry * 4 + ENTRY_OFF_HEAD; // no shift: addresses have 32 bits
  bytes.fill(0, head, head + ENTRY_HEAD_SIZE);
  for (let k = 0, done = 0; k < pieces && done < ENTRY_HEAD_SIZE; k++) {
    const at = (list + k * PIECE_SIZE) >>> 2;
    const address = words[at + (PIECE_OFF_ADDRESS >>> 2)] as number;
    const length = Math.min(words[at + (PIECE_OFF_LENGTH >>> 2)] as number, ENTRY_HEAD_SIZE - done);
    bytes.copyWithin(head + done, address, address + length);
    done += length;
  }
}
