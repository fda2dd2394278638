/** The host of the traffic figures: a switch, and for each guest a bus with one NIC. Runs as a worker. */
import { Vbus } from "vbus/bus";
import { attachWorkerGuest, type WorkerHostConnector } from "vbus/connectors/worker";
import { venetClass, type VenetStatistics } from "vbus/devices/venet";
import { virtioNet, type VirtioNet } from "vbus/devices/virtio-net";
import { virtioClass, type VirtioVbusQueueReport } from "vbus/devices/virtio-vbus";
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
  /** Bytes that the host copied, into guests' buffers and so that frames could wait. */
  copied: number;
  /** By name of the guest, for the card that is open. */
  nics: Record<string, { coalesced: number; interrupts: { rx: number; tx: number } }>;
  errors: string[];
}

/** With fewer cores than threads a guest that is alive may not get to run for a while. */
const STALL_MS = 5000;

const [RX_QUEUE, TX_QUEUE] = [0, 1] as const;

const errors: string[] = [];
const scheduler = new EventLoopScheduler((error) => errors.push(String(error)));
const memory = await MemorySpace.host();
const network = new Switch({ scheduler, space: memory, stallMs: STALL_MS });
const vbus = new Vbus({ scheduler });
vbus.on("error", (event) => errors.push(event.message));
vbus.registerClass(venetClass({ port: (name) => network.addPort(name) }));
const connectors: WorkerHostConnector[] = [];
const macs = new Map<string, string>();
const virtios = new Map<string, VirtioNet>();
vbus.registerClass(
  virtioClass({
    name: "virtio-net",
    create: ({ name }) => {
      const mac = macs.get(name);
      const face = virtioNet({ name, port: network.addPort(name), ...(mac === undefined ? {} : { mac }) });
      virtios.set(name, face);
      return {
        face,
        release: () => {
          face.close();
        },
      };
    },
  }),
);
/** Devices of a guest: a card of each kind, of which it opens one. */
const guests = new Map<string, { venet: string; virtio: string }>();

serveCommands({
  async addGuest({ name, station, init }: TrafficGuestOrder) {
    const bus = vbus.createBus(`bus${name}`);
    const mac = `02:00:00:00:00:${station.toString(16).padStart(2, "0")}`;
    bus.connect(vbus.createDevice(name, "venet", { client_mac: mac, enabled: "1" }));
    const virtio = `${name}-virtio`;
    macs.set(virtio, mac);
    bus.connect(vbus.createDevice(virtio, "virtio-net"));
    guests.set(name, { venet: name, virtio });
    bus.admit(name);
    connectors.push(await attachWorkerGuest({ bus, member: name, init, scheduler }));
  },

  /** For NICs that nobody has open. */
  configure({ mtu, coalesce }: { mtu: number; coalesce: boolean }) {
    for (const { venet, virtio } of guests.values()) {
      vbus.write(`devices/${venet}/mtu`, String(mtu));
      vbus.write(`devices/${venet}/coalesce`, coalesce ? "1" : "0");
      const card = virtios.get(virtio);
      if (card === undefined) throw new Error(`${virtio} was not made`);
      card.coalesce = coalesce;
      card.mtu = mtu;
    }
  },

  report(): TrafficHostReport {
    const nics: TrafficHostReport["nics"] = {};
    const offload = network.counters();
    let copied = offload.copiedBytes;
    for (const [name, { venet, virtio }] of guests) {
      const read = (device: string, attribute: string): unknown =>
        JSON.parse(vbus.read(`devices/${device}/${attribute}`));
      const queues = read(venet, "queues") as { rx: QueueCounters | null; tx: QueueCounters | null } | null;
      const rings = read(virtio, "virtio_queues") as VirtioVbusQueueReport[] | null;
      const ring = (index: number): number => rings?.find((queue) => queue.index === index)?.signal.sent ?? 0;
      const { coalesced, rxCopiedBytes } = read(venet, "statistics") as VenetStatistics;
      copied += rxCopiedBytes + (virtios.get(virtio)?.statistics.rxCopiedBytes ?? 0);
      nics[name] = {
        coalesced: coalesced + (virtios.get(virtio)?.statistics.coalesced ?? 0),
        interrupts: {
          rx: (queues?.rx?.sent ?? 0) + ring(RX_QUEUE),
          tx: (queues?.tx?.sent ?? 0) + ring(TX_QUEUE),
        },
      };
    }
    return { balance: network.balance(), offload, copied, nics, errors };
  },

  /** Ends everything. Returns what went wrong meanwhile. */
  finish() {
    for (const connector of connectors) connector.close(new Error("the run is over"));
    vbus.close();
    return errors;
  },
});
