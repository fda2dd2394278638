/** Guests and a host with one block device, in one thread. */
import { Vbus, type Bus, type Client } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import { vblkClass, type BlockBackend, type VblkStatistics } from "vbus/devices/vblk";
import { ProxyBus } from "vbus/drivers";
import { VblkDriver, type VblkDisk, type VblkOptions } from "vbus/drivers/vblk";
import {
  allocateGuestMemory,
  GuestMemory,
  openHostView,
  type GuestMemoryOptions,
  type MemorySpace,
} from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";
import { expect } from "vitest";
import { turns } from "../event-loop.js";

/** A guest with the disk. */
export interface DiskGuest {
  disk: VblkDisk;
  bus: ProxyBus;
  client: Client;
  connector: LocalConnector;
  memory: GuestMemory;
  host: MemorySpace;
}

/** A host with one disk, `disk0`, on one bus. */
export class DiskMachine {
  readonly errors: unknown[] = [];
  readonly scheduler = new EventLoopScheduler((error) => this.errors.push(error));
  readonly vbus = new Vbus({ scheduler: this.scheduler });
  readonly bus: Bus;
  readonly guests: DiskGuest[] = [];
  #members = 0;

  constructor(
    readonly backend: BlockBackend,
    attributes: Record<string, string> = {},
  ) {
    this.vbus.on("error", (event) => this.errors.push(event));
    this.vbus.registerClass(vblkClass({ backend: () => backend }));
    this.bus = this.vbus.createBus("bus0");
    this.bus.connect(this.vbus.createDevice("disk0", "vblk", attributes));
  }

  /** Starts a guest that takes the disk. */
  async addGuest(options: VblkOptions = {}, memory: GuestMemoryOptions = {}): Promise<DiskGuest> {
    const init = allocateGuestMemory({ size: 4 << 20, arenaSize: 1 << 18, ...memory });
    const guestMemory = await GuestMemory.open(init);
    const host = await openHostView(init);
    const member = `guest${this.#members++}`;
    this.bus.admit(member);
    const client = this.bus.openClient({ member, memory: host });
    const connector = new LocalConnector(client, guestMemory, this.scheduler);
    const bus = new ProxyBus(connector);
    const disk = await new Promise<VblkDisk>((resolve, reject) => {
      bus.registerDriver(new VblkDriver(resolve, options));
      bus.events.error = (_device, error) => {
        reject(error instanceof Error ? error : new Error(String(error)));
      };
      bus.start().catch(reject);
    });
    bus.events.error = (_device, error) => this.errors.push(error);
    const guest = { disk, bus, client, connector, memory: guestMemory, host };
    this.guests.push(guest);
    return guest;
  }

  /** An attribute of the disk. */
  attribute(name: string): string {
    return this.bus.read(`devices/disk0/${name}`);
  }

  /** Writes an attribute of the disk. */
  set(name: string, value: string): void {
    this.bus.write(`devices/disk0/${name}`, value);
  }

  /** The disk's statistics; every request is in exactly one place. */
  statistics(): VblkStatistics {
    const statistics = JSON.parse(this.attribute("statistics")) as VblkStatistics;
    const { requests, completed, failed, cancelled, outstanding, errors } = statistics;
    expect(requests, "requests").toBe(completed + failed + cancelled + outstanding);
    expect(failed, "failed").toBe(Object.values(errors).reduce((sum, n) => sum + n, 0));
    return statistics;
  }

  /** Guests leave, the host goes; nobody complained but about what the test took out of {@link DiskMachine.errors}. */
  async close(): Promise<void> {
    for (const guest of this.guests) {
      await guest.bus.close();
      expect(guest.memory.ram.available, "guest memory given back").toBe(guest.memory.ram.size);
    }
    this.vbus.close();
    await settle();
    expect(this.errors).toEqual([]);
  }
}

/** Lets everything that is under way in this thread happen. */
export const settle = turns;

/** Bytes that depend on `seed` and on their place. */
export function pattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 7 + (i >>> 8) * 13 + seed * 31) & 0xff;
  return bytes;
}

/** Expects the same bytes; comparing them one by one as values takes a hundred times as long. */
export function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  if (Buffer.compare(actual, expected) !== 0) expect([...actual]).toEqual([...expected]);
}

/** Code that a promise rejects with. */
export async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
    return null;
  } catch (error) {
    return (error as { code?: unknown }).code ?? String(error);
  }
}
