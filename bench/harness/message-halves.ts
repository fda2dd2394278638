/** What each thread of a pair does with a MessageChannel: bytes in messages, copied by structured clone, as is usual. */
import type { MessagePort } from "node:worker_threads";
import type { PairAnswer, PairJob } from "./jobs.js";
import { latencyOf } from "./latency.js";
import { PATIENCE_MS } from "./meeting.js";

type MessageJob = PairJob & { kind: "messages" | "message-requests" | "message-trips" };

/** Handles messages until `onMessage` says that it has had enough. */
function listen(port: MessagePort, onMessage: (data: Uint8Array) => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      end();
      reject(new Error(`MessageChannel: no message within ${PATIENCE_MS} ms`));
    }, PATIENCE_MS);
    const receive = (data: Uint8Array): void => {
      if (!onMessage(data)) return;
      end();
      resolve();
    };
    const end = (): void => {
      clearTimeout(timer);
      port.off("message", receive);
    };
    port.on("message", receive);
  });
}

/** The asking side: so many messages, at most `window` without an answer. */
export async function askByMessages(
  port: MessagePort,
  data: Uint8Array,
  messages: number,
  window: number,
): Promise<void> {
  let posted = 0;
  let answered = 0;
  const post = (): void => {
    while (posted < messages && posted - answered < window) {
      port.postMessage(data);
      posted++;
    }
  };
  const done = listen(port, () => {
    answered++;
    post();
    return answered === messages;
  });
  post();
  await done;
}

/** The answering side: `answer` null sends what came, anything else is sent instead. */
export function answerMessages(
  port: MessagePort,
  answer: Uint8Array | null,
  messages: number,
): Promise<void> {
  let served = 0;
  return listen(port, (data) => {
    port.postMessage(answer ?? data);
    return ++served === messages;
  });
}

async function timedTrips(
  port: MessagePort,
  count: number,
  record: Uint8Array,
  answer: PairAnswer,
): Promise<void> {
  const times: number[] = [];
  let before = performance.now();
  const done = listen(port, () => {
    const after = performance.now();
    times.push((after - before) * 1e6);
    before = after;
    if (times.length === count) return true;
    port.postMessage(record);
    return false;
  });
  port.postMessage(record);
  await done;
  answer.latency = latencyOf(times);
}

/** Runs this thread's half. */
export async function runMessageHalf(
  { side, port }: { side: 0 | 1; port: MessagePort },
  job: MessageJob,
  answer: PairAnswer,
): Promise<void> {
  if (job.kind === "message-trips") {
    if (side === 1) await answerMessages(port, null, job.trips);
    else await timedTrips(port, job.trips, new Uint8Array(job.length), answer);
    return;
  }
  const messages = job.target / job.burst;
  // the payload goes one way; a short acknowledgement bounds what is on its way
  const reply = job.kind === "messages" ? new Uint8Array(1) : null;
  if (side === 1) await answerMessages(port, reply, messages);
  else await askByMessages(port, new Uint8Array(job.burst * job.length), messages, job.window);
}
