import { describe, expect, it } from "vitest";

import { ProgramBuilder } from "./program.js";
import type { Order, Program } from "./program.js";
import { explore, NO_PROGRESS } from "./tso.js";
import type { Experiment, MemoryModel } from "./tso.js";

const X = 0;
const Y = 1;

/** Runs two programs on cells x and y and collects "r0 r1" of each (or of one) thread's registers. */
function outcomes(
  model: MemoryModel,
  programs: readonly [Program, Program],
  shown: readonly (readonly [thread: number, register: number])[],
): string[] {
  const seen = new Set<string>();
  const experiment: Experiment = {
    model,
    cells: ["x", "y"],
    programs,
    judge: (state) => {
      seen.add(shown.map(([thread, register]) => state.register(thread, register)).join(" "));
      return undefined;
    },
  };
  explore(experiment);
  return [...seen].sort();
}

function program(name: string, write: (p: ProgramBuilder, a: number, b: number) => void): Program {
  const p = new ProgramBuilder(name);
  write(p, p.register("a"), p.register("b"));
  return p.build();
}

function storeBuffering(store: Order, fenced = false): readonly [Program, Program] {
  const side = (name: string, mine: number, other: number): Program =>
    program(name, (p, a) => {
      p.store(mine, 1, store);
      if (fenced) p.fence();
      p.load(a, other, "atomic");
    });
  return [side("left", X, Y), side("right", Y, X)];
}

function messagePassing(flagStore: Order, flagLoad: Order, fence = false): readonly [Program, Program] {
  return [
    program("writer", (p) => {
      p.store(X, 1, "plain");
      if (fence) p.writeFence();
      p.store(Y, 1, flagStore);
    }),
    program("reader", (p, a, b) => {
      p.load(a, Y, flagLoad);
      p.load(b, X, "plain");
    }),
  ];
}

const BOTH_READ = [
  [0, 0],
  [1, 0],
] as const;
const READER = [
  [1, 0],
  [1, 1],
] as const;

describe("the machine", () => {
  it("lets a load pass an earlier plain store to another cell, as x86 does", () => {
    expect(outcomes("tso", storeBuffering("plain"), BOTH_READ)).toEqual(["0 0", "0 1", "1 0", "1 1"]);
  });

  it("never lets a load pass a sequentially consistent store or a full fence", () => {
    for (const model of ["tso", "relaxed"] as const) {
      expect(outcomes(model, storeBuffering("atomic"), BOTH_READ)).toEqual(["0 1", "1 0", "1 1"]);
      expect(outcomes(model, storeBuffering("plain", true), BOTH_READ)).toEqual(["0 1", "1 0", "1 1"]);
    }
  });

  it("keeps plain stores and plain loads in order on x86-TSO, and neither of them when relaxed", () => {
    expect(outcomes("tso", messagePassing("plain", "plain"), READER)).not.toContain("1 0");
    expect(outcomes("relaxed", messagePassing("plain", "atomic"), READER)).toContain("1 0");
    expect(outcomes("relaxed", messagePassing("atomic", "plain"), READER)).toContain("1 0");
  });

  it("orders a message by an atomic store and an atomic load even when relaxed", () => {
    expect(outcomes("relaxed", messagePassing("atomic", "atomic"), READER)).toEqual(["0 0", "0 1", "1 1"]);
  });

  it("orders plain stores by a write fence when relaxed", () => {
    expect(outcomes("relaxed", messagePassing("plain", "atomic", true), READER)).not.toContain("1 0");
  });

  it("does not order a store before a later load by a write fence", () => {
    const side = (name: string, mine: number, other: number): Program =>
      program(name, (p, a) => {
        p.store(mine, 1, "plain");
        p.writeFence();
        p.load(a, other, "atomic");
      });
    for (const model of ["tso", "relaxed"] as const) {
      expect(outcomes(model, [side("left", X, Y), side("right", Y, X)], BOTH_READ)).toContain("0 0");
    }
  });

  it("forwards its own buffered store to its own load", () => {
    const side = (name: string, mine: number): Program =>
      program(name, (p, a) => {
        p.store(mine, 1, "plain");
        p.load(a, mine, "plain");
      });
    for (const model of ["tso", "relaxed"] as const) {
      expect(outcomes(model, [side("left", X), side("right", Y)], BOTH_READ)).toEqual(["1 1"]);
    }
  });

  it("never shows one cell going back in time, not even when relaxed", () => {
    const writer = program("writer", (p) => p.store(X, 1, "plain"));
    const reader = program("reader", (p, a, b) => {
      p.load(a, X, "plain");
      p.load(b, X, "plain");
    });
    expect(outcomes("relaxed", [writer, reader], READER)).toEqual(["0 0", "0 1", "1 1"]);
  });
});

describe("the explorer", () => {
  const idle = program("idle", () => undefined);
  const accept = (): undefined => undefined;

  it("tells the shortest way to a violation, one line per step", () => {
    const writer = program("writer", (p) => {
      p.store(Y, 1, "plain");
      p.store(X, 1, "plain");
    });
    const reader = program("reader", (p, a) => {
      p.loop((exit) => {
        p.load(a, X, "atomic");
        p.exitWhen(exit, (r) => r(a) === 1);
      });
      p.check("surprise", "x became 1", (r) => r(a) === 0);
    });
    const found = explore({ model: "tso", cells: ["x", "y"], programs: [writer, reader], judge: accept });
    expect(
      found.violations
        .get("surprise")
        ?.trace()
        .map((line) => line.slice(4)),
    ).toEqual([
      "writer    flushes y = 1",
      "writer    flushes x = 1",
      "reader    loads x -> 1",
      "reader    finds: x became 1",
    ]);
  });

  it("takes a thread that spins in place for asleep, and reports threads that chase each other", () => {
    const spinner = program("spinner", (p, a) => {
      p.loop((exit) => {
        p.load(a, X, "atomic");
        p.exitWhen(exit, (r) => r(a) === 1);
      });
    });
    const stuck = explore({
      model: "tso",
      cells: ["x", "y"],
      programs: [spinner, idle],
      judge: () => ({ kind: "stuck", message: "nobody stores x" }),
    });
    expect([...stuck.violations.keys()]).toEqual(["stuck"]);

    const turner = program("turner", (p) => {
      p.loop(() => {
        p.store(X, 1, "atomic");
        p.store(X, 0, "atomic");
      });
    });
    const chase = explore({
      model: "tso",
      cells: ["x", "y"],
      programs: [turner, idle],
      judge: accept,
      progress: true,
    });
    expect([...chase.violations.keys()]).toEqual([NO_PROGRESS]);
  });

  it("refuses a program that loops without touching shared memory, and a search without end", () => {
    const lost = program("lost", (p, a) => {
      p.loop(() => p.set(a, 0));
    });
    expect(() => explore({ model: "tso", cells: ["x", "y"], programs: [lost, idle], judge: accept })).toThrow(
      /without touching shared memory/,
    );
    expect(() =>
      explore({
        model: "tso",
        cells: ["x", "y"],
        programs: [...storeBuffering("plain")] as [Program, Program],
        judge: accept,
        limit: 5,
      }),
    ).toThrow(/more than 5 states/);
  });
});
