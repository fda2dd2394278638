/** A Linux guest that is saved in the middle of its traffic, and goes on in another machine, or once more in its own. */
import { describe, expect, it } from "vitest";
import { restoreMachine, saveMachine } from "vbus/emulators/v86";
import { CARD_PLACES, guestAddresses } from "../../examples/linux/cards.js";
import { Lab } from "../../examples/linux/lab.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { abandonFunction, adoptFunction } from "../../examples/linux/virtio-function.js";
import { expectNoErrors, tell, until } from "./fixture.js";
import { both, MEGABYTE, traffic } from "./traffic.js";

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe("a Linux guest with venet that is saved and restored", () => {
  it("goes on in a fresh machine, in the middle of a TCP stream over venet, on all three cards", async () => {
    const pieces = readPieces();
    const cards = ["eth0", "eth1", "eth2"] as const;
    const lab = await Lab.open({ pieces, progress: tell, cards });
    let moved: Lab | undefined;
    try {
      const { command, judge } = both(lab.card("eth1"), 20 * MEGABYTE + 1, 20 * MEGABYTE + 3);
      await lab.machine.check(`(${command} >/tmp/stream; echo $? >/tmp/status) & rm -f /tmp/status`);
      await pause(300);
      const state = await saveMachine(lab.machine.emulator);
      await lab.machine.emulator.stop(); // what was saved must not go on twice
      lab.host?.close();
      lab.virtio?.host.close();
      lab.virtio?.card.close();
      tell(`saved ${state.length >> 20} MiB`);
      moved = await Lab.open({ pieces, progress: tell, cards, moved: { state, from: lab } });
      expect(moved.machine.restored).toBe(true);
      expect((await moved.machine.run("[ -e /tmp/status ]")).status, "the stream is not over yet").toBe(1);
      await until(
        "the stream that was saved",
        async () => (await moved!.machine.run("[ -e /tmp/status ]")).status === 0,
      );
      expect(await moved.machine.check("cat /tmp/stream /tmp/status")).toMatch(/\n0\n$/);
      await judge(await moved.machine.check("cat /tmp/stream"));
      for (const name of cards) await traffic(moved, name);
      await expectNoErrors(moved);
      const log = "dmesg | grep -v 'oops=panic' | grep -iE 'oops|bug:|warning:|call trace|leak'";
      expect((await moved.machine.run(log)).output).toBe("");
    } finally {
      await moved?.close();
      await lab.close();
    }
  });

  it("is rewound in its own machine, several times", async () => {
    const lab = await Lab.open({ pieces: readPieces(), progress: tell });
    try {
      const { machine } = lab;
      await machine.check("echo before >/tmp/when");
      const state = await saveMachine(machine.emulator);
      for (let round = 0; round < 5; round++) {
        await machine.check("echo after >/tmp/when");
        await traffic(lab, "eth1");
        await machine.emulator.stop();
        await restoreMachine(machine.emulator, state);
        await machine.emulator.run();
        expect(await machine.check("cat /tmp/when")).toBe("before\n");
      }
      for (const name of ["eth0", "eth1"] as const) await traffic(lab, name);
      await expectNoErrors(lab);
    } finally {
      await lab.close();
    }
  });

  it("is copied with other addresses while it talks, and both live on one switch once the copy's administrator has seen to it", async () => {
    const pieces = readPieces();
    const cards = ["eth1", "eth2"] as const;
    const lab = await Lab.open({ pieces, progress: tell, cards });
    let copy: Lab | undefined;
    try {
      for (const { peerAddress } of lab.cards)
        await lab.machine.check(
          `(while :; do ping -c 1 -W 1 ${peerAddress}; usleep 200000; done) >/dev/null 2>&1 &`,
        );
      const state = await saveMachine(lab.machine.emulator);
      copy = await Lab.open({
        pieces,
        progress: tell,
        cards,
        guest: 1,
        moved: { state, from: lab, macs: "renew" },
      });
      const { machine } = copy;
      const macOf = async (name: string): Promise<string> =>
        (await machine.run(`cat /sys/class/net/${name}/address`)).output.trim();

      // venet is plugged in anew, and has no IP address; virtio-net has no carrier until Linux takes another address for it
      await until("the new venet", async () => (await macOf("eth1")) === guestAddresses("eth1", 1).mac);
      await machine.check(`ip addr add ${guestAddresses("eth1", 1).ip4}/24 dev eth1 && ip link set eth1 up`);
      await until("the carrier to go", async () => {
        return (await machine.check("cat /sys/class/net/eth2/carrier")) === "0\n";
      });
      expect(await macOf("eth2")).toBe(guestAddresses("eth2").mac);
      const { mac, ip4 } = guestAddresses("eth2", 1);
      expect(copy.virtio?.card.mac).toBe(mac);
      await machine.check(
        `ip link set eth2 down && ip addr flush dev eth2 && ip link set eth2 address ${mac} && ` +
          `ip addr add ${ip4}/24 dev eth2 && ip link set eth2 up`,
      );

      const expectBothThere = async (name: (typeof cards)[number]): Promise<void> => {
        const [first, second] = [guestAddresses(name), guestAddresses(name, 1)];
        await machine.check(`ping -c 1 -W 10 ${first.ip4} && ping -c 1 -W 10 ${lab.card(name).peerAddress}`);
        for (const { ip4 } of [first, second])
          await lab.card(name).peer.icmp.ping(ip4, { timeoutMs: 30_000 });
        expect(await machine.check("ip neigh")).toContain(`${first.ip4} dev ${name} lladdr ${first.mac}`);
        expect(await lab.machine.check("ip neigh")).toContain(
          `${second.ip4} dev ${name} lladdr ${second.mac}`,
        );
        const port = name === "eth1" ? "nic0" : name;
        const where = lab.network(name).stations();
        expect(where).toContainEqual(expect.objectContaining({ mac: first.mac, port }));
        expect(where).toContainEqual(
          expect.objectContaining({ mac: second.mac, port: `${port} of guest 1` }),
        );
        expect(lab.network(name).counters().moved, "frames of a card on the other one's port").toBe(0);
      };
      for (const name of cards) {
        await expectBothThere(name);
        await Promise.all([lab, copy].map((each) => traffic(each, name, MEGABYTE / 5)));
      }

      // a driver that begins anew finds the new address by itself
      await abandonFunction(machine, CARD_PLACES.eth2.slot);
      await adoptFunction(machine, CARD_PLACES.eth2.slot);
      expect(await macOf("eth2")).toBe(mac);
      await machine.check(`ip addr add ${ip4}/24 dev eth2 && ip link set eth2 up`);
      await expectBothThere("eth2");
    } finally {
      await copy?.close();
      await lab.close();
    }
  });
});
