/** What each thread of a pair does in the jobs on the stage's IOQ. */
import type { Doorbell } from "./doorbell.js";
import type { PairAnswer, PairJob } from "./jobs.js";
import type { TwoThreadLoops } from "./loops.js";
import { drive, POLLS, type Meeting } from "./meeting.js";
import { BUFFERS_GPA, STAGE } from "./stage.js";

/** One thread of a pair. */
export interface PairSide {
  /** 0 north, 1 south. */
  side: 0 | 1;
  loops: TwoThreadLoops;
  meeting: Meeting;
  bell: Doorbell;
}

const BUDGET = 64;

function ringHalf(side: PairSide, job: PairJob & { kind: "ring" }): void {
  if (side.side === 0) {
    const { northEndpoint, northTable, northProgress } = STAGE;
    drive("posting", () =>
      side.loops.northRounds(
        northEndpoint,
        northTable,
        job.burst,
        job.window,
        job.target,
        BUFFERS_GPA,
        northProgress,
        POLLS,
      ),
    );
  } else {
    const { southEndpoint, southTable, southProgress } = STAGE;
    drive("consuming", () =>
      side.loops.southRounds(southEndpoint, southTable, job.burst, job.target, southProgress, POLLS),
    );
  }
}

function tripHalf(side: PairSide, job: PairJob & { kind: "trip" }): void {
  const { northEndpoint, northTable, reapTable, northProgress } = STAGE;
  const { southEndpoint, southTable, southProgress } = STAGE;
  if (side.side === 0) {
    drive("sending", () =>
      side.loops.roundTrips(
        northEndpoint,
        northTable,
        reapTable,
        job.target,
        BUFFERS_GPA,
        job.same ? 1 : 0,
        northProgress,
        POLLS,
      ),
    );
  } else {
    drive("answering", () =>
      side.loops.answerTrips(southEndpoint, southTable, job.target, southProgress, POLLS),
    );
  }
}

function feedHalf(side: PairSide, job: PairJob & { kind: "feed" }): void {
  if (side.side === 0) {
    const { northEndpoint, northTable, northProgress, source } = STAGE;
    drive("feeding", () =>
      side.loops.feedRounds(
        northEndpoint,
        northTable,
        job.burst,
        job.target,
        source,
        job.length,
        northProgress,
        POLLS,
      ),
    );
  } else {
    const { southEndpoint, southTable, southProgress, sink } = STAGE;
    drive("taking", () =>
      side.loops.takeRounds(southEndpoint, southTable, job.burst, job.target, sink, southProgress, POLLS),
    );
  }
}

/** A consumer that is woken, and its producer. */
function doorbellHalf(side: PairSide, job: PairJob & { kind: "doorbell" }, answer: PairAnswer): void {
  const { loops } = side;
  const { northEndpoint, northTable, northProgress, source, southEndpoint, southTable, southProgress, sink } =
    STAGE;
  if (side.side === 0) {
    const { burst, target, length } = job;
    side.bell.produce("feeding", answer, () =>
      loops.feedRounds(northEndpoint, northTable, burst, target, source, length, northProgress, POLLS),
    );
  } else {
    const { burst, target, polls } = job;
    side.bell.consume("taking", answer, () =>
      loops.wakeupRounds(southEndpoint, southTable, burst, target, sink, southProgress, polls, BUDGET),
    );
  }
}

/** Runs this thread's half of a job on the stage's ring. */
export function runStageHalf(
  side: PairSide,
  job: PairJob & { kind: "ring" | "trip" | "feed" | "doorbell" | "line" },
  answer: PairAnswer,
): void {
  switch (job.kind) {
    case "ring":
      ringHalf(side, job);
      break;
    case "trip":
      tripHalf(side, job);
      break;
    case "feed":
      feedHalf(side, job);
      break;
    case "doorbell":
      doorbellHalf(side, job, answer);
      break;
    case "line":
      side.meeting.bounce(job.rounds);
      break;
  }
}
