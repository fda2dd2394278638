import { checkResult } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";

/**
 * Internet checksum over a memory (RFC 1071). A *sum* is the folded one's complement sum of little-endian words, not
 * inverted; see `assembly/checksum.ts`. Addresses are addresses of the memory, vouched for by the caller.
 */
export class Checksum {
  constructor(private readonly space: MemorySpace) {}

  /** Sum of `length` bytes at `address` (any alignment, any length). */
  range(address: number, length: number): number {
    return this.space.engine.exports.checksumRange(address, length);
  }

  /** Adds two sums. */
  add(a: number, b: number): number {
    return this.space.engine.exports.checksumAdd(a, b);
  }

  /** What a range contributes that starts at an odd offset of the whole. */
  swap(sum: number): number {
    return this.space.engine.exports.checksumSwap(sum);
  }

  /** Pseudo-header sum for IPv4; `addresses` points at source and destination (8 bytes). */
  pseudo4(addresses: number, protocol: number, length: number): number {
    return this.space.engine.exports.checksumPseudo4(addresses, protocol, length);
  }

  /** Pseudo-header sum for IPv6; `addresses` points at source and destination (32 bytes). */
  pseudo6(addresses: number, protocol: number, length: number): number {
    return this.space.engine.exports.checksumPseudo6(addresses, protocol, length);
  }

  /**
   * Completes a partial checksum in place: sums from `start` to the end, stores at `start + offset`.
   * `zeroIsOnes`: UDP's rule. @throws VbusError EINVAL when a position lies outside the frame
   */
  complete(frame: number, length: number, start: number, offset: number, zeroIsOnes = false): void {
    checkResult(
      this.space.engine.exports.checksumComplete(frame, length, start, offset, zeroIsOnes ? 1 : 0),
      `checksum positions ${start} + ${offset} lie outside a frame of ${length} bytes`,
    );
  }
}
