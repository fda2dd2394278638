import { MessageChannel, Worker } from "node:worker_threads";
import { Doorbell } from "./doorbell.js";
import type { LatencyQuantiles, PairAnswer, PairJob, PairWorkerData } from "./jobs.js";
import { linkSharedLoops, type TwoThreadLoops } from "./loops.js";
import type { BracketedSample } from "./placement.js";
import { idleReceiver, setSides, setStage, STAGE_PAGES, type RingPlan } from "./stage.js";

/** A sample of a pair, with what both sides counted. */
export interface PairSample extends BracketedSample {
  /** Nanoseconds of the whole job: from the common start until north's half ended (south's for one-way jobs). */
  total: number;
  /** Doorbells rung. */
  doorbells: number;
  /** Times the receiver went to sleep. */
  sleeps: number;
  /** Nanoseconds of processor time during the job, of the whole process. */
  cpu: number;
  /** Quantiles of timed round trips. */
  latency: LatencyQuantiles | null;
}

/**
 * Two threads over one shared memory, north and south of one ring, that run one short sample at a time. Between samples
 * both sleep, so that the other contestant has the cores to itself.
 */
export class ThreadPair {
  readonly #workers: readonly [Worker, Worker];

  private constructor(
    /** The memory of the ring. */
    readonly memory: WebAssembly.Memory,
    /** This thread's own instance: sets rings up. */
    readonly loops: TwoThreadLoops,
    workers: readonly [Worker, Worker],
  ) {
    this.#workers = workers;
    for (const worker of workers) {
      worker.on("error", (error) => {
        this.#failure ??= new Error("a thread of the pair failed", { cause: error });
      });
    }
  }

  /** Starts both threads over a memory of so many pages; the first ones are the stage's. */
  static start(pages: number = STAGE_PAGES): ThreadPair {
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const { port1, port2 } = new MessageChannel();
    const start = (side: 0 | 1, port: PairWorkerData["port"]): Worker => {
      const workerData: PairWorkerData = { memory, side, port };
      return new Worker(new URL("./pair-worker.js", import.meta.url), { workerData, transferList: [port] });
    };
    return new ThreadPair(memory, linkSharedLoops(memory), [start(0, port1), start(1, port2)]);
  }

  /** Why a thread ended between samples; the next sample fails with it, and so does nothing else. */
  #failure: Error | null = null;

  /** A fresh ring; both threads must be idle. `same`: descriptors keep their buffers and are not written again. */
  set(plan: RingPlan, same = false): void {
    setStage(this.loops, this.memory, plan);
    setSides(this.loops, same);
  }

  /** Leaves the receiver of a fresh ring unmasked and idle, so that the first frame rings the doorbell. */
  settle(): void {
    idleReceiver(this.memory);
    Doorbell.reset(this.memory);
  }

  /**
   * Runs one job on both threads. `per` divides the time: descriptors, frames, round trips.
   * @throws Error as soon as one of them fails; the other one waits for it then, so the pair has to be closed
   */
  async sample(job: PairJob, per: number): Promise<PairSample> {
    if (this.#failure !== null) throw this.#failure;
    const half = async (worker: Worker): Promise<PairAnswer> => {
      const answer = await ask(worker, job);
      if (answer.error !== null) throw new Error(`two-thread ${job.kind}: ${answer.error}`);
      return answer;
    };
    const [north, south] = await Promise.all([half(this.#workers[0]), half(this.#workers[1])]);
    // the slower half ends last; on a one-way job that is the receiver
    const total = Math.max(north.ns, south.ns);
    return {
      ns: total / per,
      total,
      before: Math.max(north.before, south.before),
      after: Math.max(north.after, south.after),
      doorbells: north.doorbells + south.doorbells,
      sleeps: north.sleeps + south.sleeps,
      cpu: north.cpu,
      latency: north.latency,
    };
  }

  /** Ends both threads. */
  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}

function ask(worker: Worker, job: PairJob): Promise<PairAnswer> {
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      worker.off("message", onMessage);
      worker.off("error", onError);
      worker.off("exit", onExit);
    };
    const onMessage = (answer: PairAnswer): void => {
      settle();
      resolve(answer);
    };
    const onError = (error: Error): void => {
      settle();
      reject(error);
    };
    const onExit = (code: number): void => {
      settle();
      reject(new Error(`a thread of the pair ended with code ${code}`));
    };
    worker.on("message", onMessage);
    worker.on("error", onError);
    worker.on("exit", onExit);
    worker.postMessage(job);
  });
}
