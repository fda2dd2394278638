import {
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_FRAGMENTS,
  PIECE_OFF_ADDRESS,
  PIECE_OFF_GPA,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
} from "../../assembly/abi/arena.js";
import {
  CHAIN_LISTED,
  CHAIN_OFF_ID,
  CHAIN_OFF_READABLE_PIECES,
  CHAIN_OFF_SLOTS,
  CHAIN_OFF_USED,
  CHAIN_OFF_WRITABLE_BYTES,
  CHAIN_OFF_WRITABLE_PIECES,
  CHAIN_WRITABLE,
} from "../../assembly/abi/arena-virtq.js";
import { VbusError } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import { BurstTable } from "./table.js";

/** A buffer of a chain that a driver makes available. */
export interface ChainPiece {
  /** Guest-physical address. */
  gpa: number;
  /** Length in bytes, at least 1. */
  length: number;
}

/** A piece of a chain: where it lies, checked when the chain was peeked. */
export interface PlacedPiece extends ChainPiece {
  /** Address in the memory. */
  address: number;
}

/**
 * A table of descriptor chains: a {@link BurstTable} whose entries double as frames, and room for their piece lists.
 *
 * After a peek an entry shows the part that the device reads, so that `moveFrames` takes it as a frame; a chain without
 * such a part shows what the device may write, so that it is a buffer to move a frame into. Used by one thread, for one
 * queue at a time: what a peek filled belongs to that queue until it is advanced.
 */
export class ChainTable {
  #closed = false;

  private constructor(
    /** The entries. */
    readonly table: BurstTable,
    /** Address of the piece lists, {@link ChainTable.piecesPerChain} pieces for each entry. */
    readonly lists: number,
    /** Room in each list. A longer chain breaks the queue that it came from. */
    readonly piecesPerChain: number,
  ) {}

  /**
   * Allocates a table of `capacity` chains with up to `piecesPerChain` pieces each in the space's arena.
   * @throws VbusError EINVAL, ENOMEM
   */
  static allocate(space: MemorySpace, capacity: number, piecesPerChain = 64): ChainTable {
    if (!Number.isSafeInteger(piecesPerChain) || piecesPerChain < 1 || piecesPerChain > 32768) {
      throw new VbusError("EINVAL", `lists of ${piecesPerChain} pieces; give 1 to 32768`);
    }
    const table = BurstTable.allocate(space, capacity);
    try {
      const lists = space.allocate(capacity * piecesPerChain * PIECE_SIZE, 64);
      return new ChainTable(table, lists, piecesPerChain);
    } catch (error) {
      table.close();
      throw error;
    }
  }

  /** The memory that holds the table and what its entries point to. */
  get space(): MemorySpace {
    return this.table.space;
  }

  /** Number of entries. */
  get capacity(): number {
    return this.table.capacity;
  }

  #word(i: number, offset: number): number {
    return this.space.engine.words[(this.table.entry(i) + offset) >>> 2] as number;
  }

  #setWord(i: number, offset: number, value: number): void {
    this.space.engine.words[(this.table.entry(i) + offset) >>> 2] = value;
  }

  /** Number of the chain's head (split), or its buffer id (packed). */
  id(i: number): number {
    return this.#word(i, CHAIN_OFF_ID);
  }

  /** Descriptors of the ring that the chain takes. */
  slots(i: number): number {
    return this.#word(i, CHAIN_OFF_SLOTS);
  }

  /** Bytes that the device wrote into the chain. */
  used(i: number): number {
    return this.#word(i, CHAIN_OFF_USED);
  }

  /** Sets how many bytes the device wrote, from the start of the writable part; 0 after a peek. */
  setUsed(i: number, bytes: number): void {
    this.#setWord(i, CHAIN_OFF_USED, bytes);
  }

  /** Bytes of the part that the device reads. */
  readableBytes(i: number): number {
    return this.readablePieces(i) === 0 ? 0 : this.table.length(i);
  }

  /** Bytes of the part that the device may write. */
  writableBytes(i: number): number {
    return this.#word(i, CHAIN_OFF_WRITABLE_BYTES);
  }

  /** Pieces of the part that the device reads. */
  readablePieces(i: number): number {
    return this.#word(i, CHAIN_OFF_READABLE_PIECES);
  }

  /** Pieces of the part that the device may write. They follow the readable ones. */
  writablePieces(i: number): number {
    return this.#word(i, CHAIN_OFF_WRITABLE_PIECES);
  }

  /** Piece k of a chain: the readable ones come first. Borrowed from the guest like a frame. */
  piece(i: number, k: number): PlacedPiece {
    const { table } = this;
    const list = this.#word(i, ENTRY_OFF_FRAGMENT_LIST);
    if (list === 0) return { address: table.bufferAddress(i), length: table.length(i), gpa: table.gpa(i) };
    const { words } = this.space.engine;
    const at = (list + k * PIECE_SIZE) >>> 2;
    return {
      address: words[at + (PIECE_OFF_ADDRESS >>> 2)] as number,
      length: words[at + (PIECE_OFF_LENGTH >>> 2)] as number,
      gpa:
        (words[at + (PIECE_OFF_GPA >>> 2)] as number) +
        (words[at + (PIECE_OFF_GPA >>> 2) + 1] as number) * 2 ** 32,
    };
  }

  /**
   * Driver: describes a chain to be made available: what the device reads, then what it may write. The cookie, which
   * comes back when the chain is reaped, is set by {@link BurstTable.setCookie}.
   * @throws VbusError EINVAL when there are no pieces, or more than a list holds
   */
  setChain(i: number, readable: readonly ChainPiece[], writable: readonly ChainPiece[]): void {
    const count = readable.length + writable.length;
    if (count === 0 || count > this.piecesPerChain) {
      throw new VbusError(
        "EINVAL",
        `a chain of ${count} pieces for a table with lists of ${this.piecesPerChain}; allocate longer lists`,
      );
    }
    const { words } = this.space.engine;
    const list = this.lists + i * this.piecesPerChain * PIECE_SIZE;
    for (const [k, { gpa, length }] of [...readable, ...writable].entries()) {
      const at = (list + k * PIECE_SIZE) >>> 2;
      words[at + (PIECE_OFF_ADDRESS >>> 2)] = 0; // the device finds out
      words[at + (PIECE_OFF_LENGTH >>> 2)] = length;
      words[at + (PIECE_OFF_GPA >>> 2)] = gpa >>> 0;
      words[at + (PIECE_OFF_GPA >>> 2) + 1] = Math.floor(gpa / 2 ** 32);
    }
    const sum = (pieces: readonly ChainPiece[]): number => pieces.reduce((n, { length }) => n + length, 0);
    const [first] = readable.length > 0 ? readable : writable;
    const shown = readable.length > 0 ? readable : writable;
    this.table.setBuffer(i, 0, sum(shown));
    this.#setWord(i, ENTRY_OFF_FLAGS, CHAIN_LISTED | (readable.length === 0 ? CHAIN_WRITABLE : 0));
    this.space.engine.data.setUint16(this.table.entry(i) + ENTRY_OFF_FRAGMENTS, shown.length, true);
    this.#setWord(i, ENTRY_OFF_FRAGMENT_LIST, list);
    this.#setWord(i, CHAIN_OFF_WRITABLE_BYTES, sum(writable));
    this.#setWord(i, CHAIN_OFF_WRITABLE_PIECES, writable.length);
    this.#setWord(i, CHAIN_OFF_READABLE_PIECES, readable.length);
    this.table.setGpa(i, (first as ChainPiece).gpa);
  }

  /** Gives the table's memory back. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.space.free(this.lists);
    this.table.close();
  }
}
