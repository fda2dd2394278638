import type { MessagePort } from "node:worker_threads";

/** What the two threads of a pair are asked to do, and what they answer. Plain data. */

/** A job of one sample. Both sides get the same one. */
export type PairJob =
  | {
      /** One cache line to and fro, from wasm. */
      kind: "line";
      /** Round trips. */
      rounds: number;
    }
  | LoopJob
  | RivalJob;

/** A loop in wasm by its name, and what to call it with. */
export interface LoopCall {
  name: string;
  /** Without the polls, which the thread adds. */
  args: readonly number[];
}

/** Jobs of loops in wasm: those of the shoot-out's contestants, and those of the stage's ring. */
export type LoopJob =
  | {
      /** Each side drives a loop of its own. */
      kind: "loops";
      north: LoopCall;
      south: LoopCall;
    }
  | {
      /** `trips` round trips on end, then as many that are timed one by one. `ns` is of the first. */
      kind: "loops-trips";
      north: LoopCall;
      south: LoopCall;
      trips: number;
    }
  | {
      /** A consumer that sleeps: its loop gets its polls and a budget. */
      kind: "loops-woken";
      north: LoopCall;
      south: LoopCall;
      /** Polls before it goes to sleep. */
      polls: number;
    };

/** Jobs of contestants in JavaScript. */
export type RivalJob =
  | {
      /** One-way records through ringbuf.js. */
      kind: "ringbuf";
      burst: number;
      target: number;
      length: number;
      storage: SharedArrayBuffer;
    }
  | {
      /** Records of `words` 32-bit words there and back, through two rings of ringbuf.js. */
      kind: "ringbuf-requests";
      burst: number;
      target: number;
      words: number;
      requests: SharedArrayBuffer;
      completions: SharedArrayBuffer;
    }
  | {
      /** … one at a time: `trips` on end, then as many that are timed one by one. */
      kind: "ringbuf-trips";
      trips: number;
      words: number;
      requests: SharedArrayBuffer;
      completions: SharedArrayBuffer;
    }
  | {
      /** Payloads one way through a MessageChannel, a burst per message, copied. */
      kind: "messages";
      burst: number;
      target: number;
      length: number;
      /** Most messages that were not acknowledged. */
      window: number;
    }
  | {
      /** Records there and back, a burst per message. */
      kind: "message-requests";
      burst: number;
      target: number;
      /** Bytes of a record. */
      length: number;
      window: number;
    }
  | {
      /** … one at a time, each timed. */
      kind: "message-trips";
      trips: number;
      length: number;
    };

/** What starts a worker of a pair. */
export interface PairWorkerData {
  memory: WebAssembly.Memory;
  /** 0 north, 1 south. */
  side: 0 | 1;
  /** This side's end of a MessageChannel to the other. */
  port: MessagePort;
}

/** Answer of one side. */
export interface PairAnswer {
  /** Failure, or null. */
  error: string | null;
  /** Nanoseconds of the job, on this side; a half that is more than its job says itself which part counts. */
  ns: number;
  /** Probe before, one way, ns. */
  before: number;
  /** Probe after. */
  after: number;
  /** Doorbells rung by this side. */
  doorbells: number;
  /** Times this side went to sleep. */
  sleeps: number;
  /** Nanoseconds of processor time that the process took during the job. */
  cpu: number;
  /** Quantiles of timed round trips, ns; null when they were not timed. */
  latency: LatencyQuantiles | null;
}

/** What is said of single round trips, in ns. */
export interface LatencyQuantiles {
  p50: number;
  p90: number;
  p99: number;
  p999: number;
}

/** An answer to fill in. */
export function emptyAnswer(): PairAnswer {
  return { error: null, ns: 0, before: 0, after: 0, doorbells: 0, sleeps: 0, cpu: 0, latency: null };
}
