import { readFileSync } from "node:fs";

import type { MemorySpace } from "vbus/memory";
import { HostFrames, readCapture, type Batch, type CapturedFrame, type Port, type PortPeer } from "vbus/net";
import type { Scheduler } from "vbus/scheduler";

/** Writes a 48-bit address. */
function putMac(frame: Uint8Array, at: number, mac: number): void {
  for (let i = 0; i < 6; i++) frame[at + i] = Math.floor(mac / 2 ** (40 - 8 * i)) & 0xff;
}

export const BROADCAST = 0xffffffffffff;

/** Address of station n. */
export function station(n: number): number {
  return 0x020000000000 + n;
}

/** A frame with a serial number behind its Ethernet header. */
export function frame(destination: number, source: number, serial: number, length = 60): Uint8Array {
  const bytes = new Uint8Array(length);
  putMac(bytes, 0, destination);
  putMac(bytes, 6, source);
  bytes[12] = 0x88;
  bytes[13] = 0xb5; // local experimental EtherType
  new DataView(bytes.buffer).setUint32(14, serial);
  for (let i = 18; i < length; i++) bytes[i] = (serial + i) & 0xff;
  return bytes;
}

/** Serial number of a frame. */
export function serialOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(14);
}

/** Number of the station that sent a frame. */
export function senderOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(8);
}

/**
 * What is plugged into a port: sends frames in batches with back-pressure, receives as many as it has room for.
 * Batches lie in a memory of their own, as a guest's do.
 */
export class Station implements PortPeer {
  readonly received: Uint8Array[] = [];
  /** Frames that it still takes. */
  room = Infinity;
  receiveCalls = 0;
  transmitCalls = 0;
  writableCalls = 0;
  /** Frames that wait to be sent. */
  backlog: Uint8Array[] = [];
  #pumping = false;

  constructor(
    readonly port: Port,
    private readonly scheduler: Scheduler,
    private readonly space: MemorySpace,
    private readonly burst = 32,
  ) {
    port.attach(this);
  }

  receive(batch: Batch, from: number, to: number): number {
    this.receiveCalls++;
    const n = Math.min(to - from, this.room);
    for (let i = from; i < from + n; i++) this.received.push(batch.copy(i));
    this.room -= n;
    return n;
  }

  writable(): void {
    this.writableCalls++;
    this.pump();
  }

  /** Makes room for n more frames. */
  makeRoom(n: number): void {
    this.room += n;
    this.port.ready();
  }

  /** Sends frames, soon, in bursts, as fast as the port takes them. */
  send(...frames: Uint8Array[]): void {
    this.backlog.push(...frames);
    this.pump();
  }

  pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    this.scheduler.post(() => {
      this.#pumping = false;
      while (this.backlog.length > 0) {
        const frames = this.backlog.slice(0, this.burst);
        const taken = this.transmit(...frames);
        this.backlog.splice(0, taken);
        if (taken < frames.length) return;
      }
    });
  }

  /** One call of transmit. Returns what it returned. */
  transmit(...frames: Uint8Array[]): number {
    const host = HostFrames.of(this.space, frames);
    this.transmitCalls++;
    const taken = this.port.transmit(host.batch, 0, frames.length);
    host.close();
    return taken;
  }

  /** Serial numbers received, in order, from one sender or from all. */
  serials(from?: number): number[] {
    return this.received.filter((bytes) => from === undefined || senderOf(bytes) === from).map(serialOf);
  }
}

/** Numbers from `first` to below `end`. */
export function range(first: number, end: number): number[] {
  return Array.from({ length: end - first }, (_, i) => first + i);
}

/** Path of a file in `test/data`. */
export function dataPath(name: string): URL {
  return new URL(`../data/${name}`, import.meta.url);
}

/** Frames of the real capture. */
export async function realFrames(): Promise<CapturedFrame[]> {
  return (await readCapture(new Uint8Array(readFileSync(dataPath("segments.pcap.gz"))))).frames;
}
