import type { HostSignal, RestoredSignals, SavedSignals, SharedSegment } from "../../bus/types.js";
import type { Queue, QueueCounters } from "../../engine/queue.js";
import { VbusError } from "../../errors.js";
import type { Scheduler } from "../../scheduler.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { SessionRings } from "../session-rings.js";
import { CompletionSide, type Completion, type CompletionOwner } from "./completions.js";
import { RequestSide, type RequestOwner } from "./requests.js";

/** Which ring of a queue. */
export type BlockRing = "request" | "completion";

/** The session that queues belong to. */
export interface PairOwner {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** True when a request may have this tag now, whatever queue it comes by. */
  isFree(tag: number): boolean;
  /** A request with a free tag, to be answered by `pair`; `view` as {@link RequestOwner.take} says. */
  take(pair: RingPair, tag: number, view: DataView, size: number): void;
  /** The guest can see it. */
  delivered(completion: Completion): void;
  /** A completion ring had no room. */
  congested(): void;
  /** The guest broke a ring (EPROTO), or the host failed at it; told once for each ring. */
  failed(pair: RingPair, ring: BlockRing, error: unknown): void;
}

/** A queue of a block device's session (`docs/abi/vblk.md` section 2): a request ring, and the completion ring that answers it. */
export class RingPair implements RequestOwner, CompletionOwner {
  readonly scheduler: Scheduler;
  #requests: RequestSide | null = null;
  #completions: CompletionSide | null = null;

  constructor(
    /** Its number. */
    readonly index: number,
    private readonly rings: SessionRings,
    private readonly owner: PairOwner,
  ) {
    this.scheduler = owner.scheduler;
  }

  /** What works on the rings that are there, by the names that they are shown with. */
  get shown(): Record<string, RequestSide | CompletionSide | null> {
    const number = this.index === 0 ? "" : String(this.index);
    return { [`request${number}`]: this.#requests, [`completion${number}`]: this.#completions };
  }

  /** Counters of the rings, by this side and by the same names. */
  counters(): Record<string, QueueCounters | null> {
    return Object.fromEntries(
      Object.entries(this.shown).map(([name, side]) => [name, side?.counters() ?? null]),
    );
  }

  /**
   * The guest shares a ring.
   * @throws VbusError EEXIST, EINVAL, EFAULT, ENOMEM
   */
  share(ring: BlockRing, segment: SharedSegment, signal: HostSignal | null): void {
    if ((ring === "request" ? this.#requests : this.#completions) !== null)
      throw new VbusError("EEXIST", `queue ${this.index} has a ${ring} ring already`);
    if (ring === "request")
      this.#requests = this.rings.attach(segment, signal, "southFeed", this.#buildRequests);
    else this.#completions = this.rings.attach(segment, signal, "southReceive", this.#buildCompletions);
    this.#start();
  }

  /** A request needs a place for its completion, so nothing is taken before both rings are there. */
  #start(): void {
    if (this.#completions !== null) this.#requests?.start();
  }

  /** Delivers a completion soon. */
  post(completion: Completion): void {
    this.#completions?.post(completion);
  }

  /** Delivers an event soon; one of the same kind that still waits gets the new value instead. */
  postEvent(event: number, value: number): void {
    this.#completions?.postEvent(event, value);
  }

  /** As `RequestOwner.isFree` says. */
  isFree(tag: number): boolean {
    return this.owner.isFree(tag);
  }

  /** As `RequestOwner.take` says. */
  take(tag: number, view: DataView, size: number): void {
    this.owner.take(this, tag, view, size);
  }

  /** As `CompletionOwner.delivered` says. */
  delivered(completion: Completion): void {
    this.owner.delivered(completion);
  }

  /** As `CompletionOwner.congested` says. */
  congested(): void {
    this.owner.congested();
  }

  /** As `RequestOwner.failed` and `CompletionOwner.failed` say. */
  failed(ring: BlockRing, error: unknown): void {
    if (ring === "completion") this.#requests?.stop(); // nothing could be answered any more
    this.owner.failed(this, ring, error);
  }

  readonly #buildRequests = (queue: Queue, signal: HostSignal): RequestSide =>
    new RequestSide(queue, signal, this);
  readonly #buildCompletions = (queue: Queue, signal: HostSignal): CompletionSide =>
    new CompletionSide(queue, signal, this);

  /** Goes on, or begins to, after the session was held. */
  resume(): void {
    this.#completions?.resume();
    this.#start();
  }

  /** Its rings, and what waits for room on them. */
  save(signals: SavedSignals): StateValue {
    const saved = (side: RequestSide | CompletionSide | null): StateValue =>
      side && { signal: this.rings.signalOf(side, signals), ring: side.save() };
    return { requests: saved(this.#requests), completions: saved(this.#completions) };
  }

  /**
   * Takes over what {@link RingPair.save} has saved; it goes on after {@link RingPair.resume}. Returns the tags of completions that
   * wait.
   * @throws StateError; VbusError ENOMEM
   */
  restore(state: StateReader, signals: RestoredSignals): number[] {
    const failed = (ring: StateReader): boolean => ring.get("failed").boolean();
    const completions = this.rings.restore(
      state,
      "completions",
      signals,
      "southReceive",
      this.#buildCompletions,
      failed,
    );
    this.#completions = completions?.side ?? null;
    const requests = this.rings.restore(state, "requests", signals, "southFeed", this.#buildRequests, failed);
    this.#requests = requests?.side ?? null;
    requests?.side.restore(failed(requests.saved.get("ring")));
    const tags = completions?.side.restore(completions.saved.get("ring")) ?? [];
    if (tags.length > 0 && requests === null) state.fail("completions without a ring of requests");
    return tags;
  }

  /** Ends it. */
  close(): void {
    this.#requests?.close();
    this.#completions?.close();
    this.#requests = null;
    this.#completions = null;
  }
}
