/** The Linux kernel's own virtio drivers on devices of the bus: virtio_vbus.ko, and virtio_net and virtio_rng on top of it. */
import { attachVbus, type V86Host } from "vbus/emulators/v86";
import { virtioNet, type VirtioNet } from "vbus/devices/virtio-net";
import { virtioEntropy } from "vbus/devices/virtio-rng";
import { virtioClass } from "vbus/devices/virtio-vbus";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import type { VirtioRingOptions } from "vbus/virtio";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { generator } from "../engine/seed.js";
import { NetPeer } from "../support/net-peer.js";
import { expectNoLeak, probed, tell, until } from "./fixture.js";
import { both, MEGABYTE, type StreamPlace } from "./traffic.js";

const GUEST = "10.0.1.2";
const PEER = "10.0.1.1";
const MAC = "02:00:00:00:01:02";

/** A guest with the bus, behind whose cards is one station. */
class VirtioLab {
  readonly errors: unknown[];
  readonly place: StreamPlace;
  #cards = 0;
  card!: VirtioNet;

  private constructor(
    readonly machine: Machine,
    readonly host: V86Host,
    readonly net: Switch,
    readonly peer: NetPeer,
    errors: unknown[],
  ) {
    this.errors = errors;
    this.place = { peer, peerAddress: PEER, peerAddress6: "fd00:0:0:1::1" };
  }

  static async open(bridgeParameters = ""): Promise<VirtioLab> {
    const errors: unknown[] = [];
    const scheduler = new EventLoopScheduler((error) => errors.push(error));
    const space = await MemorySpace.host();
    const net = new Switch({ scheduler, space, name: "virtio" });
    const peer = new NetPeer({
      port: net.addPort("peer"),
      scheduler,
      space,
      mac: "02:00:00:00:01:01",
      ip4: PEER,
      ip6: "fd00:0:0:1::1",
      mtu: 1500,
    });
    let host: V86Host | undefined;
    const machine = await Machine.start({
      pieces: readPieces(),
      progress: tell,
      preparedAs: "vbus-pci bridge in slot 0x10",
      prepare: async (emulator) => {
        host = await attachVbus(emulator, {
          scheduler,
          devices: [],
          onError: (error) => errors.push(error),
        });
      },
    });
    host!.vbus!.on("error", (event) => errors.push(event));
    await machine.check(`insmod /lib/vbus/vbus.ko ${bridgeParameters} && insmod /lib/vbus/virtio_vbus.ko`);
    return new VirtioLab(machine, host!, net, peer, errors);
  }

  /** Plugs a card in, and waits until the guest has it up. Returns the device's name. */
  async plug(rings: VirtioRingOptions = {}): Promise<string> {
    const name = `card${this.#cards++}`;
    const vbus = this.host.vbus!;
    vbus.registerClass(
      virtioClass({
        name: `class-${name}`,
        rings,
        create: () => {
          const face = virtioNet({ name, port: this.net.addPort(name), mac: MAC });
          this.card = face;
          return { face, release: () => face.close() };
        },
      }),
    );
    this.host.bus.connect(vbus.createDevice(name, `class-${name}`));
    await this.up();
    return name;
  }

  /** Waits for eth1 and configures it. */
  async up(): Promise<void> {
    await until("eth1", async () => (await this.machine.run("[ -e /sys/class/net/eth1 ]")).status === 0);
    await this.machine.check(`ip link set eth1 up && ip addr add ${GUEST}/24 dev eth1`);
    await this.machine.check(`ping -c 1 -W 10 ${PEER}`, { timeoutMs: 30_000 });
  }

  async unplug(name: string): Promise<void> {
    this.host.bus.disconnect(name);
    await until(
      "eth1 to go",
      async () => (await this.machine.run("[ -e /sys/class/net/eth1 ]")).status === 1,
    );
  }

  async traffic(bytes = 2 * MEGABYTE): Promise<void> {
    const { command, judge } = both(this.place, bytes + 1, bytes + 3);
    await judge(await this.machine.check(command, { timeoutMs: 120_000 }));
  }

  attribute(device: string, name: string): string {
    return this.host.bus.read(`devices/${device}/${name}`);
  }

  /** What the queues of a device counted. */
  queues(device: string): { index: number; format: string; size: number; broken: string | null }[] {
    return JSON.parse(this.attribute(device, "virtio_queues")) as never;
  }

  /** The guest's kernel complained of nothing. */
  async expectQuiet(): Promise<void> {
    const log = "dmesg | grep -v 'oops=panic' | grep -iE 'oops|bug:|warning:|call trace|leak|vbus.*fail'";
    expect((await this.machine.run(log)).output).toBe("");
  }

  async close(): Promise<void> {
    this.peer.close();
    this.host.close();
    this.net.close();
    await this.machine.close();
    expect(this.errors).toEqual([]);
  }
}

/** Bit `bit` of what `/sys/bus/virtio/devices/…/features` says. */
const hasBit = (features: string, bit: number): boolean => features[bit] === "1";

describe("the kernel's virtio drivers on the bus", () => {
  let lab: VirtioLab;
  let device: string;

  beforeAll(async () => {
    lab = await VirtioLab.open();
    device = await lab.plug();
  });
  afterAll(async () => {
    await lab.close();
  });

  it("find the device: proxy device, virtio device, driver by kind, features", async () => {
    const { machine } = lab;
    const proxy = "/sys/bus/vbus-proxy/devices/0";
    expect(await machine.check(`cat ${proxy}/modalias`)).toBe("vbus-proxy:virtio\n");
    expect(await machine.check(`readlink ${proxy}/driver`)).toMatch(/\/virtio\n$/);
    const virtio = (await machine.check(`basename ${proxy}/virtio*`)).trim();
    const folder = `/sys/bus/virtio/devices/${virtio}`;
    expect(await machine.check(`cat ${folder}/device ${folder}/vendor ${folder}/status`)).toBe(
      "0x0001\n0x76627573\n0x0000000f\n",
    );
    expect(await machine.check(`readlink ${folder}/driver`)).toMatch(/\/virtio_net\n$/);
    const features = (await machine.check(`cat ${folder}/features`)).trim();
    for (const bit of [28, 29, 32, 34, 40]) expect(hasBit(features, bit), `bit ${bit}`).toBe(true);
    expect(hasBit(features, 33)).toBe(false);
    const negotiated = BigInt(lab.attribute(device, "virtio_features"));
    for (let bit = 0; bit < 64; bit++)
      expect((negotiated >> BigInt(bit)) & 1n, `bit ${bit}`).toBe(hasBit(features, bit) ? 1n : 0n);
    expect(await machine.check("cat /sys/class/net/eth1/address")).toBe(`${MAC}\n`);
    expect(lab.queues(device).map(({ index, format }) => `${index} ${format}`)).toEqual([
      "0 packed",
      "1 packed",
      "2 packed",
    ]);
  });

  it("answer pings of all sizes", async () => {
    for (const size of [0, 1, 57, 1472]) {
      const output = await lab.machine.check(`netprobe ping -h ${PEER} -n 20 -z ${size}`);
      expect(probed(output, "pinged")).toMatchObject({ sent: 20, lost: 0, errors: 0 });
    }
  });

  it("carry verified streams in both directions", async () => {
    await lab.traffic(5 * MEGABYTE);
    for (const { broken } of lab.queues(device)) expect(broken).toBeNull();
    expect(JSON.parse(lab.attribute(device, "virtio_counters"))).toMatchObject({
      starts: 1,
      needsReset: 0,
      badQueues: 0,
    });
  });

  it("hear of a change of the configuration: the carrier goes and comes", async () => {
    const carrier = async (): Promise<string> =>
      (await lab.machine.run("cat /sys/class/net/eth1/carrier")).output.trim();
    lab.card.carrier = false;
    await until("the carrier to go", async () => (await carrier()) === "0");
    lab.card.carrier = true;
    await until("the carrier to come back", async () => (await carrier()) === "1");
    await lab.traffic();
  });

  it("go and come back under traffic: bound anew, interface down and up", async () => {
    const driver = "/sys/bus/vbus-proxy/drivers/virtio";
    await lab.machine.check(`netprobe udp-send -h ${PEER} -p 9 -d 20000 -z 1400 >/dev/null 2>&1 & noise=$!`);
    for (let i = 0; i < 5; i++) {
      await lab.machine.check(`echo 0 >${driver}/unbind`);
      expect((await lab.machine.run("[ -e /sys/class/net/eth1 ]")).status).toBe(1);
      expect(lab.attribute(device, "virtio_status")).toBe("0x0");
      await lab.machine.check(`echo 0 >${driver}/bind`);
      await lab.up();
    }
    await lab.machine.check("kill $noise; wait $noise; true");
    for (let i = 0; i < 3; i++) {
      await lab.machine.check("ip link set eth1 down; ip link set eth1 up");
      await lab.traffic(MEGABYTE);
    }
  });

  it("have the virtio driver bound anew while the transport stays", async () => {
    const virtio = (await lab.machine.check("basename /sys/bus/vbus-proxy/devices/0/virtio*")).trim();
    const driver = "/sys/bus/virtio/drivers/virtio_net";
    for (let i = 0; i < 3; i++) {
      await lab.machine.check(`echo ${virtio} >${driver}/unbind && echo ${virtio} >${driver}/bind`);
      await lab.up();
      await lab.traffic(MEGABYTE);
    }
  });

  it("drive other kinds of devices beside it: random numbers arrive byte for byte", async () => {
    const given: number[] = [];
    const next = generator(7);
    const entropy = virtioEntropy({
      name: "entropy",
      source: (into) => {
        for (let i = 0; i < into.length; i++) given.push((into[i] = next() & 0xff));
      },
    });
    const { vbus, bus } = lab.host;
    vbus!.registerClass(virtioClass({ name: "virtio-rng", create: () => ({ face: entropy }) }));
    bus.connect(vbus!.createDevice("entropy0", "virtio-rng"));
    await lab.machine.check("insmod /lib/modules/virtio-rng.ko");
    await until(
      "the random number generator",
      async () =>
        (await lab.machine.run("grep -q virtio_rng /sys/class/misc/hw_random/rng_available")).status === 0,
    );
    await lab.machine.check("echo virtio_rng.0 >/sys/class/misc/hw_random/rng_current");
    const got = await lab.machine.check("head -c 512 /dev/hwrng | hexdump -v -e '/1 \"%02x\"'");
    expect(got.trim()).toHaveLength(1024);
    expect(Buffer.from(given).toString("hex")).toContain(got.trim());
    bus.disconnect("entropy0");
    await until(
      "it to go",
      async () => (await lab.machine.run("[ -e /sys/bus/vbus-proxy/devices/1 ]")).status === 1,
    );
    await lab.machine.check("rmmod virtio-rng");
  });

  it("lose their card while its stream runs, and get another one of another kind of ring", async () => {
    const { machine } = lab;
    for (const [what, rings, format] of [
      ["split", { packed: false }, "split"],
      [
        "split without event index, indirect tables or reset of one queue",
        { packed: false, eventIndex: false, indirect: false, reset: false },
        "split",
      ],
      ["packed without event index or indirect tables", { eventIndex: false, indirect: false }, "packed"],
      ["everything", {}, "packed"],
    ] as const) {
      const { command } = both(lab.place, 500 * MEGABYTE, 3);
      await machine.check(`${command} >/dev/null 2>&1 & victim=$!`);
      await machine.check("usleep 200000");
      await lab.unplug(device);
      await machine.check("kill $victim; wait $victim; true");
      device = await lab.plug(rings);
      expect(
        lab.queues(device).map((queue) => queue.format),
        what,
      ).toEqual([format, format, format]);
      await lab.traffic(2 * MEGABYTE);
    }
  });

  it("are reloaded ten times under traffic, without a leak or a complaint", async () => {
    const { machine } = lab;
    const reload = async (): Promise<void> => {
      const noise = `netprobe udp-send -h ${PEER} -p 9 -d 60000 -z 1400 >/dev/null 2>&1 & noise=$!`;
      await machine.check(`${noise}; usleep 100000`);
      const flood = lab.peer.udp.send(GUEST, 9, { count: 200, size: () => 1400, seed: 1 });
      await machine.check(
        "rmmod virtio_vbus vbus; kill $noise; wait $noise; insmod /lib/vbus/vbus.ko && insmod /lib/vbus/virtio_vbus.ko",
      );
      await flood;
      await lab.up();
    };
    await expectNoLeak(machine, reload);
    await lab.traffic();
    await lab.expectQuiet();
  });
});

describe.each(["ilp32=1", "nomsi=1", "ilp32=1 nomsi=1"])("the same with %s", (parameters) => {
  it("carries streams", async () => {
    const lab = await VirtioLab.open(parameters);
    try {
      await lab.plug();
      await lab.traffic(4 * MEGABYTE);
      await lab.expectQuiet();
    } finally {
      await lab.close();
    }
  });
});
