import { afterAll, describe, it } from "vitest";
import { CONFORMANCE, SIZES } from "./conformance.js";
import { engine, modelOnly, twoThreads } from "./implementations.js";

const IMPLEMENTATIONS = [
  modelOnly(),
  engine(false, "both"),
  engine(true, "both"),
  twoThreads(),
  engine(false, "north"),
  engine(false, "south"),
  engine(true, "north"),
  engine(true, "south"),
  engine(false, "both", "singles"),
  engine(true, "both", "singles"),
];

for (const implementation of IMPLEMENTATIONS) {
  describe(implementation.name, () => {
    afterAll(() => implementation.close());

    for (const layout of ["lp64", "ilp32", "compact"] as const) {
      for (const count of SIZES) {
        describe(`${layout}, ${count} descriptors`, () => {
          for (const { name, pattern, sizes, oneByOne, run } of CONFORMANCE) {
            if (sizes?.(count) === false) continue;
            if (oneByOne === true && count > implementation.largest) continue;
            it(name, () => run(implementation.open(pattern, layout, count)));
          }
        });
      }
    }
  });
}
