/** What a run does; filled from the command line in Node, from the page in a browser. */
export interface JobOptions {
  /** Times each direction is replayed at full speed. */
  repetitions: number;
  /** Frames handed to the ring at once. */
  batch: number;
  /** Descriptors of each RX and TX ring. */
  rxRing: number;
  txRing: number;
  /** MTU of both NICs. */
  mtu: number;
  /** Rounds of the latency run. */
  rounds: number;
  /** Frames per port that go into the capture file; the rest is counted there. 0: no capture. */
  captureFrames: number;
  /** Lazily written indexes (an extension of IOQ v4). */
  lazy: boolean;
  /** Polls before a thread sleeps. */
  spin: number;
  /** Probabilities of faults between the guests and the switch. */
  faults: {
    loss: number;
    duplicate: number;
    reorder: number;
    corrupt: number;
    delay: number;
    delayMs: number;
    seed: number;
  } | null;
}

/** What `npm start` does when nobody says otherwise. */
export const DEFAULT_OPTIONS: JobOptions = {
  repetitions: 300,
  batch: 64,
  rxRing: 256,
  txRing: 256,
  mtu: 1500,
  rounds: 2000,
  captureFrames: 5000,
  lazy: false,
  spin: 0,
  faults: null,
};
