import type { Mapping, RegisterBlock } from "vbus/emulators";
import { VbusError } from "vbus";
import { DEVICES_END, DEVICES_START } from "./map.js";

/** Width of an access in bytes. */
export type Width = 1 | 2 | 4;

const PAGE_BITS = 12;

/** Everything of the physical address space but RAM: registers, by the pages that they touch. */
export class AddressSpace {
  readonly #pages = new Map<number, RegisterBlock[]>();

  /** Puts registers where nothing is. @throws VbusError EINVAL outside the device window; EBUSY where something is */
  map(block: RegisterBlock): Mapping {
    const { address, size } = block;
    if (!(Number.isInteger(address) && size > 0 && address >= DEVICES_START && address + size <= DEVICES_END))
      throw new VbusError(
        "EINVAL",
        `registers at 0x${address.toString(16)}; devices live from 0x${DEVICES_START.toString(16)} to 0x${DEVICES_END.toString(16)}`,
      );
    const pages: number[] = [];
    for (let page = address >>> PAGE_BITS; page <= (address + size - 1) >>> PAGE_BITS; page++)
      pages.push(page);
    const taken = pages.some((page) =>
      this.#pages
        .get(page)
        ?.some((other) => address < other.address + other.size && other.address < address + size),
    );
    if (taken) throw new VbusError("EBUSY", `registers at 0x${address.toString(16)}: something is there`);
    for (const page of pages) this.#pages.set(page, [...(this.#pages.get(page) ?? []), block]);
    return {
      unmap: () => {
        for (const page of pages)
          this.#pages.set(
            page,
            (this.#pages.get(page) ?? []).filter((other) => other !== block),
          );
      },
    };
  }

  #find(address: number, width: Width): RegisterBlock | undefined {
    return this.#pages
      .get(address >>> PAGE_BITS)
      ?.find((block) => address >= block.address && address + width <= block.address + block.size);
  }

  /** A read; unsigned. Undefined where an access is a fault. */
  read(address: number, width: Width): number | undefined {
    const block = this.#find(address, width);
    if (block !== undefined) return block.read(address - block.address, width);
    return address >= DEVICES_START && address < DEVICES_END ? 0 : undefined;
  }

  /** A write. False where an access is a fault. */
  write(address: number, width: Width, value: number): boolean {
    const block = this.#find(address, width);
    block?.write(address - block.address, width, value);
    return block !== undefined || (address >= DEVICES_START && address < DEVICES_END);
  }
}
