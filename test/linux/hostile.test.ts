/**
 * A guest of v86's that wishes its host ill (`guest/hostile/hostile.c`): real code in a real emulator, on the same switch
 * as two guests that want nothing but exchange frames.
 */
import { createRequire } from "node:module";
import { V86 } from "v86";
import { afterEach, describe, expect, it } from "vitest";
import { attachVbus, type V86Host } from "vbus/emulators/v86";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { readImage, readPieces } from "../../examples/linux/pieces.js";
import { expectFrames, testFrame, TestMachine, type TestGuest } from "../venet/machine.js";

/** What the test touches of v86's machine. */
interface Cpu {
  wasm_memory: WebAssembly.Memory;
  mem8: { byteOffset: number };
  wm: { exports: { v86_malloc(size: number): number } };
  mmap_write32(address: number, value: number): void;
  mmap_read32(address: number): number;
}

const cpuOf = (emulator: V86): Cpu => (emulator as unknown as { v86: { cpu: Cpu } }).v86.cpu;

const { resolve } = createRequire(import.meta.url);
const RAM = 16 << 20;
const BAR0 = 0xfea00000;
const GUARD = 65536;
const NICS = 4;
const TURNS = 4000;
const FRAMES_PER_ROUND = 64;
/** Ends what hangs; nothing is judged by it. */
const PATIENCE_MS = 150_000;
/** What a broken queue is reported as; anything else would be a failure inside the host. */
const BROKEN_QUEUE = "EPROTO";

const seeds =
  process.env["VBUS_SEED"] === undefined ? [1, 20090401, 4711] : [Number(process.env["VBUS_SEED"])];

/** Memory with a pattern that nobody may touch. */
class Guard {
  constructor(
    private readonly memory: WebAssembly.Memory,
    readonly address: number,
  ) {
    new Uint8Array(memory.buffer, address, GUARD).forEach((_, i, all) => (all[i] = (i * 7 + 3) & 0xff));
  }
  get intact(): boolean {
    return new Uint8Array(this.memory.buffer, this.address, GUARD).every(
      (byte, i) => byte === ((i * 7 + 3) & 0xff),
    );
  }
}

describe.each(seeds)("a guest of v86's that wishes its host ill (seed %i, VBUS_SEED=n to repeat)", (seed) => {
  let machine: TestMachine;
  let net: Switch;
  let emulator: V86;
  let host: V86Host;

  afterEach(async () => {
    await emulator.stop();
    await emulator.destroy();
    host.close();
    await machine.close();
    net.close();
  });

  it("costs the host nothing: others' frames arrive, guards stay whole, books are right, it may start over", async () => {
    const errors: unknown[] = [];
    const scheduler = new EventLoopScheduler((error) => errors.push(error));
    net = new Switch({ scheduler, space: await MemorySpace.host() });
    machine = new TestMachine((name) => net.addPort(name), scheduler);
    machine.addNic("good0", { client_mac: "02:00:00:00:01:00" });
    machine.addNic("good1", { client_mac: "02:00:00:00:01:01" });
    const a = await machine.addGuest("a", 0);
    const b = await machine.addGuest("b", 1);
    await a.nic.open();
    await b.nic.open();

    const bus = machine.vbus.createBus("hostile");
    bus.admit("v86");
    for (let i = 0; i < NICS; i++) {
      const attributes = { client_mac: `02:00:00:00:00:0${i}`, enabled: "1", txc: i === 1 ? "1" : "0" };
      bus.connect(machine.vbus.createDevice(`nic${i}`, "venet", attributes));
    }
    const pieces = readPieces();
    emulator = new V86({
      wasm_path: resolve("v86/build/v86.wasm"),
      memory_size: RAM,
      vga_memory_size: 2 << 20,
      bios: { buffer: await readImage(pieces.bios) },
      multiboot: { buffer: await readImage(pieces.hostile) },
      cmdline: `${seed} ${TURNS}`,
      acpi: true,
      autostart: false,
      disable_keyboard: true,
      disable_mouse: true,
      disable_speaker: true,
    });
    let said = "";
    emulator.add_listener("serial0-output-byte", (byte) => (said += String.fromCharCode(byte)));
    const guards: Guard[] = [];
    const guard = (): void => {
      const { wasm_memory, wm } = cpuOf(emulator);
      guards.push(new Guard(wasm_memory, wm.exports.v86_malloc(GUARD) >>> 0));
    };
    emulator.add_listener("emulator-ready", guard); // below the adapter's private state
    host = await attachVbus(emulator, { bus, scheduler, onError: (error) => errors.push(error) });
    guard(); // above it
    await emulator.run();

    const exchanged = await exchangeWhile(a, b, () => !/done.*\n/.test(said));
    expect(said).toMatch(/ready\n\.{20}\ndone/);
    await emulator.stop();

    expect(exchanged).toBeGreaterThan(FRAMES_PER_ROUND);
    for (const each of guards) expect(each.intact, `guard at ${each.address}`).toBe(true);
    for (const error of [...errors.splice(0), ...machine.errors.splice(0)]) {
      const { code } =
        (error as { error?: { code?: string }; code?: string }).error ?? (error as { code?: string });
      expect(code, (error as Error).stack ?? JSON.stringify(error)).toBe(BROKEN_QUEUE);
    }
    const statistics = machine.assertBalanced();
    expect(net.balance().balanced).toBe(true);
    // it did get through to where it hurts
    const reached = Object.entries(statistics).filter(([name]) => name.startsWith("nic"));
    expect(reached.reduce((sum, [, { tx }]) => sum + tx.frames, 0)).toBeGreaterThan(0);
    expect(host.counters().calls).toBeGreaterThan(500);
    expect(host.counters().signalDoorbells).toBeGreaterThan(50);

    // and a driver that behaves finds everything as it should be
    expect(negotiate(cpuOf(emulator))).toBe(1);
  });
});

/** Frames both ways between two guests, round by round, until it is over. Returns how many. */
async function exchangeWhile(a: TestGuest, b: TestGuest, goesOn: () => boolean): Promise<number> {
  const end = performance.now() + PATIENCE_MS;
  let exchanged = 0;
  for (let round = 0; goesOn(); round++) {
    if (performance.now() > end)
      throw new Error(`the guest is not done after ${exchanged} frames of the others`);
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const sent = Array.from({ length: FRAMES_PER_ROUND }, (_, i) =>
        testFrame(to.nic.mac, from.nic.mac, 60 + ((round * 131 + i * 37) % 1400), round + i),
      );
      const sending = from.nic.send(sent);
      const received: Uint8Array[] = [];
      while (received.length < sent.length) {
        // the hostile guest's noise is flooded to everybody: it is not what we wait for
        const frames = await to.nic.receive();
        received.push(...frames.filter((frame) => Buffer.compare(frame.subarray(6, 12), from.nic.mac) === 0));
      }
      await sending;
      expectFrames(received, sent);
      exchanged += sent.length;
    }
    await new Promise((done) => setImmediate(done));
  }
  return exchanged;
}

/** NEGOTIATE, by instructions that a guest would use. */
function negotiate(cpu: Cpu): number {
  const block = 0x8000;
  const view = new DataView(cpu.wasm_memory.buffer, cpu.mem8.byteOffset + block, 16);
  view.setUint32(0, 0xbf53eef5, true);
  view.setUint32(4, 1, true);
  for (const [i, word] of [0, 16, block, 0].entries()) cpu.mmap_write32((BAR0 + 4 * i) | 0, word);
  return cpu.mmap_read32(BAR0 | 0);
}
