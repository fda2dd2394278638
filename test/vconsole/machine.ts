/** A host with consoles on one bus, and guests that take them, all in one thread. */
import { Vbus, type Bus, type Client } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import { Terminal, vconsoleClass, type ConsoleStatistics, type TerminalOptions } from "vbus/devices/vconsole";
import { ProxyBus } from "vbus/drivers";
import { VconsoleDriver, type VconsoleOptions, type VirtualConsole } from "vbus/drivers/vconsole";
import { allocateGuestMemory, GuestMemory, openHostView, type MemorySpace } from "vbus/memory";
import { EventLoopScheduler, type Scheduler } from "vbus/scheduler";
import { expect } from "vitest";
import { pause } from "../event-loop.js";

export { pattern } from "./pattern.js";

export interface TestGuest {
  console: VirtualConsole;
  bus: ProxyBus;
  client: Client;
  memory: GuestMemory;
  host: MemorySpace;
}

export class TestMachine {
  readonly scheduler: Scheduler;
  readonly vbus: Vbus;
  readonly bus: Bus;
  readonly errors: unknown[] = [];
  readonly terminals = new Map<string, Terminal>();
  readonly #buses: ProxyBus[] = [];

  constructor(scheduler?: Scheduler) {
    this.scheduler = scheduler ?? new EventLoopScheduler((error) => this.errors.push(error));
    this.vbus = new Vbus({ scheduler: this.scheduler });
    this.vbus.on("error", (event) => this.errors.push(event));
    this.vbus.registerClass(vconsoleClass({ terminal: (name) => this.terminals.get(name)! }));
    this.bus = this.vbus.createBus("bus0");
  }

  /** Plugs a console in; consoles are numbered from 0. */
  addConsole(name: string, options: TerminalOptions = {}): Terminal {
    const terminal = new Terminal(options);
    this.terminals.set(name, terminal);
    this.bus.connect(this.vbus.createDevice(name, "vconsole"));
    return terminal;
  }

  /** Starts a guest that takes console `id`, closed. */
  async addGuest(name: string, id = 0, options: VconsoleOptions = {}): Promise<TestGuest> {
    const init = allocateGuestMemory({ size: 1 << 20, arenaSize: 1 << 17 });
    const memory = await GuestMemory.open(init);
    const host = await openHostView(init);
    this.bus.admit(name);
    const client = this.bus.openClient({ member: name, memory: host });
    const bus = new ProxyBus(new LocalConnector(client, memory, this.scheduler));
    this.#buses.push(bus);
    const console = await new Promise<VirtualConsole>((resolve, reject) => {
      const driver = new VconsoleDriver(resolve, options);
      bus.events.error = (device, error) => {
        if (device.id === id) reject(error instanceof Error ? error : new Error(String(error)));
      };
      bus.registerDriver({
        type: driver.type,
        probe: (device) =>
          device.id === id ? driver.probe(device) : Promise.reject(new Error("another guest's console")),
        remove: (instance) => driver.remove(instance as VirtualConsole),
      });
      bus.start().catch(reject);
    });
    return { console, bus, client, memory, host };
  }

  /** Asserts for every console that each byte that entered either left, waits, or was dropped and counted. */
  assertBalanced(): void {
    for (const [name, terminal] of this.terminals) expectBalanced(name, terminal.statistics());
  }

  async close(): Promise<void> {
    this.assertBalanced();
    for (const bus of this.#buses) await bus.close();
    this.vbus.close();
    this.assertBalanced();
  }
}

/** bytes = passed + Σ drops + held, in both directions. */
export function expectBalanced(name: string, statistics: ConsoleStatistics): void {
  for (const direction of ["tx", "rx"] as const) {
    const { bytes, passed, drops, held } = statistics[direction];
    const dropped = Object.values(drops).reduce((sum, n) => sum + n, 0);
    expect(bytes, `${name} ${direction}: bytes = passed + drops + held`).toBe(passed + dropped + held);
  }
}

/** Lets everything that is under way in this thread happen, timers up to `ms` milliseconds included. */
export const settle = (ms = 20): Promise<void> => pause(ms);

interface Reader {
  read(): Promise<Uint8Array>;
}

/** Reads exactly n bytes (more is a failure), or until the stream ends. */
export async function readBytes(end: Reader, n: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for (let got = 0; got < n;) {
    const chunk = await end.read();
    if (chunk.length === 0) break;
    chunks.push(chunk);
    got += chunk.length;
  }
  return Buffer.concat(chunks);
}

/** Reads until the stream ends. */
export async function readAll(end: Reader): Promise<Uint8Array> {
  return readBytes(end, Infinity);
}

/** Expects the very same bytes. (Comparing them as values takes a hundred times as long.) */
export function expectBytes(got: Uint8Array, wanted: Uint8Array): void {
  expect(got.length, "number of bytes").toBe(wanted.length);
  if (Buffer.compare(got, wanted) !== 0) {
    const at = got.findIndex((byte, i) => byte !== wanted[i]);
    expect.fail(`byte ${at} of ${wanted.length} is ${got[at]}, not ${wanted[at]}`);
  }
}

export const text = (value: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(value);
export const string = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
