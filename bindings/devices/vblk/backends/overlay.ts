import { VBLK_SECTOR_SIZE } from "../../../../assembly/abi/vblk.js";
import { VbusError } from "../../../errors.js";
import { checkSize, type BlockBackend } from "../backend.js";

/** How an overlay keeps what is written. */
export interface CowOverlayOptions {
  /** Bytes per cluster, a power of two from 512 to 16 MiB; default 64 KiB. */
  clusterSize?: number;
  /** Most bytes of clusters kept; a write that needs more fails with ENOSPC. Default: no limit but memory. */
  maxBytes?: number;
}

/** A cluster that was written: its bytes, and which of its sectors they are valid for (one bit each). */
interface Cluster {
  /** Null: every sector reads as zeroes. */
  data: Uint8Array<ArrayBuffer> | null;
  present: Uint32Array;
}

const CLUSTER_MIN = VBLK_SECTOR_SIZE;
const CLUSTER_MAX = 1 << 24;

/**
 * Copy on write: reads come from a base that is never changed, writes stay in memory. Clusters that were never written take
 * no memory; one that was takes `clusterSize` bytes and a bit per sector, one that was zeroed or discarded only the bits.
 * Nothing is copied up from the base: sectors are valid one by one, so a write never waits for a read.
 *
 * Flush makes nothing durable: what was written is gone with the overlay, unless {@link CowOverlay.commit} stores it.
 */
export class CowOverlay implements BlockBackend {
  readonly readOnly = false;
  readonly #clusterSize: number;
  readonly #maxBytes: number;
  readonly #clusters = new Map<number, Cluster>();
  #size: number;
  #stored = 0;
  /** Where the base's content ends; lower than its size once the disk was smaller. */
  #baseEnd: number;

  /**
   * @param base - belongs to the overlay from now on; read, never written, closed with it
   * @throws VbusError EINVAL for options out of range
   */
  constructor(
    private readonly base: BlockBackend,
    options: CowOverlayOptions = {},
  ) {
    const { clusterSize = 1 << 16, maxBytes = Infinity } = options;
    if (!(
      clusterSize >= CLUSTER_MIN &&
      clusterSize <= CLUSTER_MAX &&
      Number.isInteger(Math.log2(clusterSize))
    ))
      throw new VbusError(
        "EINVAL",
        `clusters of ${clusterSize} bytes; use a power of two from ${CLUSTER_MIN} to ${CLUSTER_MAX}`,
      );
    if (!(maxBytes >= 0)) throw new VbusError("EINVAL", `maxBytes is ${maxBytes}; use 0 or more`);
    this.#clusterSize = clusterSize;
    this.#maxBytes = maxBytes;
    this.#size = base.size;
    this.#baseEnd = base.size;
  }

  /** {@inheritDoc BlockBackend.description} */
  get description(): string {
    return `overlay over ${this.base.description}`;
  }

  /** Size in bytes; the base's at the beginning. */
  get size(): number {
    return this.#size;
  }

  /** Clusters that differ from the base. */
  get clusters(): number {
    return this.#clusters.size;
  }

  /** Bytes of memory that hold what was written, bits included. */
  get memoryUsed(): number {
    return this.#stored + this.#clusters.size * this.#words * 4;
  }

  /** 32-bit words of a cluster's bitmap. */
  get #words(): number {
    return Math.ceil(this.#clusterSize / VBLK_SECTOR_SIZE / 32);
  }

  /** {@inheritDoc BlockBackend.read} */
  async read(offset: number, target: Uint8Array<ArrayBuffer>): Promise<void> {
    const fromBase = Math.max(0, Math.min(target.length, this.#baseEnd - offset));
    if (fromBase > 0 && !this.#covers(offset, fromBase))
      await this.base.read(offset, target.subarray(0, fromBase));
    target.fill(0, fromBase);
    this.#eachRun(offset, target.length, (cluster, from, to, at) => {
      if (cluster === undefined) return;
      for (let sector = from; sector < to; sector++) {
        if (!has(cluster, sector)) continue;
        const into = at + (sector - from) * VBLK_SECTOR_SIZE;
        const start = sector * VBLK_SECTOR_SIZE;
        if (cluster.data === null) target.fill(0, into, into + VBLK_SECTOR_SIZE);
        else target.set(cluster.data.subarray(start, start + VBLK_SECTOR_SIZE), into);
      }
    });
  }

  /** Keeps the data in memory. @throws VbusError ENOSPC beyond `maxBytes`, with nothing changed */
  async write(offset: number, data: Uint8Array<ArrayBuffer>): Promise<void> {
    let needed = 0;
    this.#eachRun(offset, data.length, (cluster) => {
      if (cluster === undefined || cluster.data === null) needed += this.#clusterSize;
    });
    if (this.#stored + needed > this.#maxBytes)
      throw new VbusError(
        "ENOSPC",
        `the overlay holds ${this.#stored} of at most ${this.#maxBytes} bytes; raise maxBytes or commit`,
      );
    this.#eachRun(offset, data.length, (cluster, from, to, at, number) => {
      const own = cluster ?? this.#create(number);
      if (own.data === null) {
        own.data = new Uint8Array(this.#clusterSize);
        this.#stored += this.#clusterSize;
      }
      own.data.set(data.subarray(at, at + (to - from) * VBLK_SECTOR_SIZE), from * VBLK_SECTOR_SIZE);
      mark(own, from, to);
    });
  }

  /** {@inheritDoc BlockBackend.flush} */
  async flush(): Promise<void> {
    // what is in memory does not get more durable
  }

  /** The range reads as zeroes. A cluster that is zeroed as a whole gives its memory back. */
  async writeZeroes(offset: number, length: number): Promise<void> {
    this.#eachRun(offset, length, (cluster, from, to, _at, number) => {
      const own = cluster ?? this.#create(number);
      mark(own, from, to);
      if (own.data === null) return;
      if ((to - from) * VBLK_SECTOR_SIZE === this.#clusterSize) {
        own.data = null;
        this.#stored -= this.#clusterSize;
      } else {
        own.data.fill(0, from * VBLK_SECTOR_SIZE, to * VBLK_SECTOR_SIZE);
      }
    });
  }

  /** Discarded ranges read as zeroes. */
  discard(offset: number, length: number): Promise<void> {
    return this.writeZeroes(offset, length);
  }

  /** Changes the size. The base stays as it is: what is cut off does not come back. */
  async resize(size: number): Promise<void> {
    checkSize(size, "the overlay");
    if (size < this.#size) {
      for (const [number, cluster] of this.#clusters) {
        const start = number * this.#clusterSize;
        if (start >= size) {
          if (cluster.data !== null) this.#stored -= this.#clusterSize;
          this.#clusters.delete(number);
        } else if (start + this.#clusterSize > size) {
          const first = (size - start) / VBLK_SECTOR_SIZE;
          cluster.data?.fill(0, size - start);
          clear(cluster, first, this.#clusterSize / VBLK_SECTOR_SIZE);
        }
      }
      this.#baseEnd = Math.min(this.#baseEnd, size);
    }
    this.#size = size;
  }

  /**
   * Writes everything that differs from the base to `target` (the base itself, or a copy of it), flushes it, and forgets it
   * when the target is the base. No operation may be under way.
   * @throws VbusError EROFS, EINVAL (another size); as the target rejects, and then the overlay is as it was
   */
  async commit(target: BlockBackend): Promise<void> {
    if (target.readOnly)
      throw new VbusError("EROFS", `${target.description} is read-only; commit to something else`);
    if (target.size !== this.#size)
      throw new VbusError(
        "EINVAL",
        `the overlay has ${this.#size} bytes, the target ${target.size}; resize one of them`,
      );
    // what was cut off once and added again is zeroes, whatever the base has there
    const cut = Math.min(target.size, this.base.size);
    if (this.#baseEnd < cut) await target.writeZeroes(this.#baseEnd, cut - this.#baseEnd);
    for (const [number, cluster] of this.#clusters) {
      const sectors = this.#clusterSize / VBLK_SECTOR_SIZE;
      for (let from = 0; from < sectors; from++) {
        if (!has(cluster, from)) continue;
        let to = from + 1;
        while (to < sectors && has(cluster, to)) to++;
        const offset = number * this.#clusterSize + from * VBLK_SECTOR_SIZE;
        const length = (to - from) * VBLK_SECTOR_SIZE;
        const start = from * VBLK_SECTOR_SIZE;
        if (cluster.data === null) await target.writeZeroes(offset, length);
        else await target.write(offset, cluster.data.subarray(start, start + length));
        from = to;
      }
    }
    await target.flush();
    if (target === this.base) this.reset();
  }

  /** Forgets everything that was written: the base shows again. No operation may be under way. */
  reset(): void {
    this.#clusters.clear();
    this.#stored = 0;
    this.#baseEnd = Math.min(this.base.size, this.#size);
  }

  /** {@inheritDoc BlockBackend.close} */
  async close(): Promise<void> {
    this.reset();
    await this.base.close();
  }

  #create(number: number): Cluster {
    const cluster: Cluster = { data: null, present: new Uint32Array(this.#words) };
    this.#clusters.set(number, cluster);
    return cluster;
  }

  /** True when every sector of a range is in the overlay, so that the base need not be asked. */
  #covers(offset: number, length: number): boolean {
    let all = true;
    this.#eachRun(offset, length, (cluster, from, to) => {
      for (let sector = from; all && sector < to; sector++)
        all = cluster !== undefined && has(cluster, sector);
    });
    return all;
  }

  /** Visits a range cluster by cluster: sectors [from, to) of cluster `number`, `at` bytes into the range. */
  #eachRun(
    offset: number,
    length: number,
    visit: (cluster: Cluster | undefined, from: number, to: number, at: number, number: number) => void,
  ): void {
    for (let at = 0; at < length;) {
      const number = Math.floor((offset + at) / this.#clusterSize);
      const inside = offset + at - number * this.#clusterSize;
      const run = Math.min(this.#clusterSize - inside, length - at);
      const from = inside / VBLK_SECTOR_SIZE;
      visit(this.#clusters.get(number), from, from + run / VBLK_SECTOR_SIZE, at, number);
      at += run;
    }
  }
}

function has(cluster: Cluster, sector: number): boolean {
  return ((cluster.present[sector >>> 5] as number) & (1 << (sector & 31))) !== 0;
}

function mark(cluster: Cluster, from: number, to: number): void {
  for (let sector = from; sector < to; sector++) {
    const word = sector >>> 5;
    cluster.present[word] = (cluster.present[word] as number) | (1 << (sector & 31));
  }
}

function clear(cluster: Cluster, from: number, to: number): void {
  for (let sector = from; sector < to; sector++) {
    const word = sector >>> 5;
    cluster.present[word] = (cluster.present[word] as number) & ~(1 << (sector & 31));
  }
}
