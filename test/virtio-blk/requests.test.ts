import {
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_RESET,
} from "vbus/abi";
import { MemoryBackend } from "vbus/devices/vblk";
import { VirtioBlk } from "vbus/devices/virtio-blk";
import { describe, expect, it } from "vitest";
import { bit, NEEDS_RESET, RINGS } from "../virtio-face/machine.js";
import { BlkMachine, head, segments } from "./machine.js";

/** Bytes that depend on where they are. */
const pattern = (length: number, seed = 1): Uint8Array<ArrayBuffer> =>
  Uint8Array.from({ length }, (_, i) => (i * 7 + seed * 31 + (i >> 8)) & 255);

async function started(
  options: Parameters<typeof BlkMachine.create>[0] = {},
  wanted?: bigint,
  ring = 0n,
): Promise<BlkMachine> {
  const machine = await BlkMachine.create(options);
  await machine.start(wanted, ring);
  return machine;
}

describe.each(RINGS)("a disk on %s rings", (_name, ring) => {
  it.each([
    ["whole", [4096], [4096]],
    ["in sectors", [512, 512, 1024], [1024, 512, 512]],
    ["cut anywhere", [1, 511, 3, 1021], [1000, 24, 512]],
  ])("reads back what it was given, %s", async (_how, writes, reads) => {
    const machine = await started({}, undefined, ring);
    const data = pattern(writes.reduce((a, b) => a + b));
    let at = 0;
    const parts = writes.map((length) => data.subarray(at, (at += length)));
    expect(await machine.write(7, ...parts)).toMatchObject({ status: VIRTIO_BLK_S_OK, written: 1 });
    const answer = await machine.read(7, ...reads);
    expect(answer).toMatchObject({ status: VIRTIO_BLK_S_OK, written: data.length + 1 });
    expect(answer.data).toEqual(data);
    expect(machine.disk.content.bytes.slice(7 * 512, 7 * 512 + data.length)).toEqual(data);
    expect(machine.face.statistics).toMatchObject({
      requests: 2,
      completed: 2,
      bytesRead: data.length,
      bytesWritten: data.length,
    });
    expect(machine.errors).toEqual([]);
  });

  it("completes requests in whatever order the back end ends, each where it belongs", async () => {
    const machine = await started({ hold: true, content: pattern(1 << 20) }, undefined, ring);
    const cookies = [0, 8, 16, 24].map((sector) => machine.request([head(VIRTIO_BLK_T_IN, sector)], [512]));
    await machine.settle();
    expect(machine.disk.held.map(({ offset }) => offset)).toEqual([0, 4096, 8192, 12288]);
    for (const i of [2, 0, 1, 0]) {
      machine.disk.held[i]?.proceed();
      await machine.settle();
    }
    const answers = machine.answers();
    expect([...answers.keys()]).toEqual([cookies[2], cookies[0], cookies[3], cookies[1]]);
    for (const [i, cookie] of cookies.entries())
      expect(answers.get(cookie)?.data).toEqual(machine.disk.content.bytes.slice(i * 4096, i * 4096 + 512));
    machine.assertBalanced();
  });

  it("serves many more requests than the queue holds, with fewer interrupts than requests", async () => {
    const machine = await started({}, undefined, ring);
    let done = 0;
    for (let round = 0; round < 20; round++) {
      for (let n = 0; n < 40; n++) machine.request([head(VIRTIO_BLK_T_IN, n)], [512]);
      await machine.settle();
      done += machine.answers().size;
    }
    expect(done).toBe(800);
    expect(machine.queue(0).interrupts).toBeLessThan(400);
    machine.assertBalanced();
  });
});

describe("requests", () => {
  it("that overlap are carried out one after another, in their order", async () => {
    const machine = await started({ hold: true });
    machine.request([head(VIRTIO_BLK_T_OUT, 0), pattern(1024, 1)]);
    machine.request([head(VIRTIO_BLK_T_OUT, 1), pattern(1024, 2)]);
    machine.request([head(VIRTIO_BLK_T_IN, 0)], [1536]);
    await machine.settle();
    for (let n = 0; n < 3; n++) {
      expect(machine.disk.held).toHaveLength(1);
      machine.disk.held[0]?.proceed();
      await machine.settle();
    }
    const expected = new Uint8Array(1536);
    expected.set(pattern(1024, 1));
    expected.set(pattern(1024, 2), 512);
    expect([...machine.answers().values()].at(-1)?.data).toEqual(expected);
  });

  it("flush, and writes that are durable when they complete unless the driver knows how to flush", async () => {
    for (const [features, flushes] of [
      [bit(VIRTIO_BLK_F_FLUSH), 0],
      [bit(VIRTIO_BLK_F_SEG_MAX), 1],
    ] as const) {
      const machine = await started({}, features);
      const kinds: string[] = [];
      machine.disk.hold = true;
      machine.disk.onBegin = ({ kind, proceed }) => {
        kinds.push(kind);
        queueMicrotask(proceed);
      };
      expect((await machine.write(0, pattern(512))).status).toBe(VIRTIO_BLK_S_OK);
      expect(kinds).toEqual(["write", ...new Array<string>(flushes).fill("flush")]);
      kinds.length = 0;
      expect((await machine.ask([head(VIRTIO_BLK_T_FLUSH, 0)])).status).toBe(VIRTIO_BLK_S_OK);
      expect(kinds).toEqual(["flush"]);
    }
  });

  it("the write cache is turned off and on by the configuration", async () => {
    const machine = await started({}, bit(VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_CONFIG_WCE));
    const cached = async (): Promise<boolean> => {
      const before = machine.face.statistics.operations.flush;
      let flushed = false;
      machine.disk.hold = true;
      machine.disk.onBegin = ({ kind, proceed }) => {
        if (kind === "flush") flushed = true;
        queueMicrotask(proceed);
      };
      await machine.write(0, pattern(512));
      expect(machine.face.statistics.operations.flush).toBe(before);
      return !flushed;
    };
    expect((await machine.config()).getUint8(32)).toBe(1);
    expect(await cached()).toBe(true);
    await machine.transport.writeConfig(32, Uint8Array.of(0));
    expect((await machine.config()).getUint8(32)).toBe(0);
    expect(await cached()).toBe(false);
    await machine.transport.writeConfig(32, Uint8Array.of(1));
    expect(await cached()).toBe(true);
  });

  it("the serial number comes padded with zeroes", async () => {
    const machine = await started({ serial: "vbus-0001" });
    const answer = await machine.ask([head(VIRTIO_BLK_T_GET_ID, 0)], [20]);
    expect(answer.status).toBe(VIRTIO_BLK_S_OK);
    expect(Buffer.from(answer.data).toString("latin1")).toBe("vbus-0001".padEnd(20, "\0"));
  });

  it("discard and write zeroes, several segments at a time", async () => {
    const machine = await started({ content: pattern(1 << 20) });
    const { bytes } = machine.disk.content;
    expect(
      (await machine.ask([head(VIRTIO_BLK_T_WRITE_ZEROES, 0), segments([2, 3], [10, 1, 1])])).status,
    ).toBe(VIRTIO_BLK_S_OK);
    expect(bytes.subarray(1024, 2560).every((byte) => byte === 0)).toBe(true);
    expect(bytes.subarray(5120, 5632).every((byte) => byte === 0)).toBe(true);
    expect(bytes[1023]).not.toBe(0);
    expect((await machine.ask([head(VIRTIO_BLK_T_DISCARD, 0), segments([100, 8])])).status).toBe(
      VIRTIO_BLK_S_OK,
    );
    expect(machine.face.statistics.operations).toMatchObject({ discard: 1, writeZeroes: 1 });
  });

  it("one segment that fails fails them all", async () => {
    const machine = await started({ hold: true });
    const cookie = machine.request([head(VIRTIO_BLK_T_WRITE_ZEROES, 0), segments([0, 1], [10, 1], [20, 1])]);
    await machine.settle();
    machine.disk.held[1]?.fail(new Error("bad spot"));
    machine.disk.held[0]?.proceed();
    await machine.settle();
    expect(machine.answers().size, "not before the last one ended").toBe(0);
    machine.disk.held[0]?.proceed();
    await machine.settle();
    expect(machine.answers().get(cookie)?.status).toBe(VIRTIO_BLK_S_IOERR);
    expect(machine.told).toHaveLength(1);
  });

  it("that the back end fails end with an error, which is told once until it works again", async () => {
    const machine = await started({ hold: true });
    for (let n = 0; n < 3; n++) {
      machine.request([head(VIRTIO_BLK_T_IN, 0)], [512]);
      await machine.settle();
      machine.disk.held[0]?.fail(new Error("no disk"));
      await machine.settle();
    }
    expect([...machine.answers().values()].map(({ status }) => status)).toEqual([1, 1, 1]);
    expect(machine.told).toHaveLength(1);
    machine.assertBalanced();
  });
});

describe("requests that cannot be are answered, and change nothing", () => {
  const CAPACITY = 2048;

  it.each<[string, number, Uint8Array[], number[]]>([
    ["a header that is too short", VIRTIO_BLK_S_IOERR, [new Uint8Array(15)], [512]],
    ["no header", VIRTIO_BLK_S_IOERR, [], [512]],
    ["a kind that does not exist", VIRTIO_BLK_S_UNSUPP, [head(7, 0)], [512]],
    ["a SCSI command", VIRTIO_BLK_S_UNSUPP, [head(2, 0)], [512]],
    ["a secure erase, which is not offered", VIRTIO_BLK_S_UNSUPP, [head(14, 0), segments([0, 1])], []],
    ["a kind far out", VIRTIO_BLK_S_UNSUPP, [head(0xffffffff, 0)], [512]],
    ["a read of nothing", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_IN, 0)], []],
    ["a read of half a sector", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_IN, 0)], [256]],
    ["a read behind the end", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_IN, CAPACITY)], [512]],
    ["a read across the end", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_IN, CAPACITY - 1)], [1024]],
    ["a read that wraps", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_IN, 2n ** 64n - 1n)], [1024]],
    ["a read far out", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_IN, 2n ** 55n)], [512]],
    ["a write of nothing", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_OUT, 0)], []],
    ["a write of half a sector", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_OUT, 0), new Uint8Array(700)], []],
    [
      "a write behind the end",
      VIRTIO_BLK_S_IOERR,
      [head(VIRTIO_BLK_T_OUT, CAPACITY), new Uint8Array(512)],
      [],
    ],
    ["a write with room to read into", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_OUT, 0)], [512]],
    ["too little room for a serial", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_GET_ID, 0)], [19]],
    ["a discard of nothing", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_DISCARD, 0)], []],
    [
      "a discard with half a segment",
      VIRTIO_BLK_S_IOERR,
      [head(VIRTIO_BLK_T_DISCARD, 0), new Uint8Array(24)],
      [],
    ],
    [
      "a discard with too many segments",
      VIRTIO_BLK_S_IOERR,
      [head(VIRTIO_BLK_T_DISCARD, 0), new Uint8Array(17 * 16)],
      [],
    ],
    [
      "a discard behind the end",
      VIRTIO_BLK_S_IOERR,
      [head(VIRTIO_BLK_T_DISCARD, 0), segments([CAPACITY, 1])],
      [],
    ],
    ["a discard of no sectors", VIRTIO_BLK_S_IOERR, [head(VIRTIO_BLK_T_DISCARD, 0), segments([0, 0])], []],
    [
      "a discard that is too long",
      VIRTIO_BLK_S_IOERR,
      [head(VIRTIO_BLK_T_DISCARD, 0), segments([0, 0xffffffff])],
      [],
    ],
    [
      "a discard with the flag of the other",
      VIRTIO_BLK_S_UNSUPP,
      [head(VIRTIO_BLK_T_DISCARD, 0), segments([0, 1, 1])],
      [],
    ],
    [
      "write-zeroes with unknown flags",
      VIRTIO_BLK_S_UNSUPP,
      [head(VIRTIO_BLK_T_WRITE_ZEROES, 0), segments([0, 1, 2])],
      [],
    ],
    [
      "write-zeroes of which the last segment is bad",
      VIRTIO_BLK_S_IOERR,
      [head(VIRTIO_BLK_T_WRITE_ZEROES, 0), segments([0, 1], [CAPACITY, 1])],
      [],
    ],
  ])("%s", async (_what, status, readable, writable) => {
    const machine = await started({ content: pattern(CAPACITY * 512) });
    const before = machine.disk.content.bytes.slice();
    expect((await machine.ask(readable, writable)).status).toBe(status);
    expect(Buffer.compare(machine.disk.content.bytes, before), "the disk is as it was").toBe(0);
    expect(machine.face.statistics).toMatchObject(
      status === VIRTIO_BLK_S_IOERR ? { failed: 1 } : { unsupported: 1 },
    );
    expect(machine.errors).toEqual([]);
    expect((await machine.read(0, 512)).status).toBe(VIRTIO_BLK_S_OK);
    machine.assertBalanced();
  });

  it("a read longer than any, in as many pieces as there may be", async () => {
    const machine = await started({ content: 8 << 20 }, undefined, bit(VIRTIO_F_INDIRECT_DESC));
    const [long] = machine.room(126 * 32768 + 512);
    const status = machine.room(1);
    const [first] = machine.place(head(VIRTIO_BLK_T_IN, 0));
    machine.queue(0).add([first as NonNullable<typeof first>], [long as NonNullable<typeof long>, ...status]);
    await machine.settle();
    expect(machine.queue(0).reap()).toHaveLength(1);
    expect(machine.face.statistics.failed).toBe(1);
  });

  it("writes to what is read-only, and what was not negotiated", async () => {
    const machine = await started({ readOnly: true });
    expect(
      (await machine.transport.offeredFeatures()) &
        bit(VIRTIO_BLK_F_RO, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES),
    ).toBe(bit(VIRTIO_BLK_F_RO));
    expect((await machine.write(0, pattern(512))).status).toBe(VIRTIO_BLK_S_IOERR);
    expect((await machine.ask([head(VIRTIO_BLK_T_DISCARD, 0), segments([0, 1])])).status).toBe(
      VIRTIO_BLK_S_UNSUPP,
    );
    const other = await started({}, bit(VIRTIO_BLK_F_FLUSH));
    expect((await other.ask([head(VIRTIO_BLK_T_WRITE_ZEROES, 0), segments([0, 1])])).status).toBe(
      VIRTIO_BLK_S_UNSUPP,
    );
  });

  it("a request without room for an answer breaks its queue, and a reset mends it", async () => {
    const machine = await started({ queues: 2 });
    machine.queue(0).add(machine.place(head(VIRTIO_BLK_T_FLUSH, 0)), []);
    await machine.settle();
    expect(machine.errors).toMatchObject([{ code: "EPROTO" }]);
    expect(machine.transport.device.status & NEEDS_RESET).toBe(NEEDS_RESET);
    expect(machine.face.statistics.violations).toBe(1);
    machine.request([head(VIRTIO_BLK_T_IN, 0)], [512], machine.queue(1));
    await machine.settle();
    expect(machine.answers(machine.queue(1)).size, "the other queue goes on").toBe(1);
    await machine.start();
    expect((await machine.read(0, 512)).status).toBe(VIRTIO_BLK_S_OK);
    machine.assertBalanced();
  });
});

describe("a session", () => {
  it("that ends leaves the guest's memory alone, whatever the back end still does", async () => {
    const machine = await started({ hold: true, content: pattern(1 << 20) });
    machine.request([head(VIRTIO_BLK_T_IN, 0)], [512]);
    machine.request([head(VIRTIO_BLK_T_OUT, 1), pattern(512, 9)]);
    machine.request([head(VIRTIO_BLK_T_IN, 1)], [512]);
    await machine.settle();
    await machine.transport.reset();
    const address = machine.host.translate(0x10000, 1);
    const before = machine.host.bytes.slice(address, address + (1 << 20));
    expect(machine.face.statistics).toMatchObject({ cancelled: 3, outstanding: 0 });
    for (let n = 0; machine.disk.held.length > 0 && n < 5; n++) {
      machine.disk.held[0]?.proceed();
      await machine.settle();
    }
    expect(Buffer.compare(machine.host.bytes.subarray(address, address + (1 << 20)), before)).toBe(0);
    machine.disk.hold = false;
    await machine.start();
    expect((await machine.read(1, 512)).data, "what had begun was carried out").toEqual(pattern(512, 9));
    machine.assertBalanced();
  });

  it("of one queue of several ends alone", async () => {
    const machine = await started({ hold: true, queues: 2 }, undefined, bit(VIRTIO_F_RING_RESET));
    machine.request([head(VIRTIO_BLK_T_IN, 0)], [512], machine.queue(0));
    machine.request([head(VIRTIO_BLK_T_IN, 8)], [512], machine.queue(1));
    await machine.settle();
    await machine.transport.resetQueue(0);
    machine.disk.hold = false;
    for (const held of [...machine.disk.held]) held.proceed();
    await machine.settle();
    expect(machine.answers(machine.queue(1)).size).toBe(1);
    await machine.addQueue(0);
    expect((await machine.read(0, 512)).status).toBe(VIRTIO_BLK_S_OK);
    expect(machine.face.statistics.cancelled).toBe(1);
    machine.assertBalanced();
  });

  it("without the feature for several queues has one", async () => {
    const machine = await started({ queues: 4 }, bit(VIRTIO_BLK_F_FLUSH));
    machine.request([head(VIRTIO_BLK_T_IN, 0)], [512], machine.queue(1));
    await machine.settle();
    expect(machine.answers(machine.queue(1)).size).toBe(0);
    await machine.start(bit(VIRTIO_BLK_F_MQ));
    machine.request([head(VIRTIO_BLK_T_IN, 0)], [512], machine.queue(3));
    await machine.settle();
    expect(machine.answers(machine.queue(3)).size).toBe(1);
  });

  it("hears of a new size, and may use it at once", async () => {
    const machine = await started();
    expect((await machine.config()).getBigUint64(0, true)).toBe(2048n);
    const grown = machine.face.resize(2 << 20);
    await machine.settle();
    await grown;
    expect(machine.configChanges).toBeGreaterThan(0);
    expect((await machine.config()).getBigUint64(0, true)).toBe(4096n);
    expect((await machine.read(4095, 512)).status).toBe(VIRTIO_BLK_S_OK);
    machine.disk.hold = true;
    const shrunk = machine.face.resize(1 << 19);
    await machine.settle();
    expect((await machine.config()).getBigUint64(0, true), "the smaller size counts at once").toBe(1024n);
    await expect(machine.face.resize(512)).rejects.toThrow(/EBUSY/);
    machine.disk.held[0]?.proceed();
    await machine.settle();
    await shrunk;
    expect((await machine.read(1024, 512)).status).toBe(VIRTIO_BLK_S_IOERR);
    await expect(machine.face.resize(100)).rejects.toThrow(/EINVAL/);
  });

  it("closes its back end once, when everything has ended", async () => {
    const machine = await started({ hold: true });
    machine.request([head(VIRTIO_BLK_T_IN, 0)], [512]);
    await machine.settle();
    await machine.transport.reset();
    const closed = machine.face.close();
    await machine.settle();
    expect(machine.disk.held.map(({ kind }) => kind)).toEqual(["read"]);
    machine.disk.hold = false;
    machine.disk.held[0]?.proceed();
    await machine.settle();
    await closed;
    expect(machine.disk.closed).toBe(1);
    await machine.face.close();
    await machine.start();
    expect(machine.errors).toMatchObject([{ code: "ENOTCONN" }]);
  });
});

describe("options", () => {
  it("show in the configuration", async () => {
    const machine = await BlkMachine.create({ blockSize: 4096, physicalBlockSize: 16384, queues: 3 });
    const view = await machine.config();
    expect(view.getUint32(8, true)).toBe(32768);
    expect(view.getUint32(12, true)).toBe(126);
    expect(view.getUint32(20, true)).toBe(4096);
    expect(view.getUint8(24)).toBe(2);
    expect(view.getUint16(26, true)).toBe(4);
    expect(view.getUint16(34, true)).toBe(3);
    expect(view.getUint32(44, true)).toBe(8);
  });

  it.each<[string, object]>([
    ["no queues", { queues: 0 }],
    ["odd blocks", { blockSize: 1000 }],
    ["tiny blocks", { blockSize: 256 }],
    ["physical blocks below the logical ones", { blockSize: 4096, physicalBlockSize: 512 }],
    ["no depth", { depth: 0 }],
    ["a serial that is too long", { serial: "x".repeat(21) }],
    ["a serial that is no ASCII", { serial: "ü" }],
  ])("that make no sense are refused: %s", (_what, options) => {
    expect(() => new VirtioBlk({ name: "disk0", backend: new MemoryBackend(1024), ...options })).toThrow(
      /EINVAL/,
    );
  });

  it("a back end that cannot be written is not said to be writable", () => {
    expect(
      () => new VirtioBlk({ name: "disk0", backend: new MemoryBackend(1024, true), readOnly: false }),
    ).toThrow(/EROFS/);
  });
});
