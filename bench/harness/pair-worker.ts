/** One thread of a pair: waits for jobs, meets its peer, probes the cache line, runs its half, probes again. */
import process from "node:process";
import { parentPort, workerData } from "node:worker_threads";
import { Doorbell } from "./doorbell.js";
import { emptyAnswer, type PairAnswer, type PairJob, type PairWorkerData } from "./jobs.js";
import { runLoopHalf } from "./loop-halves.js";
import { linkContestants, linkSharedLoops } from "./loops.js";
import { Meeting } from "./meeting.js";
import { runMessageHalf } from "./message-halves.js";
import { runRingbufHalf } from "./ringbuf-halves.js";

const { memory, side, port } = workerData as PairWorkerData;
const stageLoops = linkSharedLoops(memory);
const meeting = new Meeting(memory, stageLoops, side);
const own = {
  side,
  loops: { ...linkContestants(memory), ...stageLoops },
  bell: new Doorbell(memory),
  port,
};

async function runHalf(job: PairJob, answer: PairAnswer): Promise<void> {
  switch (job.kind) {
    case "loops":
    case "loops-trips":
    case "loops-woken":
      runLoopHalf(own, job, answer);
      break;
    case "ringbuf":
    case "ringbuf-requests":
    case "ringbuf-trips":
      runRingbufHalf(side, job, answer);
      break;
    case "messages":
    case "message-requests":
    case "message-trips":
      await runMessageHalf(own, job, answer);
      break;
    case "line":
      meeting.bounce(job.rounds);
  }
}

async function run(job: PairJob): Promise<PairAnswer> {
  const answer = emptyAnswer();
  answer.before = meeting.probe();
  meeting.meet();
  const begin = performance.now();
  const cpu = process.cpuUsage();
  await runHalf(job, answer);
  if (answer.ns === 0) answer.ns = (performance.now() - begin) * 1e6;
  meeting.meet();
  // of both threads, and of a main thread that waits for them
  const { user, system } = process.cpuUsage(cpu);
  answer.cpu = (user + system) * 1000;
  answer.after = meeting.probe();
  return answer;
}

parentPort?.on("message", (job: PairJob) => {
  void run(job)
    .catch((error: unknown) => ({
      ...emptyAnswer(),
      error: error instanceof Error ? error.message : String(error),
    }))
    .then((answer) => parentPort?.postMessage(answer));
});
