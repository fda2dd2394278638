import type { VirtioMmio } from "vbus/connectors/virtio-mmio";
/** Width of an access. */
export type Width = 1 | 2 | 4;
/** An area of a queue. */
export type Area = "descriptors" | "driver" | "device";

/** A virtio device as a driver reaches it: what is the same for every transport. Offsets are those of the specification. */
export interface Door {
  status(): number;
  writeStatus(value: number): void;
  offered(word: number): number;
  choose(word: number, value: number): void;
  queueMax(queue: number): number;
  setSize(queue: number, size: number): void;
  setArea(queue: number, area: Area, low: number, high: number): void;
  enable(queue: number): void;
  enabled(queue: number): boolean;
  reset(queue: number): void;
  kick(queue: number): void;
  config(offset: number, width: Width): number;
  writeConfig(offset: number, width: Width, value: number): void;
  generation(): number;
  /** Reads, and takes back, the reasons of the interrupt: bit 0: a queue, bit 1: the configuration. */
  acknowledge(): number;
}

const AREAS: Area[] = ["descriptors", "driver", "device"];

/** Where a structure lies, as its capability says. */
interface Structure {
  bar: number;
  offset: number;
  length: number;
}

/** Accesses to a PCI function, as a driver makes them. */
export interface PciAccess {
  configRead(offset: number, width: Width): number;
  configWrite(offset: number, width: Width, value: number): void;
  barRead(bar: number, offset: number, width: Width): number;
  barWrite(bar: number, offset: number, width: Width, value: number): void;
}

/** Walks the capability list as a driver does (virtio 1.2: 4.1.4). */
export function structuresOf(fn: PciAccess): Map<number, Structure & { at: number }> {
  const found = new Map<number, Structure & { at: number }>();
  const seen = new Set<number>();
  for (let at = fn.configRead(0x34, 1); at !== 0; at = fn.configRead(at + 1, 1)) {
    if (seen.has(at)) throw new Error("the capability list is a loop");
    seen.add(at);
    if (fn.configRead(at, 1) !== 9) continue;
    found.set(fn.configRead(at + 3, 1), {
      at,
      bar: fn.configRead(at + 4, 1),
      offset: fn.configRead(at + 8, 4),
      length: fn.configRead(at + 12, 4),
    });
  }
  return found;
}

/** Where a capability lies, or 0. */
export function capabilityOf(fn: PciAccess, id: number): number {
  let at = fn.configRead(0x34, 1);
  while (at !== 0 && fn.configRead(at, 1) !== id) at = fn.configRead(at + 1, 1);
  return at;
}

/** Registers of a PCI function, found by its capabilities. */
export class PciDoor implements Door {
  readonly #common: Structure;
  readonly #notify: Structure;
  readonly #isr: Structure;
  readonly #device: Structure | undefined;

  constructor(readonly fn: PciAccess) {
    const structures = structuresOf(fn);
    const need = (type: number): Structure => {
      const structure = structures.get(type);
      if (structure === undefined) throw new Error(`no capability of type ${type}`);
      return structure;
    };
    this.#common = need(1);
    this.#notify = need(2);
    this.#isr = need(3);
    this.#device = structures.get(4);
  }

  /** The registers of a driver whose device is a PCI function. */
  static of(door: Door): PciDoor {
    if (door instanceof PciDoor) return door;
    throw new Error("this device is no PCI function");
  }

  read(offset: number, width: Width): number {
    return this.fn.barRead(this.#common.bar, this.#common.offset + offset, width);
  }
  write(offset: number, width: Width, value: number): void {
    this.fn.barWrite(this.#common.bar, this.#common.offset + offset, width, value);
  }
  select(queue: number): void {
    this.write(0x16, 2, queue);
  }
  status(): number {
    return this.read(0x14, 1);
  }
  writeStatus(value: number): void {
    this.write(0x14, 1, value);
  }
  offered(word: number): number {
    this.write(0x00, 4, word);
    return this.read(0x04, 4);
  }
  choose(word: number, value: number): void {
    this.write(0x08, 4, word);
    this.write(0x0c, 4, value);
  }
  queueMax(queue: number): number {
    this.select(queue);
    return this.read(0x18, 2);
  }
  setSize(queue: number, size: number): void {
    this.select(queue);
    this.write(0x18, 2, size);
  }
  setArea(queue: number, area: Area, low: number, high: number): void {
    this.select(queue);
    const at = 0x20 + 8 * AREAS.indexOf(area);
    this.write(at, 4, low);
    this.write(at + 4, 4, high);
  }
  enable(queue: number): void {
    this.select(queue);
    this.write(0x1c, 2, 1);
  }
  enabled(queue: number): boolean {
    this.select(queue);
    return this.read(0x1c, 2) === 1;
  }
  reset(queue: number): void {
    this.select(queue);
    this.write(0x3a, 2, 1);
  }
  mapQueue(queue: number, vector: number): number {
    this.select(queue);
    this.write(0x1a, 2, vector);
    return this.read(0x1a, 2);
  }
  mapConfig(vector: number): number {
    this.write(0x10, 2, vector);
    return this.read(0x10, 2);
  }
  kick(queue: number): void {
    this.fn.barWrite(this.#notify.bar, this.#notify.offset, 2, queue);
  }
  config(offset: number, width: Width): number {
    const { bar, offset: first } = this.#device!;
    return this.fn.barRead(bar, first + offset, width);
  }
  writeConfig(offset: number, width: Width, value: number): void {
    const { bar, offset: first } = this.#device!;
    this.fn.barWrite(bar, first + offset, width, value);
  }
  generation(): number {
    return this.read(0x15, 1);
  }
  acknowledge(): number {
    return this.fn.barRead(this.#isr.bar, this.#isr.offset, 1);
  }
}

/** Memory-mapped registers. */
export class MmioDoor implements Door {
  constructor(readonly registers: VirtioMmio) {}

  read(offset: number): number {
    return this.registers.read(offset, 4);
  }
  write(offset: number, value: number): void {
    this.registers.write(offset, 4, value);
  }
  status(): number {
    return this.read(0x070);
  }
  writeStatus(value: number): void {
    this.write(0x070, value);
  }
  offered(word: number): number {
    this.write(0x014, word);
    return this.read(0x010);
  }
  choose(word: number, value: number): void {
    this.write(0x024, word);
    this.write(0x020, value);
  }
  queueMax(queue: number): number {
    this.write(0x030, queue);
    return this.read(0x034);
  }
  setSize(queue: number, size: number): void {
    this.write(0x030, queue);
    this.write(0x038, size);
  }
  setArea(queue: number, area: Area, low: number, high: number): void {
    this.write(0x030, queue);
    const at = 0x080 + 0x10 * AREAS.indexOf(area);
    this.write(at, low);
    this.write(at + 4, high);
  }
  enable(queue: number): void {
    this.write(0x030, queue);
    this.write(0x044, 1);
  }
  enabled(queue: number): boolean {
    this.write(0x030, queue);
    return this.read(0x044) === 1;
  }
  reset(queue: number): void {
    this.write(0x030, queue);
    this.write(0x0c0, 1);
  }
  kick(queue: number): void {
    this.write(0x050, queue);
  }
  config(offset: number, width: Width): number {
    return this.registers.read(0x100 + offset, width);
  }
  writeConfig(offset: number, width: Width, value: number): void {
    this.registers.write(0x100 + offset, width, value);
  }
  generation(): number {
    return this.read(0x0fc);
  }
  acknowledge(): number {
    const reasons = this.read(0x060);
    this.write(0x064, reasons);
    return reasons;
  }
}
