import type { ChainTable } from "./chain-table.js";

/**
 * Copies what the device reads of chain i, from `offset` on, at most `max` bytes. The result is yours; it is shorter than
 * `max` where the chain ends.
 */
export function readChain(
  chains: ChainTable,
  i: number,
  offset: number,
  max: number,
): Uint8Array<ArrayBuffer> {
  const length = Math.max(0, Math.min(max, chains.readableBytes(i) - offset));
  const copy = new Uint8Array(length);
  const { bytes } = chains.space;
  let skip = offset;
  let at = 0;
  for (let k = 0; at < length; k++) {
    const piece = chains.piece(i, k);
    if (skip >= piece.length) {
      skip -= piece.length;
      continue;
    }
    const n = Math.min(piece.length - skip, length - at);
    copy.set(bytes.subarray(piece.address + skip, piece.address + skip + n), at);
    at += n;
    skip = 0;
  }
  return copy;
}

/** Copies bytes to what the device may write of chain i, from `offset` on. Returns how many: fewer where the chain ends. */
export function writeChain(chains: ChainTable, i: number, offset: number, data: Uint8Array): number {
  const length = Math.max(0, Math.min(data.length, chains.writableBytes(i) - offset));
  const { space } = chains;
  const { bytes } = space;
  let skip = offset;
  let at = 0;
  for (let k = chains.readablePieces(i); at < length; k++) {
    const piece = chains.piece(i, k);
    if (skip >= piece.length) {
      skip -= piece.length;
      continue;
    }
    const n = Math.min(piece.length - skip, length - at);
    bytes.set(data.subarray(at, at + n), piece.address + skip);
    space.noteWrite(piece.gpa + skip, n);
    at += n;
    skip = 0;
  }
  return length;
}
