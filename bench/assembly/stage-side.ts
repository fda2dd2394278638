/**
 * One side of the stage's IOQ, for the figures of the goals: always bursts, also of one, so that they are compared with the
 * same bursts in C. What the loops want of a side is listed above them, in `contest/loops.ts`.
 */
import {
  BURST_CLEAR_VALID,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_SIGNAL,
  BURST_TRANSLATE,
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  RECHECK_INUSE_HEAD,
} from "../../assembly/abi/arena";
import { IDX_BOTH, IDX_INUSE, IDX_VALID } from "../../assembly/abi/ioq";
import { popPeek, popRelease, pushCommit, pushReserve } from "../../assembly/burst";
import { copyBytes } from "../../assembly/copy";
import { ringWakeupBegin, ringWakeupNext } from "../../assembly/ring";
import { complete, copyOut, NEW_BUFFERS, poll, prepare, SAME_BUFFERS } from "./sides";

/** One side of the ring. */
@unmanaged
export class StageSide {
  posted: u32;
  finished: u32;
  doorbells: u32;
  endpoint: usize;
  table: usize;
  /** What is reaped has a table of its own: the next burst may be prepared already. */
  reapTable: usize;
  /** Where the buffers are, guest-physical. */
  buffers: u32;
  /** Each descriptor keeps its buffer and is not written again, so that publishing it is one store to its line. */
  same: u32;

  prepare(n: u32): i32 {
    return prepare(this.endpoint, this.table, n, this.buffers);
  }

  publish(n: u32): i32 {
    const flags = this.same != 0 ? SAME_BUFFERS : NEW_BUFFERS;
    return this.count(pushCommit(this.endpoint, IDX_BOTH, this.table, n, flags), n);
  }

  /** Counts the doorbell that an engine call asks for. n, or the call's errno. */
  count(result: i32, n: u32): i32 {
    if (result < 0) return result;
    this.doorbells += result;
    return <i32>n;
  }

  reap(n: u32): i32 {
    const granted = popPeek(this.endpoint, IDX_VALID, this.reapTable, n, 0);
    if (granted <= 0) return granted;
    const flags = this.same != 0 ? BURST_NOFLIP : BURST_NOFLIP | BURST_CLEAR_VALID;
    const result = popRelease(this.endpoint, IDX_VALID, this.reapTable, <u32>granted, flags);
    return result < 0 ? result : granted;
  }

  serve(n: u32): i32 {
    return complete(this.endpoint, this.table, n);
  }

  waitReap(polls: u32): u32 {
    return poll(this.endpoint, IDX_VALID, polls);
  }

  waitServe(polls: u32): u32 {
    return poll(this.endpoint, IDX_INUSE, polls);
  }

  /** One way through inuse (`docs/abi/ioq.md` 6d): the buffers are where the descriptors say. */
  feed(n: u32, source: usize, length: u32): i32 {
    const granted = pushReserve(this.endpoint, IDX_INUSE, this.table, n, BURST_TRANSLATE);
    if (granted != <i32>n) return granted < 0 ? granted : 0;
    let entry = this.table;
    for (let i: u32 = 0; i < n; i++) {
      copyBytes(load<u32>(entry, ENTRY_OFF_ADDRESS), source, length);
      store<u32>(entry, length, ENTRY_OFF_LENGTH);
      entry += ENTRY_SIZE;
    }
    return this.count(pushCommit(this.endpoint, IDX_INUSE, this.table, n, BURST_LENGTH | BURST_SIGNAL), n);
  }

  take(n: u32, sink: usize): i32 {
    const granted = popPeek(this.endpoint, IDX_INUSE, this.table, n, BURST_TRANSLATE);
    if (granted <= 0) return granted;
    copyOut(this.table, granted, sink);
    return this.count(popRelease(this.endpoint, IDX_INUSE, this.table, <u32>granted, BURST_SIGNAL), granted);
  }

  begin(budget: u32): u32 {
    return ringWakeupBegin(this.endpoint, budget, RECHECK_INUSE_HEAD);
  }

  next(): u32 {
    return ringWakeupNext(this.endpoint, RECHECK_INUSE_HEAD);
  }
}
