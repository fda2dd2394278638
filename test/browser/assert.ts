/**
 * The part of `node:assert/strict` that the conformance table uses, for browsers: the bundle of the tests' pages takes
 * this module in its place.
 */

function text(value: unknown): string {
  const json: unknown = JSON.stringify(value, (_key, part: unknown) =>
    typeof part === "bigint" ? `${part}n` : part,
  );
  return typeof json === "string" ? json : typeof value;
}

/** Same value, same structure; arrays, typed arrays, plain objects, primitives. */
function same(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  const keys = Object.keys(a);
  if (keys.length !== Object.keys(b).length) return false;
  return keys.every(
    (key) => Object.hasOwn(b, key) && same(a[key as keyof typeof a], b[key as keyof typeof b]),
  );
}

const assert = {
  equal(actual: unknown, expected: unknown): void {
    if (!Object.is(actual, expected)) throw new Error(`${text(actual)} is not ${text(expected)}`);
  },
  deepEqual(actual: unknown, expected: unknown): void {
    if (!same(actual, expected)) throw new Error(`${text(actual)} is not like ${text(expected)}`);
  },
  ok(value: unknown): void {
    if (!value) throw new Error(`${text(value)} is not true`);
  },
};

export default assert;
