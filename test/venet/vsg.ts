/** Scatter-gather descriptors, byte by byte (`docs/abi/venet.md` 5.2). */
import type { MemorySpace } from "vbus/memory";

export interface Iov {
  length: number;
  ptr: bigint;
}

export interface Vsg {
  cookie: bigint;
  flags: number;
  length: number;
  start: number;
  offset: number;
  type: number;
  hdrlen: number;
  size: number;
  count: number;
  iovs: Iov[];
}

/** Size of a descriptor with n pieces. */
export function vsgSize(n: number, ilp32: boolean): number {
  return 32 + n * (ilp32 ? 12 : 16);
}

/** Writes one; members default to 0, `length` and `count` to what the pieces say. Returns its size. */
export function writeVsg(space: MemorySpace, gpa: number, vsg: Partial<Vsg>, ilp32: boolean): number {
  const { iovs = [] } = vsg;
  const bytes = new Uint8Array(vsgSize(iovs.length, ilp32));
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, vsg.cookie ?? 0n, true);
  view.setUint32(8, vsg.flags ?? 0, true);
  view.setUint32(12, vsg.length ?? iovs.reduce((sum, iov) => sum + iov.length, 0), true);
  view.setUint16(16, vsg.start ?? 0, true);
  view.setUint16(18, vsg.offset ?? 0, true);
  view.setUint8(20, vsg.type ?? 0);
  view.setUint16(22, vsg.hdrlen ?? 0, true);
  view.setUint16(24, vsg.size ?? 0, true);
  view.setUint32(28, vsg.count ?? iovs.length, true);
  for (const [i, iov] of iovs.entries()) {
    const at = vsgSize(i, ilp32);
    view.setUint32(at, iov.length, true);
    view.setBigUint64(at + (ilp32 ? 4 : 8), iov.ptr, true);
  }
  space.copyTo(gpa, bytes);
  return bytes.length;
}

/** Reads one that the host filled: as many pieces as `count` says, which must fit the slot. */
export function readVsg(space: MemorySpace, gpa: number, ilp32: boolean, slotSize: number): Vsg {
  const view = new DataView(space.copyFrom(gpa, slotSize).buffer);
  const count = view.getUint32(28, true);
  if (count < 1 || vsgSize(count, ilp32) > slotSize) {
    throw new Error(`kernel panic: ${count} pieces in a slot of ${slotSize} bytes`);
  }
  return {
    cookie: view.getBigUint64(0, true),
    flags: view.getUint32(8, true),
    length: view.getUint32(12, true),
    start: view.getUint16(16, true),
    offset: view.getUint16(18, true),
    type: view.getUint8(20),
    hdrlen: view.getUint16(22, true),
    size: view.getUint16(24, true),
    count,
    iovs: Array.from({ length: count }, (_, i) => {
      const at = vsgSize(i, ilp32);
      return { length: view.getUint32(at, true), ptr: view.getBigUint64(at + (ilp32 ? 4 : 8), true) };
    }),
  };
}
