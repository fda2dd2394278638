import { describe, expect, it } from "vitest";

import type { BusEvent } from "vbus/bus";
import * as errno from "vbus/abi";

import { Bench, CALL_SUM, lastSignal, mailboxOf, SEGMENT, spell, VERSION } from "./mailbox.js";

/** A bench whose client listens, has taken its DEVADD, and shares one signal. */
async function sharing() {
  const bench = await Bench.open();
  bench.client.listen();
  bench.drain();
  const { handle, session } = bench.session();
  const number = bench.share(handle);
  return { bench, client: bench.client, handle, session, number, signal: lastSignal(session) };
}

describe("DEVADD and DEVDROP", () => {
  it("are replayed to a new listener in id order, each interface once", async () => {
    const bench = await Bench.open();
    bench.add("box1");
    bench.add("box2");
    bench.bus.disconnect("box1");
    bench.client.listen();
    bench.client.listen();
    expect(bench.drain()).toEqual([
      { kind: "devadd", id: 0, type: "mailbox" },
      { kind: "devadd", id: 2, type: "mailbox" },
    ]);
  });

  it("follow what the administrator does, to every client", async () => {
    const bench = await Bench.open();
    const other = bench.guest("other");
    for (const client of [bench.client, other]) client.listen();
    bench.add("box1");
    bench.bus.disconnect("box0");
    bench.bus.connect("box0");
    const expected = ["devadd 0", "devadd 1", "devdrop 0", "devadd 2"];
    expect(spell(bench.drain())).toEqual(expected);
    expect(spell(bench.drain(other))).toEqual(expected);
  });

  it("are not delivered before listen, nor after reset or disconnect", async () => {
    const bench = await Bench.open();
    expect(bench.client.nextEvent()).toBeNull();
    bench.client.listen();
    bench.client.reset();
    expect(bench.client.nextEvent()).toBeNull();
    bench.client.listen();
    bench.client.disconnect();
    expect(bench.client.nextEvent()).toBeNull();
  });

  it("do not close a session when its interface is withdrawn", async () => {
    const { bench, client, handle, signal, session } = await sharing();
    bench.vbus.removeDevice("box0");
    signal.notify();
    expect(spell(bench.drain())).toEqual(["devdrop 0", "shmsignal cookie"]);
    expect(client.open(0, VERSION)).toBe(-errno.ENOENT);
    expect(client.call(handle, CALL_SUM, SEGMENT, 0, 42)).toBe(42);
    expect(session.closed).toBe(0);
    expect(client.close(handle)).toBe(0);
    expect(spell(bench.drain())).toEqual(["shmclose cookie"]);
  });
});

describe("interface numbers", () => {
  it("start at 0 on each bus and are never used again", async () => {
    const bench = await Bench.open();
    const second = bench.vbus.createBus("bus1");
    const device = bench.vbus.createDevice("loner", "mailbox");
    for (let i = 0; i < 3; i++) {
      second.connect(device);
      expect(device.interfaces).toMatchObject([{ bus: "bus1", id: i }]);
      second.disconnect(device);
    }
  });

  it("run out with ENOSPC; what the device published before is withdrawn", async () => {
    const bench = await Bench.open();
    const bus = bench.vbus.createBus("small", { lastInterfaceId: 1 });
    const device = bench.vbus.createDevice("wide", "mailbox");
    mailboxOf(device).names = ["a", "b", "c"];
    expect(() => {
      bus.connect(device);
    }).toThrow(/ENOSPC.*new bus/);
    expect(device.interfaces).toEqual([]);
    expect(device.buses).toEqual([]);
  });

  it("are fresh after a reset, while the old ones open nothing", async () => {
    const bench = await Bench.open();
    bench.add("box1");
    bench.client.listen();
    bench.drain();
    bench.client.reset();
    expect(bench.client.open(0, VERSION)).toBe(-errno.ENOENT);
    bench.client.listen();
    expect(spell(bench.drain())).toEqual(["devadd 2", "devadd 3"]);
    expect([bench.client.open(0, VERSION), bench.client.open(1, VERSION)]).toEqual([
      -errno.ENOENT,
      -errno.ENOENT,
    ]);
    expect(bench.client.open(3, VERSION)).toBe(1);
    expect(bench.bus.devices[1]?.connections).toBe(1);
    bench.bus.disconnect("box1");
    bench.add("box2");
    expect(spell(bench.drain())).toEqual(["devdrop 3", "devadd 4"]);
  });

  it("are not used up by a guest that resets without taking its events", async () => {
    const bench = await Bench.open();
    for (let i = 0; i < 100; i++) {
      bench.client.listen();
      bench.client.reset();
    }
    bench.client.listen();
    expect(spell(bench.drain())).toEqual(["devadd 0"]);
  });

  it("are a guest's own after a reset: its resets use up no number of the bus", async () => {
    const bench = await Bench.open();
    for (let i = 0; i < 100; i++) {
      bench.client.listen();
      bench.drain();
      bench.client.reset();
    }
    bench.add("box1");
    expect(bench.bus.devices[1]?.interfaces.map(({ id }) => id)).toEqual([1]);
    bench.client.listen();
    expect(spell(bench.drain())).toEqual(["devadd 100", "devadd 101"]);
  });

  it("stay when the connector returned the DEVADD before the reset", async () => {
    const bench = await Bench.open();
    bench.client.listen();
    bench.client.returnEvent(bench.client.nextEvent() as BusEvent);
    bench.client.reset();
    bench.client.listen();
    expect(spell(bench.drain())).toEqual(["devadd 0"]);
  });

  it("of interfaces that came and went during a reset are replayed in order, too", async () => {
    const bench = await Bench.open();
    bench.client.listen();
    bench.drain();
    bench.client.reset();
    bench.add("box1");
    bench.add("box2");
    bench.bus.disconnect("box1");
    bench.client.listen();
    expect(spell(bench.drain())).toEqual(["devadd 2", "devadd 3"]);
  });

  it("that cannot be renewed leave the interface unannounced, and say so", async () => {
    const bench = await Bench.open();
    const bus = bench.vbus.createBus("small", { lastInterfaceId: 0 });
    bus.connect(bench.vbus.createDevice("only", "mailbox"));
    bus.admit("guest");
    const client = bus.openClient({ member: "guest", memory: bench.memory });
    client.listen();
    expect(spell(bench.drain(client))).toEqual(["devadd 0"]);
    client.reset();
    client.listen();
    expect(bench.drain(client)).toEqual([]);
    expect(bench.errors).toMatchObject([{ source: "devices/only", error: { code: "ENOSPC" } }]);
    bus.disconnect("only");
    expect(bench.drain(client)).toEqual([]);
  });
});

describe("SHMSIGNAL", () => {
  it("is coalesced while one is queued, and comes again once it was taken", async () => {
    const { bench, signal } = await sharing();
    signal.notify();
    signal.notify();
    expect(spell(bench.drain())).toEqual(["shmsignal cookie"]);
    signal.notify();
    expect(spell(bench.drain())).toEqual(["shmsignal cookie"]);
  });

  it("is coalesced per signal, although cookies are equal", async () => {
    const { bench, handle, session, signal } = await sharing();
    bench.share(handle);
    signal.notify();
    lastSignal(session).notify();
    signal.notify();
    expect(spell(bench.drain())).toEqual(["shmsignal cookie", "shmsignal cookie"]);
  });

  it("turns into SHMCLOSE in place when its signal is released", async () => {
    const { bench, handle, session, signal } = await sharing();
    bench.share(handle, "later");
    signal.notify();
    lastSignal(session).notify();
    signal.release();
    expect(spell(bench.drain())).toEqual(["shmclose cookie", "shmsignal later"]);
  });

  it("is ignored after release and after the end of the session", async () => {
    const { bench, handle, session, signal } = await sharing();
    bench.share(handle, "second");
    signal.release();
    signal.notify();
    bench.client.close(handle);
    lastSignal(session).notify();
    expect(spell(bench.drain())).toEqual(["shmclose cookie", "shmclose second"]);
  });

  it("from inside shm is sent once the device accepted", async () => {
    const { bench, handle } = await sharing();
    const queued: (BusEvent | null)[] = [];
    bench.mailbox.hooks.shm = (signal) => {
      signal?.notify();
      queued.push(bench.client.nextEvent());
      return 0;
    };
    bench.share(handle, "early");
    expect(queued).toEqual([null]);
    expect(spell(bench.drain())).toEqual(["shmsignal early"]);
  });
});

describe("SHMCLOSE", () => {
  it("is sent once when the device releases twice and the session closes then", async () => {
    const { bench, client, handle, signal } = await sharing();
    signal.release();
    signal.release();
    client.close(handle);
    signal.release();
    expect(spell(bench.drain())).toEqual(["shmclose cookie"]);
  });

  it("is sent once when the device releases in its close", async () => {
    const { bench, client, handle, signal } = await sharing();
    bench.mailbox.hooks.close = () => {
      signal.notify();
      signal.release();
      signal.notify();
    };
    client.close(handle);
    expect(spell(bench.drain())).toEqual(["shmclose cookie"]);
  });

  it("is sent for a signal that the device accepted and released in the same breath", async () => {
    const { bench, handle } = await sharing();
    bench.mailbox.hooks.shm = (signal) => {
      signal?.notify();
      signal?.release();
      return 0;
    };
    const number = bench.share(handle, "brief");
    expect(number).toBe(1);
    expect(spell(bench.drain())).toEqual(["shmclose brief"]);
    expect(bench.client.signal(number)).toBe(-errno.ENOENT);
    bench.client.close(handle);
    expect(spell(bench.drain())).toEqual(["shmclose cookie"]);
  });

  it.each(["by result", "by exception"])("is never sent when the device refuses %s (P5)", async (how) => {
    const { bench, handle, signal } = await sharing();
    const kept: { notify(): void; release(): void }[] = [];
    bench.mailbox.hooks.shm = (offered) => {
      if (offered !== null) kept.push(offered);
      offered?.notify();
      if (how === "by exception") throw new RangeError("no");
      return -errno.EINVAL;
    };
    expect(bench.share(handle, "refused")).toBeLessThan(0);
    for (const each of kept) {
      each.notify();
      each.release();
    }
    bench.client.close(handle);
    expect(spell(bench.drain())).toEqual(["shmclose cookie"]);
    signal.release();
    expect(bench.drain()).toEqual([]);
  });

  it("is not sent across a reset, and nothing of the old sessions is", async () => {
    const { bench, client, handle, session, signal } = await sharing();
    bench.share(handle, "second");
    signal.notify();
    const late = lastSignal(session);
    bench.mailbox.hooks.close = () => {
      late.notify();
    };
    client.reset();
    expect(session.closed).toBe(1);
    client.listen();
    late.notify();
    late.release();
    expect(spell(bench.drain())).toEqual(["devadd 1"]);
  });
});

describe("returnEvent", () => {
  it("puts events back to the front", async () => {
    const { bench, client, signal } = await sharing();
    signal.notify();
    bench.add("box1");
    const events = bench.drain();
    for (const event of events.reverse()) client.returnEvent(event);
    expect(spell(bench.drain())).toEqual(["shmsignal cookie", "devadd 1"]);
  });

  it("joins a returned SHMSIGNAL with the one that came meanwhile", async () => {
    const { bench, client, signal } = await sharing();
    signal.notify();
    const event = client.nextEvent() as BusEvent;
    bench.add("box1");
    signal.notify();
    client.returnEvent(event);
    expect(spell(bench.drain())).toEqual(["shmsignal cookie", "devadd 1"]);
  });

  it("makes a returned SHMSIGNAL a SHMCLOSE when the signal was released meanwhile", async () => {
    const { bench, client, signal } = await sharing();
    signal.notify();
    const event = client.nextEvent() as BusEvent;
    signal.release();
    client.returnEvent(event);
    expect(spell(bench.drain())).toEqual(["shmclose cookie"]);
  });

  it("drops a SHMSIGNAL whose SHMCLOSE was taken already", async () => {
    const { bench, client, signal } = await sharing();
    signal.notify();
    const event = client.nextEvent() as BusEvent;
    signal.release();
    expect(spell(bench.drain())).toEqual(["shmclose cookie"]);
    client.returnEvent(event);
    expect(bench.drain()).toEqual([]);
  });

  it("takes back SHMCLOSE, and the same event only once", async () => {
    const { bench, client, signal } = await sharing();
    bench.add("box1");
    signal.release();
    const events = bench.drain();
    for (let i = 0; i < 2; i++) for (const event of [...events].reverse()) client.returnEvent(event);
    expect(spell(bench.drain())).toEqual(["devadd 1", "shmclose cookie"]);
  });

  it("drops events from before a reset, and refuses objects that it never gave", async () => {
    const { bench, client, signal } = await sharing();
    signal.notify();
    const event = client.nextEvent() as BusEvent;
    client.reset();
    client.listen();
    client.returnEvent(event);
    expect(spell(bench.drain())).toEqual(["devadd 1"]);
    expect(() => {
      client.returnEvent({ kind: "shmsignal", cookie: "cookie" });
    }).toThrow(TypeError);
  });

  it("keeps the order over thousands of events", async () => {
    const { bench, client, handle, session } = await sharing();
    const expected: string[] = [];
    const seen: string[] = [];
    for (let i = 0; i < 3000; i++) {
      bench.share(handle, i);
      lastSignal(session).notify();
      expected.push(`shmsignal ${i}`);
      if (i % 3 !== 0) {
        const event = client.nextEvent();
        if (i % 7 === 0) client.returnEvent(event as BusEvent);
        else seen.push(...spell([event as BusEvent]));
      }
    }
    expect([...seen, ...spell(bench.drain())]).toEqual(expected);
  });
});

describe("onEvents", () => {
  it("is told when the queue turns non-empty, not for every event", async () => {
    const { bench, client, signal } = await sharing();
    let told = 0;
    client.onEvents = () => told++;
    signal.notify();
    bench.add("box1");
    expect(told).toBe(1);
    bench.drain();
    signal.release();
    expect(told).toBe(2);
  });

  it("is told once of everything that is replayed, and of what waited before listen", async () => {
    const bench = await Bench.open();
    bench.add("box1");
    const { handle } = bench.session();
    bench.share(handle);
    let told = 0;
    bench.client.onEvents = () => told++;
    bench.client.close(handle);
    expect(told).toBe(0);
    bench.client.listen();
    expect(told).toBe(1);
    expect(spell(bench.drain())).toEqual(["shmclose cookie", "devadd 0", "devadd 1"]);
  });

  it("is told in a task when it is set while events wait", async () => {
    const { bench, client, signal } = await sharing();
    signal.notify();
    let told = 0;
    client.onEvents = () => told++;
    expect(told).toBe(0);
    bench.scheduler.run();
    expect(told).toBe(1);
  });

  it("may take events, and may throw without hurting the device that notified", async () => {
    const { bench, client, signal } = await sharing();
    const taken: string[] = [];
    client.onEvents = () => {
      taken.push(...spell(bench.drain()));
      throw new Error("bug");
    };
    signal.notify();
    signal.notify();
    expect(taken).toEqual(["shmsignal cookie", "shmsignal cookie"]);
    expect(bench.errors).toHaveLength(2);
  });
});
