/**
 * IOQ version 4: one side of one ring (`docs/abi/ioq.md`).
 *
 * An endpoint believes nothing of the shared ring twice: `count`, the stride and the index ends that this side moves
 * are private copies. What is read from the segment later is: owners (`sown`), the peer's ends of the indexes (only to
 * compute `full` and the queries), and descriptor bodies. Each is read once into a local and checked there.
 * A violation breaks this queue only: the endpoint keeps the reason, counts it, and refuses everything from then on.
 */
import {
  EP_OFF_BROKEN,
  EP_OFF_COOKIES,
  EP_OFF_COUNT,
  EP_OFF_DESC,
  EP_OFF_EXTENSIONS,
  EP_OFF_GPA,
  EP_OFF_INDEXES,
  EP_OFF_LENGTH,
  EP_OFF_OFFERED,
  EP_OFF_OWNED,
  EP_OFF_OWNER,
  EP_OFF_PUSHED,
  EP_OFF_RING,
  EP_OFF_STRIDE,
  EP_OFF_VALID_COUNT,
  EP_OFF_VIOLATIONS,
  EP_STATE_SIZE,
  OWNS_INUSE_HEAD,
  OWNS_INUSE_TAIL,
  OWNS_VALID_HEAD,
  OWNS_VALID_TAIL,
  RECHECK_INUSE_HEAD,
  RECHECK_INUSE_TAIL,
  RECHECK_NONE,
  SIG_KIND_IOQ,
  SIG_OFF_BUDGET,
  SIG_OFF_DEFERRED,
  SIG_OFF_IN_WAKEUP,
  SIG_OFF_LOCAL,
  SIG_OFF_LOCALE,
  SIG_OFF_REGIONS,
  SIG_OFF_SPURIOUS,
  SIG_OFF_WAKEUPS,
  VIOLATION_EXTENSION,
  VIOLATION_INDEX,
  VIOLATION_KINDS,
  VIOLATION_OWNER,
  WAKEUP_DONE,
} from "./abi/arena";
import { EFAULT, EINVAL, EPROTO } from "./abi/errno";
import {
  COMPACT_DESC_SIZE,
  COMPACT_OFF_SOWN,
  DESC_OFF_SOWN,
  EXT_ACCEPTED,
  EXT_COMPACT,
  EXT_KNOWN,
  EXT_LAZY_INDEXES,
  IDX_INUSE,
  IDX_OFF_FULL,
  IDX_OFF_HEAD,
  IDX_OFF_TAIL,
  IDX_VALID,
  IOQ_DESC_SIZE,
  IOQ_DESC_SIZE_ILP32,
  IOQ_IDX_SIZE,
  IOQ_MAGIC,
  IOQ_OFF_COUNT,
  IOQ_OFF_EXTENSION,
  IOQ_OFF_IDX,
  IOQ_OFF_MAGIC,
  IOQ_OFF_RING,
  IOQ_OFF_RING_ILP32,
  IOQ_OFF_SIGNAL,
  IOQ_OFF_VERSION,
  IOQ_VERSION,
} from "./abi/ioq";
import { NORTH, SOUTH } from "./abi/shm-signal";
import { addCounter, loadByte, loadWord, storeByte, storeWord } from "./memory-order";
import { logWrite, translateRange } from "./regions";
import {
  signalBind,
  signalCheck,
  signalDirtyAgain,
  signalEnable,
  signalFormat,
  signalRun,
  signalSettle,
  signalTurn,
} from "./shm-signal";

/** Breaks the queue for a reason and counts it. Returns -EPROTO for the caller to pass on. */
export function violate(endpoint: usize, kind: u32): i32 {
  if (load<u32>(endpoint, EP_OFF_BROKEN) == 0) store<u32>(endpoint, kind, EP_OFF_BROKEN);
  const counter = endpoint + EP_OFF_VIOLATIONS + (<usize>kind % VIOLATION_KINDS) * 4;
  store<u32>(counter, load<u32>(counter) + 1);
  return -EPROTO;
}

/** Segment length for `count` descriptors; 64 bits, for a hostile `count` must not wrap. */
export function segmentLength(count: u32, ilp32: bool): u64 {
  return ilp32
    ? <u64>IOQ_OFF_RING_ILP32 + <u64>count * IOQ_DESC_SIZE_ILP32
    : <u64>IOQ_OFF_RING + <u64>count * IOQ_DESC_SIZE;
}

/** Address of a descriptor. `position` is below count: every caller took it from a private index or checked it. */
export function descriptorAt(endpoint: usize, position: u32): usize {
  return (
    <usize>load<u32>(endpoint, EP_OFF_DESC) + <usize>position * <usize>load<u32>(endpoint, EP_OFF_STRIDE)
  );
}

/** Guest-physical address of something inside the segment. */
export function guestAddressOf(endpoint: usize, address: usize): u64 {
  return load<u64>(endpoint, EP_OFF_GPA) + <u64>(address - <usize>load<u32>(endpoint, EP_OFF_RING));
}

/** Address of a private index end: index 0 valid, 1 inuse; end 0 head, 1 tail. */
export function privateIndex(endpoint: usize, index: u32, end: u32): usize {
  return endpoint + EP_OFF_INDEXES + <usize>(((index << 1) | end) << 2);
}

/** Address of a shared index record. */
export function sharedIndex(endpoint: usize, index: u32): usize {
  return <usize>load<u32>(endpoint, EP_OFF_RING) + IOQ_OFF_IDX + <usize>(index * IOQ_IDX_SIZE);
}

/** True when this side moves an end of an index, so that its private copy is the truth. */
export function owns(endpoint: usize, index: u32, end: u32): bool {
  return (load<u32>(endpoint, EP_OFF_OWNED) & (1 << ((index << 1) | end))) != 0;
}

/** True when shared indexes are hints that are written only now and then. */
export function isLazy(endpoint: usize): bool {
  return (load<u32>(endpoint, EP_OFF_EXTENSIONS) & EXT_LAZY_INDEXES) != 0;
}

/** True when descriptors have 16 bytes (`docs/abi/extensions.md` 5). */
export function isCompact(endpoint: usize): bool {
  return load<u32>(endpoint, EP_OFF_STRIDE) == COMPACT_DESC_SIZE;
}

/** Points an endpoint at its descriptors, in the layout that was negotiated. Its ring's address and count are set. */
export function placeDescriptors(endpoint: usize, ilp32: bool): void {
  const first = load<u32>(endpoint, EP_OFF_RING) + (ilp32 ? IOQ_OFF_RING_ILP32 : IOQ_OFF_RING);
  const compact = (load<u32>(endpoint, EP_OFF_EXTENSIONS) & EXT_COMPACT) != 0;
  store<u32>(endpoint, first, EP_OFF_DESC);
  store<u32>(
    endpoint,
    ilp32 ? IOQ_DESC_SIZE_ILP32 : compact ? COMPACT_DESC_SIZE : IOQ_DESC_SIZE,
    EP_OFF_STRIDE,
  );
  store<u32>(endpoint, compact ? COMPACT_OFF_SOWN : DESC_OFF_SOWN, EP_OFF_OWNER);
  store<u32>(
    endpoint,
    compact ? first + load<u32>(endpoint, EP_OFF_COUNT) * COMPACT_DESC_SIZE : 0,
    EP_OFF_COOKIES,
  );
}

/** Value of an index end: private, or the peer's, read once and checked (defect D1). -EPROTO when out of range. */
export function indexValue(endpoint: usize, index: u32, end: u32): i32 {
  if (owns(endpoint, index, end)) return load<i32>(privateIndex(endpoint, index, end));
  const value = loadWord(sharedIndex(endpoint, index) + (end == 0 ? IDX_OFF_HEAD : IDX_OFF_TAIL));
  if (value >= load<u32>(endpoint, EP_OFF_COUNT)) return violate(endpoint, VIOLATION_INDEX);
  return <i32>value;
}

/** 1 when this side owns the descriptor, 0 when the peer does, -EPROTO when the owner is neither. */
export function ownedHere(endpoint: usize, descriptor: usize): i32 {
  const owner = loadByte(descriptor + <usize>load<u32>(endpoint, EP_OFF_OWNER)); // [C1] pairs with [P3]; also the load that O4 asks for
  if (owner == load<u32>(endpoint, SIG_OFF_LOCALE)) return 1;
  if (owner > <u32>SOUTH) return violate(endpoint, VIOLATION_OWNER);
  return 0;
}

function bindRing(
  endpoint: usize,
  regions: usize,
  gpa: u64,
  ring: usize,
  locale: u32,
  count: u32,
  ilp32: bool,
): void {
  memory.fill(endpoint, 0, EP_STATE_SIZE);
  signalBind(endpoint, regions, gpa + IOQ_OFF_SIGNAL, ring + IOQ_OFF_SIGNAL, locale, SIG_KIND_IOQ);
  store<u32>(endpoint, <u32>ring, EP_OFF_RING);
  store<u32>(endpoint, count, EP_OFF_COUNT);
  placeDescriptors(endpoint, ilp32);
  store<u32>(endpoint, <u32>segmentLength(count, ilp32), EP_OFF_LENGTH);
  store<u64>(endpoint, gpa, EP_OFF_GPA);
}

/**
 * North: formats a segment and binds an endpoint to it (`docs/abi/ioq.md` 2). `owned` are `OWNS_…` bits, `offer` the
 * extension bits to offer (LP64 layout only). 0; -EINVAL: count 0, segment over 4 GiB, alignment, offer; -EFAULT: range.
 */
export function ringCreate(
  endpoint: usize,
  regions: usize,
  gpaLow: u32,
  gpaHigh: u32,
  count: u32,
  ilp32: u32,
  owned: u32,
  offer: u32,
): i32 {
  const gpa = ((<u64>gpaHigh) << 32) | gpaLow;
  const length = segmentLength(count, ilp32 != 0);
  if (count == 0 || length > <u64>u32.MAX_VALUE) return -EINVAL;
  if ((offer & ~EXT_KNOWN) != 0 || (offer != 0 && ilp32 != 0)) return -EINVAL;
  const ring = translateRange(regions, gpa, length);
  if (ring == 0) return -EFAULT;
  if ((ring & 3) != 0) return -EINVAL;
  memory.fill(ring, 0, <usize>length);
  store<u32>(ring, IOQ_MAGIC, IOQ_OFF_MAGIC);
  store<u32>(ring, IOQ_VERSION, IOQ_OFF_VERSION);
  store<u32>(ring, count, IOQ_OFF_COUNT);
  if (ilp32 == 0) store<u32>(ring, offer, IOQ_OFF_EXTENSION);
  signalFormat(ring + IOQ_OFF_SIGNAL);
  logWrite(regions, gpa, <u32>length);
  bindRing(endpoint, regions, gpa, ring, NORTH, count, ilp32 != 0);
  store<u32>(endpoint, owned, EP_OFF_OWNED);
  store<u32>(endpoint, offer, EP_OFF_OFFERED);
  return 0;
}

/**
 * South: checks a segment that north announced and binds an endpoint to it, in the order of `docs/abi/ioq.md` 2 plus the
 * checks of its section 9. `limit` = most descriptors (0xffffffff: none), `accept` = extension bits to accept when
 * offered. 0; -EINVAL: signal, magic, version, count, length, alignment; -EFAULT: range; -EPROTO: an index out of range.
 */
export function ringAttach(
  endpoint: usize,
  regions: usize,
  gpaLow: u32,
  gpaHigh: u32,
  length: u32,
  limit: u32,
  owned: u32,
  accept: u32,
): i32 {
  const gpa = ((<u64>gpaHigh) << 32) | gpaLow;
  const ring = translateRange(regions, gpa, length);
  if (ring == 0) return -EFAULT;
  if (length < <u32>IOQ_OFF_RING_ILP32 || (ring & 3) != 0) return -EINVAL;
  if (!signalCheck(ring + IOQ_OFF_SIGNAL)) return -EINVAL;
  if (load<u32>(ring, IOQ_OFF_MAGIC) != IOQ_MAGIC) return -EINVAL;
  if (load<u32>(ring, IOQ_OFF_VERSION) != IOQ_VERSION) return -EINVAL;
  const count = load<u32>(ring, IOQ_OFF_COUNT); // double fetch: this copy is the only one that is ever used
  if (count == 0 || count > limit) return -EINVAL;
  const ilp32 = <u64>length == segmentLength(count, true);
  if (!ilp32 && <u64>length != segmentLength(count, false)) return -EINVAL;

  bindRing(endpoint, regions, gpa, ring, SOUTH, count, ilp32);
  const error = adoptIndexes(endpoint, owned);
  if (error != 0) return error;
  store<u32>(endpoint, owned, EP_OFF_OWNED);
  if (!ilp32) {
    const offered = loadWord(ring + IOQ_OFF_EXTENSION);
    let accepted = (offered & (<u32>EXT_ACCEPTED)) != 0 ? 0 : offered & accept & EXT_KNOWN;
    if ((accepted & EXT_COMPACT) != 0 && !isUntouched(ring)) accepted &= ~EXT_COMPACT;
    if (accepted != 0) {
      storeWord(ring + IOQ_OFF_EXTENSION, accepted | (<u32>EXT_ACCEPTED));
      logWrite(regions, gpa + IOQ_OFF_EXTENSION, 4);
      store<u32>(endpoint, accepted, EP_OFF_EXTENSIONS);
      placeDescriptors(endpoint, false);
    }
  }
  return 0;
}

/** True when no index of a ring has moved yet: only then descriptors can change their layout. */
function isUntouched(ring: usize): bool {
  const indexes = ring + IOQ_OFF_IDX;
  return (load<u64>(indexes) | load<u64>(indexes, 8) | load<u64>(indexes, 16)) == 0;
}

/** Copies the shared values of the index ends that this side is going to move (nothing is owned yet, so all are checked). */
function adoptIndexes(endpoint: usize, owned: u32): i32 {
  for (let bit: u32 = 0; bit < 4; bit++) {
    if ((owned & (1 << bit)) == 0) continue;
    const value = indexValue(endpoint, bit >> 1, bit & 1);
    if (value < 0) return value;
    store<i32>(privateIndex(endpoint, bit >> 1, bit & 1), value);
  }
  return 0;
}

/**
 * North, once DEVSHM has returned: learns what south accepted (`docs/abi/extensions.md`). Returns the negotiated bits,
 * -EPROTO (queue broken) when south accepted what was not offered; -EINVAL when compact descriptors were offered and
 * something was pushed before.
 */
export function ringNegotiated(endpoint: usize): i32 {
  const offered = load<u32>(endpoint, EP_OFF_OFFERED);
  if (offered == 0) return 0;
  const word = loadWord(<usize>load<u32>(endpoint, EP_OFF_RING) + IOQ_OFF_EXTENSION);
  if ((word & (<u32>EXT_ACCEPTED)) == 0) return 0;
  const accepted = word & ~(<u32>EXT_ACCEPTED);
  if ((accepted & ~offered) != 0) return violate(endpoint, VIOLATION_EXTENSION);
  if ((accepted & EXT_COMPACT) != 0 && load<u64>(endpoint, EP_OFF_PUSHED) != 0) return -EINVAL;
  store<u32>(endpoint, accepted, EP_OFF_EXTENSIONS);
  if ((accepted & EXT_COMPACT) != 0) placeDescriptors(endpoint, false);
  return <i32>accepted;
}

/** Number of descriptors on an index (`docs/abi/ioq.md` 3), or -EINVAL (index), -EPROTO (peer's end out of range, or broken). */
export function ringCount(endpoint: usize, index: u32): i32 {
  if (index > <u32>IDX_INUSE) return -EINVAL;
  if (load<u32>(endpoint, EP_OFF_BROKEN) != 0) return -EPROTO;
  const count = load<i32>(endpoint, EP_OFF_COUNT);
  if (index == IDX_VALID && owns(endpoint, index, 0) && owns(endpoint, index, 1)) {
    return load<i32>(endpoint, EP_OFF_VALID_COUNT); // both ends are ours: nothing shared is needed to know
  }
  // a producer reads `full` before the peer's head, a consumer after the peer's tail: each against the peer's store order
  const shared = sharedIndex(endpoint, index) + IDX_OFF_FULL;
  const early = loadByte(shared);
  const head = indexValue(endpoint, index, 0);
  if (head < 0) return head;
  const tail = indexValue(endpoint, index, 1);
  if (tail < 0) return tail;
  if (head == tail) return (owns(endpoint, index, 0) ? loadByte(shared) : early) != 0 ? count : 0;
  return tail > head ? tail - head : tail - head + count;
}

/** Writes the shared copies of all index ends that this side moves (only lazy endpoints ever differ from them). */
export function ringSync(endpoint: usize): void {
  const count = load<u32>(endpoint, EP_OFF_COUNT);
  for (let index: u32 = IDX_VALID; index <= <u32>IDX_INUSE; index++) {
    const shared = sharedIndex(endpoint, index);
    if (owns(endpoint, index, 0))
      storeWord(shared + IDX_OFF_HEAD, load<u32>(privateIndex(endpoint, index, 0)));
    if (owns(endpoint, index, 1))
      storeWord(shared + IDX_OFF_TAIL, load<u32>(privateIndex(endpoint, index, 1)));
  }
  if (owns(endpoint, IDX_VALID, 1)) {
    storeByte(
      sharedIndex(endpoint, IDX_VALID) + IDX_OFF_FULL,
      load<u32>(endpoint, EP_OFF_VALID_COUNT) == count ? 1 : 0,
    );
  }
  logWrite(load<u32>(endpoint, SIG_OFF_REGIONS), load<u64>(endpoint, EP_OFF_GPA), IOQ_OFF_RING_ILP32);
}

/** True when the descriptor that a receiver waits for has arrived (`RECHECK_…`). */
function hasWork(endpoint: usize, recheck: u32): bool {
  if (recheck == RECHECK_NONE || load<u32>(endpoint, EP_OFF_BROKEN) != 0) return false;
  const index: u32 = recheck <= <u32>RECHECK_INUSE_TAIL ? IDX_INUSE : IDX_VALID;
  const end: u32 = recheck == RECHECK_INUSE_TAIL ? 1 : 0;
  if (!owns(endpoint, index, end)) return false;
  if (recheck > <u32>RECHECK_INUSE_TAIL && load<u32>(endpoint, EP_OFF_VALID_COUNT) == 0) return false;
  return ownedHere(endpoint, descriptorAt(endpoint, load<u32>(privateIndex(endpoint, index, end)))) == 1;
}

/** shm-signal enable, then a look at the ring (Q7). Returns 1 when the caller must schedule a deferred wakeup. */
export function ringEnable(endpoint: usize, recheck: u32): u32 {
  if (isLazy(endpoint)) ringSync(endpoint); // a side that goes idle leaves true indexes behind
  if (signalEnable(endpoint) != 0) return 1;
  if (load<u32>(endpoint, SIG_OFF_IN_WAKEUP) != 0 || !hasWork(endpoint, recheck)) return 0;
  addCounter(endpoint + SIG_OFF_DEFERRED, 1);
  return 1;
}

/** {@link signalWakeupBegin} for a ring: what is found there counts like `dirty`. */
export function ringWakeupBegin(endpoint: usize, budget: u32, recheck: u32): u32 {
  addCounter(endpoint + SIG_OFF_WAKEUPS, 1);
  store<u32>(endpoint, 1, SIG_OFF_IN_WAKEUP);
  store<u32>(endpoint, budget, SIG_OFF_BUDGET);
  const turn = signalTurn(endpoint, hasWork(endpoint, recheck));
  if (turn == WAKEUP_DONE) addCounter(endpoint + SIG_OFF_SPURIOUS, 1);
  return turn;
}

/** {@link signalWakeupNext} for a ring: after `pending = 0` the ring is looked at as well as `dirty`. */
export function ringWakeupNext(endpoint: usize, recheck: u32): u32 {
  const local = <usize>load<u32>(endpoint, SIG_OFF_LOCAL);
  if (signalDirtyAgain(local)) return signalRun(endpoint, local);
  signalSettle(endpoint, local);
  return signalTurn(endpoint, hasWork(endpoint, recheck));
}

/** North's private bookkeeping of the valid index: how many descriptors are on it. */
export function addValid(endpoint: usize, amount: i32): void {
  store<i32>(endpoint, load<i32>(endpoint, EP_OFF_VALID_COUNT) + amount, EP_OFF_VALID_COUNT);
}

/** All four ends: north of a ring that it both fills and harvests. */
export function ownsAll(): u32 {
  return OWNS_VALID_HEAD | OWNS_VALID_TAIL | OWNS_INUSE_HEAD | OWNS_INUSE_TAIL;
}

/** {@link RECHECK_INUSE_HEAD} of the ring, for callers outside the wake-up loop: 1 when payload waits. */
export function ringHasPayload(endpoint: usize): u32 {
  return hasWork(endpoint, RECHECK_INUSE_HEAD) ? 1 : 0;
}
