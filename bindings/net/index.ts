/**
 * Where frames go once they left a guest: ports, the switch, loopback, and middleware around ports.
 * @module
 */
export { Batch, formatMac, isGroupMac, parseMac } from "./batch.js";
export {
  countDrop,
  OFFLOAD_ALL,
  OFFLOAD_CSUM,
  OFFLOAD_ECN,
  OFFLOAD_TCP4,
  OFFLOAD_TCP6,
  OFFLOAD_UDP_L4,
  totalDrops,
  type DropCounts,
  type DropReason,
  type Port,
  type PortCounters,
  type PortPeer,
} from "./port.js";
export { FrameTally, type FrameBalance } from "./tally.js";
export { FRAME_LENGTH_MAX, FrameStore, RetainedBatch } from "./frame-store.js";
export { HostFrames, type FrameOffload } from "./host-frames.js";
export { joinPorts, type JoinedPorts } from "./join.js";
export { Loopback, type LoopbackOptions } from "./loopback.js";
export { Switch, type Station, type SwitchCounters, type SwitchOptions } from "./switch.js";
export { emptyOffloadCounters, OffloadStage, type FrameTaker, type OffloadCounters } from "./offload.js";
export { Middleware, type Direction } from "./middleware.js";
export { FaultInjector, type FaultCounters, type FaultOptions } from "./faults.js";
export { Random } from "./random.js";
export { RateLimiter, type RateLimiterOptions } from "./rate-limiter.js";
export { capturePort, type CaptureOptions } from "./capture.js";
export {
  PcapngWriter,
  type CaptureInterfaceOptions,
  type CaptureSink,
  type PcapngOptions,
} from "./pcapng.js";
export { readCapture } from "./pcap-reader.js";
export type { CapturedFrame, CaptureFile, CaptureInterface } from "./capture-file.js";
