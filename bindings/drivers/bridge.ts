import {
  BRIDGE_MAGIC,
  BRIDGE_NEGOTIATE,
  BRIDGE_QREG,
  BRIDGE_SLOWCALL,
  BRIDGE_VERSION,
  BUSREG_OFF_COUNT,
  BUSREG_OFF_EVENTQ_COUNT,
  BUSREG_OFF_EVENTQ_DATA,
  BUSREG_OFF_EVENTQ_RING,
  BUSREG_SIZE,
  CALL_OFF_DATAP,
  CALL_OFF_LEN,
  CALL_OFF_VECTOR,
  CALL_SIZE,
  DEVICECALL_OFF_DATAP,
  DEVICECALL_OFF_DEVH,
  DEVICECALL_OFF_FLAGS,
  DEVICECALL_OFF_FUNC,
  DEVICECALL_OFF_LEN,
  DEVICECALL_SIZE,
  DEVICECLOSE_SIZE,
  DEVICEOPEN_OFF_DEVID,
  DEVICEOPEN_OFF_HANDLE,
  DEVICEOPEN_OFF_VERSION,
  DEVICEOPEN_SIZE,
  DEVICESHM_OFF_DATAP,
  DEVICESHM_OFF_DEVH,
  DEVICESHM_OFF_FLAGS,
  DEVICESHM_OFF_ID,
  DEVICESHM_OFF_LEN,
  DEVICESHM_OFF_SIGNAL_COOKIE,
  DEVICESHM_OFF_SIGNAL_OFFSET,
  DEVICESHM_OFF_SIGNAL_PRIO,
  DEVICESHM_SIZE,
  EVENTQ_DEFAULT_COUNT,
  HC_DEVCALL,
  HC_DEVCLOSE,
  HC_DEVOPEN,
  HC_DEVSHM,
  NEGOTIATE_OFF_MAGIC,
  NEGOTIATE_OFF_VERSION,
  NEGOTIATE_SIZE,
  NO_SIGNAL,
} from "../../assembly/abi/vbus.js";
import { checkResult, VbusError } from "../errors.js";
import { checkGuestMemory, type GuestMemory } from "../memory/guest.js";
import type { Scheduler } from "../scheduler.js";
import { GuestEventQueue } from "./bridge-events.js";
import type { DeviceHandle, GuestEvent, GuestSignal, GuestTransport } from "./transport.js";

/** A block: a call descriptor, then the largest block of a bus call. */
const BLOCK_SIZE = 64;

/** What carries a bridge to the host: registers and interrupts, by whatever means. Used by the guest's thread. */
export interface BridgeCarrier {
  /**
   * Makes a bridge call on a block of guest memory; several may be under way. Resolves with the host's result (>= 0 or a
   * negated errno). Rejects with a VbusError ETIMEDOUT when the host may still write to the block, ENOTCONN when it
   * never will.
   */
  call(vector: number, length: number, gpa: number): Promise<number>;
  /** Rings the doorbell of the event queue. */
  eventqDoorbell(): void;
  /** Rings the doorbell of a signal handle. */
  shmSignal(handle: number): void;
  /** Whom the event queue's interrupt goes to. Never called from within a call or a doorbell. */
  onInterrupt: (() => void) | null;
  /** Who is told, once, that the host is gone. */
  onLost: ((error: Error) => void) | null;
  /** Leaves; pending calls reject as above. Twice is harmless. */
  close(): void;
}

/** How a {@link BridgeGuest} is wired. */
export interface BridgeGuestOptions {
  /** What carries the bridge. */
  readonly carrier: BridgeCarrier;
  /** The guest's memory. */
  readonly memory: GuestMemory;
  /** Where deferred work of the guest's thread runs. */
  readonly scheduler: Scheduler;
  /** Number of event records, 1 … 2048; default 1024. */
  readonly eventCount?: number;
}

/** A session's handle: 64 bits as the host gave them, in two halves. */
interface SessionHandle {
  readonly low: number;
  readonly high: number;
}

type Fill = (view: DataView, at: number) => void;

/**
 * The guest half of the bridge (`docs/abi/vbus-pci.md`): turns the verbs of a transport into bridge calls on blocks of
 * guest memory, and event records into events. Made by {@link BridgeGuest.connect}.
 */
export class BridgeGuest implements GuestTransport {
  onEvent: ((event: GuestEvent) => void) | null = null;
  onLost: ((error: Error) => void) | null = null;
  readonly memory: GuestMemory;
  readonly scheduler: Scheduler;
  readonly #carrier: BridgeCarrier;
  readonly #eventCount: number;
  #free: number[] = [];
  #events: GuestEventQueue | null = null;
  #ended = false;
  #lost: Error | null = null;

  private constructor(options: BridgeGuestOptions) {
    this.memory = options.memory;
    this.scheduler = options.scheduler;
    this.#carrier = options.carrier;
    this.#eventCount = options.eventCount ?? EVENTQ_DEFAULT_COUNT;
    this.#carrier.onInterrupt = () => {
      this.#events?.interrupt();
    };
    this.#carrier.onLost = (error) => {
      this.#lose(error);
    };
  }

  /**
   * Agrees on the version with the host. What an earlier guest left in the bridge is reset by that.
   * @throws VbusError EINVAL when the host speaks another version, or the memory is no `GuestMemory`; ENOTCONN, ETIMEDOUT; ENOMEM
   */
  static async connect(options: BridgeGuestOptions): Promise<BridgeGuest> {
    checkGuestMemory(options.memory);
    const guest = new BridgeGuest(options);
    await guest.#exchange(
      BRIDGE_NEGOTIATE,
      NEGOTIATE_SIZE,
      (view, at) => {
        view.setUint32(at + NEGOTIATE_OFF_MAGIC, BRIDGE_MAGIC, true);
        view.setUint32(at + NEGOTIATE_OFF_VERSION, BRIDGE_VERSION, true);
      },
      `the host does not speak version ${BRIDGE_VERSION} of the bridge`,
    );
    return guest;
  }

  /** Events that were skipped because this driver does not know them. */
  get unknownEvents(): number {
    return this.#events?.unknown ?? 0;
  }

  /** {@inheritDoc GuestTransport.start} */
  async start(): Promise<void> {
    this.#assertConnected();
    if (this.#events !== null) throw new VbusError("EINVAL", "this transport was started already");
    const events = new GuestEventQueue({
      memory: this.memory,
      scheduler: this.scheduler,
      count: this.#eventCount,
      onEvent: (event) => {
        if (!this.#ended) this.onEvent?.(event);
      },
      ring: () => {
        this.#carrier.eventqDoorbell();
      },
      onBroken: (error) => {
        this.#lose(
          new VbusError("EPROTO", "the host broke the event queue; connect again", { cause: error }),
        );
      },
    });
    this.#events = events;
    try {
      await this.#exchange(
        BRIDGE_QREG,
        BUSREG_SIZE,
        (view, at) => {
          view.setUint32(at + BUSREG_OFF_COUNT, 1, true);
          view.setUint32(at + BUSREG_OFF_EVENTQ_COUNT, this.#eventCount, true);
          writeAddress(view, at + BUSREG_OFF_EVENTQ_RING, events.ringGpa);
          writeAddress(view, at + BUSREG_OFF_EVENTQ_DATA, events.dataGpa);
        },
        `the host does not take an event queue of ${this.#eventCount} records; use 1 to 2048`,
      );
    } catch (error) {
      this.#events = null;
      // refused: the host has nothing of it. No answer: it may be writing there
      events.close(error instanceof VbusError && error.code !== "ETIMEDOUT");
      throw error;
    }
  }

  /** {@inheritDoc GuestTransport.open} */
  async open(id: number, version: number): Promise<DeviceHandle> {
    let handle: SessionHandle = { low: 0, high: 0 };
    await this.#busCall(
      HC_DEVOPEN,
      DEVICEOPEN_SIZE,
      (view, at) => {
        view.setUint32(at + DEVICEOPEN_OFF_DEVID, id, true);
        view.setUint32(at + DEVICEOPEN_OFF_VERSION, version, true);
      },
      `device ${id} does not open with version ${version}`,
      (view, at) => {
        handle = {
          low: view.getUint32(at + DEVICEOPEN_OFF_HANDLE, true),
          high: view.getUint32(at + DEVICEOPEN_OFF_HANDLE + 4, true),
        };
      },
    );
    if (handle.low === 0 && handle.high === 0) {
      throw new VbusError("EPROTO", `the host opened device ${id} with handle 0, which means "closed"`);
    }
    return handle;
  }

  /** {@inheritDoc GuestTransport.close} */
  async close(handle: DeviceHandle): Promise<void> {
    await this.#busCall(
      HC_DEVCLOSE,
      DEVICECLOSE_SIZE,
      (view, at) => {
        writeHandle(view, at, handle);
      },
      "no such session",
    );
  }

  /** {@inheritDoc GuestTransport.call} */
  async call(
    handle: DeviceHandle,
    func: number,
    gpa: number,
    length: number,
    flags: number,
  ): Promise<number> {
    return this.#busCall(
      HC_DEVCALL,
      DEVICECALL_SIZE,
      (view, at) => {
        writeHandle(view, at + DEVICECALL_OFF_DEVH, handle);
        view.setUint32(at + DEVICECALL_OFF_FUNC, func, true);
        view.setUint32(at + DEVICECALL_OFF_LEN, length, true);
        view.setUint32(at + DEVICECALL_OFF_FLAGS, flags, true);
        writeAddress(view, at + DEVICECALL_OFF_DATAP, gpa);
      },
      `the device refused call ${func}`,
    );
  }

  /** {@inheritDoc GuestTransport.shm} */
  async shm(
    handle: DeviceHandle,
    id: number,
    gpa: number,
    length: number,
    signal: GuestSignal | null,
    flags: number,
  ): Promise<number> {
    return this.#busCall(
      HC_DEVSHM,
      DEVICESHM_SIZE,
      (view, at) => {
        writeHandle(view, at + DEVICESHM_OFF_DEVH, handle);
        view.setUint32(at + DEVICESHM_OFF_ID, id, true);
        view.setUint32(at + DEVICESHM_OFF_LEN, length, true);
        view.setUint32(at + DEVICESHM_OFF_FLAGS, flags, true);
        view.setUint32(at + DEVICESHM_OFF_SIGNAL_OFFSET, signal?.offset ?? NO_SIGNAL, true);
        view.setUint32(at + DEVICESHM_OFF_SIGNAL_PRIO, signal?.prio ?? 0, true);
        view.setUint32(at + DEVICESHM_OFF_SIGNAL_COOKIE, signal?.cookie ?? 0, true);
        writeAddress(view, at + DEVICESHM_OFF_DATAP, gpa);
      },
      `the device refused segment ${id} at guest address 0x${gpa.toString(16)}`,
    );
  }

  /** {@inheritDoc GuestTransport.ring} */
  ring(signalHandle: number): void {
    if (!this.#ended) this.#carrier.shmSignal(signalHandle);
  }

  /** {@inheritDoc GuestTransport.disconnect} */
  disconnect(): void {
    if (this.#ended) return;
    this.#ended = true;
    // the host hears of it later: ring and records are never used again
    this.#events?.close(false);
    this.#carrier.close();
  }

  #lose(error: Error): void {
    if (this.#ended) return;
    this.#lost = error;
    this.disconnect();
    this.onLost?.(error);
  }

  #assertConnected(): void {
    if (!this.#ended) return;
    throw this.#lost === null
      ? new VbusError("ENOTCONN", "this guest left the bus; connect again")
      : new VbusError("ENOTCONN", "the connection to the host is lost; connect again", { cause: this.#lost });
  }

  /** A bus call through SLOWCALL: the descriptor and its block lie in one pooled block. */
  #busCall(vector: number, length: number, fill: Fill, what: string, read?: Fill): Promise<number> {
    return this.#exchange(
      BRIDGE_SLOWCALL,
      CALL_SIZE,
      (view, at, gpa) => {
        view.setUint32(at + CALL_OFF_VECTOR, vector, true);
        view.setUint32(at + CALL_OFF_LEN, length, true);
        writeAddress(view, at + CALL_OFF_DATAP, gpa + CALL_SIZE);
        fill(view, at + CALL_SIZE);
      },
      what,
      read === undefined
        ? undefined
        : (view, at) => {
            read(view, at + CALL_SIZE);
          },
    );
  }

  async #exchange(
    vector: number,
    length: number,
    fill: (view: DataView, at: number, gpa: number) => void,
    what: string,
    read?: Fill,
  ): Promise<number> {
    this.#assertConnected();
    const { ram, space } = this.memory;
    const gpa = this.#free.pop() ?? ram.allocate(BLOCK_SIZE, BLOCK_SIZE);
    const at = space.translate(gpa, BLOCK_SIZE);
    space.bytes.fill(0, at, at + BLOCK_SIZE);
    fill(space.engine.data, at, gpa);
    let result: number;
    try {
      result = await this.#carrier.call(vector, length, gpa);
    } catch (error) {
      // no answer: the host may still write there, so the block never returns to the pool
      if (error instanceof VbusError && error.code !== "ETIMEDOUT") this.#free.push(gpa);
      throw error;
    }
    if (result >= 0) read?.(space.engine.data, at);
    this.#free.push(gpa);
    return checkResult(result, what);
  }
}

function writeAddress(view: DataView, at: number, gpa: number): void {
  view.setUint32(at, gpa >>> 0, true);
  view.setUint32(at + 4, Math.floor(gpa / 2 ** 32), true);
}

function writeHandle(view: DataView, at: number, handle: DeviceHandle): void {
  const { low, high } = handle as SessionHandle;
  view.setUint32(at, low, true);
  view.setUint32(at + 4, high, true);
}
