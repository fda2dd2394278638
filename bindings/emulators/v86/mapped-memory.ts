import { checkAddress } from "../validation.js";

/** @throws VbusError EINVAL for an address where v86's guest cannot have registers of a device without PCI */
export function checkMemory(address: number): void {
  // free for memory-mapped registers: see docs/v86.md. The first two pieces are the bridge's and the MSI-X tables'
  checkAddress("registers at", address, { multiple: 0x1000, from: 0xfea40000, to: 0xfeaff000 });
}
