import { VBUS_MMIO_OFF_INTERRUPT_ACK, VBUS_MMIO_OFF_INTERRUPT_STATUS, VBUS_MMIO_OFF_RESET } from "vbus/abi";
import type { Bus } from "vbus/bus";
import type { LineBridgeOptions } from "vbus/connectors/bridge";
import { VbusHypercall, VbusMmio } from "vbus/connectors/mmio";
import { allocateGuestMemory, openHostView, type MemorySpace } from "vbus/memory";
import type { VirtualScheduler } from "vbus/scheduler";

import { BareGuest, type BridgeDoor, type WireEvent, type WireLayout } from "./bare-guest.js";
import { EchoHost } from "./machine.js";

/** How a guest without PCI reaches its bridge. */
export type Form = "page" | "hypercalls";
export const FORMS: Form[] = ["page", "hypercalls"];

/** What a driver does with a bridge that has a line. Numbers are written out: those of `docs/abi/vbus-mmio.md`. */
interface LineDoor extends BridgeDoor {
  /** Reads the interrupt status and acknowledges it. */
  acknowledge(): number;
  reset(): void;
}

export class PageDoor implements LineDoor {
  constructor(readonly page: Pick<VbusMmio, "read" | "write">) {}

  call(vector: number, length: number, low: number, high: number): number {
    this.page.write(0x10, 4, low);
    this.page.write(0x14, 4, high);
    this.page.write(0x18, 4, length);
    this.page.write(0x1c, 4, vector);
    return this.page.read(0x20, 4) | 0;
  }
  fastcall(id: number): boolean {
    this.page.write(0x34, 4, id);
    return true;
  }
  eventqDoorbell(): void {
    this.page.write(0x30, 4, 0);
  }
  shmSignal(handle: number): void {
    this.page.write(0x38, 4, handle);
  }
  acknowledge(): number {
    const status = this.page.read(VBUS_MMIO_OFF_INTERRUPT_STATUS, 4);
    this.page.write(VBUS_MMIO_OFF_INTERRUPT_ACK, 4, status);
    return status;
  }
  reset(): void {
    this.page.write(VBUS_MMIO_OFF_RESET, 4, 1);
  }
}

class HypercallDoor implements LineDoor {
  constructor(readonly hypercall: VbusHypercall) {}

  #do(number: number, ...args: number[]): number {
    const result = this.hypercall.call(number, ...args);
    if (result === null) throw new Error(`hypercall 0x${number.toString(16)} is not ours`);
    return result;
  }
  call(vector: number, length: number, low: number, high: number): number {
    return this.#do(0x76620000, vector, length, low, high);
  }
  fastcall(id: number): boolean {
    return this.#do(0x76620002, id) === 0;
  }
  eventqDoorbell(): void {
    this.#do(0x76620001, 0);
  }
  shmSignal(handle: number): void {
    this.#do(0x76620003, handle);
  }
  acknowledge(): number {
    return this.#do(0x76620004);
  }
  reset(): void {
    this.#do(0x76620005);
  }
}

/** A machine without PCI and without an emulator: a hand-written driver in front of a bus with test devices, virtual time. */
export class LineMachine {
  /** Level of the line, and how often it rose. */
  line = false;
  raised = 0;
  errors: unknown[] = [];
  ended = 0;
  bridge!: VbusMmio | VbusHypercall;
  door!: LineDoor;
  guest!: BareGuest;
  memory!: MemorySpace;
  free = 0;

  /**
   * @param host - the bus; several machines may share one
   * @param member - of the bus, which must have admitted it
   */
  constructor(
    readonly host = new EchoHost(),
    readonly member = "guest",
  ) {}

  get bus(): Bus {
    return this.host.bus;
  }

  get scheduler(): VirtualScheduler {
    return this.host.scheduler;
  }

  plug(name: string): void {
    this.host.plug(name);
  }

  async boot(form: Form, layout: WireLayout): Promise<void> {
    const init = allocateGuestMemory({ size: 1 << 20, arenaSize: 1 << 18 });
    this.memory = await openHostView(init);
    this.free = this.memory.arena.available;
    const options: LineBridgeOptions = {
      bus: this.bus,
      member: this.member,
      memory: this.memory,
      scheduler: this.scheduler,
      interrupt: (asserted) => {
        if (asserted === this.line) throw new Error("told a level that the line has already");
        this.line = asserted;
        if (asserted) this.raised++;
      },
      onError: (error) => this.errors.push(error),
      onEnd: () => this.ended++,
    };
    if (form === "page") this.door = new PageDoor((this.bridge = new VbusMmio(options)));
    else this.door = new HypercallDoor((this.bridge = new VbusHypercall(options)));
    this.guest = new BareGuest(init, this.door, layout);
  }

  /** The register page. */
  get page(): VbusMmio {
    if (!(this.bridge instanceof VbusMmio)) throw new Error("this machine has hypercalls");
    return this.bridge;
  }

  /** Runs the host, and the guest's interrupt handler whenever the line is up. */
  events(): WireEvent[] {
    const all: WireEvent[] = [];
    for (;;) {
      this.scheduler.run();
      if (!this.line) return all;
      if (this.door.acknowledge() === 0) throw new Error("the line is up for no reason");
      const { events, ring } = this.guest.takeEvents();
      if (ring) this.door.eventqDoorbell();
      all.push(...events);
    }
  }

  bringUp(count = 16): WireEvent[] {
    if (this.guest.negotiate().result !== 1) throw new Error("NEGOTIATE failed");
    this.guest.makeEventQueue(count);
    const result = this.guest.qreg();
    if (result !== 0) throw new Error(`QREG returned ${result}`);
    return this.events();
  }
}
