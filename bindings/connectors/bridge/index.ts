/**
 * The host half of the bridge, for connectors: calls, events and doorbells of `docs/abi/vbus-pci.md`, whatever carries
 * them (a doorbell page between threads, a PCI function, a page of memory-mapped registers, hypercalls).
 * @module
 */
export { BridgeHost, type BridgeCounters, type BridgeHostOptions } from "./host.js";
export { LineBridge, type LineBridgeCounters, type LineBridgeOptions } from "./line-bridge.js";
export type { BridgeAttachOptions } from "./open.js";
