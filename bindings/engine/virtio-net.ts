import { ENTRY_OFF_LENGTH, ENTRY_SIZE, PIECE_SIZE } from "../../assembly/abi/arena.js";
import {
  NET_DATA_VALID,
  NET_MERGEABLE,
  PLACE_ALL,
  PLACE_BAD,
  PLACE_CHAINS,
  PLACE_OFF_CHAINS,
  PLACE_OFF_REASON,
  PLACE_PIECES,
  PLACE_RESULT_SIZE,
} from "../../assembly/abi/arena-virtio-net.js";
import { VIRTIO_NET_HDR_SIZE } from "../../assembly/abi/virtio-net.js";
import type { ChainTable } from "./chain-table.js";
import { BurstTable } from "./table.js";

/**
 * Turns the first n chains that a peek found on a transmit queue of virtio-net into frames, in place: headers decoded and
 * stripped (virtio 1.2: 5.1.6.2). `granted`: `1 << GSO_…` for each kind of superframe that was negotiated, bit 0 for ECN,
 * `NET_GRANT_CSUM`. What must be dropped has `FRAME_BAD_…` flags and no address.
 */
export function decodeNetHeaders(chains: ChainTable, n: number, granted: number): void {
  chains.space.engine.exports.virtioNetDecode(chains.table.address, Math.min(n, chains.capacity), granted);
}

/** Why {@link NetPlaces.place} found no more places. */
export type NetPlacing =
  | "all" // every frame has its place
  | "chains" // the next one needs more chains than there are
  | "pieces" // the next one needs more pieces than any frame may take
  | "bad"; // the next chain is no receive buffer

const PLACINGS: Readonly<Record<number, NetPlacing>> = {
  [PLACE_ALL]: "all",
  [PLACE_CHAINS]: "chains",
  [PLACE_PIECES]: "pieces",
  [PLACE_BAD]: "bad",
};

/**
 * Places for frames in the chains of a receive queue of virtio-net (virtio 1.2: 5.1.6.3 and 5.1.6.4):
 *
 * ```
 * n = peek(chains)  →  place(chains, n, …)  →  moveFrames(…, targets, 0, frames)  →  finish(frames)  →  release(chains, …)
 * ```
 */
export class NetPlaces {
  /** Where the payload of each frame goes. */
  readonly targets: BurstTable;
  readonly #area: number;
  readonly #lists: number;
  #chains = 0;
  #why: NetPlacing = "all";
  #closed = false;

  /**
   * @param chains - the table that the queue is peeked into
   * @param capacity - most frames at once
   * @param pieces - most pieces of all frames together
   * @param mergeable - frames may take several chains
   * @throws VbusError ENOMEM
   */
  constructor(
    private readonly chains: ChainTable,
    readonly capacity: number,
    private readonly pieces: number,
    private readonly mergeable: boolean,
  ) {
    const { space } = chains;
    // result, a header, lengths
    this.#area = space.allocate(PLACE_RESULT_SIZE + 16 + capacity * 4, 16);
    this.#lists = 0;
    try {
      this.#lists = space.allocate(pieces * PIECE_SIZE, 16);
      this.targets = BurstTable.allocate(space, capacity);
    } catch (error) {
      space.free(this.#area);
      if (this.#lists !== 0) space.free(this.#lists);
      throw error;
    }
  }

  get #lengths(): number {
    return this.#area + PLACE_RESULT_SIZE + 16;
  }

  /**
   * Notes the lengths of frames [from, to) for {@link NetPlaces.place}. Returns how many buffers of `capacity` bytes they
   * take, headers included.
   */
  note(frames: BurstTable, from: number, to: number, capacity: number): number {
    const { words } = this.chains.space.engine;
    const source = frames.space.engine.words;
    let at = (frames.entry(from) + ENTRY_OFF_LENGTH) >>> 2;
    let out = this.#lengths >>> 2;
    let buffers = 0;
    for (let i = from; i < to; i++, at += ENTRY_SIZE >>> 2) {
      const length = source[at] as number;
      words[out++] = length;
      buffers +=
        length + VIRTIO_NET_HDR_SIZE <= capacity ? 1 : Math.ceil((length + VIRTIO_NET_HDR_SIZE) / capacity);
    }
    return buffers;
  }

  /**
   * Finds places in the first `chains` chains for up to `frames` frames: mergeable, for the frames noted before; otherwise
   * each chain is a place. Returns for how many; {@link NetPlaces.why} says why not for more.
   */
  place(chains: number, frames: number): number {
    const { engine } = this.chains.space;
    const n = engine.exports.virtioNetPlace(
      this.chains.table.address,
      chains,
      this.mergeable ? this.#lengths : 0,
      frames,
      this.targets.address,
      this.#lists,
      this.pieces,
      this.#area,
    );
    this.#chains = engine.words[(this.#area + PLACE_OFF_CHAINS) >>> 2] as number;
    this.#why = PLACINGS[engine.words[(this.#area + PLACE_OFF_REASON) >>> 2] as number] ?? "all";
    return n;
  }

  /** Why the last {@link NetPlaces.place} found no more places. */
  get why(): NetPlacing {
    return this.#why;
  }

  /** Chains that its places take. */
  get chainsPlaced(): number {
    return this.#chains;
  }

  /**
   * Writes the headers of the first n frames and what was used of their chains. `dataValid`: checksums that are known to be
   * right are said to be. Returns how many chains to release.
   */
  finish(n: number, dataValid: boolean): number {
    const { space } = this.chains;
    return space.engine.exports.virtioNetFinish(
      this.targets.address,
      n,
      this.chains.table.address,
      (this.mergeable ? NET_MERGEABLE : 0) | (dataValid ? NET_DATA_VALID : 0),
      space.regionTable,
      this.#area + PLACE_RESULT_SIZE,
    );
  }

  /** Gives the memory back. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.targets.close();
    this.chains.space.free(this.#lists);
    this.chains.space.free(this.#area);
  }
}
