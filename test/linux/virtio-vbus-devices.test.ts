/** The kernel's own virtio_blk and virtio_console on devices of the bus: virtio_vbus.ko below them. */
import { createHash } from "node:crypto";
import { MemoryBackend } from "vbus/devices/vblk";
import { Terminal } from "vbus/devices/vconsole";
import { virtioBlk, type VirtioBlk } from "vbus/devices/virtio-blk";
import { virtioConsole, type VirtioConsole } from "vbus/devices/virtio-console";
import { virtioClass } from "vbus/devices/virtio-vbus";
import { attachVbus, type V86Host } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import type { VirtioRingOptions } from "vbus/virtio";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { generator } from "../engine/seed.js";
import { tell, until } from "./fixture.js";
import { carryNumbers } from "./port-traffic.js";

const SIZE = 8 << 20;
const DRIVER = "/sys/bus/vbus-proxy/drivers/virtio";

let machine: Machine;
let host: V86Host;
const errors: unknown[] = [];
const onError = (error: unknown): void => {
  errors.push(error);
};

/** The proxy device of a device of the bus: its number there. */
const proxyOf = (name: string): string => {
  const found = host.bus.devices.find((device) => device.name === name)?.interfaces[0];
  if (found === undefined) throw new Error(`${name} is not on the bus`);
  return String(found.id);
};
const folderOf = (name: string): string => `/sys/bus/vbus-proxy/devices/${proxyOf(name)}/virtio*`;

/** Makes the node of a device that the kernel announced. */
async function makeNode(name: string, kind: "b" | "c", at: string): Promise<void> {
  await machine.check(`[ -e /dev/${name} ] || mknod /dev/${name} ${kind} $(tr : ' ' <${at}/dev)`);
}

beforeAll(async () => {
  const scheduler = new EventLoopScheduler(onError);
  machine = await Machine.start({
    pieces: readPieces(),
    progress: tell,
    preparedAs: "vbus-pci bridge in slot 0x10",
    prepare: async (emulator) => {
      host = await attachVbus(emulator, { scheduler, devices: [], onError });
    },
  });
  host.vbus!.on("error", onError);
  await machine.check("insmod /lib/vbus/vbus.ko && insmod /lib/vbus/virtio_vbus.ko");
  await machine.check("insmod /lib/modules/virtio_blk.ko && insmod /lib/modules/virtio_console.ko");
});

afterAll(async () => {
  host.close();
  await machine.close();
  expect(errors).toEqual([]);
});

describe.each<[string, VirtioRingOptions]>([
  ["packed", {}],
  ["split", { packed: false }],
  ["split without event index or indirect tables", { packed: false, eventIndex: false, indirect: false }],
])("a virtio disk on the bus of a Linux guest, %s rings", (what, rings) => {
  const name = `disk-${what.replaceAll(" ", "-")}`;
  const content = new MemoryBackend(SIZE);
  let disk: VirtioBlk;
  let node = "";

  beforeAll(() => {
    disk = virtioBlk({ name, backend: content, serial: `vbus ${what}`.slice(0, 20), onError });
    host.vbus!.registerClass(
      virtioClass({ name, rings, create: () => ({ face: disk, release: () => void disk.close() }) }),
    );
    host.bus.connect(host.vbus!.createDevice(name, name));
  });

  it("is found, with its size and serial number", async () => {
    await until("the disk", async () => (await machine.run(`ls ${folderOf(name)}/block`)).status === 0);
    node = (await machine.check(`ls ${folderOf(name)}/block`)).trim();
    expect(node).toMatch(/^vd[a-z]$/);
    await makeNode(node, "b", `/sys/block/${node}`);
    expect(await machine.check(`cat /sys/block/${node}/size`)).toBe(`${SIZE / 512}\n`);
    expect((await machine.check(`cat /sys/block/${node}/serial`)).trim()).toBe(`vbus ${what}`.slice(0, 20));
    const queues = JSON.parse(host.bus.read(`devices/${name}/virtio_queues`)) as { format: string }[];
    expect(queues.map(({ format }) => format)).toEqual([what.split(" ")[0]]);
  });

  it("holds what is written to it, byte for byte, and gives it back", async () => {
    const random = generator(9);
    const bytes = Uint8Array.from({ length: 2 << 20 }, () => random() & 255);
    content.bytes.set(bytes, 1 << 20);
    const sum = createHash("md5").update(bytes).digest("hex");
    const read = `dd if=/dev/${node} bs=64k skip=16 count=32 2>/dev/null`;
    expect((await machine.check(`${read} | md5sum`, { timeoutMs: 120_000 })).slice(0, 32)).toBe(sum);
    await machine.check(`${read} | dd of=/dev/${node} bs=48k seek=100 conv=notrunc,fsync 2>/dev/null`, {
      timeoutMs: 120_000,
    });
    const copy = content.bytes.subarray(100 * 48 * 1024, 100 * 48 * 1024 + bytes.length);
    expect(Buffer.compare(copy, bytes)).toBe(0);
    expect(disk.statistics.operations.flush, "fsync reaches the disk").toBeGreaterThan(0);
  });

  it("becomes larger while the guest looks", async () => {
    await disk.resize(SIZE + (1 << 20));
    const wanted = `${(SIZE + (1 << 20)) / 512}\n`;
    await until("the new size", async () => (await machine.check(`cat /sys/block/${node}/size`)) === wanted);
  });

  it("is let go of and bound anew, with what it holds", async () => {
    await machine.check(`echo vbus | dd of=/dev/${node} bs=512 conv=sync,notrunc,fsync 2>/dev/null`);
    await machine.check(`echo ${proxyOf(name)} >${DRIVER}/unbind`);
    expect(disk.open).toBe(false);
    await machine.check(`echo ${proxyOf(name)} >${DRIVER}/bind`);
    await until("the disk", async () => (await machine.run(`ls ${folderOf(name)}/block`)).status === 0);
    node = (await machine.check(`ls ${folderOf(name)}/block`)).trim();
    await makeNode(node, "b", `/sys/block/${node}`);
    expect(await machine.check(`head -c 5 /dev/${node}`)).toBe("vbus\n");
  });

  it("is unplugged, and nothing failed", async () => {
    const proxy = `/sys/bus/vbus-proxy/devices/${proxyOf(name)}`;
    host.bus.disconnect(name);
    await until("it to go", async () => (await machine.run(`[ -e ${proxy} ]`)).status === 1);
    const { requests, completed, failed, unsupported, cancelled, outstanding } = disk.statistics;
    expect({ failed, unsupported, cancelled, outstanding }).toEqual({
      failed: 0,
      unsupported: 0,
      cancelled: 0,
      outstanding: 0,
    });
    expect(requests).toBe(completed);
    host.vbus!.removeDevice(name);
  });
});

describe("a virtio console on the bus of a Linux guest", () => {
  const screen = new Terminal({ cols: 100, rows: 30 });
  const agent = new Terminal();
  const heard = { screen: "", agent: "" };
  let device: VirtioConsole;
  let port = "";
  const tty = "hvc0";

  beforeAll(() => {
    screen.onData = (bytes) => {
      heard.screen += Buffer.from(bytes).toString("latin1");
    };
    agent.onData = (bytes) => {
      heard.agent += Buffer.from(bytes).toString("latin1");
    };
    device = virtioConsole({
      name: "console0",
      ports: [{ terminal: screen }, { terminal: agent, name: "org.vbus.agent" }],
      onError,
    });
    host.vbus!.registerClass(
      virtioClass({
        name: "virtio-console",
        create: () => ({
          face: device,
          release: () => {
            device.close();
          },
        }),
      }),
    );
    host.bus.connect(host.vbus!.createDevice("console0", "virtio-console"));
  });

  it("is found: hvc0, and a port that has a name", async () => {
    const names = "/sys/class/virtio-ports/*/name";
    await until("the ports", async () => (await machine.run(`grep -q agent ${names}`)).status === 0);
    port = (await machine.check(`grep -l org.vbus.agent ${names} | xargs dirname | xargs basename`)).trim();
    await makeNode(port, "c", `/sys/class/virtio-ports/${port}`);
    await until("the console", async () => (await machine.run(`[ -e /sys/class/tty/${tty} ]`)).status === 0);
    await makeNode(tty, "c", `/sys/class/tty/${tty}`);
  });

  it("is a console: both ways", async () => {
    await machine.check(`stty raw -echo </dev/${tty}; echo 'hello from the guest' >/dev/${tty}`);
    await until("the guest's words", () => heard.screen.includes("hello from the guest"));
    await machine.check(`rm -f /tmp/line; (head -n 1 </dev/${tty} >/tmp/line) & usleep 200000`);
    await screen.write(Buffer.from("hello from the host\n"));
    await until("the host's words", async () => (await machine.run("grep -q host /tmp/line")).status === 0);
    expect(await machine.check("cat /tmp/line")).toBe("hello from the host\n");
  });

  it("carries a lot through the port, both ways, unharmed", async () => {
    await carryNumbers(machine, { port, terminal: agent, heard: () => heard.agent }, 120_000);
  });

  it("is let go of and bound anew", async () => {
    await machine.check(`echo ${proxyOf("console0")} >${DRIVER}/unbind`);
    expect(device.open).toBe(false);
    await machine.check(`echo ${proxyOf("console0")} >${DRIVER}/bind`);
    await until("the console", async () => (await machine.run(`echo again >/dev/${tty}`)).status === 0);
    await until("its words", () => heard.screen.includes("again"));
  });

  it("leaves the kernel without a complaint", async () => {
    const log = "dmesg | grep -v 'oops=panic' | grep -iE 'oops|bug:|warning:|call trace|vbus.*fail'";
    expect((await machine.run(log)).output).toBe("");
  });
});
