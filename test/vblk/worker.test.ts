import { attachWorkerGuest, type WorkerHostConnector } from "vbus/connectors/worker";
import { Vbus, type Bus } from "vbus/bus";
import { MemoryBackend, vblkClass, type BlockBackend, type VblkStatistics } from "vbus/devices/vblk";
import { allocateGuestMemory, type GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Thread } from "../../examples/replay/threads.js";
import type { HammerOrder } from "../workers/vblk-guest.js";
import { generator, seedOr } from "../engine/seed.js";
import { settle } from "./machine.js";

const PROGRAM = new URL("../../.build/test/workers/vblk-guest.js", import.meta.url);
const SECTORS = 512;
const RUN = 8;
const SEED = seedOr(20090702);

/**
 * A disk whose operations take a while, each another one, and with a gate: once {@link GatedBackend.shut} was called, what
 * begins stays under way until {@link GatedBackend.open}.
 */
class GatedBackend extends MemoryBackend {
  /** Operations under way, behind the gate or not. */
  running = 0;
  /** Operations under way behind the gate. */
  held = 0;
  readonly #random = generator(SEED);
  #gate: { opened: Promise<void>; open: () => void } | null = null;
  #onHeld: (held: number) => void = () => {};

  /** From now on operations stay under way. `onHeld`: told their number whenever another one does. */
  shut(onHeld: (held: number) => void): void {
    let open = (): void => {};
    const opened = new Promise<void>((resolve) => (open = resolve));
    this.#gate = { opened, open };
    this.#onHeld = onHeld;
  }

  open(): void {
    this.#gate?.open();
    this.#gate = null;
    this.#onHeld = () => {};
  }

  async #later(act: () => Promise<void>): Promise<void> {
    this.running++;
    if (this.#gate === null) {
      for (let turns = this.#random() % 4; turns > 0; turns--) await turn();
    } else {
      const { opened } = this.#gate;
      this.#onHeld(++this.held);
      await opened;
      this.held--;
    }
    await act();
    this.running--;
  }
  override read(offset: number, target: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#later(() => super.read(offset, target));
  }
  override write(offset: number, data: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#later(() => super.write(offset, data));
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));

/** Waits for a condition; the bound is only there to fail with a message instead of hanging. */
async function until(what: string, condition: () => boolean, ms = 15_000): Promise<void> {
  const end = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`still waiting for: ${what}`);
    await turn();
  }
}

let errors: unknown[];
let vbus: Vbus;
let bus: Bus;
let scheduler: EventLoopScheduler;
let threads: Thread[];

function setUp(backend: BlockBackend): void {
  errors = [];
  threads = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  vbus = new Vbus({ scheduler });
  vbus.on("error", (event) => errors.push(event));
  vbus.registerClass(vblkClass({ backend: () => backend }));
  bus = vbus.createBus("bus0");
  bus.connect(vbus.createDevice("disk0", "vblk"));
}

interface Guest {
  thread: Thread;
  init: GuestMemoryInit;
  connector: WorkerHostConnector;
  died: Promise<void>;
}

/** A guest's thread; its death closes its connector. */
async function start(member: string, queueDepth = 32): Promise<Guest> {
  bus.admit(member);
  const init = allocateGuestMemory({ size: 2 << 20, arenaSize: 1 << 18, shared: true });
  const connector = await attachWorkerGuest({ bus, member, init, scheduler });
  const thread = await Thread.start(PROGRAM, member);
  threads.push(thread);
  const died = new Promise<void>((resolve) => {
    thread.onExit = () => {
      connector.close();
      resolve();
    };
  });
  await thread.call("start", { init, queueDepth });
  return { thread, init, connector, died };
}

function statistics(): VblkStatistics {
  const all = JSON.parse(bus.read("devices/disk0/statistics")) as VblkStatistics;
  expect(all.requests).toBe(all.completed + all.failed + all.cancelled + all.outstanding);
  return all;
}

describe("a disk of a guest in another thread", () => {
  let backend: GatedBackend;

  beforeEach(() => {
    backend = new GatedBackend(SECTORS * 512);
    setUp(backend);
  });
  afterEach(async () => {
    for (const thread of threads) thread.terminate();
    backend.open(); // of a test that failed before
    vbus.close();
    await until("the back end to come to rest", () => backend.running === 0);
    expect(errors).toEqual([]);
  });

  it("holds what it wrote, and hears of a new size", async () => {
    const { thread, connector } = await start("guest");
    expect(await thread.call("fill", { seed: 3, length: SECTORS * 512 })).toBe(0);
    bus.write("devices/disk0/size", String(1024 * 512));
    let resized: number[] = [];
    for (let turn = 0; turn < 1000 && resized.length === 0; turn++) resized = await thread.call("resized");
    expect(resized).toEqual([1024]);
    connector.close();
  });

  it(`survives its guests: killed in the middle of writes, each leaves whole requests and takes nobody along (seed ${SEED})`, async () => {
    const rounds = 6;
    let completed = 0;
    let cut = 0;
    for (let round = 0; round < rounds; round++) {
      const { thread, init, died } = await start(`guest${round}`);
      const progress = new SharedArrayBuffer(4);
      const order: HammerOrder = { progress, sectors: SECTORS, run: RUN, generation: round * 1000 };
      await thread.call("hammer", order);
      await until("some requests", () => (new Int32Array(progress)[0] as number) > 50 + round * 17);
      // killed at the very moment when so many of its writes are under way in the back end, where they stay until it is
      // dead: of 32 requests in a row no two overlap, so that none of them waits for another
      const underWay = 1 + round * 3;
      let killed = false;
      backend.shut((held) => {
        if (held !== underWay) return;
        thread.terminate();
        killed = true;
      });
      await until(`${underWay} writes under way`, () => killed);
      await died;
      expect(bus.clients).toHaveLength(0);
      completed += new Int32Array(progress)[0] as number;
      expect(backend.held).toBeGreaterThanOrEqual(underWay);
      const dead = statistics();
      expect(dead).toMatchObject({ outstanding: 0, failed: 0 });
      expect(dead.cancelled - cut).toBeGreaterThanOrEqual(backend.held);
      cut = dead.cancelled;

      // from now on nobody touches the memory of the dead
      const memory = Buffer.from(new Uint8Array(init.memory.buffer));
      backend.open();
      await until("what was under way to end", () => backend.running === 0);
      await settle();
      expect(Buffer.compare(new Uint8Array(init.memory.buffer), memory)).toBe(0);
      expect(statistics()).toEqual(dead);
      for (let at = 0; at < backend.size; at += RUN * 512) {
        const [first] = backend.bytes.subarray(at, at + 1);
        const whole = backend.bytes.subarray(at, at + RUN * 512).every((byte) => byte === first);
        expect(whole, `request at ${at}`).toBe(true);
      }
    }
    expect(statistics().completed).toBeGreaterThanOrEqual(completed);

    const { thread, connector } = await start("last");
    expect(await thread.call("fill", { seed: 9, length: SECTORS * 512 })).toBe(0);
    connector.close();
  });
});
