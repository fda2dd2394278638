import type { VenetNic, VenetOptions } from "vbus/drivers/venet";
import { VbusError } from "vbus/engine";
import { afterEach, describe, expect, it } from "vitest";
import { superframes } from "../offload/captures.js";
import {
  EVENT_POOL,
  EVENT_QUEUE,
  EVERYTHING,
  L4RO_POOL,
  leave,
  noAnswer,
  openNic,
  PAGE_QUEUE,
  pattern,
  PMTD_POOL,
  South,
  tcp4,
  USO,
} from "./venet-south.js";

let south: South;
let nic: VenetNic;

async function start(...args: Parameters<typeof openNic>): Promise<void> {
  ({ south, nic } = await openNic(...args));
}

const end = (): Promise<void> => leave(south);

describe("the probe of a venet driver", () => {
  const PROBE_ALL = [
    "open 0 1",
    "negcap 0 0x2f",
    "negcap 1 0x1",
    "evqquery",
    `shm ${EVENT_POOL}`,
    `shm ${EVENT_QUEUE} signal`,
    "negcap 2 0xf",
    "l4roquery",
    `shm ${L4RO_POOL}`,
    `shm ${PAGE_QUEUE} signal`,
    `negcap ${USO} 0x3`,
    "shm 0 signal",
    "shm 1 signal",
    "pmtdquery",
    `shm ${PMTD_POOL}`,
    "macquery",
  ];

  afterEach(end);

  it("negotiates in the order of the Linux driver, with the segments that the host names", async () => {
    south = new South(EVERYTHING);
    nic = await south.probe({ rxRing: 40, txRing: 16 });
    expect(south.log).toEqual(PROBE_ALL);
    expect(nic.offloads).toEqual({
      tx: { scatterGather: true, checksum: true, tcp4: true, tcp6: true, udp: true, ecn: true },
      rx: { scatterGather: true, checksum: true, tcp4: true, tcp6: true, udp: true, ecn: true },
      descriptorPool: true,
      linkState: true,
      txCompletionEvents: false,
    });
    expect(south.segment(EVENT_POOL).length).toBe(16 * 24);
    expect(south.segment(L4RO_POOL).length).toBe(40 * 320);
    expect(south.segment(PMTD_POOL).length).toBe(16 * 320);
    expect(south.queue(EVENT_QUEUE).queue.count).toBe(16);
    expect(south.queue(PAGE_QUEUE).queue.count).toBe(40);
  });

  it("posts what the ABI says: slots, pages, event records", async () => {
    south = new South(EVERYTHING);
    nic = await south.probe({ rxRing: 40, txRing: 16 });
    const { queue, table } = south.queue(0);
    expect(queue.reserve("inuse", table, 64)).toBe(40);
    for (let i = 0; i < 40; i++) {
      expect([table.gpa(i), table.length(i), table.cookie(i)]).toEqual([i * 320, 320, i + 1]);
      const slot = south.host.copyFrom(south.segment(L4RO_POOL).gpa + i * 320, 320);
      const view = new DataView(slot.buffer);
      expect(view.getBigUint64(0, true)).toBe(BigInt(i + 1));
      expect([8, 12, 16, 20, 24].map((at) => view.getUint32(at, true))).toEqual([0, 0, 0, 0, 0]);
      expect(view.getUint32(28, true)).toBe(1);
      expect(view.getUint32(32, true)).toBe(1518);
      south.host.translate(Number(view.getBigUint64(40, true)), 1518);
      expect(slot.subarray(48).every((byte) => byte === 0)).toBe(true);
    }
    const pages = south.queue(PAGE_QUEUE);
    expect(pages.queue.peek("inuse", pages.table, 64)).toBe(40);
    const places = Array.from({ length: 40 }, (_, i) => pages.table.gpa(i));
    expect(new Set(places).size).toBe(40);
    expect(places.every((gpa) => gpa % 4096 === 0)).toBe(true);
    expect(Array.from({ length: 40 }, (_, i) => pages.table.cookie(i))).toEqual(
      Array.from({ length: 40 }, (_, i) => i + 1),
    );
    expect(south.rung.filter((handle) => handle === PAGE_QUEUE).length).toBeLessThanOrEqual(1);
    const events = south.queue(EVENT_QUEUE);
    expect(events.queue.reserve("inuse", events.table, 64)).toBe(16);
    for (let i = 0; i < 16; i++) {
      expect([events.table.gpa(i), events.table.length(i)]).toEqual([i * 24, 24]);
      const descriptor = south.segment(EVENT_QUEUE).gpa + 56 + i * 32;
      expect(south.host.copyFrom(descriptor + 24, 2)).toEqual(new Uint8Array([0, 1])); // not valid, south's
    }
  });

  it.each<[string, VenetOptions["offloads"], string[]]>([
    ["everything, by default", undefined, ["negcap 0 0x2f", "negcap 1 0x1", "negcap 2 0xf"]],
    ["nothing", false, []],
    ["no link state", { linkState: false }, ["negcap 0 0x2f", "negcap 2 0xf"]],
    ["no pool", { descriptorPool: false }, ["negcap 0 0xf", "negcap 1 0x1", "negcap 2 0xf"]],
    ["receive only", { transmit: false, linkState: false }, ["negcap 2 0xf"]],
    [
      "some kinds",
      { transmit: { tcp6: false, ecn: false }, receive: { tcp4: false }, txCompletionEvents: true },
      ["negcap 0 0x23", "negcap 1 0x3", "negcap 2 0xd"],
    ],
  ])(
    "asked for %s calls for just that; a host that grants nothing leaves it linear",
    async (_what, offloads, calls) => {
      south = new South([]);
      nic = await south.probe({ rxRing: 8, txRing: 8, ...(offloads === undefined ? {} : { offloads }) });
      expect(south.log).toEqual(["open 0 1", ...calls, "shm 0 signal", "shm 1 signal", "macquery"]);
      const none = {
        scatterGather: false,
        checksum: false,
        tcp4: false,
        tcp6: false,
        udp: false,
        ecn: false,
      };
      expect(nic.offloads).toEqual({
        tx: none,
        rx: none,
        descriptorPool: false,
        linkState: false,
        txCompletionEvents: false,
      });
      await nic.open();
      const frame = pattern(100);
      await nic.send([frame]);
      expect(south.takeLinear()).toEqual([frame]);
      const { queue, table } = south.queue(0);
      expect(queue.reserve("inuse", table, 8)).toBe(8);
      expect(table.length(0)).toBe(1518);
      expect(nic.carrier).toBe(true);
    },
  );

  it("does not believe bits that it did not ask for, nor segmentation without scatter-gather", async () => {
    south = new South([
      [0, 0xfffffffe],
      [1, 0xffffffff],
      [2, 0xffffffff],
      [USO, 0xffffffff],
    ]);
    nic = await south.probe({
      rxRing: 8,
      txRing: 8,
      offloads: { receive: { udp: false }, txCompletionEvents: false },
    });
    expect(south.log).toContain(`negcap 2 0xf`);
    expect(south.log.some((verb) => verb.startsWith(`negcap ${USO}`))).toBe(false);
    expect(nic.offloads).toMatchObject({
      tx: { scatterGather: false, tcp4: false },
      rx: { scatterGather: true, tcp4: true, udp: false },
      txCompletionEvents: false,
    });
  });

  it("refused at any of its steps it gives everything back and leaves the session closed", async () => {
    south = new South(EVERYTHING);
    const arena = south.memory.space.arena.available;
    for (const failing of PROBE_ALL) {
      const other = new South(EVERYTHING);
      other.intercept = (verb) => {
        if (verb === failing) throw new VbusError("EIO", `no ${verb}`);
      };
      await expect(other.probe({ rxRing: 8, txRing: 8 }), failing).rejects.toMatchObject({ code: "EIO" });
      expect(other.log.at(-1)).toBe(failing === "open 0 1" ? failing : "close");
      expect(other.memory.ram.available, failing).toBe(other.memory.ram.size);
      expect(other.memory.space.arena.available, failing).toBe(arena);
    }
  });

  it("without memory for any of its parts it fails with ENOMEM and gives everything back", async () => {
    south = new South(EVERYTHING);
    const arena = south.memory.space.arena.available;
    for (let size = 65536; size <= 5 * 65536; size += 8192) {
      const other = new South(EVERYTHING);
      const hold = other.memory.ram.allocate(other.memory.ram.available - size, 1);
      await expect(other.probe({ rxRing: 128, txRing: 128 }), `${size}`).rejects.toMatchObject({
        code: "ENOMEM",
      });
      other.memory.ram.free(hold);
      expect(other.memory.ram.available).toBe(other.memory.ram.size);
      expect(other.memory.space.arena.available).toBe(arena);
    }
  });

  it("a host whose event records cannot hold its events is refused", async () => {
    south = new South(EVERYTHING);
    for (const size of [0, 12, 15, 25, 0xffffffff]) {
      const other = new South(EVERYTHING);
      other.eventSize = size;
      await expect(other.probe(), `${size}`).rejects.toMatchObject({ code: "EPROTO" });
      expect(other.memory.ram.available).toBe(other.memory.ram.size);
    }
  });
});

describe("leaving", () => {
  it("closed and opened again nothing leaks, in RAM or arena", async () => {
    await start();
    const arena: number[] = [];
    for (let cycle = 0; cycle < 3; cycle++) {
      await nic.send([tcp4(50_000), pattern(60)]);
      south.takeSent();
      const super4 = superframes().find(
        (frame) => frame.kind === 1 && frame.bytes.length > 2000 && frame.bytes.length < 5500,
      );
      if (super4 === undefined) throw new Error("the capture has no short superframe");
      const { bytes, flags, start: first, offset, size } = super4;
      south.deliver(bytes, [1518, bytes.length - 1518], { flags, start: first, offset, size });
      expect((await nic.receive()).length).toBeGreaterThan(1);
      south.deliver(bytes, [1518, bytes.length - 1518], { flags, start: first, offset, size });
      await south.settle();
      await nic.close();
      expect((await nic.receive()).length).toBeGreaterThan(1); // what came before the end is still finished
      await expect(nic.receive()).rejects.toMatchObject({ code: "ENOTCONN" });
      expect(south.memory.ram.available).toBe(south.memory.ram.size);
      arena.push(south.memory.space.arena.available);
      await south.proxy.close();
      const memory = south;
      await start();
      expect(memory.errors).toEqual([]);
    }
    const fresh = new South(EVERYTHING);
    expect(new Set(arena)).toEqual(new Set([fresh.memory.space.arena.available]));
    await end();
  });

  it("a host that does not answer DEVCLOSE keeps everything that it was given; the arena comes back", async () => {
    await start();
    await nic.send([tcp4(50_000)]);
    const left = south.memory.ram.available;
    const fresh = new South(EVERYTHING);
    south.closeError = noAnswer();
    await nic.close();
    expect(south.memory.ram.available).toBe(left);
    expect(south.memory.space.arena.available).toBe(fresh.memory.space.arena.available);
    await south.proxy.close();
  });

  it("a host that is lost fails the NIC; whoever waits is told, closing gives the memory back", async () => {
    await start({ superframeMemory: 65536 });
    const errors: unknown[] = [];
    nic.onError = (error) => errors.push(error);
    const waiting = Promise.allSettled([
      nic.receive(),
      nic.receiveFrames(),
      nic.send([tcp4(60_000), tcp4(60_000)]),
    ]);
    const gone = new VbusError("ENOTCONN", "the host is gone");
    south.onLost?.(gone);
    for (const outcome of await waiting) expect(outcome).toMatchObject({ status: "rejected", reason: gone });
    expect(errors).toEqual([gone]);
    south.closeError = gone;
    await nic.close();
    expect(south.memory.ram.available).toBe(south.memory.ram.size);
    await south.proxy.close();
  });
});
