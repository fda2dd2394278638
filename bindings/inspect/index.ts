/**
 * Looking at a running host: the bus tree, every queue, devices, ports and their counters as plain data; pictures of rings;
 * text for Prometheus. Nothing is changed by looking. See `docs/inspect.md`.
 * @module
 */
export { inspect, INSPECTION_VERSION, type InspectSources, type Inspection } from "./inspection.js";
export {
  inspectBus,
  type BusSnapshot,
  type ClientSnapshot,
  type DeviceSnapshot,
  type SessionSnapshot,
  type VbusSnapshot,
} from "./bus.js";
export { inspectBridge, type BridgeSnapshot } from "./bridge.js";
export { inspectVirtio, type VirtioSnapshot } from "./virtio.js";
export { inspectPort, inspectSwitch, type PortSnapshot, type SwitchSnapshot } from "./network.js";
export { inspectQueue, type InspectOptions, type QueueSnapshot } from "./queue.js";
export type { IoqSnapshot, OwnRingIndex, RingIndex, SharedRingIndex } from "./ioq.js";
export type { PackedEvent, PackedEvents, SplitRings, VirtqueueSnapshot } from "./virtqueue.js";
export type { NotificationBytes, SignalBytes, SignalSnapshot } from "./signal.js";
export type { Plain } from "./plain.js";
export { ringPicture, type PictureOptions } from "./picture.js";
export { EXPOSITION_TYPE, prometheusText } from "./prometheus.js";
export { inspectionText, type InspectionTextOptions } from "./text.js";
