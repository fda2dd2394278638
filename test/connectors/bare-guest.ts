import type { GuestMemoryInit } from "vbus/memory";
import type { BridgeHost } from "vbus/connectors/bridge";

/** How a guest reaches its bridge: directly, or by the registers of a function. */
export type BridgeDoor = Pick<BridgeHost, "call" | "fastcall" | "eventqDoorbell" | "shmSignal">;

/**
 * A guest that writes every byte by hand, as `docs/abi/vbus-pci.md` says it: no code of the package's guest half.
 * Its memory is its own `DataView` on the RAM; addresses are guest-physical. One per test, in one thread.
 */

/** Ids of events, from section 8. */
export const DEVADD = 0;
export const DEVDROP = 1;
export const SHMSIGNAL = 2;
export const SHMCLOSE = 3;
/** A kernel pointer: more bits than a JavaScript number has. */
export const COOKIE = 0xffff_8801_2345_6789n;

/** Offsets of one layout, from section 6. */
export interface WireLayout {
  busreg: { size: number; count: number; ring: number; data: number };
  call: { size: number; datap: number };
  shm: { size: number; offset: number; prio: number; cookie: number; datap: number };
  fastcall: number;
  event: { size: number; data: number };
  /** Ring header and descriptor, `docs/abi/ioq.md` section 1.4. */
  ring: { header: number; stride: number };
}

export const LP64: WireLayout = {
  busreg: { size: 32, count: 8, ring: 16, data: 24 },
  call: { size: 32, datap: 24 },
  shm: { size: 48, offset: 24, prio: 28, cookie: 32, datap: 40 },
  fastcall: 24,
  event: { size: 144, data: 8 },
  ring: { header: 56, stride: 32 },
};

export const ILP32: WireLayout = {
  busreg: { size: 24, count: 4, ring: 8, data: 16 },
  call: { size: 28, datap: 20 },
  shm: { size: 44, offset: 20, prio: 24, cookie: 28, datap: 36 },
  fastcall: 20,
  event: { size: 140, data: 4 },
  ring: { header: 52, stride: 28 },
};

/** An ILP32 guest whose ioq.h was converted already: bridge blocks of i386, descriptors of the final ABI. */
export const ILP32_NEW_RING: WireLayout = { ...ILP32, ring: LP64.ring };

export interface WireEvent {
  id: number;
  /** 64 bits: device id or cookie. */
  value: bigint;
  type: string;
}

export class BareGuest {
  readonly view: DataView;
  readonly base: number;
  #next: number;
  /** Event ring, once registered. */
  ring = 0;
  data = 0;
  count = 0;
  #head = 0;

  constructor(
    init: GuestMemoryInit,
    readonly host: BridgeDoor,
    readonly layout: WireLayout,
  ) {
    const [region] = init.layout.regions;
    this.view = new DataView(init.memory.buffer, region!.address, region!.length);
    this.base = region!.gpa;
    this.#next = this.base + 64;
  }

  allocate(size: number): number {
    const gpa = this.#next;
    this.#next += (size + 63) & ~63;
    return gpa;
  }

  u8(gpa: number): number {
    return this.view.getUint8(gpa - this.base);
  }
  setU8(gpa: number, value: number): void {
    this.view.setUint8(gpa - this.base, value);
  }
  u32(gpa: number): number {
    return this.view.getUint32(gpa - this.base, true);
  }
  setU32(gpa: number, value: number): void {
    this.view.setUint32(gpa - this.base, value, true);
  }
  u64(gpa: number): bigint {
    return this.view.getBigUint64(gpa - this.base, true);
  }
  setU64(gpa: number, value: bigint | number): void {
    this.view.setBigUint64(gpa - this.base, BigInt(value), true);
  }
  /** A block full of garbage: what a real guest leaves where it sets nothing. */
  block(size: number): number {
    const gpa = this.allocate(size);
    for (let i = 0; i < size; i++) this.setU8(gpa + i, 0xa5);
    return gpa;
  }

  bridge(vector: number, length: number, gpa: number | bigint): number {
    const address = BigInt(gpa);
    return this.host.call(vector, length, Number(address & 0xffffffffn), Number(address >> 32n));
  }

  negotiate(magic = 0xbf53eef5, version = 1): { result: number; gpa: number } {
    const gpa = this.block(16);
    this.setU32(gpa, magic);
    this.setU32(gpa + 4, version);
    this.setU64(gpa + 8, 0xffffn);
    return { result: this.bridge(0, 16, gpa), gpa };
  }

  /** Formats ring and records as a driver does (sections 8 and 9.4); north's signal is enabled before QREG. */
  makeEventQueue(count: number): void {
    const { header, stride } = this.layout.ring;
    this.count = count;
    this.ring = this.allocate(header + stride * count);
    this.data = this.allocate(this.layout.event.size * count);
    this.#head = 0;
    for (let i = 0; i < header + stride * count; i++) this.setU8(this.ring + i, 0);
    this.setU32(this.ring, 0x47fa2fe4);
    this.setU32(this.ring + 4, 4);
    this.setU32(this.ring + 8, 0x58fa39df);
    this.setU32(this.ring + 12, 1);
    this.setU8(this.ring + 16, 1); // irq[north].enabled
    this.setU32(this.ring + 48, count);
    this.setU8(this.ring + 32, 1); // the valid index is full: head = tail = 0
    for (let i = 0; i < count; i++) {
      const descriptor = this.descriptor(i);
      this.setU64(descriptor, 0xffff_8800_0000_0000n + BigInt(i)); // a kernel pointer
      this.setU64(descriptor + 8, this.data + i * this.layout.event.size);
      this.setU64(descriptor + 16, this.layout.event.size);
      this.setU8(descriptor + 24, 1);
      this.setU8(descriptor + 25, 1); // owner: south
    }
  }

  descriptor(i: number): number {
    return this.ring + this.layout.ring.header + i * this.layout.ring.stride;
  }

  qreg(queues = 1): number {
    const { busreg } = this.layout;
    const gpa = this.block(busreg.size);
    this.setU32(gpa, queues);
    this.setU32(gpa + busreg.count, this.count);
    this.setU64(gpa + busreg.ring, this.ring);
    this.setU64(gpa + busreg.data, this.data);
    return this.bridge(1, busreg.size, gpa);
  }

  /** Takes every event that is there, as the Linux handler does; signals the host once. True: it must be rung. */
  takeEvents(): { events: WireEvent[]; ring: boolean } {
    const events: WireEvent[] = [];
    this.setU8(this.ring + 18, 0); // dirty
    for (;;) {
      const descriptor = this.descriptor(this.#head);
      if (this.u8(descriptor + 25) !== 0) break;
      const record = Number(this.u64(descriptor + 8));
      events.push(this.#decode(record));
      for (let i = 0; i < this.layout.event.size; i++) this.setU8(record + i, 0);
      this.#head = (this.#head + 1) % this.count;
      this.setU32(this.ring + 36, this.#head);
      if (this.u8(this.ring + 44) !== 0) this.setU8(this.ring + 44, 0);
      this.setU8(descriptor + 25, 1);
    }
    this.setU8(this.ring + 17, 0); // pending
    this.setU8(this.ring + 21, 1); // south's dirty
    const ring = this.u8(this.ring + 19) !== 0 && this.u8(this.ring + 20) === 0;
    if (ring) this.setU8(this.ring + 20, 1);
    return { events, ring };
  }

  #decode(record: number): WireEvent {
    const union = record + this.layout.event.data;
    let type = "";
    for (let i = 0; i < 128; i++) {
      const char = this.u8(union + 8 + i);
      if (char === 0) break;
      type += String.fromCharCode(char);
    }
    return { id: this.u32(record), value: this.u64(union), type };
  }

  /** A bus call by SLOWCALL, or by a fastcall channel. */
  busCall(
    vector: number,
    length: number,
    gpa: number | bigint,
    channel?: { id: number; gpa: number },
  ): number {
    if (channel !== undefined) {
      this.setU32(channel.gpa, vector);
      this.setU32(channel.gpa + 4, length);
      this.setU64(channel.gpa + 8, gpa);
      this.host.fastcall(channel.id);
      return this.view.getInt32(channel.gpa + 16 - this.base, true);
    }
    const descriptor = this.block(16);
    this.setU32(descriptor, vector);
    this.setU32(descriptor + 4, length);
    this.setU64(descriptor + 8, gpa);
    return this.bridge(2, 16, descriptor);
  }

  addChannel(
    id: number,
    size = this.layout.fastcall,
  ): { result: number; channel: { id: number; gpa: number } } {
    const gpa = this.block(24);
    const descriptor = this.block(16);
    this.setU32(descriptor, id);
    this.setU32(descriptor + 4, size);
    this.setU64(descriptor + 8, gpa);
    return { result: this.bridge(3, 16, descriptor), channel: { id, gpa } };
  }

  open(id: number | bigint, version: number, channel?: { id: number; gpa: number }) {
    const gpa = this.block(16);
    this.setU32(gpa, Number(id));
    this.setU32(gpa + 4, version);
    const result = this.busCall(0, 16, gpa, channel);
    return { result, handle: this.u64(gpa + 8), gpa };
  }

  close(handle: bigint, channel?: { id: number; gpa: number }): number {
    const gpa = this.block(8);
    this.setU64(gpa, handle);
    return this.busCall(1, 8, gpa, channel);
  }

  call(
    handle: bigint,
    func: number,
    data: number | bigint,
    length: number,
    flags = 0,
    channel?: { id: number; gpa: number },
  ) {
    const gpa = this.block(this.layout.call.size);
    this.setU64(gpa, handle);
    this.setU32(gpa + 8, func);
    this.setU32(gpa + 12, length);
    this.setU32(gpa + 16, flags);
    this.setU64(gpa + this.layout.call.datap, data);
    return this.busCall(2, this.layout.call.size, gpa, channel);
  }

  shm(
    handle: bigint,
    id: number,
    segment: number | bigint,
    length: number,
    signal?: { offset: number; cookie: bigint },
    channel?: { id: number; gpa: number },
  ): number {
    const { shm } = this.layout;
    const gpa = this.block(shm.size);
    this.setU64(gpa, handle);
    this.setU32(gpa + 8, id);
    this.setU32(gpa + 12, length);
    this.setU32(gpa + 16, 0);
    this.setU32(gpa + shm.offset, signal?.offset ?? 0xffffffff);
    if (signal !== undefined) this.setU64(gpa + shm.cookie, signal.cookie); // else garbage, as the real one leaves
    this.setU64(gpa + shm.datap, segment);
    return this.busCall(3, shm.size, gpa, channel);
  }

  /** A segment that starts with a shm-signal record. */
  signalSegment(length = 64): number {
    const gpa = this.allocate(length);
    for (let i = 0; i < length; i++) this.setU8(gpa + i, 0);
    this.setU32(gpa, 0x58fa39df);
    this.setU32(gpa + 4, 1);
    return gpa;
  }
}
