/** vconsole.ko and a host that lies: lengths, marks, calls and rings are not what they should be, and the guest's kernel stays whole. */
import {
  VCONSOLE_EVENT_BREAK,
  VCONSOLE_EVENT_HANGUP,
  VCONSOLE_EVENT_OPENED,
  VCONSOLE_EVENT_WINSIZE,
  VCONSOLE_READY,
} from "vbus/abi";
import { afterEach, describe, expect, it } from "vitest";
import { CONSOLE_DRIVER } from "../../examples/linux/disks.js";
import { generator } from "../engine/seed.js";
import { linuxLab, until } from "./fixture.js";
import { lyingConsoleClass, type Answer, type LyingConsole, type LyingRing } from "./lying-console.js";
import { SEED } from "./traffic.js";

/** The driver's buffers for received bytes. */
const RX_SIZE = 1024;

/** READY gets its number, and the conversation is open at once. */
const honest: Answer = (func, session) => {
  if (func !== VCONSOLE_READY) return 0;
  const conversation = ++session.conversations;
  const open = (): void => {
    const told = session.closed || session.tell({ id: VCONSOLE_EVENT_OPENED, conversation });
    if (!told) setTimeout(open, 5); // the guest has records for it when it has read what is there
  };
  open();
  return conversation;
};

describe(`a host that lies about its console (seed ${SEED}, VBUS_SEED=n to repeat)`, () => {
  const lab = linuxLab({ cards: [], devices: [], drivers: [CONSOLE_DRIVER] });
  let names = 0;
  let present = "";
  let session: LyingConsole;

  /** Plugs in a console that says what it is told to, and waits until the guest has it. */
  const plugLiar = async (answer: Answer = honest): Promise<void> => {
    const { vbus, bus } = lab().host!;
    present = `liar${names++}`;
    let opened: LyingConsole | undefined;
    vbus!.registerClass(lyingConsoleClass(`${present}-class`, answer, (console) => (opened = console)));
    bus.connect(vbus!.createDevice(present, `${present}-class`));
    await until("a console", async () => (await lab().machine.run("[ -c /dev/hvc0 ]")).status === 0);
    session = opened!;
  };
  /** Opens the terminal for reading, raw, and keeps what comes in a file. */
  const startReader = async (): Promise<void> => {
    await lab().machine.check(
      "rm -f /tmp/read /tmp/over; (stty raw -echo; cat >/tmp/read; echo over >/tmp/over) </dev/hvc0 2>/dev/null &",
    );
    await until("a reader", async () => (await lab().machine.run("pidof cat")).status === 0);
  };
  const readerOver = (): Promise<void> =>
    until("the reader to end", async () => (await lab().machine.run("[ -e /tmp/over ]")).status === 0);
  const readSoFar = (): Promise<string> => lab().machine.check("cat /tmp/read");
  /** What is sent in an honest way arrives, behind whatever came before. */
  const expectHonesty = async (word: string): Promise<void> => {
    await until("a buffer", () => session.send(word));
    await until(`"${word}"`, async () => (await readSoFar()).endsWith(word));
  };
  const endReader = async (): Promise<void> => {
    await lab().machine.check("killall cat");
    await readerOver();
  };

  afterEach(async () => {
    const { machine, host } = lab();
    await machine.run("killall -9 cat dd yes 2>/dev/null");
    host!.vbus!.removeDevice(present);
    await until(
      "the console to go",
      async () => (await machine.check("ls /sys/bus/vbus-proxy/devices")) === "",
    );
    expect(session.closed).toBe(true);
    expect(await machine.check("dmesg")).not.toMatch(/BUG|WARNING|lockup|stall/);
  });

  it("gets no more bytes read than there is room for, whatever length it gives a buffer back with", async () => {
    await plugLiar();
    await startReader();
    const lies = [RX_SIZE + 1, 0x1_0000_0000, 0x1_0000_0001, 0xffff_ffff].map(BigInt);
    for (const length of [...lies, 1n << 63n, (1n << 64n) - 1n, 0n, 0n]) {
      const text = "abcdefgh".repeat(RX_SIZE / 8);
      await until("a buffer", () => session.send(text, length));
    }
    await expectHonesty("the truth");
    expect((await readSoFar()).length).toBe(6 * RX_SIZE + "the truth".length);
    await endReader();
  });

  it("is read on when it gives buffers back that it does not have, in any order", async () => {
    const random = generator(SEED);
    await plugLiar();
    await startReader();
    for (let turn = 0; turn < 200; turn++) {
      const n = random() % session.rx.count;
      if (random() & 1) session.rx.give(n, BigInt(random() % (2 * RX_SIZE)));
      else session.rx.grab(n);
      session.rx.scribble(random);
      session.rx.ring();
      if (turn % 20 === 0) await new Promise(setImmediate);
    }
    for (let n = 0; n < session.rx.count; n++) session.rx.give(n, 1n);
    session.rx.ring();
    await until("bytes", async () => (await readSoFar()).length > 0);
    await endReader();
  });

  it("hangs the reader up, or not, when marks lie where no byte will ever be", async () => {
    await plugLiar();
    await startReader();
    const conversation = session.conversations;
    for (const position of [1n << 63n, (1n << 64n) - 1n, 1n << 32n])
      session.tell({ id: VCONSOLE_EVENT_BREAK, conversation, position });
    await expectHonesty("not there yet");
    // no reader ever gets there, and one who waits must not wait for ever
    session.tell({ id: VCONSOLE_EVENT_HANGUP, conversation, position: (1n << 64n) - 1n });
    await readerOver();
    expect(await readSoFar()).toBe("not there yet");
    await startReader();
    expect(session.conversations).toBe(conversation + 1);
    await expectHonesty("and another one");
    await endReader();
  });

  it("keeps nobody from leaving when it sends more marks than fit", async () => {
    await plugLiar();
    await startReader();
    const conversation = session.conversations;
    for (let n = 0; n < 100; n++) {
      session.tell({ id: VCONSOLE_EVENT_BREAK, conversation, position: (1n << 40n) + BigInt(n) });
      if (n % 10 === 0) await new Promise(setImmediate);
    }
    await expectHonesty("between them");
    await endReader();
    await startReader(); // the marks were of another conversation
    await until("the next conversation", () => session.conversations === conversation + 1);
    await endReader();
  });

  it("is not listened to when it speaks of other conversations", async () => {
    await plugLiar();
    await startReader();
    const { conversations } = session;
    for (const conversation of [0, conversations + 1, conversations - 1, 0xffff_ffff])
      for (const id of [VCONSOLE_EVENT_HANGUP, VCONSOLE_EVENT_OPENED, VCONSOLE_EVENT_BREAK, 4, 0xffff_ffff])
        await until("a record", () => session.tell({ id, conversation, position: 0n }));
    await expectHonesty("still the same one");
    expect(session.conversations).toBe(conversations);
    await endReader();
  });

  it("has its windows of every size taken", async () => {
    await plugLiar();
    await startReader();
    for (const [cols, rows] of [
      [0, 0],
      [65535, 65535],
      [1, 65535],
      [132, 50],
    ] as const)
      await until("a record", () =>
        session.tell({ id: VCONSOLE_EVENT_WINSIZE, conversation: 99, cols, rows }),
      );
    await until("the last", async () => (await lab().machine.check("stty size </dev/hvc0")) === "50 132\n");
    await endReader();
  });

  it.each([
    ["has no conversation for it", -5],
    ["numbers it 0", 0],
    ["answers with what is no error", -2_147_483_648],
  ])("hangs up who opens it when it %s", async (_, result) => {
    const { machine } = lab();
    await machine.check("dmesg -c >/dev/null");
    await plugLiar(() => result);
    await machine.run("cat /dev/hvc0"); // ends
    await until("the driver's words", async () =>
      (await machine.check("dmesg")).includes("gets no conversation"),
    );
    expect(await machine.check("dmesg")).toContain("the host has let go of hvc0");
  });

  it("is waited for when it begins no conversation, by nobody longer than he likes", async () => {
    const { machine } = lab();
    await plugLiar((func, liar) => (func === VCONSOLE_READY ? ++liar.conversations : 0));
    await startReader();
    await machine.check("(yes 'is anybody there' >/dev/hvc0; true) 2>/dev/null &");
    await until("a writer", async () => (await machine.run("pidof yes")).status === 0);
    expect(session.tx.isOurs(0), "something was sent").toBe(false);
    await machine.check("killall yes");
    await endReader();
  });

  it("is followed when it hangs up each conversation before it began, by those who open it anew", async () => {
    const { machine } = lab();
    await plugLiar((func, liar) => {
      if (func !== VCONSOLE_READY) return -2;
      const conversation = ++liar.conversations;
      liar.tell({ id: VCONSOLE_EVENT_HANGUP, conversation });
      liar.tell({ id: VCONSOLE_EVENT_OPENED, conversation });
      return conversation;
    });
    for (let turn = 0; turn < 5; turn++) await machine.run("cat /dev/hvc0"); // ends
    expect(session.conversations).toBeGreaterThanOrEqual(5);
  });

  it.each<["rx" | "tx" | "events"]>([["rx"], ["tx"], ["events"]])(
    "hangs up readers and writers when it lets go of %s in the middle of it",
    async (ring) => {
      const { machine } = lab();
      await machine.check("dmesg -c >/dev/null");
      await plugLiar();
      await startReader();
      await machine.check(
        "rm -f /tmp/wrote; (yes 'on and on' >/dev/hvc0; echo over >/tmp/wrote) 2>/dev/null &",
      );
      await until("a full line", () => !hasRoom(session.tx));
      session[ring].signal.release();
      await readerOver();
      await until("the writer to end", async () => (await machine.run("[ -e /tmp/wrote ]")).status === 0);
      expect(await machine.check("dmesg")).toContain("the host has let go of hvc0");
    },
  );

  it("gets back no more than it was given, in whatever order it gives back what the guest wrote", async () => {
    const { machine } = lab();
    const random = generator(SEED + 1);
    await plugLiar();
    await startReader();
    await machine.check("(yes 'one of many lines' >/dev/hvc0) 2>/dev/null &");
    await until("a full line", () => !hasRoom(session.tx));
    for (let turn = 0; turn < 300; turn++) {
      const n = random() % session.tx.count;
      if (random() % 3 === 0) session.tx.grab(n);
      else session.tx.give(n, BigInt(random()) << 20n);
      session.tx.scribble(random);
      session.tx.ring();
      if (turn % 20 === 0) await new Promise(setImmediate);
    }
    await machine.check("killall yes");
    await expectHonesty("read it still is");
    await endReader();
  });

  it("can do all of it at once", async () => {
    const { machine } = lab();
    const random = generator(SEED + 2);
    await plugLiar((func, liar) => {
      if (func !== VCONSOLE_READY) return [0, -2, -5, 7][random() % 4]!;
      const conversation = ++liar.conversations;
      if (random() & 1) liar.tell({ id: VCONSOLE_EVENT_OPENED, conversation });
      return conversation;
    });
    for (let turn = 0; turn < 8; turn++) {
      await machine.check(
        "(cat /dev/hvc0 >/dev/null; true) 2>/dev/null & (yes x >/dev/hvc0; true) 2>/dev/null &",
      );
      for (let n = 0; n < 100; n++) {
        const rings = [session.rx, session.tx, session.events];
        const ring = rings[random() % 3]!;
        if (random() & 1) ring.give(random() % ring.count, (BigInt(random()) << 32n) | BigInt(random()));
        session.tell({
          id: random() % 5,
          conversation: session.conversations - (random() % 2),
          position: session.position + BigInt(random() % 5000) - 2500n,
        });
        session.send("x".repeat(random() % RX_SIZE), BigInt(random() % 3000));
        ring.ring();
        if (n % 10 === 0) await new Promise(setImmediate);
      }
      await machine.run("killall -9 cat yes 2>/dev/null");
    }
    const began = session.conversations;
    await machine.check("rmmod vconsole && insmod /lib/vbus/vconsole.ko"); // nothing keeps it
    expect(began).toBeGreaterThan(0);
  });
});

/** True while the guest has not given all descriptors away. */
function hasRoom(ring: LyingRing): boolean {
  for (let n = 0; n < ring.count; n++) if (!ring.isOurs(n)) return true;
  return false;
}
