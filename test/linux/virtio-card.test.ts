/** Debian's unmodified virtio_net on a card of this package, beside v86's own virtio-net and venet. */
import { describe, expect, it } from "vitest";
import type { Lab } from "../../examples/linux/lab.js";
import { expectNoErrors, linuxLab, probed, receiveDatagrams, until } from "./fixture.js";
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
import { abandonFunction, adoptFunction } from "../../examples/linux/virtio-function.js";

const SLOT = 0x11;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Feature bits that the guest's driver negotiated, lowest first. */
async function features(lab: Lab): Promise<string> {
  return (await lab.machine.check("cat /sys/class/net/eth2/device/features")).trim();
}

/** Names of bits that must be set. */
const NEGOTIATED: Record<string, number> = {
  CSUM: 0,
  GUEST_CSUM: 1,
  CTRL_GUEST_OFFLOADS: 2,
  MTU: 3,
  MAC: 5,
  GUEST_TSO4: 7,
  GUEST_TSO6: 8,
  GUEST_ECN: 9,
  HOST_TSO4: 11,
  HOST_TSO6: 12,
  HOST_ECN: 13,
  MRG_RXBUF: 15,
  STATUS: 16,
  CTRL_VQ: 17,
  CTRL_RX: 18,
  CTRL_VLAN: 19,
  GUEST_ANNOUNCE: 21,
  CTRL_MAC_ADDR: 23,
  VERSION_1: 32,
};

describe("our virtio-net beside v86's and venet in a Linux guest", () => {
  const lab = linuxLab({ cards: ["eth0", "eth1", "eth2"], tcp: { ecn: true, markEvery: 400_000 } });
  const card = () => lab().virtio!.card;

  it("is driven by the kernel's own driver, which takes what is offered", async () => {
    const { machine } = lab();
    expect(await machine.check("readlink /sys/class/net/eth2/device/driver")).toMatch(/virtio_net\n$/);
    const bits = await features(lab());
    for (const [name, bit] of Object.entries(NEGOTIATED)) expect(bits[bit], name).toBe("1");
    expect(bits[34], "packed rings").toBe("1");
    expect(await machine.check("cat /sys/class/net/eth2/address")).toBe("02:00:00:00:02:02\n");
    expect(await machine.check("cat /proc/interrupts")).toMatch(/PCI-MSI.*virtio\d+-input\.0/);
  });

  it("carries verified streams on all cards at the same time, in both directions", async () => {
    const jobs = lab().cards.map((each) => ({ each, ...both(each, 3 * MEGABYTE + 1, 3 * MEGABYTE + 3) }));
    const commands = jobs.map(({ each, command }) => `${command} >/tmp/${each.name} & ${each.name}=$!`);
    await lab().machine.check(`${commands.join("; ")}; wait $eth0 && wait $eth1 && wait $eth2`, {
      timeoutMs: 120_000,
    });
    for (const { each, judge } of jobs) await judge(await lab().machine.check(`cat /tmp/${each.name}`));
  });

  it("answers pings of all sizes", async () => {
    for (const size of [0, 1, 57, 1472]) {
      const output = await lab().machine.check(
        `netprobe ping -h ${lab().card("eth2").peerAddress} -n 20 -z ${size}`,
      );
      expect(probed(output, "pinged")).toMatchObject({ sent: 20, lost: 0, errors: 0 });
    }
  });

  it("passes superframes untouched in both directions, those of flows with ECN too", async () => {
    await lab().machine.check("echo 1 >/proc/sys/net/ipv4/tcp_ecn");
    const before = { ...card().statistics };
    const { peer } = lab().card("eth2");
    const ecn = peer.counters.tcp.ecn;
    await traffic(lab(), "eth2", 6 * MEGABYTE);
    const after = card().statistics;
    expect(after.superframes_passed - before.superframes_passed).toBeGreaterThan(50);
    expect(after.segmented).toBe(before.segmented);
    expect(peer.counters.tcp.ecn).toBe(ecn + 1);
    expect(peer.counters.received.ecnSuperframes).toBeGreaterThan(0);
  });

  it("speaks IPv6", async () => {
    await sixTraffic(lab(), "eth2");
  });

  it("speaks 802.1Q through the filter that the driver sets", async () => {
    const { commands } = card().statistics;
    await taggedTraffic(lab(), "eth2", "10.0.2.3/24", () => {
      expect(card().statistics.commands).toBeGreaterThan(commands);
    });
  });

  it("carries datagrams of all sizes, odd ones too, both ways", async () => {
    await datagramsOfAllSizes(lab(), "eth2");
  });

  it("notices the carrier", async () => {
    const { machine } = lab();
    const carrier = async (): Promise<string> =>
      (await machine.run("cat /sys/class/net/eth2/carrier")).output.trim();
    card().carrier = false;
    await until("the carrier to go", async () => (await carrier()) === "0");
    card().carrier = true;
    await until("the carrier to come back", async () => (await carrier()) === "1");
    await traffic(lab(), "eth2");
  });

  it("follows the address and the receive modes that the guest sets, and filters before it spends buffers", async () => {
    const { machine } = lab();
    const eth2 = lab().card("eth2");
    await machine.check("ip link set eth2 address 02:00:00:00:02:77");
    expect(card().mac).toBe("02:00:00:00:02:77");
    const ping = async (): Promise<void> => {
      const output = await machine.check(`netprobe ping -h ${eth2.peerAddress} -n 5`);
      expect(probed(output, "pinged")).toMatchObject({ sent: 5, lost: 0, errors: 0 });
    };
    await machine.check("ip neigh flush dev eth2; ping -c 1 -W 10 10.0.2.1");
    await ping();
    await machine.check("ip link set eth2 promisc on");
    await ping();
    await machine.check("ip link set eth2 promisc off");
    await machine.check("ip link set eth2 address 02:00:00:00:02:02");
    await machine.check("ping -c 1 -W 10 10.0.2.1");
    await ping();
    expect(card().statistics.refused).toBe(0);
  });

  it("changes its MTU while streams run", async () => {
    const { machine } = lab();
    await during(lab(), "eth2", async () => {
      for (const mtu of [1400, 576, 1500, 1280, 1500]) {
        await machine.check(`ip link set eth2 mtu ${mtu}`);
        expect(await machine.check("cat /sys/class/net/eth2/mtu")).toBe(`${mtu}\n`);
        await pause(50);
      }
    });
    expect((await machine.run("ip link set eth2 mtu 1501")).status, "the card's is 1500").not.toBe(0);
  });

  it("is judged by the guest's kernel: not one wrong checksum or length, on either side", async () => {
    await expectNoErrors(lab());
    expect(card().statistics.tx.drops).toEqual({});
  });

  it("is unbound from its driver and bound again", async () => {
    const { machine } = lab();
    for (let n = 0; n < 3; n++) {
      await abandonFunction(machine, SLOT);
      expect(card().open).toBe(false);
      const device = await adoptFunction(machine, SLOT);
      const found = (await machine.check(`ls /sys/bus/virtio/devices/${device}/net`)).trim();
      if (found !== "eth2") await machine.check(`ip link set ${found} name eth2`);
      await machine.check("ip addr add 10.0.2.2/24 dev eth2; ip link set eth2 up; ping -c 1 -W 10 10.0.2.1");
    }
    await traffic(lab(), "eth2");
  });

  it("every frame that entered either left or was counted", () => {
    const { tx, rx } = card().statistics;
    for (const { frames, replicated, passed, merged, drops, held } of [tx, rx]) {
      const dropped = Object.values(drops).reduce((sum, n) => sum + n, 0);
      expect(frames + replicated).toBe(passed + merged + dropped + held);
    }
  });
});

describe.each([
  ["split rings, INTx", { rings: { packed: false }, vectors: 0 }, {}],
  [
    "split rings without event index or indirect tables",
    { rings: { packed: false, eventIndex: false, indirect: false } },
    {},
  ],
  ["whole frames in large buffers", {}, { mergeable: false }],
  ["no offloads", {}, { offloads: false }],
  ["two pairs of queues", {}, { pairs: 2 }],
])("our virtio-net with %s", (name, virtioFunction, virtioNet) => {
  const lab = linuxLab({ cards: ["eth2"], virtioFunction, virtioNet });

  it("carries streams, datagrams and pings", async () => {
    const eth2 = lab().card("eth2");
    const { machine } = lab();
    await traffic(lab(), "eth2");
    const output = await machine.check(`netprobe ping -h ${eth2.peerAddress} -n 20 -z 1472`);
    expect(probed(output, "pinged")).toMatchObject({ sent: 20, lost: 0, errors: 0 });
    const port = nextPort();
    const received = await receiveDatagrams(lab(), `-p ${port} -n 200 -r ${SEED}`, () =>
      eth2.peer.udp.send(eth2.guestAddress, port, {
        count: 200,
        size: (n) => 4 + ((n * 37) % 1469),
        seed: SEED,
      }),
    );
    expect(received).toMatchObject({ datagrams: 200, errors: 0, duplicates: 0, end: 200 });
    await expectNoErrors(lab());
    const { statistics } = lab().virtio!.card;
    expect(statistics.tx.drops).toEqual({});
    if (name === "no offloads") expect(statistics.superframes_passed).toBe(0);
    else expect(statistics.superframes_passed).toBeGreaterThan(0);
  });
});

describe("our virtio-net with large frames", () => {
  const lab = linuxLab({ cards: ["eth2"], mtu: 9000 });

  it("carries streams at MTU 9000", async () => {
    expect(await lab().machine.check("cat /sys/class/net/eth2/mtu")).toBe("9000\n");
    await traffic(lab(), "eth2");
    const output = await lab().machine.check(
      `netprobe ping -h ${lab().card("eth2").peerAddress} -n 20 -z 8900`,
    );
    expect(probed(output, "pinged")).toMatchObject({ sent: 20, lost: 0, errors: 0 });
    await expectNoErrors(lab());
  });
});
