/**
 * The typed door to the wasm engine: rings, signals, bursts, checksums.
 * @module
 */
export { Engine, engineBytes, engineModule, provideEngineModule, type EngineFlavour } from "./engine.js";
export type { EngineExports } from "./exports.js";
export {
  PEEK_FRAMES,
  Queue,
  QUEUE_ROLES,
  queueSegmentLength,
  RECLAIM,
  RESERVE_BUFFERS,
  VIOLATION_NAMES,
  type AttachQueueOptions,
  type CreateQueueOptions,
  type QueueCounters,
  type QueueIndex,
  type QueueRole,
  type ViolationName,
} from "./queue.js";
export { RingIterator, type DescriptorImage } from "./iterator.js";
export { Signal, type SignalCounters } from "./signal.js";
export { BurstTable } from "./table.js";
export { bytesCopied, copyOffload, moveFrames, type Moved } from "./transfer.js";
export { QueueWakeups, type QueueWakeupOptions } from "./wakeup.js";
export { SignalWakeups, type SignalWakeupOptions } from "./signal-wakeup.js";
export { VsgReader, VsgWriter, type DescriptorPool } from "./vsg.js";
export { Checksum } from "./checksum.js";
export { ChecksumFinisher, Coalescer, Segmenter, type CoalescerOptions } from "./offload.js";
export { readChain, writeChain } from "./chain-bytes.js";
export { decodeNetHeaders, NetPlaces, type NetPlacing } from "./virtio-net.js";
export { FlowHasher } from "./flow.js";
export { ChainTable, type ChainPiece, type PlacedPiece } from "./chain-table.js";
export {
  DeviceVirtQueue,
  DriverVirtQueue,
  VIRTQUEUE_VIOLATION_NAMES,
  VirtQueue,
  type VirtQueueArea,
  type VirtQueueCounters,
  type VirtQueueFormat,
  type VirtQueueOptions,
  type VirtQueueViolation,
} from "./virtqueue.js";
export type { Bound } from "./virtqueue-side.js";
export { VirtQueueWakeups, type VirtQueueWakeupOptions } from "./virtqueue-wakeup.js";
export * from "../../assembly/abi/arena.js";
export * from "../../assembly/abi/arena-virtq.js";
export { errorCode, VbusError, type ErrorCode } from "../errors.js";
