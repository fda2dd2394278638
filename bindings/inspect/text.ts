import type { DeviceSnapshot, SessionSnapshot, VbusSnapshot } from "./bus.js";
import type { Inspection } from "./inspection.js";
import type { PortSnapshot, SwitchSnapshot } from "./network.js";
import { ringPicture, type PictureOptions } from "./picture.js";
import type { Plain } from "./plain.js";
import type { QueueSnapshot } from "./queue.js";
import type { VirtioSnapshot } from "./virtio.js";

/** What {@link inspectionText} shows. */
export interface InspectionTextOptions extends PictureOptions {
  /** An earlier inspection of the same host: what rose since then is shown per second. */
  before?: Inspection;
  /** Pictures of all rings, at the end; default false. */
  rings?: boolean;
}

/** A line, and what belongs to it. */
interface Branch {
  line: string;
  below: Branch[];
}

const branch = (line: string, below: Branch[] = []): Branch => ({ line, below });

// eslint-disable-next-line no-control-regex -- control characters are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g;

/** What a terminal would obey must not come out of somebody's attribute. */
const printable = (text: string): string => text.replace(CONTROL, "\ufffd");

function print(branches: readonly Branch[], indent: string, lines: string[]): void {
  for (const [i, { line, below }] of branches.entries()) {
    const last = i === branches.length - 1;
    lines.push(`${indent}${last ? "└── " : "├── "}${printable(line)}`);
    print(below, `${indent}${last ? "    " : "│   "}`, lines);
  }
}

/** 12345678 as `12.3M`. */
function short(n: number): string {
  if (!Number.isFinite(n)) return "?";
  let value = n;
  for (const unit of ["", "k", "M", "G", "T"]) {
    if (Math.abs(value) < 1000)
      return `${Math.abs(value) < 10 && unit !== "" ? value.toFixed(1) : String(Math.round(value))}${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(0)}P`;
}

/** Counts, and what they rose by per second when there is an earlier look. */
class Rates {
  readonly #seconds: number;

  constructor(now: Inspection, before: Inspection | undefined) {
    this.#seconds = before === undefined ? 0 : (now.time - before.time) / 1000;
  }

  show(now: number, before: number | undefined, what: string): string {
    const rate =
      before === undefined || this.#seconds <= 0 || now < before
        ? ""
        : ` (${short((now - before) / this.#seconds)}/s)`;
    return `${short(now)} ${what}${rate}`;
  }
}

const byName = <T extends { name: string }>(all: readonly T[] | undefined, name: string): T | undefined =>
  all?.find((each) => each.name === name);

const sum = (counts: object): number =>
  Object.values(counts).reduce<number>((all, n) => all + (typeof n === "number" ? n : 0), 0);

function isObject(value: Plain | undefined): value is { readonly [key: string]: Plain } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Statistics in their own words, one line for each side; what is 0 is left out. */
function statisticLines(statistics: Plain, before: Plain | undefined, rates: Rates): Branch[] {
  if (!isObject(statistics)) return [];
  const earlier = isObject(before) ? before : {};
  const own: string[] = [];
  const below: Branch[] = [];
  for (const [key, value] of Object.entries(statistics)) {
    const was = earlier[key];
    if (typeof value === "number") {
      if (value !== 0) own.push(rates.show(value, typeof was === "number" ? was : undefined, key));
    } else if (isObject(value)) {
      const inner = statisticLines(value, was, rates);
      const [first, ...rest] = inner;
      if (first !== undefined) below.push(branch(`${key}: ${first.line}`, rest));
    }
  }
  return own.length === 0 ? below : [branch(own.join(", ")), ...below];
}

function queueLine(queue: QueueSnapshot): string {
  const { counters } = queue;
  const state = queue.broken === null ? "" : `  BROKEN: ${queue.broken}`;
  if (queue.kind === "ioq") {
    const { owners, count } = queue;
    const whose = owners === null ? "?" : `${owners.south}/${count} south's`;
    const { pushed, popped, sent, suppressed, masked } = queue.counters;
    return `${queue.name}  ioq ${queue.side}, ${whose}, ${short(pushed + popped)} moved, ${short(sent)} doorbells (${short(suppressed + masked)} saved)${state}`;
  }
  const { inFlight, waiting, size, format, side } = queue;
  const { chains, notified } = queue.counters;
  return `${queue.name}  ${format} ${side}, ${inFlight} in flight, ${waiting ?? "?"} waiting of ${size}, ${short(chains)} chains, ${short(notified)} notifications (${short(counters.suppressed)} saved)${state}`;
}

function sessionBranch(session: SessionSnapshot): Branch {
  const { device, handle, signals, queues, error } = session;
  return branch(
    `${device}/${session.interface}  handle ${handle}, ${signals} signals${error === null ? "" : `  ERROR: ${error}`}`,
    [...queues.map((queue) => branch(queueLine(queue)))],
  );
}

function deviceBranch(device: DeviceSnapshot, before: DeviceSnapshot | undefined, rates: Rates): Branch {
  const attributes = Object.entries(device.attributes)
    .map(([name, value]) => `${name}=${value.length > 40 ? `${value.slice(0, 40)}…` : value}`)
    .join(" ");
  return branch(
    `${device.name}  ${device.className}, ${device.buses.length === 0 ? "on no bus" : `on ${device.buses.join(", ")}`}, ${device.connections} sessions`,
    [
      ...(attributes === "" ? [] : [branch(attributes)]),
      ...statisticLines(device.statistics, before?.statistics, rates),
    ],
  );
}

function vbusBranches(vbus: VbusSnapshot, before: VbusSnapshot | null | undefined, rates: Rates): Branch[] {
  return [
    branch(
      `devices (classes: ${vbus.classes.join(", ") || "none"})`,
      vbus.devices.map((device) => deviceBranch(device, byName(before?.devices, device.name), rates)),
    ),
    ...vbus.buses.map((bus) =>
      branch(
        `${bus.name}  members: ${bus.members.join(", ") || "none"}`,
        bus.clients.map((client) =>
          branch(
            `${client.label}  member ${client.member}, ${client.waitingEvents} events wait`,
            client.sessions.map(sessionBranch),
          ),
        ),
      ),
    ),
  ];
}

function virtioBranch(device: VirtioSnapshot, before: VirtioSnapshot | undefined, rates: Rates): Branch {
  return branch(
    `${device.name}  virtio type ${device.deviceType}, ${device.status.join(" ") || "no driver"}, features ${device.features}`,
    [
      ...device.queues.map((queue) => branch(queueLine(queue))),
      ...statisticLines(device.statistics, before?.statistics, rates),
    ],
  );
}

function portBranch(port: PortSnapshot, before: PortSnapshot | undefined, rates: Rates): Branch {
  const { received, receivedBytes, delivered, deliveredBytes, drops, inFlight, stalled } = port;
  const parts = [
    rates.show(received, before?.received, "in"),
    rates.show(receivedBytes, before?.receivedBytes, "B"),
    rates.show(delivered, before?.delivered, "out"),
    rates.show(deliveredBytes, before?.deliveredBytes, "B"),
    ...(inFlight === 0 ? [] : [`${inFlight} waiting`]),
    ...(sum(drops) === 0
      ? []
      : [
          `dropped: ${Object.entries(drops)
            .map(([reason, n]) => `${reason} ${n}`)
            .join(", ")}`,
        ]),
    ...(stalled ? ["STALLED"] : []),
  ];
  return branch(`${port.name}  ${parts.join(", ")}`);
}

function switchBranch(network: SwitchSnapshot, before: SwitchSnapshot | undefined, rates: Rates): Branch {
  const { counters, stations, ports } = network;
  const line = `${network.name}  switch, ${stations.length} stations, ${short(counters.unicast)} unicast, ${short(counters.flooded)} flooded, ${short(sum(counters.drops))} dropped`;
  return branch(line, [
    ...ports.map((port) => portBranch(port, byName(before?.ports, port.name), rates)),
    ...stations.map(({ mac, port, idleMs }) =>
      branch(`${mac} behind ${port}, ${Math.round(idleMs / 1000)} s ago`),
    ),
  ]);
}

/** Every queue of an inspection, with where it belongs. */
function queuesOf(inspection: Inspection): { place: string; queue: QueueSnapshot }[] {
  const found: { place: string; queue: QueueSnapshot }[] = [];
  for (const bus of inspection.vbus?.buses ?? [])
    for (const client of bus.clients)
      for (const session of client.sessions)
        for (const queue of session.queues) found.push({ place: `${client.label} ${session.device}`, queue });
  for (const bridge of inspection.bridges)
    if (bridge.eventQueue !== null) found.push({ place: `${bridge.name} bridge`, queue: bridge.eventQueue });
  for (const device of inspection.virtio)
    for (const queue of device.queues) found.push({ place: device.name, queue });
  return found;
}

/** An inspection as text for a terminal: the tree of everything, and when wanted a picture of each ring. */
export function inspectionText(inspection: Inspection, options: InspectionTextOptions = {}): string {
  const { before, rings = false } = options;
  const rates = new Rates(inspection, before);
  const branches: Branch[] = [
    ...(inspection.vbus === null ? [] : vbusBranches(inspection.vbus, before?.vbus, rates)),
    ...inspection.bridges.map(({ name, negotiated, registered, counters, eventQueue }) =>
      branch(
        `${name}  bridge, ${negotiated ? "negotiated" : "not negotiated"}, ${registered ? "event queue" : "no event queue"}, ${short(counters.calls + counters.fastcalls)} calls, ${short(counters.events)} events, ${short(counters.interrupts)} interrupts`,
        eventQueue === null ? [] : [branch(queueLine(eventQueue))],
      ),
    ),
    ...inspection.virtio.map((device) => virtioBranch(device, byName(before?.virtio, device.name), rates)),
    ...inspection.switches.map((network) =>
      switchBranch(network, byName(before?.switches, network.name), rates),
    ),
    ...inspection.ports.map((port) => portBranch(port, byName(before?.ports, port.name), rates)),
  ];
  const lines = ["vbus"];
  print(branches, "", lines);
  if (rings)
    for (const { place, queue } of queuesOf(inspection))
      lines.push("", ...`${place} ${ringPicture(queue, options)}`.split("\n").map(printable));
  return lines.join("\n");
}
