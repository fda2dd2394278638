/**
 * A bus in front of a guest without PCI (`docs/abi/vbus-mmio.md`): one page of memory-mapped registers and an interrupt line,
 * or hypercalls that a guest finds by CPUID. Knows no emulator.
 * @module
 */
export { VbusMmio, type MmioWidth, type VbusMmioCounters } from "./registers.js";
export {
  VbusHypercall,
  vbusCpuid,
  type CpuidRegisters,
  type VbusCpuidOptions,
  type VbusHypercallCounters,
  type VbusHypercallOptions,
} from "./hypercall.js";
export type { LineBridgeCounters, LineBridgeOptions } from "../bridge/line-bridge.js";
export type { BridgeAttachOptions } from "../bridge/open.js";
