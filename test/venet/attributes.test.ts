import { VENET_LINKUP, VENET_LINKDOWN } from "vbus/abi";
import { VbusError } from "vbus/engine";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";
import { TestMachine, testFrame } from "./machine.js";
import { TestPort } from "./port.js";
import { RawGuest } from "./raw-guest.js";
import { V4Nic } from "./v4-nic.js";

const MAC = [2, 0, 0, 0, 0, 0x0a];

let scheduler: VirtualScheduler;
let machine: TestMachine;
let ports: TestPort[];
let guest: RawGuest;

const read = (attribute: string): string => machine.bus.read(`devices/nic0/${attribute}`);
const write = (attribute: string, value: string): void =>
  machine.bus.write(`devices/nic0/${attribute}`, value);
const refused = (attribute: string, value: string): string => {
  try {
    write(attribute, value);
  } catch (error) {
    expect(error).toBeInstanceOf(VbusError);
    return (error as VbusError).code;
  }
  return "written";
};

beforeEach(() => {
  scheduler = new VirtualScheduler();
  ports = [];
  machine = new TestMachine((name) => {
    const port = new TestPort(`${name}-port${ports.length}`);
    ports.push(port);
    return port;
  }, scheduler);
  machine.addNic("nic0");
  guest = new RawGuest(machine);
});

describe("the attributes of a NIC", () => {
  it("client_mac starts as a locally administered station address of its own", () => {
    machine.addNic("nic1");
    expect(read("client_mac")).toMatch(/^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/);
    expect(machine.bus.read("devices/nic1/client_mac")).not.toBe(read("client_mac"));
  });

  it("client_mac is written with 17 characters, or 18 with a newline, in either case", () => {
    write("client_mac", "02:00:00:00:00:0a");
    expect(read("client_mac")).toBe("02:00:00:00:00:0a");
    write("client_mac", "02:AB:00:00:00:FF\n");
    expect(read("client_mac")).toBe("02:ab:00:00:00:ff");
  });

  it.each([
    ["nothing", ""],
    ["text", "hello"],
    ["too short", "02:00:00:00:00:0"],
    ["too long", "02:00:00:00:00:0a:01"],
    ["two newlines", "02:00:00:00:00:0a\n\n"],
    ["another separator", "02-00-00-00-00-0a"],
    ["no hexadecimal", "02:00:00:00:00:0g"],
    ["a multicast address", "01:00:5e:00:00:01"],
    ["broadcast", "ff:ff:ff:ff:ff:ff"],
    ["zero", "00:00:00:00:00:00"],
  ])("client_mac refuses %s and keeps the old one", (_what, value) => {
    write("client_mac", "02:00:00:00:00:0a");
    expect(refused("client_mac", value)).toBe("EINVAL");
    expect(read("client_mac")).toBe("02:00:00:00:00:0a");
  });

  it("client_mac cannot change while a guest has the NIC open", () => {
    guest.open();
    expect(refused("client_mac", "02:00:00:00:00:0b")).toBe("EINVAL");
    guest.client.close(guest.handle);
    write("client_mac", "02:00:00:00:00:0b");
    expect(read("client_mac")).toBe("02:00:00:00:00:0b");
  });

  it.each([
    [
      "mtu",
      "1500",
      ["68", "1500", "9000", "65000"],
      ["67", "65001", "-1", "1e3", "x", "", " 1500", "99999999999"],
    ],
    ["txmitigation", "10", ["0", "1", "4294967295"], ["-1", "4294967296", "1.5"]],
    ["lazy_indexes", "0", ["1", "0"], ["2", "yes"]],
    ["compact_descriptors", "0", ["1", "0"], ["2", "yes"]],
    ["offloads", "1", ["0", "1"], ["2", "on"]],
    ["txc", "0", ["1", "0"], ["2", "off"]],
    ["coalesce", "1", ["0", "1"], ["2", ""]],
  ])("%s starts as %s and takes only whole numbers in its range", (name, initial, good, bad) => {
    expect(read(name)).toBe(initial);
    for (const value of good) {
      write(name, `${value}\n`);
      expect(read(name)).toBe(value);
    }
    const kept = read(name);
    for (const value of bad) expect(refused(name, value)).toBe("EINVAL");
    expect(read(name)).toBe(kept);
  });

  it.each(["ifname", "queues", "statistics"])("%s is read-only: EIO", (name) => {
    expect(refused(name, "x")).toBe("EIO");
  });

  it("ifname names the port, or says that there is none", () => {
    expect(read("ifname")).toBe("nic0-port0");
    write("enabled", "0");
    expect(read("ifname")).toBe("<disabled>");
    expect(ports[0]?.closed).toBe(true);
    write("enabled", "1");
    expect(read("ifname")).toBe("nic0-port1");
  });

  it("enabled 1 twice makes one port, enabled 0 twice closes it once", () => {
    write("enabled", "1");
    expect(ports).toHaveLength(1);
    write("enabled", "0");
    write("enabled", "0");
    expect(read("enabled")).toBe("0");
    expect(refused("enabled", "2")).toBe("EINVAL");
  });

  it("enabled stays 0 when the port refuses a NIC whose link is up", () => {
    guest.open();
    guest.rings();
    write("enabled", "0");
    guest.call(VENET_LINKUP);
    const refusing = new TestPort("refusing");
    refusing.refusal = new VbusError("EBUSY", "taken");
    const other = new TestMachine(() => refusing, scheduler);
    other.addNic("nic0");
    const tenant = new RawGuest(other);
    tenant.open();
    tenant.rings();
    other.bus.write("devices/nic0/enabled", "0");
    expect(tenant.call(VENET_LINKUP)).toBe(0);
    expect(() => {
      other.bus.write("devices/nic0/enabled", "1");
    }).toThrow(/EBUSY/);
    expect(other.bus.read("devices/nic0/enabled")).toBe("0");
    expect(refusing.closed).toBe(true);
  });

  it("a NIC that is disabled under a link drops what is sent as no-link, and serves again once enabled", () => {
    guest.open();
    const nic = new V4Nic(guest);
    guest.call(VENET_LINKUP);
    scheduler.run();
    expect(ports[0]?.peer).not.toBeNull();
    write("enabled", "0");
    const frame = testFrame([2, 0, 0, 0, 0, 1], MAC, 60);
    nic.send(frame);
    scheduler.run();
    expect(machine.assertBalanced()["nic0"]?.tx).toMatchObject({
      frames: 1,
      passed: 0,
      drops: { "no-link": 1 },
    });
    write("enabled", "1");
    nic.send(frame);
    scheduler.run();
    expect(ports[1]?.sent).toEqual([frame]);
    machine.assertBalanced();
  });

  it("a sender that waits for a full port is released when the NIC is disabled", () => {
    guest.open();
    const nic = new V4Nic(guest);
    guest.call(VENET_LINKUP);
    scheduler.run();
    (ports[0] as TestPort).room = 0;
    nic.send(testFrame([2, 0, 0, 0, 0, 1], MAC, 60));
    scheduler.run();
    expect(nic.reap()).toBe(0);
    write("enabled", "0");
    scheduler.run(); // no time passes: nobody waits for the recheck
    expect(nic.reap()).toBe(1);
    machine.assertBalanced();
  });

  it.each(["", "x", "1", "UP", "up down"])("link takes up and down, not %j", (value) => {
    expect(refused("link", value)).toBe("EINVAL");
    expect(refused("link", "down\n")).toBe("written");
  });

  it("link up that the port refuses stays down", () => {
    guest.open();
    guest.rings();
    write("link", "down");
    expect(guest.call(VENET_LINKUP)).toBe(0);
    const port = ports[0] as TestPort;
    port.refusal = new VbusError("EBUSY", "taken");
    expect(refused("link", "up")).toBe("EBUSY");
    expect(read("link")).toBe("down");
    port.refusal = null;
    write("link", "up");
    expect(read("link")).toBe("up");
    expect(port.peer).not.toBeNull();
  });

  it("link follows LINKUP and LINKDOWN", () => {
    expect(read("link")).toBe("down");
    guest.open();
    guest.rings();
    guest.call(VENET_LINKUP);
    expect(read("link")).toBe("up");
    guest.call(VENET_LINKDOWN);
    expect(read("link")).toBe("down");
  });

  it("queues shows the host's counters of the rings that are there", () => {
    expect(JSON.parse(read("queues"))).toBeNull();
    guest.open();
    expect(JSON.parse(read("queues"))).toEqual({ rx: null, tx: null, events: null });
    guest.rings();
    expect(JSON.parse(read("queues"))).toMatchObject({
      rx: { pushed: 0 },
      tx: { popped: 0, violations: {} },
    });
    guest.client.close(guest.handle);
    expect(JSON.parse(read("queues"))).toBeNull();
  });

  it("statistics survive the session", () => {
    guest.open();
    const nic = new V4Nic(guest);
    guest.call(VENET_LINKUP);
    nic.send(testFrame([2, 0, 0, 0, 0, 1], MAC, 60));
    scheduler.run();
    guest.client.close(guest.handle);
    expect(machine.statistics("nic0").tx).toEqual({
      frames: 1,
      replicated: 0,
      passed: 1,
      merged: 0,
      bytes: 60,
      drops: {},
      held: 0,
    });
  });

  it("a device that is removed under a session serves it to its end, then closes its port", () => {
    guest.open();
    const nic = new V4Nic(guest);
    guest.call(VENET_LINKUP);
    machine.vbus.removeDevice("nic0");
    expect(guest.events()).toContainEqual({ kind: "devdrop", id: 0 });
    const frame = testFrame([2, 0, 0, 0, 0, 1], MAC, 60);
    nic.send(frame);
    scheduler.run();
    expect(ports[0]?.sent).toEqual([frame]);
    expect(guest.call(VENET_LINKDOWN)).toBe(0);
    expect(ports[0]?.closed).toBe(false);
    guest.client.close(guest.handle);
    expect(ports[0]?.closed).toBe(true);
  });
});
