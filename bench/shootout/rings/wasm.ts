/** Contestants in wasm: their samples with one thread and with two. */
import process from "node:process";
import type { LoopJob, LoopCall } from "../../harness/jobs.js";
import { Doorbell } from "../../harness/doorbell.js";
import { loopOf } from "../../harness/loops.js";
import { latencyExtras, type Contestant, type Measures } from "../model.js";
import {
  itemsOf,
  payloadExtras,
  type Measured,
  type RingContestant,
  type RingContext,
  type RingSetting,
  type Sampler,
} from "./setting.js";
import type { ContestPlan, ContestStage, LaidOut, WasmContestant } from "./stage.js";

const TRIPS = 2000;
const LINE = 64;
/** One thread does not wait for another: its samples can have more descriptors. */
const ONE_THREAD = 2;

function planOf(setting: RingSetting): ContestPlan {
  const payload = setting.work === "payload" || setting.work === "woken";
  return {
    work: payload ? "payload" : "descriptors",
    size: setting.size,
    rings: setting.rings,
    notify: setting.notify,
    receivers: setting.work === "woken" ? "asleep" : "awake",
    slot: payload ? Math.ceil(setting.length / LINE) * LINE : 0,
  };
}

/** What both sides had to signal for so many descriptors; nothing where nobody looks after notifications. */
function signalsOf(setting: RingSetting, stage: ContestStage, laid: LaidOut, items: number): Measures {
  if (!setting.notify) return {};
  const sent = (sides: readonly number[]): number =>
    (sides.reduce((sum, side) => sum + stage.doorbells(side), 0) * 1000) / items;
  return { doorbells: sent(laid.norths), interrupts: sent(laid.souths) };
}

/** Both sides in this thread, over memory that no other one sees. Laid out once: nothing wears out. */
function oneThread(contestant: WasmContestant, setting: RingSetting, stage: ContestStage): Sampler {
  const plan = planOf(setting);
  const { burst, length, rings } = setting;
  const items = itemsOf(setting) * ONE_THREAD;
  const rounds = Math.ceil(items / burst);
  const { norths, souths, source, sink } = stage.places;
  const check = (result: number): number => {
    if (result < 0) throw new Error(`the loop answers ${result}`);
    return result;
  };
  return () => {
    // every contestant of a setting uses the same memory in its turn
    const laid = stage.lay(contestant, plan);
    const north = laid.norths[0] as number;
    const south = laid.souths[0] as number;
    const cpu = process.cpuUsage();
    const begin = performance.now();
    if (plan.work === "payload") {
      const stream = loopOf(stage.contestants, `${contestant.prefix}Stream`);
      check(stream(north, south, burst, rounds, source, sink, length));
    } else {
      const loop = loopOf(stage.contestants, `${contestant.prefix}Rounds`);
      check(loop(norths, souths, rings, 0, burst, rounds));
    }
    const total = (performance.now() - begin) * 1e6;
    const { user, system } = process.cpuUsage(cpu);
    const done = rounds * burst;
    const ns = total / done;
    const payload = plan.work === "payload" ? payloadExtras(length, done, ns, (user + system) * 1000) : {};
    return { ns, probes: null, extras: { ...payload, ...signalsOf(setting, stage, laid, done) } };
  };
}

function callsOf(
  prefix: string,
  setting: RingSetting,
  stage: ContestStage,
  north: number,
  south: number,
  target: number,
): { north: LoopCall; south: LoopCall } {
  const { burst, length, size, work } = setting;
  const { source, sink } = stage.places;
  const call = (loop: string, ...args: number[]): LoopCall => ({ name: `${prefix}${loop}`, args });
  switch (work) {
    case "descriptors":
      return {
        north: call("Request", north, burst, size, target),
        south: call("Respond", south, burst, target),
      };
    case "trips":
      return { north: call("Trip", north, target), south: call("Answer", south, target) };
    case "payload":
      return {
        north: call("Feed", north, burst, target, source, length),
        south: call("Take", south, burst, target, sink),
      };
    case "woken":
      return {
        north: call("Feed", north, burst, target, source, length),
        south: call("Woken", south, burst, target, sink),
      };
  }
}

/** A side in each of two threads. */
function twoThreads(contestant: WasmContestant, setting: RingSetting, context: RingContext): Sampler {
  const plan = planOf(setting);
  const { work, length, polls } = setting;
  const target = work === "trips" ? TRIPS : itemsOf(setting);
  return async (): Promise<Measured> => {
    const { shared: stage, pair } = context;
    const laid = stage.lay(contestant, plan);
    const north = laid.norths[0] as number;
    const south = laid.souths[0] as number;
    const calls = callsOf(contestant.prefix, setting, stage, north, south, target);
    Doorbell.reset(pair.memory);
    const job: LoopJob =
      work === "trips"
        ? { kind: "loops-trips", ...calls, trips: target }
        : work === "woken"
          ? { kind: "loops-woken", ...calls, polls }
          : { kind: "loops", ...calls };
    const sample = await pair.sample(job, target);
    const payload = plan.work === "payload" ? payloadExtras(length, target, sample.ns, sample.cpu) : {};
    return {
      ns: sample.ns,
      probes: sample,
      extras: {
        ...payload,
        ...signalsOf(setting, stage, laid, target),
        ...(sample.latency === null ? {} : latencyExtras(sample.latency)),
        ...(work === "woken" ? { sleeps: (sample.sleeps * 1000) / target } : {}),
      },
    };
  };
}

/** A contestant whose loops are in wasm. */
export function wasmRing(about: Contestant, contestant: WasmContestant): RingContestant {
  return {
    ...about,
    enter(setting, context) {
      if (setting.burst * Math.max(setting.length, 1) > context.shared.burstBytes)
        return "a burst of that many bytes does not fit its stage";
      return setting.threads === 1
        ? oneThread(contestant, setting, context.unshared)
        : twoThreads(contestant, setting, context);
    },
  };
}
