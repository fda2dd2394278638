/**
 * The guest half for guests written in TypeScript: proxy bus, drivers, and the interface that connectors implement.
 * @module
 */
export {
  ProxyBus,
  ProxyDevice,
  ProxyQueue,
  type Driver,
  type ProxyBusEvents,
  type ProxyQueueOptions,
} from "./proxy.js";
export { ProxySignal, type ProxySignalOptions, type SignalSink } from "./proxy-signal.js";
export type { DeviceHandle, GuestEvent, GuestSignal, GuestTransport } from "./transport.js";
export { BridgeGuest, type BridgeCarrier, type BridgeGuestOptions } from "./bridge.js";
export { connectMmio, type MmioGuest, type MmioGuestOptions, type MmioPage } from "./mmio.js";
