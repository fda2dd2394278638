/** virtio-blk and virtio-console carried by the bus, with a driver in TypeScript on the other side. */
import {
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from "vbus/abi";
import { Vbus, type Bus } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import { MemoryBackend } from "vbus/devices/vblk";
import { Terminal } from "vbus/devices/vconsole";
import { virtioBlk, type VirtioBlk } from "vbus/devices/virtio-blk";
import { virtioConsole } from "vbus/devices/virtio-console";
import { virtioClass } from "vbus/devices/virtio-vbus";
import { ProxyBus } from "vbus/drivers";
import { virtioBusDriver, type VirtioDriver } from "vbus/drivers/virtio";
import { allocateGuestMemory, GuestMemory, openHostView } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";
import type { VirtioFace } from "vbus/virtio";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { turns } from "../event-loop.js";
import { generator, seedOr } from "../engine/seed.js";
import { head } from "../virtio-blk/machine.js";
import { chainDriver, type ChainDevice } from "./chain-driver.js";

const SEED = seedOr(20261127);
const BLOCK = 2;
const CONSOLE = 3;
const SECTOR = 512;
const without =
  (...bits: number[]) =>
  (offered: bigint): bigint =>
    bits.reduce((left, bit) => left & ~(1n << BigInt(bit)), offered);
const RINGS: [string, (offered: bigint) => bigint][] = [
  ["packed", without()],
  ["packed, in any order, direct", without(VIRTIO_F_IN_ORDER, VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX)],
  ["split", without(VIRTIO_F_RING_PACKED)],
  ["split, direct, by flags", without(VIRTIO_F_RING_PACKED, VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX)],
];

let errors: unknown[];
let vbus: Vbus;
let bus: Bus;
let scheduler: EventLoopScheduler;
let memory: GuestMemory;
let proxy: ProxyBus;

beforeEach(() => {
  errors = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  vbus = new Vbus({ scheduler });
  vbus.on("error", (event) => errors.push(event));
  bus = vbus.createBus("bus0");
  bus.admit("guest");
});

afterEach(async () => {
  await proxy.close();
  expect(memory.ram.available, "guest memory given back").toBe(memory.ram.size);
  vbus.close();
  await turns();
  expect(errors).toEqual([]);
});

function plug(name: string, face: VirtioFace, release: () => void): void {
  vbus.registerClass(virtioClass({ name: `class-${name}`, create: () => ({ face, release }) }));
  bus.connect(vbus.createDevice(name, `class-${name}`));
}

async function start(make: (bound: (device: ChainDevice) => void) => VirtioDriver): Promise<ChainDevice> {
  const init = allocateGuestMemory({ size: 2 << 20, arenaSize: 1 << 18 });
  memory = await GuestMemory.open(init);
  const client = bus.openClient({ member: "guest", memory: await openHostView(init) });
  let device: ChainDevice | null = null;
  const refused: unknown[] = [];
  proxy = new ProxyBus(new LocalConnector(client, memory, scheduler), {
    error: (_device, error) => refused.push(error),
  });
  proxy.registerDriver(virtioBusDriver([make((bound) => (device = bound))]));
  await proxy.start();
  await turns();
  await proxy.settled();
  expect(refused).toEqual([]);
  return device!;
}

describe.each(RINGS)("a virtio disk on the bus, rings: %s", (_what, choose) => {
  let disk: VirtioBlk;
  let content: MemoryBackend;
  let device: ChainDevice;

  beforeEach(async () => {
    content = new MemoryBackend(1 << 20);
    disk = virtioBlk({
      name: "disk0",
      backend: content,
      serial: "on-the-bus",
      onError: (e) => errors.push(e),
    });
    plug("disk0", disk, () => void disk.close());
    device = await start((bound) => chainDriver(BLOCK, 1, bound, choose));
  });

  /** One request; its status. */
  async function ask(type: number, sector: number, out: Uint8Array | null, room: number) {
    const status = device.place(1);
    const data = room > 0 ? [device.place(room)] : [];
    const readable = [device.place(head(type, sector)), ...(out === null ? [] : [device.place(out)])];
    const written = await device.queues[0]!.send(readable, [...data, status]);
    return {
      status: device.read(status)[0]!,
      written,
      data: data[0] === undefined ? null : device.read(data[0]),
    };
  }

  it("tells its size, its name, and refuses what it does not know", async () => {
    const config = await device.transport.readConfig(0, 8);
    expect(new DataView(config.buffer, config.byteOffset).getBigUint64(0, true)).toBe(
      BigInt((1 << 20) / SECTOR),
    );
    const id = await ask(VIRTIO_BLK_T_GET_ID, 0, null, 20);
    expect(Buffer.from(id.data!).toString("latin1").replaceAll("\0", "")).toBe("on-the-bus");
    expect((await ask(77, 0, null, 0)).status).toBe(VIRTIO_BLK_S_UNSUPP);
  });

  it(`holds what is written, byte for byte, many requests at a time (seed ${SEED})`, async () => {
    const random = generator(SEED);
    const image = new Uint8Array(1 << 20);
    for (let round = 0; round < 6; round++) {
      const writes = Array.from({ length: 4 }, (_, i) => {
        const sector = i * 400 + (random() % 300);
        const bytes = Uint8Array.from({ length: SECTOR * (1 + (random() % 40)) }, () => random() & 255);
        image.set(bytes, sector * SECTOR);
        return ask(VIRTIO_BLK_T_OUT, sector, bytes, 0);
      });
      for (const { status, written } of await Promise.all(writes))
        expect({ status, written }).toEqual({ status: VIRTIO_BLK_S_OK, written: 1 });
      expect((await ask(VIRTIO_BLK_T_FLUSH, 0, null, 0)).status).toBe(VIRTIO_BLK_S_OK);
      const sector = random() % 1900;
      const { data, written } = await ask(VIRTIO_BLK_T_IN, sector, null, 8192);
      expect(written).toBe(8193);
      expect(Buffer.compare(data!, image.subarray(sector * SECTOR, sector * SECTOR + 8192))).toBe(0);
    }
    expect(Buffer.compare(content.bytes, image)).toBe(0);
    expect(disk.statistics).toMatchObject({
      failed: 0,
      unsupported: 0,
      cancelled: 0,
      outstanding: 0,
      bytesRead: 49152,
    });
  });

  it("tells its driver that it has grown", async () => {
    await disk.resize(2 << 20);
    await turns();
    expect(device.configChanges).toBeGreaterThan(0); // a signal may be told twice
    const config = await device.transport.readConfig(0, 8);
    expect(new DataView(config.buffer, config.byteOffset).getBigUint64(0, true)).toBe(
      BigInt((2 << 20) / SECTOR),
    );
  });
});

describe.each(RINGS)("a virtio console on the bus, rings: %s", (_what, choose) => {
  it(`carries bytes both ways, unchanged and in order (seed ${SEED})`, async () => {
    const random = generator(SEED);
    const terminal = new Terminal();
    const heard: number[] = [];
    terminal.onData = (bytes) => {
      heard.push(...bytes);
    };
    const face = virtioConsole({ name: "console0", ports: [{ terminal }], onError: (e) => errors.push(e) });
    plug("console0", face, () => {
      face.close();
    });
    // one port, and so a receive and a transmit queue
    const plain = (offered: bigint): bigint => choose(offered) & ~(1n << BigInt(VIRTIO_CONSOLE_F_MULTIPORT));
    const device = await start((bound) => chainDriver(CONSOLE, 2, bound, plain));
    const [rx, tx] = device.queues;

    const said = Uint8Array.from({ length: 5000 }, () => random() & 255);
    for (let at = 0; at < said.length;) {
      const length = Math.min(said.length - at, 1 + (random() % 700));
      await tx!.send([device.place(said.subarray(at, at + length))], []);
      at += length;
    }
    while (heard.length < said.length) await turns();
    expect(Buffer.compare(Buffer.from(heard), said)).toBe(0);

    const told = Uint8Array.from({ length: 5000 }, () => random() & 255);
    const got: number[] = [];
    const writing = terminal.write(told);
    while (got.length < told.length) {
      const buffer = device.place(333);
      const written = await rx!.send([], [buffer]);
      expect(written).toBeGreaterThan(0);
      got.push(...device.read(buffer).subarray(0, written));
    }
    await writing;
    expect(Buffer.compare(Buffer.from(got), told)).toBe(0);
    expect(face.statistics.ports["0"]).toMatchObject({
      tx: { bytes: 5000, passed: 5000 },
      rx: { bytes: 5000, passed: 5000 },
    });
  });
});
