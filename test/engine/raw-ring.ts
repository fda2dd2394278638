/** A ring's bytes, as a v4 peer or a debugger finds them: literal offsets of `docs/abi/ioq.md` section 1. */
import { LAYOUTS } from "./reference/ring.js";
import type { Layout } from "./ring-side.js";

/** An index record. */
export type RawIndex = readonly [head: number, tail: number, full: number];
/** An irq record: enabled, pending, dirty. */
export type RawIrq = readonly [enabled: number, pending: number, dirty: number];

/** An index record as stored. */
export function rawIndex(segment: DataView, index: "valid" | "inuse"): RawIndex {
  const at = index === "valid" ? 24 : 36;
  return [segment.getUint32(at, true), segment.getUint32(at + 4, true), segment.getUint8(at + 8)];
}

/** The irq record of a locale as stored. */
export function rawIrq(segment: DataView, locale: 0 | 1): RawIrq {
  const at = 16 + 3 * locale;
  return [segment.getUint8(at), segment.getUint8(at + 1), segment.getUint8(at + 2)];
}

/** Sets the irq record of a locale, as its two writers would have left it. */
export function setRawIrq(segment: DataView, locale: 0 | 1, irq: RawIrq): void {
  for (const [i, value] of irq.entries()) segment.setUint8(16 + 3 * locale + i, value);
}

/** A descriptor as stored. */
export function rawDescriptor(segment: DataView, layout: Layout, position: number) {
  const at = LAYOUTS[layout].header + LAYOUTS[layout].stride * position;
  if (layout === "compact") {
    const count = segment.getUint32(48, true);
    return {
      cookie: segment.getBigUint64(56 + 16 * count + 8 * position, true),
      ptr: segment.getBigUint64(at, true),
      len: BigInt(segment.getUint32(at + 8, true)),
      valid: segment.getUint8(56 + 24 * count + position),
      sown: segment.getUint8(at + 12),
    };
  }
  return {
    cookie: segment.getBigUint64(at, true),
    ptr: segment.getBigUint64(at + 8, true),
    len: segment.getBigUint64(at + 16, true),
    valid: segment.getUint8(at + 24),
    sown: segment.getUint8(at + 25),
  };
}
