/** Native contestants: loops in C, where there is a compiler. */
import type { NativeAnswer } from "../../harness/native.js";
import { NativeBench } from "../../harness/native.js";
import type { Contestant } from "../model.js";
import { itemsOf, type Measured, type RingContestant } from "./setting.js";

const TRIPS = 2000;

function extrasOf(answer: NativeAnswer): Measured["extras"] {
  const extras: Measured["extras"] = {};
  for (const name of ["p50", "p90", "p99", "p999", "doorbells", "interrupts"] as const) {
    const value = answer[name];
    if (value !== undefined) extras[name] = value;
  }
  return extras;
}

/** A contestant that `bench/native` knows by a name. */
export function nativeRing(about: Contestant, name: string): RingContestant {
  return {
    ...about,
    enter(setting, context) {
      const { native } = context;
      if (!(native instanceof NativeBench)) return native.reason;
      const { work, burst, size, rings, threads } = setting;
      if (work === "payload" || work === "woken")
        return "the native loops carry descriptors, not payloads: a copy is a copy";
      if (rings !== 1) return "it is left out where many rings are compared";
      const items = work === "trips" ? TRIPS : itemsOf(setting);
      const what = work === "trips" ? "trips" : threads === 1 ? "one" : "two";
      const command = `contest ${name} ${what} ${burst} ${items} ${size} ${setting.notify ? 1 : 0}`;
      return async (): Promise<Measured> => {
        // the one that answers now: it is started again when it has failed
        const asked = context.native;
        if (!(asked instanceof NativeBench)) throw new Error(asked.reason);
        const answer = await asked.ask(command);
        const { before, after } = answer;
        return {
          ns: answer["ns"] as number,
          probes: before === undefined || after === undefined ? null : { before, after },
          extras: extrasOf(answer),
        };
      };
    },
  };
}
