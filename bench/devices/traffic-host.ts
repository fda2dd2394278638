/** The host of the traffic figures: a switch, and for each guest a bus with one NIC. Runs as a worker. */
import { Vbus } from "vbus/bus";
import { attachWorkerGuest, type WorkerHostConnector } from "vbus/connectors/worker";
import { venetClass, type VenetStatistics } from "vbus/devices/venet";
import type { QueueCounters } from "vbus/engine";
import { MemorySpace, type GuestMemoryInit } from "vbus/memory";
import { Switch, type FrameBalance, type OffloadCounters } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { serveCommands } from "../harness/thread.js";

/** What `addGuest` takes. */
export interface TrafficGuestOrder {
  name: string;
  /** Last byte of the NIC's address. */
  station: number;
  init: GuestMemoryInit;
}

/** What `report` answers. */
export interface TrafficHostReport {
  balance: FrameBalance;
  /** What the switch did to frames that needed something. */
  offload: OffloadCounters;
  /** By name of the guest. */
  nics: Record<
    string,
    { statistics: VenetStatistics; queues: { rx: QueueCounters | null; tx: QueueCounters | null } | null }
  >;
  errors: string[];
}

/** With fewer cores than threads a guest that is alive may not get to run for a while. */
const STALL_MS = 5000;

const errors: string[] = [];
const scheduler = new EventLoopScheduler((error) => errors.push(String(error)));
const memory = await MemorySpace.host();
const network = new Switch({ scheduler, space: memory, stallMs: STALL_MS });
const vbus = new Vbus({ scheduler });
vbus.on("error", (event) => errors.push(event.message));
vbus.registerClass(venetClass({ port: (name) => network.addPort(name) }));
const connectors: WorkerHostConnector[] = [];

serveCommands({
  async addGuest({ name, station, init }: TrafficGuestOrder) {
    const bus = vbus.createBus(`bus${name}`);
    const mac = `02:00:00:00:00:${station.toString(16).padStart(2, "0")}`;
    bus.connect(vbus.createDevice(name, "venet", { client_mac: mac, enabled: "1" }));
    bus.admit(name);
    connectors.push(await attachWorkerGuest({ bus, member: name, init, scheduler }));
  },

  /** For NICs that nobody has open. */
  configure({ mtu, coalesce }: { mtu: number; coalesce: boolean }) {
    for (const { name } of vbus.devices) {
      vbus.write(`devices/${name}/mtu`, String(mtu));
      vbus.write(`devices/${name}/coalesce`, coalesce ? "1" : "0");
    }
  },

  report(): TrafficHostReport {
    const nics: TrafficHostReport["nics"] = {};
    for (const { name } of vbus.devices) {
      const read = (attribute: string): unknown => JSON.parse(vbus.read(`devices/${name}/${attribute}`));
      nics[name] = { statistics: read("statistics"), queues: read("queues") } as (typeof nics)[string];
    }
    return { balance: network.balance(), offload: network.counters(), nics, errors };
  },

  /** Ends everything. Returns what went wrong meanwhile. */
  finish() {
    for (const connector of connectors) connector.close(new Error("the run is over"));
    vbus.close();
    return errors;
  },
});
