import { VbusError } from "./errors.js";

/**
 * Passes through what the embedder gave, when it has the members that it is going to be used by. The types ask for the same,
 * but JavaScript does not look at them, and what is forgotten most, a `return` or an `await`, shows much later elsewhere.
 * @param given - an object of the embedder
 * @param what - beginning of the message, such as "`space` is"
 * @param wanted - end of the message: what to give instead
 * @param members - what it has to have
 * @throws VbusError EINVAL
 */
export function checkGiven<Given>(
  given: Given,
  what: string,
  wanted: string,
  ...members: readonly (string & keyof Given)[]
): Given {
  if (members.every((member) => (given as Partial<Given> | null | undefined)?.[member] !== undefined))
    return given;
  throw new VbusError("EINVAL", `${what} ${nameOf(given)}; ${wanted}`);
}

/** What a value is, for messages: `a promise`, `nothing`, `"text"`, `9000`, `an ArrayBuffer`. */
export function nameOf(value: unknown): string {
  switch (typeof value) {
    case "undefined":
      return "nothing";
    case "string":
      return JSON.stringify(value.length <= 40 ? value : `${value.slice(0, 40)}…`);
    case "function":
      return "a function";
    case "object": {
      if (value === null) return "null";
      if (typeof (value as { then?: unknown }).then === "function") return "a promise";
      const name = (value as { constructor?: { name?: unknown } }).constructor?.name;
      const kind = typeof name === "string" && name !== "" ? name : "Object";
      return `${/^[AEIOU](?!int)/.test(kind) ? "an" : "a"} ${kind}`;
    }
    default:
      return String(value);
  }
}
