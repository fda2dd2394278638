/** Two guests in one thread for tests: a bus, a NIC for each guest, whatever network the test builds. */
import { expect } from "vitest";
import { Vbus, type Bus, type Client } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import { venetClass, type VenetStatistics } from "vbus/devices/venet";
import { ProxyBus } from "vbus/drivers";
import { VenetDriver, type VenetNic, type VenetOptions } from "vbus/drivers/venet";
import type { MemorySpace } from "vbus/memory";
import { allocateGuestMemory, GuestMemory, openHostView } from "vbus/memory";
import { totalDrops, type Port } from "vbus/net";
import { EventLoopScheduler, type Scheduler } from "vbus/scheduler";
import { pause } from "../event-loop.js";

/** A guest with its half of everything. */
export interface TestGuest {
  name: string;
  nic: VenetNic;
  bus: ProxyBus;
  client: Client;
  memory: GuestMemory;
  host: MemorySpace;
}

/** A host with one bus. */
export class TestMachine {
  readonly scheduler: Scheduler;
  readonly vbus: Vbus;
  readonly bus: Bus;
  readonly errors: unknown[] = [];
  readonly guests: TestGuest[] = [];

  /** @param scheduler - default: the event loop's, with exceptions of tasks among {@link TestMachine.errors} */
  constructor(port: (name: string) => Port, scheduler?: Scheduler) {
    this.scheduler = scheduler ?? new EventLoopScheduler((error) => this.errors.push(error));
    this.vbus = new Vbus({ scheduler: this.scheduler });
    this.vbus.on("error", (event) => this.errors.push(event));
    this.vbus.registerClass(venetClass({ port }));
    this.bus = this.vbus.createBus("bus0");
  }

  /** Plugs a NIC in. */
  addNic(name: string, attributes: Record<string, string> = {}): void {
    const device = this.vbus.createDevice(name, "venet", { ...attributes, enabled: "1" });
    this.bus.connect(device);
  }

  /** Starts a guest that takes the NIC `nicName` and leaves the others alone. `shareMemory`: one memory for both halves. */
  async addGuest(name: string, nicId: number, options: VenetOptions = {}, memory = {}): Promise<TestGuest> {
    const init = allocateGuestMemory({ size: 4 << 20, ...memory });
    const guestMemory = await GuestMemory.open(init);
    const host = await openHostView(init);
    this.bus.admit(name);
    const client = this.bus.openClient({ member: name, memory: host });
    const proxy = new ProxyBus(new LocalConnector(client, guestMemory, this.scheduler), {
      error: (_device, error) => this.errors.push(error),
    });
    const nic = await new Promise<VenetNic>((resolve, reject) => {
      const only = new VenetDriver(resolve, options);
      proxy.registerDriver({
        type: "virtual-ethernet",
        probe: (device) =>
          device.id === nicId ? only.probe(device) : Promise.reject(new Error("another guest's NIC")),
        remove: (instance) => (instance as VenetNic).close(),
      });
      proxy.events.error = (device, error) => {
        if (device.id === nicId) reject(error instanceof Error ? error : new Error(String(error)));
      };
      proxy.start().catch(reject);
    });
    const guest = { name, nic, bus: proxy, client, memory: guestMemory, host };
    this.guests.push(guest);
    return guest;
  }

  /** A NIC's statistics. */
  statistics(nic: string): VenetStatistics {
    return JSON.parse(this.vbus.read(`devices/${nic}/statistics`)) as VenetStatistics;
  }

  /** Asserts for every NIC that each frame that entered either left or was dropped and counted. Returns the statistics. */
  assertBalanced(): Record<string, VenetStatistics> {
    const all: Record<string, VenetStatistics> = {};
    for (const { name } of this.vbus.devices) {
      const statistics = this.statistics(name);
      for (const direction of ["tx", "rx"] as const) {
        const { frames, replicated, passed, merged, drops, held } = statistics[direction];
        expect(
          frames + replicated,
          `${name} ${direction}: frames + replicated = passed + merged + drops + held`,
        ).toBe(passed + merged + totalDrops(drops) + held);
      }
      all[name] = statistics;
    }
    return all;
  }

  /** Lets everything that is under way in this thread happen, timers up to `ms` milliseconds included. */
  async settle(ms = 20): Promise<void> {
    await pause(ms);
  }

  /** Guests leave, the host goes. */
  async close(): Promise<void> {
    for (const guest of this.guests) await guest.bus.close();
    this.vbus.close();
  }
}

/** A frame with the given addresses and a payload that depends on `n`. */
export function testFrame(
  to: Uint8Array | number[],
  from: Uint8Array | number[],
  length: number,
  n = 0,
): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(length);
  frame.set(to, 0);
  frame.set(from, 6);
  frame.set([0x88, 0xb5], 12);
  for (let i = 14; i < length; i++) frame[i] = (n * 31 + i * 7) & 0xff;
  return frame;
}

/** Expects the very same frames, in order. (Comparing them one by one as values takes a hundred times as long.) */
export function expectFrames(received: readonly Uint8Array[], sent: readonly Uint8Array[]): void {
  expect(received.length, "number of frames").toBe(sent.length);
  for (const [i, frame] of sent.entries()) {
    const got = received[i] as Uint8Array;
    if (Buffer.compare(frame, got) !== 0) expect(got, `frame ${i}`).toEqual(frame);
  }
}
