/**
 * One descriptor at a time: what a side does that has one frame to send, or one answer to give.
 *
 * A burst of one through `burst.ts` is right but not short: its loops, its table and its grant are made for many. Here is
 * the same protocol for one descriptor, with the same checks and the same accesses in the same order, in one call where a
 * burst takes two: {@link ringPush} reserves and commits, {@link ringTake} peeks and releases. A consumer that uses the
 * payload before it gives the descriptor back has {@link ringPeek} and {@link ringRelease}.
 */
import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_GPA,
  ENTRY_OFF_LENGTH,
  EP_OFF_BROKEN,
  EP_OFF_BYTES,
  EP_OFF_COOKIES,
  EP_OFF_COUNT,
  EP_OFF_DESC,
  EP_OFF_EXTENSIONS,
  EP_OFF_GRANTED_POP,
  EP_OFF_GRANTED_PUSH,
  EP_OFF_INDEXES,
  EP_OFF_OWNED,
  EP_OFF_OWNER,
  EP_OFF_POPPED,
  EP_OFF_PUSHED,
  EP_OFF_RING,
  EP_OFF_STRIDE,
  EP_OFF_VALID_COUNT,
  ONE_DONE,
  ONE_DOORBELL,
  OWNS_INUSE_HEAD,
  OWNS_INUSE_TAIL,
  OWNS_VALID_HEAD,
  OWNS_VALID_TAIL,
  SIG_OFF_LOCALE,
  VIOLATION_OWNER,
  VIOLATION_TAILS,
} from "./abi/arena";
import { EINVAL, EPROTO } from "./abi/errno";
import {
  COMPACT_COOKIE_SIZE,
  COMPACT_OFF_LEN,
  COMPACT_OFF_PTR,
  DESC_OFF_COOKIE,
  DESC_OFF_LEN,
  DESC_OFF_PTR,
  DESC_OFF_VALID,
  EXT_LAZY_INDEXES,
  IDX_BOTH,
  IDX_INUSE,
  IDX_OFF_FULL,
  IDX_OFF_HEAD,
  IDX_OFF_TAIL,
  IDX_VALID,
  IOQ_IDX_SIZE,
  IOQ_OFF_IDX,
} from "./abi/ioq";
import { SOUTH } from "./abi/shm-signal";
import { announce, isLogging, logBurst } from "./burst";
import { readDescriptor } from "./descriptor";
import { addCounter, loadByte, storeByte } from "./memory-order";
import { indexValue, violate } from "./ring";
import { signalInject } from "./shm-signal";

/** Where the private index ends lie in an endpoint. */
const VALID_HEAD: usize = EP_OFF_INDEXES;
const VALID_TAIL: usize = EP_OFF_INDEXES + 4;
const INUSE_HEAD: usize = EP_OFF_INDEXES + 8;
const INUSE_TAIL: usize = EP_OFF_INDEXES + 12;
/** … and the shared ones in a ring. */
const SHARED_VALID: usize = IOQ_OFF_IDX;
const SHARED_INUSE: usize = IOQ_OFF_IDX + IOQ_IDX_SIZE;
const BOTH_TAILS: u32 = OWNS_VALID_TAIL | OWNS_INUSE_TAIL;

/** Everything of a descriptor that a push or a release may write. */
const WRITE_ANY: u32 = BURST_POINTER | BURST_COOKIE | BURST_LENGTH | BURST_SET_VALID | BURST_CLEAR_VALID;
const MARKS: u32 = BURST_SET_VALID | BURST_CLEAR_VALID;

/** What a pop consists of. */
const PEEKS: u32 = 1;
const RELEASES: u32 = 2;

/** Writes what the flags name from a table entry to a descriptor; plain stores, published by the owner store that follows. */
function writeOne(endpoint: usize, descriptor: usize, position: u32, entry: usize, flags: u32): void {
  const cookies = <usize>load<u32>(endpoint, EP_OFF_COOKIES);
  const mark: u32 = (flags & BURST_CLEAR_VALID) != 0 ? 0 : 1;
  if (cookies == 0) {
    if ((flags & BURST_COOKIE) != 0)
      store<u64>(descriptor, load<u64>(entry, ENTRY_OFF_COOKIE), DESC_OFF_COOKIE);
    if ((flags & BURST_POINTER) != 0) store<u64>(descriptor, load<u64>(entry, ENTRY_OFF_GPA), DESC_OFF_PTR);
    if ((flags & BURST_LENGTH) != 0)
      store<u64>(descriptor, <u64>load<u32>(entry, ENTRY_OFF_LENGTH), DESC_OFF_LEN);
    if ((flags & MARKS) != 0) store<u8>(descriptor, <u8>mark, DESC_OFF_VALID);
  } else {
    const marks = cookies + <usize>load<u32>(endpoint, EP_OFF_COUNT) * COMPACT_COOKIE_SIZE;
    if ((flags & BURST_COOKIE) != 0)
      store<u64>(cookies + <usize>position * COMPACT_COOKIE_SIZE, load<u64>(entry, ENTRY_OFF_COOKIE));
    if ((flags & BURST_POINTER) != 0)
      store<u64>(descriptor, load<u64>(entry, ENTRY_OFF_GPA), COMPACT_OFF_PTR);
    if ((flags & BURST_LENGTH) != 0)
      store<u32>(descriptor, load<u32>(entry, ENTRY_OFF_LENGTH), COMPACT_OFF_LEN);
    if ((flags & MARKS) != 0) store<u8>(marks + <usize>position, <u8>mark);
  }
  if ((flags & BURST_LENGTH) != 0) addCounter(endpoint + EP_OFF_BYTES, load<u32>(entry, ENTRY_OFF_LENGTH));
}

/**
 * Pushes one descriptor on an index: reserve and commit in one call. `flags` say which parts of the entry to write, and
 * whether to signal; with BURST_NOFLIP the descriptor stays here. A grant of an earlier reserve ends. ONE_DONE, with
 * ONE_DOORBELL when the caller must ring it; 0: the descriptor is the peer's, or in service; -EINVAL: index, or not moved
 * by this side; -EPROTO: broken.
 */
export function ringPush(endpoint: usize, index: u32, entry: usize, flags: u32): i32 {
  if (load<u32>(endpoint, EP_OFF_BROKEN) != 0) return -EPROTO;
  if (index > <u32>IDX_BOTH) return -EINVAL;
  const tails: u32 = index == IDX_BOTH ? BOTH_TAILS : index == IDX_VALID ? OWNS_VALID_TAIL : OWNS_INUSE_TAIL;
  if ((load<u32>(endpoint, EP_OFF_OWNED) & tails) != tails) return -EINVAL;
  const count = load<u32>(endpoint, EP_OFF_COUNT);
  const valid = load<u32>(endpoint, EP_OFF_VALID_COUNT);
  if (index != IDX_INUSE && valid >= count) return 0;
  const position = index == IDX_INUSE ? load<u32>(endpoint, INUSE_TAIL) : load<u32>(endpoint, VALID_TAIL);
  const locale = load<u32>(endpoint, SIG_OFF_LOCALE);
  const descriptor =
    <usize>load<u32>(endpoint, EP_OFF_DESC) + <usize>position * <usize>load<u32>(endpoint, EP_OFF_STRIDE);
  const sown = descriptor + <usize>load<u32>(endpoint, EP_OFF_OWNER);
  const owner = loadByte(sown); // [C1] pairs with [P3]
  if (owner != locale) return owner > <u32>SOUTH ? violate(endpoint, VIOLATION_OWNER) : 0;
  if (index == IDX_BOTH && load<u32>(endpoint, INUSE_TAIL) != position)
    return violate(endpoint, VIOLATION_TAILS);
  const lazy = (load<u32>(endpoint, EP_OFF_EXTENSIONS) & EXT_LAZY_INDEXES) != 0;
  const ring = <usize>load<u32>(endpoint, EP_OFF_RING);
  const tail = position + 1 == count ? 0 : position + 1;
  let fills = false;
  if (index != IDX_VALID && !lazy) {
    const head = indexValue(endpoint, IDX_INUSE, 0); // checked before anything is published
    if (head < 0) return head;
    fills = <u32>head == tail;
  }
  if ((flags & WRITE_ANY) != 0) writeOne(endpoint, descriptor, position, entry, flags);
  // `full` before `tail` (Q2), as in a burst
  if (index != IDX_INUSE) {
    store<u32>(endpoint, valid + 1, EP_OFF_VALID_COUNT);
    store<u32>(endpoint, tail, VALID_TAIL);
    if (!lazy) {
      if (valid + 1 == count) storeByte(ring + SHARED_VALID + IDX_OFF_FULL, 1);
      store<u32>(ring, tail, SHARED_VALID + IDX_OFF_TAIL);
    }
  }
  if (index != IDX_VALID) {
    store<u32>(endpoint, tail, INUSE_TAIL);
    if (!lazy) {
      if (fills) storeByte(ring + SHARED_INUSE + IDX_OFF_FULL, 1);
      store<u32>(ring, tail, SHARED_INUSE + IDX_OFF_TAIL);
    }
  }
  store<u32>(endpoint, 0, EP_OFF_GRANTED_PUSH);
  if ((flags & BURST_NOFLIP) == 0) storeByte(sown, 1 - locale); // [P3] pairs with [C1]; fully ordered before [S0]
  addCounter(endpoint + EP_OFF_PUSHED, 1);
  if (isLogging(endpoint)) logBurst(endpoint, position, 1, flags);
  if ((flags & BURST_SIGNAL) == 0) return ONE_DONE;
  const rings = (flags & BURST_NOFLIP) == 0 && lazy ? announce(endpoint) : signalInject(endpoint);
  return rings != 0 ? ONE_DONE | ONE_DOORBELL : ONE_DONE;
}

/** Copies the next descriptor to be popped to an entry and grants it to {@link ringRelease}. ONE_DONE; 0: the peer's; -EINVAL; -EPROTO. */
export function ringPeek(endpoint: usize, index: u32, entry: usize, flags: u32): i32 {
  return pop(endpoint, index, entry, flags, PEEKS);
}

/**
 * Pops the descriptor that the last peek granted, with the flags of `popRelease`. ONE_DONE, with ONE_DOORBELL when the
 * caller must ring it; -EINVAL: nothing was granted, index, or not moved by this side; -EPROTO: broken.
 */
export function ringRelease(endpoint: usize, index: u32, entry: usize, flags: u32): i32 {
  return pop(endpoint, index, entry, flags, RELEASES);
}

/**
 * Takes one descriptor off an index: peek and release in one call, for a caller that needs nothing but the copy in the
 * entry (a driver that reclaims). ONE_DONE, with ONE_DOORBELL when the caller must ring it; 0: the peer's; -EINVAL; -EPROTO.
 */
export function ringTake(endpoint: usize, index: u32, entry: usize, flags: u32): i32 {
  return pop(endpoint, index, entry, flags, PEEKS | RELEASES);
}

/** One body for the three, for calls are what a single descriptor would spend most of its time on. */
function pop(endpoint: usize, index: u32, entry: usize, flags: u32, parts: u32): i32 {
  if (load<u32>(endpoint, EP_OFF_BROKEN) != 0) return -EPROTO;
  const end: u32 = index == IDX_VALID ? OWNS_VALID_HEAD : OWNS_INUSE_HEAD;
  if (index > <u32>IDX_INUSE || (load<u32>(endpoint, EP_OFF_OWNED) & end) == 0) return -EINVAL;
  const own = endpoint + (index == IDX_VALID ? VALID_HEAD : INUSE_HEAD);
  const position = load<u32>(own);
  const locale = load<u32>(endpoint, SIG_OFF_LOCALE);
  const descriptor =
    <usize>load<u32>(endpoint, EP_OFF_DESC) + <usize>position * <usize>load<u32>(endpoint, EP_OFF_STRIDE);
  const sown = descriptor + <usize>load<u32>(endpoint, EP_OFF_OWNER);
  const valid = load<u32>(endpoint, EP_OFF_VALID_COUNT);
  let granted: u32 = 1;
  if ((parts & PEEKS) != 0) {
    store<u32>(endpoint, 0, EP_OFF_GRANTED_POP);
    if (index == IDX_VALID && valid == 0) return 0;
    const owner = loadByte(sown); // [C1] pairs with [P3]; also the load that O4 asks for
    if (owner != locale) return owner > <u32>SOUTH ? violate(endpoint, VIOLATION_OWNER) : 0;
    const error = readDescriptor(endpoint, descriptor, position, entry, flags);
    if (error != 0) return error;
    if ((parts & RELEASES) == 0) {
      store<u32>(endpoint, 1, EP_OFF_GRANTED_POP);
      return ONE_DONE;
    }
  } else {
    granted = load<u32>(endpoint, EP_OFF_GRANTED_POP);
    if (granted == 0) return -EINVAL;
  }
  const count = load<u32>(endpoint, EP_OFF_COUNT);
  const head = position + 1 == count ? 0 : position + 1;
  const lazy = (load<u32>(endpoint, EP_OFF_EXTENSIONS) & EXT_LAZY_INDEXES) != 0;
  if ((flags & WRITE_ANY) != 0) writeOne(endpoint, descriptor, position, entry, flags);
  store<u32>(own, head);
  if (!lazy) {
    const shared =
      <usize>load<u32>(endpoint, EP_OFF_RING) + (index == IDX_VALID ? SHARED_VALID : SHARED_INUSE);
    store<u32>(shared, head, IDX_OFF_HEAD); // before full = 0 (Q4), which is fully ordered for that reason
    if (loadByte(shared + IDX_OFF_FULL) != 0) storeByte(shared + IDX_OFF_FULL, 0);
  }
  if (index == IDX_VALID) store<u32>(endpoint, valid - 1, EP_OFF_VALID_COUNT);
  store<u32>(endpoint, granted - 1, EP_OFF_GRANTED_POP);
  if ((flags & BURST_NOFLIP) == 0) storeByte(sown, 1 - locale); // [P3] after every load of payload and body (Q3)
  addCounter(endpoint + EP_OFF_POPPED, 1);
  if (isLogging(endpoint)) logBurst(endpoint, position, 1, flags);
  if ((flags & BURST_SIGNAL) == 0) return ONE_DONE;
  const rings = (flags & BURST_NOFLIP) == 0 && lazy ? announce(endpoint) : signalInject(endpoint);
  return rings != 0 ? ONE_DONE | ONE_DOORBELL : ONE_DONE;
}
