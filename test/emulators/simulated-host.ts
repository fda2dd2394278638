import type {
  EmulatorContext,
  EmulatorHooks,
  EmulatorHost,
  HostedPciFunction,
  InterruptLine,
  Mapping,
  MessageSink,
  PciSeat,
  RegisterBlock,
} from "vbus/emulators";
import type { MemoryRegion } from "vbus/memory";
import type { PciAccess, Width } from "../virtio/doors.js";

const PAGE = 65536;

/** What a {@link SimulatedHost} may do that others may not. */
export interface SimulatedOptions {
  /** Whether interrupts may be raised in accesses. */
  readonly interruptsInAccesses?: boolean;
  /** Whether there is a controller for messages. */
  readonly messages?: boolean;
}

/**
 * An emulator without a guest: it notes what is done to it, and makes accesses when a test asks for them. It routes
 * configuration cycles to the functions on its PCI bus, which have firmware-assigned BARs.
 */
export class SimulatedHost implements EmulatorHost {
  readonly name = "simulated";
  readonly memory = new WebAssembly.Memory({ initial: 64 });
  regions: MemoryRegion[] = [{ gpa: 0x1000, length: 0x100000, address: PAGE + 0x1000 }];
  readonly interruptsIn: { memory: boolean; port: boolean };
  readonly messages?: MessageSink;
  instructions = 0;
  idle = false;
  hooks: EmulatorHooks | null = null;
  /** What happened, in order. */
  readonly log: string[] = [];
  /** Private memory that was not given back, in bytes. */
  privateBytes = 0;
  readonly blocks = new Set<RegisterBlock>();
  readonly lines = new Set<number>();
  readonly functions = new Map<number, HostedPciFunction>();
  /** Where the thread is, as far as this host knows: checks that interrupts come only where it allowed them. */
  inAccess = false;

  constructor({ interruptsInAccesses = true, messages = false }: SimulatedOptions = {}) {
    this.interruptsIn = { memory: interruptsInAccesses, port: interruptsInAccesses };
    if (messages)
      this.messages = {
        request: (address, data) => {
          this.log.push(`request ${address.toString(16)} ${data}`);
          return address === 0xfee00000;
        },
        deliver: (context: EmulatorContext) => {
          this.#allowed();
          this.log.push(`deliver in ${context}`);
        },
      };
  }

  #allowed(): void {
    if (this.inAccess && !this.interruptsIn.memory)
      throw new Error("an interrupt in an access that forbids it");
  }

  allocPrivate(size: number): number {
    this.log.push("allocates private memory");
    this.privateBytes += size;
    return this.memory.grow(Math.ceil(size / PAGE)) * PAGE;
  }
  freePrivate(_address: number, size: number): void {
    this.privateBytes -= size;
  }
  openLine(irq: number): InterruptLine {
    this.lines.add(irq);
    return {
      set: (asserted) => {
        this.#allowed();
        this.log.push(`line ${irq} ${asserted ? "up" : "down"}`);
      },
      close: () => {
        this.lines.delete(irq);
      },
    };
  }
  mapRegisters(block: RegisterBlock): Mapping {
    this.blocks.add(block);
    return {
      unmap: () => {
        this.blocks.delete(block);
      },
    };
  }
  addPciFunction(fn: HostedPciFunction): PciSeat {
    this.functions.set(fn.slot, fn);
    return {
      setLine: (asserted) => {
        this.#allowed();
        this.log.push(`INTA of ${fn.slot} ${asserted ? "up" : "down"}`);
      },
      unplug: () => {
        this.functions.delete(fn.slot);
      },
    };
  }
  hook(hooks: EmulatorHooks): () => void {
    this.hooks = hooks;
    return () => {
      this.hooks = null;
    };
  }
  onHostWrite(gpa: number, length: number): void {
    this.log.push(`written ${gpa.toString(16)}+${length}`);
  }
  endSlice(): void {
    this.log.push("slice ends");
  }

  /** Takes the log since the last call, without what is not of interest. */
  take(wanted: RegExp = /./): string[] {
    return this.log.splice(0).filter((line) => wanted.test(line));
  }

  /** The guest makes an access. */
  access<T>(act: () => T): T {
    this.inAccess = true;
    try {
      return act();
    } finally {
      this.inAccess = false;
    }
  }

  /** A slice is over. */
  between(): void {
    this.hooks?.between();
  }

  /** A function as its driver reaches it. */
  pci(slot: number): PciAccess {
    const fn = (): HostedPciFunction => {
      const found = this.functions.get(slot);
      if (found === undefined) throw new Error(`nothing in slot ${slot}`);
      return found;
    };
    const bar = (index: number): RegisterBlock => fn().bars[index] as RegisterBlock;
    return {
      configRead: (offset, width: Width) => this.access(() => fn().configRead(offset, width)),
      configWrite: (offset, width, value) => {
        this.access(() => {
          fn().configWrite(offset, width, value);
        });
      },
      barRead: (index, offset, width) => this.access(() => bar(index).read(offset, width)),
      barWrite: (index, offset, width, value) => {
        this.access(() => {
          bar(index).write(offset, width, value);
        });
      },
    };
  }
}
