/** Guests in TypeScript behind a bridge with an interrupt line, and what saves and puts back the host's half of them. */
import {
  VBUS_HYPERCALL_CALL,
  VBUS_HYPERCALL_EVENTQ,
  VBUS_HYPERCALL_INTERRUPT,
  VBUS_HYPERCALL_RESET,
  VBUS_HYPERCALL_SHMSIGNAL,
} from "vbus/abi";
import type { Bus } from "vbus/bus";
import { VbusHypercall, VbusMmio, type LineBridgeOptions } from "vbus/connectors/mmio";
import { BridgeGuest, connectMmio, ProxyBus, type BridgeCarrier, type Driver } from "vbus/drivers";
import { allocateGuestMemory, GuestMemory, openHostView, type MemorySpace } from "vbus/memory";
import type { Scheduler } from "vbus/scheduler";
import { decodeState, encodeState } from "vbus/state";
import { memoryImage } from "./client-part.js";

/** How a guest without PCI reaches its bridge. */
export const FORMS = ["a register page", "hypercalls"] as const;
export type Form = (typeof FORMS)[number];

/** The bridge by hypercalls, for a guest in TypeScript. */
class HypercallCarrier implements BridgeCarrier {
  onInterrupt: (() => void) | null = null;
  onLost: ((error: Error) => void) | null = null;

  constructor(private readonly hypercall: VbusHypercall) {}

  #do(number: number, ...args: number[]): number {
    const result = this.hypercall.call(number, ...args);
    if (result === null) throw new Error(`hypercall 0x${number.toString(16)} is not ours`);
    return result;
  }

  async call(vector: number, length: number, gpa: number): Promise<number> {
    return this.#do(VBUS_HYPERCALL_CALL, vector, length, gpa, 0);
  }
  eventqDoorbell(): void {
    this.#do(VBUS_HYPERCALL_EVENTQ, 0);
  }
  shmSignal(handle: number): void {
    this.#do(VBUS_HYPERCALL_SHMSIGNAL, handle);
  }
  interrupt(): void {
    if (this.#do(VBUS_HYPERCALL_INTERRUPT) !== 0) this.onInterrupt?.();
  }
  close(): void {
    this.#do(VBUS_HYPERCALL_RESET);
  }
}

/** A guest on a bus of its own, in a machine with a level-triggered line. */
export class LineGuest {
  readonly memory!: GuestMemory;
  readonly host!: MemorySpace;
  readonly part!: VbusMmio | VbusHypercall;
  readonly bus!: ProxyBus;
  /** Level of the line: the machine's interrupt controller. */
  line = false;
  #handler = (): void => undefined;
  #stands = false;

  private constructor(
    readonly form: Form,
    private readonly scheduler: Scheduler,
    private readonly report: (error: unknown) => void,
  ) {}

  /** Starts a guest with these drivers. `bus` must have admitted `guest`. */
  static async start(
    form: Form,
    bus: Bus,
    scheduler: Scheduler,
    drivers: Driver[],
    report: (error: unknown) => void,
  ): Promise<LineGuest> {
    const guest = new LineGuest(form, scheduler, report);
    await guest.#start(bus, drivers);
    return guest;
  }

  async #start(bus: Bus, drivers: Driver[]): Promise<void> {
    const init = allocateGuestMemory({ size: 4 << 20 });
    const memory = await GuestMemory.open(init);
    const host = await openHostView(init);
    const options: LineBridgeOptions = {
      bus,
      member: "guest",
      memory: host,
      scheduler: this.scheduler,
      interrupt: (asserted) => {
        if (asserted === this.line && !this.#stands)
          throw new Error("told a level that the line has already");
        this.line = asserted;
        if (asserted) this.#interruptSoon();
      },
      onError: this.report,
    };
    let part: VbusMmio | VbusHypercall;
    let transport: BridgeGuest;
    const common = { memory, scheduler: this.scheduler, eventCount: 16 };
    if (this.form === "a register page") {
      const registers = (part = new VbusMmio(options));
      const page = {
        read: (offset: number) => registers.read(offset, 4),
        write: (offset: number, value: number) => {
          registers.write(offset, 4, value);
        },
      };
      const connected = await connectMmio({ page, ...common });
      transport = connected.transport;
      this.#handler = connected.interrupt;
    } else {
      part = new VbusHypercall(options);
      const carrier = new HypercallCarrier(part);
      transport = await BridgeGuest.connect({ carrier, ...common });
      this.#handler = () => {
        carrier.interrupt();
      };
    }
    const proxy = new ProxyBus(transport, {
      error: (_device, error) => this.report(error),
      lost: this.report,
    });
    for (const driver of drivers) proxy.registerDriver(driver);
    Object.assign(this, { memory, host, part, bus: proxy });
    await proxy.start();
  }

  /** The processor looks at its interrupts when its turn comes. */
  #interruptSoon(): void {
    this.scheduler.post(() => {
      if (this.line && !this.#stands) this.#handler();
    });
  }

  /** The processor stops for as long as something takes: no interrupt is seen, and what the line was it is again afterwards. */
  async standingStill<T>(act: () => Promise<T>): Promise<T> {
    this.#stands = true;
    try {
      return await act();
    } finally {
      this.#stands = false;
      this.line = this.part.line.asserted;
      this.part.restored(); // whatever became of an interrupt
      if (this.line) this.#interruptSoon();
    }
  }

  /**
   * Saves the host's half, ends it, and restores it from the bytes: in one step, so that the guest, whose half is in JavaScript
   * objects, cannot run in between.
   */
  async replaceHost(): Promise<void> {
    const { part, host } = this;
    await part.settle();
    part.hold();
    try {
      const bytes = encodeState(part.save());
      const { line } = this;
      const putBack = memoryImage(host);
      const state = decodeState(bytes);
      part.check(state);
      part.clear();
      putBack();
      this.line = line; // the machine's interrupt controller is saved by itself
      if (line) this.#interruptSoon();
      part.restore(state);
    } finally {
      part.release();
    }
    part.restored();
  }

  async close(): Promise<void> {
    await this.bus.close();
    this.part.close();
  }
}
