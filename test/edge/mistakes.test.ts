/** What programs in JavaScript, where no types are checked, give by mistake: said at once, by who was given it, with what to do. */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { Vbus, type Bus } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import { VbusMmio } from "vbus/connectors/mmio";
import { MemoryBackend, vblkClass } from "vbus/devices/vblk";
import { openFileBackend } from "vbus/devices/vblk/node-file";
import { Terminal, vconsoleClass } from "vbus/devices/vconsole";
import { venetClass } from "vbus/devices/venet";
import { virtioBlk } from "vbus/devices/virtio-blk";
import { virtioConsole } from "vbus/devices/virtio-console";
import { virtioNet } from "vbus/devices/virtio-net";
import { connectMmio, ProxyBus, type MmioPage } from "vbus/drivers";
import { VenetDriver, type VenetNic } from "vbus/drivers/venet";
import { VbusError } from "vbus/engine";
import { allocateGuestMemory, GuestMemory, MemorySpace, openHostView } from "vbus/memory";
import { Loopback, Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

/** As a program gives it that no compiler has seen. */
const mistaken = (value: unknown): never => value as never;

/** What the mistake is answered with. */
async function said(attempt: () => unknown): Promise<string> {
  try {
    await attempt();
  } catch (error) {
    expect(error).toBeInstanceOf(VbusError);
    return (error as VbusError).message;
  }
  return "nothing was said";
}

let scheduler: EventLoopScheduler;
let net: Switch;
let vbus: Vbus;
let bus: Bus;
let errors: unknown[];

beforeEach(async () => {
  errors = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  net = new Switch({ scheduler, space: await MemorySpace.host() });
  vbus = new Vbus({ scheduler });
  vbus.on("error", (event) => errors.push(event));
  bus = vbus.createBus("bus0");
  bus.admit("guest");
});

afterEach(() => {
  vbus.close();
  net.close();
  expect(errors).toEqual([]);
});

describe("what `port` returns", () => {
  it.each([
    ["a promise", async (name: string) => net.addPort(name)],
    [
      "nothing",
      (name: string) => {
        net.addPort(name);
      },
    ],
    ["a Switch", () => net],
  ])("is refused when it is %s, by the attribute that enables the card", async (what, port) => {
    vbus.registerClass(venetClass({ port: mistaken(port) }));
    const message = `EINVAL: for nic0 \`port\` returned ${what}; it must return a port, not a promise, such as net.addPort(name)`;
    expect(await said(() => vbus.createDevice("nic0", "venet", { enabled: "1" }))).toBe(message);
    expect(vbus.device("nic0")).toBeUndefined();

    for (const left of net.ports) left.close();
    const device = vbus.createDevice("nic0", "venet");
    expect(await said(() => vbus.write("devices/nic0/enabled", "1"))).toBe(message);
    expect(device.get("enabled")).toBe("0");
  });

  it("is refused of a virtio card, too, before and after it is made", async () => {
    expect(await said(() => virtioNet({ name: "eth0", port: mistaken(Promise.resolve(null)) }))).toBe(
      "EINVAL: eth0: `port` is a promise; it must be a port, not a promise, such as net.addPort(name)",
    );
    const card = virtioNet({ name: "eth0" });
    expect(await said(() => (card.port = mistaken(() => net.addPort("eth0"))))).toContain(
      "`port` is a function",
    );
    expect(card.port).toBeNull();
    card.port = net.addPort("eth0");
    expect(card.linkUp).toBe(true);
    card.close();
  });
});

describe("what `backend` and `terminal` return", () => {
  it.each([
    ["a promise", () => Promise.resolve(new MemoryBackend(512))],
    ['"disk.img"', () => "disk.img"],
    ["nothing", () => undefined],
  ])("is no back end when it is %s: no disk is made", async (what, backend) => {
    vbus.registerClass(vblkClass({ backend: mistaken(backend) }));
    const message = await said(() => vbus.createDevice("disk0", "vblk"));
    expect(message).toContain(`EINVAL: for disk0 \`backend\` returned ${what}; give a back end that is open`);
    expect(vbus.device("disk0")).toBeUndefined();
    vbus.unregisterClass("vblk");
    expect(await said(() => virtioBlk({ name: "vda", backend: mistaken(backend()) }))).toContain(
      `EINVAL: vda: \`backend\` is ${what}; give a back end that is open`,
    );
  });

  it.each([
    ["a promise", () => Promise.resolve(new Terminal())],
    ["a function", () => Terminal],
  ])("is no terminal when it is %s: no console is made", async (what, terminal) => {
    vbus.registerClass(vconsoleClass({ terminal: mistaken(terminal) }));
    expect(await said(() => vbus.createDevice("con0", "vconsole"))).toBe(
      `EINVAL: for con0 \`terminal\` returned ${what}; give a terminal: \`new Terminal()\``,
    );
    const ports = [{ terminal: new Terminal() }, { terminal: mistaken(terminal()) }];
    expect(await said(() => virtioConsole({ name: "hvc", ports }))).toContain(
      `hvc: \`terminal\` of port 1 is ${what}; give a terminal`,
    );
    virtioConsole({ name: "hvc", ports: ports.slice(0, 1) }).close(); // the first one was not kept
  });
});

describe("attributes", () => {
  it.each([
    [{ enabled: true }, 'write "1" to "devices/nic0/enabled", not true'],
    [{ enabled: 1 }, 'write "1" to "devices/nic0/enabled", not 1'],
    [{ enabled: false }, 'write "0" to "devices/nic0/enabled", not false'],
    [{ mtu: 9000 }, 'write "9000" to "devices/nic0/mtu", not 9000'],
    [{ client_mac: null }, 'write a text such as "1" to "devices/nic0/client_mac", not null'],
    [{ client_mac: new Uint8Array(6) }, "not a Uint8Array"],
  ])("are text: %o is refused", async (attributes, message) => {
    vbus.registerClass(venetClass({ port: (name) => net.addPort(name) }));
    const refused = await said(() => vbus.createDevice("nic0", "venet", mistaken(attributes)));
    expect(refused).toContain("EINVAL: attributes are text: ");
    expect(refused).toContain(message);
    vbus.createDevice("nic0", "venet");
    for (const [name, value] of Object.entries(attributes))
      expect(await said(() => vbus.write(`devices/nic0/${name}`, mistaken(value)))).toContain(message);
  });
});

describe("a class", () => {
  it("is what the function of its name returns, not that function", async () => {
    expect(await said(() => vbus.registerClass(mistaken(venetClass)))).toContain(
      "EINVAL: the class to register is a function; give what makes devices: `vbus.registerClass(venetClass(",
    );
    expect(await said(() => vbus.registerClass(mistaken(undefined)))).toContain("is nothing;");
    expect(vbus.classes).toEqual([]);
  });
});

describe("a name", () => {
  it("is what ports and cards need", async () => {
    for (const name of [undefined, "", 3])
      expect(await said(() => net.addPort(mistaken(name)))).toContain("EINVAL: switch: a port needs a name");
    expect(net.ports).toEqual([]);
    expect(await said(() => virtioNet(mistaken({})))).toContain("EINVAL: a card needs a name");
  });
});

describe("a memory", () => {
  it("is opened before it is given: a promise is refused", async () => {
    const init = allocateGuestMemory({ size: 1 << 20 });
    const message = "EINVAL: `space` is a promise; give a MemorySpace: `await MemorySpace.host()`";
    expect(await said(() => new Switch({ scheduler, space: mistaken(MemorySpace.host()) }))).toBe(message);
    expect(await said(() => new Loopback({ scheduler, space: mistaken(MemorySpace.host()) }))).toBe(message);
    const given = { member: "guest", memory: mistaken(openHostView(init)) };
    expect(await said(() => bus.openClient(given))).toBe(
      'EINVAL: `memory` of client "guest" is a promise; give a MemorySpace: `await openHostView(init)`',
    );
    expect(bus.clients).toEqual([]);
  });

  it("of a guest is no memory of a host", async () => {
    const memory = await openHostView(allocateGuestMemory({ size: 1 << 20 }));
    const interrupt = (): void => undefined;
    const onError = (error: unknown): void => void errors.push(error);
    const registers = new VbusMmio({ bus, member: "guest", memory, scheduler, interrupt, onError });
    const page: MmioPage = {
      read: (offset) => registers.read(offset, 4),
      write: (offset, value) => {
        registers.write(offset, 4, value);
      },
    };
    expect(await said(() => connectMmio({ page, memory: mistaken(memory), scheduler }))).toContain(
      "EINVAL: the guest's `memory` is a MemorySpace; give a GuestMemory: `await GuestMemory.open(init)`",
    );
    registers.close();
  });

  it.each([
    [{ size: -1 }, "size: -1;"],
    [{ size: 0 }, "size: 0;"],
    [{ size: NaN }, "size: NaN;"],
    [{ size: "8M" }, 'size: "8M";'],
    [{ arenaSize: 0 }, "arenaSize: 0;"],
    [{ padding: -1 }, "padding: -1;"],
  ])("has a size: %o is refused", async (options, message) => {
    const refused = await said(() => allocateGuestMemory(mistaken(options)));
    expect(refused).toContain(`EINVAL: ${message}`);
    expect(refused).toContain("give a number of bytes");
  });

  it("fits into 4 GiB", async () => {
    expect(await said(() => allocateGuestMemory({ size: 2 ** 32 }))).toContain("do not fit");
  });
});

describe("a file of a disk", () => {
  let folder: string;
  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "vbus-edge-"));
  });
  afterEach(() => {
    fs.rmSync(folder, { recursive: true });
  });

  it("that cannot be opened is named, with what to do", async () => {
    const file = path.join(folder, "disk.img");
    expect(await said(() => openFileBackend(file))).toBe(
      `ENOENT: "${file}": there is no such file; create: size makes one in a folder that exists`,
    );
    fs.writeFileSync(file, new Uint8Array(512));
    expect(await said(() => openFileBackend(file, { create: 512 }))).toContain(`EEXIST: "${file}"`);
    for (const readOnly of [false, true])
      expect(await said(() => openFileBackend(folder, { readOnly }))).toContain(
        `EINVAL: "${folder}" is a folder`,
      );
    expect(await said(() => openFileBackend(path.join(file, "inside")))).toContain("EIO: ");
  });
});

describe("a venet driver", () => {
  it("is told who takes its cards before how to drive them", async () => {
    expect(await said(() => new VenetDriver(mistaken({ mtu: 9000 })))).toContain(
      "EINVAL: the first argument is who is told of NICs, not an Object: new VenetDriver((nic) => …, options)",
    );
  });

  it("sends frames in arrays, and nothing but frames", async () => {
    vbus.registerClass(venetClass({ port: (name) => net.addPort(name) }));
    bus.connect(vbus.createDevice("nic0", "venet", { enabled: "1" }));
    const init = allocateGuestMemory({ size: 4 << 20 });
    const client = bus.openClient({ member: "guest", memory: await openHostView(init) });
    const proxy = new ProxyBus(new LocalConnector(client, await GuestMemory.open(init), scheduler));
    const nic = await new Promise<VenetNic>((resolve) => {
      proxy.registerDriver(new VenetDriver(resolve));
      void proxy.start();
    });
    await nic.open();
    const frame = new Uint8Array(60);
    for (const [frames, message] of [
      [frame, "frames are sent in an array, not as a Uint8Array: send([frame])"],
      [undefined, "frames are sent in an array, not as nothing"],
      [["x"], 'not "x"'],
      [[undefined], "not nothing"],
      [
        [new ArrayBuffer(60)],
        "a frame is a Uint8Array, or { data: Uint8Array or several, … }; not an ArrayBuffer",
      ],
      [[frame, { data: new ArrayBuffer(60) }], "not an Object with data that is an ArrayBuffer"],
      [[{ data: [frame, "x"] }], "not an Object with data that is an Array"],
    ]) {
      expect(await said(() => nic.send(mistaken(frames)))).toContain(message);
      expect(await said(() => nic.trySend(mistaken(frames)))).toContain(message);
    }
    expect(nic.statistics().tx_packets).toBe(0);
    await nic.send([]);
    await nic.send([frame, { data: [frame.subarray(0, 14), frame.subarray(14)] }]);
    expect(nic.statistics().tx_packets).toBe(2);
    await nic.close();
  });
});
