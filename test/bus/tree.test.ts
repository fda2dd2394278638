import { describe, expect, it } from "vitest";

import { Vbus } from "vbus/bus";
import { VbusError } from "vbus/engine";
import { VirtualScheduler } from "vbus/scheduler";

import { Mailbox, mailboxClass, mailboxOf } from "./mailbox.js";

/** The errno name of what a function throws. */
function code(attempt: () => unknown): string {
  try {
    attempt();
  } catch (error) {
    if (error instanceof VbusError) return error.code;
    throw error;
  }
  return "nothing";
}

/** Two buses; nic0 sits on one, nic1 on both, nic2 on none. */
function house() {
  const vbus = new Vbus({ scheduler: new VirtualScheduler() });
  vbus.registerClass(mailboxClass);
  vbus.registerClass({ name: "letterbox", create: (context) => new Mailbox(context) });
  const [a, b] = [vbus.createBus("a"), vbus.createBus("b")];
  const nic0 = vbus.createDevice("nic0", "mailbox", { greeting: "moin" });
  const nic1 = vbus.createDevice("nic1", "mailbox");
  mailboxOf(nic1).seatsMax = 2;
  vbus.createDevice("nic2", "letterbox");
  a.connect(nic0);
  a.connect(nic1);
  b.connect(nic1);
  a.admit("guest-a");
  b.admit("guest-b");
  return { vbus, a, b, nic0, nic1 };
}

describe("tree", () => {
  it("prints like tree /sys/vbus", () => {
    const { vbus } = house();
    vbus.removeDevice("nic2");
    vbus.unregisterClass("letterbox");
    expect(vbus.tree()).toBe(
      `
vbus
├── deviceclass
│   └── mailbox
├── devices
│   ├── nic0
│   │   ├── broken: <EIO>
│   │   ├── class -> ../../deviceclass/mailbox
│   │   ├── greeting: moin
│   │   ├── interfaces
│   │   │   └── default -> ../../../instances/a/devices/0
│   │   ├── secret
│   │   └── sessions: 0
│   └── nic1
│       ├── broken: <EIO>
│       ├── class -> ../../deviceclass/mailbox
│       ├── greeting: hello
│       ├── interfaces
│       │   ├── default -> ../../../instances/a/devices/1
│       │   └── default@b -> ../../../instances/b/devices/0
│       ├── secret
│       └── sessions: 0
├── instances
│   ├── a
│   │   ├── devices
│   │   │   ├── 0
│   │   │   │   ├── device -> ../../../../devices/nic0
│   │   │   │   └── type: mailbox
│   │   │   └── 1
│   │   │       ├── device -> ../../../../devices/nic1
│   │   │       └── type: mailbox
│   │   └── members
│   │       └── guest-a
│   └── b
│       ├── devices
│       │   └── 0
│       │       ├── device -> ../../../../devices/nic1
│       │       └── type: mailbox
│       └── members
│           └── guest-b
└── version: 1`.trim(),
    );
  });

  it("prints a part, a file, and what a link points at", () => {
    const { vbus } = house();
    expect(vbus.tree("instances/b/devices")).toBe(
      "instances/b/devices\n└── 0\n    ├── device -> ../../../../devices/nic1\n    └── type: mailbox",
    );
    expect(vbus.tree("version")).toBe("version: 1");
    expect(vbus.tree("devices/nic0/interfaces/default").split("\n")[0]).toBe("instances/a/devices/0");
    expect(code(() => vbus.tree("devices/nic9"))).toBe("ENOENT");
  });

  it("of a bus shows that bus alone", () => {
    const { b } = house();
    expect(b.tree()).toBe(
      `
b
├── deviceclass
│   └── mailbox
├── devices
│   └── nic1
│       ├── broken: <EIO>
│       ├── class -> ../../deviceclass/mailbox
│       ├── greeting: hello
│       ├── interfaces
│       │   └── default -> ../../../instances/b/devices/0
│       ├── secret
│       └── sessions: 0
├── instances
│   └── b
│       ├── devices
│       │   └── 0
│       │       ├── device -> ../../../../devices/nic1
│       │       └── type: mailbox
│       └── members
│           └── guest-b
└── version: 1`.trim(),
    );
  });

  it("sorts numbers by value and keeps its lines whole, whatever attributes hold", () => {
    const { vbus, a, nic0 } = house();
    for (let i = 0; i < 10; i++) {
      a.disconnect(nic0);
      a.connect(nic0);
    }
    expect(vbus.list("instances/a/devices")).toEqual(["1", "11"]);
    vbus.write("devices/nic0/greeting", "two\nlines\u001b[2J");
    expect(vbus.tree("devices/nic0")).toContain("├── greeting: two\\nlines\\u001b[2J\n");
  });
});

describe("read", () => {
  it.each([
    ["version", "1"],
    ["/version/", "1"],
    ["deviceclass/mailbox", ""],
    ["deviceclass", "letterbox\nmailbox"],
    ["devices/nic0/class", "mailbox"],
    ["devices/nic2/class", "letterbox"],
    ["devices/nic0/greeting", "moin"],
    ["devices/nic1/interfaces", "default\ndefault@b"],
    ["devices/nic1/interfaces/default", "1"],
    ["devices/nic1/interfaces/default@b", "0"],
    ["instances/a/devices/1/type", "mailbox"],
    ["instances/a/devices/1/device", "nic1"],
    ["instances/a/members", "guest-a"],
    ["instances/a/members/guest-a", ""],
    ["devices/nic0/interfaces/default/device/greeting", "moin"],
  ])("%s gives %j", (path, expected) => {
    expect(house().vbus.read(path)).toBe(expected);
  });

  it.each([
    "nothing",
    "devices/nic9",
    "devices/nic0/nothing",
    "devices/nic0/greeting/deeper",
    "devices/../version",
    "devices/nic0/constructor",
    "__proto__",
    "instances/a/devices/7/type",
    "instances/a/members/guest-b",
    "deviceclass/nothing",
  ])("%s is -ENOENT", (path) => {
    expect(code(() => house().vbus.read(path))).toBe("ENOENT");
  });

  it("is -EIO without a handler, and when the handler fails, which is the cause", () => {
    const { vbus } = house();
    expect(code(() => vbus.read("devices/nic0/secret"))).toBe("EIO");
    expect(() => vbus.read("devices/nic0/broken")).toThrow(
      expect.objectContaining({ code: "EIO", cause: expect.any(RangeError) as unknown }) as Error,
    );
  });

  it("through a bus sees only what is on it", () => {
    const { a, b } = house();
    expect(a.read("devices/nic0/greeting")).toBe("moin");
    expect(code(() => b.read("devices/nic0/greeting"))).toBe("ENOENT");
    expect(code(() => a.read("devices/nic2/class"))).toBe("ENOENT");
    expect(code(() => a.read("deviceclass/letterbox"))).toBe("ENOENT");
    expect(code(() => b.read("instances/a/members"))).toBe("ENOENT");
    expect(b.list("instances")).toEqual(["b"]);
    expect(b.read("devices/nic1/interfaces/default")).toBe("0");
  });
});

describe("write", () => {
  it("strips one trailing newline, through the root and through a bus", () => {
    const { vbus, a } = house();
    vbus.write("devices/nic0/greeting", "ahoy\n");
    expect(vbus.read("devices/nic0/greeting")).toBe("ahoy");
    a.write("devices/nic0/greeting", "ahoy\n\n");
    expect(a.read("devices/nic0/greeting")).toBe("ahoy\n");
    a.write("devices/nic0/secret", "1234");
    expect(mailboxOf(vbus.device("nic0")).secret).toBe("1234");
  });

  it.each([
    ["devices/nic0/sessions", "EIO"],
    ["version", "EIO"],
    ["instances/a/devices/0/type", "EIO"],
    ["devices/nic0/nothing", "ENOENT"],
    ["devices/nic9/greeting", "ENOENT"],
    ["devices/nic0", "EINVAL"],
    ["devices/nic0/class", "EINVAL"],
  ])("to %s is -%s", (path, expected) => {
    const { vbus } = house();
    expect(
      code(() => {
        vbus.write(path, "x");
      }),
    ).toBe(expected);
  });

  it("passes errors of the device through", () => {
    const { vbus, nic0 } = house();
    const mailbox = mailboxOf(nic0);
    mailbox.sessions.add({} as never);
    expect(code(() => vbus.write("devices/nic0/greeting", "x"))).toBe("EBUSY");
    expect(
      code(() => {
        nic0.set("greeting", "x");
      }),
    ).toBe("EBUSY");
  });
});

describe("names", () => {
  it.each(["", ".", "..", "a/b", "a\nb", "x".repeat(129), "ü".repeat(65)])(
    "%j is refused everywhere",
    (name) => {
      const { vbus, a } = house();
      expect(code(() => vbus.createBus(name))).toBe("EINVAL");
      expect(code(() => vbus.createDevice(name, "mailbox"))).toBe("EINVAL");
      expect(code(() => a.admit(name))).toBe("EINVAL");
      expect(code(() => vbus.registerClass({ ...mailboxClass, name }))).toBe("EINVAL");
    },
  );

  it("that are taken are -EEXIST, until their owner is removed", () => {
    const { vbus } = house();
    expect(code(() => vbus.createBus("a"))).toBe("EEXIST");
    expect(code(() => vbus.createDevice("nic0", "mailbox"))).toBe("EEXIST");
    expect(code(() => vbus.registerClass(mailboxClass))).toBe("EEXIST");
    vbus.removeBus("a");
    vbus.removeDevice("nic0");
    vbus.createBus("a");
    vbus.createDevice("nic0", "mailbox");
    expect(code(() => vbus.removeBus("c"))).toBe("ENOENT");
    expect(code(() => vbus.removeDevice("nic9"))).toBe("ENOENT");
    expect(code(() => vbus.unregisterClass("nothing"))).toBe("ENOENT");
  });

  it("of interfaces and their types are checked when they are published", () => {
    const { vbus, a } = house();
    const device = vbus.createDevice("odd", "mailbox");
    const mailbox = mailboxOf(device);
    mailbox.names = ["x/y"];
    expect(code(() => a.connect(device))).toBe("EINVAL");
    const refused: string[] = [];
    mailbox.names = [];
    mailbox.seats.clear();
    a.connect(device);
    const [publisher] = mailbox.seats.keys();
    const connect = (): never => {
      throw new VbusError("ENXIO", "nobody there");
    };
    for (const type of ["", "t".repeat(128), "a\u0000b", "ä".repeat(64)]) {
      refused.push(code(() => publisher?.publish({ name: "default", type, connect })));
    }
    expect(refused).toEqual(["EINVAL", "EINVAL", "EINVAL", "EINVAL"]);
    publisher?.publish({ name: "default", type: "t".repeat(127), connect });
    expect(code(() => publisher?.publish({ name: "default", type: "t", connect }))).toBe("EEXIST");
    a.disconnect(device);
    expect(code(() => publisher?.publish({ name: "default", type: "t", connect }))).toBe("ENOTCONN");
    expect(device.interfaces).toEqual([]);
  });
});

describe("createDevice", () => {
  it("refuses an unknown class, and passes errors of the class through", () => {
    const { vbus } = house();
    expect(() => vbus.createDevice("x", "nothing")).toThrow(/ENOENT.*registered: mailbox, letterbox/);
    const failure = new VbusError("ENXIO", "no tape in the drive");
    vbus.registerClass({
      name: "tape",
      create: () => {
        throw failure;
      },
    });
    expect(() => vbus.createDevice("x", "tape")).toThrow(failure);
    vbus.unregisterClass("tape");
  });

  it("releases the device again when an attribute is refused", () => {
    const { vbus } = house();
    let made: Mailbox | undefined;
    vbus.registerClass({ name: "noted", create: (context) => (made = new Mailbox(context)) });
    expect(code(() => vbus.createDevice("x", "noted", { greeting: "hi", nothing: "1" }))).toBe("ENOENT");
    expect(made?.greeting).toBe("hi");
    expect(made?.released).toBe(1);
    expect(vbus.device("x")).toBeUndefined();
    vbus.unregisterClass("noted");
  });

  it("refuses a class whose attributes hide entries of the tree", () => {
    const { vbus } = house();
    let released = 0;
    vbus.registerClass({
      name: "greedy",
      create: () => ({
        attributes: new Map([["interfaces", {}]]),
        busConnect: () => {},
        busDisconnect: () => {},
        release: () => released++,
      }),
    });
    expect(code(() => vbus.createDevice("x", "greedy"))).toBe("EINVAL");
    expect(released).toBe(1);
  });
});
