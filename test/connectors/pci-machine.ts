import { PciBridge, type AccessWidth } from "vbus/connectors/pci";
import { allocateGuestMemory, openHostView, type MemorySpace } from "vbus/memory";

import { BareGuest, type BridgeDoor, type WireEvent, type WireLayout } from "./bare-guest.js";
import { EchoHost } from "./machine.js";

/** How a processor copies 16 bytes to the registers. */
export type CopyOrder = "words" | "backwards" | "bytes" | "halves";

/** The bridge as a driver sees it: registers in memory, ports, configuration space. */
class RegisterDoor implements BridgeDoor {
  constructor(
    private readonly fn: PciBridge,
    readonly order: CopyOrder,
  ) {}

  call(vector: number, length: number, low: number, high: number): number {
    const registers = new Uint8Array(16);
    const view = new DataView(registers.buffer);
    for (const [i, word] of [vector, length, low, high].entries()) view.setUint32(4 * i, word, true);
    const width: AccessWidth = this.order === "bytes" ? 1 : this.order === "halves" ? 2 : 4;
    const offsets = Array.from({ length: 16 / width }, (_, i) => i * width);
    if (this.order === "backwards") offsets.reverse();
    for (const offset of offsets) {
      const value =
        width === 1
          ? view.getUint8(offset)
          : width === 2
            ? view.getUint16(offset, true)
            : view.getUint32(offset, true);
      this.fn.bar0Write(offset, width, value);
    }
    return this.fn.bar0Read(0, 4) | 0;
  }
  fastcall(id: number): boolean {
    this.fn.bar1Write(4, 4, id);
    return true;
  }
  eventqDoorbell(): void {
    this.fn.bar1Write(0, 4, 0);
  }
  shmSignal(handle: number): void {
    this.fn.bar1Write(8, 4, handle);
  }
}

/** A machine without an emulator: one bus with test devices behind a PCI function, a hand-written driver, virtual time. */
export class PciMachine extends EchoHost {
  /** Messages that arrived, in order. */
  messages: { address: number; data: number }[] = [];
  /** Level of INTA, and how often it rose. */
  line = false;
  raised = 0;
  errors: unknown[] = [];
  ended = 0;
  fn!: PciBridge;
  guest!: BareGuest;
  memory!: MemorySpace;
  free = 0;
  /** Messages that the guest's handler ran for. */
  #served = 0;

  async boot(layout: WireLayout, order: CopyOrder = "words"): Promise<void> {
    const init = allocateGuestMemory({ size: 1 << 20, arenaSize: 1 << 18 });
    this.memory = await openHostView(init);
    this.free = this.memory.arena.available;
    this.fn = new PciBridge({
      bus: this.bus,
      member: "guest",
      memory: this.memory,
      scheduler: this.scheduler,
      interrupts: {
        msi: (address, data) => this.messages.push({ address, data }),
        setLine: (asserted) => {
          if (asserted === this.line) throw new Error("told a level that the line has already");
          this.line = asserted;
          if (asserted) this.raised++;
        },
      },
      onError: (error) => this.errors.push(error),
      onEnd: () => this.ended++,
    });
    this.guest = new BareGuest(init, new RegisterDoor(this.fn, order), layout);
  }

  /** What PCI setup does: BARs, decoding, and bus mastering where the driver is a newer one. */
  enable(command = 0x0007): void {
    this.fn.configWrite(0x10, 4, 0xfebf1000);
    this.fn.configWrite(0x14, 4, 0xc040);
    this.fn.configWrite(0x04, 2, command);
  }

  enableMsi(vector = 0x41): void {
    this.fn.configWrite(0x44, 4, 0xfee01004);
    this.fn.configWrite(0x48, 2, vector);
    this.fn.configWrite(0x42, 2, 1);
  }

  get interrupts(): number {
    return this.messages.length + this.raised;
  }

  /**
   * Runs the host, and the guest's interrupt handler whenever it was interrupted. `reads` is whether it knows the status
   * register; a handler of 2009 does not.
   */
  events(reads: boolean): WireEvent[] {
    const all: WireEvent[] = [];
    for (;;) {
      this.scheduler.run();
      if (!this.line && this.messages.length === this.#served) return all;
      this.#served = this.messages.length;
      if (reads) this.fn.bar1Read(12, 4);
      const { events, ring } = this.guest.takeEvents();
      if (ring) this.guest.host.eventqDoorbell();
      all.push(...events);
    }
  }

  /** Section 9, steps 3 to 9. */
  bringUp(reads = true, count = 16): WireEvent[] {
    if (this.guest.negotiate().result !== 1) throw new Error("NEGOTIATE failed");
    this.guest.makeEventQueue(count);
    const result = this.guest.qreg();
    if (result !== 0) throw new Error(`QREG returned ${result}`);
    return this.events(reads);
  }
}
