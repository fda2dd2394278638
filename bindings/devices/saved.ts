/** What all device classes save alike: attributes by name, counters. */
import type { Attribute } from "../bus/types.js";
import type { StateReader, StateValue } from "../state/reader.js";
import type { RestoreOptions } from "../state/saveable.js";

const ATTRIBUTE_MAX = 4096;

/** Whether an attribute becomes what was saved: all but the address of a network card that is to have its own. */
export function isKept(name: string, { macs }: RestoreOptions): boolean {
  return macs !== "renew" || name !== "client_mac";
}

/** Attributes of these names, as text. */
export function saveAttributes(
  attributes: ReadonlyMap<string, Attribute>,
  names: readonly string[],
): StateValue {
  return Object.fromEntries(names.map((name) => [name, attributes.get(name)?.get?.() ?? null]));
}

/** Writes attributes that differ from what was saved, in order. @throws StateError */
export function restoreAttributes(
  attributes: ReadonlyMap<string, Attribute>,
  state: StateReader,
  names: readonly string[],
): void {
  for (const name of names) {
    const saved = state.get(name);
    const text = saved.text(ATTRIBUTE_MAX);
    const attribute = attributes.get(name);
    if (attribute?.get?.() === text) continue;
    saved.rebuild(`the attribute ${name}`, () => attribute?.set?.(text));
  }
}

/** Counters, and records of counters, as plain data. */
export function saveCounters(counters: object): StateValue {
  const plain = (value: unknown): StateValue => {
    if (typeof value === "number") return value;
    return Object.fromEntries(Object.entries(value as object).map(([name, member]) => [name, plain(member)]));
  };
  return plain(counters);
}

/** Names of errors and reasons. */
const REASON = /^[A-Za-z][A-Za-z0-9-]{0,31}$/;
const REASONS_MAX = 64;
/** Members that count by reasons, of which only those are there that occurred. */
const BY_REASON = new Set(["drops", "errors"]);

/** Takes counters over into a record of the same shape. @throws StateError */
export function restoreCounters(into: object, state: StateReader): void {
  const record = into as Record<string, unknown>;
  for (const [name, value] of Object.entries(record)) {
    const saved = state.get(name);
    if (BY_REASON.has(name)) record[name] = readReasons(saved);
    else if (typeof value === "object" && value !== null) restoreCounters(value, saved);
    else record[name] = saved.number(0, Number.MAX_SAFE_INTEGER);
  }
}

function readReasons(saved: StateReader): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const reason of saved.names(REASONS_MAX)) {
    if (!REASON.test(reason)) saved.fail("no such reason is counted by");
    counts[reason] = saved.get(reason).number(0, Number.MAX_SAFE_INTEGER);
  }
  return counts;
}
