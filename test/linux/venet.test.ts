/** A stock Linux kernel with v86's virtio-net as eth0 and venet as eth1, side by side. */
import { EXT_ACCEPTED, EXT_LAZY_INDEXES, IOQ_MAGIC, IOQ_OFF_EXTENSION, IOQ_VERSION } from "vbus/abi";
import { describe, expect, it } from "vitest";
import type { Lab } from "../../examples/linux/lab.js";
import {
  both,
  datagramsOfAllSizes,
  during,
  MEGABYTE,
  nextPort,
  SEED,
  sixTraffic,
  taggedTraffic,
  traffic,
} from "./traffic.js";
import { expectNoErrors, expectNoLeak, linuxLab, receiveDatagrams, tell, until } from "./fixture.js";

/** Extension word of a ring: lazily written indexes, accepted by south. */
const GRANTED = (EXT_ACCEPTED | EXT_LAZY_INDEXES) >>> 0;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const statistics = (lab: Lab, nic = "nic0") =>
  JSON.parse(lab.host!.vbus!.read(`devices/${nic}/statistics`)) as {
    segmented: number;
    superframes_passed: number;
    events: number;
    tx: { drops: Record<string, number>; frames: number };
    rx: { drops: Record<string, number>; frames: number };
  };

describe("venet beside virtio-net in a Linux guest", () => {
  const lab = linuxLab({ tcp: { ecn: true, markEvery: 400_000 } });

  it("is enumerated: PCI function, proxy device, driver by type, MSI", async () => {
    const { machine } = lab();
    const pci = "/sys/bus/pci/devices/0000:00:10.0";
    expect(await machine.check(`cat ${pci}/vendor ${pci}/device ${pci}/revision ${pci}/class`)).toBe(
      "0x11da\n0x2000\n0x02\n0x068000\n",
    );
    expect(await machine.check("ls /sys/bus/vbus-proxy/devices")).toBe("0\n");
    const device = "/sys/bus/vbus-proxy/devices/0";
    expect(await machine.check(`cat ${device}/modalias`)).toBe("vbus-proxy:virtual-ethernet\n");
    expect(await machine.check(`grep MODALIAS ${device}/uevent`)).toBe(
      "MODALIAS=vbus-proxy:virtual-ethernet\n",
    );
    expect(await machine.check(`readlink ${device}/driver`)).toMatch(/\/virtual-ethernet\n$/);
    expect(await machine.check("readlink -f /sys/class/net/eth1/device")).toMatch(/0000:00:10\.0\/.*0\n$/);
    expect(await machine.check("cat /proc/interrupts")).toMatch(/PCI-MSI.*vbus/);
    expect(await machine.check("cat /sys/class/net/eth1/address")).toBe("02:00:00:00:01:02\n");
  });

  it("carries verified streams on both cards at the same time, in both directions", async () => {
    const jobs = lab().cards.map((card) => ({ card, ...both(card, 3 * MEGABYTE + 1, 3 * MEGABYTE + 3) }));
    const commands = jobs.map(({ card, command }) => `${command} >/tmp/${card.name} & ${card.name}=$!`);
    await lab().machine.check(`${commands.join("; ")}; wait $eth0 && wait $eth1`, { timeoutMs: 120_000 });
    for (const { card, judge } of jobs) await judge(await lab().machine.check(`cat /tmp/${card.name}`));
  });

  it("passes superframes untouched in both directions, those of flows with ECN too", async () => {
    await lab().machine.check("echo 1 >/proc/sys/net/ipv4/tcp_ecn");
    const before = statistics(lab());
    const { peer } = lab().card("eth1");
    const ecn = peer.counters.tcp.ecn;
    await traffic(lab(), "eth1", 6 * MEGABYTE);
    const after = statistics(lab());
    expect(after.superframes_passed - before.superframes_passed).toBeGreaterThan(50);
    expect(after.segmented).toBe(before.segmented);
    expect(peer.counters.tcp.ecn).toBe(ecn + 1);
    expect(peer.counters.received.ecnSuperframes).toBeGreaterThan(0);
  });

  it("speaks IPv6", async () => {
    await sixTraffic(lab(), "eth1");
  });

  it("speaks 802.1Q, streams and datagrams", async () => {
    await taggedTraffic(lab(), "eth1", "10.0.1.3/24");
  });

  it("carries datagrams of all sizes, odd ones too, both ways", async () => {
    await datagramsOfAllSizes(lab(), "eth1");
  });

  it("notices the carrier", async () => {
    const { machine, host } = lab();
    const carrier = async (): Promise<string> =>
      (await machine.run("cat /sys/class/net/eth1/carrier")).output.trim();
    host!.bus.write("devices/nic0/link", "down");
    await until("the carrier to go", async () => (await carrier()) === "0");
    host!.bus.write("devices/nic0/link", "up");
    await until("the carrier to come back", async () => (await carrier()) === "1");
    await traffic(lab(), "eth1");
  });

  it("is judged by the guest's kernel: not one wrong checksum or length, on either side", async () => {
    await expectNoErrors(lab());
    expect(statistics(lab()).tx.drops).toEqual({});
  });

  it("changes its MTU while streams run", async () => {
    const { machine } = lab();
    await during(lab(), "eth1", async () => {
      for (const mtu of [1400, 576, 1500, 1280, 1500]) {
        await machine.check(`ip link set eth1 mtu ${mtu}`);
        expect(await machine.check("cat /sys/class/net/eth1/mtu")).toBe(`${mtu}\n`);
        await pause(50);
      }
    });
    expect((await machine.run("ip link set eth1 mtu 65001")).status).not.toBe(0);
  });

  it("is unbound from its driver and bound again", async () => {
    const { machine } = lab();
    const driver = "/sys/bus/vbus-proxy/drivers/virtual-ethernet";
    await machine.check(`echo 0 >${driver}/unbind`);
    expect((await machine.run("[ -e /sys/class/net/eth1 ]")).status).toBe(1);
    await machine.check(`echo 0 >${driver}/bind`);
    await up(lab());
    await traffic(lab(), "eth1");
  });

  it("is taken away while its stream runs, which hurts nobody else, and another one takes its place", async () => {
    const { machine, host } = lab();
    const bus = host!.bus;
    const { command } = both(lab().card("eth1"), 500 * MEGABYTE, 3);
    await machine.check(`${command} >/dev/null 2>&1 & victim=$!`);
    await during(lab(), "eth0", async () => {
      await pause(200);
      bus.disconnect("nic0");
      await until("eth1 to go", async () => (await machine.run("[ -e /sys/class/net/eth1 ]")).status === 1);
      await machine.check("kill $victim");
      expect(await machine.check("ls /sys/bus/vbus-proxy/devices")).toBe("");
      bus.connect(
        host!.vbus!.createDevice("nic1", "venet", { client_mac: "02:00:00:00:01:02", enabled: "1" }),
      );
      await until("the new card", async () => (await machine.run("[ -e /sys/class/net/eth1 ]")).status === 0);
    });
    await up(lab());
    await traffic(lab(), "eth1");
    const { tx, rx } = statistics(lab(), "nic0");
    tell(`drops of the card that went: ${JSON.stringify([tx.drops, rx.drops])}`);
  });

  it("has its modules reloaded ten times under traffic, without a leak or an oops", async () => {
    const { machine, host } = lab();
    const card = lab().card("eth1");
    const reload = async (): Promise<void> => {
      const noise = `netprobe udp-send -h ${card.peerAddress} -p 9 -d 60000 -z 1400 >/dev/null 2>&1 & noise=$!`;
      await machine.check(`${noise}; usleep 100000`);
      const flood = card.peer.udp.send(card.guestAddress, 9, { count: 200, size: () => 1400, seed: 1 });
      await machine.check(
        "rmmod venet vbus; kill $noise; wait $noise; insmod /lib/vbus/vbus.ko && insmod /lib/vbus/venet.ko",
      );
      await flood;
      await until("eth1", async () => (await machine.run("[ -e /sys/class/net/eth1 ]")).status === 0);
      await up(lab());
    };
    const { resets } = host!.counters();
    await expectNoLeak(machine, reload);
    expect(host!.counters().resets - resets).toBeGreaterThanOrEqual(10);
    await traffic(lab(), "eth1");
    const log = "dmesg | grep -v 'oops=panic' | grep -iE 'oops|bug:|warning:|call trace|leak'";
    expect((await machine.run(log)).output).toBe("");
  });
});

describe.each([
  ["the i386 layout of 2009 for its calls", "ilp32=1", /LOC|PCI-MSI.*vbus/],
  ["INTx instead of MSI", "nomsi=1", /IO-APIC.*vbus/],
  ["both", "ilp32=1 nomsi=1", /IO-APIC.*vbus/],
])("a driver that uses %s", (_what, bridgeParameters, interrupt) => {
  const lab = linuxLab({ cards: ["eth1"], bridgeParameters });

  it("carries streams, hears of devices that come and go, and is left alone by the host's errors", async () => {
    const { machine, host } = lab();
    expect(await machine.check("cat /proc/interrupts")).toMatch(interrupt);
    await traffic(lab(), "eth1", 4 * MEGABYTE);
    const bus = host!.bus;
    bus.connect(host!.vbus!.createDevice("nic9", "venet", { client_mac: "02:00:00:00:01:09", enabled: "1" }));
    await until(
      "another card",
      async () => (await machine.run("[ -e /sys/bus/vbus-proxy/devices/1 ]")).status === 0,
    );
    bus.disconnect("nic9");
    await until(
      "it to go",
      async () => (await machine.run("[ -e /sys/bus/vbus-proxy/devices/1 ]")).status === 1,
    );
    await traffic(lab(), "eth1", MEGABYTE);
    await expectNoErrors(lab());
    const { lines, messages } = host!.counters();
    if (bridgeParameters.includes("nomsi")) expect([lines > 0, messages]).toEqual([true, 0]);
    else expect([lines, messages > 0]).toEqual([0, true]);
  });
});

describe("venet with everything that is negotiated only when both sides want it", () => {
  const lab = linuxLab({
    cards: ["eth1"],
    attributes: { lazy_indexes: "1", txc: "1" },
    cardParameters: "lazy_indexes=1 txc=1",
  });

  it("carries streams: lazily written indexes, completions as events", async () => {
    const before = statistics(lab());
    await traffic(lab(), "eth1", 6 * MEGABYTE);
    const after = statistics(lab());
    expect(after.events - before.events).toBeGreaterThanOrEqual(after.tx.frames - before.tx.frames);
    expect(after.tx.frames).toBeGreaterThan(before.tx.frames);
    expect(negotiatedRings(lab())).toBeGreaterThanOrEqual(2);
    await expectNoErrors(lab());
  });
});

/** Rings in the guest's memory whose extension word says that lazily written indexes were granted. */
function negotiatedRings(lab: Lab): number {
  const { memory } = lab.host!;
  const { words } = memory.engine;
  let rings = 0;
  for (const { address, length } of memory.regions) {
    const end = (address + length) >>> 2;
    for (let at = address >>> 2; (at = words.indexOf(IOQ_MAGIC, at)) !== -1 && at < end; at++) {
      if (words[at + 1] === IOQ_VERSION && words[at + IOQ_OFF_EXTENSION / 4] === GRANTED) rings++;
    }
  }
  return rings;
}

describe("venet whose host offers nothing", () => {
  const lab = linuxLab({ cards: ["eth1"], attributes: { offloads: "0" } });

  it("carries streams and datagrams in linear mode, finished by the guest", async () => {
    const before = statistics(lab());
    await traffic(lab(), "eth1", 4 * MEGABYTE);
    expect(statistics(lab()).superframes_passed).toBe(before.superframes_passed);
    await expectNoErrors(lab());
  });
});

describe("UDP superframes into a Linux guest", () => {
  const lab = linuxLab({ cards: ["eth1"] });

  it("arrive untouched, and every datagram in them is right", async () => {
    const card = lab().card("eth1");
    const port = nextPort();
    const before = statistics(lab());
    const received = await receiveDatagrams(lab(), `-p ${port} -n 320 -r ${SEED}`, () =>
      card.peer.udp.send(card.guestAddress, port, { count: 320, size: 1000, segments: 16, seed: SEED }),
    );
    expect(received).toMatchObject({ datagrams: 320, errors: 0, end: 320 });
    const after = statistics(lab());
    expect(after.superframes_passed - before.superframes_passed).toBe(20);
    expect(after.segmented).toBe(before.segmented);
    await expectNoErrors(lab());
  });
});

describe("venet with large frames", () => {
  const lab = linuxLab({ cards: ["eth1"], mtu: 65000 });

  it("carries streams at MTU 65000, and at 9000 after a change", async () => {
    await traffic(lab(), "eth1", 6 * MEGABYTE);
    await lab().machine.check("ip link set eth1 mtu 9000");
    await traffic(lab(), "eth1", 6 * MEGABYTE);
    await expectNoErrors(lab());
  });
});

/** Brings eth1 up again, as the lab did. */
async function up(lab: Lab): Promise<void> {
  const { guestAddress, peerAddress } = lab.card("eth1");
  await lab.machine.check(`ip link set eth1 up && ip addr add ${guestAddress}/24 dev eth1`);
  await lab.machine.check(`ping -c 1 -W 10 ${peerAddress}`, { timeoutMs: 30_000 });
}
