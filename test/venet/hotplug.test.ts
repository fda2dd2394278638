import { EBUSY, VENET_LINKDOWN, VENET_LINKUP } from "vbus/abi";
import { VbusError } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { Switch, totalDrops } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";
import { superframes } from "../offload/captures.js";
import { expectFrames, TestMachine, testFrame } from "./machine.js";
import { EVERYTHING, ModernNic } from "./modern-nic.js";
import { RawGuest } from "./raw-guest.js";

const captured = superframes();
const mac = (n: number): number[] => [2, 0, 0, 0, 0, n];

let scheduler: VirtualScheduler;
let network: Switch;
let machine: TestMachine;

beforeEach(async () => {
  scheduler = new VirtualScheduler();
  network = new Switch({ scheduler, space: await MemorySpace.host(8 << 20) });
  // a removed device keeps its port as long as a guest keeps its session: ports have names of their own
  let ports = 0;
  machine = new TestMachine((name) => network.addPort(`${name}-${ports++}`), scheduler);
});

function add(n: number): void {
  machine.addNic(`nic${n}`, { client_mac: `02:00:00:00:00:0${n}`, txc: "1" });
}

function guest(name: string): RawGuest {
  return new RawGuest(machine, name, { size: 8 << 20 });
}

function plug(of: RawGuest, id: number, count = 16): ModernNic {
  expect(of.open(id)).toBeGreaterThan(0);
  const nic = new ModernNic(of, {
    count,
    sg: EVERYTHING,
    events: EVERYTHING,
    l4ro: EVERYTHING,
    uso: EVERYTHING,
  });
  expect(of.call(VENET_LINKUP)).toBe(0);
  return nic;
}

function settle(...nics: ModernNic[]): void {
  for (let quiet = 0; quiet < 2;) {
    const ran = scheduler.run();
    quiet = ran + nics.reduce((sum, nic) => sum + nic.interrupts(), 0) === 0 ? quiet + 1 : 0;
  }
}

/** The books of the network and of every NIC that there is. */
function expectBalance(): void {
  machine.assertBalanced();
  expect(network.balance().balanced).toBe(true);
  expect(machine.errors).toEqual([]);
}

describe("NICs that come and go while guests run", () => {
  it("are announced, used, removed and replaced, while others go on as if nothing had happened", () => {
    add(0);
    add(1);
    const [a, b] = [guest("a"), guest("b")];
    const [na, nb] = [plug(a, 0), plug(b, 1)];
    na.send({ bytes: testFrame(mac(1), mac(0), 60) });
    nb.send({ bytes: testFrame(mac(0), mac(1), 60) });
    settle(na, nb);
    let sent = 0;
    const traffic = (): void => {
      for (let n = 0; n < 5; n++) {
        const frame = testFrame(mac(1), mac(0), 100 + n, sent++);
        expect(na.send({ bytes: frame })).toBeDefined();
        settle(na, nb);
        expect(nb.arrived.at(-1)?.bytes).toEqual(frame);
      }
    };
    for (let round = 2; round < 6; round++) {
      add(round);
      expect(a.events()).toContainEqual({ kind: "devadd", id: round, type: "virtual-ethernet" });
      traffic();
      const c = guest(`c${round}`);
      const nc = plug(c, round);
      nc.send({ bytes: testFrame(mac(1), mac(round), 60, round) });
      settle(na, nb, nc);
      expect(nb.arrived.at(-1)?.bytes).toEqual(testFrame(mac(1), mac(round), 60, round));
      machine.vbus.removeDevice(`nic${round}`);
      expect(a.events()).toContainEqual({ kind: "devdrop", id: round });
      traffic();
      // the session lives on until its guest closes it
      nc.send({ bytes: testFrame(mac(1), mac(round), 61, round) });
      settle(na, nb, nc);
      expect(nb.arrived.at(-1)?.bytes.length).toBe(61);
      expect(c.client.close(c.handle)).toBe(0);
      traffic();
      expectBalance();
    }
  });

  it("a guest that ignores DEVDROP, as the driver of 2009 did, blocks neither the name nor the class nor anybody else", () => {
    add(0);
    const ignorant = guest("ignorant");
    const nic = plug(ignorant, 0);
    machine.vbus.removeDevice("nic0");
    expect(machine.vbus.device("nic0")).toBeUndefined();
    add(0);
    const next = guest("next");
    const fresh = plug(next, 1);
    for (let n = 0; n < 50; n++) {
      nic.send({ bytes: testFrame(mac(9), mac(0), 60, n) });
      fresh.send({ bytes: testFrame(mac(9), mac(0), 61, n) });
      settle(nic, fresh);
    }
    expect(nic.freed).toHaveLength(50);
    expect(fresh.freed).toHaveLength(50);
    expect(() => {
      machine.vbus.unregisterClass("venet");
    }).toThrow(VbusError);
    ignorant.client.disconnect();
    next.client.disconnect();
    machine.vbus.removeDevice("nic0");
    machine.vbus.unregisterClass("venet");
    expectBalance();
  });

  it("two of them on one bus, open in one guest, are two: rings, counters, carrier and end", () => {
    add(0);
    add(1);
    const host = guest("host");
    const nics = [plug(host, 0)];
    const first = host.handle;
    nics.push(plug(host, 1));
    const second = host.handle;
    expect(host.open(0)).toBe(-EBUSY);
    const [a, b] = nics as [ModernNic, ModernNic];
    host.events();
    a.send({ bytes: testFrame(mac(1), mac(0), 60, 1) });
    b.send({ bytes: testFrame(mac(0), mac(1), 61, 2) });
    scheduler.run();
    for (const nic of nics) {
      nic.poll();
      nic.takeEvents();
    }
    expect(a.arrived.map((frame) => frame.bytes.length)).toEqual([61]);
    expect(b.arrived.map((frame) => frame.bytes.length)).toEqual([60]);
    machine.bus.write("devices/nic0/link", "down");
    a.takeEvents();
    b.takeEvents();
    expect(a.events.filter((event) => event.id === 0).map((event) => event.state)).toEqual([1, 0]);
    expect(b.events.filter((event) => event.id === 0).map((event) => event.state)).toEqual([1]);
    expect(host.client.close(first)).toBe(0);
    b.send({ bytes: testFrame(mac(9), mac(1), 62, 3) });
    scheduler.run();
    expect(b.takeEvents()).toBe(1);
    expect(host.client.close(second)).toBe(0);
    expectBalance();
  });

  it("a device that moves to another bus with frames in flight loses none uncounted, and serves there", () => {
    add(0);
    add(1);
    const [a, b] = [guest("a"), guest("b")];
    const [na, nb] = [plug(a, 0), plug(b, 1, 2)];
    nb.send({ bytes: testFrame(mac(0), mac(1), 60) });
    settle(na, nb);
    // b takes nothing: frames wait in the switch and in a's ring
    for (let n = 0; n < 8; n++)
      na.send(
        n % 2 === 0
          ? (captured[60] ?? { bytes: new Uint8Array() })
          : { bytes: testFrame(mac(1), mac(0), 60, n) },
      );
    scheduler.run();
    expect(network.balance().inFlight + machine.statistics("nic0").tx.held).toBeGreaterThan(0);
    const other = machine.vbus.createBus("bus1");
    const device = machine.vbus.device("nic1");
    if (device === undefined) throw new Error("no nic1");
    expect(() => {
      other.connect(device);
    }).toThrow(/EBUSY/);
    machine.bus.disconnect(device);
    other.connect(device);
    expectBalance();
    // its session lasts until the guest on the old bus lets go of it
    other.admit("b2");
    const elsewhere = other.openClient({ member: "b2", memory: b.host });
    expect(elsewhere.open(0, 1)).toBe(-EBUSY);
    nb.poll();
    settle(na, nb);
    expect(b.client.close(b.handle)).toBe(0);
    expectBalance();
    const handle = elsewhere.open(0, 1);
    expect(handle).toBeGreaterThan(0);
    expect(elsewhere.close(handle)).toBe(0);
    scheduler.advance(1000);
    settle(na);
    expectBalance();
    expect(network.balance().inFlight).toBe(0);
    expect(machine.statistics("nic0").tx.held).toBe(0);
    const { received, replicated, delivered, drops } = network.balance();
    expect(received + replicated).toBe(delivered + totalDrops(drops));
  });

  it("the carrier goes and comes under traffic: what is sent meanwhile is counted, the guest hears of it, order is kept", () => {
    add(0);
    add(1);
    const [a, b] = [guest("a"), guest("b")];
    const [na, nb] = [plug(a, 0), plug(b, 1)];
    const frames: Uint8Array[] = [];
    for (let n = 0; n < 60; n++) {
      if (n % 10 === 4) machine.bus.write("devices/nic0/link", "down");
      if (n % 10 === 8) machine.bus.write("devices/nic0/link", "up");
      const down = n % 10 >= 4 && n % 10 < 8;
      expect(machine.bus.read("devices/nic0/link")).toBe(down ? "down" : "up");
      const frame = testFrame(mac(1), mac(0), 60 + n, n);
      if (!down) frames.push(frame);
      na.send({ bytes: frame });
      settle(na, nb);
      expectBalance();
    }
    expectFrames(
      nb.arrived.map((frame) => frame.bytes),
      frames,
    );
    expect(machine.statistics("nic0").tx.drops).toEqual({ "no-link": 24 });
    const states = na.events.filter((event) => event.id === 0).map((event) => event.state);
    expect(states).toEqual([1, ...Array.from({ length: 6 }, () => [0, 1]).flat()]);
    expect(na.freed).toHaveLength(60);
  });

  it("a receiver whose carrier is taken away holds nobody up", () => {
    add(0);
    add(1);
    const [a, b] = [guest("a"), guest("b")];
    const [na, nb] = [plug(a, 0), plug(b, 1, 2)];
    nb.send({ bytes: testFrame(mac(0), mac(1), 60) });
    settle(na);
    for (let n = 0; n < 16; n++) na.send(captured[60] ?? { bytes: new Uint8Array() });
    scheduler.run();
    machine.bus.write("devices/nic1/link", "down");
    settle(na);
    expect(na.freed).toHaveLength(16);
    expect(network.balance().inFlight).toBe(0);
    expectBalance();
  });

  it("the address of a NIC changes only while it is closed, and the next session sees it", () => {
    add(0);
    const only = guest("only");
    plug(only, 0);
    expect(() => {
      machine.bus.write("devices/nic0/client_mac", "02:00:00:00:00:77");
    }).toThrow(/EINVAL/);
    only.call(VENET_LINKDOWN);
    expect(() => {
      machine.bus.write("devices/nic0/client_mac", "02:00:00:00:00:77");
    }).toThrow(/EINVAL/);
    only.client.close(only.handle);
    machine.bus.write("devices/nic0/client_mac", "02:00:00:00:00:77");
    only.open(0);
    const address = new Uint8Array(6);
    expect(only.callWith(2, address)).toBe(0);
    expect([...address]).toEqual(mac(0x77));
    expectBalance();
  });

  it("a guest that ends in the middle of everything leaves books that balance and a NIC for the next", () => {
    add(0);
    add(1);
    const [a, b] = [guest("a"), guest("b")];
    const [na, nb] = [plug(a, 0), plug(b, 1)];
    nb.send({ bytes: testFrame(mac(0), mac(1), 60) });
    settle(na, nb);
    for (let round = 0; round < 6; round++) {
      const dying = guest(`dying${round}`);
      add(2 + round);
      const nic = plug(dying, 2 + round, 4);
      for (let n = 0; n < 4; n++) {
        nic.send(captured[50 + n] ?? { bytes: new Uint8Array() });
        na.send({ bytes: testFrame(mac(2 + round), mac(0), 60, n) });
        if (n === round % 4) scheduler.run();
      }
      dying.client.disconnect();
      settle(na, nb);
      expectBalance();
      const heir = guest(`heir${round}`);
      const next = plug(heir, 2 + round, 4);
      next.send({ bytes: testFrame(mac(1), mac(2 + round), 60, round) });
      settle(na, nb, next);
      expect(nb.arrived.at(-1)?.bytes).toEqual(testFrame(mac(1), mac(2 + round), 60, round));
    }
  });
});
