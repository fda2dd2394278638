/**
 * What the wasm exports, as it comes out: raw 32-bit integers, signed, addresses unchecked.
 * Only the typed door (`Engine`, `Queue`, `Signal`, `RingIterator`) and benchmarks call these.
 */
export interface EngineExports {
  /** Address of a guest range, 0 when any byte lies outside. */
  translate(regions: number, gpaLow: number, gpaHigh: number, length: number): number;
  signalCreate(signal: number, regions: number, gpaLow: number, gpaHigh: number, locale: number): number;
  signalAttach(signal: number, regions: number, gpaLow: number, gpaHigh: number, locale: number): number;
  signalInject(signal: number): number;
  signalEnable(signal: number): number;
  signalDisable(signal: number): void;
  signalWakeupBegin(signal: number, budget: number): number;
  signalWakeupNext(signal: number): number;
  ringCreate(
    endpoint: number,
    regions: number,
    gpaLow: number,
    gpaHigh: number,
    count: number,
    ilp32: number,
    owned: number,
    offer: number,
  ): number;
  ringAttach(
    endpoint: number,
    regions: number,
    gpaLow: number,
    gpaHigh: number,
    length: number,
    limit: number,
    owned: number,
    accept: number,
  ): number;
  ringNegotiated(endpoint: number): number;
  ringCount(endpoint: number, index: number): number;
  ringSync(endpoint: number): void;
  ringEnable(endpoint: number, recheck: number): number;
  ringHasPayload(endpoint: number): number;
  ringWakeupBegin(endpoint: number, budget: number, recheck: number): number;
  ringWakeupNext(endpoint: number, recheck: number): number;
  violate(endpoint: number, kind: number): number;
  iterInit(iterator: number, endpoint: number, index: number, flags: number): number;
  iterSeek(iterator: number, type: number, offset: number): number;
  iterPush(iterator: number): number;
  iterPop(iterator: number): number;
  iterRead(iterator: number, entry: number): number;
  iterWrite(iterator: number, entry: number, what: number): number;
  pushReserve(endpoint: number, index: number, table: number, max: number, flags: number): number;
  pushCommit(endpoint: number, index: number, table: number, n: number, flags: number): number;
  popPeek(endpoint: number, index: number, table: number, max: number, flags: number): number;
  popRelease(endpoint: number, index: number, table: number, n: number, flags: number): number;
  ringPush(endpoint: number, index: number, entry: number, flags: number): number;
  ringPeek(endpoint: number, index: number, entry: number, flags: number): number;
  ringRelease(endpoint: number, index: number, entry: number, flags: number): number;
  ringTake(endpoint: number, index: number, entry: number, flags: number): number;
  framesDeliver(
    frames: number,
    frameCount: number,
    buffers: number,
    bufferCount: number,
    regions: number,
    result: number,
  ): void;
  framesGather(frames: number, n: number, staging: number): number;
  framesScatter(buffers: number, n: number, staging: number, regions: number): void;
  checksumRange(address: number, length: number): number;
  checksumAdd(a: number, b: number): number;
  checksumSwap(sum: number): number;
  checksumPseudo4(addresses: number, protocol: number, length: number): number;
  checksumPseudo6(addresses: number, protocol: number, length: number): number;
  checksumComplete(frame: number, length: number, start: number, offset: number, zeroIsOnes: number): number;
  segmentBegin(entry: number, state: number): number;
  segmentNext(
    state: number,
    table: number,
    max: number,
    headers: number,
    headerBytes: number,
    list: number,
    pieces: number,
  ): number;
  checksumFinish(
    entry: number,
    target: number,
    headers: number,
    headerBytes: number,
    list: number,
    pieces: number,
  ): number;
  coalesceBurst(
    frames: number,
    n: number,
    out: number,
    scratch: number,
    list: number,
    pieces: number,
    kinds: number,
    maxBytes: number,
    maxFrames: number,
  ): number;
  vsgPeek(
    endpoint: number,
    table: number,
    max: number,
    lists: number,
    poolLow: number,
    poolHigh: number,
    poolLength: number,
    scratch: number,
    granted: number,
  ): number;
  vsgReserve(
    endpoint: number,
    table: number,
    max: number,
    poolLow: number,
    poolHigh: number,
    poolLength: number,
    slotSize: number,
  ): number;
  vsgExtend(entry: number, list: number, pages: number, count: number): void;
  vsgFinish(endpoint: number, table: number, n: number, pages: number): void;
  virtioNetDecode(table: number, n: number, granted: number): void;
  virtioNetPlace(
    chains: number,
    chainCount: number,
    lengths: number,
    frames: number,
    targets: number,
    lists: number,
    room: number,
    result: number,
  ): number;
  virtioNetFinish(
    targets: number,
    n: number,
    chains: number,
    flags: number,
    regions: number,
    scratch: number,
  ): number;
  flowHashes(table: number, n: number, out: number, scratch: number): void;
  ringExport(endpoint: number, out: number): void;
  ringImport(endpoint: number, regions: number, state: number): number;
  ringRebase(endpoint: number): number;
  signalRebase(signal: number, size: number): number;
  virtqBind(
    queue: number,
    regions: number,
    flags: number,
    size: number,
    maxPieces: number,
    pool: number,
    descriptorsLow: number,
    descriptorsHigh: number,
    driverLow: number,
    driverHigh: number,
    deviceLow: number,
    deviceHigh: number,
  ): number;
  virtqTables(queue: number, gpaLow: number, gpaHigh: number, size: number): number;
  virtqRebase(queue: number): number;
  virtqPeek(queue: number, table: number, max: number, lists: number, room: number): number;
  virtqAdvance(queue: number, n: number): number;
  virtqComplete(queue: number, table: number, n: number): number;
  virtqRelease(queue: number, table: number, n: number): number;
  virtqCompleteOne(queue: number, id: number, slots: number, used: number): number;
  virtqEnable(queue: number, peeked: number): number;
  virtqEnableDelayed(queue: number): number;
  virtqDisable(queue: number): void;
  virtqHasWork(queue: number): number;
  virtqAdd(queue: number, table: number, n: number): number;
  virtqReap(queue: number, table: number, max: number): number;
  virtqExport(queue: number, out: number): void;
  virtqImport(queue: number, regions: number, state: number, length: number, pool: number): number;
  virtqViolate(queue: number, kind: number): number;
}
