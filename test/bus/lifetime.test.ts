import fc from "fast-check";
import { describe, expect, it } from "vitest";

import * as errno from "vbus/abi";
import { Vbus, type ErrorReport } from "vbus/bus";
import { VbusError } from "vbus/engine";
import { VirtualScheduler } from "vbus/scheduler";

import {
  Bench,
  CALL_SUM,
  guestMemory,
  lastSignal,
  Mailbox,
  mailboxOf,
  SEGMENT,
  spell,
  VERSION,
} from "./mailbox.js";

describe("a device", () => {
  it("is released only when it was removed, is on no bus, and no connection uses it", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    bench.bus.disconnect("box0");
    expect(bench.mailbox.released).toBe(0);
    bench.bus.connect("box0");
    bench.vbus.removeDevice("box0");
    expect(bench.mailbox.seats.size).toBe(0);
    expect(bench.mailbox.released).toBe(0);
    expect(bench.client.call(handle, CALL_SUM, SEGMENT, 0, 1)).toBe(1);
    expect(() => {
      bench.vbus.unregisterClass("mailbox");
    }).toThrow(/EBUSY/);
    bench.client.close(handle);
    expect(bench.mailbox.released).toBe(1);
    bench.vbus.unregisterClass("mailbox");
  });

  it("that nobody removed is not released by the end of its last session or bus", async () => {
    const bench = await Bench.open();
    bench.session();
    bench.vbus.removeBus("bus0");
    expect(bench.mailbox.released).toBe(0);
    expect(bench.mailbox.sessions.size).toBe(0);
    bench.vbus.removeDevice("box0");
    expect(bench.mailbox.released).toBe(1);
  });

  it("whose open fails is not held by it", async () => {
    const bench = await Bench.open();
    bench.mailbox.hooks.connect = () => {
      bench.vbus.removeDevice("box0");
      expect(bench.mailbox.released).toBe(0);
      throw new VbusError("ENXIO", "gone");
    };
    expect(bench.client.open(0, VERSION)).toBe(-errno.ENXIO);
    expect(bench.mailbox.released).toBe(1);
  });

  it("may be removed by itself while it is being connected", async () => {
    const bench = await Bench.open();
    const device = bench.vbus.createDevice("shy", "mailbox");
    const mailbox = mailboxOf(device);
    mailbox.hooks.busConnect = () => {
      device.close();
    };
    expect(() => {
      bench.bus.connect(device);
    }).toThrow(VbusError);
    expect(mailbox.released).toBe(1);
    expect(device.interfaces).toEqual([]);
    expect(bench.bus.devices.map(({ name }) => name)).toEqual(["box0"]);
  });

  it("that fails to leave is taken off all the same, and the failure is an error event", async () => {
    const bench = await Bench.open();
    bench.client.listen();
    bench.drain();
    bench.mailbox.hooks.busDisconnect = () => {
      throw new Error("glued to the wall");
    };
    bench.bus.disconnect("box0");
    expect(spell(bench.drain())).toEqual(["devdrop 0"]);
    expect(bench.errors).toMatchObject([{ source: "devices/box0", error: { message: "glued to the wall" } }]);
    bench.vbus.removeDevice("box0");
    expect(bench.mailbox.released).toBe(1);
  });

  it("frees its name at once, while a session still uses it", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    bench.vbus.removeDevice("box0");
    const next = bench.add("box0");
    expect(next).not.toBe(bench.mailbox);
    expect(bench.client.close(handle)).toBe(0);
    expect([bench.mailbox.released, next.released]).toEqual([1, 0]);
  });
});

describe("several buses", () => {
  it("are connected to one device only where its class allows it", async () => {
    const bench = await Bench.open();
    const second = bench.vbus.createBus("bus1");
    expect(() => {
      second.connect("box0");
    }).toThrow(/EBUSY/);
    expect(second.devices).toEqual([]);
    bench.mailbox.seatsMax = 2;
    second.connect("box0");
    expect(bench.vbus.device("box0")?.buses).toEqual(["bus0", "bus1"]);
    expect(() => {
      second.connect("box0");
    }).toThrow(/EEXIST/);
    bench.bus.disconnect("box0");
    expect(bench.vbus.device("box0")?.interfaces).toMatchObject([{ bus: "bus1", id: 0 }]);
    expect(() => {
      bench.bus.disconnect("box0");
    }).toThrow(/EINVAL/);
  });

  it("are isolated: neither interfaces, members, handles nor events cross", async () => {
    const bench = await Bench.open();
    const second = bench.vbus.createBus("bus1");
    expect(() => second.openClient({ member: "guest", memory: bench.memory })).toThrow(/EPERM.*admit/);
    second.admit("guest");
    const client = second.openClient({ member: "guest", memory: bench.memory });
    client.listen();
    const { handle } = bench.session();
    const signal = bench.share(handle);
    expect(client.open(0, VERSION)).toBe(-errno.ENOENT);
    expect(client.call(handle, CALL_SUM, SEGMENT, 0, 0)).toBe(-errno.ENOENT);
    expect(client.signal(signal)).toBe(-errno.ENOENT);
    bench.client.close(handle);
    expect(bench.drain(client)).toEqual([]);
    bench.vbus.removeBus("bus1");
    expect(client.connected).toBe(false);
    expect(bench.client.connected).toBe(true);
    expect(bench.session().handle).toBe(2);
  });

  it("have all let go of a removed device before it is released", async () => {
    const bench = await Bench.open();
    bench.mailbox.seatsMax = 2;
    bench.vbus.createBus("bus1").connect("box0");
    const released: number[] = [];
    bench.mailbox.hooks.busDisconnect = () => {
      released.push(bench.mailbox.released);
    };
    bench.vbus.removeDevice("box0");
    expect(released).toEqual([0, 0]);
    expect(bench.mailbox.released).toBe(1);
  });

  it("do not take devices of another tree, or removed ones", async () => {
    const [bench, foreign] = [await Bench.open(), await Bench.open()];
    const other = foreign.vbus.device("box0");
    const removed = bench.vbus.createDevice("gone", "mailbox");
    removed.close();
    if (other === undefined) throw new Error("box0 is there");
    for (const device of [other, removed]) {
      expect(() => {
        bench.bus.connect(device);
      }).toThrow(/ENODEV/);
    }
    expect(() => {
      bench.bus.connect("nothing");
    }).toThrow(/ENOENT/);
  });
});

describe("members", () => {
  it("that are expelled lose their clients, and nobody else does", async () => {
    const bench = await Bench.open();
    bench.bus.admit("other");
    bench.bus.admit("other");
    expect(bench.bus.members).toEqual(["guest", "other"]);
    const other = bench.bus.openClient({ member: "other", memory: bench.memory });
    bench.mailbox.sessionsMax = 2;
    const { session } = bench.session();
    const handle = other.open(0, VERSION);
    bench.bus.expel("guest");
    bench.bus.expel("guest");
    bench.bus.expel("nobody");
    expect(session.closed).toBe(1);
    expect(bench.client.connected).toBe(false);
    expect(bench.bus.clients).toEqual([other]);
    expect(other.call(handle, CALL_SUM, SEGMENT, 0, 3)).toBe(3);
    expect(() => bench.guest()).toThrow(/EPERM/);
    bench.bus.admit("guest");
    expect(bench.guest().open(0, VERSION)).toBe(1);
  });
});

describe("a bus", () => {
  it("outlives a guest that vanished, and the next one takes its place", async () => {
    const bench = await Bench.open();
    const { handle, session } = bench.session();
    bench.share(handle);
    const signal = lastSignal(session);
    bench.client.disconnect();
    signal.notify();
    signal.release();
    expect(session.closed).toBe(1);
    expect(bench.mailbox.released).toBe(0);
    const next = bench.guest("next");
    next.listen();
    expect(spell(bench.drain(next))).toEqual(["devadd 0"]);
    expect(next.open(0, VERSION)).toBe(1);
  });

  it("that was removed refuses everything with ENODEV", async () => {
    const bench = await Bench.open();
    bench.bus.close();
    bench.bus.close();
    for (const attempt of [
      () => {
        bench.bus.admit("x");
      },
      () => {
        bench.bus.connect("box0");
      },
      () => bench.guest(),
    ]) {
      expect(attempt).toThrow(/ENODEV/);
    }
    expect(bench.vbus.bus("bus0")).toBeUndefined();
  });
});

describe("events of the tree", () => {
  it("tell the whole story, to the root and, of one bus, to that bus", async () => {
    const memory = await guestMemory();
    const vbus = new Vbus({ scheduler: new VirtualScheduler() });
    const story: string[] = [];
    const types = [
      "classRegistered",
      "classUnregistered",
      "deviceCreated",
      "deviceRemoved",
      "deviceReleased",
      "busCreated",
      "busRemoved",
      "deviceConnected",
      "deviceDisconnected",
      "interfacePublished",
      "interfaceWithdrawn",
      "memberAdmitted",
      "memberExpelled",
      "clientOpened",
      "clientClosed",
      "connectionOpened",
      "connectionClosed",
    ] as const;
    for (const type of types) {
      vbus.on(type, (event) => {
        story.push(`${type} ${Object.values<string | number>({ ...event }).join(" ")}`);
      });
    }
    vbus.registerClass({ name: "mailbox", create: (context) => new Mailbox(context) });
    const bus = vbus.createBus("bus0");
    const onBus: string[] = [];
    for (const type of types) bus.on(type, () => onBus.push(type));
    const device = vbus.createDevice("box0", "mailbox");
    bus.connect(device);
    bus.admit("guest");
    const client = bus.openClient({ member: "guest", memory, label: "vm1" });
    client.open(0, VERSION);
    expect(client.connections).toMatchObject([
      { client: "vm1", device: "box0", handle: 1, interface: "default" },
    ]);
    vbus.close();
    vbus.close();
    expect(story).toEqual([
      "classRegistered mailbox",
      "busCreated bus0",
      "deviceCreated box0 mailbox",
      "interfacePublished bus0 box0 0 default mailbox",
      "deviceConnected bus0 box0",
      "memberAdmitted bus0 guest",
      "clientOpened bus0 guest vm1",
      "connectionOpened bus0 guest vm1 box0 default 1",
      "interfaceWithdrawn bus0 box0 0 default mailbox",
      "deviceDisconnected bus0 box0",
      "connectionClosed bus0 guest vm1 box0 default 1",
      "clientClosed bus0 guest vm1",
      "memberExpelled bus0 guest",
      "busRemoved bus0",
      "deviceRemoved box0 mailbox",
      "deviceReleased box0 mailbox",
      "classUnregistered mailbox",
    ]);
    expect(onBus).toEqual(
      story
        .map((line) => line.split(" ")[0])
        .filter((type) => !/^class|^busCreated|^device(Created|Rem|Rel)/.test(type ?? "")),
    );
    expect(() => vbus.createBus("late")).toThrow(/ENODEV/);
  });

  it("are not told after the subscription ended, also from within a listener", async () => {
    const bench = await Bench.open();
    let told = 0;
    const end = bench.bus.on("memberAdmitted", () => {
      told++;
      end();
    });
    bench.bus.admit("a");
    bench.bus.admit("b");
    end();
    expect(told).toBe(1);
  });

  it("survive listeners that throw: the others are told, and the error is an event", async () => {
    const bench = await Bench.open();
    const told: string[] = [];
    bench.bus.on("memberAdmitted", () => {
      throw new Error("bug");
    });
    bench.bus.on("memberAdmitted", ({ member }) => told.push(member));
    bench.bus.admit("a");
    expect(told).toEqual(["a"]);
    expect(bench.errors).toMatchObject([{ error: { message: "bug" } }]);
  });

  it("hand the exception of an error listener to the scheduler, and never recurse", async () => {
    const bench = await Bench.open();
    bench.bus.on("error", () => {
      throw new Error("worse");
    });
    bench.bus.on("memberAdmitted", () => {
      throw new Error("bug");
    });
    bench.bus.on("error", () => {
      bench.bus.admit("cascade");
    });
    bench.bus.admit("a");
    expect(bench.errors).toHaveLength(1);
    const thrown: unknown[] = [];
    for (;;) {
      try {
        bench.scheduler.run();
        break;
      } catch (error) {
        thrown.push(error);
      }
    }
    // one for "a", one for the member that the error listener admitted
    expect(thrown).toMatchObject([{ message: "worse" }, { message: "worse" }]);
    expect(bench.errors).toHaveLength(2);
  });

  it("keep errors that nobody heard for the first listener, the latest 64", async () => {
    const memory = await guestMemory();
    const scheduler = new VirtualScheduler();
    const vbus = new Vbus({ scheduler });
    vbus.registerClass({ name: "mailbox", create: (context) => new Mailbox(context) });
    const bus = vbus.createBus("bus0");
    const device = vbus.createDevice("box0", "mailbox");
    bus.connect(device);
    bus.admit("guest");
    const client = bus.openClient({ member: "guest", memory });
    const mailbox = mailboxOf(device);
    for (let i = 0; i < 70; i++) {
      mailbox.hooks.connect = () => {
        throw new Error(`bug ${i}`);
      };
      expect(client.open(0, VERSION)).toBe(-errno.EIO);
    }
    mailbox.context.report("paper is low");
    const heard: ErrorReport[] = [];
    vbus.on("error", (report) => heard.push(report));
    expect(heard).toEqual([]);
    scheduler.run();
    expect(heard).toHaveLength(64);
    expect(heard[0]).toMatchObject({ error: { message: "bug 7" } });
    expect(heard[63]).toEqual({ source: "devices/box0", message: "paper is low", error: undefined });
  });
});

describe("closing everything", () => {
  it("in any order, each thing once or twice, is harmless and gives everything back", async () => {
    const memory = await guestMemory();
    const names = [
      "close session",
      "close client",
      "reset client",
      "release signal",
      "disconnect device",
      "remove device",
      "expel member",
      "remove bus",
      "close tree",
      "unregister class",
    ] as const;
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...names), { minLength: 1, maxLength: 20 }),
        fc.constantFrom(null, ...names),
        (order, fromClose) => {
          const bench = Bench.over(memory);
          bench.client.listen();
          const { handle, session } = bench.session();
          bench.share(handle);
          const signal = lastSignal(session);
          const device = bench.vbus.device("box0");
          const tolerated = (attempt: () => void): void => {
            try {
              attempt();
            } catch (error) {
              // what is gone, or still in use, is refused by name; nothing else may happen
              expect(error).toMatchObject({
                code: expect.stringMatching(/^(ENOENT|EINVAL|EBUSY|ENODEV)$/) as unknown,
              });
            }
          };
          const does: Record<(typeof names)[number], () => void> = {
            "close session": () => void bench.client.close(handle),
            "close client": () => bench.client.disconnect(),
            "reset client": () => bench.client.reset(),
            "release signal": () => signal.release(),
            "disconnect device": () => tolerated(() => bench.bus.disconnect("box0")),
            "remove device": () => device?.close(),
            "expel member": () => bench.bus.expel("guest"),
            "remove bus": () => bench.bus.close(),
            "close tree": () => bench.vbus.close(),
            "unregister class": () => tolerated(() => bench.vbus.unregisterClass("mailbox")),
          };
          if (fromClose !== null) bench.mailbox.hooks.close = does[fromClose];
          for (const name of order) {
            does[name]();
            signal.notify();
          }
          bench.vbus.close();
          expect(bench.errors).toEqual([]);
          expect(session.closed).toBe(1);
          expect(bench.mailbox.released).toBe(1);
          expect(bench.mailbox.seats.size).toBe(0);
          expect(bench.client.open(0, VERSION)).toBe(-errno.ENOTCONN);
          expect(device?.connections).toBe(0);
          expect(bench.vbus.tree()).toBe("vbus\n├── deviceclass\n├── devices\n├── instances\n└── version: 1");
        },
      ),
      { numRuns: 300 },
    );
  });
});
