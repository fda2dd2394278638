/**
 * Virtqueues, split and packed, with everything that helps them: private positions, event index, one publication per
 * burst, and where it was negotiated in-order use. Driver and device are the engine's own functions, as for IOQ; the
 * device translates and bounds-checks every buffer. Payloads lie in buffers of the driver's that are used in turn.
 */
import {
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENTS,
  ENTRY_OFF_GPA,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  WAKEUP_BUDGET,
  WAKEUP_DONE,
  WAKEUP_RUN,
} from "../../../assembly/abi/arena";
import {
  VQ_DRIVER,
  VQ_OFF_AVAIL,
  VQ_OFF_AVAIL_WRAP,
  VQ_OFF_DESC,
  VQ_OFF_DEVICE,
  VQ_OFF_DRIVER,
  VQ_OFF_FLAGS,
  VQ_OFF_SIZE,
  VQ_OFF_SLOTS,
  VQ_OFF_USED,
  VQ_OFF_USED_WRAP,
  VQ_PACKED,
} from "../../../assembly/abi/arena-virtq";
import {
  PACKED_DESC_F_AVAIL,
  PACKED_DESC_F_USED,
  PACKED_DESC_OFF_FLAGS,
  SPLIT_RING_OFF_IDX,
  VIRTQ_DESC_SIZE,
} from "../../../assembly/abi/virtio";
import { copyBytes } from "../../../assembly/copy";
import { loadHalf } from "../../../assembly/memory-order";
import {
  virtqAdd,
  virtqDisable,
  virtqEnable,
  virtqPeek,
  virtqReap,
  virtqRelease,
} from "../../../assembly/virtq-endpoint";
import { copyOut } from "../sides";

const BUFFER_SIZE: u64 = 2048;
const FRAME_LENGTH: u32 = 1514;

/** One side of a virtqueue. */
@unmanaged
export class VirtqueueSide {
  posted: u32;
  finished: u32;
  doorbells: u32;
  vq: usize;
  table: usize;
  /** What reaped chains are written to: the table holds the next ones meanwhile. */
  reaped: usize;
  /** Where one list of one piece is, for the device. */
  lists: usize;
  buffersGpa: u32;
  buffers: usize;
  slot: u32;
  budget: u32;
  /** The buffer that is used next. */
  buffer: u32;

  free(): u32 {
    return load<u32>(this.vq, VQ_OFF_SIZE) - load<u32>(this.vq, VQ_OFF_SLOTS);
  }

  put(entry: usize, gpa: u64, length: u32, cookie: u64): void {
    store<u32>(entry, length, ENTRY_OFF_LENGTH);
    store<u32>(entry, 0, ENTRY_OFF_FLAGS);
    store<u16>(entry, 1, ENTRY_OFF_FRAGMENTS);
    store<u64>(entry, gpa, ENTRY_OFF_GPA);
    store<u64>(entry, cookie, ENTRY_OFF_COOKIE);
  }

  prepare(n: u32): i32 {
    if (this.free() < n) return 0;
    let entry = this.table;
    for (let i: u32 = 0; i < n; i++) {
      this.put(entry, <u64>this.buffersGpa + <u64>i * BUFFER_SIZE, FRAME_LENGTH, i);
      entry += ENTRY_SIZE;
    }
    return <i32>n;
  }

  publish(n: u32): i32 {
    const result = virtqAdd(this.vq, this.table, n);
    if (result < 0) return result;
    this.doorbells += result;
    return <i32>n;
  }

  reap(n: u32): i32 {
    return virtqReap(this.vq, this.reaped, n);
  }

  serve(n: u32): i32 {
    const found = virtqPeek(this.vq, this.table, n, this.lists, 1);
    if (found <= 0) return found;
    return this.release(found);
  }

  release(n: i32): i32 {
    const result = virtqRelease(this.vq, this.table, <u32>n);
    if (result < 0) return result;
    this.doorbells += result;
    return n;
  }

  /** The word that the peer writes last: its index, or the flags of the descriptor at this side's position. */
  wait(polls: u32): u32 {
    const flags = load<u32>(this.vq, VQ_OFF_FLAGS);
    const driver = (flags & VQ_DRIVER) != 0;
    const position = load<u32>(this.vq + (driver ? VQ_OFF_USED : VQ_OFF_AVAIL));
    if ((flags & VQ_PACKED) == 0) {
      const index = <usize>load<u32>(this.vq + (driver ? VQ_OFF_DEVICE : VQ_OFF_DRIVER)) + SPLIT_RING_OFF_IDX;
      for (let left = polls; left != 0; left--) {
        if (loadHalf(index) != position) return 1;
      }
      return 0;
    }
    const wrap = load<u32>(this.vq + (driver ? VQ_OFF_USED_WRAP : VQ_OFF_AVAIL_WRAP));
    const state: u32 = PACKED_DESC_F_AVAIL | PACKED_DESC_F_USED;
    const wanted: u32 = driver
      ? wrap != 0
        ? state
        : 0
      : wrap != 0
        ? PACKED_DESC_F_AVAIL
        : PACKED_DESC_F_USED;
    const word =
      <usize>load<u32>(this.vq, VQ_OFF_DESC) + <usize>position * VIRTQ_DESC_SIZE + PACKED_DESC_OFF_FLAGS;
    for (let left = polls; left != 0; left--) {
      if ((loadHalf(word) & state) == wanted) return 1;
    }
    return 0;
  }

  waitReap(polls: u32): u32 {
    return this.wait(polls);
  }

  waitServe(polls: u32): u32 {
    return this.wait(polls);
  }

  /** Takes back what was used only when there is no room: looking earlier would pull lines from under the device's hands. */
  feed(n: u32, source: usize, length: u32): i32 {
    if (this.free() < n) {
      const reaped = this.reap(load<u32>(this.vq, VQ_OFF_SIZE));
      if (reaped < 0) return reaped;
      if (this.free() < n) return 0;
    }
    const size = load<u32>(this.vq, VQ_OFF_SIZE);
    let buffer = this.buffer;
    let entry = this.table;
    for (let i: u32 = 0; i < n; i++) {
      const offset = buffer * this.slot;
      copyBytes(this.buffers + <usize>offset, source, length);
      this.put(entry, <u64>(this.buffersGpa + offset), length, buffer);
      entry += ENTRY_SIZE;
      if (++buffer == size) buffer = 0;
    }
    this.buffer = buffer;
    return this.publish(n);
  }

  take(n: u32, sink: usize): i32 {
    const found = virtqPeek(this.vq, this.table, n, this.lists, 1);
    if (found <= 0) return found;
    copyOut(this.table, found, sink);
    return this.release(found);
  }

  begin(budget: u32): u32 {
    this.budget = budget;
    virtqDisable(this.vq);
    return this.run();
  }

  run(): u32 {
    if (this.budget == 0) return WAKEUP_BUDGET;
    this.budget--;
    return WAKEUP_RUN;
  }

  /** Arms; what is found there already is worth another run. */
  next(): u32 {
    if (virtqEnable(this.vq, 0) == 0) return WAKEUP_DONE;
    virtqDisable(this.vq);
    return this.run();
  }
}
