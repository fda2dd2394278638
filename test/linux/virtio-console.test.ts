/** Debian's unmodified virtio_console on a device of this package: a console, and a port with a name. */
import { Terminal } from "vbus/devices/vconsole";
import { virtioConsole, type VirtioConsole } from "vbus/devices/virtio-console";
import { attachVirtio, type V86VirtioHost } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { abandonFunction, adoptFunction } from "../../examples/linux/virtio-function.js";
import { tell, until } from "./fixture.js";
import { carryNumbers } from "./port-traffic.js";

const SLOT = 0x15;
let machine: Machine;
let host: V86VirtioHost;
let device: VirtioConsole;
const errors: unknown[] = [];
const screen = new Terminal({ cols: 100, rows: 30 });
const agent = new Terminal();
const heard = { screen: "", agent: "" };
screen.onData = (bytes) => {
  heard.screen += Buffer.from(bytes).toString("latin1");
};
agent.onData = (bytes) => {
  heard.agent += Buffer.from(bytes).toString("latin1");
};

beforeAll(async () => {
  const scheduler = new EventLoopScheduler((error) => errors.push(error));
  machine = await Machine.start({
    pieces: readPieces(),
    progress: tell,
    preparedAs: "virtio-console with two ports in slot 0x15",
    prepare: async (emulator) => {
      device = virtioConsole({
        name: "console",
        ports: [{ terminal: screen }, { terminal: agent, name: "org.vbus.agent" }],
        onError: (error) => errors.push(error),
      });
      host = await attachVirtio(emulator, {
        device,
        slot: SLOT,
        scheduler,
        onError: (error) => errors.push(error),
      });
    },
  });
  await machine.check("insmod /lib/modules/virtio_console.ko");
});

afterAll(async () => {
  host.close();
  device.close();
  await machine.close();
});

describe("a virtio console in a Linux guest", () => {
  let port = "";

  it("is found: hvc0, and a port that has a name", async () => {
    await adoptFunction(machine, SLOT);
    await until(
      "the ports",
      async () => (await machine.run("cat /sys/class/virtio-ports/*/name")).status === 0,
    );
    expect(await machine.check("cat /sys/class/virtio-ports/*/name")).toContain("org.vbus.agent\n");
    port = (
      await machine.check(
        "grep -l org.vbus.agent /sys/class/virtio-ports/*/name | xargs dirname | xargs basename",
      )
    ).trim();
    await machine.check("[ -e /sys/class/tty/hvc0 ]");
    for (const [node, at] of [
      ["hvc0", "/sys/class/tty/hvc0/dev"],
      [port, `/sys/class/virtio-ports/${port}/dev`],
    ] as const)
      await machine.check(`[ -e /dev/${node} ] || mknod /dev/${node} c $(tr : ' ' <${at})`);
  });

  it("is a console: both ways", async () => {
    await machine.check("stty raw -echo </dev/hvc0; echo 'hello from the guest' >/dev/hvc0");
    await until("the guest's words", () => heard.screen.includes("hello from the guest"));
    await machine.check("rm -f /tmp/line; (head -n 1 </dev/hvc0 >/tmp/line) & usleep 200000");
    await screen.write(Buffer.from("hello from the host\n"));
    await until("the host's words", async () => (await machine.run("grep -q host /tmp/line")).status === 0);
    expect(await machine.check("cat /tmp/line")).toBe("hello from the host\n");
  });

  it("tells the size of its window, which this kernel reads with lines and columns swapped", async () => {
    screen.resize(111, 44);
    await until("the new size", async () =>
      /^(111 44|44 111)\s*$/.test(await machine.check("stty size </dev/hvc0")),
    );
  });

  it("carries a lot through the port, both ways, unharmed", async () => {
    expect(agent.connected).toBe(false);
    await carryNumbers(machine, { port, terminal: agent, heard: () => heard.agent }, 60_000);
    await until("the guest to close the port", () => !agent.connected);
  });

  it("is taken away and given back", async () => {
    await abandonFunction(machine, SLOT);
    expect(device.open).toBe(false);
    await adoptFunction(machine, SLOT);
    await until("the console", async () => (await machine.run("echo again >/dev/hvc0")).status === 0);
    await until("its words", () => heard.screen.includes("again"));
    expect(errors).toEqual([]);
  });
});
