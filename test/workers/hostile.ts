/** A peer gone mad: rewrites a ring's bytes as fast as it can until it is told to stop (`test/engine/corruption.test.ts`). */
import { parentPort, workerData } from "node:worker_threads";
import { generator } from "../engine/seed.js";

/** What the thread is given. */
export interface HostileWork {
  memory: WebAssembly.Memory;
  /** Where the ring lies in the memory. */
  address: number;
  /** Length of the ring's segment. */
  length: number;
  /** Distance between descriptors, and where the first one is. */
  stride: number;
  header: number;
  seed: number;
  /** Word 0: 1 = running, 2 = stop. Word 1: rounds of 64 writes so far. */
  control: SharedArrayBuffer;
}

const { memory, address, length, stride, header, seed, control } = workerData as HostileWork;
const bytes = new Uint8Array(memory.buffer, address, length);
const view = new DataView(memory.buffer, address, length);
const words = new Int32Array(control);
const random = generator(seed);
const count = Math.floor((length - header) / stride);
const HOSTILE = [0, 1, 2, 0x7f, 0x80, 0xff];
const WORDS = [0, 1, count - 1, count, 0x7fffffff, 0x80000000, 0xffffffff];
const deadline = Date.now() + 60_000; // a test that forgot us must not leave a thread spinning

Atomics.store(words, 0, 1);
let writes = 0;
while (Atomics.load(words, 0) === 1 && Date.now() < deadline) {
  for (let i = 0; i < 64; i++, writes++) {
    const value = HOSTILE[random() % HOSTILE.length] as number;
    switch (random() % 8) {
      case 0:
        bytes[random() % length] = value;
        break;
      case 1:
        view.setUint32(24 + 4 * (random() % 8), WORDS[random() % WORDS.length] as number, true);
        break;
      case 2:
        bytes[16 + (random() % 6)] = value;
        break;
      case 3:
        view.setUint32(header + stride * (random() % count) + 4 * (random() % 6), random(), true);
        break;
      default:
        // mostly owners that could be true, so that a queue lives long enough to be hurt elsewhere
        bytes[header + stride * (random() % count) + 25] = random() % 64 === 0 ? value : random() & 1;
    }
  }
  Atomics.add(words, 1, 1);
  Atomics.notify(words, 1);
}
parentPort?.postMessage(writes);
