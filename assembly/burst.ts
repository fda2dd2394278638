/**
 * Bursts: many descriptors in one call, published at once.
 *
 * A producer calls `pushReserve`, fills the buffers, and calls `pushCommit`; a consumer calls `popPeek`, uses the
 * buffers, and calls `popRelease`. Between the two calls the descriptors belong to the caller.
 *
 * Publication of k descriptors costs two fully ordered stores whatever k is:
 *   bodies, indexes, owners of items 1 … k-1    plain stores
 *   [P3] owner of item 0                        one fully ordered store: publishes all of the above (Q1, Q2, Q4, Q6)
 *   [S1] the peer's dirty                       one fully ordered store, then the loads of enabled and pending
 * Towards a peer that negotiated LAZY_INDEXES it costs one while the peer has not looked yet: no index is stored, and
 * [S0], a load of the peer's dirty between [P3] and [S1], makes [S1] needless when it finds 1 (see `announce`).
 * A peer takes descriptors in ring order, so it sees item i only after it saw item 0 by an atomic load [C1].
 * Indexes are stored before any owner, as a v4 peer expects (`docs/abi/ioq.md` 10).
 */
import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_HEAD,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  BURST_TRANSLATE,
  ENTRY_HEAD_SIZE,
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_GPA,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  EP_OFF_BROKEN,
  EP_OFF_BYTES,
  EP_OFF_COOKIES,
  EP_OFF_COUNT,
  EP_OFF_DESC,
  EP_OFF_GPA,
  EP_OFF_GRANTED_POP,
  EP_OFF_GRANTED_PUSH,
  EP_OFF_OWNER,
  EP_OFF_POPPED,
  EP_OFF_PUSHED,
  EP_OFF_STRIDE,
  EP_OFF_VALID_COUNT,
  REGION_OFF_ADDRESS,
  REGION_OFF_GPA,
  REGION_OFF_LENGTH,
  REGIONS_OFF_COUNT,
  REGIONS_OFF_ENTRIES,
  REGIONS_OFF_WRITE_LOG,
  SIG_OFF_LOCALE,
  SIG_OFF_MASKED,
  SIG_OFF_SUPPRESSED,
  SIG_OFF_REMOTE,
  SIG_OFF_REGIONS,
  VIOLATION_OWNER,
  VIOLATION_TAILS,
} from "./abi/arena";
import { EINVAL, EPROTO } from "./abi/errno";
import {
  COMPACT_COOKIE_SIZE,
  COMPACT_DESC_SIZE,
  COMPACT_OFF_LEN,
  COMPACT_OFF_PTR,
  COMPACT_OFF_SOWN,
  DESC_OFF_COOKIE,
  DESC_OFF_LEN,
  DESC_OFF_PTR,
  DESC_OFF_SOWN,
  DESC_OFF_VALID,
  IDX_BOTH,
  IDX_INUSE,
  IDX_OFF_FULL,
  IDX_OFF_HEAD,
  IDX_OFF_TAIL,
  IDX_VALID,
  IOQ_OFF_RING_ILP32,
} from "./abi/ioq";
import { IRQ_OFF_DIRTY, IRQ_OFF_ENABLED, IRQ_OFF_PENDING, NORTH, SOUTH } from "./abi/shm-signal";
import { clampLength, fillEntry, readDescriptor } from "./descriptor";
import { addCounter, loadByte, storeByte } from "./memory-order";
import { logWrite } from "./regions";
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

/*
 * Two layouts of a descriptor, told apart by the type of their `len`: u64 in v4, u32 in a compact one. The loops over
 * descriptors are compiled once for each (`L`), so that none of them tests anything per descriptor.
 */

function sizeOfDescriptor<L>(endpoint: usize): usize {
  return sizeof<L>() == 4 ? COMPACT_DESC_SIZE : <usize>load<u32>(endpoint, EP_OFF_STRIDE);
}

function ownerOf<L>(descriptor: usize): usize {
  return descriptor + (sizeof<L>() == 4 ? COMPACT_OFF_SOWN : DESC_OFF_SOWN);
}

function pointerOf<L>(descriptor: usize): u64 {
  return sizeof<L>() == 4 ? load<u64>(descriptor, COMPACT_OFF_PTR) : load<u64>(descriptor, DESC_OFF_PTR);
}

function lengthOf<L>(descriptor: usize): u64 {
  return sizeof<L>() == 4 ? <u64>load<u32>(descriptor, COMPACT_OFF_LEN) : load<u64>(descriptor, DESC_OFF_LEN);
}

/**
 * The cookie of a descriptor. Those of compact descriptors lie in a list behind them, `cookies`; 0: nobody asks for them.
 * South does not, for it would take lines from north that north has all to itself.
 */
function cookieOf<L>(cookies: usize, descriptor: usize, position: u32): u64 {
  if (sizeof<L>() != 4) return load<u64>(descriptor, DESC_OFF_COOKIE);
  return cookies == 0 ? 0 : load<u64>(cookies + <usize>position * COMPACT_COOKIE_SIZE);
}

/** The list of cookies of compact descriptors when this side wants them, else 0. */
function wantedCookies<L>(endpoint: usize, flags: u32): usize {
  if (sizeof<L>() != 4) return 0;
  return load<u32>(endpoint, SIG_OFF_LOCALE) == NORTH || (flags & BURST_COOKIE) != 0
    ? load<u32>(endpoint, EP_OFF_COOKIES)
    : 0;
}

/** Counts descriptors owned here from `position` on, at most `limit` (which is at most count). Number, or -EPROTO. */
function countOwned(endpoint: usize, position: u32, limit: u32): i32 {
  const stride = <usize>load<u32>(endpoint, EP_OFF_STRIDE);
  const locale = load<u32>(endpoint, SIG_OFF_LOCALE);
  const sown = <usize>load<u32>(endpoint, EP_OFF_OWNER);
  let left = load<u32>(endpoint, EP_OFF_COUNT) - position; // descriptors before the ring wraps
  let descriptor = descriptorAt(endpoint, position);
  for (let n: u32 = 0; n < limit; n++) {
    const owner = loadByte(descriptor + sown); // [C1] pairs with [P3]
    if (owner != locale) return owner > <u32>SOUTH ? violate(endpoint, VIOLATION_OWNER) : <i32>n;
    descriptor += stride;
    if (--left == 0) descriptor = <usize>load<u32>(endpoint, EP_OFF_DESC);
  }
  return <i32>limit;
}

/**
 * Copies descriptors to the table while nothing about them is special, at most n and none past the end of the ring.
 * Returns how many: it stops at the first that is not owned here and leaves it to {@link gatherOne}. The loop holds
 * nothing but what it needs for each descriptor, so that all of it stays in registers.
 */
function gatherRun<L>(
  endpoint: usize,
  descriptor: usize,
  position: u32,
  table: usize,
  n: u32,
  flags: u32,
): u32 {
  const cookies = wantedCookies<L>(endpoint, flags);
  const stride = sizeOfDescriptor<L>(endpoint);
  const locale = load<u32>(endpoint, SIG_OFF_LOCALE);
  const end = table + <usize>n * ENTRY_SIZE;
  let entry = table;
  while (entry != end) {
    if (loadByte(ownerOf<L>(descriptor)) != locale) break; // [C1] pairs with [P3]; also the load that O4 asks for
    fillEntry(cookieOf<L>(cookies, descriptor, position), entry, pointerOf<L>(descriptor), position);
    store<u64>(entry, clampLength(lengthOf<L>(descriptor)) << 32, ENTRY_OFF_ADDRESS); // address 0
    position++;
    descriptor += stride;
    entry += ENTRY_SIZE;
  }
  return <u32>((entry - table) / ENTRY_SIZE);
}

/**
 * {@link gatherRun} with BURST_TRANSLATE: it stops also at a buffer outside the first region (most guests have just
 * one) and, when heads are wanted, at a buffer that is shorter than a head.
 */
function gatherTranslated<L>(
  endpoint: usize,
  descriptor: usize,
  position: u32,
  table: usize,
  n: u32,
  flags: u32,
): u32 {
  const head = (flags & BURST_HEAD) != 0;
  const cookies = wantedCookies<L>(endpoint, flags);
  const regions = <usize>load<u32>(endpoint, SIG_OFF_REGIONS);
  if (load<u32>(regions, REGIONS_OFF_COUNT) == 0) return 0;
  const stride = sizeOfDescriptor<L>(endpoint);
  const locale = load<u32>(endpoint, SIG_OFF_LOCALE);
  const start = load<u64>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_GPA);
  const size = <u64>load<u32>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_LENGTH);
  const base = load<u32>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_ADDRESS);
  const end = table + <usize>n * ENTRY_SIZE;
  let entry = table;
  while (entry != end) {
    if (loadByte(ownerOf<L>(descriptor)) != locale) break; // [C1] as above
    const gpa = pointerOf<L>(descriptor); // double fetch: `gpa` and `length` are read once, checked below
    const length = lengthOf<L>(descriptor);
    const offset = gpa - start; // wraps below the region, and is then above every size
    if (offset > size || length > size - offset) break;
    const address = base + <u32>offset;
    if (head) {
      if (length < <u32>ENTRY_HEAD_SIZE) break;
      v128.store(entry, v128.load(<usize>address), ENTRY_OFF_HEAD);
    }
    fillEntry(cookieOf<L>(cookies, descriptor, position), entry, gpa, position);
    store<u64>(entry, (<u64>address) | (length << 32), ENTRY_OFF_ADDRESS); // inside a region: below 4 GiB
    position++;
    descriptor += stride;
    entry += ENTRY_SIZE;
  }
  return <u32>((entry - table) / ENTRY_SIZE);
}

/** Copies one descriptor to a table entry, with every check. 1; 0 when the peer owns it; -EPROTO. */
function gatherOne(endpoint: usize, descriptor: usize, position: u32, entry: usize, flags: u32): i32 {
  const mine = ownedHere(endpoint, descriptor); // [C1] as above
  if (mine != 1) return mine;
  const error = readDescriptor(endpoint, descriptor, position, entry, flags);
  return error != 0 ? error : 1;
}

/** Finds up to `max` descriptors owned here from `position` on and copies them to the table. Number, or -EPROTO. */
function gather(endpoint: usize, position: u32, table: usize, max: u32, flags: u32): i32 {
  const count = load<u32>(endpoint, EP_OFF_COUNT);
  const limit = max < count ? max : count; // never more than one turn
  if (table == 0) return countOwned(endpoint, position, limit);
  return isCompact(endpoint)
    ? gatherAll<u32>(endpoint, position, table, limit, flags)
    : gatherAll<u64>(endpoint, position, table, limit, flags);
}

function gatherAll<L>(endpoint: usize, position: u32, table: usize, limit: u32, flags: u32): i32 {
  const count = load<u32>(endpoint, EP_OFF_COUNT);
  const translates = (flags & BURST_TRANSLATE) != 0;
  let done: u32 = 0;
  while (done < limit) {
    const straight = count - position < limit - done ? count - position : limit - done;
    const first = descriptorAt(endpoint, position);
    const entry = table + <usize>done * ENTRY_SIZE;
    const found = translates
      ? gatherTranslated<L>(endpoint, first, position, entry, straight, flags)
      : gatherRun<L>(endpoint, first, position, entry, straight, flags);
    done += found;
    position += found;
    if (found < straight) {
      const special = table + <usize>done * ENTRY_SIZE;
      const mine = gatherOne(endpoint, descriptorAt(endpoint, position), position, special, flags);
      // what came before a violation is still good, but a broken queue hands out nothing
      if (mine < 0) return mine;
      if (mine == 0) break;
      done++;
      position++;
    }
    if (position == count) position = 0;
  }
  return <i32>done;
}

/**
 * Looks for up to `max` descriptors that may be pushed on an index: owned here and, on valid and both, not already in
 * service. Fills the table (0: no table wanted). Number granted, -EINVAL (index, not moved by this side), -EPROTO.
 */
export function pushReserve(endpoint: usize, index: u32, table: usize, max: u32, flags: u32): i32 {
  if (load<u32>(endpoint, EP_OFF_BROKEN) != 0) return -EPROTO;
  if (index > <u32>IDX_BOTH) return -EINVAL;
  const bound: u32 = index == IDX_BOTH ? IDX_VALID : index;
  if (!owns(endpoint, bound, 1)) return -EINVAL;
  let limit = max;
  if (bound == IDX_VALID) {
    const room = load<u32>(endpoint, EP_OFF_COUNT) - load<u32>(endpoint, EP_OFF_VALID_COUNT);
    if (limit > room) limit = room;
  }
  const granted = gather(endpoint, load<u32>(privateIndex(endpoint, bound, 1)), table, limit, flags);
  store<u32>(endpoint, granted < 0 ? 0 : <u32>granted, EP_OFF_GRANTED_PUSH);
  return granted;
}

/** Looks for up to `max` descriptors that may be popped from an index. Number granted, -EINVAL, -EPROTO. */
export function popPeek(endpoint: usize, index: u32, table: usize, max: u32, flags: u32): i32 {
  if (load<u32>(endpoint, EP_OFF_BROKEN) != 0) return -EPROTO;
  if (index > <u32>IDX_INUSE || !owns(endpoint, index, 0)) return -EINVAL;
  let limit = max;
  if (index == IDX_VALID) {
    const present = load<u32>(endpoint, EP_OFF_VALID_COUNT);
    if (limit > present) limit = present;
  }
  const granted = gather(endpoint, load<u32>(privateIndex(endpoint, index, 0)), table, limit, flags);
  store<u32>(endpoint, granted < 0 ? 0 : <u32>granted, EP_OFF_GRANTED_POP);
  return granted;
}

/** What a transmitting driver writes: the whole descriptor. */
const WRITE_ALL: u32 = BURST_POINTER | BURST_COOKIE | BURST_LENGTH | BURST_SET_VALID;
/** Everything that `writeDescriptors` knows. */
const WRITE_ANY: u32 = WRITE_ALL | BURST_CLEAR_VALID;

/**
 * Writes what the flags name from the table to n descriptors; plain stores, published by the owner store that follows.
 * The three combinations that drivers and devices live on have loops of their own, without a test per member.
 */
function writeDescriptors(endpoint: usize, first: u32, n: u32, table: usize, flags: u32): void {
  if (isCompact(endpoint)) {
    writeCompact(endpoint, first, n, table, flags);
    return;
  }
  const stride = <usize>load<u32>(endpoint, EP_OFF_STRIDE);
  const start = <usize>load<u32>(endpoint, EP_OFF_DESC);
  const what = flags & WRITE_ANY;
  let left = load<u32>(endpoint, EP_OFF_COUNT) - first; // descriptors before the ring wraps
  let descriptor = descriptorAt(endpoint, first);
  let entry = table;
  let bytes: u64 = 0;
  if (what == WRITE_ALL) {
    for (let i: u32 = 0; i < n; i++) {
      const length = <u64>load<u32>(entry, ENTRY_OFF_LENGTH);
      store<u64>(descriptor, load<u64>(entry, ENTRY_OFF_COOKIE), DESC_OFF_COOKIE);
      store<u64>(descriptor, load<u64>(entry, ENTRY_OFF_GPA), DESC_OFF_PTR);
      store<u64>(descriptor, length, DESC_OFF_LEN);
      store<u8>(descriptor, 1, DESC_OFF_VALID);
      bytes += length;
      entry += ENTRY_SIZE;
      descriptor += stride;
      if (--left == 0) descriptor = start;
    }
  } else if (what == <u32>BURST_LENGTH) {
    for (let i: u32 = 0; i < n; i++) {
      const length = <u64>load<u32>(entry, ENTRY_OFF_LENGTH);
      store<u64>(descriptor, length, DESC_OFF_LEN);
      bytes += length;
      entry += ENTRY_SIZE;
      descriptor += stride;
      if (--left == 0) descriptor = start;
    }
  } else if (what == <u32>BURST_CLEAR_VALID) {
    for (let i: u32 = 0; i < n; i++) {
      store<u8>(descriptor, 0, DESC_OFF_VALID);
      descriptor += stride;
      if (--left == 0) descriptor = start;
    }
  } else {
    for (let i: u32 = 0; i < n; i++) {
      if ((what & BURST_POINTER) != 0) store<u64>(descriptor, load<u64>(entry, ENTRY_OFF_GPA), DESC_OFF_PTR);
      if ((what & BURST_COOKIE) != 0)
        store<u64>(descriptor, load<u64>(entry, ENTRY_OFF_COOKIE), DESC_OFF_COOKIE);
      if ((what & BURST_LENGTH) != 0) {
        const length = <u64>load<u32>(entry, ENTRY_OFF_LENGTH);
        store<u64>(descriptor, length, DESC_OFF_LEN);
        bytes += length;
      }
      if ((what & BURST_SET_VALID) != 0) store<u8>(descriptor, 1, DESC_OFF_VALID);
      if ((what & BURST_CLEAR_VALID) != 0) store<u8>(descriptor, 0, DESC_OFF_VALID);
      entry += ENTRY_SIZE;
      descriptor += stride;
      if (--left == 0) descriptor = start;
    }
  }
  if (bytes != 0) addCounter(endpoint + EP_OFF_BYTES, bytes);
}

/** {@link writeDescriptors} for compact descriptors; cookies and marks lie in lists of their own. */
function writeCompact(endpoint: usize, first: u32, n: u32, table: usize, flags: u32): void {
  const what = flags & WRITE_ANY;
  const marks = flags & (BURST_SET_VALID | BURST_CLEAR_VALID);
  const start = <usize>load<u32>(endpoint, EP_OFF_DESC);
  const cookies = <usize>load<u32>(endpoint, EP_OFF_COOKIES);
  let left = load<u32>(endpoint, EP_OFF_COUNT) - first; // descriptors before the ring wraps
  let descriptor = descriptorAt(endpoint, first);
  let cookie = cookies + <usize>first * COMPACT_COOKIE_SIZE;
  let mark = cookies + <usize>load<u32>(endpoint, EP_OFF_COUNT) * COMPACT_COOKIE_SIZE + <usize>first;
  let entry = table;
  let bytes: u64 = 0;
  for (let i: u32 = 0; i < n; i++) {
    if (marks != 0) store<u8>(mark, (marks & BURST_CLEAR_VALID) != 0 ? 0 : 1);
    if ((what & BURST_COOKIE) != 0) store<u64>(cookie, load<u64>(entry, ENTRY_OFF_COOKIE));
    if ((what & BURST_POINTER) != 0) store<u64>(descriptor, load<u64>(entry, ENTRY_OFF_GPA), COMPACT_OFF_PTR);
    if ((what & BURST_LENGTH) != 0) {
      const length = load<u32>(entry, ENTRY_OFF_LENGTH);
      store<u32>(descriptor, length, COMPACT_OFF_LEN);
      bytes += length;
    }
    entry += ENTRY_SIZE;
    descriptor += COMPACT_DESC_SIZE;
    cookie += COMPACT_COOKIE_SIZE;
    mark++;
    if (--left == 0) {
      descriptor = start;
      mark -= <usize>load<u32>(endpoint, EP_OFF_COUNT);
      cookie = cookies;
    }
  }
  if (bytes != 0) addCounter(endpoint + EP_OFF_BYTES, bytes);
}

/** Gives n descriptors to the peer: the owners of items 1 … n-1, then item 0's, which publishes them all. */
function flipOwners(endpoint: usize, first: u32, n: u32): void {
  const peer = 1 - load<u32>(endpoint, SIG_OFF_LOCALE);
  const sown = <usize>load<u32>(endpoint, EP_OFF_OWNER);
  const start = descriptorAt(endpoint, first) + sown;
  if (n > 1) {
    const stride = <usize>load<u32>(endpoint, EP_OFF_STRIDE);
    let left = load<u32>(endpoint, EP_OFF_COUNT) - first; // descriptors before the ring wraps
    let owner = start;
    for (let i: u32 = 1; i < n; i++) {
      owner += stride;
      if (--left == 0) owner = <usize>load<u32>(endpoint, EP_OFF_DESC) + sown;
      store<u8>(owner, <u8>peer);
    }
  }
  storeByte(start, peer); // [P3] pairs with [C1]; fully ordered before [S0] of `announce`
}

/**
 * {@link signalInject} right after a [P3] of this call, towards a peer that negotiated LAZY_INDEXES and so has the full
 * orderings O4, O5 and O6 (`docs/abi/extensions.md` 2): while `dirty` is still set it is not stored again, and the
 * header's line stays where it is. It replaces inject only after a [P3]: other announcements have no store before [S0].
 *
 * Why no wake-up is lost, when [S0] finds 1:
 *   - The [W1] that clears it is still to come, and the [C1] after that sees what [P3] published. This is Dekker's pair
 *     [P3] owner then [S0] dirty here, [W1] dirty then [C1] owner there; [S0] before [P3], or a plain [P3], breaks it.
 *   - There is such a [W1]. Only this side sets `dirty`, and the inject that did went on to the end: it rang, or found
 *     the peer masked ([E2] sees `dirty`) or pending ([W4] sees it). Later bursts that found 1 have changed nothing.
 * When [S0] finds 0, inject follows as ever.
 *
 * The loads of `enabled` and `pending` after a 1 are therefore not needed to keep a wake-up, and a doorbell that they
 * lead to is a needless one (the peer stands between [E2] or [W4] and [W1]). They cost nothing, for they are neighbours
 * of `dirty`, and they bring a queue back whose `dirty` was left set by a fault, where the short form would be silent
 * for ever. Then a whole inject is made, so that a doorbell always stands for a `dirty` of its own.
 *
 * Not for a peer of 2009. It loses wake-ups with either form, but its `dirty = 0` may still be in its store buffer
 * (defect R1b) when [S0] finds 1; an unconditional [S1] that reaches memory after that 0 repairs it, a skipped one
 * cannot. `test/model/negotiated.test.ts` explores all of this.
 */
export function announce(endpoint: usize): u32 {
  const remote = <usize>load<u32>(endpoint, SIG_OFF_REMOTE);
  if (loadByte(remote + IRQ_OFF_DIRTY) == 0) return signalInject(endpoint); // [S0] behind [P3]; pairs with [W1]
  if (loadByte(remote + IRQ_OFF_ENABLED) == 0) {
    // [S2] pairs with [E1]
    addCounter(endpoint + SIG_OFF_MASKED, 1);
    return 0;
  }
  if (loadByte(remote + IRQ_OFF_PENDING) != 0) {
    // [S3] pairs with [W3]
    addCounter(endpoint + SIG_OFF_SUPPRESSED, 1);
    return 0;
  }
  return signalInject(endpoint);
}

function wrap(endpoint: usize, position: u32, n: u32): u32 {
  const count = load<u32>(endpoint, EP_OFF_COUNT);
  const next = position + n; // at most 2 * 134 million: a segment is smaller than 4 GiB
  return next >= count ? next - count : next;
}

/** True when somebody listens to the write log. A test at the call costs less than a call that tests. */
export function isLogging(endpoint: usize): bool {
  return load<u32>(load<u32>(endpoint, SIG_OFF_REGIONS), REGIONS_OFF_WRITE_LOG) != 0;
}

/** Notes the header and the n descriptors of a burst in the write log. */
export function logBurst(endpoint: usize, first: u32, n: u32, flags: u32): void {
  const regions = load<u32>(endpoint, SIG_OFF_REGIONS);
  const count = load<u32>(endpoint, EP_OFF_COUNT);
  const stride = load<u32>(endpoint, EP_OFF_STRIDE);
  logWrite(regions, load<u64>(endpoint, EP_OFF_GPA), IOQ_OFF_RING_ILP32);
  const straight = count - first < n ? count - first : n;
  logWrite(regions, guestAddressOf(endpoint, descriptorAt(endpoint, first)), straight * stride);
  if (straight < n)
    logWrite(regions, guestAddressOf(endpoint, descriptorAt(endpoint, 0)), (n - straight) * stride);
  const cookies = <usize>load<u32>(endpoint, EP_OFF_COOKIES);
  if (cookies != 0 && (flags & (BURST_COOKIE | BURST_SET_VALID | BURST_CLEAR_VALID)) != 0)
    logWrite(regions, guestAddressOf(endpoint, cookies), count * (COMPACT_COOKIE_SIZE + 1));
}

/**
 * Publishes a new tail: `full` before `tail` (Q2). The tail is a plain store, ordered by the owner store that follows;
 * `full` is fully ordered, for outside x86 two plain stores may be seen the other way round. It is rare.
 */
function publishTail(endpoint: usize, index: u32, tail: u32, full: bool): void {
  const shared = sharedIndex(endpoint, index);
  if (full) storeByte(shared + IDX_OFF_FULL, 1);
  store<u32>(shared, tail, IDX_OFF_TAIL);
}

/**
 * Pushes the first n descriptors of the last reserve. `flags` say which parts of the table to write, and whether to
 * signal. 0, or 1: the caller must ring the doorbell; -EINVAL: more than granted, index; -EPROTO: broken.
 */
export function pushCommit(endpoint: usize, index: u32, table: usize, n: u32, flags: u32): i32 {
  if (load<u32>(endpoint, EP_OFF_BROKEN) != 0) return -EPROTO;
  const granted = load<u32>(endpoint, EP_OFF_GRANTED_PUSH);
  if (n > granted || index > <u32>IDX_BOTH) return -EINVAL;
  if (n == 0) return (flags & BURST_SIGNAL) != 0 ? <i32>signalInject(endpoint) : 0;
  const bound: u32 = index == IDX_BOTH ? IDX_VALID : index;
  if (!owns(endpoint, bound, 1)) return -EINVAL; // the grant was for another index
  const first = load<u32>(privateIndex(endpoint, bound, 1));
  const tail = wrap(endpoint, first, n);
  const movesInuse = index != IDX_VALID;
  const lazy = isLazy(endpoint);
  let head: i32 = -1;
  if (index == IDX_BOTH) {
    if (!owns(endpoint, IDX_INUSE, 1)) return -EINVAL;
    if (load<u32>(privateIndex(endpoint, IDX_INUSE, 1)) != first) return violate(endpoint, VIOLATION_TAILS);
  }
  if (movesInuse && !lazy) {
    head = indexValue(endpoint, IDX_INUSE, 0); // checked before anything is published
    if (head < 0) return head;
  }

  if ((flags & WRITE_ANY) != 0) {
    writeDescriptors(endpoint, first, n, table, flags);
  }
  if (bound == IDX_VALID) {
    addValid(endpoint, <i32>n);
    store<u32>(privateIndex(endpoint, IDX_VALID, 1), tail);
    if (!lazy) {
      const full = load<u32>(endpoint, EP_OFF_VALID_COUNT) == load<u32>(endpoint, EP_OFF_COUNT);
      publishTail(endpoint, IDX_VALID, tail, full);
    }
  }
  if (movesInuse) {
    store<u32>(privateIndex(endpoint, IDX_INUSE, 1), tail);
    if (!lazy) publishTail(endpoint, IDX_INUSE, tail, tail == <u32>head);
  }
  store<u32>(endpoint, granted - n, EP_OFF_GRANTED_PUSH);
  if ((flags & BURST_NOFLIP) == 0) flipOwners(endpoint, first, n);
  addCounter(endpoint + EP_OFF_PUSHED, n);
  if (isLogging(endpoint)) logBurst(endpoint, first, n, flags);
  if ((flags & BURST_SIGNAL) == 0) return 0;
  return <i32>((flags & BURST_NOFLIP) == 0 && lazy ? announce(endpoint) : signalInject(endpoint));
}

/**
 * Pops the first n descriptors of the last peek. `flags` may write fresh buffers into them (a receiver that reposts).
 * Results as for {@link pushCommit}.
 */
export function popRelease(endpoint: usize, index: u32, table: usize, n: u32, flags: u32): i32 {
  if (load<u32>(endpoint, EP_OFF_BROKEN) != 0) return -EPROTO;
  const granted = load<u32>(endpoint, EP_OFF_GRANTED_POP);
  if (n > granted || index > <u32>IDX_INUSE) return -EINVAL;
  if (n == 0) return (flags & BURST_SIGNAL) != 0 ? <i32>signalInject(endpoint) : 0;
  if (!owns(endpoint, index, 0)) return -EINVAL; // the grant was for another index
  const own = privateIndex(endpoint, index, 0);
  const first = load<u32>(own);
  const head = wrap(endpoint, first, n);
  if ((flags & WRITE_ANY) != 0) {
    writeDescriptors(endpoint, first, n, table, flags);
  }
  store<u32>(own, head);
  const lazy = isLazy(endpoint);
  if (!lazy) {
    const shared = sharedIndex(endpoint, index);
    store<u32>(shared, head, IDX_OFF_HEAD); // before full = 0 (Q4), which is fully ordered for that reason
    if (loadByte(shared + IDX_OFF_FULL) != 0) storeByte(shared + IDX_OFF_FULL, 0);
  }
  if (index == IDX_VALID) addValid(endpoint, -(<i32>n));
  store<u32>(endpoint, granted - n, EP_OFF_GRANTED_POP);
  if ((flags & BURST_NOFLIP) == 0) flipOwners(endpoint, first, n); // after every load of payload and bodies (Q3)
  addCounter(endpoint + EP_OFF_POPPED, n);
  if (isLogging(endpoint)) logBurst(endpoint, first, n, flags);
  if ((flags & BURST_SIGNAL) == 0) return 0;
  return <i32>((flags & BURST_NOFLIP) == 0 && lazy ? announce(endpoint) : signalInject(endpoint));
}
