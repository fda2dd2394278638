import type { Port, PortCounters } from "../net/port.js";
import type { Station, Switch, SwitchCounters } from "../net/switch.js";

/** A port. */
export interface PortSnapshot extends PortCounters {
  /** Its name. */
  name: string;
  /** True while frames for it are dropped because it makes no progress; ports of switches only. */
  stalled: boolean;
}

/** A switch and its ports. */
export interface SwitchSnapshot {
  /** Its name. */
  name: string;
  /** Ports that are open. */
  ports: PortSnapshot[];
  /** Stations that it knows. */
  stations: Station[];
  /** Sums over all ports, closed ones included. */
  counters: SwitchCounters;
}

/** Looks at a port. */
export function inspectPort(port: Port): PortSnapshot {
  const counters = port.counters();
  return { name: port.name, stalled: false, ...counters, drops: { ...counters.drops } };
}

/** Looks at a switch, its ports and the stations that it knows. */
export function inspectSwitch(network: Switch): SwitchSnapshot {
  const counters = network.counters();
  return {
    name: network.name,
    ports: network.ports.map((port) => ({ ...inspectPort(port), stalled: network.isStalled(port) })),
    stations: network.stations(),
    counters: { ...counters, drops: { ...counters.drops } },
  };
}
