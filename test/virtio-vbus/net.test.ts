import { SIGNAL_MAGIC } from "vbus/abi";
import { Vbus, type Bus } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import { virtioNet, type VirtioNet, type VirtioNetOptions } from "vbus/devices/virtio-net";
import { virtioClass, type VirtioVbusQueueReport } from "vbus/devices/virtio-vbus";
import { ProxyBus } from "vbus/drivers";
import type { TransmitFrame } from "vbus/drivers/venet";
import { virtioBusDriver } from "vbus/drivers/virtio";
import { VirtioNetDriver, type VirtioNic, type VirtioNicOptions } from "vbus/drivers/virtio-net";
import { allocateGuestMemory, GuestMemory, MemorySpace, openHostView } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import type { VirtioRingOptions } from "vbus/virtio";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { generator, seedOr } from "../engine/seed.js";
import { turns } from "../event-loop.js";
import { expectBytes } from "../vblk/machine.js";

const SEED = seedOr(20090704);

/** A guest with a card. */
interface NetGuest {
  nic: VirtioNic;
  card: VirtioNet;
  proxy: ProxyBus;
  memory: GuestMemory;
  /** What its bus reported. */
  errors: unknown[];
}

let errors: unknown[];
let scheduler: EventLoopScheduler;
let vbus: Vbus;
let bus: Bus;
let net: Switch;
let guests: NetGuest[];

beforeEach(async () => {
  errors = [];
  guests = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  vbus = new Vbus({ scheduler });
  vbus.on("error", (event) => errors.push(event));
  net = new Switch({ scheduler, space: await MemorySpace.host(), name: "net" });
});

afterEach(async () => {
  for (const { proxy, memory, errors: reported } of guests) {
    await proxy.close();
    expect(memory.ram.available, "guest memory given back").toBe(memory.ram.size);
    expect(reported).toEqual([]);
  }
  vbus.close();
  net.close();
  await turns();
  expect(errors).toEqual([]);
});

async function addGuest(
  options: VirtioNicOptions = {},
  device: Partial<VirtioNetOptions> = {},
  rings: VirtioRingOptions = {},
): Promise<NetGuest> {
  const n = guests.length;
  let card: VirtioNet | null = null;
  vbus.registerClass(
    virtioClass({
      name: `net${n}`,
      rings,
      create: ({ name }) => {
        const face = virtioNet({ name, port: net.addPort(name), mac: `02:00:00:00:00:0${n}`, ...device });
        card = face;
        return { face, release: () => face.close() };
      },
    }),
  );
  bus = vbus.createBus(`bus${n}`);
  bus.connect(vbus.createDevice(`nic${n}`, `net${n}`));
  const init = allocateGuestMemory({ size: 8 << 20, arenaSize: 1 << 20 });
  const memory = await GuestMemory.open(init);
  bus.admit("guest");
  const client = bus.openClient({ member: "guest", memory: await openHostView(init) });
  const reported: unknown[] = [];
  const proxy = new ProxyBus(new LocalConnector(client, memory, scheduler), {
    error: (_device, error) => reported.push(error),
  });
  const nic = await new Promise<VirtioNic>((resolve, reject) => {
    proxy.registerDriver(virtioBusDriver([new VirtioNetDriver(resolve, options)]));
    proxy.start().catch(reject);
  });
  const guest = { nic, card: card!, proxy, memory, errors: reported };
  guests.push(guest);
  return guest;
}

/** A frame from one card to another: addresses, an experimental type, and bytes that depend on `n`. */
function frame(to: VirtioNic, from: VirtioNic, length: number, n: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  bytes.set(to.mac);
  bytes.set(from.mac, 6);
  bytes.set([0x88, 0xb5], 12);
  for (let i = 14; i < length; i++) bytes[i] = (n * 131 + i * 7) & 0xff;
  return bytes;
}

/** Receives until there are `count` frames. */
async function receiveAll(nic: VirtioNic, count: number): Promise<Uint8Array[]> {
  const all: Uint8Array[] = [];
  while (all.length < count) all.push(...(await nic.receive()));
  return all;
}

describe.each<[string, VirtioNicOptions]>([
  ["packed rings", {}],
  ["packed rings without event index", { eventIndex: false }],
  ["split rings", { packed: false }],
  [
    "split rings without event index, offloads or mergeable buffers",
    { packed: false, eventIndex: false, offloads: false, mergeable: false },
  ],
  ["rings of 4 descriptors", { rxRing: 4, txRing: 4 }],
])("frames between two guests by virtio-net over vbus (%s)", (_what, options) => {
  it(`arrive complete, unchanged and in order, thousands of them both ways (seed ${SEED})`, async () => {
    const [a, b] = [await addGuest(options), await addGuest(options)];
    const random = generator(SEED);
    const run = async (from: NetGuest, to: NetGuest): Promise<void> => {
      const sent = Array.from({ length: 3000 }, (_, n) => frame(to.nic, from.nic, 60 + (random() % 1455), n));
      const received = receiveAll(to.nic, sent.length);
      for (let at = 0; at < sent.length;) {
        const n = 1 + (random() % 100);
        await from.nic.send(sent.slice(at, at + n));
        at += n;
      }
      const all = await received;
      expect(all).toHaveLength(sent.length);
      for (const [i, bytes] of all.entries()) expectBytes(bytes, sent[i]!);
    };
    await Promise.all([run(a, b), run(b, a)]);
    for (const { nic } of [a, b]) {
      expect(nic.statistics()).toMatchObject({
        tx_packets: 3000,
        rx_packets: 3000,
        rx_length_errors: 0,
        rx_frame_errors: 0,
      });
    }
  });
});

describe.each([true, false])("a virtio-net card in a guest, packed rings: %s", (packed) => {
  it("wants no interrupts for what it has sent, as long as nobody waits for room", async () => {
    const [a, b] = [await addGuest({ packed }), await addGuest({ packed })];
    for (let n = 0; n < 20; n++) {
      await a.nic.send([frame(b.nic, a.nic, 60, n)]);
      await receiveAll(b.nic, 1);
    }
    const queues = JSON.parse(vbus.read("devices/nic0/virtio_queues")) as VirtioVbusQueueReport[];
    // an event index names a position, so one of a split ring cannot say never: that position comes by once
    expect(queues.find(({ index }) => index === 1)?.signal.sent).toBeLessThanOrEqual(packed ? 0 : 1);
  });
});

describe("a virtio-net card in a guest", () => {
  it("takes the device's address and MTU, and what both know of features", async () => {
    const { nic } = await addGuest({}, { mtu: 9000 });
    expect([...nic.mac]).toEqual([2, 0, 0, 0, 0, 0]);
    expect(nic.mtu).toBe(9000);
    expect(nic.frameLimit).toBe(9018);
    expect(nic.offloads.tx).toEqual({
      scatterGather: true,
      checksum: true,
      tcp4: true,
      tcp6: true,
      udp: true,
      ecn: true,
    });
    expect(nic.offloads.rx).toEqual(nic.offloads.tx);
    const { nic: plain } = await addGuest({ offloads: false });
    expect(plain.offloads.rx).toMatchObject({ checksum: false, tcp4: false, udp: false });
    await expect(plain.send([superframe(plain, plain)])).rejects.toMatchObject({ code: "EOPNOTSUPP" });
    await expect(plain.send([new Uint8Array(1519)])).rejects.toMatchObject({ code: "EINVAL" });
    await expect(plain.send([new Uint8Array(13)])).rejects.toMatchObject({ code: "EINVAL" });
  });

  it("sends and receives superframes as they are, over several buffers, and cuts them for receive()", async () => {
    const [a, b] = [await addGuest(), await addGuest()];
    const big = superframe(b.nic, a.nic);
    await a.nic.send([big]);
    const [got] = await b.nic.receiveFrames();
    expect(got!.gso).toMatchObject({ kind: "udp", size: 1000 });
    expectBytes(got!.data, big.data as Uint8Array);
    await a.nic.send([big]);
    const cut = await receiveAll(b.nic, 40);
    expect(cut.map((bytes) => bytes.length)).toEqual(Array.from({ length: 40 }, () => 42 + 1000));
    expect(b.nic.statistics()).toMatchObject({ rx_gro: 2, rx_packets: 2 });
    expect(a.nic.statistics()).toMatchObject({ tx_tso: 2, tx_csum_partial: 2 });
  });

  it("pushes back: a receiver that takes nothing keeps the frames in the ring, and gets them all later", async () => {
    const [a, b] = [await addGuest({ txRing: 64 }), await addGuest({ rxRing: 64 })];
    const got: Uint8Array[] = [];
    let open = false;
    b.nic.onFrames = (batch, from, to) => {
      if (!open) return 0;
      const n = Math.min(3, to - from);
      for (let i = from; i < from + n; i++) got.push(batch.copy(i));
      if (n < to - from) scheduler.post(() => b.nic.resumeReceive());
      return n;
    };
    const sent = Array.from({ length: 60 }, (_, n) => frame(b.nic, a.nic, 100 + n, n));
    await a.nic.send(sent);
    await turns();
    expect(got).toEqual([]);
    open = true;
    b.nic.resumeReceive();
    await turns();
    expect(got).toHaveLength(60);
    for (const [i, bytes] of got.entries()) expectBytes(bytes, sent[i]!);
  });

  it("hears of the carrier", async () => {
    const { nic, card } = await addGuest();
    const heard: boolean[] = [];
    nic.onLink = (up) => heard.push(up);
    expect(nic.carrier).toBe(true);
    card.carrier = false;
    await turns();
    card.carrier = true;
    await turns();
    expect(heard).toEqual([false, true]);
  });

  it("is unplugged under load, gives everything back, and another one takes its place", async () => {
    const [a, b] = [await addGuest(), await addGuest()];
    const flood = Array.from({ length: 5000 }, (_, n) => frame(b.nic, a.nic, 800, n));
    const sending = a.nic.send(flood);
    sending.catch(() => undefined);
    const receiving = b.nic.receive();
    await receiving;
    const waiting = a.nic.receive();
    vbus.bus("bus0")!.disconnect("nic0");
    await expect(waiting).rejects.toMatchObject({ code: "ENOTCONN" });
    await turns();
    await a.proxy.settled();
    expect(a.memory.ram.available - a.memory.ram.size).toBe(0);
    await expect(a.nic.send([flood[0]!])).rejects.toMatchObject({ code: "ENOTCONN" });
    const c = await addGuest();
    await c.nic.send([frame(b.nic, c.nic, 99, 1)]);
    let last: Uint8Array | undefined;
    while (last?.length !== 99) last = (await b.nic.receive()).at(-1);
  });

  it("fails, and says why, when its ring breaks, and the other card goes on", async () => {
    const [a, b] = [await addGuest({ packed: false }), await addGuest()];
    const failures: unknown[] = [];
    a.nic.onError = (error) => failures.push(error);
    const reports = JSON.parse(vbus.read("devices/nic0/virtio_queues")) as { size: number }[];
    expect(reports.map(({ size }) => size)).toEqual([256, 256]);
    scribble(a.memory);
    await b.nic.send([frame(a.nic, b.nic, 100, 1)]);
    await turns();
    expect(failures).toHaveLength(1);
    expect(failures[0]).toMatchObject({ code: "EIO" });
    await expect(a.nic.receive()).rejects.toMatchObject({ code: "EIO" });
    expect(errors).toHaveLength(1);
    errors.length = 0; // the host told of it
    const c = await addGuest();
    await c.nic.send([frame(b.nic, c.nic, 77, 1)]);
    expect((await b.nic.receive()).map((bytes) => bytes.length)).toEqual([77]);
  });
});

/** Overwrites all of a guest's rings and buffers, but for its signals. */
function scribble(memory: GuestMemory): void {
  const bytes = memory.space.view(memory.ram.start, memory.ram.size);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length; at += 16)
    if (view.getUint32(at, true) !== SIGNAL_MAGIC) bytes.fill(0xff, at, at + 16);
}

/** Forty datagrams of 1000 bytes in one UDP/IPv4 superframe, its checksum partial. */
function superframe(to: VirtioNic, from: VirtioNic): TransmitFrame {
  const payload = 40_000;
  const data = frame(to, from, 42 + payload, 5);
  const view = new DataView(data.buffer);
  view.setUint16(12, 0x0800);
  data.set([0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 14);
  view.setUint16(16, 28 + payload);
  view.setUint16(24, sum(data.subarray(14, 34)) ^ 0xffff);
  view.setUint16(34, 1000);
  view.setUint16(36, 2000);
  view.setUint16(38, 8 + payload);
  const pseudo = Uint8Array.of(10, 0, 0, 1, 10, 0, 0, 2, 0, 17, (8 + payload) >> 8, (8 + payload) & 0xff);
  view.setUint16(40, sum(pseudo));
  return {
    data,
    checksum: { start: 34, offset: 6 },
    gso: { kind: "udp", size: 1000, headerLength: 42 },
  };
}

/** One's complement sum. */
function sum(bytes: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i += 2) total += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (total > 0xffff) total = (total & 0xffff) + (total >> 16);
  return total;
}
