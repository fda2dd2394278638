/** A whole host at work, looked at: nothing changes, everything is there, and what fails hides nothing else. */
import { VbusError } from "vbus";
import { Vbus, type Connection, type DeviceClass } from "vbus/bus";
import { PciBridge } from "vbus/connectors/pci";
import {
  inspect,
  inspectBridge,
  inspectionText,
  inspectBus,
  prometheusText,
  type Inspection,
} from "vbus/inspect";
import { allocateGuestMemory, openHostView } from "vbus/memory";
import { VirtualScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { InspectedHost } from "./host.js";

const json = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

describe("a host at work", () => {
  let host: InspectedHost;
  beforeEach(async () => {
    host = await InspectedHost.open();
  });
  afterEach(async () => {
    await host.close();
    expect(host.errors).toEqual([]);
  });

  it("is plain data: JSON says all of it", async () => {
    await host.work();
    const inspection = host.look();
    expect(json(inspection)).toEqual(inspection);
    expect(inspection).toMatchObject({ format: "vbus-inspection", version: 1 });
  });

  it("shows devices by class, with attributes and what they counted", async () => {
    await host.work(20);
    const { devices, classes } = inspectBus(host.vbus);
    expect(classes).toEqual(["venet", "vblk", "vconsole", "virtio-net", "virtio-rng"]);
    expect(devices.map(({ name, className, connections }) => `${name} ${className} ${connections}`)).toEqual([
      "nic0 venet 1",
      "nic1 venet 1",
      "disk0 vblk 1",
      "console0 vconsole 1",
      "card2 virtio-net 1",
      "entropy0 virtio-rng 0",
    ]);
    const [nic0, nic1, disk] = devices;
    expect(nic0).toMatchObject({
      buses: ["bus0"],
      interfaces: [{ bus: "bus0", id: 0, name: "default", type: "virtual-ethernet" }],
      attributes: { mtu: "1500", enabled: "1", link: "up", ifname: "nic0" },
      statistics: { tx: { frames: 20, passed: 20, bytes: 2000 } },
    });
    expect(nic0!.attributes["statistics"]).toBeUndefined();
    expect(nic1).toMatchObject({ statistics: { rx: { frames: 20, passed: 20, drops: {} } } });
    expect(disk).toMatchObject({
      statistics: { requests: 2, operations: { read: 1, write: 1 }, bytesWritten: 4096 },
    });
  });

  it("shows the sessions of each client, and every queue of them by name", () => {
    const { buses } = inspectBus(host.vbus);
    expect(buses).toMatchObject([{ name: "bus0", members: ["guest-a"] }]);
    const { clients, devices } = buses[0]!;
    expect(devices).toEqual(["nic0", "nic1", "disk0", "console0", "card2"]);
    expect(clients).toMatchObject([{ label: "guest-a", member: "guest-a", waitingEvents: 0 }]);
    const queues = Object.fromEntries(
      clients[0]!.sessions.map(({ device, queues }) => [
        device,
        queues.map(({ name, kind }) => `${name} ${kind}`),
      ]),
    );
    expect(queues).toMatchObject({
      disk0: ["request ioq", "completion ioq"],
      console0: ["rx ioq", "tx ioq", "events ioq"],
      card2: ["0 virtqueue", "1 virtqueue"], // its driver needs no control queue
    });
    for (const nic of ["nic0", "nic1"])
      expect(queues[nic]).toEqual(expect.arrayContaining(["rx ioq", "tx ioq"]));
    const card = clients[0]!.sessions.find(({ device }) => device === "card2")!;
    expect(card.queues[0]).toMatchObject({ side: "device", broken: null, signal: { counters: {} } });
  });

  it("shows where frames are: the guest's receive ring is its buffers, its transmit ring is empty", async () => {
    await host.work();
    const session = inspectBus(host.vbus).buses[0]!.clients[0]!.sessions.find(
      ({ device }) => device === "nic1",
    )!;
    const rx = session.queues.find(({ name }) => name === "rx")!;
    const tx = session.queues.find(({ name }) => name === "tx")!;
    if (rx.kind !== "ioq" || tx.kind !== "ioq") throw new Error("venet has IOQs");
    expect(rx.owners!.south).toBeGreaterThan(rx.count / 2);
    expect(tx.owners).toEqual({ north: tx.count, south: 0, other: 0 });
    expect(rx.counters.pushed).toBeGreaterThanOrEqual(20);
  });

  it("shows the switch, its ports and stations, and virtio devices beside the bus", async () => {
    await host.work(20);
    const { switches, virtio } = host.look();
    expect(switches).toMatchObject([{ name: "lan", counters: { balanced: true, inFlight: 0 } }]);
    const [lan] = switches;
    expect(lan!.ports.map(({ name }) => name)).toEqual(["nic0", "nic1", "card2", "card3"]);
    expect(lan!.ports[0]).toMatchObject({ received: 20, receivedBytes: 2000, stalled: false, drops: {} });
    expect(lan!.stations).toMatchObject([{ port: "nic0" }]);
    expect(virtio).toMatchObject([
      {
        name: "card3",
        deviceType: 1,
        status: ["acknowledge", "driver", "features-ok", "driver-ok"],
        queues: [{ name: "0" }, { name: "1" }],
        counters: { starts: 1 },
        statistics: { tx: { frames: 0 } },
      },
    ]);
    expect(virtio[0]!.features).toMatch(/^0x[0-9a-f]+$/);
  });

  it("goes on as if nobody had looked", async () => {
    const looking = setInterval(() => host.look(), 1);
    try {
      for (let i = 0; i < 20; i++) await host.work(50);
    } finally {
      clearInterval(looking);
    }
    const { switches } = host.look();
    expect(switches[0]).toMatchObject({
      counters: { delivered: expect.any(Number) as number, balanced: true },
    });
    expect(host.vbus.device("nic1")!.get("statistics")).toContain('"passed":1000');
  });

  it("is a tree as text, with rates when there was an earlier look, and pictures of all rings", async () => {
    await host.work(20);
    const before = host.look();
    await host.work(20);
    const now = host.look();
    (now as { time: number }).time = before.time + 2000;
    const text = inspectionText(now, { before });
    expect(text).toMatch(/^vbus\n├── devices/);
    for (const what of ["guest-a", "nic0/default", "rx  ioq south", "lan  switch", "card3  virtio type 1"])
      expect(text).toContain(what);
    expect(text).toMatch(/nic0 {2}40 in \(10\/s\), 4.0k B \(1.0k\/s\)/);
    const pictures = inspectionText(now, { rings: true });
    expect(pictures).toMatch(/\nguest-a nic1 rx {2}ioq {2}south/);
    expect(pictures.split("\n").filter((line) => /^ +\d+ [nNsS?.atu]+$/.test(line)).length).toBeGreaterThan(
      10,
    );
  });
});

it("the bridge of a guest, before and after it has an event queue", async () => {
  const scheduler = new VirtualScheduler();
  const vbus = new Vbus({ scheduler });
  const bus = vbus.createBus("bus0");
  bus.admit("guest");
  const memory = await openHostView(allocateGuestMemory({ size: 1 << 20 }));
  const fn = new PciBridge({
    bus,
    member: "guest",
    memory,
    scheduler,
    interrupts: { msi: () => {}, setLine: () => {} },
  });
  expect(inspectBridge(fn.bridge, "guest")).toMatchObject({
    name: "guest",
    negotiated: false,
    registered: false,
    eventQueue: null,
    counters: { calls: 0 },
  });
  fn.close();
  vbus.close();
});

describe("a device class that fails", () => {
  const failing = (statistics: unknown, queues: () => never[]): DeviceClass => ({
    name: "odd",
    create: () => ({
      attributes: new Map([
        ["fine", { get: () => "yes" }],
        [
          "bad",
          {
            get: (): string => {
              throw new VbusError("EBUSY", "not now");
            },
          },
        ],
        [
          "worse",
          {
            get: (): string => {
              throw new TypeError("a defect");
            },
          },
        ],
        ["deaf", { set: () => {} }],
        ["escape", { get: () => "\u001b[2Jgone" }],
      ]),
      get statistics(): object {
        if (statistics instanceof Error) throw statistics;
        return statistics as object;
      },
      busConnect: (publisher) => {
        publisher.publish({
          name: "default",
          type: "odd",
          connect: (): Connection => ({ call: () => 0, shm: () => 0, close: () => {}, queues }),
        });
      },
      busDisconnect: () => {},
      release: () => {},
    }),
  });

  async function look(statistics: unknown, queues: () => never[] = () => []): Promise<Inspection> {
    const vbus = new Vbus({ scheduler: new VirtualScheduler() });
    vbus.registerClass(failing(statistics, queues));
    const bus = vbus.createBus("bus0");
    bus.connect(vbus.createDevice("odd0", "odd"));
    bus.admit("guest");
    const client = bus.openClient({
      member: "guest",
      memory: await openHostView(allocateGuestMemory({ size: 1 << 20 })),
    });
    client.listen();
    expect(client.open(0, 1)).toBeGreaterThan(0);
    const inspection = inspect({ vbus });
    // and all that is made of it
    prometheusText(inspection);
    inspectionText(inspection, { rings: true, before: inspection });
    expect(json(inspection)).toEqual(inspection);
    return inspection;
  }

  it("shows which attributes cannot be read, and those that can", async () => {
    const { vbus } = await look({});
    expect(vbus!.devices[0]!.attributes).toEqual({
      fine: "yes",
      bad: "<EBUSY>",
      worse: "<EIO>",
      escape: "\u001b[2Jgone",
    });
  });

  it("cannot make a terminal do anything", async () => {
    // eslint-disable-next-line no-control-regex -- that is what must not be there
    expect(inspectionText(await look({ "\u001b[31m": 1 }))).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
  });

  it("has no statistics when asking for them throws", async () => {
    expect((await look(new Error("a defect"))).vbus!.devices[0]!.statistics).toBeNull();
  });

  it("says of its session what went wrong", async () => {
    const inspection = await look({}, () => {
      throw new Error("no queues today");
    });
    expect(inspection.vbus!.buses[0]!.clients[0]!.sessions).toMatchObject([
      { device: "odd0", queues: [], error: "no queues today" },
    ]);
  });

  it("may count whatever it likes: what JSON cannot say becomes something that it can", async () => {
    const loop: Record<string, unknown> = { n: 1 };
    loop["self"] = loop;
    const { vbus } = await look({
      big: 2n ** 70n,
      nan: NaN,
      infinite: -Infinity,
      call: () => 1,
      missing: undefined,
      list: [1, 2n, () => 3],
      loop,
      date: new Date(0),
    });
    expect(vbus!.devices[0]!.statistics).toMatchObject({
      big: String(2n ** 70n),
      nan: null,
      infinite: null,
      list: [1, "2", null],
      loop: { n: 1, self: { n: 1 } },
    });
  });
});
