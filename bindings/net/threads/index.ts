/**
 * Ports between threads and pages: over shared memory (`WorkerPort`), over a `MessagePort`, over a `BroadcastChannel`.
 * @module
 */
export { createFrameLink, type FrameLink, type FrameLinkOptions, type FrameLinkSide } from "./frame-link.js";
export { WorkerPort, type WorkerPortOptions } from "./worker-port.js";
export type { ThreadPortCounters } from "./counters.js";
export { ChannelPort, type ChannelPortOptions } from "./channel-port.js";
export { MessagePortPort, type FrameMessagePort } from "./message-port.js";
export { BroadcastChannelPort, type BroadcastChannelPortOptions } from "./broadcast-port.js";
