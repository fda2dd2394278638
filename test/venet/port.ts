/** The network's end of a NIC for tests: keeps what the guest sends, and sends what the test wants. */
import { BurstTable, ENTRY_OFF_GSO_SIZE, FRAME_ECN, FRAME_GSO, FRAME_NEEDS_CSUM } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { Batch, type Port, type PortCounters, type PortPeer } from "vbus/net";

/** Offload data of a frame that left the guest. */
export interface SentNeeds {
  flags: number;
  kind: number;
  size: number;
  start: number;
  offset: number;
}

export class TestPort implements Port {
  /** What it takes unfinished (`OFFLOAD_…` bits). */
  offloads = 0;
  peer: PortPeer | null = null;
  /** Copies of what the guest sent. */
  readonly sent: Uint8Array[] = [];
  /** What those still needed, if anything. */
  readonly needs: SentNeeds[] = [];
  /** How many frames it takes before it pushes back. */
  room = Infinity;
  /** Calls of `ready()`. */
  readyCalls = 0;
  /** What `ready()` does besides. */
  onReady: (() => void) | null = null;
  closed = false;
  /** Thrown by the next `attach`. */
  refusal: Error | null = null;

  constructor(readonly name = "test") {}

  transmit(batch: Batch, from: number, to: number): number {
    const take = Math.min(to - from, this.room);
    for (let i = from; i < from + take; i++) {
      this.sent.push(batch.copy(i));
      const flags = batch.table.flags(i) & (FRAME_NEEDS_CSUM | FRAME_GSO | FRAME_ECN);
      const size = batch.space.engine.data.getUint16(batch.table.entry(i) + ENTRY_OFF_GSO_SIZE, true);
      this.needs.push({ flags, kind: batch.gsoKind(i), size, ...batch.checksumPlace(i) });
    }
    this.room -= take;
    return take;
  }

  attach(peer: PortPeer): void {
    if (this.refusal !== null) throw this.refusal;
    this.peer = peer;
  }

  detach(): void {
    this.peer = null;
  }

  ready(): void {
    this.readyCalls++;
    this.onReady?.();
  }

  counters(): PortCounters {
    return {
      received: this.sent.length,
      receivedBytes: 0,
      delivered: 0,
      deliveredBytes: 0,
      drops: {},
      inFlight: 0,
    };
  }

  close(): void {
    this.closed = true;
  }

  /** Makes room for n more frames. */
  open(n: number): void {
    this.room = n;
    this.peer?.writable();
  }
}

/** A batch in the host's own memory with these frames; yours to keep. */
export async function hostBatch(frames: readonly Uint8Array[]): Promise<Batch> {
  const space = await MemorySpace.host(frames.reduce((sum, f) => sum + f.length + 16, 1 << 20));
  const table = BurstTable.allocate(space, frames.length);
  for (const [i, frame] of frames.entries()) {
    const address = space.allocate(Math.max(frame.length, 1));
    space.bytes.set(frame, address);
    table.setBuffer(i, address, frame.length);
  }
  const batch = new Batch(table);
  batch.count = frames.length;
  return batch;
}
