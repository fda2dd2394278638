/** A stock Linux kernel that finds the bus without PCI: a register page at a fixed address, an interrupt of old, venet. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { venetClass } from "vbus/devices/venet";
import { attachVbusMmio, type V86VbusMmioHost } from "vbus/emulators/v86";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { NetPeer } from "../support/net-peer.js";
import { expectNoLeak, probed, tell, until } from "./fixture.js";
import { both, MEGABYTE, type StreamPlace } from "./traffic.js";

const ADDRESS = 0xfea80000;
const IRQ = 5;
const PARAMETER = `mmio_device=4K@0x${ADDRESS.toString(16)}:${IRQ}`;
const GUEST = "10.0.1.2";
const PEER = "10.0.1.1";
const MAC = "02:00:00:00:01:02";

let guest: Machine;
let host: V86VbusMmioHost;
let net: Switch;
let peer: NetPeer;
let place: StreamPlace;
const errors: unknown[] = [];

beforeAll(async () => {
  const scheduler = new EventLoopScheduler((error) => errors.push(error));
  const space = await MemorySpace.host();
  net = new Switch({ scheduler, space });
  guest = await Machine.start({
    pieces: readPieces(),
    progress: tell,
    prepare: async (emulator) => {
      host = await attachVbusMmio(emulator, {
        scheduler,
        memoryAddress: ADDRESS,
        irq: IRQ,
        devices: [
          {
            name: "nic0",
            class: venetClass({ port: (name) => net.addPort(name) }),
            attributes: { client_mac: MAC, enabled: "1" },
          },
        ],
        onError: (error) => errors.push(error),
      });
      peer = new NetPeer({
        port: net.addPort("peer"),
        scheduler,
        space,
        mac: "02:00:00:00:01:01",
        ip4: PEER,
        ip6: "fd00:0:0:1::1",
        mtu: 1500,
      });
    },
  });
  place = { peer, peerAddress: PEER, peerAddress6: "fd00:0:0:1::1" };
});

afterAll(async () => {
  peer.close();
  host.close();
  net.close();
  await guest.close();
  expect(errors).toEqual([]);
});

const exists = async (path: string): Promise<boolean> => (await guest.run(`[ -e ${path} ]`)).status === 0;

async function load(parameters = PARAMETER): Promise<void> {
  await guest.check(`insmod /lib/vbus/vbus.ko ${parameters} && insmod /lib/vbus/venet.ko`);
  await until("eth1", () => exists("/sys/class/net/eth1"));
  await up();
}

async function up(): Promise<void> {
  await guest.check(`ip link set eth1 up && ip addr add ${GUEST}/24 dev eth1`);
  await guest.check(`ping -c 1 -W 10 ${PEER}`, { timeoutMs: 30_000 });
}

const unload = (): Promise<string> => guest.check("rmmod venet vbus");

async function streams(bytes: number): Promise<void> {
  const { command, judge } = both(place, bytes + 1, bytes + 3);
  await judge(await guest.check(command, { timeoutMs: 120_000 }));
}

describe("vbus.ko, told by its parameter of a page that is none", () => {
  it.each([
    "mmio_device=4K",
    "mmio_device=4K@0xfea80000",
    "mmio_device=4K@0xfea80000:5x",
    "mmio_device=2K@0xfea80000:5",
    "mmio_device=4K@0xfffffffff000:5",
    "mmio_device=8G@0xfea80000:5",
    "mmio_device=4K@-1:5",
    "mmio_device=",
  ])("does not load with %s, and says how to write it", async (parameter) => {
    await guest.check("dmesg -c >/dev/null");
    expect((await guest.run(`insmod /lib/vbus/vbus.ko ${parameter}`)).status).not.toBe(0);
    expect(await guest.check("dmesg")).toContain("give <size>@<base>:<irq>, such as 4K@0xfea80000:5");
  });

  it("loads, and touches nothing but the magic value of what lies there", async () => {
    await guest.check("dmesg -c >/dev/null; insmod /lib/vbus/vbus.ko mmio_device=4K@0xfea90000:5");
    expect(await guest.check("dmesg")).toContain("no vbus there: it begins with 0x00000000");
    expect(await guest.check("ls /sys/bus/vbus-proxy/devices")).toBe("");
    await guest.check("rmmod vbus");
  });
});

describe("venet behind a register page in a Linux guest", () => {
  it("is found at the address and with the interrupt of the parameter", async () => {
    await load();
    expect(await guest.check("dmesg")).toMatch(/vbus-mmio vbus-mmio: vbus bridge, MMIO, LP64 layout/);
    expect(await guest.check("ls /sys/bus/vbus-proxy/devices")).toBe("0\n");
    expect(await guest.check("readlink -f /sys/class/net/eth1/device")).toMatch(
      /\/platform\/vbus-mmio\/0\n$/,
    );
    expect(await guest.check("cat /proc/interrupts")).toMatch(new RegExp(`^\\s*${IRQ}:.*vbus`, "m"));
    expect(await guest.check("cat /proc/iomem")).toMatch(/fea80000-fea80fff : vbus-mmio/);
    expect(await guest.check("cat /sys/class/net/eth1/address")).toBe(`${MAC}\n`);
    expect(await guest.check("ls /sys/bus/pci/drivers/vbus")).not.toContain("0000:");
  });

  it("carries pings, and verified streams in both directions", async () => {
    const output = await guest.check(`netprobe ping -h ${PEER} -n 100 -z 1001`);
    expect(probed(output, "pinged")).toMatchObject({ sent: 100, lost: 0, errors: 0 });
    await streams(6 * MEGABYTE);
    expect(peer.counters.checksumErrors).toEqual({ ip: 0, icmp: 0, udp: 0, tcp: 0 });
    const { interrupts, lines, acknowledged, ignored, deferred, calls, fastcalls } = host.counters();
    expect(lines).toBeGreaterThan(0);
    expect(acknowledged).toBe(lines);
    expect(interrupts).toBeGreaterThanOrEqual(lines);
    expect(deferred).toBeGreaterThan(0); // what a memory access raises waits for the end of its slice
    expect(calls).toBeGreaterThan(0);
    expect(fastcalls).toBeGreaterThan(0);
    expect(ignored).toBe(0);
  });

  it("goes and comes while the bus does not", async () => {
    const { bus, vbus } = host;
    bus.disconnect("nic0");
    await until("eth1 to go", async () => !(await exists("/sys/class/net/eth1")));
    bus.connect("nic0");
    await until("eth1", () => exists("/sys/class/net/eth1"));
    expect(vbus!.tree()).toContain("nic0");
    await up();
    await streams(2 * MEGABYTE);
  });

  it("has its modules reloaded ten times under traffic, without a leak or an oops", async () => {
    const { resets } = host.counters();
    await expectNoLeak(guest, async () => {
      await guest.check(
        `netprobe udp-send -h ${PEER} -p 9 -d 60000 -z 1400 >/dev/null 2>&1 & noise=$!; usleep 100000`,
      );
      const flood = peer.udp.send(GUEST, 9, { count: 200, size: () => 1400, seed: 1 });
      await guest.check("rmmod venet vbus && gone=1; kill $noise; wait $noise; [ $gone = 1 ]", {
        timeoutMs: 60_000,
      });
      await flood;
      expect(host.registers.line.state).toBe(0); // a driver that goes resets the page
      await load();
    });
    expect(host.counters().resets - resets).toBeGreaterThanOrEqual(20);
    await streams(2 * MEGABYTE);
    const log = "dmesg | grep -v 'oops=panic' | grep -iE 'oops|bug:|warning:|call trace|leak|nobody cared'";
    expect((await guest.run(log)).output).toBe("");
  });

  it("works with the i386 layout of 2009, too", async () => {
    await unload();
    await load(`${PARAMETER} ilp32=1`);
    expect(await guest.check("dmesg")).toMatch(/vbus bridge, MMIO, ILP32 layout/);
    await streams(2 * MEGABYTE);
    await unload();
    expect(await exists("/sys/class/net/eth1")).toBe(false);
  });

  it("is given back by the driver, page and interrupt", async () => {
    expect(await guest.check("cat /proc/iomem")).not.toContain("vbus-mmio");
    expect(await guest.check("cat /proc/interrupts")).not.toContain("vbus");
    expect(await guest.check("ls /sys/bus/platform/devices")).not.toContain("vbus");
  });
});
