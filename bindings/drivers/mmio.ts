import { ENOTCONN } from "../../assembly/abi/errno.js";
import {
  VBUS_MMIO_MAGIC,
  VBUS_MMIO_OFF_CALL,
  VBUS_MMIO_OFF_DATAP_HIGH,
  VBUS_MMIO_OFF_DATAP_LOW,
  VBUS_MMIO_OFF_EVENTQ,
  VBUS_MMIO_OFF_INTERRUPT_ACK,
  VBUS_MMIO_OFF_INTERRUPT_STATUS,
  VBUS_MMIO_OFF_LEN,
  VBUS_MMIO_OFF_MAGIC,
  VBUS_MMIO_OFF_RESET,
  VBUS_MMIO_OFF_RESULT,
  VBUS_MMIO_OFF_SHMSIGNAL,
  VBUS_MMIO_OFF_STATE,
  VBUS_MMIO_OFF_VERSION,
  VBUS_MMIO_VERSION,
  VBUS_STATE_GONE,
} from "../../assembly/abi/vbus-mmio.js";
import { VbusError } from "../errors.js";
import type { GuestMemory } from "../memory/guest.js";
import type { Scheduler } from "../scheduler.js";
import { BridgeGuest, type BridgeCarrier } from "./bridge.js";

/** A guest's register page: 32-bit accesses at offsets that are multiples of 4. */
export interface MmioPage {
  /** Reads a register; unsigned. */
  read(offset: number): number;
  /** Writes one. */
  write(offset: number, value: number): void;
}

/** How to reach a bus behind a register page. */
export interface MmioGuestOptions {
  /** The page. */
  readonly page: MmioPage;
  /** The guest's memory. */
  readonly memory: GuestMemory;
  /** Where deferred work of the guest's thread runs. */
  readonly scheduler: Scheduler;
  /** Number of event records, 1 … 2048; default 1024. */
  readonly eventCount?: number;
}

/** A bus behind a register page. */
export interface MmioGuest {
  /** For a `ProxyBus`. */
  readonly transport: BridgeGuest;
  /** The interrupt handler: call it when the line goes up. Allowed anywhere, also when it was somebody else's interrupt. */
  readonly interrupt: () => void;
}

/** Carries a bridge over a register page: the guest half of `docs/abi/vbus-mmio.md`. */
class MmioCarrier implements BridgeCarrier {
  onInterrupt: (() => void) | null = null;
  onLost: ((error: Error) => void) | null = null;
  #due = false;
  #closed = false;

  constructor(
    private readonly page: MmioPage,
    private readonly scheduler: Scheduler,
  ) {}

  async call(vector: number, length: number, gpa: number): Promise<number> {
    const { page } = this;
    if (this.#closed) throw new VbusError("ENOTCONN", "this guest left the bus; connect again");
    page.write(VBUS_MMIO_OFF_DATAP_LOW, gpa >>> 0);
    page.write(VBUS_MMIO_OFF_DATAP_HIGH, Math.floor(gpa / 2 ** 32));
    page.write(VBUS_MMIO_OFF_LEN, length);
    page.write(VBUS_MMIO_OFF_CALL, vector);
    const result = page.read(VBUS_MMIO_OFF_RESULT) | 0;
    if (result === -ENOTCONN && (page.read(VBUS_MMIO_OFF_STATE) & VBUS_STATE_GONE) !== 0) this.#gone();
    // a page that was taken away reads as 0, too
    if (result === 0 && page.read(VBUS_MMIO_OFF_MAGIC) >>> 0 !== VBUS_MMIO_MAGIC) {
      this.#gone();
      throw new VbusError("ENOTCONN", "the register page is gone");
    }
    return result;
  }

  eventqDoorbell(): void {
    if (!this.#closed) this.page.write(VBUS_MMIO_OFF_EVENTQ, 0);
  }

  shmSignal(handle: number): void {
    if (!this.#closed) this.page.write(VBUS_MMIO_OFF_SHMSIGNAL, handle);
  }

  /** Acknowledged first: what comes while the events are taken raises the line again. */
  readonly interrupt = (): void => {
    if (this.#closed) return;
    const status = this.page.read(VBUS_MMIO_OFF_INTERRUPT_STATUS);
    if (status === 0) return;
    this.page.write(VBUS_MMIO_OFF_INTERRUPT_ACK, status);
    if (this.#due) return;
    this.#due = true;
    // the line may have gone up inside a call or a doorbell of this very thread
    this.scheduler.post(() => {
      this.#due = false;
      if (!this.#closed) this.onInterrupt?.();
    });
  };

  #gone(): void {
    this.scheduler.post(() => {
      if (!this.#closed)
        this.onLost?.(new VbusError("ENOTCONN", "the host took this guest off the bus; connect again"));
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.page.write(VBUS_MMIO_OFF_RESET, 1);
  }
}

/**
 * Finds the bus behind a register page and agrees on its version with the host (`docs/abi/vbus-mmio.md` section 5), for guests
 * written in TypeScript. Used by the guest's thread.
 * @throws VbusError ENODEV when this is no register page of a bus, or one of another version; EINVAL when the host speaks
 *   another version of the calls, or the memory is no `GuestMemory`; ENOTCONN when it has taken the guest off the bus; ENOMEM
 */
export async function connectMmio(options: MmioGuestOptions): Promise<MmioGuest> {
  const { page, memory, scheduler, eventCount } = options;
  const magic = page.read(VBUS_MMIO_OFF_MAGIC) >>> 0;
  if (magic !== VBUS_MMIO_MAGIC) {
    const found = `0x${magic.toString(16)} instead of 0x${VBUS_MMIO_MAGIC.toString(16)}`;
    throw new VbusError("ENODEV", `no bus here: the page begins with ${found}; check its address`);
  }
  const version = page.read(VBUS_MMIO_OFF_VERSION);
  if (version !== VBUS_MMIO_VERSION) {
    const known = `this driver knows version ${VBUS_MMIO_VERSION}`;
    throw new VbusError("ENODEV", `the register page has version ${version}; ${known}`);
  }
  const carrier = new MmioCarrier(page, scheduler);
  const transport = await BridgeGuest.connect({
    carrier,
    memory,
    scheduler,
    ...(eventCount === undefined ? {} : { eventCount }),
  });
  return { transport, interrupt: carrier.interrupt };
}
