import {
  ENTRY_HEAD_SIZE,
  ENTRY_OFF_CSUM_OFFSET,
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_GSO_KIND,
  ENTRY_OFF_GSO_SIZE,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_HEADER_LENGTH,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
} from "../../../assembly/abi/arena.js";
import { VENET_GSO_MAX } from "../../../assembly/abi/venet.js";
import { Checksum } from "../../engine/checksum.js";
import { Segmenter } from "../../engine/offload.js";
import { BurstTable } from "../../engine/table.js";
import type { MemorySpace } from "../../memory/space.js";
import type { ReceivedFrame } from "./frames.js";
import { SUPERFRAME_KINDS } from "./offloads.js";

/** Distance of the checksum from the start of a UDP header; TCP's is 16, ICMPv6's 2. */
const UDP_CHECKSUM_OFFSET = 6;

/**
 * Finishes received frames for guests that want them as they would have come over a wire: superframes are cut, partial
 * checksums completed. Works on copies in the arena, which is allocated when the first unfinished frame comes.
 */
export class FrameFinisher {
  #scratch: { address: number; table: BurstTable; segmenter: Segmenter; checksum: Checksum } | null = null;

  /** @param space - the guest's memory */
  constructor(private readonly space: MemorySpace) {}

  /**
   * The finished frames of a received one, in order. None when its headers contradict its description: drop it.
   * @throws VbusError ENOMEM
   */
  finish(frame: ReceivedFrame): Uint8Array<ArrayBuffer>[] {
    const { data, checksum, gso } = frame;
    if (checksum === null && gso === null) return [data];
    const { address, table, segmenter, checksum: sums } = (this.#scratch ??= this.#allocate());
    const { bytes } = this.space;
    bytes.set(data, address);
    if (gso === null) {
      const { start, offset } = checksum as NonNullable<typeof checksum>;
      sums.complete(address, data.length, start, offset, offset === UDP_CHECKSUM_OFFSET);
      return [copyOf(bytes.subarray(address, address + data.length))];
    }
    this.#describe(table, address, frame);
    const segments: Uint8Array<ArrayBuffer>[] = [];
    if (segmenter.begin(table, 0) < 0) return segments;
    for (let n; (n = segmenter.next()) > 0;) {
      for (let i = 0; i < n; i++) {
        segments.push(copyOf(segmenter.table.bytes(i)));
      }
    }
    return segments;
  }

  #describe(table: BurstTable, address: number, { data, checksum, gso }: ReceivedFrame): void {
    if (gso === null) return;
    const entry = table.entry(0);
    const { bytes, data: view } = this.space.engine;
    table.setBuffer(0, address, data.length);
    table.setFlags(0, FRAME_GSO | (checksum === null ? 0 : FRAME_NEEDS_CSUM) | (gso.ecn ? FRAME_ECN : 0));
    view.setUint16(entry + ENTRY_OFF_CSUM_START, checksum?.start ?? 0, true);
    view.setUint16(entry + ENTRY_OFF_CSUM_OFFSET, checksum?.offset ?? 0, true);
    bytes[entry + ENTRY_OFF_GSO_KIND] = SUPERFRAME_KINDS[gso.kind].gso;
    view.setUint16(entry + ENTRY_OFF_GSO_SIZE, gso.size, true);
    view.setUint16(entry + ENTRY_OFF_HEADER_LENGTH, gso.headerLength, true);
    bytes.copyWithin(entry + ENTRY_OFF_HEAD, address, address + ENTRY_HEAD_SIZE);
  }

  #allocate(): { address: number; table: BurstTable; segmenter: Segmenter; checksum: Checksum } {
    const { space } = this;
    const address = space.allocate(VENET_GSO_MAX, 64);
    let table: BurstTable | undefined;
    try {
      table = BurstTable.allocate(space, 1);
      return { address, table, segmenter: new Segmenter(space), checksum: new Checksum(space) };
    } catch (error) {
      table?.close();
      space.free(address);
      throw error;
    }
  }

  /** Gives the memory back. Twice is harmless. */
  close(): void {
    const scratch = this.#scratch;
    if (scratch === null) return;
    this.#scratch = null;
    scratch.segmenter.close();
    scratch.table.close();
    this.space.free(scratch.address);
  }
}

function copyOf(view: Uint8Array): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(view.length);
  copy.set(view);
  return copy;
}
