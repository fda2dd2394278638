import { VIRTIO_NET_HDR_SIZE } from "../../../assembly/abi/virtio-net.js";
import type { GuestMemory } from "../../memory/guest.js";

const LINE = 64;
/**
 * Bytes in front of a header, so that the frame behind it begins at a multiple of 16. JavaScript copies to and from shared memory
 * byte by byte, several times as slowly, unless both places lie alike within 8 bytes; and aligned words of a header can be read
 * as what they are.
 */
const LEAD = 16 - VIRTIO_NET_HDR_SIZE;

/**
 * Buffers of one size in the guest's memory, one behind the other, each for a header (virtio 1.2: 5.1.6) and a frame in one
 * piece. Headers lie at multiples of 4, frames at multiples of 16.
 */
export class FrameBuffers {
  /** Bytes of each, a multiple of 64. */
  readonly size: number;
  /** Guest-physical address of the first. */
  readonly gpa: number;

  /** Bytes of a buffer for a header and a frame of `frameSize` bytes. */
  static sizeFor(frameSize: number): number {
    return Math.ceil((VIRTIO_NET_HDR_SIZE + frameSize) / LINE) * LINE;
  }

  /**
   * @param count - how many
   * @param frameSize - bytes of a frame that each has room for, at least
   * @throws VbusError ENOMEM
   */
  constructor(
    private readonly memory: GuestMemory,
    private readonly count: number,
    frameSize: number,
  ) {
    this.size = FrameBuffers.sizeFor(frameSize);
    this.gpa = memory.ram.allocate(LEAD + count * this.size, LINE) + LEAD;
  }

  /** Where the first lies in the memory. For the moment: the guest's memory may move. @throws VbusError EFAULT */
  address(): number {
    return this.memory.space.translate(this.gpa, this.count * this.size);
  }

  /** Gives the memory back: the device has let go of it. */
  close(): void {
    this.memory.ram.free(this.gpa - LEAD);
  }
}
