/** A Linux guest that is saved in the middle of its traffic, and goes on in another machine, or once more in its own. */
import { describe, expect, it } from "vitest";
import { restoreMachine, saveMachine } from "vbus/emulators/v86";
import { Lab } from "../../examples/linux/lab.js";
import { readPieces } from "../../examples/linux/pieces.js";
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
});
