/**
 * IOQ as the engine runs it. North transmits with reclaim (`docs/abi/ioq.md` 6a), or feeds payloads one way through inuse
 * (6d). Whether indexes are shared on every burst (strict v4) or lazily (negotiated) is the endpoint's matter.
 */
import {
  BURST_CLEAR_VALID,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_TRANSLATE,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  EP_OFF_COUNT,
  RECHECK_INUSE_HEAD,
} from "../../../assembly/abi/arena";
import { IDX_BOTH, IDX_INUSE, IDX_VALID } from "../../../assembly/abi/ioq";
import { popPeek, popRelease, pushCommit, pushReserve } from "../../../assembly/burst";
import { copyBytes } from "../../../assembly/copy";
import { privateIndex, ringWakeupBegin, ringWakeupNext } from "../../../assembly/ring";
import { ringPeek, ringPush, ringRelease, ringTake } from "../../../assembly/single";
import { copyOut, describe, poll, prepare, reap, WHOLE_DESCRIPTOR } from "../sides";

/** One side of an IOQ. */
@unmanaged
export class IoqSide {
  posted: u32;
  finished: u32;
  doorbells: u32;
  endpoint: usize;
  table: usize;
  /** Where the buffers are: guest-physical, and in this memory. */
  buffersGpa: u32;
  buffers: usize;
  /** Bytes of each. */
  slot: u32;
  /** BURST_SIGNAL, or 0 without notifications. */
  signal: u32;

  /** A single descriptor is reserved when it is published. */
  prepare(n: u32): i32 {
    if (n == 1) {
      describe(this.table, this.buffersGpa, 0);
      return 1;
    }
    return prepare(this.endpoint, this.table, n, this.buffersGpa);
  }

  publish(n: u32): i32 {
    if (n == 1) {
      const result = ringPush(this.endpoint, IDX_BOTH, this.table, WHOLE_DESCRIPTOR | this.signal);
      if (result <= 0) return result;
      this.doorbells += (<u32>result) >> 1;
      return 1;
    }
    const result = pushCommit(this.endpoint, IDX_BOTH, this.table, n, WHOLE_DESCRIPTOR | this.signal);
    if (result < 0) return result;
    this.doorbells += result;
    return <i32>n;
  }

  reap(n: u32): i32 {
    if (n == 1) return ringTake(this.endpoint, IDX_VALID, this.table, BURST_NOFLIP | BURST_CLEAR_VALID);
    return reap(this.endpoint, this.table, n);
  }

  serve(n: u32): i32 {
    if (n == 1) {
      const found = ringPeek(this.endpoint, IDX_INUSE, this.table, BURST_TRANSLATE);
      if (found <= 0) return found;
      const result = ringRelease(this.endpoint, IDX_INUSE, this.table, this.signal);
      if (result < 0) return result;
      this.doorbells += (<u32>result) >> 1;
      return 1;
    }
    const granted = popPeek(this.endpoint, IDX_INUSE, this.table, n, BURST_TRANSLATE);
    if (granted <= 0) return granted;
    return this.giveBack(granted);
  }

  giveBack(n: i32): i32 {
    const result = popRelease(this.endpoint, IDX_INUSE, this.table, <u32>n, this.signal);
    if (result < 0) return result;
    this.doorbells += result;
    return n;
  }

  waitReap(polls: u32): u32 {
    return poll(this.endpoint, IDX_VALID, polls);
  }

  waitServe(polls: u32): u32 {
    return poll(this.endpoint, IDX_INUSE, polls);
  }

  /** Each position keeps its buffer, so nothing of the descriptors is read: only whether they are north's again. */
  feed(n: u32, source: usize, length: u32): i32 {
    const granted = pushReserve(this.endpoint, IDX_INUSE, 0, n, 0);
    if (granted != <i32>n) return granted < 0 ? granted : 0;
    const count = load<u32>(this.endpoint, EP_OFF_COUNT);
    let position = load<u32>(privateIndex(this.endpoint, IDX_INUSE, 1));
    let entry = this.table;
    for (let i: u32 = 0; i < n; i++) {
      copyBytes(this.buffers + <usize>position * this.slot, source, length);
      store<u32>(entry, length, ENTRY_OFF_LENGTH);
      entry += ENTRY_SIZE;
      if (++position == count) position = 0;
    }
    const result = pushCommit(this.endpoint, IDX_INUSE, this.table, n, BURST_LENGTH | this.signal);
    if (result < 0) return result;
    this.doorbells += result;
    return <i32>n;
  }

  take(n: u32, sink: usize): i32 {
    const granted = popPeek(this.endpoint, IDX_INUSE, this.table, n, BURST_TRANSLATE);
    if (granted <= 0) return granted;
    copyOut(this.table, granted, sink);
    return this.giveBack(granted);
  }

  begin(budget: u32): u32 {
    return ringWakeupBegin(this.endpoint, budget, RECHECK_INUSE_HEAD);
  }

  next(): u32 {
    return ringWakeupNext(this.endpoint, RECHECK_INUSE_HEAD);
  }
}
