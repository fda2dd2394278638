/** What both flavours export; the typed door in `bindings/engine/` documents each for its callers. */
export { translate } from "./regions";
export {
  signalAttach,
  signalCreate,
  signalDisable,
  signalEnable,
  signalInject,
  signalWakeupBegin,
  signalWakeupNext,
} from "./shm-signal";
export {
  ringAttach,
  ringCount,
  ringCreate,
  ringEnable,
  ringHasPayload,
  ringNegotiated,
  ringSync,
  ringWakeupBegin,
  ringWakeupNext,
  violate,
} from "./ring";
export { iterInit, iterPop, iterPush, iterRead, iterSeek, iterWrite } from "./iterator";
export { popPeek, popRelease, pushCommit, pushReserve } from "./burst";
export { ringPeek, ringPush, ringRelease, ringTake } from "./single";
export { framesDeliver, framesGather, framesScatter } from "./frames";
export {
  checksumAdd,
  checksumComplete,
  checksumPseudo4,
  checksumPseudo6,
  checksumRange,
  checksumSwap,
} from "./checksum";
export { coalesceBurst } from "./coalesce";
export { checksumFinish, segmentBegin, segmentNext } from "./segment";
export { vsgExtend, vsgFinish, vsgPeek, vsgReserve } from "./vsg";
export { virtioNetDecode, virtioNetFinish, virtioNetPlace } from "./virtio-net";
export { flowHashes } from "./flow-hash";
export { ringExport, ringImport, ringRebase, signalRebase } from "./state";
export { virtqViolate } from "./virtq";
export {
  virtqAdd,
  virtqAdvance,
  virtqBind,
  virtqComplete,
  virtqCompleteOne,
  virtqDisable,
  virtqEnable,
  virtqEnableDelayed,
  virtqHasWork,
  virtqPeek,
  virtqReap,
  virtqRebase,
  virtqRelease,
  virtqTables,
} from "./virtq-endpoint";
export { virtqExport, virtqImport } from "./virtq-state";
