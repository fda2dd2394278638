import type { BridgeSnapshot } from "./bridge.js";
import type { VbusSnapshot } from "./bus.js";
import { addDeviceStatistics } from "./device-metrics.js";
import { Exposition, metricName, type Labels } from "./exposition.js";
import type { Inspection } from "./inspection.js";
import type { PortSnapshot, SwitchSnapshot } from "./network.js";
import type { QueueSnapshot } from "./queue.js";
import type { VirtioSnapshot } from "./virtio.js";

export { EXPOSITION_TYPE } from "./exposition.js";

/** What the counters of a queue's signal and ring mean. */
const QUEUE_COUNTERS: Readonly<Record<string, string>> = {
  sent: "Publications that rang the peer.",
  suppressed: "Publications that needed no ring: the peer was told already, or did not want to be.",
  masked: "Publications that found the peer masked.",
  wakeups: "Wakeups begun here.",
  spurious: "Wakeups that found nothing to do.",
  deferred: "Times that unmasking found something there already.",
  notified: "Runs of the notifier (ioq), publications that notified the peer (virtqueue).",
  exhausted: "Wakeups whose budget was spent.",
  pushed: "Descriptors pushed by this side.",
  popped: "Descriptors popped by this side.",
  bytes: "Bytes written to descriptors by this side.",
  chains: "Chains completed.",
};

const BRIDGE_COUNTERS: Readonly<Record<string, string>> = {
  calls: "Bridge calls, failed ones included.",
  fastcalls: "Bus calls through fastcall channels.",
  resets: "Resets, by the guest or its carrier.",
  events: "Event records written.",
  discarded: "Events that nobody could get.",
  backlogs: "Times the guest left no room for events.",
  interrupts: "Interrupts raised.",
  eventqDoorbells: "Doorbells of the event queue.",
  signalDoorbells: "Doorbells of signals.",
  strayDoorbells: "Doorbells of signal handles that nobody has.",
};

const VIRTIO_COUNTERS: Readonly<Record<string, string>> = {
  starts: "Times a driver reached DRIVER_OK with everything in order.",
  resets: "Resets, by a driver or by the machine.",
  refusals: "Times FEATURES_OK did not stick.",
  kicks: "Kicks that reached the device.",
  strayKicks: "Kicks that led nowhere.",
  badQueues: "Queues that were enabled with an impossible size or outside of memory.",
  queueResets: "Queues that were reset one by one.",
  ignoredWrites: "Writes that came too late or too early, or make no sense.",
  needsReset: "Times the device asked for a reset.",
  failures: "Times a driver gave the device up.",
  queueInterrupts: "Used-buffer notifications asked for.",
  configInterrupts: "Configuration change notifications asked for.",
};

/** Bits of a virtio device's status that are shown, set or not. */
const VIRTIO_STATUS = ["acknowledge", "driver", "features-ok", "driver-ok", "needs-reset", "failed"] as const;

const SWITCH_COUNTERS: Readonly<Record<string, string>> = {
  received: "Frames taken from ports.",
  receivedBytes: "Bytes of the frames taken from ports.",
  delivered: "Frames handed to ports.",
  deliveredBytes: "Bytes of the frames handed to ports.",
  replicated: "Copies made by flooding and by cutting superframes.",
  copiedBytes: "Bytes copied so that frames could wait.",
  unicast: "Frames that went to the one port their station is behind.",
  flooded: "Frames that went to all ports.",
  learned: "Stations learned.",
  moved: "Stations that moved to another port.",
  tableFull: "Frames whose source was not learned because the table was full.",
  superframes_passed: "Superframes handed on untouched.",
  segmented: "Superframes cut in software.",
  segments: "Frames that came out of superframes.",
  checksummed: "Frames whose checksum was completed in software.",
};

const PORT_COUNTERS: Readonly<Record<string, string>> = {
  received: "Frames taken from the port's peer.",
  receivedBytes: "Bytes of those.",
  delivered: "Frames handed to the port's peer.",
  deliveredBytes: "Bytes of those.",
};

/** Adds those members of an object that the table knows. */
function addCounters(
  to: Exposition,
  prefix: string,
  table: Readonly<Record<string, string>>,
  counters: object,
  labels: Labels,
): void {
  for (const [key, value] of Object.entries(counters)) {
    const help = Object.hasOwn(table, key) ? table[key] : undefined;
    if (help !== undefined && typeof value === "number")
      to.add(`${prefix}_${metricName(key)}_total`, "counter", help, labels, value);
  }
}

function addDrops(to: Exposition, prefix: string, drops: object, labels: Labels): void {
  for (const [reason, n] of Object.entries(drops))
    if (typeof n === "number")
      to.add(`${prefix}_drops_total`, "counter", "Frames dropped, by reason.", { ...labels, reason }, n);
}

/**
 * An inspection as text for Prometheus (text format 0.0.4; send it as {@link EXPOSITION_TYPE}): counters end in `_total`, what
 * goes up and down is a gauge. Names are `vbus_…`; devices, clients, queues, switches and ports are labels.
 *
 * ```ts
 * http.createServer((_request, response) => {
 *   response.setHeader("content-type", EXPOSITION_TYPE).end(prometheusText(inspect({ vbus }, { maps: false })));
 * });
 * ```
 */
export function prometheusText(inspection: Inspection): string {
  const to = new Exposition();
  if (inspection.vbus !== null) addVbus(to, inspection.vbus);
  for (const bridge of inspection.bridges) addBridge(to, bridge);
  for (const device of inspection.virtio) addVirtio(to, device);
  for (const network of inspection.switches) addSwitch(to, network);
  for (const port of inspection.ports) addPort(to, port, {});
  return to.toString();
}

function addVbus(to: Exposition, vbus: VbusSnapshot): void {
  for (const device of vbus.devices) {
    const labels = { device: device.name };
    to.add("vbus_device_info", "gauge", "A device; always 1.", { ...labels, class: device.className }, 1);
    to.add("vbus_device_sessions", "gauge", "Sessions that use the device.", labels, device.connections);
    addDeviceStatistics(to, device.statistics, labels);
  }
  for (const bus of vbus.buses) {
    to.add(
      "vbus_bus_clients",
      "gauge",
      "Clients attached to the bus.",
      { bus: bus.name },
      bus.clients.length,
    );
    to.add(
      "vbus_bus_devices",
      "gauge",
      "Devices connected to the bus.",
      { bus: bus.name },
      bus.devices.length,
    );
    for (const client of bus.clients) {
      const labels = { bus: bus.name, client: client.label };
      to.add(
        "vbus_client_waiting_events",
        "gauge",
        "Events that the client has not taken.",
        labels,
        client.waitingEvents,
      );
      for (const session of client.sessions) {
        const own = { ...labels, device: session.device };
        for (const queue of session.queues) addQueue(to, queue, own);
      }
    }
  }
}

function addQueue(to: Exposition, queue: QueueSnapshot, place: Labels): void {
  const labels = { ...place, queue: queue.name };
  const add = (name: string, help: string, value: number, more: Labels = {}): void => {
    to.add(`vbus_queue_${name}`, "gauge", help, { ...labels, ...more }, value);
  };
  const size = queue.kind === "ioq" ? queue.count : queue.size;
  add("descriptors", "Descriptors of the queue.", size, {
    kind: queue.kind === "ioq" ? "ioq" : queue.format,
  });
  add("broken", "1: its guest broke the protocol, and it is dead.", queue.broken === null ? 0 : 1);
  if (queue.kind === "ioq") {
    if (queue.owners !== null)
      for (const [owner, n] of Object.entries(queue.owners))
        add("owned_descriptors", "Descriptors by owner.", n, { owner });
    if (queue.valid !== null) add("valid_descriptors", "Descriptors in service.", queue.valid);
  } else {
    add("chains_in_flight", "Chains taken and not completed.", queue.inFlight);
    if (queue.waiting !== null) add("chains_waiting", "Chains made available and not taken.", queue.waiting);
  }
  addCounters(to, "vbus_queue", QUEUE_COUNTERS, queue.counters, labels);
  for (const [reason, n] of Object.entries(queue.counters.violations))
    to.add(
      "vbus_queue_violations_total",
      "counter",
      "Breaches of the protocol, by kind.",
      { ...labels, reason },
      n,
    );
}

function addBridge(to: Exposition, bridge: BridgeSnapshot): void {
  const labels = { bridge: bridge.name };
  const state = (name: string, help: string, on: boolean): void => {
    to.add(`vbus_bridge_${name}`, "gauge", help, labels, on ? 1 : 0);
  };
  state("negotiated", "1: the guest has negotiated.", bridge.negotiated);
  state("registered", "1: the guest has registered an event queue.", bridge.registered);
  addCounters(to, "vbus_bridge", BRIDGE_COUNTERS, bridge.counters, labels);
  if (bridge.eventQueue !== null) addQueue(to, bridge.eventQueue, labels);
}

function addVirtio(to: Exposition, device: VirtioSnapshot): void {
  const labels = { device: device.name };
  for (const bit of VIRTIO_STATUS)
    to.add(
      "vbus_virtio_status",
      "gauge",
      "Bits of the device status, 1 when set.",
      { ...labels, bit },
      device.status.includes(bit) ? 1 : 0,
    );
  addCounters(to, "vbus_virtio", VIRTIO_COUNTERS, device.counters, labels);
  addDeviceStatistics(to, device.statistics, labels);
  for (const queue of device.queues) addQueue(to, queue, labels);
}

function addSwitch(to: Exposition, network: SwitchSnapshot): void {
  const labels = { switch: network.name };
  to.add("vbus_switch_stations", "gauge", "Stations that the switch knows.", labels, network.stations.length);
  to.add("vbus_switch_in_flight", "gauge", "Frames that wait for ports.", labels, network.counters.inFlight);
  addCounters(to, "vbus_switch", SWITCH_COUNTERS, network.counters, labels);
  addDrops(to, "vbus_switch", network.counters.drops, labels);
  for (const port of network.ports) addPort(to, port, labels);
}

function addPort(to: Exposition, port: PortSnapshot, place: Labels): void {
  const labels = { ...place, port: port.name };
  to.add("vbus_port_in_flight", "gauge", "Frames held by the port.", labels, port.inFlight);
  to.add("vbus_port_stalled", "gauge", "1: frames for the port are dropped.", labels, port.stalled ? 1 : 0);
  addCounters(to, "vbus_port", PORT_COUNTERS, port, labels);
  addDrops(to, "vbus_port", port.drops, labels);
}
