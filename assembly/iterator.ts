/**
 * The iterator of `docs/abi/ioq.md` section 5: one descriptor at a time, any index, any position.
 * Bursts (`burst.ts`) are the fast way; this is the complete one.
 */
import {
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_CLEAR_VALID,
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_GPA,
  ENTRY_OFF_LENGTH,
  ENTRY_OFF_POSITION,
  EP_OFF_BROKEN,
  EP_OFF_COOKIES,
  EP_OFF_COUNT,
  EP_OFF_GPA,
  EP_OFF_GRANTED_POP,
  EP_OFF_GRANTED_PUSH,
  EP_OFF_OWNER,
  EP_OFF_POPPED,
  EP_OFF_PUSHED,
  EP_OFF_STRIDE,
  EP_OFF_VALID_COUNT,
  ITER_DUAL,
  ITER_OFF_ENDPOINT,
  ITER_OFF_FLAGS,
  ITER_OFF_INDEX,
  ITER_OFF_POSITION,
  ITER_UNPOSITIONED,
  SIG_OFF_LOCALE,
  SIG_OFF_REGIONS,
  VIOLATION_TAILS,
} from "./abi/arena";
import { EINVAL, EPERM, EPROTO } from "./abi/errno";
import {
  COMPACT_COOKIE_SIZE,
  COMPACT_OFF_LEN,
  COMPACT_OFF_PTR,
  DESC_OFF_COOKIE,
  DESC_OFF_LEN,
  DESC_OFF_PTR,
  DESC_OFF_VALID,
  IDX_BOTH,
  IDX_INUSE,
  IDX_OFF_FULL,
  IDX_OFF_HEAD,
  IDX_OFF_TAIL,
  IDX_VALID,
  IOQ_OFF_RING_ILP32,
  ITER_AUTOUPDATE,
  ITER_NOFLIPOWNER,
  SEEK_HEAD,
  SEEK_NEXT,
  SEEK_SET,
  SEEK_TAIL,
} from "./abi/ioq";
import { logWrite } from "./regions";
import { addCounter, loadByte, storeByte, storeWord } from "./memory-order";
import {
  addValid,
  descriptorAt,
  guestAddressOf,
  indexValue,
  isCompact,
  isLazy,
  ownedHere,
  owns,
  privateIndex,
  sharedIndex,
  violate,
} from "./ring";
import { signalInject } from "./shm-signal";

/** Binds an iterator to an index of an endpoint. "both" binds to valid. -EINVAL for an illegal type or flag. */
export function iterInit(iterator: usize, endpoint: usize, index: u32, flags: u32): i32 {
  if (index > <u32>IDX_BOTH || (flags & ~(ITER_AUTOUPDATE | ITER_NOFLIPOWNER)) != 0) return -EINVAL;
  const dual = index == IDX_BOTH;
  store<u32>(iterator, <u32>endpoint, ITER_OFF_ENDPOINT);
  store<u32>(iterator, dual ? IDX_VALID : index, ITER_OFF_INDEX);
  store<u32>(iterator, dual ? flags | ITER_DUAL : flags, ITER_OFF_FLAGS);
  store<u32>(iterator, <u32>ITER_UNPOSITIONED, ITER_OFF_POSITION);
  return 0;
}

/** Moves an iterator. 0; -EPERM: set beyond count; -EINVAL: seek type, or next before the first seek; -EPROTO: peer's index out of range. */
export function iterSeek(iterator: usize, type: u32, offset: u32): i32 {
  const endpoint = <usize>load<u32>(iterator, ITER_OFF_ENDPOINT);
  const count = load<u32>(endpoint, EP_OFF_COUNT);
  if (type == SEEK_SET) {
    if (offset >= count) return -EPERM;
    store<u32>(iterator, offset, ITER_OFF_POSITION);
    return 0;
  }
  if (type == SEEK_NEXT) {
    const position = load<u32>(iterator, ITER_OFF_POSITION);
    if (position >= count) return -EINVAL;
    store<u32>(iterator, position + 1 == count ? 0 : position + 1, ITER_OFF_POSITION);
    return 0;
  }
  if (type != SEEK_TAIL && type != SEEK_HEAD) return -EINVAL;
  if (load<u32>(endpoint, EP_OFF_BROKEN) != 0) return -EPROTO;
  const value = indexValue(endpoint, load<u32>(iterator, ITER_OFF_INDEX), type == SEEK_TAIL ? 1 : 0);
  if (value < 0) return value;
  store<i32>(iterator, value, ITER_OFF_POSITION);
  return 0;
}

/** Checks that the iterator stands at an end of an index that this side moves, on a descriptor of its own. */
function checkTurn(iterator: usize, endpoint: usize, end: u32): i32 {
  if (load<u32>(endpoint, EP_OFF_BROKEN) != 0) return -EPROTO;
  const index = load<u32>(iterator, ITER_OFF_INDEX);
  if (!owns(endpoint, index, end)) return -EINVAL;
  const position = load<u32>(iterator, ITER_OFF_POSITION);
  if (position != load<u32>(privateIndex(endpoint, index, end))) return -EINVAL;
  const mine = ownedHere(endpoint, descriptorAt(endpoint, position));
  if (mine < 0) return mine;
  return mine == 1 ? 0 : -EINVAL;
}

/** Advances the tail of one index and publishes it: `full` before `tail` (Q2). */
function advanceTail(endpoint: usize, index: u32): i32 {
  const own = privateIndex(endpoint, index, 1);
  const next = load<u32>(own) + 1;
  const tail: u32 = next == load<u32>(endpoint, EP_OFF_COUNT) ? 0 : next;
  const lazy = isLazy(endpoint);
  if (!lazy) {
    const head = indexValue(endpoint, index, 0);
    if (head < 0) return head;
    const shared = sharedIndex(endpoint, index);
    if (tail == <u32>head) storeByte(shared + IDX_OFF_FULL, 1);
    storeWord(shared + IDX_OFF_TAIL, tail);
  }
  store<u32>(own, tail);
  return 0;
}

/** Gives the descriptor to the peer (unless NOFLIPOWNER), steps on, signals (with AUTOUPDATE). 1: ring the doorbell. */
function handOver(iterator: usize, endpoint: usize, descriptor: usize): i32 {
  const flags = load<u32>(iterator, ITER_OFF_FLAGS);
  if ((flags & ITER_NOFLIPOWNER) == 0) {
    storeByte(descriptor + <usize>load<u32>(endpoint, EP_OFF_OWNER), 1 - load<u32>(endpoint, SIG_OFF_LOCALE)); // [P3] pairs with [C1]; Q1, Q2, Q3, Q4
  }
  const regions = load<u32>(endpoint, SIG_OFF_REGIONS);
  logWrite(regions, load<u64>(endpoint, EP_OFF_GPA), IOQ_OFF_RING_ILP32);
  logWrite(regions, guestAddressOf(endpoint, descriptor), load<u32>(endpoint, EP_OFF_STRIDE));
  iterSeek(iterator, SEEK_NEXT, 0);
  return (flags & ITER_AUTOUPDATE) != 0 ? <i32>signalInject(endpoint) : 0;
}

/**
 * Puts the descriptor at the tail into service (`docs/abi/ioq.md` 5). 0, or 1: the caller must ring the doorbell.
 * -EINVAL: not at the tail, not owned, or an index that this side does not move; -EPROTO: the queue is broken.
 */
export function iterPush(iterator: usize): i32 {
  const endpoint = <usize>load<u32>(iterator, ITER_OFF_ENDPOINT);
  const error = checkTurn(iterator, endpoint, 1);
  if (error != 0) return error;
  const index = load<u32>(iterator, ITER_OFF_INDEX);
  const dual = (load<u32>(iterator, ITER_OFF_FLAGS) & ITER_DUAL) != 0;
  if (dual) {
    if (!owns(endpoint, IDX_INUSE, 1)) return -EINVAL;
    if (load<u32>(privateIndex(endpoint, IDX_VALID, 1)) != load<u32>(privateIndex(endpoint, IDX_INUSE, 1))) {
      return violate(endpoint, VIOLATION_TAILS);
    }
  }
  const descriptor = descriptorAt(endpoint, load<u32>(iterator, ITER_OFF_POSITION));
  let result = advanceTail(endpoint, index);
  if (result < 0) return result;
  if (dual) {
    result = advanceTail(endpoint, IDX_INUSE);
    if (result < 0) return result;
  }
  // with NOFLIPOWNER nothing stops a caller from pushing more than there is room for (section 5): the count is capped
  if (index == IDX_VALID && load<u32>(endpoint, EP_OFF_VALID_COUNT) < load<u32>(endpoint, EP_OFF_COUNT)) {
    addValid(endpoint, 1);
  }
  store<u32>(endpoint, 0, EP_OFF_GRANTED_PUSH); // a grant is for the positions it was given at
  addCounter(endpoint + EP_OFF_PUSHED, 1);
  return handOver(iterator, endpoint, descriptor);
}

/** Takes the descriptor at the head out of service. Results as for {@link iterPush}. */
export function iterPop(iterator: usize): i32 {
  const endpoint = <usize>load<u32>(iterator, ITER_OFF_ENDPOINT);
  const error = checkTurn(iterator, endpoint, 0);
  if (error != 0) return error;
  const index = load<u32>(iterator, ITER_OFF_INDEX);
  const descriptor = descriptorAt(endpoint, load<u32>(iterator, ITER_OFF_POSITION));
  const own = privateIndex(endpoint, index, 0);
  const next = load<u32>(own) + 1;
  const head: u32 = next == load<u32>(endpoint, EP_OFF_COUNT) ? 0 : next;
  store<u32>(own, head);
  if (!isLazy(endpoint)) {
    const shared = sharedIndex(endpoint, index);
    storeWord(shared + IDX_OFF_HEAD, head); // before full = 0 (Q4)
    if (loadByte(shared + IDX_OFF_FULL) != 0) storeByte(shared + IDX_OFF_FULL, 0);
  }
  if (index == IDX_VALID && load<u32>(endpoint, EP_OFF_VALID_COUNT) != 0) addValid(endpoint, -1);
  store<u32>(endpoint, 0, EP_OFF_GRANTED_POP); // as in push
  addCounter(endpoint + EP_OFF_POPPED, 1);
  return handOver(iterator, endpoint, descriptor);
}

/** Where the cookie of a descriptor lies. */
function cookieOf(endpoint: usize, descriptor: usize, position: u32): usize {
  const cookies = <usize>load<u32>(endpoint, EP_OFF_COOKIES);
  return cookies == 0 ? descriptor + DESC_OFF_COOKIE : cookies + <usize>position * COMPACT_COOKIE_SIZE;
}

/** Where north's private mark of a descriptor lies. */
function markOf(endpoint: usize, descriptor: usize, position: u32): usize {
  const cookies = <usize>load<u32>(endpoint, EP_OFF_COOKIES);
  if (cookies == 0) return descriptor + DESC_OFF_VALID;
  return cookies + <usize>load<u32>(endpoint, EP_OFF_COUNT) * COMPACT_COOKIE_SIZE + <usize>position;
}

/** Copies the descriptor under the iterator to a table entry: cookie, address, length, `valid` and owner (flags: valid | owner << 8). */
export function iterRead(iterator: usize, entry: usize): i32 {
  const endpoint = <usize>load<u32>(iterator, ITER_OFF_ENDPOINT);
  const position = load<u32>(iterator, ITER_OFF_POSITION);
  if (position >= load<u32>(endpoint, EP_OFF_COUNT)) return -EINVAL;
  const descriptor = descriptorAt(endpoint, position);
  const compact = isCompact(endpoint);
  const valid = loadByte(markOf(endpoint, descriptor, position));
  const flags = valid | (loadByte(descriptor + <usize>load<u32>(endpoint, EP_OFF_OWNER)) << 8);
  const length = compact ? <u64>load<u32>(descriptor, COMPACT_OFF_LEN) : load<u64>(descriptor, DESC_OFF_LEN);
  store<u32>(entry, flags, ENTRY_OFF_FLAGS);
  store<u32>(entry, length > <u64>u32.MAX_VALUE ? u32.MAX_VALUE : <u32>length, ENTRY_OFF_LENGTH);
  store<u32>(entry, position, ENTRY_OFF_POSITION);
  store<u64>(
    entry,
    compact ? load<u64>(descriptor, COMPACT_OFF_PTR) : load<u64>(descriptor, DESC_OFF_PTR),
    ENTRY_OFF_GPA,
  );
  store<u64>(entry, load<u64>(cookieOf(endpoint, descriptor, position)), ENTRY_OFF_COOKIE);
  return 0;
}

/** Writes parts of a table entry (`BURST_…` flags) to the descriptor under the iterator. -EINVAL: not owned here, or no position. */
export function iterWrite(iterator: usize, entry: usize, what: u32): i32 {
  const endpoint = <usize>load<u32>(iterator, ITER_OFF_ENDPOINT);
  const position = load<u32>(iterator, ITER_OFF_POSITION);
  if (position >= load<u32>(endpoint, EP_OFF_COUNT)) return -EINVAL;
  const descriptor = descriptorAt(endpoint, position);
  const mine = ownedHere(endpoint, descriptor);
  if (mine != 1) return mine < 0 ? mine : -EINVAL;
  const regions = load<u32>(endpoint, SIG_OFF_REGIONS);
  const cookie = cookieOf(endpoint, descriptor, position);
  if ((what & BURST_COOKIE) != 0) store<u64>(cookie, load<u64>(entry, ENTRY_OFF_COOKIE));
  if (isCompact(endpoint)) {
    if ((what & BURST_POINTER) != 0) store<u64>(descriptor, load<u64>(entry, ENTRY_OFF_GPA), COMPACT_OFF_PTR);
    if ((what & BURST_LENGTH) != 0)
      store<u32>(descriptor, load<u32>(entry, ENTRY_OFF_LENGTH), COMPACT_OFF_LEN);
  } else {
    if ((what & BURST_POINTER) != 0) store<u64>(descriptor, load<u64>(entry, ENTRY_OFF_GPA), DESC_OFF_PTR);
    if ((what & BURST_LENGTH) != 0) store<u64>(descriptor, load<u32>(entry, ENTRY_OFF_LENGTH), DESC_OFF_LEN);
  }
  const mark = markOf(endpoint, descriptor, position);
  if ((what & BURST_SET_VALID) != 0) storeByte(mark, 1);
  if ((what & BURST_CLEAR_VALID) != 0) storeByte(mark, 0);
  logWrite(regions, guestAddressOf(endpoint, descriptor), load<u32>(endpoint, EP_OFF_STRIDE));
  if (isCompact(endpoint)) {
    logWrite(regions, guestAddressOf(endpoint, cookie), COMPACT_COOKIE_SIZE);
    logWrite(regions, guestAddressOf(endpoint, mark), 1);
  }
  return 0;
}
