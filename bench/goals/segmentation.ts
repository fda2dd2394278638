/**
 * G8: cutting a superframe of 64 KiB into MTU frames with complete checksums, delivered into posted buffers, against
 * copying the same bytes. Both through the typed door, in bursts as any device does it.
 */
import {
  BurstTable,
  ENTRY_OFF_CSUM_OFFSET,
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_FRAGMENTS,
  ENTRY_OFF_GSO_KIND,
  ENTRY_OFF_GSO_SIZE,
  ENTRY_SIZE,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  GSO_TCP4,
  moveFrames,
  PIECE_SIZE,
  Segmenter,
} from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import type { BenchContext } from "../harness/context.js";
import { inTurn, time } from "../harness/interleave.js";
import { ratioRow, type Row, type Target } from "../harness/result.js";
import { fillPattern } from "./checksum.js";

const TARGET: Target = { sense: "at most", value: 3 };
const SIZE = 1448;
const SEGMENTS = 45;
const TRANSPORT = 34;
/** Ethernet, IPv4, TCP with a timestamp. */
const HEADERS = TRANSPORT + 32;
const LENGTH = HEADERS + SEGMENTS * SIZE;
const BUFFER = 1536;
const ROUNDS = 400;

/** A superframe of TCP/IPv4 in `pieces` pieces. */
function superframe(space: MemorySpace, pieces: number): BurstTable {
  const address = space.allocate(LENGTH, 64);
  const bytes = space.bytes.subarray(address, address + LENGTH);
  fillPattern(bytes);
  bytes.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0xfe, 0xbc, 0, 1, 0x40, 0, 64, 6, 0, 0]);
  bytes.set([10, 0, 0, 1, 10, 0, 0, 2], TRANSPORT - 8);
  bytes.set([0x80, 0x18], TRANSPORT + 12);
  const table = BurstTable.allocate(space, 1);
  table.setBuffer(0, address, LENGTH);
  table.setFlags(0, FRAME_GSO | FRAME_NEEDS_CSUM);
  const entry = table.entry(0);
  const { data } = space.engine;
  data.setUint16(entry + ENTRY_OFF_CSUM_START, TRANSPORT, true);
  data.setUint16(entry + ENTRY_OFF_CSUM_OFFSET, 16, true);
  data.setUint8(entry + ENTRY_OFF_GSO_KIND, GSO_TCP4);
  data.setUint16(entry + ENTRY_OFF_GSO_SIZE, SIZE, true);
  if (pieces === 1) return table;
  const list = space.allocate(pieces * PIECE_SIZE, 16);
  for (let i = 0, from = 0; i < pieces; i++) {
    // headers by themselves, as a guest sends them, then payload in equal parts
    const to = HEADERS + Math.ceil((SEGMENTS * SIZE * i) / (pieces - 1));
    data.setUint32(list + i * PIECE_SIZE, address + from, true);
    data.setUint32(list + i * PIECE_SIZE + 4, to - from, true);
    data.setBigUint64(list + i * PIECE_SIZE + 8, 0n, true);
    from = to;
  }
  data.setUint16(entry + ENTRY_OFF_FRAGMENTS, pieces, true);
  data.setUint32(entry + ENTRY_OFF_FRAGMENT_LIST, list, true);
  return table;
}

/** Posted buffers that can be used again and again. */
class Buffers {
  readonly table: BurstTable;
  readonly #image: Uint8Array;

  constructor(space: MemorySpace, count: number, capacity: number) {
    this.table = BurstTable.allocate(space, count);
    for (let i = 0; i < count; i++) this.table.setBuffer(i, space.allocate(capacity, 64), capacity);
    this.#image = space.bytes.slice(this.table.address, this.table.address + count * ENTRY_SIZE);
  }

  /** All of them empty again. */
  post(): BurstTable {
    this.table.space.bytes.set(this.#image, this.table.address);
    return this.table;
  }
}

/** One superframe cut, and its segments moved. */
function segment(source: BurstTable, segmenter: Segmenter, buffers: Buffers): void {
  const target = buffers.post();
  const count = segmenter.begin(source, 0);
  let filled = 0;
  for (let n = segmenter.next(); n > 0; n = segmenter.next()) {
    filled += moveFrames(segmenter.table, 0, n, target, filled, SEGMENTS).filled;
  }
  if (count !== SEGMENTS || filled !== SEGMENTS) throw new Error(`${filled} of ${count} segments arrived`);
}

/** The same bytes moved as they are. */
function copy(source: BurstTable, buffer: Buffers): void {
  const { filled } = moveFrames(source, 0, 1, buffer.post(), 0, 1);
  if (filled !== 1) throw new Error("the superframe did not arrive");
}

/** Measures G8. */
export async function measureSegmentation(context: BenchContext): Promise<Row[]> {
  const rows: Row[] = [];
  for (const crossing of [false, true]) {
    for (const pieces of [1, 18]) {
      const where = crossing ? "between two memories" : "within one memory";
      context.progress(`G8 ${where}, ${pieces} pieces`);
      const space = await MemorySpace.host(1 << 20);
      const target = crossing ? await MemorySpace.host(1 << 20) : space;
      const source = superframe(space, pieces);
      const segmenter = new Segmenter(space);
      const small = new Buffers(target, SEGMENTS, BUFFER);
      const large = new Buffers(target, 1, LENGTH);
      const repeat = (work: () => void) => (): number =>
        time(() => {
          for (let i = 0; i < ROUNDS; i++) work();
        }, ROUNDS);
      const ours = repeat(() => {
        segment(source, segmenter, small);
      });
      const plain = repeat(() => {
        copy(source, large);
      });
      const [a = [], b = []] = await inTurn([ours, plain], context.effort);
      const note = `${LENGTH} bytes into ${SEGMENTS} buffers, checksums complete, against one copy in one piece; in a second-level cache`;
      const name = `${where}, superframe in ${pieces} piece${pieces === 1 ? "" : "s"}`;
      rows.push(
        ratioRow(
          { goal: "G8", name, unit: "ns/superframe", target: TARGET, placement: null, note },
          a,
          b,
          "ours/rival",
        ),
      );
    }
  }
  return rows;
}
