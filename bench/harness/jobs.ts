/** What the two threads of a pair are asked to do, and what they answer. Plain data. */

/** A job of one sample. Both sides get the same one. */
export type PairJob =
  | {
      /** Post, consume, complete, reap. */
      kind: "ring";
      /** Descriptors per burst. */
      burst: number;
      /** Most descriptors outstanding. */
      window: number;
      /** Descriptors in total. */
      target: number;
    }
  | {
      /** One descriptor outstanding, to and fro. */
      kind: "trip";
      /** Round trips. */
      target: number;
      /** Descriptors keep their buffers and are not written again. */
      same: boolean;
    }
  | {
      /** One cache line to and fro, from wasm. */
      kind: "line";
      /** Round trips. */
      rounds: number;
    }
  | {
      /** One-way frames through the ring. */
      kind: "feed";
      burst: number;
      target: number;
      /** Bytes per frame. */
      length: number;
    }
  | {
      /** One-way frames with sleeping receiver and doorbells. */
      kind: "doorbell";
      burst: number;
      target: number;
      length: number;
      /** Polls before the receiver goes to sleep. */
      polls: number;
    }
  | {
      /** One-way records through ringbuf.js. */
      kind: "ringbuf";
      burst: number;
      target: number;
      length: number;
      storage: SharedArrayBuffer;
    };

/** What starts a worker of a pair. */
export interface PairWorkerData {
  memory: WebAssembly.Memory;
  /** 0 north, 1 south. */
  side: 0 | 1;
}

/** Answer of one side. */
export interface PairAnswer {
  /** Failure, or null. */
  error: string | null;
  /** Nanoseconds of the job, on this side. */
  ns: number;
  /** Probe before, one way, ns. */
  before: number;
  /** Probe after. */
  after: number;
  /** Doorbells rung by this side. */
  doorbells: number;
  /** Times this side went to sleep. */
  sleeps: number;
}
