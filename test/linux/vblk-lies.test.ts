/** vblk.ko and a host that lies: wrong answers hurt those who asked, never the guest's kernel. */
import { afterEach, describe, expect, it } from "vitest";
import { DISK_DRIVER } from "../../examples/linux/disks.js";
import { generator } from "../engine/seed.js";
import { linuxLab, until } from "./fixture.js";
import { lyingDiskClass, type Answer, type Liar, type LyingInfo, type LyingRequest } from "./lying-disk.js";
import { SEED } from "./traffic.js";

const GOOD: LyingInfo = {
  blockSize: 512,
  sectors: 8192n,
  maxPieces: 16,
  maxLength: 1 << 20,
  maxBulk: 1 << 20,
  depth: 64,
};
const IMPOSSIBLE: [string, Partial<LyingInfo>][] = [
  ["has blocks of 4096 bytes", { blockSize: 4096 }],
  ["has more sectors than bytes can be counted", { sectors: 1n << 63n }],
  ["takes no pieces", { maxPieces: 0 }],
  ["takes less than a page", { maxLength: 512 }],
  ["takes no whole sectors", { maxLength: 4097 }],
  ["discards nothing at a time", { maxBulk: 0 }],
  ["takes no requests", { depth: 0 }],
];
const EVENT = 0xffffffff;

const honest = ({ tag, op, length }: Omit<LyingRequest, "queue">): Answer[] => [
  { tag, status: 0, value: BigInt(op === 2 ? 0 : length) },
];

describe(`a host that lies about its disk (seed ${SEED}, VBUS_SEED=n to repeat)`, () => {
  const lab = linuxLab({ cards: [], devices: [], drivers: [DISK_DRIVER] });
  let names = 0;
  let present = "";

  /** Plugs in a disk that says what it is told to. */
  const plugLiar = (info: LyingInfo, lie: Liar): void => {
    const { vbus, bus } = lab().host!;
    const name = `liar${names++}`;
    vbus!.registerClass(lyingDiskClass(`${name}-class`, info, lie));
    bus.connect(vbus!.createDevice(name, `${name}-class`));
    present = name;
  };
  const diskThere = async (): Promise<boolean> => (await lab().machine.run("[ -b /dev/vblk0 ]")).status === 0;

  afterEach(async () => {
    lab().host!.vbus!.removeDevice(present);
    await until(
      "the disk to go",
      async () => (await lab().machine.check("ls /sys/bus/vbus-proxy/devices")) === "",
    );
    expect(await lab().machine.check("dmesg")).not.toMatch(/BUG|WARNING/);
  });

  it.each(IMPOSSIBLE)("gets no disk when it %s", async (_, wrong) => {
    const { machine } = lab();
    await machine.check("dmesg -c >/dev/null");
    plugLiar({ ...GOOD, ...wrong }, honest);
    await until("the driver's words", async () =>
      /not what this driver knows/.test(await machine.check("dmesg")),
    );
    expect(await diskThere()).toBe(false);
  });

  it.each<[string, (request: LyingRequest) => Answer]>([
    [
      "says less was done than was asked for",
      ({ tag, length }) => ({ tag, status: 0, value: BigInt(length - 1) }),
    ],
    ["says more was", ({ tag }) => ({ tag, status: 0, value: (1n << 64n) - 1n })],
    ["fails with an error that nobody knows", ({ tag }) => ({ tag, status: -99_999, value: 0n })],
    ["fails with what is no error", ({ tag }) => ({ tag, status: 77, value: 0n })],
  ])("leaves an error to who reads when it %s", async (_, answer) => {
    const { machine } = lab();
    let lying = false;
    plugLiar(GOOD, (request) => (lying ? [answer(request)] : honest(request)));
    await until("the disk", diskThere);
    await machine.check("echo 3 >/proc/sys/vm/drop_caches");
    lying = true;
    const { status, output } = await machine.run("dd if=/dev/vblk0 of=/dev/null bs=4k count=1 2>&1");
    expect(status).toBe(1);
    expect(output).toContain("Input/output error");
    lying = false;
    await machine.check("dd if=/dev/vblk0 of=/dev/null bs=64k count=8 2>/dev/null");
  });

  it("leaves errors, at once, to all who wait when it lets go of a ring", async () => {
    const { machine } = lab();
    let letGo = false;
    plugLiar(GOOD, (request) => (letGo ? "let go" : honest(request)));
    await until("the disk", diskThere);
    await machine.check("echo 3 >/proc/sys/vm/drop_caches");
    letGo = true;
    const { status, output } = await machine.run("dd if=/dev/vblk0 of=/dev/null bs=64k count=8 2>&1");
    expect(status).toBe(1);
    expect(output).toContain("Input/output error");
    expect(await machine.check("dmesg")).toContain("the host has let go of vblk0");
  });

  it("is not believed when it answers what nobody asked, twice, or tells of nonsense", async () => {
    const { machine } = lab();
    const random = generator(SEED);
    plugLiar(GOOD, (request) => {
      const answers: Answer[] = [];
      for (let n = random() % 4; n > 0; n--) {
        const value = (BigInt(random()) << 32n) | BigInt(random());
        answers.push(
          [
            { tag: random(), status: random() | 0, value },
            { tag: 64 + (random() % 1000), status: 0, value: 4096n },
            { tag: EVENT, status: random() | 0, value },
            { tag: EVENT, status: 1, value: value | (1n << 63n) },
          ][random() % 4]!,
        );
      }
      const [truth] = honest(request);
      answers.push(truth!);
      if (random() % 4 === 0) answers.push(truth!); // again
      return answers;
    });
    await until("the disk", diskThere);
    for (let turn = 0; turn < 3; turn++) {
      await machine.check("echo 3 >/proc/sys/vm/drop_caches");
      await machine.run("dd if=/dev/vblk0 of=/dev/null bs=64k 2>/dev/null");
      await machine.run("dd if=/dev/zero of=/dev/vblk0 bs=64k count=16 conv=fsync 2>/dev/null");
    }
    expect(await machine.check("dmesg")).toMatch(/answers to nothing/);
  });

  it("is not believed when it answers by another queue", async () => {
    const { machine } = lab();
    await machine.check("rmmod vblk && insmod /lib/vbus/vblk.ko read_queues=1 && dmesg -c >/dev/null");
    const wrong = new Set<number>();
    plugLiar({ ...GOOD, queues: 2 }, (request) => {
      wrong.add(request.queue);
      const [truth] = honest(request);
      const answer = { ...truth!, queue: 1 - request.queue, status: -5 };
      return [answer, truth!];
    });
    await until("the disk", diskThere);
    await machine.check("dd if=/dev/vblk0 of=/dev/null bs=64k 2>/dev/null"); // without an error
    await machine.check("dd if=/dev/zero of=/dev/vblk0 bs=64k count=16 conv=fsync 2>/dev/null");
    expect([...wrong].sort(), "queues that were used").toEqual([0, 1]);
    expect(await machine.check("dmesg")).toMatch(/answers to nothing/);
  });
});
