import { VbusError } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import type { Scheduler } from "../scheduler.js";
import { formatMac, isGroupMac, type Batch } from "./batch.js";
import type { EgressLimits } from "./egress.js";
import { FRAME_LENGTH_MAX, FrameStore } from "./frame-store.js";
import { MacTable } from "./mac-table.js";
import { totalDrops, type Port } from "./port.js";
import { emptyOffloadCounters, type OffloadCounters } from "./offload.js";
import { SwitchPort, type SwitchCore } from "./switch-port.js";
import { FrameTally, type FrameBalance } from "./tally.js";

/** Shortest frame: an Ethernet header. */
const HEADER_LENGTH = 14;

const isValid = (length: number): boolean => length >= HEADER_LENGTH && length <= FRAME_LENGTH_MAX;

/** What a {@link Switch} is made of. */
export interface SwitchOptions {
  /** Where deferred work of this thread runs. */
  scheduler: Scheduler;
  /** The host's memory: where frames wait. */
  space: MemorySpace;
  /** Name for messages; default `switch`. */
  name?: string;
  /** Stations not heard for longer are forgotten; default 300 000 ms. */
  ageMs?: number;
  /** Most stations in the address table; default 4096. */
  maxMacs?: number;
  /** Most frames that wait for one port; default 256. */
  egressFrames?: number;
  /** Most bytes of those; default 512 KiB. */
  egressBytes?: number;
  /** How long a port may make no progress before its frames are dropped, to a quarter; default 100 ms. */
  stallMs?: number;
}

/** Sums over all ports of a switch, closed ones included. */
export interface SwitchCounters extends FrameBalance, OffloadCounters {
  /** Bytes of the frames received. */
  receivedBytes: number;
  /** Bytes of the frames delivered. */
  deliveredBytes: number;
  /** Bytes copied so that frames could wait, for a port without room. */
  copiedBytes: number;
  /** Frames that went to the one port their station is behind. */
  unicast: number;
  /** Frames that went to all ports: unknown stations and group addresses. */
  flooded: number;
  /** Stations learned. */
  learned: number;
  /** Stations that moved to another port. */
  moved: number;
  /** Frames whose source was not learned because the table was full. */
  tableFull: number;
}

/** A station that the switch knows. */
export interface Station {
  /** Its address, `02:00:00:00:00:0a`. */
  mac: string;
  /** Name of the port it is behind. */
  port: string;
  /** Milliseconds since its last frame. */
  idleMs: number;
}

/**
 * A learning Ethernet switch between ports of one thread.
 *
 * - Stations are learned from source addresses (private head copy, never the guest's buffer), age out, and are bounded.
 *   Frames to unknown stations and group addresses go to every port that has a peer.
 * - Unicast goes straight from the sender's batch to the receiver's buffers. What the receiver does not take waits in its
 *   egress queue while the sender has frames for others, then the sender is pushed back. Order between two ports is kept.
 * - Flooded frames never make anybody wait: a port without room loses its copy ("queue-full").
 * - A port without progress for `stallMs` is stalled and loses its frames ("stalled"): a dead guest slows nobody. Time in which
 *   the whole thread stood still is not counted.
 * - Peers say what they take unfinished. For those that do not, partial checksums are completed and superframes cut; between
 *   two that do, nothing is touched. Malformed superframes are dropped ("bad-offload").
 *
 * `received + replicated = delivered + Σ drops + in flight` holds at every moment between calls, see {@link Switch.balance}.
 */
export class Switch {
  /** Name for messages. */
  readonly name: string;
  readonly #store: FrameStore;
  readonly #macs: MacTable<SwitchPort>;
  readonly #totals = new FrameTally();
  readonly #offloads = emptyOffloadCounters();
  readonly #core: SwitchCore;
  readonly #scheduler: Scheduler;
  /** Copied when it changes: a flood that is under way keeps its list. */
  #ports: readonly SwitchPort[] = [];
  #busy = false;
  #closed = false;
  #unicast = 0;
  #flooded = 0;

  /** @throws RangeError for limits that are not positive numbers; VbusError EINVAL for a `space` that is none */
  constructor(options: SwitchOptions) {
    const {
      scheduler,
      space,
      name = "switch",
      ageMs = 300_000,
      maxMacs = 4096,
      egressFrames = 256,
    } = options;
    const { egressBytes = 512 * 1024, stallMs = 100 } = options;
    for (const [what, value] of Object.entries({ ageMs, maxMacs, egressFrames, egressBytes, stallMs })) {
      if (!(value > 0)) throw new RangeError(`${what} of ${name} is ${value}; give a number above 0`);
    }
    this.name = name;
    this.#scheduler = scheduler;
    this.#store = new FrameStore(space);
    this.#macs = new MacTable(maxMacs, ageMs);
    const limits: EgressLimits = { frames: egressFrames, bytes: egressBytes };
    this.#core = {
      scheduler,
      store: this.#store,
      limits,
      stallMs,
      totals: this.#totals,
      offloads: this.#offloads,
      transmit: (source, batch, from, to) => this.#transmit(source, batch, from, to),
      guarded: (action) => {
        this.#enter();
        try {
          action();
        } finally {
          this.#busy = false;
        }
      },
      remove: (port) => {
        this.#ports = this.#ports.filter((other) => other !== port);
        this.#macs.forget(port);
      },
    };
  }

  /**
   * Adds a port. `offloads` (`OFFLOAD_…` bits, default 0) is what its peer takes unfinished, when the peer does not say.
   * @throws VbusError EBUSY when the name is taken, EINVAL without one, ENOTCONN after close
   */
  addPort(name: string, options: { offloads?: number } = {}): Port {
    if (this.#closed) throw new VbusError("ENOTCONN", `${this.name} is closed; make a new switch`);
    if (typeof name !== "string" || name === "")
      throw new VbusError("EINVAL", `${this.name}: a port needs a name: addPort("nic0")`);
    if (this.#ports.some((port) => port.name === name)) {
      throw new VbusError(
        "EBUSY",
        `${this.name} has a port ${name} already; close it or choose another name`,
      );
    }
    const port = new SwitchPort(this.#core, name, options.offloads ?? 0);
    this.#ports = [...this.#ports, port];
    return port;
  }

  /** The ports that are open. */
  get ports(): readonly Port[] {
    return this.#ports;
  }

  /** True while frames for a port are dropped because it makes no progress. */
  isStalled(port: Port): boolean {
    return port instanceof SwitchPort && port.stalled;
  }

  #enter(): void {
    if (this.#busy) {
      throw new VbusError(
        "EBUSY",
        `transmit into ${this.name} from within receive; post it to the scheduler instead`,
      );
    }
    this.#busy = true;
  }

  #transmit(source: SwitchPort, batch: Batch, from: number, to: number): number {
    this.#enter();
    try {
      if (!source.closed) return this.#forward(source, batch, from, to);
      source.tally.take(to - from, batch.byteCount(from, to));
      source.tally.drop("closed", to - from);
      return to - from;
    } finally {
      this.#busy = false;
    }
  }

  #forward(source: SwitchPort, batch: Batch, from: number, to: number): number {
    const now = this.#scheduler.now();
    let i = from;
    while (i < to) {
      const length = batch.length(i);
      if (!isValid(length)) {
        source.tally.take(1, length);
        source.tally.drop(length < HEADER_LENGTH ? "undersize" : "oversize", 1);
        i++;
        continue;
      }
      // a run: frames in a row for the same station, usually from the same one
      const destination = batch.destination(i);
      this.#learn(source, batch.source(i), now);
      let end = batch.flowEnd(i, to, HEADER_LENGTH, FRAME_LENGTH_MAX);
      while (end < to && isValid(batch.length(end)) && batch.destination(end) === destination) {
        this.#learn(source, batch.source(end), now);
        end = batch.flowEnd(end, to, HEADER_LENGTH, FRAME_LENGTH_MAX);
      }
      const bytes = batch.byteCount(i, end);
      const n = end - i;
      const target = this.#find(source, destination, now);
      if (target === null) {
        source.tally.take(n, bytes);
        this.#flooded += n;
        this.#flood(source, batch, i, end);
      } else if (target === source) {
        source.tally.take(n, bytes);
        source.tally.drop("source-port", n);
      } else {
        const taken = this.#send(source, target, batch, i, end, end === to);
        source.tally.take(taken, taken === n ? bytes : batch.byteCount(i, i + taken));
        this.#unicast += taken;
        if (taken < n) return i + taken - from;
      }
      i = end;
    }
    return to - from;
  }

  #learn(source: SwitchPort, mac: number, now: number): void {
    const entry = source.sourceEntry;
    if (entry !== null && entry.mac === mac && entry.port === source) entry.seen = now;
    else if (!source.closed) source.sourceEntry = this.#macs.learn(mac, source, now);
  }

  #find(source: SwitchPort, mac: number, now: number): SwitchPort | null {
    const last = source.destinationEntry;
    if (last !== null && last.mac === mac && this.#macs.isFresh(last, now)) return last.port;
    if (isGroupMac(mac)) return null;
    source.destinationEntry = this.#macs.find(mac, now);
    return source.destinationEntry?.port ?? null;
  }

  #flood(source: SwitchPort, batch: Batch, from: number, to: number): void {
    let copies = 0;
    for (const port of this.#ports) {
      if (port === source || port.closed || port.egress.peer === null) continue;
      copies++;
      port.flood(batch, from, to);
    }
    if (copies === 0) source.tally.drop("no-port", to - from);
    else this.#totals.replicate((copies - 1) * (to - from));
  }

  /** Sends a run to its one port. `last`: nothing of the batch follows the run. Returns how many frames are gone. */
  #send(
    source: SwitchPort,
    target: SwitchPort,
    batch: Batch,
    from: number,
    end: number,
    last: boolean,
  ): number {
    let i = from;
    if (target.refusal === null || target.stalled) {
      i += target.offer(batch, i, end);
      if (i === end) return end - from;
      if (target.refusal === null) {
        // nothing for others would wait behind these: leave them where they are, without a copy
        if (!last) i += target.enqueue(batch, i, end);
        if (i === end || target.pushBack(source)) return i - from;
      }
    }
    target.tally.drop(target.refusal ?? "stalled", end - i);
    return end - from;
  }

  /** The stations that the switch knows. */
  stations(): Station[] {
    const now = this.#scheduler.now();
    return this.#macs
      .list(now)
      .map(({ mac, port, seen }) => ({ mac: formatMac(mac), port: port.name, idleMs: now - seen }));
  }

  /** The frame equation over all ports, closed ones included. Printed in reports, asserted in tests. */
  balance(): FrameBalance {
    return this.#totals.balance(this.#ports.reduce((sum, port) => sum + port.egress.waiting, 0));
  }

  /** All sums. A snapshot. */
  counters(): SwitchCounters {
    return {
      ...this.balance(),
      receivedBytes: this.#totals.receivedBytes,
      deliveredBytes: this.#totals.deliveredBytes,
      copiedBytes: this.#store.copiedBytes,
      unicast: this.#unicast,
      flooded: this.#flooded,
      learned: this.#macs.learned,
      moved: this.#macs.moved,
      tableFull: this.#macs.refused,
      ...this.#offloads,
    };
  }

  /** Frames dropped so far, for any reason. */
  get dropped(): number {
    return totalDrops(this.#totals.drops);
  }

  /** Closes every port; frames that wait are dropped and counted as "closed". Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const port of this.#ports) port.close();
    // a port whose peer called us closes when that call has returned; until then its frames are in use
    if (this.#busy) this.#scheduler.post(() => this.#store.close());
    else this.#store.close();
  }
}
