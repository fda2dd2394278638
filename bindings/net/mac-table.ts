import { isGroupMac } from "./batch.js";

/** An address and where it was last heard. Keep one to look it up no more; check `port` before use. */
export interface MacEntry<P> {
  /** The address as a 48-bit number. */
  readonly mac: number;
  /** Port it is behind; null: the entry has left the table. */
  port: P | null;
  /** Time (ms) when a frame from it was last seen. */
  seen: number;
}

/** Smallest part of the ageing time between two sweeps of a full table, so that sweeping stays cheap per frame. */
const SWEEP_FRACTION = 256;

/**
 * The address table of a learning switch: bounded, with ageing. An active entry is never evicted for a new one; when the
 * table is full, new stations are not learned (and flooded) until old ones age out.
 */
export class MacTable<P> {
  readonly #entries = new Map<number, MacEntry<P>>();
  /** No entry has aged, and no sweep is due, before this time. */
  #sweepAt = -Infinity;
  /** Stations learned. */
  learned = 0;
  /** Stations that were heard on another port than before. */
  moved = 0;
  /** Frames whose source was not learned because the table was full. */
  refused = 0;

  /**
   * @param limit - most entries
   * @param ageMs - entries not heard for longer are forgotten
   */
  constructor(
    readonly limit: number,
    readonly ageMs: number,
  ) {}

  /** Entries in the table, aged ones that nobody looked up since included. */
  get size(): number {
    return this.#entries.size;
  }

  /**
   * A frame from `mac` came in on a port. Returns the station's entry; null when it was not learned: a group address, or
   * a full table.
   */
  learn(mac: number, port: P, now: number): MacEntry<P> | null {
    const known = this.#entries.get(mac);
    if (known !== undefined) {
      known.seen = now;
      if (known.port !== port) {
        known.port = port;
        this.moved++;
      }
      return known;
    }
    if (isGroupMac(mac)) return null;
    if (this.#entries.size >= this.limit && !this.#sweep(now)) {
      this.refused++;
      return null;
    }
    const entry: MacEntry<P> = { mac, port, seen: now };
    this.#entries.set(mac, entry);
    this.learned++;
    return entry;
  }

  /** The entry of a station, null when it is unknown or has aged. */
  find(mac: number, now: number): MacEntry<P> | null {
    const entry = this.#entries.get(mac);
    if (entry === undefined) return null;
    if (this.isFresh(entry, now)) return entry;
    this.#remove(entry);
    return null;
  }

  /** True while an entry is in the table and has not aged. */
  isFresh(entry: MacEntry<P>, now: number): boolean {
    return entry.port !== null && now - entry.seen <= this.ageMs;
  }

  /** Removes aged entries from a full table; true when there is room now. */
  #sweep(now: number): boolean {
    if (now < this.#sweepAt) return false;
    let oldest = Infinity;
    for (const entry of this.#entries.values()) {
      if (this.isFresh(entry, now)) oldest = Math.min(oldest, entry.seen);
      else this.#remove(entry);
    }
    this.#sweepAt = Math.max(oldest + this.ageMs, now + this.ageMs / SWEEP_FRACTION);
    return this.#entries.size < this.limit;
  }

  #remove(entry: MacEntry<P>): void {
    entry.port = null;
    this.#entries.delete(entry.mac);
  }

  /** Removes the entries of a port that is gone. */
  forget(port: P): void {
    for (const entry of this.#entries.values()) if (entry.port === port) this.#remove(entry);
  }

  /** The stations that have not aged. Yours. */
  list(now: number): { mac: number; port: P; seen: number }[] {
    const stations = [];
    for (const { mac, port, seen } of this.#entries.values()) {
      if (port !== null && now - seen <= this.ageMs) stations.push({ mac, port, seen });
    }
    return stations;
  }
}
