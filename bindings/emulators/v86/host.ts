import { VbusError } from "../../errors.js";
import type { MemoryRegion } from "../../memory/space.js";
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
} from "../host.js";
import { V86ConfigSpace } from "./config-space.js";
import { V86Internals, whenReady, type V86Emulator } from "./internals.js";

/** Messages go here: to the local APIC of a processor (of the only one). Bits 20 … of the address. */
const APIC_MESSAGES = 0xfee;
/** Delivery mode of a message: fixed, or to the processor of lowest priority, which is the same with one. Others are not for devices. */
const DELIVERY_MODE = 0x700;
const DELIVERY_LOWEST = 0x100;
/** Interrupts that v86's own devices or the processor have; 10 and 11 are where PCI lines end. */
const TAKEN_IRQS = [0, 1, 2, 6, 8, 9, 10, 11, 12, 13, 14, 15];

const hosts = new WeakMap<V86Emulator, V86EmulatorHost>();

/** v86's machine as a host for what this package attaches. One object for one machine, as long as something is attached. */
export class V86EmulatorHost implements EmulatorHost {
  readonly name = "v86";
  /** v86. */
  readonly internals: V86Internals;
  /** v86 keeps the guest's registers in wasm locals during a memory access; a port access ends a block of translated code. */
  readonly interruptsIn = { memory: false, port: true };
  readonly messages?: MessageSink;
  readonly memory: WebAssembly.Memory;
  readonly regions: readonly MemoryRegion[];
  readonly #lines = new Set<number>();

  private constructor(private readonly emulator: V86Emulator) {
    const internals = new V86Internals(emulator);
    this.internals = internals;
    this.memory = internals.memory;
    this.regions = internals.regions;
    if (internals.hasApic)
      this.messages = {
        request: (address, data) => {
          const mode = data & DELIVERY_MODE;
          return (
            Math.floor(address / 2 ** 20) === APIC_MESSAGES &&
            (mode === 0 || mode === DELIVERY_LOWEST) &&
            internals.request(data & 0xff)
          );
        },
        deliver: (context: EmulatorContext) => {
          if (context !== "hook") internals.deliver(); // v86 looks right after it
        },
      };
  }

  /**
   * Calls `attach` as soon as the machine exists, and before a saved state is applied.
   * @throws VbusError EOPNOTSUPP for a v86 of another layout; what `attach` throws
   */
  static whenReady<T>(emulator: V86Emulator, attach: (host: V86EmulatorHost) => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      whenReady(emulator, () => {
        try {
          const host = hosts.get(emulator) ?? new V86EmulatorHost(emulator);
          hosts.set(emulator, host);
          resolve(attach(host));
        } catch (error) {
          reject(error instanceof Error ? error : new VbusError("EIO", "attaching failed", { cause: error }));
        }
      });
    });
  }

  /** Of v86's own allocator. */
  allocPrivate(size: number): number {
    return this.internals.allocatePrivate(size);
  }

  /** Gives it back. */
  freePrivate(address: number, size: number): void {
    this.internals.freePrivate(address, size);
  }

  /** One of the 16 interrupts of old, past the PCI bus. */
  openLine(irq: number): InterruptLine {
    if (!(Number.isInteger(irq) && irq >= 0 && irq < 16) || TAKEN_IRQS.includes(irq))
      throw new VbusError("EINVAL", `interrupt ${irq}; 5 and 7 are free in every v86`);
    if (this.#lines.has(irq))
      throw new VbusError(
        "EBUSY",
        `interrupt ${irq} belongs to something else that is attached; choose another`,
      );
    this.#lines.add(irq);
    let open = true;
    return {
      set: (asserted) => {
        if (open) this.internals.setIrq(irq, asserted);
      },
      close: () => {
        if (!open) return;
        this.internals.setIrq(irq, false);
        open = false;
        this.#lines.delete(irq);
      },
    };
  }

  /** Memory by pages, ports anywhere. */
  mapRegisters(block: RegisterBlock): Mapping {
    return this.internals.pci.map(block);
  }

  /** v86 keeps configuration spaces itself; what a guest may not change is put back after each write. */
  addPciFunction(fn: HostedPciFunction): PciSeat {
    const { pci } = this.internals;
    const devfn = fn.slot << 3;
    const space = new V86ConfigSpace();
    space.attach(
      pci.register({
        name: fn.name,
        devfn,
        config: fn.config.image(),
        bars: fn.bars,
        configWritten: (live, offset, width) => {
          fn.configWritten(offset, live.slice(offset, offset + width));
          space.putBack(fn.config, offset, width);
        },
        configRead: (offset, width) => (fn.readsThrough(offset, width) ? fn.configRead(offset, width) : null),
      }),
    );
    return {
      setLine: (asserted) => {
        pci.setLine(devfn, asserted);
      },
      showLine: space.showInterrupt,
      refresh: () => {
        space.putBackAll(fn.config);
      },
    };
  }

  /** Hooks v86's main loop, timers and reset. */
  hook(hooks: EmulatorHooks): () => void {
    this.internals.hook(hooks);
    this.internals.cureAcpiHotplug();
    return () => {
      this.internals.unhook();
      hosts.delete(this.emulator);
    };
  }

  /** Code that v86 translated from there is stale. */
  onHostWrite(gpa: number, length: number): void {
    this.internals.written(gpa, length);
  }

  /** As v86 counts them. */
  get instructions(): number {
    return this.internals.instructions;
  }

  /** True while the guest waits for an interrupt. */
  get idle(): boolean {
    return this.internals.halted;
  }

  /** Adds to v86's count of instructions: then it looks up from its work. */
  endSlice(): void {
    this.internals.endSlice();
  }
}
