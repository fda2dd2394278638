import type { DirectionResult, JobResult } from "./job.js";

/** A table with right-aligned columns (the first one left-aligned). */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const whole = (n: number): string => Math.round(n).toLocaleString("en-US");
const fixed = (n: number, digits: number): string => (Number.isNaN(n) ? "-" : n.toFixed(digits));

/** The table of a run: a header, then one row per direction and phase. */
export function directionRows(result: JobResult): string[][] {
  const latency = (d: DirectionResult): [string, string] => {
    const found = result.latency.find((l) => l.from === d.from && l.to === d.to);
    return found === undefined ? ["-", "-"] : [fixed(found.p50, 0), fixed(found.p99, 0)];
  };
  return [
    [
      "phase",
      "direction",
      "unicast",
      "flooded",
      "bytes",
      "frames/s",
      "Gbit/s",
      "signals/1000",
      "suppressed/1000",
      "p50 us",
      "p99 us",
    ],
    ...result.directions.map((d) => [
      d.phase,
      `${d.from} to ${d.to}`,
      whole(d.unicast),
      whole(d.flooded),
      whole(d.bytes),
      whole(d.framesPerSecond),
      fixed(d.gigabitsPerSecond, 2),
      fixed(d.signalsPerThousand, 1),
      fixed(d.suppressedPerThousand, 1),
      ...latency(d),
    ]),
  ];
}

/** What the columns p50 and p99 mean. */
export const LATENCY_NOTE = "p50 and p99: round trip of one outstanding frame, from and back to the sender";

/** What a run proved, line by line. */
export function conclusions(result: JobResult): string[] {
  const lines: string[] = [];
  for (const d of result.directions) {
    const { matched, missing, missingFlooded, unexpected } = d.received;
    lines.push(
      `${d.phase}, ${d.from} to ${d.to}: ${whole(matched)} of ${whole(d.frames)} frames arrived byte for byte and in order` +
        (missing + unexpected > 0
          ? `, ${whole(missing)} missing, ${whole(unexpected)} damaged, doubled or out of order`
          : "") +
        (missingFlooded > 0
          ? ` (${whole(missingFlooded)} of the missing ones were flooded: no port waits with those)`
          : ""),
    );
  }
  const { equation } = result;
  const drops = Object.entries(equation.drops);
  lines.push(
    "",
    `frame equation: ${whole(equation.sent)} sent + ${whole(equation.replicated)} replicated = ${whole(equation.delivered)} delivered + ` +
      `${whole(drops.reduce((sum, [, n]) => sum + n, 0))} dropped + ${whole(equation.inFlight)} in flight: ` +
      (equation.balanced ? "holds" : "DOES NOT HOLD"),
  );
  for (const [what, n] of drops) lines.push(`  dropped ${whole(n)}: ${what}`);
  for (const l of result.latency)
    if (l.lost > 0)
      lines.push(`latency run ${l.from} to ${l.to}: ${l.lost} of ${l.rounds} frames without an answer`);
  const { superframes, disk } = result;
  if (superframes !== null) {
    const ratio = superframes.gigabitsPerSecond / superframes.mtuGigabitsPerSecond;
    lines.push(
      "",
      `superframes, A to B: ${whole(superframes.received.matched)} of ${whole(superframes.frames)} frames arrived as they were sent, ` +
        `${whole(superframes.superframes)} of them superframes; the switch passed ${whole(superframes.passed)} untouched and cut ${whole(superframes.segmented)}`,
      `  ${fixed(superframes.gigabitsPerSecond, 2)} Gbit/s, ${fixed(ratio, 1)} times the speed of the same traffic as MTU frames`,
    );
  }
  lines.push(
    `block device: ${whole(disk.bytes)} bytes written by A (${fixed(disk.writeMs, 1)} ms), read by B (${fixed(disk.readMs, 1)} ms), ` +
      `SHA-256 ${disk.verified ? `${disk.digest.slice(0, 16)}… verified` : "DIFFERS"}`,
  );
  if (result.capture !== null) {
    lines.push(
      `capture of what crossed the switch: ${result.capture.path ?? "in memory"}, ${whole(result.capture.size)} bytes`,
    );
  }
  for (const complaint of result.complaints) lines.push(`PROBLEM: ${complaint}`);
  return lines;
}

/** What a run found, for people. */
export function formatReport(result: JobResult): string {
  return [
    table(directionRows(result)),
    LATENCY_NOTE,
    "",
    ...conclusions(result),
    result.ok ? "ok" : "FAILED",
  ].join("\n");
}
