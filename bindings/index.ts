/**
 * vbus: paravirtual I/O for virtual machines that live in JavaScript. Everything is also exported by concept
 * (`vbus/engine`, `vbus/bus`, `vbus/net`, …); this entry holds what most programs begin with.
 * @module
 */
export { VbusError, errorCode, type ErrorCode } from "./errors.js";
export { EventLoopScheduler, VirtualScheduler, type Scheduler, type Timer } from "./scheduler.js";
export { allocateGuestMemory, GuestMemory, MemorySpace, openHostView } from "./memory/index.js";
export { Vbus, Bus } from "./bus/index.js";
export { Switch } from "./net/index.js";
export { venetClass } from "./devices/venet/index.js";
export { LocalConnector } from "./connectors/local.js";
export { ProxyBus } from "./drivers/index.js";
export { VenetDriver, VenetNic } from "./drivers/venet/index.js";
