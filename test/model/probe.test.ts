import { it } from "vitest";
import { RECEIVER_2009, replaced } from "./mutants.js";
import { kinds, run } from "./protocol.js";
import { MASKING, PUBLISH, PUBLISH_NEGOTIATED, RELEASE_NEGOTIATED, ANNOUNCE, receiver } from "./rules.js";
import type { PublishStep, ConsumerRules } from "./rules.js";

const N = PUBLISH_NEGOTIATED;
const short = N.filter((s) => s !== "inject anew");
const skipping = replaced(short, "load flags", ["load flags unless set"]);
const strict = PUBLISH.filter((s) => s !== "full!" && s !== "tail");
const P: Record<string, readonly PublishStep[]> = { strict, N, skipping };
const r2009 = { ...RECEIVER_2009, release: RECEIVER_2009.release!.filter((s) => s !== "head" && s !== "full") };
const C: Record<string, Partial<ConsumerRules>> = {
  r2009, 
  dirtyClear: { dirtyClear: "plain" }, pendingClear: { pendingClear: "plain" }, enable: { enable: "plain" },
  dirtyLate: { dirtyClearedLate: true }, fenced: { sownLoad: "fenced" }, sownPlain: { sownLoad: "plain" },
  nothing: { afterEnable: "nothing" }, ring: { afterEnable: "ring" },
  budget: { wakeupBudget: 1 }, clears: {wakeupBudget: 1, clearsPendingOnBudget: true}, one: { popsOneByOne: true },
};
const size = (process.env["SIZE"] ?? "3,2,5").split(",").map(Number) as [number, number, number];
it("probe", { timeout: 600000 }, () => {
  for (const [c, weak] of Object.entries(C))
    for (const model of ["tso", "relaxed"] as const)
      for (const recheck of ["trusting", "rechecking"] as const)
  for (const [name, publish] of Object.entries(P)) {
        const row: string[] = [];
        for (const masking of MASKING) {
          const consumer: ConsumerRules = { ...receiver(recheck, masking), release: RELEASE_NEGOTIATED, ...weak };
          const o = run({ model, ring: size[0], burst: size[1], items: size[2], producer: { publish }, consumer });
          row.push(`${masking}: ${[...o.violations.values()].map((v) => v.kind + " " + v.trace().length).join(" + ") || "-"} (${o.states})`);
        }
        console.log(c.padEnd(12), name.padEnd(9), model, recheck, row.join("; "));
      }
});
