import { PCI_OFF_BAR0 } from "../../../assembly/abi/pci.js";
import { VbusError } from "../../errors.js";
import type { Mapping, RegisterBlock } from "../host.js";

/*
 * What this package knows of v86's PCI bus and port table: the other half of internals.ts. Besides registering functions it
 * puts right what v86 gets wrong when there is more than its own devices:
 *
 *     configuration space   is plain storage: a function is told of writes, and may answer reads itself
 *     absent functions      a write to one throws, and nobody catches that
 *     interrupt lines       are shared (32 slots, two or four lines), but lowered by whoever lowers first: another function's
 *                           interrupt is lost. Here a line goes down when all of its functions have let go of it
 *     port BARs             that move onto ports which another one leaves later are cleared by it
 */

type Read = (this: unknown, port: number) => number;
type Write = (this: unknown, value: number) => void;

interface PortEntry {
  read8: Read;
  read16: Read;
  read32: Read;
}

/** v86's table of ports, and of memory-mapped registers. */
export interface Ports {
  register_read(port: number, device: object, read8: Read, read16: Read, read32: Read): void;
  register_write(port: number, device: object, write8: Write, write16: Write, write32: Write): void;
  mmap_register(
    address: number,
    size: number,
    read8: (address: number) => number,
    write8: (address: number, value: number) => void,
    read32: (address: number) => number,
    write32: (address: number, value: number) => void,
  ): void;
  ports: PortEntry[];
  create_empty_entry(): PortEntry;
}

type ConfigWrite = (address: number, value: number) => void;

interface BarRecord {
  size: number;
  /** Handlers of its ports; v86 fills this in. */
  entries?: PortEntry[];
}

/** v86's PCI bus. */
export interface Pci {
  register_device(device: {
    name: string;
    pci_id: number;
    pci_space: number[];
    pci_bars: (BarRecord | null)[];
  }): Int32Array;
  raise_irq(devfn: number): void;
  lower_irq(devfn: number): void;
  set_io_bars(bar: BarRecord, from: number, to: number): void;
  device_spaces: (Int32Array | undefined)[];
  isa_bridge_space8: Uint8Array;
  pci_addr32: Int32Array;
  pci_response: Uint8Array;
  pci_write8: ConfigWrite;
  pci_write16: ConfigWrite;
  pci_write32: ConfigWrite;
}

/** Members of {@link Ports} that must be there. */
export const PORT_MEMBERS = [
  "register_read",
  "register_write",
  "mmap_register",
  "ports",
  "create_empty_entry",
] as const;
/** Members of {@link Pci} that must be there. */
export const PCI_MEMBERS = [
  "register_device",
  "raise_irq",
  "lower_irq",
  "set_io_bars",
  "device_spaces",
  "isa_bridge_space8",
  "pci_addr32",
  "pci_response",
  "pci_write8",
  "pci_write16",
  "pci_write32",
] as const;

/** Behind the last BAR of a configuration space. */
export const PCI_BARS_END = 0x28;
/** Smallest piece of the address space that v86 maps. */
export const MMIO_GRANULE = 0x20000;
const PAGE = 0x1000;
const PAGES = MMIO_GRANULE / PAGE;
/** Ports below are v86's own, and never move. */
const FIRST_MOVABLE_PORT = 0x1000;
const CONFIG_DATA_PORT = 0xcfc;
/** Routes of the four PCI lines, in the ISA bridge's configuration space. */
const ROUTES = 0x60;
const OFF_INTERRUPT_WORD = 15;

/** What a PCI function needs of v86: its place, and who answers for its registers. */
export interface V86Function {
  /** Name for v86's messages. */
  readonly name: string;
  /** Device number << 3. */
  readonly devfn: number;
  /** The 256 bytes of configuration space to begin with. */
  readonly config: Uint8Array;
  /** Its BARs by number. */
  readonly bars: readonly (RegisterBlock | null)[];
  /**
   * The guest wrote to configuration space; v86 has stored it in `space`, which is what the guest reads: put back what it
   * must not have changed.
   */
  configWritten(space: Uint8Array, offset: number, width: number): void;
  /** The guest reads configuration space: what it gets, or null for what v86 has stored. */
  configRead?(offset: number, width: 1 | 2 | 4): number | null;
}

/** Replaces a member of one of v86's objects, until the adapter goes. */
export type Replace = <K extends string, F>(object: Record<K, F>, name: K, replacement: F) => void;

/** v86's PCI bus, with functions from outside on it. */
export class V86PciBus {
  readonly #functions = new Map<number, { fn: V86Function; space: Uint8Array }>();
  /** Pages of memory-mapped registers, by the granule that v86 maps. */
  readonly #granules = new Map<number, (RegisterBlock | undefined)[]>();
  /** Functions whose interrupt line is up, v86's own among them. */
  readonly #raised = new Set<number>();
  #readsWatched = false;

  constructor(
    private readonly io: Ports,
    private readonly pci: Pci,
    private readonly replace: Replace,
  ) {}

  /** True when something is in a slot. */
  taken(devfn: number): boolean {
    return this.pci.device_spaces[devfn] !== undefined;
  }

  /** Puts right what is said above. */
  cure(): void {
    this.#watchWrites();
    this.#shareLines();
    this.#keepMovedPorts();
  }

  /**
   * Registers a PCI function.
   * @returns the configuration space that the guest reads, as bytes
   * @throws VbusError EBUSY when the slot, or its memory, is taken
   */
  register(fn: V86Function): Uint8Array {
    const { devfn } = fn;
    if (this.taken(devfn))
      throw new VbusError(
        "EBUSY",
        `slot 0x${(devfn >>> 3).toString(16)} of v86's PCI bus is taken; choose another`,
      );
    for (const bar of fn.bars) if (bar?.kind === "memory") this.#mapMemory(bar);
    for (const bar of fn.bars) if (bar?.kind === "io") this.#mapPorts(bar);
    // after the handlers: it looks up those that it will have to move
    const words = this.pci.register_device({
      name: fn.name,
      pci_id: devfn,
      pci_space: [...fn.config],
      pci_bars: fn.bars.map((bar) => (bar === null ? null : { size: bar.size })),
    });
    const space = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
    this.#functions.set(devfn, { fn, space });
    if (fn.configRead !== undefined) this.#watchReads();
    return space;
  }

  /** Maps registers of no function. Ports stay when they are unmapped, and lead nowhere: v86 cannot take them back. @throws VbusError EBUSY */
  map(block: RegisterBlock): Mapping {
    if (block.kind === "memory") return { unmap: this.#mapMemory(block) };
    let mapped = true;
    this.#mapPorts({
      ...block,
      read: (offset, width) => (mapped ? block.read(offset, width) : 2 ** (8 * width) - 1),
      write: (offset, width, value) => {
        if (mapped) block.write(offset, width, value);
      },
    });
    return {
      unmap: () => {
        mapped = false;
      },
    };
  }

  /** Maps registers in memory, by pages: several of them share what v86 maps at once. Returns what takes them away. */
  #mapMemory(bar: RegisterBlock): () => void {
    const first = Math.floor(bar.address / PAGE);
    const pages = Array.from({ length: Math.ceil(bar.size / PAGE) }, (_, i) => first + i);
    const owners = (page: number): (RegisterBlock | undefined)[] =>
      this.#granules.get(Math.floor(page / PAGES)) ?? this.#mapGranule(Math.floor(page / PAGES));
    if (pages.some((page) => owners(page)[page % PAGES] !== undefined))
      throw new VbusError(
        "EBUSY",
        `memory at 0x${bar.address.toString(16)} is taken; choose another address`,
      );
    for (const page of pages) owners(page)[page % PAGES] = bar;
    return () => {
      for (const page of pages)
        if (owners(page)[page % PAGES] === bar) owners(page)[page % PAGES] = undefined;
    };
  }

  #mapGranule(granule: number): (RegisterBlock | undefined)[] {
    const owners = new Array<RegisterBlock | undefined>(PAGES).fill(undefined);
    this.#granules.set(granule, owners);
    // addresses arrive as signed integers
    const read = (address: number, width: 1 | 4): number => {
      const bar = owners[(address >>> 12) & (PAGES - 1)];
      return bar === undefined ? 0 : bar.read((address - bar.address) >>> 0, width);
    };
    const write = (address: number, width: 1 | 4, value: number): void => {
      const bar = owners[(address >>> 12) & (PAGES - 1)];
      bar?.write((address - bar.address) >>> 0, width, value);
    };
    this.io.mmap_register(
      granule * MMIO_GRANULE,
      MMIO_GRANULE,
      (address) => read(address, 1),
      (address, value) => {
        write(address, 1, value);
      },
      (address) => read(address, 4) | 0,
      (address, value) => {
        write(address, 4, value);
      },
    );
    return owners;
  }

  #mapPorts(bar: RegisterBlock): void {
    for (let offset = 0; offset < bar.size; offset++) {
      this.io.register_read(
        bar.address + offset,
        bar,
        () => bar.read(offset, 1),
        () => bar.read(offset, 2),
        () => bar.read(offset, 4) | 0,
      );
      this.io.register_write(
        bar.address + offset,
        bar,
        (value) => {
          bar.write(offset, 1, value);
        },
        (value) => {
          bar.write(offset, 2, value);
        },
        (value) => {
          bar.write(offset, 4, value);
        },
      );
    }
  }

  /** Configuration space of v86's is plain storage; this tells its function of every write. */
  #watchWrites(): void {
    const { pci } = this;
    for (const [name, width] of [
      ["pci_write8", 1],
      ["pci_write16", 2],
      ["pci_write32", 4],
    ] as const) {
      const original = pci[name];
      this.replace(pci, name, (address: number, value: number) => {
        // v86 itself throws, which nobody catches, when a guest writes 8 or 16 bits to a function that does not exist
        const devfn = (address >> 8) & 0xffff;
        const offset = address & 0xff & -width;
        if (pci.device_spaces[devfn] === undefined) return;
        const ours = this.#functions.get(devfn);
        // a BAR moves by 32-bit writes only; v86 ignores 16-bit ones, but stores bytes, and nothing moves
        if (ours !== undefined && width === 1 && offset >= PCI_OFF_BAR0 && offset < PCI_BARS_END) return;
        original.call(pci, address, value);
        ours?.fn.configWritten(ours.space, offset, width);
      });
    }
  }

  /** v86 looks a register up when its address is written, and answers reads with that; some must be looked up when read. */
  #watchReads(): void {
    if (this.#readsWatched) return;
    this.#readsWatched = true;
    const { pci } = this;
    for (let byte = 0; byte < 4; byte++) {
      const entry = this.io.ports[CONFIG_DATA_PORT + byte];
      if (entry === undefined) continue;
      for (const [name, width] of [
        ["read8", 1],
        ["read16", 2],
        ["read32", 4],
      ] as const) {
        const original = entry[name];
        this.replace(entry, name, function (this: unknown, port: number): number {
          refresh(byte, width);
          return original.call(this, port);
        });
      }
    }
    const refresh = (byte: number, width: 1 | 2 | 4): void => {
      const address = pci.pci_addr32[0] as number;
      if (address >= 0) return; // the enable bit is not set
      const fn = this.#functions.get((address >> 8) & 0xffff)?.fn;
      const offset = (address & 0xfc) + byte;
      const value = fn?.configRead?.(offset, width) ?? null;
      if (value === null) return;
      for (let i = 0; i < width && byte + i < 4; i++) pci.pci_response[byte + i] = value >>> (8 * i);
    };
  }

  #shareLines(): void {
    const { pci } = this;
    const raise = pci.raise_irq.bind(pci);
    const lower = pci.lower_irq.bind(pci);
    this.replace<"raise_irq", Pci["raise_irq"]>(pci, "raise_irq", (devfn) => {
      this.#raised.add(devfn);
      raise(devfn);
    });
    this.replace<"lower_irq", Pci["lower_irq"]>(pci, "lower_irq", (devfn) => {
      this.#raised.delete(devfn);
      const line = this.#line(devfn);
      for (const other of this.#raised) if (this.#line(other) === line) return;
      lower(devfn);
    });
  }

  /** The interrupt of the machine that a function's INTA ends at. */
  #line(devfn: number): number {
    const { device_spaces, isa_bridge_space8 } = this.pci;
    const pin = ((device_spaces[devfn]?.[OFF_INTERRUPT_WORD] ?? 0) >> 8) & 0xff;
    return isa_bridge_space8[ROUTES + ((pin + (devfn >> 3) - 2) & 3)] as number;
  }

  #keepMovedPorts(): void {
    const { io, pci } = this;
    this.replace<"set_io_bars", Pci["set_io_bars"]>(
      pci,
      "set_io_bars",
      ({ size, entries = [] }, from, to) => {
        for (let i = 0; i < size; i++) {
          const entry = entries[i] as PortEntry;
          if (from + i >= FIRST_MOVABLE_PORT && io.ports[from + i] === entry)
            io.ports[from + i] = io.create_empty_entry();
          if (to + i >= FIRST_MOVABLE_PORT) io.ports[to + i] = entry;
        }
      },
    );
  }

  /** Sets the level of a function's interrupt line. Never from within a memory access. */
  setLine(devfn: number, asserted: boolean): void {
    if (asserted) this.pci.raise_irq(devfn);
    else this.pci.lower_irq(devfn);
  }
}
