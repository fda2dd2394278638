/** A guest that speaks the verbs of the bus itself: no driver, every byte in the test's hand. */
import type { BusEvent, Client } from "vbus/bus";
import { VENET_VERSION } from "vbus/abi";
import { Queue, queueSegmentLength, type QueueRole } from "vbus/engine";
import { allocateGuestMemory, GuestMemory, MemorySpace, type GuestMemoryOptions } from "vbus/memory";
import type { TestMachine } from "./machine.js";

export const RX_COOKIE = 0x11;
export const TX_COOKIE = 0x22;

/** A ring as the guest made it, before or after it was shared. */
export interface RawRing {
  queue: Queue;
  gpa: number;
  length: number;
}

export class RawGuest {
  readonly memory: GuestMemory;
  readonly host: MemorySpace;
  readonly client: Client;
  handle = 0;

  constructor(
    private readonly machine: TestMachine,
    name = "raw",
    options: GuestMemoryOptions = {},
  ) {
    const init = allocateGuestMemory({ size: 2 << 20, ...options });
    this.memory = GuestMemory.openSync(init);
    this.host = MemorySpace.attachSync(init.memory, init.layout.hostArena, init.layout.regions);
    machine.bus.admit(name);
    this.client = machine.bus.openClient({ member: name, memory: this.host });
    this.client.listen();
  }

  /** DEVOPEN; the handle is kept for the other verbs. */
  open(id = 0, version = VENET_VERSION): number {
    const handle = this.client.open(id, version);
    if (handle > 0) this.handle = handle;
    return handle;
  }

  /** DEVCALL without data. */
  call(func: number, gpa = 0xdead0000, length = 0): number {
    return this.client.call(this.handle, func, gpa, length, 0);
  }

  /** DEVCALL with data, which is changed in place. */
  callWith(func: number, data: Uint8Array): number {
    const gpa = this.memory.ram.allocate(data.length, 8);
    this.memory.space.copyTo(gpa, data);
    const result = this.client.call(this.handle, func, gpa, data.length, 0);
    data.set(this.memory.space.copyFrom(gpa, data.length));
    this.memory.ram.free(gpa);
    return result;
  }

  /** Formats a ring. */
  ring(role: QueueRole, count = 8, ilp32 = false): RawRing {
    const length = queueSegmentLength(count, ilp32);
    const gpa = this.memory.ram.allocate(length, { align: 64, offset: 8 });
    return { queue: Queue.create(this.memory.space, { gpa, count, role, ilp32 }), gpa, length };
  }

  /** DEVSHM with the ring's own signal. */
  share(id: number, ring: RawRing, cookie = 0x99): number {
    return this.client.shm(this.handle, id, ring.gpa, ring.length, { offset: 8, prio: 0, cookie }, 0);
  }

  /** Both rings, shared; signal handles of each. */
  rings(count = 8, ilp32 = false): { rx: RawRing; tx: RawRing; rxSignal: number; txSignal: number } {
    const rx = this.ring("northReceive", count, ilp32);
    const tx = this.ring("northTransmit", count, ilp32);
    return { rx, tx, rxSignal: this.share(0, rx, RX_COOKIE), txSignal: this.share(1, tx, TX_COOKIE) };
  }

  /** Rings a doorbell: the host hears it when it gets its turn. */
  doorbell(signal: number): void {
    this.machine.scheduler.post(() => this.client.signal(signal));
  }

  /** Events that wait. */
  events(): BusEvent[] {
    const events: BusEvent[] = [];
    for (let event; (event = this.client.nextEvent()) !== null;) events.push(event);
    return events;
  }
}

/** Little-endian 32-bit words of a block. */
export function words(block: Uint8Array): number[] {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  return Array.from({ length: block.byteLength / 4 }, (_, i) => view.getUint32(i * 4, true));
}

/** A block of little-endian 32-bit words. */
export function block(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setUint32(i * 4, value, true);
  return bytes;
}
