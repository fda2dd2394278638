/** Saved states as somebody may have changed them. */
import type { StateValue } from "vbus/state";

/** Numbers in [0, n) by a generator that anybody can repeat. */
export function dice(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

/** A state that can be changed. */
export type Tree = Exclude<StateValue, readonly StateValue[]> | Tree[] | { [name: string]: Tree };

/** A deep copy. */
export function copy(value: StateValue): Tree {
  if (value instanceof Uint8Array) return value.slice();
  if (Array.isArray(value)) return (value as readonly StateValue[]).map(copy);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, copy(member)]));
}

const NUMBERS = [0, 1, -1, 2, 7, 255, 65535, 65536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53, 1e300, null, 0.5];

/** Something else in the place of a value. */
function spoil(value: Tree, roll: (n: number) => number): Tree {
  if (value instanceof Uint8Array && roll(4) > 0) {
    const bytes = value.slice();
    for (let n = 1 + roll(3); n > 0 && bytes.length > 0; n--)
      bytes[roll(bytes.length)] = roll(3) === 0 ? 255 : roll(256);
    return roll(6) === 0 ? bytes.slice(0, roll(bytes.length + 1)) : bytes;
  }
  if (typeof value === "boolean" && roll(3) > 0) return !value;
  if (typeof value === "number" && roll(3) > 0) return value + [1, -1, 64, 2 ** 31][roll(4)]!;
  return [NUMBERS[roll(NUMBERS.length)] as Tree, null, true, "text", [], {}, new Uint8Array(roll(9))][
    roll(7)
  ] as Tree;
}

/** Changes one place of a tree. */
export function mutate(root: Tree, roll: (n: number) => number): Tree {
  let at = root;
  for (;;) {
    const container = at as Record<string, Tree>;
    const names = Array.isArray(at) ? [...at.keys()].map(String) : Object.keys(at as object);
    if (names.length === 0) return root;
    const name = names[roll(names.length)]!;
    const child = container[name] as Tree;
    const inner = typeof child === "object" && child !== null && !(child instanceof Uint8Array);
    if (inner && roll(8) > 0 && Object.keys(child).length > 0) {
      at = child;
      continue;
    }
    const action = roll(10);
    if (action === 0 && Array.isArray(at)) at.push(copy(child));
    else if (action === 1) Reflect.deleteProperty(container, name);
    else container[name] = spoil(child, roll);
    return root;
  }
}
