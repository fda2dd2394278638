import type { Bus, Client, InterfacePlace, ManagedDevice, SessionView, Vbus } from "../bus/index.js";
import { VbusError } from "../errors.js";
import { plain, type Plain } from "./plain.js";
import { inspectQueue, type InspectOptions, type QueueSnapshot } from "./queue.js";

/** A device of the tree. */
export interface DeviceSnapshot {
  /** Its name. */
  name: string;
  /** Name of its class. */
  className: string;
  /** Buses that it is connected to. */
  buses: string[];
  /** Interfaces that it publishes. */
  interfaces: InterfacePlace[];
  /** Sessions that use it. */
  connections: number;
  /** Attributes that can be read, as text; what could not be read is `<code>`. Those that repeat what is elsewhere here are left out. */
  attributes: Record<string, string>;
  /** What the device counted, in its own words; null when it does not say. */
  statistics: Plain;
}

/** A session of a client with a device. */
export interface SessionSnapshot {
  /** The number that the guest uses. */
  handle: number;
  /** Name of the device. */
  device: string;
  /** Name of the interface within the device. */
  interface: string;
  /** Signals that were not released. */
  signals: number;
  /** Its queues. */
  queues: QueueSnapshot[];
  /** What went wrong when they were looked at, or null. */
  error: string | null;
}

/** A client of a bus: one guest. */
export interface ClientSnapshot {
  /** Name for messages. */
  label: string;
  /** The member it belongs to. */
  member: string;
  /** Events that it has not taken. */
  waitingEvents: number;
  /** Sessions, in the order in which they were opened. */
  sessions: SessionSnapshot[];
}

/** A bus. */
export interface BusSnapshot {
  /** Its name. */
  name: string;
  /** Members admitted. */
  members: string[];
  /** Names of the devices connected to it. */
  devices: string[];
  /** Clients attached. */
  clients: ClientSnapshot[];
}

/** All of a `Vbus`. */
export interface VbusSnapshot {
  /** Names of the classes. */
  classes: string[];
  /** Devices, in order of creation. */
  devices: DeviceSnapshot[];
  /** Buses, in order of creation. */
  buses: BusSnapshot[];
}

/** Attributes that say what statistics and queues say here. */
const REPEATED = new Set(["statistics", "queues", "virtio_queues"]);

/**
 * Looks at everything on a `Vbus`: classes, devices with their attributes and counters, buses, clients, sessions, and the
 * state of every queue. Plain data, yours; nothing is changed. A device that fails shows its error and hides nothing else.
 */
export function inspectBus(vbus: Vbus, options: InspectOptions = {}): VbusSnapshot {
  return {
    classes: [...vbus.classes],
    devices: vbus.devices.map(deviceSnapshot),
    buses: vbus.buses.map((bus) => busSnapshot(bus, options)),
  };
}

function deviceSnapshot(device: ManagedDevice): DeviceSnapshot {
  const { implementation } = device;
  const attributes: Record<string, string> = {};
  for (const [name, attribute] of implementation.attributes) {
    if (attribute.get !== undefined && !REPEATED.has(name)) attributes[name] = attributeText(device, name);
  }
  return {
    name: device.name,
    className: device.className,
    buses: [...device.buses],
    interfaces: [...device.interfaces],
    connections: device.connections,
    attributes,
    statistics: guarded(() => plain(implementation.statistics ?? null), null),
  };
}

function attributeText(device: ManagedDevice, attribute: string): string {
  try {
    return device.get(attribute);
  } catch (error) {
    return `<${error instanceof VbusError ? error.code : "EIO"}>`;
  }
}

function busSnapshot(bus: Bus, options: InspectOptions): BusSnapshot {
  return {
    name: bus.name,
    members: [...bus.members],
    devices: bus.devices.map((device) => device.name),
    clients: bus.clients.map((client) => clientSnapshot(client, options)),
  };
}

function clientSnapshot(client: Client, options: InspectOptions): ClientSnapshot {
  return {
    label: client.label,
    member: client.member,
    waitingEvents: client.waiting,
    sessions: client.sessions.map((session) => sessionSnapshot(session, options)),
  };
}

function sessionSnapshot(session: SessionView, options: InspectOptions): SessionSnapshot {
  const { handle, device, signals } = session;
  const queues: QueueSnapshot[] = [];
  let error: string | null = null;
  try {
    for (const shown of session.queues()) {
      const queue = inspectQueue(shown, options);
      if (queue !== null) queues.push(queue);
    }
  } catch (thrown) {
    error = thrown instanceof Error ? thrown.message : String(thrown);
  }
  return { handle, device, interface: session.interface, signals, queues, error };
}

function guarded<T>(look: () => T, otherwise: T): T {
  try {
    return look();
  } catch {
    return otherwise; // device classes are anybody's: one that fails shows nothing
  }
}
