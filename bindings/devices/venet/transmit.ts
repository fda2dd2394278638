import { BURST_SIGNAL, RECHECK_INUSE_HEAD } from "../../../assembly/abi/arena.js";
import {
  ETH_HEADER_SIZE,
  ETHERTYPE_QINQ,
  ETHERTYPE_VLAN,
  VLAN_TAG_SIZE,
} from "../../../assembly/abi/venet.js";
import type { HostSignal } from "../../bus/types.js";
import { PEEK_FRAMES, type Queue, type QueueCounters } from "../../engine/queue.js";
import { BurstTable } from "../../engine/table.js";
import { QueueWakeups } from "../../engine/wakeup.js";
import { Batch } from "../../net/batch.js";
import type { DropReason, Port } from "../../net/port.js";
import type { Scheduler } from "../../scheduler.js";
import { dropFrames, type VenetStatistics } from "./statistics.js";

/** Frames per burst. */
const BURST = 64;
/** Bursts per run before other work of the thread gets its turn. */
const BURSTS_PER_RUN = 8;

/** What the transmit side needs of its NIC; read anew for every burst, for attributes may change under way. */
export interface TransmitEnvironment {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** Counters of the NIC. */
  readonly statistics: VenetStatistics;
  /** Where frames go; null: nowhere (they are dropped as "no-link"). */
  readonly port: Port | null;
  /** Current MTU. */
  readonly mtu: number;
  /** Frames per completion signal; 0 = every frame. */
  readonly txMitigation: number;
  /** The guest broke the queue (EPROTO), or something of the host failed; told once for a queue that is broken. */
  failed(queue: "rx" | "tx", error: unknown): void;
}

/** Longest ordinary frame: MTU and header, and room for the tags that it says it has. */
export function frameLimit(mtu: number, etherType: number): number {
  const tags = etherType === ETHERTYPE_VLAN ? 1 : etherType === ETHERTYPE_QINQ ? 2 : 0;
  return mtu + ETH_HEADER_SIZE + tags * VLAN_TAG_SIZE;
}

/**
 * South of the TX ring: drains what the guest sends into the port (`docs/abi/venet.md` section 11).
 *
 * Frames stay in the guest's ring until the port took them: when it has no room, the ring fills and the guest waits.
 */
export class TransmitSide {
  readonly #wakeups: QueueWakeups;
  readonly #table: BurstTable;
  readonly #batch: Batch;
  #running = false;
  #scheduled = false;
  #unsignalled = 0;
  #draining = false;
  #failed = false;

  constructor(
    private readonly queue: Queue,
    private readonly signal: HostSignal,
    private readonly environment: TransmitEnvironment,
  ) {
    this.#table = BurstTable.allocate(queue.space, BURST);
    this.#batch = new Batch(this.#table);
    this.#wakeups = new QueueWakeups(queue, {
      scheduler: environment.scheduler,
      recheck: RECHECK_INUSE_HEAD,
      notifier: () => {
        this.#wakeups.disable();
        this.#drain();
      },
      ring: () => {
        signal.notify();
      },
      onBroken: (error) => {
        this.#fail(error);
      },
    });
    signal.onDoorbell = this.#wakeups.wakeup;
  }

  /** Link up: looks at the ring, then waits for doorbells. */
  start(): void {
    if (this.queue.broken !== null) return; // for good, and reported already
    this.#failed = false;
    this.#running = true;
    this.#schedule();
  }

  /** Link down: what is in the ring stays there. */
  stop(): void {
    this.#running = false;
    this.#wakeups.disable();
  }

  /** The port has room again, or there is a port at last. */
  resume(): void {
    if (this.#running) this.#schedule();
  }

  /** Looks for frames that a guest with the orderings of 2009 announced and nobody heard (defect R1). */
  recheck(): void {
    // a ring that turns out to be broken has no payload, but a drain says why
    if (this.#running && (this.queue.hasPayload || this.queue.broken !== null)) this.#schedule();
  }

  #fail(error: unknown): void {
    this.stop();
    if (this.#failed) return;
    this.#failed = true;
    this.environment.failed("tx", error);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.environment.scheduler.post(() => {
      this.#scheduled = false;
      this.#drain();
    });
  }

  #drain(): void {
    if (!this.#running || this.#draining || this.queue.closed) return;
    this.#draining = true;
    try {
      this.#drainBursts();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#draining = false;
    }
  }

  #drainBursts(): void {
    const { queue } = this;
    for (let burst = 0; burst < BURSTS_PER_RUN; burst++) {
      const n = queue.peek("inuse", this.#table, BURST, PEEK_FRAMES);
      if (n === 0) {
        this.#complete(0, true);
        this.#wakeups.enable(); // looks at the ring again and schedules when something came in between
        return;
      }
      const taken = this.#pass(n);
      if (queue.closed) return; // the session ended inside the port
      this.#complete(taken, taken < n);
      if (taken < n) return; // the port calls writable()
    }
    this.#schedule();
  }

  /** Hands n frames to the port, dropping those that no NIC would send. Returns how many are done with. */
  #pass(n: number): number {
    const { port, statistics } = this.environment;
    const { tx } = statistics;
    const batch = this.#batch;
    batch.count = n;
    let done = 0;
    while (done < n) {
      let end = done;
      let reason: DropReason | null = null;
      while (end < n && (reason = this.#fault(end)) === null) end++;
      if (end > done) {
        if (port === null) {
          dropFrames(tx, "no-link", end - done);
        } else {
          const taken = port.transmit(batch, done, end);
          tx.frames += taken;
          tx.passed += taken;
          for (let i = done; i < done + taken; i++) tx.bytes += batch.length(i);
          if (taken < end - done) {
            statistics.txCongested++;
            return done + taken;
          }
        }
      }
      if (reason !== null) {
        dropFrames(tx, reason);
        end++;
      }
      done = end;
    }
    return done;
  }

  /** Why a frame must not be sent, or null. */
  #fault(i: number): DropReason | null {
    const batch = this.#batch;
    if (this.#table.bufferAddress(i) === 0) return "bad-address"; // and its head was not read
    const length = batch.length(i);
    if (length < ETH_HEADER_SIZE) return "undersize";
    if (length > frameLimit(this.environment.mtu, batch.etherType(i))) return "oversize";
    return null;
  }

  /** Gives n descriptors back, and signals every `txMitigation` frames and after the last. */
  #complete(n: number, last: boolean): void {
    this.#unsignalled += n;
    const due = this.#unsignalled > 0 && (last || this.#unsignalled >= this.environment.txMitigation);
    if (due) this.#unsignalled = 0;
    if (n === 0 && !due) return;
    this.#wakeups.ringIf(this.queue.release("inuse", null, n, due ? BURST_SIGNAL : 0));
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** Ends it. Frames that the guest sent and nobody took are counted as "closed". */
  close(): void {
    this.stop();
    this.#wakeups.close();
    if (this.queue.broken === null) {
      dropFrames(this.environment.statistics.tx, "closed", this.#left());
    }
    this.signal.onDoorbell = null;
    this.queue.close();
    this.#table.close();
    this.signal.release();
  }

  #left(): number {
    try {
      return this.queue.peek("inuse", null, this.queue.count);
    } catch (error) {
      this.#fail(error);
      return 0;
    }
  }
}
