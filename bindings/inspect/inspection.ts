import type { Vbus } from "../bus/index.js";
import type { BridgeHost } from "../connectors/bridge/host.js";
import type { Port } from "../net/port.js";
import type { Switch } from "../net/switch.js";
import type { VirtioDevice } from "../virtio/device.js";
import { inspectBridge, type BridgeSnapshot } from "./bridge.js";
import { inspectBus, type VbusSnapshot } from "./bus.js";
import { inspectPort, inspectSwitch, type PortSnapshot, type SwitchSnapshot } from "./network.js";
import type { InspectOptions } from "./queue.js";
import { inspectVirtio, type VirtioSnapshot } from "./virtio.js";

/** Version of {@link Inspection}; grows when a member changes its meaning or goes. */
export const INSPECTION_VERSION = 1;

/** What there is to look at in one host. */
export interface InspectSources {
  /** The bus. */
  vbus?: Vbus;
  /** Bridges by the names of their guests. */
  bridges?: Readonly<Record<string, BridgeHost>>;
  /** Virtio devices on transports of their own. Those on the bus are found there. */
  virtio?: readonly VirtioDevice[];
  /** Switches. */
  switches?: readonly Switch[];
  /** Ports that belong to no switch, such as captures and links. */
  ports?: readonly Port[];
}

/** Everything at one moment, as plain data: what JSON says of it is all of it. */
export interface Inspection {
  /** What this is. */
  format: "vbus-inspection";
  /** {@link INSPECTION_VERSION}. */
  version: number;
  /** When it was made, in milliseconds since 1970. */
  time: number;
  /** The bus; null when none was given. */
  vbus: VbusSnapshot | null;
  /** Bridges. */
  bridges: BridgeSnapshot[];
  /** Virtio devices beside the bus. */
  virtio: VirtioSnapshot[];
  /** Switches. */
  switches: SwitchSnapshot[];
  /** Other ports. */
  ports: PortSnapshot[];
}

/**
 * Looks at everything that it is given, on the thread that owns it. Costs a copy of each ring's segment; at ten times a
 * second nobody notices.
 */
export function inspect(sources: InspectSources, options: InspectOptions = {}): Inspection {
  const { vbus, bridges = {}, virtio = [], switches = [], ports = [] } = sources;
  return {
    format: "vbus-inspection",
    version: INSPECTION_VERSION,
    time: Date.now(),
    vbus: vbus === undefined ? null : inspectBus(vbus, options),
    bridges: Object.entries(bridges).map(([name, bridge]) => inspectBridge(bridge, name, options)),
    virtio: virtio.map((device) => inspectVirtio(device, options)),
    switches: switches.map(inspectSwitch),
    ports: ports.map(inspectPort),
  };
}
