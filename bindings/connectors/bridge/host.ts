import { EEXIST, EFAULT, EINVAL, EIO, ENOENT, ENOMEM, ENOTCONN } from "../../../assembly/abi/errno.js";
import {
  BRIDGE_FASTCALL_ADD,
  BRIDGE_MAGIC,
  BRIDGE_NEGOTIATE,
  BRIDGE_QREG,
  BRIDGE_SLOWCALL,
  BRIDGE_VERSION,
  BUSREG_OFF_COUNT,
  CALL_OFF_DATAP,
  CALL_OFF_LEN,
  CALL_OFF_VECTOR,
  CALL_SIZE,
  DEVICECALL_OFF_DEVH,
  DEVICECALL_OFF_FLAGS,
  DEVICECALL_OFF_FUNC,
  DEVICECALL_OFF_LEN,
  DEVICECLOSE_SIZE,
  DEVICEOPEN_OFF_DEVID,
  DEVICEOPEN_OFF_HANDLE,
  DEVICEOPEN_OFF_VERSION,
  DEVICEOPEN_SIZE,
  DEVICESHM_OFF_DEVH,
  DEVICESHM_OFF_FLAGS,
  DEVICESHM_OFF_ID,
  DEVICESHM_OFF_LEN,
  FASTCALL_OFF_RESULT,
  FASTCALL_SIZE,
  FASTCALL_SIZE_ILP32,
  HC_DEVCALL,
  HC_DEVCLOSE,
  HC_DEVOPEN,
  HC_DEVSHM,
  NEGOTIATE_OFF_CAPABILITIES,
  NEGOTIATE_OFF_MAGIC,
  NEGOTIATE_OFF_VERSION,
  NEGOTIATE_SIZE,
  NO_SIGNAL,
} from "../../../assembly/abi/vbus.js";
import type { Client } from "../../bus/client.js";
import type { BusClient } from "../../bus/types.js";
import type { Queue, QueueCounters, ViolationName } from "../../engine/queue.js";
import { negatedErrno, VbusError } from "../../errors.js";
import { Gate } from "../../gate.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { RestoreOptions } from "../../state/saveable.js";
import { COOKIES_MAX, CookieStore, type KeptCookie } from "./cookies.js";
import { EventDelivery } from "./event-queue.js";
import { layoutOf, type BridgeLayout } from "./layout.js";
import { ParameterBlock } from "./parameter-block.js";

/** Fastcall channels of one guest: one per possible CPU, and Linux never had more than this many. */
const CHANNELS_MAX = 8192;

/** How a {@link BridgeHost} is wired. */
export interface BridgeHostOptions {
  /** The guest's client of the bus; belongs to the bridge from now on. */
  readonly client: BusClient;
  /** The host's view of the guest's memory. */
  readonly memory: MemorySpace;
  /** Where events are delivered: the scheduler of this thread. */
  readonly scheduler: Scheduler;
  /** Raises the guest's interrupt. Runs from a task or a doorbell, never from within a call. */
  readonly interrupt: () => void;
  /** Told what no call can return: a broken event queue, a failure inside the host. The bridge goes on. */
  readonly onError?: (error: unknown) => void;
  /** Told which signal handles are alive, for carriers that have to know. */
  readonly onSignal?: (handle: number, alive: boolean) => void;
}

/** What a bridge counted since it was made. */
export interface BridgeCounters {
  /** Bridge calls, failed ones included. */
  calls: number;
  /** Bus calls through fastcall channels. */
  fastcalls: number;
  /** Resets, by NEGOTIATE or by the carrier. */
  resets: number;
  /** Event records written. */
  events: number;
  /** Events that nobody could get: no event queue, or a broken one. */
  discarded: number;
  /** How often the guest left no room for events. */
  backlogs: number;
  /** Interrupts raised. */
  interrupts: number;
  /** Doorbells of the event queue. */
  eventqDoorbells: number;
  /** Doorbells of signals. */
  signalDoorbells: number;
  /** Doorbells of signal handles that nobody has. */
  strayDoorbells: number;
}

/** A client of the bus of this package's own. */
type SaveableClient = Pick<Client, "settle" | "hold" | "resume" | "save" | "check" | "restore">;

function canBeSaved(client: BusClient): client is BusClient & SaveableClient {
  return "restore" in client;
}

interface Channel {
  readonly low: number;
  readonly high: number;
  readonly size: number;
}

/**
 * The host half of the bridge (`docs/abi/vbus-pci.md` sections 3, 5, 6, 8 and 10.3), whatever carries it: bridge calls,
 * fastcall channels, event queue and signal doorbells of one guest, on one client of a bus.
 *
 * Everything comes from a guest. A block is copied once into the arena, and only the copy is looked at; addresses are
 * translated in 64 bits; nothing throws: calls return what the guest gets. Used by the host's thread.
 */
export class BridgeHost {
  #negotiated = false;
  #registered = false;
  #closed = false;
  #channels = new Map<number, Channel>();
  readonly #block: ParameterBlock;
  readonly #gate: Gate;
  #holds = false;
  readonly #cookies: CookieStore;
  readonly #events: EventDelivery;
  readonly #counters = {
    calls: 0,
    fastcalls: 0,
    resets: 0,
    interrupts: 0,
    eventqDoorbells: 0,
    signalDoorbells: 0,
    strayDoorbells: 0,
  };

  /** @throws VbusError ENOMEM when the arena is exhausted */
  constructor(private readonly options: BridgeHostOptions) {
    const { client, memory } = options;
    this.#gate = new Gate(options.scheduler);
    this.#block = new ParameterBlock(memory);
    this.#cookies = new CookieStore(memory);
    try {
      this.#events = new EventDelivery({
        client,
        memory,
        scheduler: this.#gate,
        cookies: this.#cookies,
        interrupt: () => {
          this.#interrupt();
        },
        closed: (cookie) => {
          this.#forget(cookie);
        },
        onBroken: (error) => {
          this.#report(error);
        },
      });
    } catch (error) {
      this.#block.close();
      throw error;
    }
  }

  /** True after a successful NEGOTIATE, until the next reset. */
  get negotiated(): boolean {
    return this.#negotiated;
  }

  /** True while an event queue is registered. */
  get registered(): boolean {
    return this.#registered;
  }

  /** Why the event queue is broken (its guest posted something malformed), or null. */
  get eventQueueViolation(): ViolationName | null {
    return this.#events.violation;
  }

  /** The event queue's ring, or null while none is registered; for `vbus/inspect`. */
  get eventQueue(): Queue | null {
    return this.#events.queue;
  }

  /** Counters of the event queue's ring, or null while none is registered. */
  get eventQueueCounters(): QueueCounters | null {
    return this.#events.counters;
  }

  /** What was counted so far. */
  counters(): BridgeCounters {
    const { events, discarded, backlogs } = this.#events;
    return { ...this.#counters, events, discarded, backlogs };
  }

  /**
   * Executes a bridge call (section 3). The address of the parameter block comes in two 32-bit halves.
   * @returns what the guest gets: >= 0, or a negated errno
   */
  call(vector: number, length: number, gpaLow: number, gpaHigh: number): number {
    if (this.#closed) return -ENOTCONN;
    this.#counters.calls++;
    return this.#guarded(() => this.#execute(vector >>> 0, length >>> 0, gpaLow >>> 0, gpaHigh >>> 0));
  }

  /**
   * Executes the bus call in a fastcall channel and stores its result in the channel (section 5). Unknown channels: false,
   * nothing happens. The block is not used in place (defect P1).
   */
  fastcall(channelId: number): boolean {
    const channel = this.#channels.get(channelId >>> 0);
    if (this.#closed || channel === undefined) return false;
    this.#counters.fastcalls++;
    const { low, high, size } = channel;
    const result = this.#guarded(() => {
      if (!this.#block.fetch(low, high, size)) return -EFAULT;
      return this.#busCall(
        this.#block.word(CALL_OFF_VECTOR),
        this.#block.word(CALL_OFF_LEN),
        this.#block.word(CALL_OFF_DATAP),
        this.#block.word(CALL_OFF_DATAP + 4),
      );
    });
    // translated again: the call may have moved regions
    const { memory } = this.options;
    const address = this.#block.translate(low, high, size);
    if (address === 0) return false;
    memory.engine.data.setInt32(address + FASTCALL_OFF_RESULT, result, true);
    memory.noteWrite(low + high * 2 ** 32 + FASTCALL_OFF_RESULT, 4);
    return true;
  }

  /**
   * Whether the guest is asked to ring the event queue's doorbell whenever it has taken events; false by default: only
   * after it left no room. For carriers to whom the doorbell is the acknowledge of a level-triggered interrupt.
   */
  listenToEventq(on: boolean): void {
    this.#events.keepListening = on;
  }

  /** The guest rang the event queue's doorbell (BAR 1 + 0). */
  eventqDoorbell(): void {
    if (this.#closed) return;
    this.#counters.eventqDoorbells++;
    this.#events.doorbell();
  }

  /** The guest rang a signal's doorbell (BAR 1 + 8). Unknown handles are ignored. */
  shmSignal(handle: number): void {
    if (this.#closed) return;
    this.#counters.signalDoorbells++;
    if (this.options.client.signal(handle >>> 0) < 0) this.#counters.strayDoorbells++;
  }

  /** Delivers waiting events now instead of in the scheduler's next task; for carriers that are about to run the guest. */
  flush(): void {
    if (!this.#gate.held) this.#events.flush();
  }

  /**
   * Section 10.3: the event queue is let go first, so that nothing of the old incarnation reaches the guest; then the
   * channels, then every session. Until the next NEGOTIATE nothing but that is answered. Also for a reset of the machine,
   * and for a driver that went without a word (10.4).
   */
  reset(): void {
    if (this.#closed) return;
    this.#counters.resets++;
    this.#negotiated = false;
    this.#registered = false;
    this.#events.detach();
    this.#channels.clear();
    this.options.client.reset();
    this.#forgetAll();
  }

  /** As `Saveable.settle` says. @throws VbusError EOPNOTSUPP */
  async settle(): Promise<void> {
    await this.#saved.settle();
  }

  /** As `Saveable.hold` says. */
  hold(): void {
    if (!this.#holds) this.#gate.hold();
    this.#holds = true;
    this.#saved.hold();
  }

  /** As `Saveable.release` says. */
  release(): void {
    const { client } = this.options;
    if (canBeSaved(client)) client.resume();
    if (this.#holds) this.#gate.release();
    this.#holds = false;
  }

  /** The client, when it is one that can be saved. @throws VbusError EOPNOTSUPP */
  get #saved(): SaveableClient {
    const { client } = this.options;
    if (canBeSaved(client)) return client;
    throw new VbusError("EOPNOTSUPP", "the bus of this guest is not one that can be saved");
  }

  /** As `Saveable.save` says. */
  save(): StateValue {
    const cookies: KeptCookie[] = [...this.#cookies.live];
    const numbers = new Map<unknown, number>(cookies.map((cookie, i) => [cookie, i]));
    return {
      negotiated: this.#negotiated,
      channels: [...this.#channels].map(([id, { low, high, size }]) => [id, low, high, size]),
      cookies: cookies.map((cookie) => [cookie.signalHandle, this.#cookies.bytesOf(cookie)]),
      events: this.#registered ? this.#events.save() : null,
      client: this.#saved.save((cookie) => numbers.get(cookie) ?? -1),
    };
  }

  /** As `Saveable.check` says. @throws StateError */
  check(state: StateReader): void {
    state.get("negotiated").boolean();
    this.#saved.check(state.get("client"), state.get("cookies").items(COOKIES_MAX).length);
  }

  /** As `Saveable.restore` says; the bridge was just reset. @throws StateError; VbusError ENOMEM */
  restore(state: StateReader, options: RestoreOptions = {}): void {
    try {
      this.#restore(state, options);
    } catch (error) {
      this.reset();
      throw error;
    }
    this.#events.schedule();
  }

  #restore(state: StateReader, options: RestoreOptions): void {
    const cookies = state
      .get("cookies")
      .items(COOKIES_MAX)
      .map((item) => {
        const [handle, bytes] = item.tuple(2) as [StateReader, StateReader];
        const cookie = this.#cookies.keepBytes(bytes.bytes(8));
        cookie.signalHandle = handle.nullable((at) => at.number(0, 2 ** 31 - 1));
        return cookie;
      });
    for (const item of state.get("channels").items(CHANNELS_MAX)) {
      const [id, low, high, size] = item.tuple(4).map((at) => at.number(0, 0xffffffff)) as [
        number,
        number,
        number,
        number,
      ];
      if ((size !== FASTCALL_SIZE && size !== FASTCALL_SIZE_ILP32) || this.#channels.has(id))
        item.fail("no such channel can be");
      if (this.#block.translate(low, high, size) === 0)
        item.fail("the channel lies outside the guest's memory");
      this.#channels.set(id, { low, high, size });
    }
    this.#negotiated = state.get("negotiated").boolean();
    const events = state.get("events").nullable((at) => at);
    if (events !== null) {
      if (!this.#negotiated) state.fail("an event queue without negotiation");
      this.#events.restore(events);
      this.#registered = true;
    }
    this.#saved.restore(state.get("client"), cookies.length, (number) => cookies[number], options);
    for (const { signalHandle } of cookies)
      if (signalHandle !== null) this.options.onSignal?.(signalHandle, true);
  }

  /** Ends everything, the client too, and gives the arena back what the bridge took. Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.reset();
    this.#closed = true;
    this.#events.close();
    this.options.client.onEnd = null;
    this.options.client.disconnect();
    this.#block.close();
  }

  #guarded(work: () => number): number {
    try {
      return work() | 0;
    } catch (error) {
      if (!(error instanceof VbusError)) this.#report(error);
      return negatedErrno(error);
    }
  }

  #execute(vector: number, length: number, low: number, high: number): number {
    if (vector === BRIDGE_NEGOTIATE) return this.#negotiate(length, low, high);
    if (!this.#negotiated) return -EINVAL;
    switch (vector) {
      case BRIDGE_QREG:
        return this.#register(length, low, high);
      case BRIDGE_SLOWCALL:
        if (length !== CALL_SIZE) return -EINVAL;
        if (!this.#block.fetch(low, high, CALL_SIZE)) return -EFAULT;
        return this.#busCall(
          this.#block.word(CALL_OFF_VECTOR),
          this.#block.word(CALL_OFF_LEN),
          this.#block.word(CALL_OFF_DATAP),
          this.#block.word(CALL_OFF_DATAP + 4),
        );
      case BRIDGE_FASTCALL_ADD:
        return this.#addChannel(length, low, high);
      default: // FASTCALL_DROP was never implemented
        return -EINVAL;
    }
  }

  #negotiate(length: number, low: number, high: number): number {
    if (length !== NEGOTIATE_SIZE) return -EINVAL;
    if (!this.#block.fetch(low, high, NEGOTIATE_SIZE)) return -EFAULT;
    // both are looked at before anything happens (defect P8)
    if (this.#block.word(NEGOTIATE_OFF_MAGIC) !== BRIDGE_MAGIC) return -EINVAL;
    if (this.#block.word(NEGOTIATE_OFF_VERSION) !== BRIDGE_VERSION) return -EINVAL;
    this.reset();
    const address = this.#block.translate(low, high, NEGOTIATE_SIZE);
    if (address === 0) return -EFAULT;
    this.#block.store64(address, low, high, NEGOTIATE_OFF_CAPABILITIES, 0);
    this.#negotiated = true;
    return BRIDGE_VERSION;
  }

  #register(length: number, low: number, high: number): number {
    const layout = layoutOf("busreg", length);
    if (layout === null) return -EINVAL;
    if (!this.#block.fetch(low, high, length)) return -EFAULT;
    if (this.#block.word(BUSREG_OFF_COUNT) !== 1 || this.#registered) return -EINVAL;
    const { count, ring, data } = layout.busreg;
    const result = this.#events.attach({
      count: this.#block.word(count),
      ring: { low: this.#block.word(ring), high: this.#block.word(ring + 4) },
      data: { low: this.#block.word(data), high: this.#block.word(data + 4) },
      layout,
    });
    if (result < 0) return result;
    this.#registered = true;
    this.options.client.listen();
    this.#events.schedule();
    return 0;
  }

  #addChannel(length: number, low: number, high: number): number {
    if (length !== CALL_SIZE) return -EINVAL;
    if (!this.#block.fetch(low, high, CALL_SIZE)) return -EFAULT;
    const id = this.#block.word(CALL_OFF_VECTOR);
    const size = this.#block.word(CALL_OFF_LEN);
    const channel = {
      low: this.#block.word(CALL_OFF_DATAP),
      high: this.#block.word(CALL_OFF_DATAP + 4),
      size,
    };
    if (size !== FASTCALL_SIZE && size !== FASTCALL_SIZE_ILP32) return -EINVAL;
    if (this.#channels.has(id)) return -EEXIST;
    if (this.#channels.size >= CHANNELS_MAX) return -ENOMEM;
    if (this.#block.translate(channel.low, channel.high, size) === 0) return -EFAULT;
    this.#channels.set(id, channel);
    return 0;
  }

  /** A bus call (section 5). Every member is read from the private copy before the bus is asked. */
  #busCall(vector: number, length: number, low: number, high: number): number {
    switch (vector) {
      case HC_DEVOPEN:
        return length === DEVICEOPEN_SIZE ? this.#open(low, high) : -EINVAL;
      case HC_DEVCLOSE:
        if (length !== DEVICECLOSE_SIZE) return -EINVAL;
        if (!this.#block.fetch(low, high, DEVICECLOSE_SIZE)) return -EFAULT;
        return this.#block.word(4) !== 0 ? -ENOENT : this.options.client.close(this.#block.word(0));
      case HC_DEVCALL: {
        const layout = layoutOf("call", length);
        return layout === null ? -EINVAL : this.#deviceCall(layout, low, high);
      }
      case HC_DEVSHM: {
        const layout = layoutOf("shm", length);
        return layout === null ? -EINVAL : this.#share(layout, low, high);
      }
      default:
        return -EINVAL;
    }
  }

  #open(low: number, high: number): number {
    if (!this.#block.fetch(low, high, DEVICEOPEN_SIZE)) return -EFAULT;
    const { client } = this.options;
    const handle = client.open(
      this.#block.word(DEVICEOPEN_OFF_DEVID),
      this.#block.word(DEVICEOPEN_OFF_VERSION),
    );
    if (handle < 0) return handle;
    if (handle === 0) return -EIO; // 0 is "closed" to every guest: no bus gives it
    const address = this.#block.translate(low, high, DEVICEOPEN_SIZE);
    if (address === 0) {
      client.close(handle);
      return -EFAULT;
    }
    this.#block.store64(address, low, high, DEVICEOPEN_OFF_HANDLE, handle);
    return 0;
  }

  #deviceCall(layout: BridgeLayout, low: number, high: number): number {
    if (!this.#block.fetch(low, high, layout.call.size)) return -EFAULT;
    if (this.#block.word(DEVICECALL_OFF_DEVH + 4) !== 0) return -ENOENT; // handles have 32 bits
    const length = this.#block.word(DEVICECALL_OFF_LEN);
    return this.options.client.call(
      this.#block.word(DEVICECALL_OFF_DEVH),
      this.#block.word(DEVICECALL_OFF_FUNC),
      length === 0 ? 0 : this.#block.gpa(layout.call.datap),
      length,
      this.#block.word(DEVICECALL_OFF_FLAGS),
    );
  }

  #share(layout: BridgeLayout, low: number, high: number): number {
    const { shm } = layout;
    const { client } = this.options;
    if (!this.#block.fetch(low, high, shm.size)) return -EFAULT;
    if (this.#block.word(DEVICESHM_OFF_DEVH + 4) !== 0) return -ENOENT;
    const handle = this.#block.word(DEVICESHM_OFF_DEVH);
    const id = this.#block.word(DEVICESHM_OFF_ID);
    const gpa = this.#block.gpa(shm.datap);
    const length = this.#block.word(DEVICESHM_OFF_LEN);
    const flags = this.#block.word(DEVICESHM_OFF_FLAGS);
    const offset = this.#block.word(shm.offset);
    if (offset === NO_SIGNAL) {
      const result = client.shm(handle, id, gpa, length, null, flags);
      return result < 0 ? result : 0;
    }
    const cookie = this.#cookies.keep(this.#block.address(shm.cookie));
    let result = -EIO;
    try {
      result = client.shm(handle, id, gpa, length, { offset, prio: 0, cookie }, flags);
    } finally {
      if (result < 0) this.#cookies.forget(cookie); // refused: no event will ever name it (defect P5)
    }
    if (result < 0) return result;
    if (this.#cookies.has(cookie)) {
      // still there: the device did not reset the bridge meanwhile
      cookie.signalHandle = result;
      this.options.onSignal?.(result, true);
    }
    return result; // the block is written back unchanged: there is nothing to store
  }

  #interrupt(): void {
    this.#counters.interrupts++;
    try {
      this.options.interrupt();
    } catch (error) {
      this.#report(error);
    }
  }

  #forget(cookie: KeptCookie): void {
    this.#cookies.forget(cookie);
    if (cookie.signalHandle !== null) this.options.onSignal?.(cookie.signalHandle, false);
  }

  #forgetAll(): void {
    for (const cookie of this.#cookies.live) {
      if (cookie.signalHandle !== null) this.options.onSignal?.(cookie.signalHandle, false);
    }
    this.#cookies.clear();
  }

  #report(error: unknown): void {
    this.options.onError?.(error);
  }
}
