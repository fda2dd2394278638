/** virtio over vbus: saved and put back, the bus with it, while network card, disk and console are under load. */
import {
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_F_RING_PACKED,
  VIRTIO_ID_BLOCK,
  VIRTIO_ID_CONSOLE,
} from "vbus/abi";
import { Vbus, type Bus } from "vbus/bus";
import { MemoryBackend } from "vbus/devices/vblk";
import { Terminal } from "vbus/devices/vconsole";
import { virtioBlk } from "vbus/devices/virtio-blk";
import { virtioConsole } from "vbus/devices/virtio-console";
import { virtioNet, type VirtioNet } from "vbus/devices/virtio-net";
import { virtioClass, type VirtioVbusQueueReport } from "vbus/devices/virtio-vbus";
import { virtioBusDriver } from "vbus/drivers/virtio";
import { VirtioNetDriver, type VirtioNic } from "vbus/drivers/virtio-net";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { StateError, StateReader, type StateValue } from "vbus/state";
import type { VirtioFace } from "vbus/virtio";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { turns } from "../event-loop.js";
import { expectBytes, pattern } from "../vblk/machine.js";
import { introduce, sendFrames } from "./card-traffic.js";
import { head } from "../virtio-blk/machine.js";
import { chainDriver, type ChainDevice } from "../virtio-vbus/chain-driver.js";
import { LineGuest } from "./line-guest.js";

const ROUNDS = 100;
const BLOCK = 4096;
const SLOTS = 8;

let errors: unknown[];
let scheduler: EventLoopScheduler;
let vbus: Vbus;
let net: Switch;
let guests: Guest[];

/** A guest, and its drivers' half of all three devices. */
interface Guest {
  machine: LineGuest;
  bus: Bus;
  card: VirtioNet;
  nic: VirtioNic;
  disk: ChainDevice;
  terminal: Terminal;
  console: ChainDevice;
}

beforeEach(async () => {
  errors = [];
  guests = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  vbus = new Vbus({ scheduler });
  vbus.on("error", (event) => errors.push(event));
  net = new Switch({ scheduler, space: await MemorySpace.host(), stallMs: 60_000 });
});

afterEach(async () => {
  for (const { machine } of guests) await machine.close();
  vbus.close();
  net.close();
  await turns();
  expect(errors).toEqual([]);
});

function plug(bus: Bus, name: string, face: VirtioFace & { close(): unknown }): void {
  vbus.registerClass(
    virtioClass({ name: `class-${name}`, create: () => ({ face, release: () => void face.close() }) }),
  );
  bus.connect(vbus.createDevice(name, `class-${name}`));
}

async function addGuest(name: string, packed: boolean): Promise<Guest> {
  const bus = vbus.createBus(name);
  bus.admit("guest");
  const card = virtioNet({ name: `nic-${name}`, port: net.addPort(`nic-${name}`) });
  const terminal = new Terminal({ backlog: 5000 });
  const onError = (error: unknown): number => errors.push(error);
  plug(bus, `nic-${name}`, card);
  plug(
    bus,
    `disk-${name}`,
    virtioBlk({ name: `disk-${name}`, backend: new MemoryBackend(1 << 18), onError }),
  );
  plug(bus, `console-${name}`, virtioConsole({ name: `console-${name}`, ports: [{ terminal }], onError }));
  const found: { nic?: VirtioNic; disk?: ChainDevice; console?: ChainDevice } = {};
  const rings = (offered: bigint): bigint =>
    packed ? offered : offered & ~(1n << BigInt(VIRTIO_F_RING_PACKED));
  const onePort = (offered: bigint): bigint => rings(offered) & ~(1n << BigInt(VIRTIO_CONSOLE_F_MULTIPORT));
  const drivers = [
    new VirtioNetDriver((nic) => (found.nic = nic), { packed }),
    chainDriver(VIRTIO_ID_BLOCK, 1, (disk) => (found.disk = disk), rings, 64),
    chainDriver(VIRTIO_ID_CONSOLE, 2, (console) => (found.console = console), onePort),
  ];
  const machine = await LineGuest.start(
    "a register page",
    bus,
    scheduler,
    [virtioBusDriver(drivers)],
    (error) => errors.push(error),
  );
  while (found.nic === undefined || found.disk === undefined || found.console === undefined) await turns(1);
  const guest = { machine, bus, card, terminal, nic: found.nic, disk: found.disk, console: found.console };
  guests.push(guest);
  return guest;
}

/** Writes and reads, several requests at a time, until told to end; every one is answered rightly. */
async function useDisk(disk: ChainDevice, goesOn: () => boolean): Promise<number> {
  const { space } = disk.transport.memory;
  const [queue] = disk.queues;
  const slots = Array.from({ length: SLOTS }, () => ({
    head: disk.place(16),
    data: disk.place(BLOCK),
    status: disk.place(1),
  }));
  let requests = 0;
  const ask = async (slot: (typeof slots)[0], type: number, at: number): Promise<void> => {
    space.copyTo(slot.head.gpa, head(type, (at * BLOCK) / 512));
    space.copyTo(slot.status.gpa, Uint8Array.of(0xff));
    const written =
      type === VIRTIO_BLK_T_OUT
        ? await queue!.send([slot.head, slot.data], [slot.status])
        : await queue!.send([slot.head], [slot.data, slot.status]);
    expect(written).toBe(type === VIRTIO_BLK_T_OUT ? 1 : BLOCK + 1);
    expect(disk.read(slot.status)[0]).toBe(VIRTIO_BLK_S_OK);
    requests++;
  };
  for (let round = 1; goesOn(); round++) {
    const blocks = slots.map((_, i) => pattern(BLOCK, round * SLOTS + i));
    for (const [i, { data }] of slots.entries()) space.copyTo(data.gpa, blocks[i]!);
    await Promise.all(slots.map((slot, i) => ask(slot, VIRTIO_BLK_T_OUT, i)));
    for (const { data } of slots) space.copyTo(data.gpa, new Uint8Array(BLOCK));
    await Promise.all(slots.map((slot, i) => ask(slot, VIRTIO_BLK_T_IN, i)));
    for (const [i, { data }] of slots.entries()) expectBytes(disk.read(data), blocks[i]!);
    await turns(1); // a disk in memory answers without one
  }
  return requests;
}

/** Bytes both ways, none lost, none doubled. */
async function converse({ console, terminal }: Guest): Promise<void> {
  const { space } = console.transport.memory;
  const [rx, tx] = console.queues;
  const output = pattern(20_000, 3);
  const input = pattern(20_000, 4);
  const heard: Uint8Array[] = [];
  terminal.onData = (bytes) => {
    heard.push(bytes.slice());
  };
  const typing = (async () => {
    for (let at = 0; at < input.length;) {
      at += terminal.tryWrite(input.subarray(at, at + 300));
      await turns(1);
    }
  })();
  const saying = (async () => {
    const room = console.place(500);
    for (let at = 0; at < output.length; at += 500) {
      space.copyTo(room.gpa, output.subarray(at, at + 500));
      await tx!.send([room], []);
    }
  })();
  const got: Uint8Array[] = [];
  const room = console.place(333);
  for (let length = 0; length < input.length;) {
    const written = await rx!.send([], [room]);
    got.push(console.read(room).slice(0, written));
    length += written;
  }
  await Promise.all([typing, saying]);
  while (Buffer.concat(heard).length < output.length) await turns(1);
  expectBytes(Buffer.concat(got), input);
  expectBytes(Buffer.concat(heard), output);
}

describe.each([
  ["packed", true],
  ["split", false],
] as const)("virtio devices on the bus under load, with %s rings", (_what, packed) => {
  it("are restored a hundred times; not a frame, request or byte of the guest's is lost or doubled", async () => {
    const a = await addGuest("a", packed);
    const b = await addGuest("b", packed);
    await introduce(a.nic, b.nic);
    let rounds = 0;
    const restoring = (async () => {
      for (; rounds < ROUNDS; rounds++) {
        await a.machine.replaceHost();
        await turns(1);
      }
    })();
    await Promise.all([useDisk(a.disk, () => rounds < ROUNDS), sendFrames(a.nic, b.nic), converse(a)]);
    await restoring;
    const queues = JSON.parse(vbus.read("devices/disk-a/virtio_queues")) as VirtioVbusQueueReport[];
    expect(queues).toMatchObject([{ inFlight: 0, broken: null }]);
    expect(a.card.statistics.tx.drops).toEqual({});
    await sendFrames(b.nic, a.nic);
    await sendFrames(a.nic, b.nic);
  });

  it("take no state with a queue that has no signal, a signal of no queue, or one in two places", async () => {
    const { machine } = await addGuest("a", packed);
    const { part, host } = machine;
    part.hold();
    const saved = part.save() as Record<string, Record<string, Record<string, Record<string, StateValue>>>>;
    const changed = (change: (signals: StateValue[][]) => StateValue[][]): StateReader => {
      const client = saved["line"]!["bridge"]!["client"] as Record<string, StateValue>;
      const sessions = (client["sessions"] as Record<string, StateValue>[]).map((session) => {
        if (session["device"] !== "disk-a") return session;
        const state = session["state"] as Record<string, StateValue>;
        return { ...session, state: { ...state, signals: change(state["signals"] as StateValue[][]) } };
      });
      const bridge = { ...saved["line"]!["bridge"], client: { ...client, sessions } };
      return new StateReader({ ...saved, line: { ...saved["line"], bridge } }, "state");
    };
    const free = host.arena.available;
    for (const change of [
      (signals: StateValue[][]) => signals.filter(([id]) => id !== 0),
      (signals: StateValue[][]) => signals.map(([id, ...rest]) => [id === 0 ? 1 : (id as number), ...rest]),
      (signals: StateValue[][]) => [...signals, signals[0]!],
      (signals: StateValue[][]) => signals.map(([id, gpa, number]) => [id!, (gpa as number) + 2, number!]),
    ]) {
      expect(() => {
        part.clear();
        part.restore(changed(change));
      }).toThrow(StateError);
      expect(part.line.state).toBe(0);
      expect(host.arena.available).toBeGreaterThanOrEqual(free);
    }
    part.release();
  });
});
