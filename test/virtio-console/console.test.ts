import { fc, test } from "@fast-check/vitest";
import {
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_CONSOLE_PORT_ADD,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_RESIZE,
  VIRTIO_F_RING_RESET,
} from "vbus/abi";
import { Terminal } from "vbus/devices/vconsole";
import { VirtioConsole, type VirtioConsolePort } from "vbus/devices/virtio-console";
import { describe, expect, it } from "vitest";
import { pause } from "../event-loop.js";
import {
  bit,
  FaceMachine,
  NEEDS_RESET,
  RINGS,
  surroundings,
  type TestQueue,
} from "../virtio-face/machine.js";

const SINGLE = bit(VIRTIO_CONSOLE_F_SIZE);
const MULTI = bit(VIRTIO_CONSOLE_F_SIZE, VIRTIO_CONSOLE_F_MULTIPORT);

class ConsoleMachine extends FaceMachine<VirtioConsole> {
  /** What each terminal got. */
  readonly texts: string[] = [];

  static async create(
    ports: (Omit<VirtioConsolePort, "terminal"> & { terminal?: Terminal })[] = [{}],
  ): Promise<ConsoleMachine> {
    const settled = ports.map((port) => ({ ...port, terminal: port.terminal ?? new Terminal() }));
    const machine = new ConsoleMachine(
      new VirtioConsole({ name: "console0", ports: settled }),
      await surroundings(),
    );
    machine.terminals.push(...settled.map(({ terminal }) => terminal));
    for (const [i, { terminal }] of settled.entries()) {
      machine.texts[i] = "";
      terminal.onData = (bytes) => {
        machine.texts[i] = `${machine.texts[i] ?? ""}${Buffer.from(bytes).toString("latin1")}`;
      };
    }
    return machine;
  }

  readonly terminals: Terminal[] = [];

  async settle(): Promise<void> {
    for (let n = 0; n < 3; n++) {
      this.scheduler.run();
      await pause(0);
    }
    this.scheduler.run();
  }

  say(text: string, queue = this.queue(1)): void {
    queue.add(this.place(Buffer.from(text, "latin1")), []);
  }

  /** Posts up to n buffers, as many as the queue has descriptors for. */
  post(queue: TestQueue, n: number, ...lengths: number[]): void {
    const fit = Math.floor(queue.ring.free / lengths.length);
    for (let i = 0; i < Math.min(n, fit); i++) queue.add([], this.room(...lengths));
  }

  /** What came in buffers of a queue. */
  heard(queue = this.queue(0)): string {
    return this.messages(queue)
      .map((bytes) => Buffer.from(bytes).toString("latin1"))
      .join("");
  }

  messages(queue: TestQueue): Uint8Array[] {
    return queue.reap().map(({ pieces, written }) => this.gather(pieces, written));
  }

  control(id: number, event: number, value: number): void {
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, id, true);
    view.setUint16(4, event, true);
    view.setUint16(6, value, true);
    this.queue(3).add(this.place(bytes), []);
  }

  /** What the device said on the control queue: port, event, value and what follows. */
  told(): [number, number, number, ...string[]][] {
    return this.messages(this.queue(2)).map((bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const rest = Buffer.from(bytes.subarray(8)).toString("latin1");
      const head: [number, number, number] = [
        view.getUint32(0, true),
        view.getUint16(4, true),
        view.getUint16(6, true),
      ];
      return rest === "" ? head : [...head, rest];
    });
  }
}

describe.each(RINGS)("a single console on %s rings", (_name, ring) => {
  it("carries bytes both ways, in pieces as they come", async () => {
    const machine = await ConsoleMachine.create();
    await machine.start(SINGLE, ring);
    machine.say("hello ");
    machine.queue(1).add(machine.place(Buffer.from("wor"), Buffer.from("ld")), []);
    await machine.settle();
    expect(machine.texts[0]).toBe("hello world");
    expect(
      machine
        .queue(1)
        .reap()
        .map(({ written }) => written),
    ).toEqual([0, 0]);
    machine.post(machine.queue(0), 2, 3);
    expect(await machine.terminals[0]?.write(Buffer.from("abcdefgh"))).toBe(8);
    await machine.settle();
    expect(machine.heard()).toBe("abcdef");
    machine.post(machine.queue(0), 1, 1, 50);
    await machine.settle();
    expect(machine.heard(), "the rest waits for a buffer").toBe("gh");
    expect(machine.errors).toEqual([]);
  });

  it("holds the guest back while the terminal has no room, and loses nothing", async () => {
    const terminal = new Terminal({ backlog: 10 });
    const machine = await ConsoleMachine.create([{ terminal }]);
    terminal.onData = null;
    await machine.start(SINGLE, ring);
    for (let n = 0; n < 20; n++) machine.say(String.fromCharCode(65 + n).repeat(7));
    await machine.settle();
    expect(machine.queue(1).reap().length).toBeLessThan(4);
    let text = "";
    while (text.length < 140) {
      text += Buffer.from(await terminal.read()).toString("latin1");
      await machine.settle();
    }
    expect(text).toBe(Array.from({ length: 20 }, (_, n) => String.fromCharCode(65 + n).repeat(7)).join(""));
    expect(terminal.statistics().tx).toMatchObject({ bytes: 140, passed: 140, drops: {} });
  });
});

describe("a conversation", () => {
  it("lasts from DRIVER_OK to reset, and the last words are heard", async () => {
    const machine = await ConsoleMachine.create();
    const [terminal] = machine.terminals as [Terminal];
    const ends: string[] = [];
    terminal.onHangup = (reason) => ends.push(reason);
    expect(terminal.connected).toBe(false);
    await machine.start(SINGLE);
    expect(terminal.connected).toBe(true);
    machine.queue(1).add(machine.place(Buffer.from("panic")), [], false);
    await machine.transport.reset();
    await machine.settle();
    expect(machine.texts[0]).toBe("panic");
    expect(ends).toEqual(["closed"]);
    await machine.start(SINGLE);
    expect(terminal.connected).toBe(true);
  });

  it("that the host hangs up drops what the guest says until the terminal is opened again", async () => {
    const machine = await ConsoleMachine.create();
    const [terminal] = machine.terminals as [Terminal];
    await machine.start(SINGLE);
    const gone = terminal.hangup();
    await machine.settle();
    await gone;
    machine.say("nobody hears this");
    await machine.settle();
    expect(machine.texts[0]).toBe("");
    expect(terminal.statistics().tx.drops).toEqual({ hangup: 17 });
    terminal.open();
    machine.say("but this");
    await machine.settle();
    expect(machine.texts[0]).toBe("but this");
  });
});

describe("the configuration", () => {
  it("shows size and number of ports, follows the size, and takes single characters", async () => {
    const machine = await ConsoleMachine.create([{}, {}, {}]);
    const [terminal] = machine.terminals as [Terminal];
    const config = async (): Promise<number[]> => {
      const bytes = await machine.transport.readConfig(0, 12);
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      return [view.getUint16(0, true), view.getUint16(2, true), view.getUint32(4, true)];
    };
    expect(await config()).toEqual([80, 24, 3]);
    await machine.transport.writeConfig(8, Uint8Array.of(0x21, 1, 2, 3));
    await machine.settle();
    expect(machine.texts[0], "before there is a driver").toBe("!");
    await machine.start(SINGLE);
    terminal.resize(132, 43);
    await machine.settle();
    expect(machine.configChanges).toBe(1);
    expect(await config()).toEqual([132, 43, 3]);
  });
});

describe("several ports", () => {
  async function ready(): Promise<ConsoleMachine> {
    const machine = await ConsoleMachine.create([
      { name: "console" },
      { name: "org.vbus.agent", terminal: new Terminal({ open: false }) },
      { console: true },
    ]);
    await machine.start(MULTI);
    machine.post(machine.queue(2), 60, 128);
    machine.control(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    await machine.settle();
    expect(machine.told()).toEqual([0, 1, 2].map((id) => [id, VIRTIO_CONSOLE_PORT_ADD, 0]));
    return machine;
  }

  it("introduce themselves when the driver is ready for them", async () => {
    const machine = await ready();
    for (const id of [0, 1, 2]) machine.control(id, VIRTIO_CONSOLE_PORT_READY, 1);
    await machine.settle();
    const size = "\x50\0\x18\0";
    expect(machine.told()).toEqual([
      [0, VIRTIO_CONSOLE_CONSOLE_PORT, 1],
      [0, VIRTIO_CONSOLE_PORT_NAME, 1, "console"],
      [0, VIRTIO_CONSOLE_PORT_OPEN, 1],
      [0, VIRTIO_CONSOLE_RESIZE, 0, size],
      [1, VIRTIO_CONSOLE_PORT_NAME, 1, "org.vbus.agent"],
      [2, VIRTIO_CONSOLE_CONSOLE_PORT, 1],
      [2, VIRTIO_CONSOLE_PORT_OPEN, 1],
      [2, VIRTIO_CONSOLE_RESIZE, 0, size],
    ]);
  });

  it("have conversations of their own, which either side begins and ends", async () => {
    const machine = await ready();
    const [, agent] = machine.terminals as [Terminal, Terminal];
    const ends: string[] = [];
    agent.onHangup = (reason) => ends.push(reason);
    machine.control(1, VIRTIO_CONSOLE_PORT_READY, 1);
    machine.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    await machine.settle();
    machine.told();
    expect(agent.connected, "hung up").toBe(false);
    agent.open();
    await machine.settle();
    expect(machine.told()).toEqual([[1, VIRTIO_CONSOLE_PORT_OPEN, 1]]);
    expect(agent.connected).toBe(true);
    machine.say("question", machine.queue(5));
    machine.post(machine.queue(4), 1, 100);
    await agent.write(Buffer.from("answer"));
    await machine.settle();
    expect(machine.texts).toEqual(["", "question", ""]);
    expect(machine.heard(machine.queue(4))).toBe("answer");
    machine.say("bye", machine.queue(5));
    machine.control(1, VIRTIO_CONSOLE_PORT_OPEN, 0);
    await machine.settle();
    expect(machine.texts[1]).toBe("questionbye");
    expect(ends).toEqual(["guest"]);
    machine.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    await machine.settle();
    const gone = agent.hangup();
    await machine.settle();
    await gone;
    expect(machine.told()).toEqual([[1, VIRTIO_CONSOLE_PORT_OPEN, 0]]);
    expect(ends).toEqual(["guest", "host"]);
    expect(machine.terminals[0]?.connected).toBe(false);
  });

  it("tell a new size to consoles that are there", async () => {
    const machine = await ready();
    machine.control(2, VIRTIO_CONSOLE_PORT_READY, 1);
    await machine.settle();
    machine.told();
    machine.terminals[0]?.resize(10, 20);
    machine.terminals[2]?.resize(1000, 300);
    await machine.settle();
    expect(machine.told()).toEqual([[2, VIRTIO_CONSOLE_RESIZE, 0, "\xe8\x03\x2c\x01"]]);
  });

  it("messages of the driver that mean nothing are ignored, and too many wait", async () => {
    const machine = await ready();
    for (const [id, event, value] of [
      [77, VIRTIO_CONSOLE_PORT_READY, 1],
      [0xffffffff, VIRTIO_CONSOLE_PORT_OPEN, 1],
      [0, 99, 1],
      [0, VIRTIO_CONSOLE_PORT_READY, 0],
      [0, VIRTIO_CONSOLE_PORT_ADD, 1],
    ] as const)
      machine.control(id, event, value);
    machine.queue(3).add(machine.place(new Uint8Array(7)), []);
    await machine.settle();
    expect(machine.queue(3).reap()).toHaveLength(7);
    expect(machine.told()).toEqual([]);
    for (let n = 0; n < 100; n++) {
      machine.control(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
      if (n % 10 === 0) {
        await machine.settle();
        machine.queue(3).reap();
      }
    }
    await machine.settle();
    expect(machine.told().length).toBeLessThanOrEqual(60);
    for (let round = 0; round < 10; round++) {
      machine.post(machine.queue(2), 40, 64);
      await machine.settle();
      machine.told();
    }
    machine.queue(3).reap();
    machine.control(0, VIRTIO_CONSOLE_PORT_READY, 1);
    machine.post(machine.queue(2), 40, 64);
    await machine.settle();
    expect(machine.told()).toContainEqual([0, VIRTIO_CONSOLE_PORT_OPEN, 1]);
    expect(machine.errors).toEqual([]);
  });

  it("queues are reset one by one", async () => {
    const machine = await ConsoleMachine.create([{}, {}]);
    await machine.start(MULTI, bit(VIRTIO_F_RING_RESET));
    machine.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    await machine.settle();
    await machine.transport.resetQueue(5);
    const queue = await machine.addQueue(5);
    machine.say("again", queue);
    await machine.settle();
    expect(machine.texts[1]).toBe("again");
  });
});

describe("what a guest must not do breaks its queue", () => {
  it.each<[string, (machine: ConsoleMachine) => void]>([
    ["a buffer to be read", (m) => m.queue(0).add(m.place(new Uint8Array(5)), [])],
    ["a buffer with something to read", (m) => m.queue(0).add(m.place(new Uint8Array(5)), m.room(5))],
    [
      "more bytes at once than anybody sends",
      (m) => m.queue(1).add(m.place(new Uint8Array((1 << 20) + 1)), []),
    ],
  ])("%s", async (_what, act) => {
    const machine = await ConsoleMachine.create();
    await machine.start(SINGLE);
    act(machine);
    await machine.terminals[0]?.write(Buffer.from("x"));
    await machine.settle();
    expect(machine.errors).toMatchObject([{ code: "EPROTO" }]);
    expect(machine.transport.device.status & NEEDS_RESET).toBe(NEEDS_RESET);
    await machine.start(SINGLE);
    machine.say("well again");
    await machine.settle();
    expect(machine.texts[0]).toBe("well again");
  });

  test.prop(
    { messages: fc.array(fc.uint8Array({ minLength: 1, maxLength: 12 }), { maxLength: 60 }) },
    { numRuns: 40 },
  )("control messages of any content leave the device whole", async ({ messages }) => {
    const machine = await ConsoleMachine.create([{}, {}]);
    await machine.start(MULTI);
    machine.post(machine.queue(2), 20, 64);
    for (const bytes of messages) machine.queue(3).add(machine.place(bytes), []);
    await machine.settle();
    expect(machine.errors).toEqual([]);
    await machine.start(MULTI);
    machine.control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
    machine.say("here");
    await machine.settle();
    expect(machine.texts[0]?.endsWith("here")).toBe(true);
  });
});

describe("options", () => {
  it("that make no sense are refused, and terminals stay free", () => {
    const terminal = new Terminal();
    expect(() => new VirtioConsole({ name: "c", ports: [] })).toThrow(/EINVAL/);
    expect(() => new VirtioConsole({ name: "c", ports: [{ terminal, name: "two words" }] })).toThrow(
      /EINVAL/,
    );
    expect(() => new VirtioConsole({ name: "c", ports: [{ terminal }, { terminal }] })).toThrow(/EBUSY/);
    const device = new VirtioConsole({ name: "c", ports: [{ terminal }] });
    expect(() => new VirtioConsole({ name: "d", ports: [{ terminal }] })).toThrow(/EBUSY/);
    device.close();
    new VirtioConsole({ name: "d", ports: [{ terminal }] }).close();
  });
});
