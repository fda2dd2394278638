/** vconsole.ko: consoles of the bus in a Linux guest. */
import { Terminal, type HangupReason } from "vbus/devices/vconsole";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Console } from "../../examples/linux/console.js";
import { CONSOLE_DRIVER, consoleOf, startShell } from "../../examples/linux/disks.js";
import { expectNoLeak, linuxLab, until } from "./fixture.js";

/** Ends what hangs; nothing is judged by it. */
const SHELL_MS = 120_000;

describe("a console in a Linux guest", () => {
  const screen = new Terminal({ cols: 100, rows: 30 });
  const lab = linuxLab({ cards: [], devices: [consoleOf("console0", screen)], drivers: [CONSOLE_DRIVER] });
  const errors: unknown[] = [];
  const hangups: HangupReason[] = [];
  let heard = "";
  let shell: Console | null = null;

  const line = (name = "console0"): string => lab().host!.bus.read(`devices/${name}/line`);
  const down = (): Promise<void> => until("the guest to hang up", () => line() === "down");
  const statistics = () => screen.statistics();

  beforeAll(() => {
    lab().host!.vbus!.on("error", (event) => errors.push(event));
    screen.onData = (bytes) => {
      heard += Buffer.from(bytes).toString("latin1");
      for (const byte of bytes) shell?.receive(byte);
    };
    screen.onHangup = (reason) => hangups.push(reason);
  });

  afterAll(() => {
    shell?.close();
  });

  it("is found, and nobody is told anything before somebody opens it", async () => {
    const { machine } = lab();
    expect(await machine.check("cat /sys/bus/vbus-proxy/devices/0/modalias")).toBe(
      "vbus-proxy:virtual-console\n",
    );
    await until("hvc0", async () => (await machine.run("[ -c /dev/hvc0 ]")).status === 0);
    expect(line()).toBe("down");
  });

  it("says what is written to it, and hangs up when the last one closes it", async () => {
    const { machine } = lab();
    await machine.check("echo 'hello from the guest' >/dev/hvc0");
    await until("the guest's words", () => heard.includes("hello from the guest\r\n"));
    await down();
    expect(hangups.splice(0)).toEqual(["guest"]);
  });

  it("says what was written by processes that were faster than the driver's work", async () => {
    const { machine } = lab();
    const debug = "/sys/kernel/debug";
    const preemption = (feature: string): Promise<string> =>
      machine.check(`echo ${feature} >${debug}/sched/features`);
    await machine.check(`mount -t debugfs none ${debug}`);
    await preemption("NO_WAKEUP_PREEMPTION"); // what is scheduled runs when the process has closed the device
    for (let round = 0; round < 10; round++) {
      heard = "";
      await machine.check(`echo 'in a hurry ${round}' >/dev/hvc0`);
      await until("the guest's words", () => heard.includes(`in a hurry ${round}\r\n`));
      await down();
    }
    await preemption("WAKEUP_PREEMPTION");
    await machine.check(`umount ${debug}`);
    expect(new Set(hangups.splice(0))).toEqual(new Set(["guest"]));
  });

  it("does not hang up where HUPCL is not set", async () => {
    const { machine } = lab();
    await machine.check("exec 9<>/dev/hvc0; stty -hupcl <&9; exec 9<&-; sleep 0.2");
    expect(line()).toBe("up");
    await machine.check("echo 'still there' >/dev/hvc0"); // whose settings are new
    await until("the guest's words", () => heard.includes("still there"));
    await down();
    expect(hangups.splice(0)).toEqual(["guest"]);
  });

  it("carries a lot, both ways, unharmed", async () => {
    const { machine } = lab();
    const numbers = Array.from({ length: 8_000 }, (_, n) => `${n + 1}\n`).join("");
    heard = "";
    await machine.check("seq 1 8000 >/tmp/numbers; exec 9<>/dev/hvc0; stty raw -echo <&9");
    await machine.check("cat /tmp/numbers >&9", { timeoutMs: SHELL_MS });
    await until("the numbers", () => heard.length >= numbers.length);
    expect(heard === numbers).toBe(true);
    await machine.check(`rm -f /tmp/back; (head -c ${numbers.length} <&9 >/tmp/back) &`);
    await screen.write(Buffer.from(numbers));
    await until(
      "the numbers to arrive",
      async () => (await machine.run("cmp /tmp/numbers /tmp/back")).status === 0,
    );
    await machine.check("stty sane <&9; exec 9<&-");
    await down();
  });

  it("holds a guest back whose terminal does not listen, and loses nothing", async () => {
    const { machine } = lab();
    heard = "";
    let release = (): void => {};
    const slow = new Promise<void>((resolve) => (release = resolve));
    const listen = screen.onData;
    screen.onData = async (bytes) => {
      heard += Buffer.from(bytes).toString("latin1");
      await slow;
    };
    screen.backlog = 2000;
    await machine.check("rm -f /tmp/written; (seq 1 14000 >/dev/hvc0; echo $? >/tmp/written) &");
    await until("the line to be full", () => statistics().tx.held >= screen.backlog);
    expect((await machine.run("[ -e /tmp/written ]")).status).not.toBe(0);
    release();
    await until("the last line", () => /\n14000\r\n$/.test(heard));
    expect(heard.replaceAll("\r", "")).toBe(Array.from({ length: 14_000 }, (_, n) => `${n + 1}\n`).join(""));
    await down();
    screen.onData = listen;
    screen.backlog = 65536;
    hangups.length = 0;
  });

  it("is a terminal for a shell: prompt, size of the window, interrupt", async () => {
    const { machine } = lab();
    shell = new Console({ send: (text) => void screen.write(Buffer.from(text)) });
    const answering = shell.start(SHELL_MS);
    await startShell(machine, "/dev/hvc0");
    await answering;
    expect(await shell.check("tty")).toBe("/dev/hvc0\n");
    await until("the size", async () => (await shell!.check("stty size")) === "30 100\n");
    screen.resize(132, 50);
    await until("the new size", async () => (await shell!.check("stty size")) === "50 132\n");
    await expect(shell.run("sleep 1000", { timeoutMs: 1000 })).rejects.toThrow("waited 1 s"); // Ctrl-C ended it
    expect(await shell.check("echo $((6 * 7))")).toBe("42\n");
  });

  it("passes a break, which interrupts what runs where the guest wants that", async () => {
    await shell!.check("stty brkint");
    const waiting = shell!.run("trap 'echo interrupted' INT; sleep 1000; trap - INT", {
      timeoutMs: SHELL_MS,
    });
    await until("the sleeper", async () => (await lab().machine.run("pidof sleep")).status === 0);
    expect(screen.sendBreak()).toBe(true);
    await until("its end", async () => (await lab().machine.run("pidof sleep")).status !== 0);
    expect((await waiting).output).toContain("interrupted");
  });

  it("hangs up the shell when the terminal does, and answers again when it is opened", async () => {
    const { machine } = lab();
    const pid = (await shell!.check("echo $$")).trim();
    shell!.close();
    shell = null;
    hangups.length = 0;
    await screen.hangup();
    expect(hangups.splice(0)).toEqual(["host"]);
    await until("the shell to end", async () => (await machine.run(`[ -e /proc/${pid} ]`)).status !== 0);
    expect(line()).toBe("down");
    screen.open();
    heard = "";
    await machine.check("echo 'here again' >/dev/hvc0");
    await until("the guest's words", () => heard.includes("here again"));
    await down();
  });

  it("keeps what is said while the terminal is hung up, for the next conversation", async () => {
    const { machine } = lab();
    await screen.hangup();
    heard = "";
    await machine.check("echo 'are you there?' >/dev/hvc0");
    await until("the guest to wait", () => line() === "waiting");
    screen.open();
    await until("the guest's words", () => heard === "are you there?\r\n");
    await down();
  });

  it("is taken away while a shell runs on it, and given back", async () => {
    const { machine, host } = lab();
    await startShell(machine, "/dev/hvc0");
    await until("the shell", () => line() === "up");
    hangups.length = 0;
    host!.bus.disconnect("console0");
    await until("the guest to close it", () => hangups.length === 1);
    expect(hangups.splice(0)).toEqual(["closed"]);
    heard = "";
    // until it is all gone, the kernel's hvc opens what is left of it, and throws away what is written there
    await until("the terminal device to be gone", async () =>
      /No such device/.test((await machine.run("echo nobody >/dev/hvc0")).output),
    );
    expect(heard).toBe("");
    host!.bus.connect("console0");
    await until("the console", async () => (await machine.run("echo back >/dev/hvc0")).status === 0);
    await until("its words", () => heard.includes("back"));
    await down();
    hangups.length = 0;
  });

  it("comes and goes with its driver without a leak", async () => {
    const { machine } = lab();
    await expectNoLeak(machine, async () => {
      await machine.check("rmmod vconsole && insmod /lib/vbus/vconsole.ko");
      await until("the console", async () => (await machine.run("echo leak >/dev/hvc0")).status === 0);
      await down();
    });
    hangups.length = 0;
  });

  it("was right all the time", async () => {
    const { tx, rx } = statistics();
    const sum = (drops: Partial<Record<string, number>>): number =>
      Object.values(drops).reduce<number>((total, n) => total + (n ?? 0), 0);
    expect(tx.bytes).toBe(tx.passed + sum(tx.drops) + tx.held);
    expect(rx.bytes).toBe(rx.passed + sum(rx.drops) + rx.held);
    expect(errors).toEqual([]);
    expect(await lab().machine.check("dmesg")).not.toMatch(/BUG|WARNING|gets no conversation|HANGUP:/);
  });

  it("is lost with its host", async () => {
    const { machine, host } = lab();
    await startShell(machine, "/dev/hvc0");
    await until("the shell", () => line() === "up");
    host!.vbus!.close(); // without a word to the guest
    const users = "ls -l /proc/[0-9]*/fd 2>/dev/null | sed -n 's/.*hvc0.*/&/p'";
    expect(await machine.check(users)).toContain("hvc0");
    await machine.check(
      "for p in /proc/[0-9]*; do ls -l $p/fd 2>/dev/null | grep -q hvc0 && kill -9 ${p#/proc/}; done; true",
    );
    await until("the driver to notice when somebody wants it", async () =>
      /has let go of hvc0/.test(await machine.check("echo nobody >/dev/hvc0; dmesg")),
    );
    await machine.run("cat /dev/hvc0"); // ends: whoever opens it is hung up
    await machine.check("rmmod vconsole");
    expect(await machine.check("dmesg")).not.toMatch(/BUG|WARNING/);
  });
});

describe("a console that kernel messages go to", () => {
  const screen = new Terminal();
  let heard = "";
  screen.onData = (bytes) => {
    heard += Buffer.from(bytes).toString("latin1");
  };
  const lab = linuxLab({
    cards: [],
    devices: [consoleOf("console0", screen)],
    drivers: [CONSOLE_DRIVER],
    commandLine: "console=hvc0 console=ttyS0",
  });

  it("tells what the kernel has said before it was there, and what it says after", async () => {
    const { machine } = lab();
    await machine.check("dmesg -n 8; echo '<1>something terrible' >/dev/kmsg");
    await until("the kernel's words", () => heard.includes("something terrible"));
    await machine.check("dmesg -n 2");
  });

  it("goes on after the terminal was away", async () => {
    const { machine } = lab();
    await screen.hangup();
    screen.open();
    heard = "";
    await machine.check("dmesg -n 8; echo '<1>something else' >/dev/kmsg; dmesg -n 2");
    await until("the kernel's words", () => heard.includes("something else"));
  });

  it("tells a panic to its end", async () => {
    const { machine } = lab();
    await machine.check("dmesg -n 8");
    heard = "";
    await expect(machine.run("echo c >/proc/sysrq-trigger")).rejects.toThrow(/panicked/);
    await until("the last words", () => heard.includes("---[ end Kernel panic"));
    expect(heard).toMatch(/sysrq: Trigger a crash[^]*Kernel panic - not syncing/);
  });
});
