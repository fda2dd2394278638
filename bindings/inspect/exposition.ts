/** Kinds of metrics. `untyped`: nobody said whether it only rises. */
export type MetricType = "counter" | "gauge" | "untyped";

/** Labels of a sample by name; names are `[a-zA-Z_][a-zA-Z0-9_]*`, values any text. */
export type Labels = Readonly<Record<string, string>>;

interface Family {
  readonly type: MetricType;
  readonly help: string;
  /** Lines without their values, by what they begin with. */
  readonly samples: Map<string, number>;
}

/** Media type of text for Prometheus. */
export const EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** A label that tells samples apart which would be one otherwise. */
const REPEATED_LABEL = "repeated";

const escapeHelp = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
const escapeLabel = (text: string): string => escapeHelp(text).replaceAll('"', '\\"');

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function valueText(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  return String(value);
}

/**
 * Prometheus' text format, version 0.0.4: families with HELP and TYPE, each in one piece, no sample twice. The first to
 * name a family says what it is.
 */
export class Exposition {
  readonly #families = new Map<string, Family>();

  /** Adds a sample. A second one with the same labels gets one more, so that neither is lost. */
  add(name: string, type: MetricType, help: string, labels: Labels, value: number): void {
    let family = this.#families.get(name);
    if (family === undefined) {
      family = { type, help, samples: new Map() };
      this.#families.set(name, family);
    }
    let key = labelText(labels);
    for (let n = 2; family.samples.has(key); n++) key = labelText({ ...labels, [REPEATED_LABEL]: String(n) });
    family.samples.set(key, value);
  }

  /** The text. */
  toString(): string {
    let text = "";
    for (const [name, { type, help, samples }] of this.#families) {
      text += `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n`;
      for (const [labels, value] of samples) text += `${name}${labels} ${valueText(value)}\n`;
    }
    return text;
  }
}

/** `rxCongested` as `rx_congested`; what a metric's name cannot have becomes `_`. */
export function metricName(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .toLowerCase()
    .replace(/[^a-z0-9_]/g, "_");
}
