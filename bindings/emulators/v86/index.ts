/**
 * vbus in v86: the PCI bridge and virtio functions on the bus of an unmodified v86, and a port on its network.
 * @module
 */
export { attachVbus, type V86Counters, type V86Device, type V86Host, type V86Options } from "./attach.js";
export {
  attachVbusMmio,
  type V86VbusMmioCounters,
  type V86VbusMmioHost,
  type V86VbusMmioOptions,
} from "./attach-mmio.js";
export {
  attachVirtio,
  type V86MachineOptions,
  type V86VirtioCounters,
  type V86VirtioHost,
  type V86VirtioOptions,
} from "./attach-virtio.js";
export {
  attachVirtioMmio,
  type V86VirtioMmioCounters,
  type V86VirtioMmioHost,
  type V86VirtioMmioOptions,
} from "./attach-virtio-mmio.js";
export { V86NetworkPort, type V86NetworkOptions } from "./network-port.js";
export { V86_VERSION, type V86Emulator } from "./internals.js";
export type { InterruptCounters as V86InterruptCounters } from "../interrupts.js";
