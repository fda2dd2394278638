/**
 * What a guest's network stack has to do about checksums when nobody else does: sum what it sends, verify what it receives. With
 * the engine's own SIMD, so that guests are as good at it as the host.
 */
import type { TransmitFrame } from "vbus/drivers/venet";
import { Checksum, FRAME_CSUM_VALID, FRAME_NEEDS_CSUM, type BurstTable } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import type { Batch } from "vbus/net";
import { buildSegments, FLOWS, type SegmentPlan } from "./segments.js";

const LINE = 64;
const GROUND = 0xffff;

/** Frames of one flow in memory of the guest's own, sent again and again. */
export class OutgoingFlow {
  /** Where frames lie that have to be summed. */
  readonly #space: MemorySpace | null;
  /** Where each frame that has to be summed lies, and the sum of its pseudo-header. */
  readonly #places = new Map<Uint8Array, { address: number; pseudo: number }>();
  readonly #frames: (Uint8Array | TransmitFrame)[];

  private constructor(
    space: MemorySpace | null,
    private readonly plan: SegmentPlan,
    from: number,
    to: number,
  ) {
    this.#space = space;
    const built = buildSegments(plan, from, to);
    if (space === null) {
      // plain frames as the bytes that they are: the driver's shortest way
      this.#frames = built.map((frame) =>
        frame.checksum === undefined ? (frame.data as Uint8Array) : frame,
      );
      return;
    }
    const stride = Math.ceil(plan.length / LINE) * LINE;
    const base = space.allocate(stride * plan.count, LINE); // before any view: memory may grow
    const { transport, checksum } = FLOWS[plan.kind ?? "tcp4"];
    this.#frames = built.map(({ data }, i) => {
      const address = base + i * stride;
      const view = space.bytes.subarray(address, address + plan.length);
      view.set(data as Uint8Array);
      const pseudo = space.engine.data.getUint16(address + transport + checksum, true);
      this.#places.set(view, { address, pseudo });
      return view;
    });
  }

  /** Makes the frames of a plan. */
  static async make(plan: SegmentPlan, from: number, to: number): Promise<OutgoingFlow> {
    const space = plan.checksum === "summed" ? await MemorySpace.host() : null;
    return new OutgoingFlow(space, plan, from, to);
  }

  /** The frames, in bursts of at most so many frames and bytes. */
  bursts(frames: number, bytes: number): (Uint8Array | TransmitFrame)[][] {
    const burst = Math.min(frames, Math.ceil(bytes / this.plan.length));
    const found = [];
    for (let i = 0; i < this.#frames.length; i += burst) found.push(this.#frames.slice(i, i + burst));
    return found;
  }

  /** Does what is to be done each time before frames are handed to the card. */
  finish(burst: readonly (Uint8Array | TransmitFrame)[]): void {
    if (this.#space === null) return;
    const { kind = "tcp4", length } = this.plan;
    const { transport, checksum } = FLOWS[kind];
    const sums = new Checksum(this.#space);
    const { data } = this.#space.engine;
    for (const frame of burst) {
      const place = this.#places.get(frame as Uint8Array);
      if (place === undefined) throw new Error("this frame belongs to another flow");
      data.setUint16(place.address + transport + checksum, place.pseudo, true);
      sums.complete(place.address, length, transport, checksum, kind === "udp");
    }
  }
}

/** Verifies the transport checksums of frames of one kind of flow, where the host does not say that it did. */
export class Verifier {
  /** Frames whose checksums were summed. */
  summed = 0;
  #sums: { space: MemorySpace; checksum: Checksum } | null = null;

  /** True when frame i is as it was sent, or was never in danger: its checksum is partial, or the host has verified it. */
  accepts(batch: Batch, i: number, kind: NonNullable<SegmentPlan["kind"]>): boolean {
    const { table } = batch;
    if ((table.flags(i) & (FRAME_CSUM_VALID | FRAME_NEEDS_CSUM)) !== 0) return true;
    if (this.#sums?.space !== batch.space)
      this.#sums = { space: batch.space, checksum: new Checksum(batch.space) };
    const { checksum } = this.#sums;
    const { transport, protocol, addresses } = FLOWS[kind];
    const at = table.piece(i, 0).address + addresses.at;
    const length = table.length(i) - transport;
    const pseudo =
      kind === "tcp6" ? checksum.pseudo6(at, protocol, length) : checksum.pseudo4(at, protocol, length);
    this.summed++;
    return checksum.add(pseudo, sumFrom(checksum, table, i, transport)) === GROUND;
  }
}

/** Sum of a frame from `start` on, over all its pieces. */
function sumFrom(checksum: Checksum, table: BurstTable, i: number, start: number): number {
  let sum = 0;
  let offset = 0;
  const total = table.length(i);
  for (let k = 0, pieces = table.fragments(i); k < pieces && offset < total; k++) {
    const { address, length } = table.piece(i, k);
    const n = Math.min(length, total - offset);
    const skip = Math.min(n, Math.max(0, start - offset));
    const part = checksum.range(address + skip, n - skip);
    sum = checksum.add(sum, ((offset + skip - start) & 1) === 0 ? part : checksum.swap(part));
    offset += n;
  }
  return sum;
}
