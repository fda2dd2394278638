import type { Attribute } from "../bus/types.js";
import { VbusError } from "../errors.js";

/** A whole number in a range, as an administrator writes it. @throws VbusError EINVAL */
export function wholeNumber(text: string, min: number, max: number): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (!(value >= min && value <= max))
    throw new VbusError("EINVAL", `"${text}": write a whole number from ${min} to ${max}`);
  return value;
}

/** An attribute that is a whole number in a range. `set` may refuse what lies in it. */
export function numberAttribute(
  get: () => number,
  set: (value: number) => void,
  min: number,
  max: number,
): Attribute {
  return {
    get: () => String(get()),
    set: (text) => {
      set(wholeNumber(text, min, max));
    },
  };
}

/** An attribute that is 0 or 1. */
export function flagAttribute(get: () => boolean, set: (on: boolean) => void): Attribute {
  return numberAttribute(
    () => (get() ? 1 : 0),
    (value) => {
      set(value === 1);
    },
    0,
    1,
  );
}
