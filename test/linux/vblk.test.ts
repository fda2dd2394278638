/** vblk.ko: disks of the bus in a Linux guest. */
import { createHash } from "node:crypto";
import { MemoryBackend } from "vbus/devices/vblk";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DISK_DRIVER } from "../../examples/linux/disks.js";
import type { Lab } from "../../examples/linux/lab.js";
import { ControlledBackend } from "../vblk/controlled.js";
import { generator } from "../engine/seed.js";
import { countsOf, nodeOf, plug, ShuffledBackend, unplug } from "./disks.js";
import { expectNoLeak, linuxLab, until } from "./fixture.js";
import { SEED } from "./traffic.js";

const MIB = 1 << 20;
const SIZE = 16 * MIB;

const noise = (seed: number, length: number): Uint8Array => {
  const random = generator(seed);
  return Uint8Array.from({ length }, () => random() & 255);
};
const md5 = (bytes: Uint8Array): string => createHash("md5").update(bytes).digest("hex");
/** Sectors of a disk, as the guest sees them. */
const sectors = (lab: Lab, node: string): Promise<string> => lab.machine.check(`cat /sys/block/${node}/size`);
const dropCaches = "echo 3 >/proc/sys/vm/drop_caches";

const errors: unknown[] = [];

describe("a disk in a Linux guest", () => {
  const lab = linuxLab({ cards: [], devices: [], drivers: [DISK_DRIVER] });
  const backend = new ShuffledBackend(SIZE, SEED);
  let node = "";

  beforeAll(async () => {
    lab().host!.vbus!.on("error", (event) => errors.push(event));
    node = await plug(lab(), "shuffled", backend);
  });

  it("is found, with its size, serial number and limits", async () => {
    const { machine } = lab();
    const device = "/sys/bus/vbus-proxy/devices/0";
    expect(await machine.check(`cat ${device}/modalias`)).toBe("vbus-proxy:virtual-block\n");
    expect(await machine.check(`readlink ${device}/driver`)).toMatch(/\/virtual-block\n$/);
    expect(await sectors(lab(), node)).toBe(`${SIZE / 512}\n`);
    expect(await machine.check(`cat /sys/block/${node}/serial`)).toBe("shuffled\n");
    const queue = async (name: string): Promise<string> =>
      (await machine.check(`cat /sys/block/${node}/queue/${name}`)).trim();
    expect(await queue("logical_block_size")).toBe("512");
    expect(await queue("max_hw_sectors_kb")).toBe("1024");
    expect(await queue("max_segments")).toBe("16");
    expect(await queue("discard_max_hw_bytes")).toBe(String(16 * MIB));
    expect(await queue("write_zeroes_max_bytes")).toBe(String(16 * MIB));
    expect(await queue("write_cache")).toBe("write back");
    expect(await queue("fua")).toBe("1");
    expect(await queue("rotational")).toBe("0");
    expect((await machine.check(`cat /sys/block/${node}/ro`)).trim()).toBe("0");
    expect(await machine.check(`fdisk -l /dev/${node} 2>&1`)).toMatch(/64 heads|8 cylinders|16 MiB|16\.0 MB/);
  });

  it("gives what the host's file holds, and holds what the guest writes, several requests at a time in any order", async () => {
    const { machine } = lab();
    const half = SIZE / 2;
    const bytes = noise(SEED, half);
    backend.bytes.set(bytes);
    const quarters = [0, 1, 2, 3].map((n) => {
      const copy = `dd if=/dev/${node} of=/dev/${node} bs=${[64, 128, 256, 512][n]}k conv=notrunc`;
      const step = half / 4 / ([64, 128, 256, 512][n]! * 1024);
      return `${copy} count=${step} skip=${n * step} seek=${n * step + half / ([64, 128, 256, 512][n]! * 1024)} 2>/dev/null &`;
    });
    await machine.check(`${dropCaches}; ${quarters.join(" ")} wait; sync`, { timeoutMs: 120_000 });
    expect(Buffer.compare(backend.bytes.subarray(half), bytes)).toBe(0);
    expect(backend.peak, "requests at a time").toBeGreaterThan(4);
    const read = await machine.check(`${dropCaches}; md5sum </dev/${node}`, { timeoutMs: 120_000 });
    expect(read.slice(0, 32)).toBe(md5(backend.bytes));
  });

  it("writes single sectors and odd lengths without touching their neighbours", async () => {
    const { machine } = lab();
    const random = generator(SEED + 1);
    const expected = Uint8Array.from(backend.bytes);
    for (let turn = 0; turn < 6; turn++) {
      const at = random() % (SIZE / 512 - 32);
      const count = 1 + (random() % 31);
      const letter = "abcdef"[turn]!;
      const text = `yes ${letter} | head -c ${count * 512}`;
      await machine.check(
        `${text} | dd of=/dev/${node} bs=512 seek=${at} conv=notrunc,fsync iflag=fullblock 2>/dev/null`,
      );
      expected.set(Buffer.from(`${letter}\n`.repeat(count * 256)), at * 512);
    }
    expect(Buffer.compare(backend.bytes, expected)).toBe(0);
  });

  it("flushes when it is asked to, after what was written before", async () => {
    const controlled = new ControlledBackend(MIB);
    controlled.hold = false;
    const held = await plug(lab(), "controlled", controlled);
    const { machine } = lab();
    await machine.check(dropCaches);
    const order: string[] = [];
    controlled.onBegin = ({ kind }) => order.push(kind);
    controlled.hold = true;
    const writing = machine.check(
      `dd if=/dev/zero of=/dev/${held} bs=64k count=16 conv=notrunc,fsync 2>/dev/null`,
    );
    await until("writes", () => controlled.held.length > 0);
    // each ends only when nothing else comes: if the guest did not wait for its writes, its flush would be among them
    for (let quiet = 0; !order.includes("flush");) {
      const seen = order.length;
      await new Promise((resolve) => setTimeout(resolve, 50));
      quiet = order.length === seen ? quiet + 1 : 0;
      if (quiet < 2) continue;
      expect(controlled.held.every(({ kind }) => kind === "write" || kind === "read")).toBe(true);
      controlled.held[0]?.proceed();
    }
    expect(controlled.held.map(({ kind }) => kind)).toEqual(["flush"]);
    controlled.release();
    await writing;
    await unplug(lab(), "controlled", held);
    await until("the back end to be closed", () => controlled.closed === 1);
  });

  it("discards: the host's file forgets", async () => {
    const { machine } = lab();
    backend.bytes.fill(0xa5, 4 * MIB, 8 * MIB);
    await machine.check(`${dropCaches}; blkdiscard -o ${5 * MIB} -l ${2 * MIB} /dev/${node}`);
    const zeroes = (from: number, to: number): boolean =>
      backend.bytes.subarray(from, to).every((b) => b === 0);
    expect(zeroes(5 * MIB, 7 * MIB)).toBe(true);
    expect(backend.bytes[5 * MIB - 1]).toBe(0xa5);
    expect(backend.bytes[7 * MIB]).toBe(0xa5);
    expect(countsOf(lab(), "shuffled").operations.discard).toBeGreaterThan(0);
  });

  it("becomes larger and smaller while the guest looks", async () => {
    const { machine, host } = lab();
    for (const size of [SIZE + MIB, SIZE - MIB, SIZE]) {
      host!.bus.write("devices/shuffled/size", String(size));
      await until("the new size", async () => (await sectors(lab(), node)) === `${size / 512}\n`);
      expect((await machine.check(`blockdev --getsize64 /dev/${node}`)).trim()).toBe(String(size));
    }
    await machine.check(`dd if=/dev/zero of=/dev/${node} bs=512 seek=${SIZE / 512 - 1} count=1 conv=fsync`);
  });

  it("is not written when it is read-only", async () => {
    const { machine } = lab();
    const content = noise(SEED + 2, MIB);
    const disk = new MemoryBackend(content);
    const reading = await plug(lab(), "reading", disk, { read_only: "1" });
    expect((await machine.check(`blockdev --getro /dev/${reading}`)).trim()).toBe("1");
    expect((await machine.run(`echo no >/dev/${reading}`)).status).not.toBe(0);
    expect((await machine.run(`blkdiscard /dev/${reading}`)).status).not.toBe(0);
    expect((await machine.check(`md5sum </dev/${reading}`)).slice(0, 32)).toBe(md5(content));
    expect(Buffer.compare(disk.bytes, content)).toBe(0);
    await unplug(lab(), "reading", reading);
  });

  it("tells its partitions", async () => {
    const { machine } = lab();
    await machine.check(
      `printf 'n\\np\\n1\\n\\n+4M\\nn\\np\\n2\\n\\n\\nw\\n' | fdisk /dev/${node} >/dev/null 2>&1; true`,
    );
    await until("two partitions", async () =>
      /2/.test(await machine.check(`ls -d /sys/block/${node}/${node}p* | wc -l`)),
    );
    await machine.check(`echo in the second >/dev/${node}p2; sync`);
    const start = Number(await machine.check(`cat /sys/block/${node}/${node}p2/start`));
    expect(Buffer.from(backend.bytes.subarray(start * 512, start * 512 + 13)).toString()).toBe(
      "in the second",
    );
  });

  it("passes on what its back end fails at, and works on", async () => {
    const { machine } = lab();
    const failing = new ControlledBackend(MIB);
    failing.hold = false;
    const bad = await plug(lab(), "failing", failing);
    await machine.check(dropCaches);
    failing.onBegin = (held) => {
      setImmediate(() => held.fail(Object.assign(new Error("no more of it"), { code: "EIO" })));
    };
    failing.hold = true;
    const read = await machine.run(`dd if=/dev/${bad} of=/dev/null bs=4k count=1 2>&1`);
    expect(read.status).not.toBe(0);
    expect(read.output).toContain("Input/output error");
    const write = await machine.run(`dd if=/dev/zero of=/dev/${bad} bs=4k count=1 conv=fsync 2>&1`);
    expect(write.status).not.toBe(0);
    failing.onBegin = () => {};
    failing.release();
    await machine.check(`dd if=/dev/zero of=/dev/${bad} bs=4k count=4 conv=fsync 2>/dev/null`);
    await unplug(lab(), "failing", bad);
    expect(errors.length, "failures of a back end are told once").toBe(1);
    errors.length = 0;
  });

  it("goes while it is written, after what was under way", async () => {
    const { machine } = lab();
    const content = new ShuffledBackend(8 * MIB, SEED + 3);
    const going = await plug(lab(), "going", content);
    await machine.check(
      `(while [ -b /dev/${going} ] && dd if=/dev/zero of=/dev/${going} bs=256k count=32 conv=notrunc,fsync; do :; done >/tmp/going 2>&1; echo over >>/tmp/going) &`,
    );
    await until("writes", () => content.flushes > 1);
    await unplug(lab(), "going", going);
    await until("the writer to give up", async () => /over/.test(await machine.check("cat /tmp/going")));
    await machine.check(`md5sum </dev/${node} >/dev/null`); // the other disk did not notice
  });

  it("is unbound and bound again, and driver and disks come and go without a leak", async () => {
    const { machine } = lab();
    const driver = "/sys/bus/vbus-proxy/drivers/virtual-block";
    await expectNoLeak(machine, async () => {
      for (let turn = 0; turn < 3; turn++) {
        await machine.check(`echo 0 >${driver}/unbind && echo 0 >${driver}/bind`);
        await nodeOf(machine, "shuffled");
        await machine.check(`dd if=/dev/${node} of=/dev/null bs=64k count=16 2>/dev/null`);
      }
      await machine.check("rmmod vblk && insmod /lib/vbus/vblk.ko");
      await nodeOf(machine, "shuffled");
    });
  });

  it("was right all the time", async () => {
    const { failed, violations, cancelled, outstanding, requests, completed } = countsOf(lab(), "shuffled");
    expect({ failed, violations, cancelled, outstanding }).toEqual({
      failed: 0,
      violations: 0,
      cancelled: 0,
      outstanding: 0,
    });
    expect(requests).toBe(completed);
    expect(errors).toEqual([]);
    const log = await lab().machine.check("dmesg");
    expect(log).not.toMatch(/answers to nothing|cannot be right|BUG|WARNING|has let go/);
  });
});

describe("a host that is gone", () => {
  const lab = linuxLab({ cards: [], devices: [], drivers: [DISK_DRIVER] });
  const controlled = new ControlledBackend(8 * MIB);

  afterAll(() => {
    controlled.release();
  });

  it("leaves errors to those who wait for its disk, once they have waited for long", async () => {
    const { machine, host } = lab();
    controlled.hold = false;
    const node = await plug(lab(), "lost", controlled);
    await machine.check(dropCaches);
    controlled.hold = true;
    const jobs = [`if=/dev/zero of=/dev/${node} conv=fsync`, `if=/dev/${node} of=/dev/null`];
    for (const [n, job] of jobs.entries())
      await machine.check(
        `(dd bs=256k count=16 ${job} >/tmp/lost${n} 2>&1; echo status $? >>/tmp/lost${n}) &`,
      );
    await until("requests that wait", () => controlled.held.length >= 3);
    host!.vbus!.close(); // without a word to the guest
    for (const n of jobs.keys()) {
      await until("an answer", async () => /status/.test(await machine.check(`cat /tmp/lost${n}`)));
      expect(await machine.check(`cat /tmp/lost${n}`)).toMatch(/Input\/output error[^]*status 1/);
    }
    expect((await machine.run(`dd if=/dev/${node} of=/dev/null bs=4k count=1`)).status).not.toBe(0);
    expect(await machine.check("dmesg")).toContain("the host has let go of vblk0");
    await machine.check("rmmod vblk");
    expect((await machine.run(`[ -e /sys/block/${node} ]`)).status).not.toBe(0);
    expect(await machine.check("dmesg")).not.toMatch(/BUG|WARNING/);
  });
});
