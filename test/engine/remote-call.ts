/**
 * Synchronous calls between two threads for tests: one block of shared memory, a state word, JSON. The caller sleeps on
 * the word until the answer is there, so that the conformance table reads the same whether a side lives here or there.
 */

const IDLE = 0;
const POSTED = 1;
const ANSWERED = 2;
const HEADER = 8;
const TIMEOUT_MS = 10_000;

/** Size of a call block. */
export const CALL_BLOCK_SIZE = 1 << 20;

function put(block: SharedArrayBuffer, value: unknown, state: number): void {
  const words = new Int32Array(block, 0, 2);
  const text = new TextEncoder().encode(JSON.stringify(value));
  if (text.length > block.byteLength - HEADER)
    throw new RangeError(`${text.length} bytes do not fit a call block`);
  new Uint8Array(block, HEADER).set(text);
  words[1] = text.length;
  Atomics.store(words, 0, state);
  Atomics.notify(words, 0);
}

function take(block: SharedArrayBuffer): unknown {
  const words = new Int32Array(block, 0, 2);
  return JSON.parse(new TextDecoder().decode(new Uint8Array(block, HEADER, words[1]).slice()));
}

/** Calls the other thread and waits for its answer. */
export function callRemote(block: SharedArrayBuffer, request: unknown): unknown {
  const words = new Int32Array(block, 0, 2);
  put(block, request, POSTED);
  // the notify of the answer before may come this late: what counts is the state
  while (Atomics.load(words, 0) !== ANSWERED) {
    if (Atomics.wait(words, 0, POSTED, TIMEOUT_MS) === "timed-out") {
      throw new Error(`no answer from the other thread within ${TIMEOUT_MS} ms`);
    }
  }
  const answer = take(block) as { result: unknown } | { error: string };
  Atomics.store(words, 0, IDLE);
  if ("error" in answer) throw new Error(`in the other thread: ${answer.error}`);
  return answer.result;
}

/** Answers calls until `handle` returns `"stop"`. */
export function serveRemote(block: SharedArrayBuffer, handle: (request: unknown) => unknown): void {
  const words = new Int32Array(block, 0, 2);
  for (;;) {
    const state = Atomics.load(words, 0);
    if (state !== POSTED) {
      Atomics.wait(words, 0, state);
      continue;
    }
    let answer: { result: unknown } | { error: string };
    try {
      answer = { result: handle(take(block)) ?? null };
    } catch (error) {
      answer = { error: String(error) };
    }
    put(block, answer, ANSWERED);
    if ("result" in answer && answer.result === "stop") return;
  }
}
