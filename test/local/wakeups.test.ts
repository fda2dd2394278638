import { Queue, QueueWakeups, queueSegmentLength, RECHECK_INUSE_HEAD, BURST_SIGNAL } from "vbus/engine";
import { allocateGuestMemory, GuestMemory, MemorySpace } from "vbus/memory";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";

let scheduler: VirtualScheduler;
let north: Queue;
let south: Queue;
let memory: GuestMemory;
let gpa: number;
let runs: number;
let notifier: () => void;
let broken: unknown[];
let wakeups: QueueWakeups;

beforeEach(() => {
  const init = allocateGuestMemory({ size: 1 << 16 });
  memory = GuestMemory.openSync(init);
  const host = MemorySpace.attachSync(init.memory, init.layout.hostArena, init.layout.regions);
  const length = queueSegmentLength(8);
  gpa = memory.ram.allocate(length, { align: 64, offset: 8 });
  north = Queue.create(memory.space, { gpa, count: 8, role: "northTransmit" });
  south = Queue.attach(host, { gpa, length, role: "southTransmit" });
  scheduler = new VirtualScheduler();
  runs = 0;
  broken = [];
  notifier = drain;
  wakeups = new QueueWakeups(south, {
    scheduler,
    recheck: RECHECK_INUSE_HEAD,
    notifier: () => {
      runs++;
      notifier();
    },
    ring: () => {},
    onBroken: (error) => broken.push(error),
  });
});

function drain(): void {
  for (let n; (n = south.peek("inuse", null, 8)) > 0;) south.release("inuse", null, n, 0);
}

/** North sends one descriptor. Returns whether it must ring. */
function send(): boolean {
  north.reserve("both", null, 1);
  return north.commit("both", null, 1, BURST_SIGNAL);
}

describe("the wake-ups of a queue", () => {
  it("a doorbell runs the notifier now, once", () => {
    wakeups.enable();
    expect(send()).toBe(true);
    expect(send()).toBe(false); // pending
    wakeups.wakeup();
    expect(runs).toBe(1);
    wakeups.wakeup();
    expect(runs).toBe(1);
    expect(south.counters()).toMatchObject({ wakeups: 2, spurious: 1 });
  });

  it("enable serves what arrived while masked, soon but not at once", () => {
    expect(send()).toBe(false);
    wakeups.enable();
    expect(runs).toBe(0);
    scheduler.run();
    expect(runs).toBe(1);
  });

  it("several schedules are one", () => {
    wakeups.schedule();
    wakeups.schedule();
    expect(scheduler.run()).toBe(1);
  });

  it("a doorbell inside the notifier is remembered, not nested", () => {
    wakeups.enable();
    let depth = 0;
    notifier = () => {
      expect(depth++).toBe(0);
      drain();
      if (runs === 1) {
        send();
        wakeups.wakeup();
      }
      depth--;
    };
    send();
    wakeups.wakeup();
    scheduler.run();
    expect(south.hasPayload).toBe(false);
  });

  it("a peer that is never quiet gets a budget per wake-up; other tasks come in between", () => {
    wakeups.enable();
    const order: string[] = [];
    notifier = () => {
      drain();
      order.push("run");
      if (runs < 40) {
        while (north.peek("valid", null, 8) > 0) north.release("valid", null, 1, 32 | 16);
        send();
      }
    };
    send();
    scheduler.post(wakeups.wakeup);
    scheduler.post(() => order.push("other"));
    scheduler.run();
    expect(runs).toBe(40);
    expect(order.indexOf("other")).toBe(16);
    expect(south.counters().exhausted).toBe(2);
  });

  it("a notifier that closes everything ends the loop", () => {
    wakeups.enable();
    notifier = () => {
      wakeups.close();
      south.close();
    };
    send();
    wakeups.wakeup();
    wakeups.wakeup();
    wakeups.enable();
    wakeups.disable();
    wakeups.inject();
    wakeups.schedule();
    expect(scheduler.run()).toBe(0);
    expect(runs).toBe(1);
  });

  it("a notifier that throws leaves the queue masked and ready: the next enable serves what lies there", () => {
    wakeups.enable();
    notifier = () => {
      throw new Error("on purpose");
    };
    send();
    wakeups.wakeup();
    expect(broken).toHaveLength(1);
    notifier = drain;
    expect(send()).toBe(false); // masked
    wakeups.enable();
    scheduler.run();
    expect(south.hasPayload).toBe(false);
    expect(runs).toBe(2);
    expect(send()).toBe(true); // and doorbells are asked for again
  });

  it.each(["a wake-up", "enable"])("a ring that %s finds broken is told, once", (how) => {
    if (how === "a wake-up") wakeups.enable();
    memory.space.copyTo(gpa + 56 + 25, new Uint8Array([7]));
    if (how === "enable") wakeups.enable();
    else wakeups.wakeup();
    expect(broken).toMatchObject([{ code: "EPROTO" }]);
    wakeups.enable();
    wakeups.wakeup();
    scheduler.run();
    expect(broken).toHaveLength(1);
    expect(south.broken).toBe("owner");
  });

  it("without anybody to tell, what a notifier throws reaches the caller", () => {
    const bare = new QueueWakeups(south, {
      scheduler,
      recheck: RECHECK_INUSE_HEAD,
      notifier: () => {
        throw new Error("on purpose");
      },
      ring: () => {},
    });
    bare.enable();
    send();
    expect(() => {
      bare.wakeup();
    }).toThrow("on purpose");
  });

  it("inject rings only when the peer wants it", () => {
    let rings = 0;
    const ringing = new QueueWakeups(south, {
      scheduler,
      recheck: RECHECK_INUSE_HEAD,
      notifier: drain,
      ring: () => rings++,
    });
    ringing.inject();
    expect(rings).toBe(0);
    north.enable(0);
    expect(north.counters().deferred).toBe(1); // what came while it was masked
    ringing.inject();
    ringing.inject();
    expect(rings).toBe(1);
    expect(south.counters()).toMatchObject({ masked: 1, sent: 1, suppressed: 1 });
  });
});
