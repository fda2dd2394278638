import { VbusError } from "../../errors.js";

const PAGE = 0x1000;
/** Free for memory-mapped registers: see docs/v86.md. The first two pieces are the bridge's and the MSI-X tables'. */
const MEMORY_START = 0xfea40000;
const MEMORY_END = 0xfeb00000;

/** @throws VbusError EINVAL for an address where v86's guest cannot have registers of a device without PCI */
export function checkMemory(address: number): void {
  if (!(address >= MEMORY_START && address < MEMORY_END && address % PAGE === 0))
    throw new VbusError(
      "EINVAL",
      `registers at 0x${address.toString(16)}; give a multiple of 4 KiB from 0xfea40000 to 0xfeaff000`,
    );
}
