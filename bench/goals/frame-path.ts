/**
 * G6: what it takes to get a frame out of a guest: ring, one copy, one checksum. Ours goes through the typed door, one
 * call per burst as any device does it; the rival is v86's own VirtQueue as its virtio network card uses it.
 */
import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
} from "vbus/engine";
import {
  BurstTable,
  Checksum,
  moveFrames,
  PEEK_FRAMES,
  Queue,
  queueSegmentLength,
  RECLAIM,
} from "vbus/engine";
import { allocateGuestMemory, MemorySpace } from "vbus/memory";
import type { BenchContext } from "../harness/context.js";
import { inTurn, time } from "../harness/interleave.js";
import { ratioRow, type Row, type Target } from "../harness/result.js";
import { bytePairSum } from "../rivals/byte-pairs.js";
import { V86Rival } from "../rivals/v86-queue.js";
import { fillPattern } from "./checksum.js";

const TARGET: Target = { sense: "at least", value: 10 };
const LENGTHS = [64, 256, 1514, 4096, 9014, 16_384, 65_536];
const RING = 256;
const BURST = 32;
/** Sources, and targets, take at most this much each, so that both stay in a second-level cache. */
const WORKING_SET = 256 << 10;
const RING_GPA = 0x10008;
const BUFFERS_GPA = 0x100000;
const WRITE = BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID | BURST_SIGNAL;

/** Our frame path over one memory: guest and host in this thread. */
class OurPath {
  readonly #north: Queue;
  readonly #south: Queue;
  readonly #posted: BurstTable;
  readonly #taken: BurstTable;
  readonly #targets: BurstTable;
  readonly #checksum: Checksum;
  /** Folded sum of the last frame, in the order of bytes that JavaScript's byte pairs give. */
  sum = 0;

  constructor(
    space: MemorySpace,
    private readonly burst: number,
    private readonly length: number,
  ) {
    this.#north = Queue.create(space, { gpa: RING_GPA, count: RING, role: "northTransmit" });
    const segment = { gpa: RING_GPA, length: queueSegmentLength(RING) };
    this.#south = Queue.attach(space, { ...segment, role: "southTransmit" });
    this.#posted = BurstTable.allocate(space, burst);
    this.#taken = BurstTable.allocate(space, burst);
    this.#targets = BurstTable.allocate(space, burst);
    this.#checksum = new Checksum(space);
    for (let i = 0; i < burst; i++) {
      fillPattern(space.view(this.#buffer(i), length));
      this.#targets.setBuffer(i, space.allocate(length, 64), length);
      // like v86's guest, ours describes its buffers once; the engine still writes every descriptor of every burst
      this.#posted.setGpa(i, this.#buffer(i));
      this.#posted.setLength(i, length);
      this.#posted.setCookie(i, i);
    }
  }

  #buffer(i: number): number {
    return BUFFERS_GPA + i * this.length;
  }

  /** One burst from post to reap. */
  run(): void {
    const { burst, length } = this;
    const targets = this.#targets;
    this.#north.reserve("both", null, burst);
    this.#north.commit("both", this.#posted, burst, WRITE);

    const n = this.#south.peek("inuse", this.#taken, burst, PEEK_FRAMES);
    for (let i = 0; i < n; i++) targets.setLength(i, length);
    const { filled } = moveFrames(this.#taken, 0, n, targets, 0, burst);
    let sum = 0;
    for (let i = 0; i < filled; i++) sum = this.#checksum.range(targets.bufferAddress(i), targets.length(i));
    this.#south.release("inuse", null, n, BURST_SIGNAL);

    const reaped = this.#north.peek("valid", null, burst);
    this.#north.release("valid", null, reaped, RECLAIM | BURST_CLEAR_VALID);
    if (reaped !== burst) throw new Error(`${reaped} of ${burst} descriptors came back`);
    this.sum = this.#checksum.swap(sum);
  }
}

/** v86's path over its own memory. */
class V86Path {
  sum = 0;

  constructor(
    private readonly rival: V86Rival,
    private readonly burst: number,
    length: number,
  ) {
    rival.set(burst, length);
    for (let i = 0; i < burst; i++) {
      const at = rival.bufferAt(i, length);
      fillPattern(rival.bytes.subarray(at, at + length));
    }
  }

  /** One burst, as the emulator's network card takes it. */
  run(): void {
    const { rival } = this;
    const { queue } = rival;
    rival.post(this.burst);
    while (queue.has_request()) {
      const request = queue.pop_request();
      const frame = new Uint8Array(request.length_readable);
      request.get_next_blob(frame);
      this.sum = bytePairSum(frame);
      queue.push_reply(request);
    }
    queue.flush_replies();
  }
}

/** Measures G6. */
export async function measureFramePath(context: BenchContext): Promise<Row[]> {
  const rival = await V86Rival.start();
  const rows: Row[] = [];
  try {
    for (const length of LENGTHS) {
      context.progress(`G6 ${length} bytes`);
      const burst = Math.min(BURST, Math.max(1, Math.floor(WORKING_SET / length)));
      const init = allocateGuestMemory({ size: 8 << 20, arenaSize: 2 << 20 });
      const space = MemorySpace.attachSync(init.memory, init.layout.hostArena, init.layout.regions);
      const ours = new OurPath(space, burst, length);
      const theirs = new V86Path(rival, burst, length);
      ours.run();
      theirs.run();
      if (ours.sum !== theirs.sum) {
        throw new Error(`frames of ${length} bytes: sums differ, ours ${ours.sum}, v86's ${theirs.sum}`);
      }
      // some milliseconds of the slower contestant for each sample
      const rounds = Math.max(3, Math.ceil(4_000_000 / (burst * (400 + length / 2))));
      const repeat = (path: { run(): void }, times: number) => (): number =>
        time(() => {
          for (let i = 0; i < times; i++) path.run();
        }, times * burst);
      const samples = await inTurn([repeat(ours, rounds * 5), repeat(theirs, rounds)], context.effort);
      const [a = [], b = []] = samples;
      const kib = Math.ceil((burst * length) / 1024);
      const note = `bursts of ${burst}, in cache: ${kib} KiB of sources, as much of targets; our guest half timed, v86's is one store`;
      const row = {
        goal: "G6",
        name: `${length} bytes`,
        unit: "ns/frame",
        target: TARGET,
        placement: null,
        note,
      } as const;
      rows.push(ratioRow(row, a, b, "rival/ours"));
    }
  } finally {
    rival.close();
  }
  return rows;
}
