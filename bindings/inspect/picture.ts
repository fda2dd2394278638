import type { IoqSnapshot } from "./ioq.js";
import type { QueueSnapshot } from "./queue.js";
import type { NotificationBytes, SignalBytes } from "./signal.js";
import type { VirtqueueSnapshot } from "./virtqueue.js";

/** How a ring is drawn. */
export interface PictureOptions {
  /** Characters of a row, at least 8; default 64. */
  width?: number;
  /** Most rows; a larger ring is drawn with several descriptors in one character. Default 8. */
  rows?: number;
}

/** An index end or position, and the letter that stands for it. */
interface Mark {
  letter: string;
  name: string;
  at: number;
}

/** Several descriptors in one character, which differ. */
const MIXED = "+";

/**
 * A ring as text, from its snapshot: which descriptors are whose, and where the index ends are.
 *
 * ```
 * rx  ioq, south, 256 descriptors
 *        0 NNNNNNNNNNNNNNNNSSSSSSSSSSSSSSSS…
 *          I               i
 *     I inuse.head 0   i inuse.tail 16 (this side moves it)
 * ```
 *
 * A snapshot may come from another process, and shows what a hostile guest wrote: whatever the numbers are, this returns.
 */
export function ringPicture(queue: QueueSnapshot, options: PictureOptions = {}): string {
  const width = Math.max(8, Math.floor(options.width ?? 64));
  const rows = Math.max(1, Math.floor(options.rows ?? 8));
  return queue.kind === "ioq" ? ioqPicture(queue, width, rows) : virtqueuePicture(queue, width, rows);
}

function ioqPicture(queue: IoqSnapshot, width: number, rows: number): string {
  const { name, side, count, layout, extensions, broken, owners, valid, shared, indexes, signal } = queue;
  const marks: Mark[] = [];
  const legend: string[] = [];
  for (const [index, letters] of [
    ["valid", "Vv"],
    ["inuse", "Ii"],
  ] as const) {
    for (const [end, letter] of [
      ["head", letters[0]],
      ["tail", letters[1]],
    ] as const) {
      const own = indexes[index][end];
      const at = own ?? shared?.[index][end];
      if (at === undefined) continue;
      marks.push({ letter: letter as string, name: `${index}.${end}`, at });
      const says =
        own === null || shared === null || shared[index][end] === own
          ? ""
          : ` (shared: ${shared[index][end]})`;
      legend.push(`${letter} ${index}.${end} ${at}${own === null ? "" : " ours"}${says}`);
    }
  }
  return [
    [name, "ioq", side, `${count} descriptors`, layout, ...extensions].join("  "),
    ...(broken === null ? [] : [`    BROKEN: ${broken}`]),
    ...ring(queue.map, count, marks, width, rows),
    `    ${legend.join("   ")}`,
    `    ${
      owners === null
        ? "the segment is not in the guest's memory, or too large to be drawn"
        : `n/s whose descriptor: north ${owners.north}, south ${owners.south}${owners.other === 0 ? "" : `, NEITHER ${owners.other}`}${valid === null || valid === 0 ? "" : `; capitals: marked valid (${valid})`}`
    }`,
    ...(signal === null ? [] : [`    ${signalLine(signal)}`]),
  ].join("\n");
}

function virtqueuePicture(queue: VirtqueueSnapshot, width: number, rows: number): string {
  const { name, side, format, size, features, broken, positions, inFlight, waiting, rings, events } = queue;
  const split = format === "split";
  const at = (position: number): number => (split ? position % size : position);
  const marks: Mark[] = [
    { letter: "U", name: "used", at: at(positions.used) },
    { letter: "A", name: "available", at: at(positions.available) },
  ];
  const place = (position: number, wrap: number): string =>
    split ? String(position) : `${position}/${wrap}`;
  return [
    [name, format, side, `${size} descriptors`, ...features].join("  "),
    ...(broken === null ? [] : [`    BROKEN: ${broken}`]),
    ...ring(queue.map, size, marks, width, rows),
    `    A available ${place(positions.available, positions.availableWrap)}   U used ${place(positions.used, positions.usedWrap)}   in flight ${inFlight}   waiting ${waiting ?? "?"}`,
    `    . the driver's   a available   t taken   u used, not reaped`,
    ...(rings === null
      ? []
      : [
          `    rings: available ${rings.availableIndex} (flags ${rings.availableFlags}, used event ${rings.usedEvent}), used ${rings.usedIndex} (flags ${rings.usedFlags}, available event ${rings.availableEvent})`,
        ]),
    ...(events === null
      ? []
      : [
          `    events: driver ${events.driver.position}/${events.driver.wrap} flags ${events.driver.flags}, device ${events.device.position}/${events.device.wrap} flags ${events.device.flags}`,
        ]),
    ...(queue.signal?.bytes === null || queue.signal?.bytes === undefined
      ? []
      : [`    ${signalLine(queue.signal.bytes)}`]),
  ].join("\n");
}

function signalLine({ north, south }: SignalBytes): string {
  const side = ({ enabled, pending, dirty }: NotificationBytes): string =>
    [
      enabled === 0 ? "masked" : "enabled",
      ...(pending === 0 ? [] : ["pending"]),
      ...(dirty === 0 ? [] : ["dirty"]),
    ].join(" ");
  return `signal: to north ${side(north)}; to south ${side(south)}`;
}

/** Rows of the map, each with a row of marks below it when one is there. */
function ring(
  map: string | null,
  count: number,
  marks: readonly Mark[],
  width: number,
  rows: number,
): string[] {
  if (map === null) return ["    (not drawn)"];
  const each = Math.max(1, Math.ceil(map.length / (width * rows)));
  const lines: string[] = [];
  for (let from = 0; from < map.length; from += width * each) {
    let row = "";
    let below = "";
    for (let at = from; at < Math.min(map.length, from + width * each); at += each) {
      const piece = map.slice(at, at + each);
      const first = piece.charAt(0);
      row += piece === first.repeat(piece.length) ? first : MIXED;
      const here = marks.filter((mark) => mark.at >= at && mark.at < at + each);
      below += here.length === 0 ? " " : here.length === 1 ? (here[0] as Mark).letter : "*";
    }
    lines.push(`${String(from).padStart(6)} ${row}`);
    if (below.trim() !== "") lines.push(`       ${below.trimEnd()}`);
  }
  if (each > 1) lines.push(`    (${each} descriptors in a character; ${MIXED}: they differ)`);
  const outside = marks.filter((mark) => !(mark.at >= 0 && mark.at < count));
  if (outside.length > 0)
    lines.push(`    OUTSIDE THE RING: ${outside.map((mark) => `${mark.name} ${mark.at}`).join(", ")}`);
  return lines;
}
