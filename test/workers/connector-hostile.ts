// A hostile guest thread: scribbles over its own doorbell page and rings, as fast as it can, until it is terminated.
import { workerData } from "node:worker_threads";

const { buffer, address, seed, valid } = workerData as {
  buffer: SharedArrayBuffer;
  address: number;
  seed: number;
  /** True: only states that exist, so that the connection lives and the storm goes on. */
  valid: boolean;
};
const words = new Int32Array(buffer, address, 1024);

let state = seed;
function random(): number {
  state = (Math.imul(state, 1103515245) + 12345) | 0;
  return state >>> 8;
}

for (;;) {
  for (let i = 0; i < 64; i++) Atomics.store(words, 256 + (random() % 768), valid ? random() % 5 : random());
  if (!valid) Atomics.store(words, random() % 1024, random());
  for (let i = 0; i < 32; i++) Atomics.store(words, 32 + i, -1);
  Atomics.add(words, 16, 1);
  Atomics.notify(words, 16);
}
