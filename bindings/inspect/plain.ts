/** What JSON can say. */
export type Plain = string | number | boolean | null | readonly Plain[] | { readonly [key: string]: Plain };

/** Objects within objects: no counters of ours go deeper than half of it. */
const DEPTH_MAX = 8;

/**
 * What of a value JSON can say, as a copy: numbers that are none become null, large integers text, functions and what is
 * nested too deep vanish. Statistics come from device classes of anybody.
 */
export function plain(value: unknown, depth = 0): Plain {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      return Number.isFinite(value) ? value : null;
    case "bigint":
      return String(value);
    case "object":
      break;
    default:
      return null;
  }
  if (value === null || depth >= DEPTH_MAX) return null;
  if (Array.isArray(value)) return value.map((item) => plain(item, depth + 1));
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => typeof member !== "function" && member !== undefined)
      .map(([key, member]) => [key, plain(member, depth + 1)]),
  );
}
