import {
  VIRTIO_F_RING_RESET,
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_ERR,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_UFO,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_UFO,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_OK,
} from "vbus/abi";
import { VirtioLocal } from "vbus/connectors/virtio-local";
import { VirtioNet } from "vbus/devices/virtio-net";
import { MemorySpace } from "vbus/memory";
import { HostFrames, Loopback } from "vbus/net";
import { describe, expect, it } from "vitest";
import { packet } from "../offload/packets.js";
import { testFrame } from "../venet/machine.js";
import { ACKNOWLEDGE, bit, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, NetMachine } from "./machine.js";

const MAC = [2, 0, 0, 0, 0, 0x0a];
const TO = [2, 0, 0, 0, 0, 1];

async function offer(machine: NetMachine, frames: readonly Uint8Array[]): Promise<number> {
  const { batch } = HostFrames.of(await MemorySpace.host(2 << 20), frames);
  const taken = machine.port.peer?.receive(batch, 0, frames.length) ?? -1;
  machine.scheduler.run();
  return taken;
}

describe("features", () => {
  const accepted = async (features: bigint): Promise<boolean> => {
    const { transport } = await NetMachine.create({ pairs: 2 });
    await transport.setStatus(ACKNOWLEDGE);
    await transport.setStatus(DRIVER);
    await transport.acceptFeatures(features | bit(32));
    return ((await transport.setStatus(FEATURES_OK)) & FEATURES_OK) !== 0;
  };

  it.each<[string, bigint]>([
    ["GUEST_TSO4 without GUEST_CSUM", bit(VIRTIO_NET_F_GUEST_TSO4)],
    ["GUEST_USO4 without GUEST_CSUM", bit(VIRTIO_NET_F_GUEST_USO4)],
    ["GUEST_ECN without GUEST_TSO", bit(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN)],
    ["HOST_TSO6 without CSUM", bit(VIRTIO_NET_F_HOST_TSO6)],
    ["HOST_USO without CSUM", bit(VIRTIO_NET_F_HOST_USO)],
    ["HOST_ECN without HOST_TSO", bit(VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_ECN)],
    ["CTRL_RX without CTRL_VQ", bit(VIRTIO_NET_F_CTRL_RX)],
    ["MQ without CTRL_VQ", bit(VIRTIO_NET_F_MQ)],
    ["UFO, which is never offered", bit(VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_UFO)],
    ["UFO towards the driver", bit(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_UFO)],
  ])("%s are no choice", async (_what, features) => {
    expect(await accepted(features)).toBe(false);
  });

  it.each<[string, bigint]>([
    ["nothing", 0n],
    ["a checksum each way", bit(VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM)],
    ["ECN with what it needs", bit(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_ECN)],
    ["pairs with what they need", bit(VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ)],
  ])("%s is one", async (_what, features) => {
    expect(await accepted(features)).toBe(true);
  });

  it("follow the options", async () => {
    const offered = async (options: object): Promise<bigint> =>
      (await NetMachine.create(options)).transport.offeredFeatures();
    const offloads = bit(VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_USO);
    expect((await offered({})) & offloads).toBe(offloads);
    expect((await offered({ offloads: false })) & offloads).toBe(0n);
    expect((await offered({ mergeable: false })) & bit(VIRTIO_NET_F_MRG_RXBUF)).toBe(0n);
    expect((await offered({})) & bit(VIRTIO_NET_F_MQ)).toBe(0n);
    expect((await offered({ pairs: 4 })) & bit(VIRTIO_NET_F_MQ)).toBe(bit(VIRTIO_NET_F_MQ));
  });

  it.each([
    { pairs: 0 },
    { pairs: 1.5 },
    { mtu: 67 },
    { mtu: 65001 },
    { mac: "01:00:00:00:00:01" },
    { mac: "nonsense" },
  ])("options that make no sense are refused: %j", (options) => {
    expect(() => new VirtioNet({ name: "net0", ...options })).toThrow(/EINVAL/);
  });
});

describe("the configuration", () => {
  it("shows address, link, MTU, pairs and speed, and follows them", async () => {
    const machine = await NetMachine.create({ pairs: 3, mtu: 9000, speed: 2500 });
    expect(await machine.config()).toEqual({
      mac: "02000000000a",
      status: 1,
      pairs: 3,
      mtu: 9000,
      speed: 2500,
      duplex: 1,
    });
    await machine.start(bit(VIRTIO_NET_F_STATUS));
    machine.card.mtu = 1400;
    machine.card.speed = null;
    machine.card.carrier = false;
    machine.scheduler.run();
    expect(machine.configChanges).toBeGreaterThan(0);
    expect(await machine.config()).toMatchObject({ status: 0, mtu: 1400, speed: 0xffffffff, duplex: 255 });
  });

  it("has a generation that changes with it", async () => {
    const machine = await NetMachine.create();
    await machine.start();
    const before = machine.transport.device.config.generation;
    machine.card.mac = "02:00:00:00:00:0c";
    expect(machine.transport.device.config.generation).not.toBe(before);
  });

  it("cannot be written", async () => {
    const machine = await NetMachine.create();
    await machine.start();
    const before = await machine.config();
    await machine.transport.writeConfig(0, new Uint8Array(20).fill(0xff));
    expect(await machine.config()).toEqual(before);
  });
});

describe("the link", () => {
  it("goes down and up: frames wait meanwhile, in either direction", async () => {
    const machine = await NetMachine.create();
    await machine.start();
    machine.post(4, 2000);
    machine.card.carrier = false;
    expect(machine.port.peer).toBeNull();
    expect(machine.card.linkUp).toBe(false);
    machine.send(testFrame(TO, MAC, 60));
    machine.scheduler.run();
    expect(machine.card.statistics.tx.drops).toEqual({ "no-link": 1 });
    machine.card.carrier = true;
    expect(await offer(machine, [testFrame(MAC, TO, 60)])).toBe(1);
    machine.send(testFrame(TO, MAC, 61));
    machine.scheduler.run();
    expect(machine.port.sent).toHaveLength(1);
    machine.assertBalanced();
  });

  it("without a port is down, and frames are counted", async () => {
    const machine = await NetMachine.create({ port: null });
    await machine.start();
    expect((await machine.config()).status).toBe(0);
    machine.send(testFrame(TO, MAC, 60));
    machine.scheduler.run();
    expect(machine.card.statistics.tx.drops).toEqual({ "no-link": 1 });
    machine.card.port = machine.port;
    machine.scheduler.run();
    expect((await machine.config()).status & 1).toBe(1);
    machine.send(testFrame(TO, MAC, 60));
    machine.scheduler.run();
    expect(machine.port.sent).toHaveLength(1);
  });

  it("a port that refuses the card is none, and the driver is told to reset when it was the first", async () => {
    const machine = await NetMachine.create();
    machine.port.refusal = new Error("no room here");
    await machine.start();
    expect(machine.errors).toMatchObject([{ message: "no room here" }]);
    expect(machine.transport.device.status & NEEDS_RESET).toBe(NEEDS_RESET);
    machine.port.refusal = null;
    await machine.start();
    expect(machine.port.peer).not.toBeNull();
    machine.card.carrier = false;
    machine.port.refusal = new Error("still none");
    expect(() => {
      machine.card.carrier = true;
    }).toThrow("still none");
    expect(machine.card.linkUp).toBe(false);
  });

  it("the card closes its port, and a driver that is left finds the link down", async () => {
    const machine = await NetMachine.create();
    await machine.start(bit(VIRTIO_NET_F_STATUS));
    machine.card.close();
    machine.card.close();
    expect(machine.port.closed).toBe(true);
    expect((await machine.config()).status).toBe(0);
    await machine.transport.reset();
    await machine.start();
    expect(machine.errors).toMatchObject([{ code: "ENOTCONN" }]);
  });
});

describe("a reset", () => {
  it("in the midst of a burst lets go of the guest's memory, and every frame is accounted for", async () => {
    const machine = await NetMachine.create();
    await machine.start();
    const { port, transport } = machine;
    const real = port.transmit.bind(port);
    let calls = 0;
    port.transmit = (batch, from, to) => {
      const n = real(batch, from, Math.min(to, from + 3));
      if (++calls === 2) void transport.reset();
      return n;
    };
    for (let n = 0; n < 40; n++) {
      machine.send(testFrame(TO, MAC, 60 + n, n));
      if (n === 19) machine.scheduler.run();
      if (n >= 20 && machine.tx.ring.closed) break;
    }
    port.peer?.writable();
    machine.scheduler.run();
    machine.assertBalanced();
    expect(machine.errors).toEqual([]);
    port.transmit = real;
    await machine.start();
    machine.send(testFrame(TO, MAC, 60));
    machine.scheduler.run();
    expect(port.sent).toHaveLength(7);
    machine.assertBalanced();
  });

  it("frames that nobody took are counted as closed", async () => {
    const machine = await NetMachine.create();
    await machine.start();
    machine.port.room = 2;
    for (let n = 0; n < 100; n++) machine.send(testFrame(TO, MAC, 60));
    machine.scheduler.run();
    await machine.transport.reset();
    expect(machine.card.statistics.tx).toMatchObject({ frames: 100, passed: 2, drops: { closed: 98 } });
    expect(machine.port.peer).toBeNull();
    machine.assertBalanced();
  });

  it("ends the link: frames that a network still delivers are counted", async () => {
    const machine = await NetMachine.create();
    await machine.start();
    machine.post(8, 2000);
    const space = await MemorySpace.host();
    const { batch } = HostFrames.of(
      space,
      Array.from({ length: 8 }, (_, n) => testFrame(MAC, TO, 60 + n)),
    );
    const { peer } = machine.port;
    await machine.transport.reset();
    expect(peer?.receive(batch, 0, 8)).toBe(8);
    expect(machine.card.statistics.rx.drops).toEqual({ "no-link": 8 });
    machine.assertBalanced();
  });

  it("gives all of the host's memory back, however often", async () => {
    const machine = await NetMachine.create();
    await machine.start();
    await machine.transport.reset();
    const before = machine.host.arena.available;
    for (let n = 0; n < 50; n++) {
      await machine.start();
      machine.post(2, 2000);
      machine.send(testFrame(TO, MAC, 60));
      machine.scheduler.run();
    }
    await machine.transport.reset();
    expect(machine.host.arena.available).toBe(before);
  });

  it("of one queue leaves the others at work", async () => {
    const machine = await NetMachine.create();
    await machine.start(undefined, bit(VIRTIO_F_RING_RESET));
    machine.post(2, 2000);
    machine.port.room = 1;
    for (let n = 0; n < 4; n++) machine.send(testFrame(TO, MAC, 60));
    machine.scheduler.run();
    await machine.transport.resetQueue(1);
    expect(machine.card.statistics.tx).toMatchObject({ frames: 4, passed: 1, drops: { closed: 3 } });
    expect(await offer(machine, [testFrame(MAC, TO, 60)])).toBe(1);
    await machine.transport.resetQueue(0);
    expect(await offer(machine, [testFrame(MAC, TO, 60)]), "no queue, no link").toBe(1);
    expect(machine.card.statistics.rx.drops).toEqual({ "no-link": 1 });
    await machine.addQueue(0);
    await machine.addQueue(1);
    machine.port.open(Infinity);
    machine.post(1, 2000);
    expect(await offer(machine, [testFrame(MAC, TO, 62)])).toBe(1);
    machine.send(testFrame(TO, MAC, 63));
    machine.scheduler.run();
    expect(machine.received().map(({ frame }) => frame.length)).toEqual([62]);
    expect(machine.port.sent.map(({ length }) => length)).toEqual([60, 63]);
    machine.assertBalanced();
    expect(machine.errors).toEqual([]);
  });

  it("while another transport has the card is refused to the second, which must reset", async () => {
    const machine = await NetMachine.create();
    await machine.start();
    const errors: unknown[] = [];
    const second = new VirtioLocal({
      face: machine.card,
      guest: machine.guest,
      host: machine.host,
      scheduler: machine.scheduler,
      onError: (error) => errors.push(error),
    });
    await second.setStatus(ACKNOWLEDGE);
    await second.setStatus(DRIVER);
    await second.acceptFeatures(bit(32));
    await second.setStatus(FEATURES_OK);
    expect((await second.setStatus(DRIVER_OK)) & NEEDS_RESET).toBe(NEEDS_RESET);
    expect(errors).toMatchObject([{ code: "EBUSY" }]);
    machine.send(testFrame(TO, MAC, 60));
    machine.scheduler.run();
    expect(machine.port.sent).toHaveLength(1);
  });
});

describe("several pairs of queues", () => {
  const MULTI = bit(VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MTU);
  const flow = (n: number, back = false): Uint8Array =>
    packet({
      destinationMac: back ? MAC : TO,
      sourceMac: back ? TO : MAC,
      source: back ? [10, 0, 0, 2] : [10, 0, 0, 1],
      destination: back ? [10, 0, 0, 1] : [10, 0, 0, 2],
      sourcePort: back ? 80 : 1000 + n,
      destinationPort: back ? 1000 + n : 80,
      payload: [n],
    });

  async function started(used: number): Promise<NetMachine> {
    const machine = await NetMachine.create({ pairs: 4 });
    await machine.start(MULTI);
    const { ack } = machine.command(VIRTIO_NET_CTRL_MQ, 0, [used, 0], 1, machine.queue(8));
    expect(ack).toBe(VIRTIO_NET_OK);
    for (let pair = 0; pair < 4; pair++)
      for (let n = 0; n < 40; n++) machine.queue(2 * pair).add([], machine.room(2000));
    machine.scheduler.run();
    return machine;
  }

  it("answers come to the queue that belongs to the one that was asked on", async () => {
    const machine = await started(4);
    for (let n = 0; n < 16; n++) machine.send(flow(n), {}, [], machine.queue(2 * (n % 4) + 1));
    machine.scheduler.run();
    expect(machine.port.sent).toHaveLength(16);
    expect(
      await offer(
        machine,
        Array.from({ length: 16 }, (_, n) => flow(n, true)),
      ),
    ).toBe(16);
    for (let pair = 0; pair < 4; pair++) {
      const got = machine.received(machine.queue(2 * pair)).map(({ frame }) => frame.at(-1));
      expect(got).toEqual([0, 1, 2, 3].map((k) => 4 * k + pair));
    }
    machine.assertBalanced();
  });

  it("flows that were never sent on are spread, each in order on one queue", async () => {
    const machine = await started(4);
    const frames = Array.from({ length: 96 }, (_, n) => {
      const frame = flow(n % 24, true);
      frame[frame.length - 1] = n;
      return frame;
    });
    expect(await offer(machine, frames)).toBe(96);
    const queues = new Set<number>();
    const seen = new Map<number, number>();
    for (let pair = 0; pair < 4; pair++) {
      for (const { frame } of machine.received(machine.queue(2 * pair))) {
        const n = frame.at(-1) as number;
        const key = n % 24;
        expect(n, "in order").toBeGreaterThan(seen.get(key) ?? -1);
        seen.set(key, n);
        queues.add(pair);
      }
    }
    expect(seen.size).toBe(24);
    expect(queues.size).toBeGreaterThan(1);
  });

  it("only the pairs that the driver uses are used: one at first", async () => {
    const machine = await started(1);
    machine.send(flow(1), {}, [], machine.queue(3));
    machine.scheduler.run();
    expect(machine.port.sent).toEqual([]);
    await offer(
      machine,
      Array.from({ length: 20 }, (_, n) => flow(n, true)),
    );
    expect(machine.received(machine.queue(0))).toHaveLength(20);
    expect(machine.command(VIRTIO_NET_CTRL_MQ, 0, [2, 0], 1, machine.queue(8)).ack).toBe(VIRTIO_NET_OK);
    machine.scheduler.run();
    expect(machine.port.sent, "what waits is sent now").toHaveLength(1);
    for (const pairs of [0, 5, 0xffff]) {
      const { ack } = machine.command(VIRTIO_NET_CTRL_MQ, 0, [pairs & 255, pairs >> 8], 1, machine.queue(8));
      expect(ack).toBe(VIRTIO_NET_ERR);
    }
    await machine.transport.reset();
    machine.assertBalanced();
  });

  it("share the network's room when it comes back", async () => {
    const machine = await started(2);
    machine.port.room = 0;
    for (let n = 0; n < 100; n++) {
      machine.send(flow(n), {}, [], machine.queue(1));
      machine.send(flow(n), {}, [], machine.queue(3));
    }
    machine.scheduler.run();
    for (let n = 0; n < 20; n++) {
      machine.port.open(1);
      machine.scheduler.run();
    }
    expect(machine.queue(1).reap().length).toBe(10);
    expect(machine.queue(3).reap().length).toBe(10);
    machine.port.open(Infinity);
    machine.scheduler.run();
    expect(machine.port.sent).toHaveLength(200);
    machine.assertBalanced();
  });

  it("a driver without the feature finds its control queue behind the first pair", async () => {
    const machine = await NetMachine.create({ pairs: 4 });
    await machine.start(bit(VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_RX));
    expect(machine.command(0, 0, [0]).ack).toBe(VIRTIO_NET_OK);
    expect(machine.card.statistics.commands).toBe(1);
  });
});

it("a card on a loopback hears itself", async () => {
  const machine = await NetMachine.create({ port: null });
  machine.card.port = new Loopback({ scheduler: machine.scheduler, space: await MemorySpace.host() });
  await machine.start(bit(VIRTIO_NET_F_MTU));
  machine.post(5, 2000);
  const frame = testFrame(MAC, MAC, 100);
  machine.send(frame);
  machine.scheduler.run();
  expect(machine.received().map(({ frame: bytes }) => bytes)).toEqual([frame]);
});
