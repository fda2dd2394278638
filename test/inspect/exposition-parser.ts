/**
 * A strict reader of Prometheus' text format 0.0.4, written from its description ("Text-based format"): what it takes, every
 * scraper takes. Throws with the line for anything else.
 */

/** A sample. */
export interface Sample {
  labels: Record<string, string>;
  value: number;
}

/** A metric with all its samples. */
export interface Family {
  type: string;
  help: string;
  samples: Sample[];
}

const METRIC = /^[a-zA-Z_:][a-zA-Z0-9_:]*/;
const LABEL = /^[a-zA-Z_][a-zA-Z0-9_]*/;
const VALUE = /^[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|Inf)$|^NaN$/;
const TYPES = new Set(["counter", "gauge", "histogram", "summary", "untyped"]);

function unescaped(text: string, quotes: boolean): string {
  return text.replace(/\\(.?)/g, (all, character: string) => {
    if (character === "n") return "\n";
    if (character === "\\" || (quotes && character === '"')) return character;
    throw new Error(`no escape: ${all}`);
  });
}

/** Reads labels in braces; returns them and what follows. */
function readLabels(text: string): { labels: Record<string, string>; rest: string } {
  const labels: Record<string, string> = {};
  if (!text.startsWith("{")) return { labels, rest: text };
  let rest = text.slice(1);
  while (!rest.startsWith("}")) {
    const name = LABEL.exec(rest)?.[0];
    if (name === undefined || name.startsWith("__")) throw new Error(`no label's name: ${rest}`);
    if (name in labels) throw new Error(`label ${name} twice`);
    rest = rest.slice(name.length);
    const value = /^="((?:[^"\\\n]|\\.)*)"/.exec(rest);
    if (value === null) throw new Error(`no label's value: ${rest}`);
    labels[name] = unescaped(value[1]!, true);
    rest = rest.slice(value[0].length);
    if (rest.startsWith(",")) rest = rest.slice(1);
    else if (!rest.startsWith("}")) throw new Error(`labels end in ${rest}`);
  }
  return { labels, rest: rest.slice(1) };
}

/** Reads a whole exposition. @throws Error naming the line */
export function parseExposition(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  const seen = new Set<string>();
  let current: { name: string; family: Family } | null = null;
  if (text !== "" && !text.endsWith("\n")) throw new Error("the last line does not end");
  const lines = text.split("\n").slice(0, -1);
  for (const [i, line] of lines.entries()) {
    try {
      const comment = /^# (HELP|TYPE) ([^ ]+)(?: (.*))?$/.exec(line);
      if (comment !== null) {
        const [, kind, name, rest = ""] = comment as unknown as [string, string, string, string?];
        if (METRIC.exec(name)?.[0] !== name) throw new Error(`no metric's name: ${name}`);
        if (kind === "HELP") {
          if (families.has(name)) throw new Error(`${name} is in two pieces`);
          current = { name, family: { type: "", help: unescaped(rest, false), samples: [] } };
          families.set(name, current.family);
        } else {
          if (current?.name !== name || current.family.type !== "")
            throw new Error(`a stray TYPE of ${name}`);
          if (!TYPES.has(rest)) throw new Error(`no type: ${rest}`);
          if (current.family.samples.length > 0) throw new Error("TYPE behind samples");
          current.family.type = rest;
        }
        continue;
      }
      const name = METRIC.exec(line)?.[0];
      if (name === undefined) throw new Error("neither a comment nor a sample");
      if (current?.name !== name || current.family.type === "")
        throw new Error(`${name} outside of its family`);
      const { labels, rest } = readLabels(line.slice(name.length));
      const value = rest.startsWith(" ") ? rest.slice(1) : "";
      if (!VALUE.test(value)) throw new Error(`no value: "${rest}"`);
      const key = `${name} ${JSON.stringify(Object.entries(labels).sort())}`;
      if (seen.has(key)) throw new Error("this sample was there already");
      seen.add(key);
      const number = value.endsWith("Inf") ? (value.startsWith("-") ? -Infinity : Infinity) : Number(value);
      if (current.family.type === "counter") {
        if (!(number >= 0)) throw new Error(`a counter of ${value}`);
        if (!name.endsWith("_total")) throw new Error(`a counter whose name does not end in _total`);
      }
      current.family.samples.push({ labels, value: number });
    } catch (error) {
      throw new Error(`line ${i + 1}: ${(error as Error).message}\n${line}`, { cause: error });
    }
  }
  for (const [name, { samples, type }] of families)
    if (samples.length === 0 || type === "")
      throw new Error(`${name} has ${type === "" ? "no type" : "no samples"}`);
  return families;
}
