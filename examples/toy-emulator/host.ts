import type { EmulatorHooks, EmulatorHost, InterruptLine, Mapping, RegisterBlock } from "vbus/emulators";
import { VbusError } from "vbus";
import { RangeAllocator, type MemoryRegion } from "vbus/memory";
import { RAM_BASE } from "./map.js";
import type { ToyMachine } from "./machine.js";

const PAGE = 65536;

/** The toy machine as `vbus/emulators` sees it: all that an emulator has to write to get every connector. */
export class ToyHost implements EmulatorHost {
  readonly name = "toy";
  readonly memory: WebAssembly.Memory;
  readonly regions: readonly MemoryRegion[];
  /** An interpreter has all of the guest's registers at hand: interrupts may be raised in any access. */
  readonly interruptsIn = { memory: true, port: true };
  #private: RangeAllocator | null = null;

  constructor(private readonly machine: ToyMachine) {
    this.memory = machine.memory;
    this.regions = [{ gpa: RAM_BASE, length: machine.ramSize, address: machine.ramAddress }];
  }

  /** Private memory lies behind RAM: the memory grows for it. */
  allocPrivate(size: number): number {
    try {
      const known = this.#private?.allocate(size, 16);
      if (known !== undefined) return known;
    } catch (error) {
      if (!(error instanceof VbusError) || error.code !== "ENOMEM") throw error;
    }
    const pages = Math.ceil(size / PAGE);
    let first: number;
    try {
      first = this.memory.grow(pages);
    } catch (cause) {
      throw new VbusError("ENOMEM", `the toy machine's memory cannot grow by ${pages} pages`, { cause });
    }
    this.machine.cpu.memoryGrew();
    if (this.#private === null)
      this.#private = new RangeAllocator(first * PAGE, pages * PAGE, "private memory");
    else this.#private.extend(pages * PAGE); // nobody else grows this memory: it goes on where it ended
    return this.#private.allocate(size, 16);
  }

  freePrivate(address: number): void {
    this.#private?.free(address);
  }

  openLine(irq: number): InterruptLine {
    return this.machine.interrupts.open(irq);
  }

  mapRegisters(block: RegisterBlock): Mapping {
    if (block.kind === "io") throw new VbusError("EOPNOTSUPP", "RISC-V has no I/O ports");
    return this.machine.space.map(block);
  }

  hook(hooks: EmulatorHooks): () => void {
    return this.machine.hook(hooks);
  }

  /** There is no translated code to throw away, but a reservation of LR. */
  onHostWrite(gpa: number, length: number): void {
    this.machine.cpu.written(gpa, length);
  }

  get instructions(): number {
    return this.machine.cpu.instructions % 2 ** 32;
  }

  get idle(): boolean {
    return this.machine.cpu.idle;
  }

  endSlice(): void {
    this.machine.cpu.endSlice();
  }
}
