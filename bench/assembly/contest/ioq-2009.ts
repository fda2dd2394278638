/**
 * IOQ as it was written in 2009, reconstructed from the ABI documents (`docs/abi/ioq.md` 3 to 8, `shm-signal.md` 2): the same
 * bytes on the wire, but one descriptor at a time; both ends of both indexes live in the shared header and are read and
 * written there for every one of them (9, D2); the transmitter signals after each (6a, AUTOUPDATE), the host after each batch.
 *
 * Orderings: the original stands a write fence before and after the store of an owner, and after that of `dirty`. Wasm has
 * no such fence; a fully ordered store of the owner, of `dirty` and of `full` stands for the fences around it, and the other
 * stores are plain ones. That is as few as keep its promises (and repairs R1 of shm-signal.md, as a store buffer would not).
 * Buffers are translated and bounds-checked as by the engine.
 */
import { WAKEUP_BUDGET, WAKEUP_DONE, WAKEUP_RUN } from "../../../assembly/abi/arena";
import { EINVAL, EPROTO } from "../../../assembly/abi/errno";
import {
  DESC_OFF_COOKIE,
  DESC_OFF_LEN,
  DESC_OFF_PTR,
  DESC_OFF_SOWN,
  DESC_OFF_VALID,
  IDX_INUSE,
  IDX_OFF_FULL,
  IDX_OFF_HEAD,
  IDX_OFF_TAIL,
  IDX_VALID,
  IOQ_OFF_IDX,
  IOQ_OFF_RING,
  IOQ_OFF_SIGNAL,
} from "../../../assembly/abi/ioq";
import {
  IRQ_OFF_DIRTY,
  IRQ_OFF_ENABLED,
  IRQ_OFF_PENDING,
  NORTH,
  SIGNAL_OFF_IRQ,
  SOUTH,
} from "../../../assembly/abi/shm-signal";
import { copyBytes } from "../../../assembly/copy";
import { loadByte, loadWord, storeByte } from "../../../assembly/memory-order";
import { translateRange } from "../../../assembly/regions";

const INDEX_SIZE: usize = 12;
const DESCRIPTOR_SIZE: usize = 32;
const IRQ_SIZE: usize = 3;
const BUFFER_SIZE: u64 = 2048;
const FRAME_LENGTH: u64 = 1514;

/** One side of an IOQ. */
@unmanaged
export class Ioq2009Side {
  posted: u32;
  finished: u32;
  doorbells: u32;
  ring: usize;
  regions: usize;
  locale: u32;
  /** Copied once, at attach. */
  count: u32;
  buffersGpa: u64;
  buffers: usize;
  slot: u32;
  signal: u32;
  budget: u32;
  cookie: u64;

  index(which: u32): usize {
    return this.ring + IOQ_OFF_IDX + <usize>which * INDEX_SIZE;
  }

  descriptor(position: u32): usize {
    return this.ring + IOQ_OFF_RING + <usize>position * DESCRIPTOR_SIZE;
  }

  after(position: u32): u32 {
    return position + 1 == this.count ? 0 : position + 1;
  }

  isFull(which: u32): bool {
    const index = this.index(which);
    if (loadByte(index + IDX_OFF_FULL) == 0) return false;
    return loadWord(index + IDX_OFF_HEAD) == loadWord(index + IDX_OFF_TAIL);
  }

  /** Step 2 of push: `full` before tail. */
  advanceTail(which: u32): u32 {
    const index = this.index(which);
    const tail = this.after(loadWord(index + IDX_OFF_TAIL));
    if (tail == loadWord(index + IDX_OFF_HEAD)) storeByte(index + IDX_OFF_FULL, 1);
    store<u32>(index, tail, IDX_OFF_TAIL);
    return tail;
  }

  /** Push at the tail of an index, and of a second one. 1, or a negative errno. */
  push(which: u32, position: u32, both: bool): i32 {
    const descriptor = this.descriptor(position);
    if (position != loadWord(this.index(which) + IDX_OFF_TAIL)) return -EINVAL;
    if (loadByte(descriptor + DESC_OFF_SOWN) != this.locale) return -EINVAL;
    const tail = this.advanceTail(which);
    if (both && this.advanceTail(IDX_INUSE) != tail) return -EPROTO;
    storeByte(descriptor + DESC_OFF_SOWN, 1 - this.locale);
    return 1;
  }

  /** Pop at the head of an index. 1, or a negative errno. */
  pop(which: u32, position: u32, flip: bool): i32 {
    const descriptor = this.descriptor(position);
    const index = this.index(which);
    if (position != loadWord(index + IDX_OFF_HEAD)) return -EINVAL;
    if (loadByte(descriptor + DESC_OFF_SOWN) != this.locale) return -EINVAL;
    store<u32>(index, this.after(position), IDX_OFF_HEAD);
    if (loadByte(index + IDX_OFF_FULL) != 0) storeByte(index + IDX_OFF_FULL, 0);
    if (flip) storeByte(descriptor + DESC_OFF_SOWN, 1 - this.locale);
    return 1;
  }

  irq(locale: u32): usize {
    return this.ring + IOQ_OFF_SIGNAL + SIGNAL_OFF_IRQ + <usize>locale * IRQ_SIZE;
  }

  inject(): void {
    if (this.signal == 0) return;
    const remote = this.irq(1 - this.locale);
    storeByte(remote + IRQ_OFF_DIRTY, 1);
    if (loadByte(remote + IRQ_OFF_ENABLED) == 0 || loadByte(remote + IRQ_OFF_PENDING) != 0) return;
    storeByte(remote + IRQ_OFF_PENDING, 1);
    this.doorbells++;
  }

  /** Nothing can be prepared ahead: the iterator is bound to the tail that the shared header holds. */
  prepare(n: u32): i32 {
    return <i32>n;
  }

  publish(n: u32): i32 {
    for (let i: u32 = 0; i < n; i++) {
      if (this.isFull(IDX_VALID)) return <i32>i;
      const position = loadWord(this.index(IDX_VALID) + IDX_OFF_TAIL);
      const descriptor = this.descriptor(position);
      if (loadByte(descriptor + DESC_OFF_SOWN) != <u32>NORTH) return <i32>i;
      store<u64>(descriptor, this.cookie++, DESC_OFF_COOKIE);
      store<u64>(descriptor, this.buffersGpa + <u64>i * BUFFER_SIZE, DESC_OFF_PTR);
      store<u64>(descriptor, FRAME_LENGTH, DESC_OFF_LEN);
      store<u8>(descriptor, 1, DESC_OFF_VALID);
      const pushed = this.push(IDX_VALID, position, true);
      if (pushed < 0) return pushed;
      this.inject();
    }
    return <i32>n;
  }

  reap(n: u32): i32 {
    let position = loadWord(this.index(IDX_VALID) + IDX_OFF_HEAD);
    for (let i: u32 = 0; i < n; i++) {
      const descriptor = this.descriptor(position);
      if (load<u8>(descriptor, DESC_OFF_VALID) == 0) return <i32>i;
      if (loadByte(descriptor + DESC_OFF_SOWN) != <u32>NORTH) return <i32>i;
      store<u8>(descriptor, 0, DESC_OFF_VALID);
      const popped = this.pop(IDX_VALID, position, false);
      if (popped < 0) return popped;
      position = this.after(position);
    }
    return <i32>n;
  }

  serve(n: u32): i32 {
    return this.consume(n, 0);
  }

  /** Pops from inuse, copying what descriptors carry to `sink` unless it is 0; one signal at the end. */
  consume(n: u32, sink: usize): i32 {
    let position = loadWord(this.index(IDX_INUSE) + IDX_OFF_HEAD);
    let at = sink;
    let done: u32 = 0;
    while (done < n) {
      const descriptor = this.descriptor(position);
      if (loadByte(descriptor + DESC_OFF_SOWN) != <u32>SOUTH) break;
      const length = load<u64>(descriptor, DESC_OFF_LEN);
      const address = translateRange(this.regions, load<u64>(descriptor, DESC_OFF_PTR), length);
      if (address == 0) return -EPROTO;
      if (sink != 0) {
        copyBytes(at, address, <usize>length);
        at += <usize>length;
      }
      const popped = this.pop(IDX_INUSE, position, true);
      if (popped < 0) return popped;
      position = this.after(position);
      done++;
    }
    if (done != 0) this.inject();
    return <i32>done;
  }

  waitOwner(position: u32, polls: u32): u32 {
    const owner = this.descriptor(position) + DESC_OFF_SOWN;
    for (let left = polls; left != 0; left--) {
      if (loadByte(owner) == this.locale) return 1;
    }
    return 0;
  }

  waitReap(polls: u32): u32 {
    return this.waitOwner(loadWord(this.index(IDX_VALID) + IDX_OFF_HEAD), polls);
  }

  waitServe(polls: u32): u32 {
    return this.waitOwner(loadWord(this.index(IDX_INUSE) + IDX_OFF_HEAD), polls);
  }

  /** Pattern 6d: each position keeps its buffer. */
  feed(n: u32, source: usize, length: u32): i32 {
    for (let i: u32 = 0; i < n; i++) {
      const position = loadWord(this.index(IDX_INUSE) + IDX_OFF_TAIL);
      const descriptor = this.descriptor(position);
      if (loadByte(descriptor + DESC_OFF_SOWN) != <u32>NORTH) return <i32>i;
      copyBytes(this.buffers + <usize>position * this.slot, source, length);
      store<u64>(descriptor, length, DESC_OFF_LEN);
      const pushed = this.push(IDX_INUSE, position, false);
      if (pushed < 0) return pushed;
      this.inject();
    }
    return <i32>n;
  }

  take(n: u32, sink: usize): i32 {
    return this.consume(n, sink);
  }

  /** shm-signal.md 2.4. */
  begin(budget: u32): u32 {
    this.budget = budget;
    return this.outer();
  }

  outer(): u32 {
    const local = this.irq(this.locale);
    if (
      loadByte(local + IRQ_OFF_ENABLED) != 0 &&
      (loadByte(local + IRQ_OFF_DIRTY) | loadByte(local + IRQ_OFF_PENDING)) != 0
    )
      return this.run(local);
    return WAKEUP_DONE;
  }

  run(local: usize): u32 {
    if (this.budget == 0) return WAKEUP_BUDGET;
    this.budget--;
    storeByte(local + IRQ_OFF_DIRTY, 0);
    return WAKEUP_RUN;
  }

  next(): u32 {
    const local = this.irq(this.locale);
    if (loadByte(local + IRQ_OFF_ENABLED) != 0 && loadByte(local + IRQ_OFF_DIRTY) != 0)
      return this.run(local);
    storeByte(local + IRQ_OFF_PENDING, 0);
    return this.outer();
  }
}
