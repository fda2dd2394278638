import {
  BURST_COOKIE,
  BURST_SIGNAL,
  ENTRY_OFF_COOKIE,
  FRAME_COOKIE_READ,
  RECHECK_INUSE_HEAD,
} from "../../../assembly/abi/arena.js";
import type { HostSignal } from "../../bus/types.js";
import { PEEK_FRAMES, type Queue, type QueueCounters } from "../../engine/queue.js";
import { VsgReader, type DescriptorPool } from "../../engine/vsg.js";
import type { MemorySpace } from "../../memory/space.js";
import { Batch } from "../../net/batch.js";
import type { StateValue } from "../../state/reader.js";
import type { FrameSource } from "../ethernet/source.js";
import { ServedRing } from "../served-ring.js";
import type { EventSide } from "./events.js";
import type { VenetDataEnvironment } from "./environment.js";

/** Frames per burst. */
const BURST = 64;

/** How the guest sends, settled at LINKUP. */
export interface TransmitMode {
  /** Descriptors are scatter-gather descriptors. */
  scatterGather: boolean;
  /** … in this pool; null: anywhere in guest memory. */
  pool: DescriptorPool | null;
  /** Kinds of superframes granted: bit 1 << GSO_…, bit 0 for ECN. */
  kinds: number;
  /** Where completions are told instead of on the TX ring; null: on the TX ring. */
  completions: EventSide | null;
}

const LINEAR: TransmitMode = { scatterGather: false, pool: null, kinds: 0, completions: null };

/** South of the TX ring: what the guest sends, as a source of frames (`docs/abi/venet.md` section 11). */
export class TransmitRing implements FrameSource {
  readonly #ring: ServedRing;
  readonly #linear: Batch;
  #reader: VsgReader | null = null;
  #scattered: Batch | null = null;
  #mode = LINEAR;
  #unsignalled = 0;
  #drain: () => void = () => undefined;
  #fail: (error: unknown) => void = () => undefined;

  constructor(
    /** Its ring, for those who look at it. */
    readonly queue: Queue,
    signal: HostSignal,
    private readonly environment: VenetDataEnvironment,
  ) {
    this.#ring = new ServedRing(queue, signal, {
      scheduler: environment.scheduler,
      burst: BURST,
      recheck: RECHECK_INUSE_HEAD,
      run: () => {
        this.#drain();
      },
      failed: (error) => {
        this.#fail(error);
      },
    });
    this.#linear = new Batch(this.#ring.table);
  }

  /** {@inheritDoc FrameSource.listen} */
  listen(drain: () => void, failed: (error: unknown) => void): void {
    this.#drain = drain;
    this.#fail = failed;
  }

  /** Settles how the guest sends; before the first peek of a link. @throws VbusError ENOMEM */
  configure(mode: TransmitMode): void {
    if (this.queue.broken !== null) return; // for good
    this.#mode = mode;
    if (mode.scatterGather && this.#reader === null) {
      this.#reader = new VsgReader(this.queue, BURST);
      this.#scattered = new Batch(this.#reader.table);
    }
  }

  /** {@inheritDoc FrameSource.space} */
  get space(): MemorySpace {
    return this.queue.space;
  }

  /** {@inheritDoc FrameSource.batch} */
  get batch(): Batch {
    return this.#mode.scatterGather && this.#scattered !== null ? this.#scattered : this.#linear;
  }

  /** {@inheritDoc FrameSource.closed} */
  get closed(): boolean {
    return this.queue.closed;
  }

  /** {@inheritDoc FrameSource.broken} */
  get broken(): boolean {
    return this.queue.broken !== null;
  }

  /** The guest leaves so many completions undrained that it may send no more. */
  get blocked(): boolean {
    return this.#mode.completions?.full === true;
  }

  /** {@inheritDoc FrameSource.hasFrames} */
  get hasFrames(): boolean {
    return this.queue.hasPayload;
  }

  /** {@inheritDoc FrameSource.peek} */
  peek(): number {
    const { scatterGather, pool, kinds, completions } = this.#mode;
    if (scatterGather && this.#reader !== null) return this.#reader.peek(BURST, pool, kinds);
    // a completion quotes the cookie, which compact descriptors keep elsewhere
    const flags = completions === null ? PEEK_FRAMES : PEEK_FRAMES | BURST_COOKIE;
    return this.queue.peek("inuse", this.#linear.table, BURST, flags);
  }

  /** Gives n descriptors back, and signals every `txMitigation` frames and after the last. */
  release(n: number, last: boolean): void {
    const { completions } = this.#mode;
    this.#unsignalled += n;
    const due = this.#unsignalled > 0 && (last || this.#unsignalled >= this.environment.txMitigation);
    if (due) this.#unsignalled = 0;
    if (n > 0) {
      const signal = due && completions === null ? BURST_SIGNAL : 0;
      this.#ring.wakeups.ringIf(this.queue.release("inuse", null, n, signal)); // strictly before its completions are told
      if (completions !== null) this.#tell(completions, n);
    } else if (due && completions === null) {
      this.#ring.wakeups.ringIf(this.queue.release("inuse", null, 0, BURST_SIGNAL));
    }
    if (due) completions?.flush();
  }

  /** Adds a completion for each of the n descriptors just released, where its cookie is known (defect V1). */
  #tell(completions: EventSide, n: number): void {
    const { table } = this.batch;
    const { bytes } = table.space;
    for (let i = 0; i < n; i++) {
      if (this.#mode.scatterGather && (table.flags(i) & FRAME_COOKIE_READ) === 0) continue;
      const at = table.entry(i) + ENTRY_OFF_COOKIE;
      completions.complete(bytes.slice(at, at + 8));
    }
  }

  /** {@inheritDoc FrameSource.enable} */
  enable(): void {
    this.#ring.wakeups.enable();
  }

  /** {@inheritDoc FrameSource.disable} */
  disable(): void {
    this.#ring.wakeups.disable();
  }

  /** {@inheritDoc FrameSource.left} */
  left(): number {
    return this.queue.peek("inuse", null, this.queue.count);
  }

  /** The ring's own state. */
  save(): StateValue {
    return { queue: this.queue.exportState(), unsignalled: this.#unsignalled };
  }

  /** So many frames were released and not signalled when it was saved. */
  restore(unsignalled: number): void {
    this.#unsignalled = unsignalled;
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** {@inheritDoc FrameSource.close} */
  close(): void {
    this.#reader?.close();
    this.#ring.close();
  }
}
