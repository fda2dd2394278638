/** vblk.ko with several queues: rings of their own for reads and for all else, one disk. */
import { createHash } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { DISK_DRIVER } from "../../examples/linux/disks.js";
import { generator } from "../engine/seed.js";
import { countsOf, plug, ShuffledBackend, unplug } from "./disks.js";
import { linuxLab, until } from "./fixture.js";
import { SEED } from "./traffic.js";

const MIB = 1 << 20;
const SIZE = 4 * MIB;
const HALF = SIZE / 2;
const JOBS = 4;
/** Blocks of 64 KiB that a job sums. */
const PART = HALF / JOBS / 65536;
const ROUNDS = 2;
const md5 = (bytes: Uint8Array): string => createHash("md5").update(bytes).digest("hex");

/** Counters of a ring, as `queues` shows them. */
interface RingCounts {
  pushed: number;
  popped: number;
}

describe(`a disk with a queue for reads in a Linux guest (seed ${SEED}, VBUS_SEED=n to repeat)`, () => {
  const lab = linuxLab({ cards: [], devices: [], drivers: [DISK_DRIVER] });
  const backend = new ShuffledBackend(SIZE, SEED);
  const errors: unknown[] = [];
  let node = "";

  const rings = (name: string): Record<string, RingCounts> =>
    JSON.parse(lab().host!.vbus!.read(`devices/${name}/queues`)) as Record<string, RingCounts>;
  const hardwareQueues = async (disk: string): Promise<string> =>
    (await lab().machine.check(`ls /sys/block/${disk}/mq | sort -n | tr '\\n' ' '`)).trim();

  beforeAll(async () => {
    lab().host!.vbus!.on("error", (event) => errors.push(event));
    await lab().machine.check("rmmod vblk && insmod /lib/vbus/vblk.ko queues=1 read_queues=1");
    node = await plug(lab(), "several", backend);
  });

  it("has two queues where the device allows several, one where it does not", async () => {
    expect(await hardwareQueues(node)).toBe("0 1");
    expect(Object.keys(rings("several"))).toEqual(["request", "completion", "request1", "completion1"]);
    const single = await plug(lab(), "single", new ShuffledBackend(MIB, SEED), { max_queues: "1" });
    expect(await hardwareQueues(single)).toBe("0");
    expect(Object.keys(rings("single"))).toEqual(["request", "completion"]);
    await lab().machine.check(`md5sum </dev/${single} >/dev/null`);
    await unplug(lab(), "single", single);
  });

  it("is read and written by many at a time, and everything is where it belongs", async () => {
    const { machine } = lab();
    const random = generator(SEED);
    const expected = Uint8Array.from({ length: HALF }, () => random() & 255);
    for (let round = 0; round < ROUNDS; round++) {
      backend.bytes.set(expected);
      backend.bytes.fill(0, HALF);
      const blocks = Array.from({ length: JOBS }, (_, job) => 16 << ((job + round) % JOBS)); // KiB
      const copies = blocks.map((kib, job) => {
        const count = HALF / JOBS / 1024 / kib;
        const place = `skip=${job * count} seek=${(JOBS + job) * count}`;
        return `dd if=/dev/${node} of=/dev/${node} bs=${kib}k count=${count} ${place} conv=notrunc 2>/dev/null &`;
      });
      const sums = Array.from(
        { length: JOBS },
        (_, job) =>
          `dd if=/dev/${node} bs=64k skip=${job * PART} count=${PART} 2>/dev/null | md5sum >/tmp/sum${job} &`,
      );
      await machine.check(
        `echo 3 >/proc/sys/vm/drop_caches; ${copies.join(" ")} ${sums.join(" ")} wait; sync`,
      );
      expect(Buffer.compare(backend.bytes.subarray(HALF), expected), "what was copied").toBe(0);
      for (let job = 0; job < JOBS; job++) {
        const part = expected.subarray((job * HALF) / JOBS, ((job + 1) * HALF) / JOBS);
        expect((await machine.check(`cat /tmp/sum${job}`)).slice(0, 32)).toBe(md5(part));
      }
      await machine.check("echo 3 >/proc/sys/vm/drop_caches");
      expect((await machine.check(`md5sum </dev/${node}`)).slice(0, 32)).toBe(md5(backend.bytes));
    }
    expect(backend.peak, "requests at a time").toBeGreaterThan(JOBS);
  });

  it("has had its reads by the second queue, and all else by the first", () => {
    const { operations, requests, outstanding } = countsOf(lab(), "several");
    const { request, completion, request1, completion1 } = rings("several");
    expect(outstanding).toBe(0);
    expect(operations.read).toBeGreaterThan(0);
    expect(operations.write).toBeGreaterThan(0);
    expect(request1!.popped, "requests by the second").toBe(operations.read);
    expect(request!.popped, "requests by the first").toBe(requests - operations.read);
    expect(completion!.pushed).toBe(request!.popped);
    expect(completion1!.pushed).toBe(request1!.popped);
  });

  it("goes while both queues are busy, and comes again", async () => {
    const { machine } = lab();
    const content = new ShuffledBackend(2 * MIB, SEED + 1);
    const going = await plug(lab(), "going", content);
    const forever = (job: string): string =>
      `(while [ -b /dev/${going} ] && ${job}; do echo 3 >/proc/sys/vm/drop_caches; done; echo over >>/tmp/going) >/dev/null 2>&1 &`;
    await machine.check(
      `rm -f /tmp/going; ${forever(`dd if=/dev/zero of=/dev/${going} bs=256k conv=notrunc,fsync count=8`)} ${forever(`dd if=/dev/${going} of=/dev/null bs=64k`)}`,
    );
    const busy = (): boolean => {
      const { request, request1 } = rings("going");
      return request!.popped > 20 && request1!.popped > 20;
    };
    await until("load on both", busy);
    await unplug(lab(), "going", going);
    await until("both to give up", async () => (await machine.check("cat /tmp/going")) === "over\nover\n");
    await machine.check("rmmod vblk && insmod /lib/vbus/vblk.ko");
    await until("the disk", async () => (await machine.run("[ -b /dev/vblk0 ]")).status === 0);
    expect(await hardwareQueues("vblk0"), "as many as processors, unless somebody asks for more").toBe("0");
    expect((await machine.check("md5sum </dev/vblk0")).slice(0, 32)).toBe(md5(backend.bytes));
  });

  it("was right all the time", async () => {
    const { failed, violations, cancelled } = countsOf(lab(), "several");
    expect({ failed, violations, cancelled }).toEqual({ failed: 0, violations: 0, cancelled: 0 });
    expect(errors).toEqual([]);
    const log = await lab().machine.check("dmesg");
    expect(log).not.toMatch(/answers to nothing|cannot be right|BUG|WARNING|has let go/);
  });
});
