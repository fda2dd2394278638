import {
  EEXIST,
  EINVAL,
  VENET_EVQQUERY,
  VENET_GROUP_EVENTQ,
  VENET_GROUP_L4RO,
  VENET_GROUP_SG,
  VENET_GROUP_USO,
  VENET_LINKDOWN,
  VENET_LINKUP,
  VENET_NEGCAP,
} from "vbus/abi";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";
import { TestMachine, testFrame } from "./machine.js";
import { ModernNic } from "./modern-nic.js";
import { TestPort } from "./port.js";
import { block, RawGuest, words } from "./raw-guest.js";

const ALL = 0xffffffff;
const SLOT = 320;

let scheduler: VirtualScheduler;
let machine: TestMachine;
let port: TestPort;
let guest: RawGuest;

beforeEach(() => {
  scheduler = new VirtualScheduler();
  port = new TestPort();
  machine = new TestMachine(() => port, scheduler);
  machine.addNic("nic0");
  guest = new RawGuest(machine);
  guest.open();
});

/** NEGCAP: the bits that came back. */
function negotiate(group: number, bits: number): number {
  const capabilities = block(group, bits);
  expect(guest.callWith(VENET_NEGCAP, capabilities)).toBe(0);
  const [gid, granted = -1] = words(capabilities);
  expect(gid).toBe(group);
  return granted;
}

/** DEVSHM of a pool. */
function pool(id: number, length: number): number {
  return guest.client.shm(
    guest.handle,
    id,
    guest.memory.ram.allocate(Math.max(length, 1), 8),
    length,
    null,
    0,
  );
}

describe("what a NIC grants", () => {
  it.each([
    ["SG: all but UFO", VENET_GROUP_SG, 0x2f],
    ["EVENTQ: link state, but no completions", VENET_GROUP_EVENTQ, 0x01],
    ["L4RO", VENET_GROUP_L4RO, 0x0f],
    ["USO, a group of ours", VENET_GROUP_USO, 0x03],
    ["nothing of a group it does not know", 3, 0],
  ])("%s", (_what, group, bits) => {
    expect(negotiate(group, ALL)).toBe(bits);
    for (let bit = 0; bit < 32; bit++)
      expect(negotiate(group, (1 << bit) >>> 0)).toBe((bits & (1 << bit)) >>> 0);
    expect(negotiate(group, 0)).toBe(0);
  });

  it("completions too, once the attribute txc allows it; never UFO", () => {
    machine.bus.write("devices/nic0/txc", "1");
    expect(negotiate(VENET_GROUP_EVENTQ, ALL)).toBe(0x03);
    expect(negotiate(VENET_GROUP_SG, 0x10)).toBe(0);
  });

  it("nothing but link state while the attribute offloads is 0, and everything again afterwards", () => {
    machine.bus.write("devices/nic0/offloads", "0");
    for (const group of [VENET_GROUP_SG, VENET_GROUP_L4RO, VENET_GROUP_USO])
      expect(negotiate(group, ALL)).toBe(0);
    expect(negotiate(VENET_GROUP_EVENTQ, ALL)).toBe(1);
    machine.bus.write("devices/nic0/offloads", "1");
    expect(negotiate(VENET_GROUP_SG, ALL)).toBe(0x2f);
  });

  it("a withdrawn attribute takes nothing back that a session has", () => {
    negotiate(VENET_GROUP_SG, 0x20);
    machine.bus.write("devices/nic0/offloads", "0");
    expect(pool(100, SLOT)).toBe(0);
  });

  it("only before LINKUP, and again after LINKDOWN", () => {
    guest.rings();
    expect(guest.call(VENET_LINKUP)).toBe(0);
    const capabilities = block(VENET_GROUP_SG, 1);
    expect(guest.callWith(VENET_NEGCAP, capabilities)).toBe(-EINVAL);
    expect(words(capabilities)).toEqual([VENET_GROUP_SG, 1]);
    expect(pool(100, SLOT)).toBe(-EINVAL);
    guest.call(VENET_LINKDOWN);
    expect(negotiate(VENET_GROUP_SG, 1)).toBe(1);
  });

  it("is added up: a later call with fewer bits withdraws nothing until the session ends", () => {
    negotiate(VENET_GROUP_SG, 0x20);
    negotiate(VENET_GROUP_SG, 0x00);
    negotiate(VENET_GROUP_SG, 0x02);
    expect(pool(100, SLOT)).toBe(0);
    guest.client.close(guest.handle);
    guest.open();
    expect(pool(100, SLOT)).toBe(-EINVAL);
  });

  it("twenty thousand unknown groups leave no trace", () => {
    const gpa = guest.memory.ram.allocate(8, 8);
    for (let group = 3; group < 20_000; group++) {
      guest.memory.space.copyTo(gpa, block(group, ALL));
      expect(guest.call(VENET_NEGCAP, gpa, 8)).toBe(0);
    }
    expect(negotiate(VENET_GROUP_SG, ALL)).toBe(0x2f);
  });

  it("PMTD or TSO without SG are granted although they are useless: frames stay linear", () => {
    const nic = new ModernNic(guest, { sg: 0x2e });
    expect(nic.granted.sg).toBe(0x2e);
    guest.call(VENET_LINKUP);
    const frame = testFrame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], 60);
    nic.send({ bytes: frame });
    scheduler.run();
    expect(port.sent).toEqual([frame]);
  });

  it("L4RO bits without SG share a pool but do not switch the mode on", () => {
    expect(negotiate(VENET_GROUP_L4RO, 0x0e)).toBe(0x0e);
    expect(pool(103, SLOT)).toBe(0);
    guest.rings();
    expect(guest.call(VENET_LINKUP)).toBe(0);
    expect(port.peer?.offloads).toBe(0);
  });
});

describe("pools", () => {
  const groups = [
    [100, VENET_GROUP_SG, 0x20],
    [101, VENET_GROUP_EVENTQ, 0x01],
    [103, VENET_GROUP_L4RO, 0x01],
  ] as const;

  it.each(groups)(
    "segment %i needs its capability, and no signal; then it is taken once",
    (id, group, bit) => {
      expect(pool(id, SLOT)).toBe(-EINVAL);
      negotiate(group, ALL & ~bit & (group === VENET_GROUP_SG ? ALL : 0));
      expect(pool(id, SLOT)).toBe(-EINVAL);
      negotiate(group, bit);
      expect(guest.share(id, guest.ring("northFeed"))).toBe(-EINVAL);
      expect(guest.events().filter((event) => event.kind === "shmclose")).toEqual([]);
      expect(pool(id, 0)).toBe(-EINVAL);
      expect(pool(id, SLOT)).toBe(0);
      expect(pool(id, SLOT)).toBe(-EEXIST);
      guest.client.close(guest.handle);
      guest.open();
      negotiate(group, bit);
      expect(pool(id, SLOT)).toBe(0);
    },
  );

  it("the pool of L4RO has room for 2048 slots of 320 bytes and not a byte more", () => {
    negotiate(VENET_GROUP_L4RO, 1);
    expect(pool(103, 2048 * 320 + 1)).toBe(-EINVAL);
    expect(pool(103, 2048 * 320)).toBe(0);
  });

  it.each([0, 1, -1, 23, 24, -24])(
    "the event queue of 8 needs a pool of 192 bytes exactly: %i more",
    (more) => {
      negotiate(VENET_GROUP_EVENTQ, 1);
      const before = guest.share(102, guest.ring("northReceive"));
      expect(before).toBe(-EINVAL); // no pool yet
      expect(pool(101, 192 + more)).toBe(0);
      const arena = guest.host.arena.available;
      const result = guest.share(102, guest.ring("northReceive"), 7);
      if (more === 0) {
        expect(result).toBeGreaterThanOrEqual(0);
        expect(guest.share(102, guest.ring("northReceive"))).toBe(-EEXIST);
      } else {
        expect(result).toBe(-EINVAL);
        expect(guest.host.arena.available).toBe(arena);
        expect(guest.events()).not.toContainEqual({ kind: "shmclose", cookie: 7 });
      }
    },
  );

  it("the event queue needs its signal", () => {
    negotiate(VENET_GROUP_EVENTQ, 1);
    pool(101, 192);
    const ring = guest.ring("northReceive");
    expect(guest.client.shm(guest.handle, 102, ring.gpa, ring.length, null, 0)).toBe(-EINVAL);
    expect(guest.share(102, ring)).toBeGreaterThanOrEqual(0);
  });

  it("LINKUP with L4RO granted but no pool is EINVAL, and works once there is one", () => {
    negotiate(VENET_GROUP_L4RO, 0x0f);
    guest.rings();
    expect(guest.call(VENET_LINKUP)).toBe(-EINVAL);
    expect(machine.bus.read("devices/nic0/link")).toBe("down");
    expect(pool(103, 8 * SLOT)).toBe(0);
    expect(guest.call(VENET_LINKUP)).toBe(0);
  });

  it("LINKUP with LINKSTATE granted but no event queue works, and nobody is told (V6)", () => {
    negotiate(VENET_GROUP_EVENTQ, 1);
    guest.rings();
    expect(guest.call(VENET_LINKUP)).toBe(0);
    expect(machine.statistics("nic0").events).toBe(0);
    machine.bus.write("devices/nic0/link", "down");
    machine.bus.write("devices/nic0/link", "up");
    expect(machine.errors).toEqual([]);
  });

  it("everything shared goes back at close, to the last byte of the host's arena", () => {
    const before = guest.host.arena.available;
    machine.bus.write("devices/nic0/txc", "1");
    new ModernNic(guest, { sg: ALL, events: ALL, l4ro: ALL, uso: ALL });
    expect(guest.call(VENET_LINKUP)).toBe(0);
    scheduler.run();
    expect(guest.host.arena.available).toBeLessThan(before);
    guest.client.close(guest.handle);
    expect(guest.host.arena.available).toBe(before);
    expect(guest.callWith(VENET_EVQQUERY, new Uint8Array(32))).toBeLessThan(0);
  });

  it("an arena without room makes LINKUP fail with ENOMEM; the link stays down and nothing is lost", () => {
    new ModernNic(guest, { sg: ALL, l4ro: ALL });
    const hold: number[] = [];
    for (let size = 1 << 20; size >= 64; size >>= 1) {
      for (let tried = true; tried;) {
        try {
          hold.push(guest.host.allocate(size, 64));
        } catch {
          tried = false;
        }
      }
    }
    const before = guest.host.arena.available;
    expect(guest.call(VENET_LINKUP)).toBe(-12);
    expect(machine.bus.read("devices/nic0/link")).toBe("down");
    expect(port.peer).toBeNull();
    expect(guest.host.arena.available).toBe(before);
    for (const address of hold) guest.host.free(address);
    expect(guest.call(VENET_LINKUP)).toBe(0);
    expect(port.peer).not.toBeNull();
  });
});
