/**
 * The rings that one would build with nobody to be compatible with and nobody to distrust: two single-producer,
 * single-consumer rings, requests one way and completions the other. The producer's and the consumer's index have cache
 * lines of their own, each side keeps a private copy of the other's and looks again only when it seems to have run out,
 * and a burst is published by one store. No translation, no bounds, no ownership: what those cost is the difference to
 * the other contestants.
 *
 * A ring:
 *     0 tail: records written    (producer's line)
 *    64 head: records taken      (consumer's line)
 *   128 asleep: consumer wants a doorbell
 *   192 records, 16 bytes each: address u32, length u32, cookie u64
 */
import { WAKEUP_BUDGET, WAKEUP_DONE, WAKEUP_RUN } from "../../../assembly/abi/arena";
import { copyBytes } from "../../../assembly/copy";
import { loadWord, storeWord } from "../../../assembly/memory-order";

const TAIL = 0;
const HEAD = 64;
const ASLEEP = 128;
const RECORDS = 192;
const RECORD = 16;
const FRAME_LENGTH: u32 = 1514;

/** One side of a pair of rings. */
@unmanaged
export class SpscSide {
  posted: u32;
  finished: u32;
  doorbells: u32;
  /** The ring that this side writes, and the one that it reads. */
  output: usize;
  input: usize;
  /** Records of each, a power of two. */
  size: u32;
  /** Own tail of `output` and the last known head of it. */
  tail: u32;
  knownHead: u32;
  /** Own head of `input` and the last known tail of it. */
  head: u32;
  knownTail: u32;
  buffers: usize;
  slot: u32;
  /** Whether to look for a sleeping peer. */
  signal: u32;
  budget: u32;
  /** What a responder read, so that its loads are not in vain. */
  seen: u32;

  hasRoom(n: u32): bool {
    if (this.tail + n - this.knownHead <= this.size) return true;
    this.knownHead = loadWord(this.output + HEAD);
    return this.tail + n - this.knownHead <= this.size;
  }

  available(): u32 {
    const known = this.knownTail - this.head;
    if (known != 0) return known;
    this.knownTail = loadWord(this.input + TAIL);
    return this.knownTail - this.head;
  }

  record(ring: usize, index: u32): usize {
    return ring + RECORDS + <usize>(index & (this.size - 1)) * RECORD;
  }

  /** Publishes n records, then looks whether the consumer sleeps. The store is fully ordered before the load. */
  commit(n: u32): i32 {
    this.tail += n;
    storeWord(this.output + TAIL, this.tail);
    if (this.signal != 0 && loadWord(this.output + ASLEEP) != 0) {
      storeWord(this.output + ASLEEP, 0);
      this.doorbells++;
    }
    return <i32>n;
  }

  prepare(n: u32): i32 {
    if (!this.hasRoom(n)) return 0;
    for (let i: u32 = 0; i < n; i++) {
      const record = this.record(this.output, this.tail + i);
      store<u32>(record, <u32>this.buffers + i * 2048);
      store<u32>(record, FRAME_LENGTH, 4);
      store<u64>(record, i, 8);
    }
    return <i32>n;
  }

  publish(n: u32): i32 {
    return this.commit(n);
  }

  /** Takes records; the head is published by a plain store, for the next fully ordered one of this side follows soon. */
  reap(n: u32): i32 {
    let found = this.available();
    if (found > n) found = n;
    if (found == 0) return 0;
    let seen: u32 = 0;
    for (let i: u32 = 0; i < found; i++) seen += <u32>load<u64>(this.record(this.input, this.head + i), 8);
    this.seen += seen;
    this.head += found;
    store<u32>(this.input, this.head, HEAD);
    return <i32>found;
  }

  serve(n: u32): i32 {
    let found = this.available();
    if (found > n) found = n;
    if (found == 0 || !this.hasRoom(found)) return 0;
    let seen: u32 = 0;
    for (let i: u32 = 0; i < found; i++) {
      const from = this.record(this.input, this.head + i);
      const to = this.record(this.output, this.tail + i);
      seen += load<u32>(from) + load<u32>(from, 4);
      store<u64>(to, load<u64>(from, 8), 8);
    }
    this.seen += seen;
    this.head += found;
    store<u32>(this.input, this.head, HEAD); // before the fully ordered store of the completions' tail
    return this.commit(found);
  }

  wait(polls: u32): u32 {
    if (this.knownTail != this.head) return 1;
    const tail = this.input + TAIL;
    for (let left = polls; left != 0; left--) {
      if (loadWord(tail) != this.head) return 1;
    }
    return 0;
  }

  waitReap(polls: u32): u32 {
    return this.wait(polls);
  }

  waitServe(polls: u32): u32 {
    return this.wait(polls);
  }

  feed(n: u32, source: usize, length: u32): i32 {
    if (!this.hasRoom(n)) return 0;
    for (let i: u32 = 0; i < n; i++) {
      const at = this.tail + i;
      const buffer = this.buffers + <usize>(at & (this.size - 1)) * this.slot;
      copyBytes(buffer, source, length);
      const record = this.record(this.output, at);
      store<u32>(record, <u32>buffer);
      store<u32>(record, length, 4);
    }
    return this.commit(n);
  }

  take(n: u32, sink: usize): i32 {
    let found = this.available();
    if (found > n) found = n;
    if (found == 0) return 0;
    let at = sink;
    for (let i: u32 = 0; i < found; i++) {
      const record = this.record(this.input, this.head + i);
      const length = load<u32>(record, 4);
      copyBytes(at, load<u32>(record), length);
      at += length;
    }
    this.head += found;
    storeWord(this.input + HEAD, this.head);
    return <i32>found;
  }

  begin(budget: u32): u32 {
    this.budget = budget;
    storeWord(this.input + ASLEEP, 0);
    return this.run();
  }

  run(): u32 {
    if (this.budget == 0) return WAKEUP_BUDGET;
    this.budget--;
    return WAKEUP_RUN;
  }

  /** Says that it sleeps, then looks again: a producer either sees that or is seen here. */
  next(): u32 {
    storeWord(this.input + ASLEEP, 1);
    if (this.available() == 0) return WAKEUP_DONE;
    storeWord(this.input + ASLEEP, 0);
    return this.run();
  }
}
