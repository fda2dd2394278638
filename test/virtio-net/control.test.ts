import {
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_CTRL_NOTF_COAL,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_ERR,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_NOTF_COAL,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_F_VQ_NOTF_COAL,
  VIRTIO_NET_OK,
} from "vbus/abi";
import { MemorySpace } from "vbus/memory";
import { HostFrames } from "vbus/net";
import { beforeEach, describe, expect, it } from "vitest";
import { testFrame } from "../venet/machine.js";
import { TestPort } from "../venet/port.js";
import { bit, NetMachine } from "./machine.js";

const MAC = [2, 0, 0, 0, 0, 0x0a];
const OTHER = [2, 0, 0, 0, 0, 0x0b];
const GROUP = [1, 0, 0x5e, 0, 0, 1];
const OTHER_GROUP = [1, 0, 0x5e, 0, 0, 2];
const BROADCAST = [255, 255, 255, 255, 255, 255];
const FROM = [2, 0, 0, 0, 0, 1];
const CONTROL = bit(VIRTIO_NET_F_CTRL_VQ);
const FILTERS =
  CONTROL |
  bit(VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_VLAN);

let machine: NetMachine;

async function begin(features: bigint): Promise<void> {
  machine = await NetMachine.create();
  await machine.start(features);
  machine.post(20, 2000);
}

/** Frames to these addresses arrive; says which of them the driver got. */
async function arriving(
  to: readonly number[][],
  change: (frame: Uint8Array) => void = () => undefined,
): Promise<number[][]> {
  const space = await MemorySpace.host();
  const frames = to.map((address, n) => {
    const frame = testFrame(address, FROM, 60, n);
    change(frame);
    return frame;
  });
  const { batch } = HostFrames.of(space, frames);
  expect(machine.port.peer?.receive(batch, 0, frames.length)).toBe(frames.length);
  machine.scheduler.run();
  machine.assertBalanced();
  return machine.received().map(({ frame }) => [...frame.subarray(0, 6)]);
}

const ALL = [MAC, OTHER, GROUP, OTHER_GROUP, BROADCAST];
const set = (mode: number, on: boolean): number =>
  machine.command(VIRTIO_NET_CTRL_RX, mode, [on ? 1 : 0]).ack;

/** The two tables of a MAC_TABLE_SET command. */
function tables(unicast: number[][], multicast: number[][]): Uint8Array {
  const table = (macs: number[][]): number[] => {
    const count = new Uint8Array(Uint32Array.of(macs.length).buffer);
    return [...count, ...macs.flat()];
  };
  return Uint8Array.from([...table(unicast), ...table(multicast)]);
}

describe("what a driver receives", () => {
  beforeEach(() => begin(FILTERS));

  it("is everything until it says something else", async () => {
    expect(await arriving(ALL)).toEqual(ALL);
  });

  it("is its own and broadcast once it is not promiscuous; the rest is counted, and costs no buffer", async () => {
    expect(set(0, false)).toBe(VIRTIO_NET_OK);
    expect(await arriving(ALL)).toEqual([MAC, BROADCAST]);
    expect(machine.card.statistics.rx).toMatchObject({ frames: 5, passed: 2, drops: { filtered: 3 } });
    expect(machine.rx.ring.free).toBe(256 - 18);
  });

  it.each<[string, number, number[][]]>([
    ["all multicast", 1, [MAC, GROUP, OTHER_GROUP, BROADCAST]],
    ["all unicast", 2, [MAC, OTHER, BROADCAST]],
    ["no unicast", 4, [BROADCAST]],
    ["no broadcast", 5, [MAC]],
  ])("with %s", async (_what, mode, wanted) => {
    set(0, false);
    expect(set(mode, true)).toBe(VIRTIO_NET_OK);
    expect(await arriving(ALL)).toEqual(wanted);
    expect(set(mode, false)).toBe(VIRTIO_NET_OK);
    expect(await arriving(ALL)).toEqual([MAC, BROADCAST]);
    expect(set(0, true)).toBe(VIRTIO_NET_OK);
    expect(await arriving(ALL)).toEqual(ALL);
  });

  it("with no multicast even what its table says stays out", async () => {
    set(0, false);
    machine.command(VIRTIO_NET_CTRL_MAC, 0, tables([], [GROUP]));
    expect(await arriving(ALL)).toEqual([MAC, GROUP, BROADCAST]);
    set(3, true);
    expect(await arriving(ALL)).toEqual([MAC, BROADCAST]);
  });

  it("follows its tables of addresses, which replace each other", async () => {
    set(0, false);
    expect(machine.command(VIRTIO_NET_CTRL_MAC, 0, tables([OTHER], [GROUP])).ack).toBe(VIRTIO_NET_OK);
    expect(await arriving(ALL)).toEqual([MAC, OTHER, GROUP, BROADCAST]);
    expect(machine.command(VIRTIO_NET_CTRL_MAC, 0, tables([], [OTHER_GROUP])).ack).toBe(VIRTIO_NET_OK);
    expect(await arriving(ALL)).toEqual([MAC, OTHER_GROUP, BROADCAST]);
  });

  it("is everything of a kind when its table is longer than is kept", async () => {
    set(0, false);
    const many = Array.from({ length: 300 }, (_, n) => [1, 0, 0, 0, n >> 8, n & 255]);
    expect(machine.command(VIRTIO_NET_CTRL_MAC, 0, tables([], many)).ack).toBe(VIRTIO_NET_OK);
    expect(await arriving(ALL)).toEqual([MAC, GROUP, OTHER_GROUP, BROADCAST]);
  });

  it("follows the address that it takes", async () => {
    set(0, false);
    expect(machine.command(VIRTIO_NET_CTRL_MAC, 1, OTHER).ack).toBe(VIRTIO_NET_OK);
    expect(await arriving(ALL)).toEqual([OTHER, BROADCAST]);
    expect(machine.card.mac).toBe("02:00:00:00:00:0b");
    expect((await machine.config()).mac).toBe("02000000000b");
    await machine.start(FILTERS);
    expect(machine.card.mac, "a reset brings the card's own back").toBe("02:00:00:00:00:0a");
  });

  it("leaves VLANs out that it did not name; frames without a tag pass", async () => {
    set(0, false);
    const tag =
      (id: number, type = 0x8100) =>
      (frame: Uint8Array): void => {
        frame.set([type >> 8, type & 255, 0xe0 | (id >> 8), id & 255], 12);
      };
    expect(await arriving([MAC], tag(5))).toEqual([]);
    expect(machine.command(VIRTIO_NET_CTRL_VLAN, 0, [5, 0]).ack).toBe(VIRTIO_NET_OK);
    expect(machine.command(VIRTIO_NET_CTRL_VLAN, 0, [0xfe, 0x0f]).ack).toBe(VIRTIO_NET_OK);
    expect(await arriving([MAC], tag(5))).toEqual([MAC]);
    expect(await arriving([MAC], tag(4094))).toEqual([MAC]);
    expect(await arriving([MAC], tag(6))).toEqual([]);
    expect(await arriving([MAC])).toEqual([MAC]);
    expect(machine.command(VIRTIO_NET_CTRL_VLAN, 1, [5, 0]).ack).toBe(VIRTIO_NET_OK);
    expect(await arriving([MAC], tag(5))).toEqual([]);
    expect(machine.command(VIRTIO_NET_CTRL_VLAN, 0, [0xff, 0x0f]).ack, "4095 is none").toBe(VIRTIO_NET_ERR);
  });
});

describe("commands that are refused change nothing", () => {
  beforeEach(() => begin(FILTERS));

  it.each<[string, number, number, number[] | Uint8Array]>([
    ["of a class that does not exist", 7, 0, [1]],
    ["of a class far out", 255, 255, [1]],
    ["that do not exist: receive modes", VIRTIO_NET_CTRL_RX, 6, [0]],
    ["that do not exist: addresses", VIRTIO_NET_CTRL_MAC, 2, MAC],
    ["that do not exist: VLANs", VIRTIO_NET_CTRL_VLAN, 2, [1, 0]],
    ["without data: receive modes", VIRTIO_NET_CTRL_RX, 0, []],
    ["with half a VLAN", VIRTIO_NET_CTRL_VLAN, 0, [1]],
    ["with half an address", VIRTIO_NET_CTRL_MAC, 1, [2, 0, 0]],
    ["with a group address", VIRTIO_NET_CTRL_MAC, 1, GROUP],
    ["with no address", VIRTIO_NET_CTRL_MAC, 1, [0, 0, 0, 0, 0, 0]],
    ["with half a table", VIRTIO_NET_CTRL_MAC, 0, [1, 0, 0, 0, 2, 0, 0]],
    ["with one table", VIRTIO_NET_CTRL_MAC, 0, [0, 0, 0, 0]],
    ["with a table that says it is endless", VIRTIO_NET_CTRL_MAC, 0, [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]],
    [
      "with a second table that says it is endless",
      VIRTIO_NET_CTRL_MAC,
      0,
      [0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f],
    ],
    ["of features that were not negotiated: pairs", VIRTIO_NET_CTRL_MQ, 0, [1, 0]],
    ["of features that were not negotiated: announcement", VIRTIO_NET_CTRL_ANNOUNCE, 0, []],
    ["of features that were not negotiated: coalescing", VIRTIO_NET_CTRL_NOTF_COAL, 0, new Uint8Array(8)],
    [
      "of features that were not negotiated: coalescing of a queue",
      VIRTIO_NET_CTRL_NOTF_COAL,
      2,
      new Uint8Array(12),
    ],
    ["of features that were not negotiated: a query", VIRTIO_NET_CTRL_NOTF_COAL, 3, new Uint8Array(4)],
    ["of features that were not negotiated: offloads", 5, 0, new Uint8Array(8)],
  ])("%s", async (_what, kind, command, data) => {
    set(0, false);
    const { refused } = machine.card.statistics;
    expect(machine.command(kind, command, data)).toEqual({ ack: VIRTIO_NET_ERR, result: new Uint8Array(0) });
    expect(machine.card.statistics.refused).toBe(refused + 1);
    expect(await arriving(ALL)).toEqual([MAC, BROADCAST]);
    expect(machine.errors).toEqual([]);
  });

  it("a command of one byte, one that is too long, and one with no room for an answer, too", () => {
    const { control } = machine;
    control.add(machine.place(Uint8Array.of(0)), machine.room(1));
    control.add(machine.place(new Uint8Array(65537)), machine.room(1));
    control.add(machine.place(Uint8Array.of(0, 0, 0)), []);
    control.add([], machine.room(5));
    machine.scheduler.run();
    expect(control.reap().map(({ written }) => written)).toEqual([1, 1, 0, 1]);
    expect(machine.card.statistics).toMatchObject({ commands: 0, refused: 4 });
    expect(machine.card.statistics.rx.drops).toEqual({});
    expect(set(0, false)).toBe(VIRTIO_NET_OK);
  });

  it("commands are understood in as many pieces as a driver likes", async () => {
    const { control } = machine;
    control.add(machine.place(...[0, 0, 0].map((byte) => Uint8Array.of(byte))), machine.room(1, 1));
    machine.scheduler.run();
    expect(control.reap().map(({ written }) => written)).toEqual([1]);
    expect(await arriving(ALL)).toEqual([MAC, BROADCAST]);
  });

  it("without a feature the modes that belong to it are refused", async () => {
    await begin(CONTROL | bit(VIRTIO_NET_F_CTRL_RX));
    expect(set(0, false)).toBe(VIRTIO_NET_OK);
    expect(set(2, true)).toBe(VIRTIO_NET_ERR);
    expect(machine.command(VIRTIO_NET_CTRL_MAC, 1, OTHER).ack).toBe(VIRTIO_NET_ERR);
    await begin(CONTROL | bit(VIRTIO_NET_F_CTRL_RX_EXTRA));
    expect(set(0, false)).toBe(VIRTIO_NET_ERR);
    expect(set(2, true)).toBe(VIRTIO_NET_OK);
  });
});

describe("announcement", () => {
  const ANNOUNCE = CONTROL | bit(VIRTIO_NET_F_STATUS, VIRTIO_NET_F_GUEST_ANNOUNCE);

  it("is asked for after a change of address and of place, until the driver acknowledges", async () => {
    await begin(ANNOUNCE);
    expect((await machine.config()).status).toBe(1);
    machine.card.mac = "02:00:00:00:00:0c";
    machine.scheduler.run();
    expect(machine.configChanges).toBe(1);
    expect(await machine.config()).toMatchObject({ status: 3, mac: "02000000000c" });
    expect(machine.command(VIRTIO_NET_CTRL_ANNOUNCE, 0).ack).toBe(VIRTIO_NET_OK);
    expect((await machine.config()).status).toBe(1);
    const other = new TestPort();
    machine.card.port = other;
    machine.scheduler.run();
    expect(other.peer).not.toBeNull();
    expect(machine.port.peer).toBeNull();
    expect((await machine.config()).status).toBe(3);
    await machine.start(ANNOUNCE);
    expect((await machine.config()).status, "forgotten with the session").toBe(1);
  });

  it("is not asked of drivers that know nothing of it", async () => {
    await begin(CONTROL);
    machine.card.announce();
    expect((await machine.config()).status).toBe(1);
  });
});

describe("notification coalescing", () => {
  const COAL = CONTROL | bit(VIRTIO_NET_F_NOTF_COAL, VIRTIO_NET_F_VQ_NOTF_COAL);
  const words = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer);

  async function receive(n: number): Promise<void> {
    const { batch } = HostFrames.of(
      await MemorySpace.host(),
      Array.from({ length: n }, (_, i) => testFrame(MAC, FROM, 60, i)),
    );
    for (let i = 0; i < n; i++) {
      machine.port.peer?.receive(batch, i, i + 1);
      machine.received(); // asks for interrupts again
    }
    machine.scheduler.run();
  }

  it("puts interrupts off until so many frames came, or the time is over", async () => {
    await begin(COAL);
    expect(machine.command(VIRTIO_NET_CTRL_NOTF_COAL, 1, words(4, 5000)).ack).toBe(VIRTIO_NET_OK);
    await receive(3);
    expect(machine.rx.interrupts).toBe(0);
    machine.scheduler.advance(5);
    expect(machine.rx.interrupts).toBe(1);
    await receive(4);
    expect(machine.rx.interrupts).toBe(2);
    machine.scheduler.advance(100);
    expect(machine.rx.interrupts).toBe(2);
    expect(machine.card.statistics.moderated).toBeGreaterThan(0);
  });

  it("of the transmit queues leaves those of the receive queues alone", async () => {
    await begin(COAL);
    expect(machine.command(VIRTIO_NET_CTRL_NOTF_COAL, 0, words(100, 3000)).ack).toBe(VIRTIO_NET_OK);
    await receive(1);
    expect(machine.rx.interrupts).toBe(1);
    machine.send(testFrame(FROM, MAC, 60));
    machine.scheduler.run();
    expect(machine.tx.interrupts).toBe(0);
    machine.scheduler.advance(3);
    expect(machine.tx.interrupts).toBe(1);
  });

  it("that ends lets out what waits", async () => {
    await begin(COAL);
    machine.command(VIRTIO_NET_CTRL_NOTF_COAL, 1, words(0, 1_000_000));
    await receive(1);
    expect(machine.rx.interrupts).toBe(0);
    machine.command(VIRTIO_NET_CTRL_NOTF_COAL, 1, words(0, 0));
    expect(machine.rx.interrupts).toBe(1);
  });

  it("can be set and asked for queue by queue", async () => {
    await begin(COAL);
    const queue = (index: number): Uint8Array => Uint8Array.of(index & 255, index >> 8, 0, 0);
    const ask = (index: number) => machine.command(VIRTIO_NET_CTRL_NOTF_COAL, 3, queue(index), 9);
    expect(machine.command(VIRTIO_NET_CTRL_NOTF_COAL, 2, [...queue(1), ...words(7, 9)]).ack).toBe(
      VIRTIO_NET_OK,
    );
    expect(ask(1)).toEqual({ ack: VIRTIO_NET_OK, result: words(7, 9) });
    expect(ask(0)).toEqual({ ack: VIRTIO_NET_OK, result: words(0, 0) });
    for (const index of [2, 3, 500, 65535]) {
      expect(ask(index).ack).toBe(VIRTIO_NET_ERR);
      expect(machine.command(VIRTIO_NET_CTRL_NOTF_COAL, 2, [...queue(index), ...words(7, 9)]).ack).toBe(
        VIRTIO_NET_ERR,
      );
    }
  });

  it("forgets its timers with the session", async () => {
    await begin(COAL);
    machine.command(VIRTIO_NET_CTRL_NOTF_COAL, 1, words(0, 5000));
    await receive(1);
    const old = machine.rx;
    await machine.transport.reset();
    machine.scheduler.advance(100);
    expect(old.interrupts).toBe(0);
    expect(machine.errors).toEqual([]);
  });
});
