import {
  EBUSY,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  VENET_EVQQUERY,
  VENET_FLUSHRX,
  VENET_L4ROQUERY,
  VENET_LINKDOWN,
  VENET_LINKUP,
  VENET_MACQUERY,
  VENET_NEGCAP,
  VENET_PMTDQUERY,
} from "vbus/abi";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";
import { TestMachine, testFrame } from "./machine.js";
import { TestPort } from "./port.js";
import { block, RawGuest, words } from "./raw-guest.js";
import { V4Nic } from "./v4-nic.js";

const MAC = [2, 0, 0, 0, 0, 0x0a];
const OUTSIDE = 0x7fff0000;

let scheduler: VirtualScheduler;
let machine: TestMachine;
let port: TestPort;
let guest: RawGuest;

beforeEach(() => {
  scheduler = new VirtualScheduler();
  port = new TestPort();
  machine = new TestMachine(() => port, scheduler);
  machine.addNic("nic0", { client_mac: "02:00:00:00:00:0a" });
  guest = new RawGuest(machine);
});

describe("opening a NIC", () => {
  it.each([0, 2, 0xffffffff])(
    "refuses version %i with EINVAL and stays free for the right one",
    (version) => {
      expect(guest.open(0, version)).toBe(-EINVAL);
      expect(guest.open()).toBeGreaterThan(0);
    },
  );

  it("refuses a second guest with EBUSY until the first has closed", () => {
    const other = new RawGuest(machine, "other");
    const handle = guest.open();
    expect(other.open()).toBe(-EBUSY);
    expect(guest.open()).toBe(-EBUSY);
    expect(guest.client.close(handle)).toBe(0);
    expect(other.open()).toBeGreaterThan(0);
  });

  it("forgets the rings of the session before: a new one starts without any", () => {
    guest.open();
    guest.rings();
    expect(guest.call(VENET_LINKUP)).toBe(0);
    expect(guest.client.close(guest.handle)).toBe(0);
    guest.open();
    expect(guest.call(VENET_LINKUP)).toBe(-EINVAL);
    const { rxSignal, txSignal } = guest.rings();
    expect(Math.min(rxSignal, txSignal)).toBeGreaterThanOrEqual(0);
    expect(guest.call(VENET_LINKUP)).toBe(0);
  });

  it("lets the port and all host memory go at close, with the link up", () => {
    const before = guest.host.arena.available;
    guest.open();
    guest.rings();
    guest.call(VENET_LINKUP);
    expect(port.peer).not.toBeNull();
    guest.client.close(guest.handle);
    expect(port.peer).toBeNull();
    expect(guest.host.arena.available).toBe(before);
    expect(machine.bus.read("devices/nic0/link")).toBe("down");
  });
});

describe("the calls of a NIC", () => {
  beforeEach(() => {
    expect(guest.open()).toBeGreaterThan(0);
  });

  it("LINKUP needs both rings, works once, and again after LINKDOWN", () => {
    expect(guest.call(VENET_LINKUP)).toBe(-EINVAL);
    expect(guest.share(0, guest.ring("northReceive"))).toBeGreaterThanOrEqual(0);
    expect(guest.call(VENET_LINKUP)).toBe(-EINVAL);
    expect(guest.share(1, guest.ring("northTransmit"))).toBeGreaterThanOrEqual(0);
    expect(guest.call(VENET_LINKUP)).toBe(0);
    expect(machine.bus.read("devices/nic0/link")).toBe("up");
    expect(guest.call(VENET_LINKUP)).toBe(-EEXIST);
    expect(guest.call(VENET_LINKDOWN)).toBe(0);
    expect(guest.call(VENET_LINKUP)).toBe(0);
  });

  it("LINKDOWN without a link is ENOENT, and ignores data and its length", () => {
    expect(guest.call(VENET_LINKDOWN)).toBe(-ENOENT);
    guest.rings();
    expect(guest.call(VENET_LINKUP, OUTSIDE, 77)).toBe(0);
    expect(guest.call(VENET_LINKDOWN, OUTSIDE, 77)).toBe(0);
    expect(guest.call(VENET_LINKDOWN)).toBe(-ENOENT);
  });

  it("a port that refuses the NIC makes LINKUP fail and leaves the link down", () => {
    guest.rings();
    port.refusal = new Error("no more room on this switch");
    expect(guest.call(VENET_LINKUP)).toBeLessThan(0);
    expect(machine.bus.read("devices/nic0/link")).toBe("down");
    port.refusal = null;
    expect(guest.call(VENET_LINKUP)).toBe(0);
    expect(machine.errors.splice(0)).toHaveLength(1);
  });

  it("LINKDOWN and LINKUP work while the NIC is disabled", () => {
    guest.rings();
    guest.call(VENET_LINKUP);
    machine.bus.write("devices/nic0/enabled", "0");
    expect(guest.call(VENET_LINKDOWN)).toBe(0);
    expect(guest.call(VENET_LINKUP)).toBe(0);
  });

  it("MACQUERY gives the address, whatever the link does; other lengths are EINVAL, bad memory is EFAULT", () => {
    const mac = new Uint8Array(6);
    expect(guest.callWith(VENET_MACQUERY, mac)).toBe(0);
    expect([...mac]).toEqual(MAC);
    for (const length of [1, 5, 7, 8])
      expect(guest.callWith(VENET_MACQUERY, new Uint8Array(length))).toBe(-EINVAL);
    expect(guest.call(VENET_MACQUERY)).toBe(-EINVAL);
    expect(guest.call(VENET_MACQUERY, OUTSIDE, 6)).toBe(-EFAULT);
    guest.rings();
    guest.call(VENET_LINKUP);
    mac.fill(0);
    expect(guest.callWith(VENET_MACQUERY, mac)).toBe(0);
    expect([...mac]).toEqual(MAC);
  });

  it.each([3, 77, 0x76620000, 0x76620002, 0xffffffff])(
    "NEGCAP answers group %i, which it does not know, with no bits and leaves gid alone",
    (gid) => {
      const capabilities = block(gid, 0xffffffff);
      expect(guest.callWith(VENET_NEGCAP, capabilities)).toBe(0);
      expect(words(capabilities)).toEqual([gid, 0]);
    },
  );

  it("NEGCAP refuses other lengths and a link that is up with EINVAL, bad memory with EFAULT", () => {
    expect(guest.callWith(VENET_NEGCAP, new Uint8Array(4))).toBe(-EINVAL);
    expect(guest.callWith(VENET_NEGCAP, new Uint8Array(12))).toBe(-EINVAL);
    expect(guest.call(VENET_NEGCAP, OUTSIDE, 8)).toBe(-EFAULT);
    guest.rings();
    guest.call(VENET_LINKUP);
    expect(guest.callWith(VENET_NEGCAP, block(0, 1))).toBe(-EINVAL);
    guest.call(VENET_LINKDOWN);
    expect(guest.callWith(VENET_NEGCAP, block(0, 1))).toBe(0);
  });

  it("NEGCAP is no prerequisite: a guest that never negotiates sends frames", () => {
    const nic = new V4Nic(guest);
    expect(guest.call(VENET_LINKUP)).toBe(0);
    const frame = testFrame([2, 0, 0, 0, 0, 1], MAC, 60);
    nic.send(frame);
    scheduler.run();
    expect(port.sent).toEqual([frame]);
  });

  it("FLUSHRX returns 0 while the link is down, and touches no descriptor", () => {
    expect(guest.call(VENET_FLUSHRX)).toBe(0);
    const nic = new V4Nic(guest);
    expect(guest.call(VENET_FLUSHRX)).toBe(0);
    expect(nic.poll()).toBe(0);
    expect(machine.statistics("nic0").flushed).toBe(0);
  });

  it("PMTDQUERY is 100 although nothing was negotiated, at any time", () => {
    expect(guest.call(VENET_PMTDQUERY)).toBe(100);
    guest.rings();
    guest.call(VENET_LINKUP);
    expect(guest.call(VENET_PMTDQUERY, OUTSIDE, 3)).toBe(100);
  });

  it("EVQQUERY tells the event size and segments 101 and 102", () => {
    const query = block(0, 9, 9, 9, 9, 9, 9, 9);
    expect(guest.callWith(VENET_EVQQUERY, query)).toBe(0);
    expect(words(query)).toEqual([0, 24, 101, 102, 9, 9, 9, 9]);
  });

  it("L4ROQUERY tells segments 103 and 104", () => {
    const query = block(0, 9, 9, 9, 9, 9, 9, 9);
    expect(guest.callWith(VENET_L4ROQUERY, query)).toBe(0);
    expect(words(query)).toEqual([0, 103, 104, 9, 9, 9, 9, 9]);
  });

  it.each([
    ["EVQQUERY", VENET_EVQQUERY],
    ["L4ROQUERY", VENET_L4ROQUERY],
  ])(
    "%s refuses flags, other lengths and a link that is up with EINVAL, bad memory with EFAULT",
    (_name, func) => {
      expect(guest.callWith(func, block(1, 0, 0, 0, 0, 0, 0, 0))).toBe(-EINVAL);
      expect(guest.callWith(func, block(0x80000000, 0, 0, 0, 0, 0, 0, 0))).toBe(-EINVAL);
      for (const length of [8, 28, 36]) expect(guest.callWith(func, new Uint8Array(length))).toBe(-EINVAL);
      expect(guest.call(func, OUTSIDE, 32)).toBe(-EFAULT);
      guest.rings();
      guest.call(VENET_LINKUP);
      expect(guest.callWith(func, new Uint8Array(32))).toBe(-EINVAL);
    },
  );

  it.each([8, 99, 0xffffffff])("call %i does not exist: EINVAL", (func) => {
    expect(guest.call(func)).toBe(-EINVAL);
  });
});

describe("the segments of a NIC", () => {
  beforeEach(() => {
    guest.open();
  });

  it.each([
    [0, "northReceive"],
    [1, "northTransmit"],
    [104, "northFeed"],
  ] as const)("segment %i is taken once, then EEXIST", (id, role) => {
    expect(guest.share(id, guest.ring(role))).toBeGreaterThanOrEqual(0);
    expect(guest.share(id, guest.ring(role))).toBe(-EEXIST);
  });

  it("the page queue (104) is taken without any capability, and let go at close", () => {
    const before = guest.host.arena.available;
    expect(guest.share(104, guest.ring("northFeed"), 7)).toBeGreaterThanOrEqual(0);
    guest.client.close(guest.handle);
    expect(guest.host.arena.available).toBe(before);
    expect(guest.events().filter((e) => e.kind === "shmclose")).toEqual([{ kind: "shmclose", cookie: 7 }]);
  });

  it.each([100, 101, 102, 103, 2, 99, 105, 0xffffffff])("segment %i is refused: EINVAL", (id) => {
    const ring = guest.ring("northFeed");
    expect(guest.share(id, ring)).toBe(-EINVAL);
    expect(guest.client.shm(guest.handle, id, ring.gpa, ring.length, null, 0)).toBe(-EINVAL);
  });

  it.each([0, 1, 104])(
    "segment %i without a signal, or with one elsewhere than in its header, is EINVAL",
    (id) => {
      const ring = guest.ring("northReceive");
      expect(guest.client.shm(guest.handle, id, ring.gpa, ring.length, null, 0)).toBe(-EINVAL);
      // a valid signal record at another place of the segment
      const at = 56 + 32;
      guest.memory.space.copyTo(ring.gpa + at, guest.memory.space.copyFrom(ring.gpa + 8, 32));
      const signal = { offset: at, prio: 0, cookie: 5 };
      expect(guest.client.shm(guest.handle, id, ring.gpa, ring.length, signal, 0)).toBe(-EINVAL);
      expect(guest.events().some((e) => e.kind === "shmclose")).toBe(false);
      expect(guest.share(id, guest.ring("northReceive"))).toBeGreaterThanOrEqual(0);
    },
  );

  it.each([
    ["magic", 0, 1],
    ["version", 4, 9],
    ["signal magic", 8, 0],
    ["count 0", 48, 0],
    ["count that does not fit the length", 48, 9],
    ["index out of range", 16 * 4, 0],
  ])("a ring with a bad %s is EINVAL, and a good one is taken afterwards", (name, offset, value) => {
    const ring = guest.ring("northReceive");
    if (name.startsWith("index")) {
      // inuse.tail is the end that south adopts
      const inuse = guest.memory.space.copyFrom(ring.gpa, 56);
      const view = new DataView(inuse.buffer);
      for (let at = 24; at < 48; at += 4) view.setUint32(at, 0xffff, true);
      guest.memory.space.copyTo(ring.gpa, inuse);
    } else {
      guest.memory.space.copyTo(ring.gpa + offset, block(value));
    }
    const before = guest.host.arena.available;
    expect(guest.share(0, ring)).toBe(-EINVAL);
    expect(guest.host.arena.available).toBe(before);
    expect(guest.share(0, guest.ring("northReceive"))).toBeGreaterThanOrEqual(0);
  });

  it("a ring of 2048 descriptors is taken, one of 2049 is EINVAL", () => {
    expect(guest.share(0, guest.ring("northReceive", 2049))).toBe(-EINVAL);
    expect(guest.share(0, guest.ring("northReceive", 2048))).toBeGreaterThanOrEqual(0);
  });

  it("a ring that leaves the guest's memory is EFAULT", () => {
    const ring = guest.ring("northReceive");
    expect(guest.share(0, { ...ring, gpa: OUTSIDE })).toBe(-EFAULT);
    expect(guest.share(0, { ...ring, length: 1 << 30 })).toBe(-EFAULT);
  });

  it("both descriptor layouts are told apart by the segment's length", () => {
    expect(guest.share(0, guest.ring("northReceive", 4, true))).toBeGreaterThanOrEqual(0);
    expect(guest.share(1, guest.ring("northTransmit", 4, false))).toBeGreaterThanOrEqual(0);
    expect(guest.call(VENET_LINKUP)).toBe(0);
  });

  it("an arena without room refuses with ENOMEM and keeps nothing", () => {
    const hold: number[] = [];
    for (let size = 1 << 20; size >= 64; size /= 2) {
      while (guest.host.arena.available >= size * 2) {
        const before = guest.host.arena.available;
        try {
          hold.push(guest.host.allocate(size, 64));
        } catch {
          expect(guest.host.arena.available).toBe(before);
          break;
        }
      }
    }
    const before = guest.host.arena.available;
    expect(before).toBeLessThan(4096);
    expect(guest.share(0, guest.ring("northReceive"))).toBe(-12);
    expect(guest.host.arena.available).toBe(before);
    for (const address of hold) guest.host.free(address);
    expect(guest.share(0, guest.ring("northReceive"))).toBeGreaterThanOrEqual(0);
  });
});
