import { EventLoopScheduler, VirtualScheduler } from "vbus/scheduler";
import { describe, expect, it } from "vitest";

const turn = (ms = 0): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe("the scheduler of an event loop", () => {
  it("runs nothing at once, then everything in order, tasks of tasks behind what was there", async () => {
    const scheduler = new EventLoopScheduler();
    const log: string[] = [];
    scheduler.post(() => {
      log.push("a");
      scheduler.post(() => log.push("d"));
    });
    scheduler.post(() => log.push("b"));
    scheduler.post(() => log.push("c"));
    expect(log).toEqual([]);
    while (log.length < 4) await turn();
    expect(log).toEqual(["a", "b", "c", "d"]);
  });

  it("runs tasks before timers of the thread get their turn when there are few", async () => {
    const scheduler = new EventLoopScheduler();
    const log: string[] = [];
    const timer = turn().then(() => log.push("timer"));
    scheduler.post(() => log.push("task"));
    await timer;
    expect(log).toEqual(["task", "timer"]);
  });

  it("lets timers and messages through while tasks post tasks for ever", async () => {
    const scheduler = new EventLoopScheduler();
    let running = true;
    let count = 0;
    const again = (): void => {
      count++;
      if (running) scheduler.post(again);
    };
    again();
    await turn();
    expect(count).toBeGreaterThan(0);
    const before = count;
    await turn();
    expect(count).toBeGreaterThan(before);
    running = false;
    await turn();
    const end = count;
    await turn();
    expect(count).toBe(end);
  });

  it("keeps the order when a long list of slow tasks is cut into slices", async () => {
    const scheduler = new EventLoopScheduler();
    const log: number[] = [];
    let timers = 0;
    const ticking = setInterval(() => timers++, 0);
    for (let n = 0; n < 400; n++) {
      scheduler.post(() => {
        const end = performance.now() + 0.1;
        while (performance.now() < end);
        log.push(n);
      });
    }
    while (log.length < 400) await turn();
    clearInterval(ticking);
    expect(log).toEqual(Array.from({ length: 400 }, (_, n) => n));
    expect(timers).toBeGreaterThan(0);
  });

  it("gives what a task throws to its handler and runs the others", async () => {
    const errors: unknown[] = [];
    const scheduler = new EventLoopScheduler((error) => errors.push(error));
    const log: string[] = [];
    const thrown = new Error("on purpose");
    scheduler.post(() => log.push("before"));
    scheduler.post(() => {
      throw thrown;
    });
    scheduler.post(() => log.push("after"));
    await turn();
    expect(log).toEqual(["before", "after"]);
    expect(errors).toEqual([thrown]);
    scheduler.post(() => log.push("later"));
    await turn();
    expect(log).toContain("later");
  });

  it("runs timers as tasks, in order, and not when they were cancelled", async () => {
    const scheduler = new EventLoopScheduler();
    const log: string[] = [];
    scheduler.after(20, () => log.push("late"));
    scheduler.after(1, () => log.push("early"));
    const never = scheduler.after(5, () => log.push("never"));
    never.cancel();
    never.cancel();
    const before = scheduler.now();
    while (log.length < 2) await turn(1);
    expect(log).toEqual(["early", "late"]);
    expect(scheduler.now()).toBeGreaterThan(before);
    never.cancel();
  });

  it("a timer whose time is over while tasks wait comes behind them, and not at all when one of them cancels it", async () => {
    const scheduler = new EventLoopScheduler();
    const log: string[] = [];
    const kept = scheduler.after(0, () => log.push("kept"));
    const cancelled = scheduler.after(0, () => log.push("cancelled"));
    for (let n = 0; n < 400; n++) {
      scheduler.post(() => {
        const end = performance.now() + 0.1;
        while (performance.now() < end);
        if (n === 399) cancelled.cancel();
      });
    }
    scheduler.post(() => log.push("last"));
    while (log.length < 2) await turn();
    await turn(5);
    expect(log).toEqual(["last", "kept"]);
    kept.cancel();
  });
});

describe("the scheduler on virtual time", () => {
  it("runs nothing before run(), then everything, and says how much", () => {
    const scheduler = new VirtualScheduler();
    const log: string[] = [];
    scheduler.post(() => {
      log.push("a");
      scheduler.post(() => log.push("c"));
    });
    scheduler.post(() => log.push("b"));
    expect(log).toEqual([]);
    expect(scheduler.run()).toBe(3);
    expect(log).toEqual(["a", "b", "c"]);
    expect(scheduler.run()).toBe(0);
  });

  it("runs timers in order of time, then of creation, at their time", () => {
    const scheduler = new VirtualScheduler();
    const log: [string, number][] = [];
    const note = (what: string) => (): void => {
      log.push([what, scheduler.now()]);
    };
    scheduler.after(10, note("b"));
    scheduler.after(5, note("a"));
    scheduler.after(10, note("c"));
    scheduler.after(11, note("d"));
    scheduler.advance(10);
    expect(log).toEqual([
      ["a", 5],
      ["b", 10],
      ["c", 10],
    ]);
    expect(scheduler.now()).toBe(10);
    scheduler.advance(0.5);
    expect(log).toHaveLength(3);
    scheduler.advance(0.5);
    expect(log[3]).toEqual(["d", 11]);
  });

  it("runs what a timer posts before the next timer, and timers that timers start", () => {
    const scheduler = new VirtualScheduler();
    const log: string[] = [];
    scheduler.after(1, () => {
      scheduler.post(() => log.push("posted"));
      scheduler.after(1, () => log.push("started"));
    });
    scheduler.after(2, () => log.push("second"));
    scheduler.advance(2);
    expect(log).toEqual(["posted", "second", "started"]);
  });

  it("forgets cancelled timers", () => {
    const scheduler = new VirtualScheduler();
    let ran = 0;
    const timer = scheduler.after(1, () => ran++);
    timer.cancel();
    timer.cancel();
    scheduler.advance(10);
    expect(ran).toBe(0);
  });

  it("says so when something posts itself for ever", () => {
    const scheduler = new VirtualScheduler();
    const again = (): void => {
      scheduler.post(again);
    };
    again();
    expect(() => scheduler.run(1000)).toThrow(/ETIMEDOUT.*1000/);
  });

  it("lets what a task throws through to the caller, and goes on with the rest afterwards", () => {
    const scheduler = new VirtualScheduler();
    let ran = 0;
    scheduler.post(() => {
      throw new Error("on purpose");
    });
    scheduler.post(() => ran++);
    expect(() => scheduler.run()).toThrow("on purpose");
    scheduler.run();
    expect(ran).toBe(1);
  });
});
