/**
 * The host: a worker with one bus, a switch, and a NIC for each guest. It never waits for a guest.
 */
import { Vbus, type Bus } from "vbus/bus";
import { attachWorkerGuest, type WorkerHostConnector } from "vbus/connectors/worker";
import { MemoryBackend, vblkClass } from "vbus/devices/vblk";
import { venetClass } from "vbus/devices/venet";
import { MemorySpace, type GuestMemoryInit } from "vbus/memory";
import {
  capturePort,
  FaultInjector,
  PcapngWriter,
  Switch,
  type CaptureSink,
  type FrameBalance,
  type Port,
} from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import type { HostReport } from "./job.js";
import type { JobOptions } from "./options.js";
import { serve } from "./threads.js";

/** What was captured at the switch. */
export interface HostCapture {
  /** Where the file is; null: it is in `bytes`. */
  path: string | null;
  bytes: Uint8Array<ArrayBuffer> | null;
  size: number;
}

/** What `start` takes. */
export interface HostStart {
  options: JobOptions;
  /** Where the capture goes; null: it is handed over at the end. */
  capturePath: string | null;
  /** Stations that the switch has to know. */
  stations: number;
}

const MACS_LEAST = 4096;
/** More than the default: with fewer cores than threads a guest that is alive may not get to run for a while. */
const STALL_MS = 1000;

/** Size of the disk that the guests share. */
const DISK_BYTES = 16 << 20;
const errors: string[] = [];
const scheduler = new EventLoopScheduler((error) => errors.push(String(error)));
const connectors = new Map<string, WorkerHostConnector>();
const faulty: FaultInjector[] = [];
const ports = new Map<string, Port>();

let options: JobOptions;
let vbus: Vbus;
let bus: Bus;
let memory: MemorySpace;
let network: Switch;
let writer: PcapngWriter | null = null;
let chunks: Uint8Array<ArrayBuffer>[] = [];
let capturePath: string | null = null;
let closeFile: (() => void) | null = null;
let captureSize = 0;

/** A NIC's way into the network: capture, then faults, then the switch. */
function port(name: string): Port {
  let inner = network.addPort(name);
  if (options.faults !== null) {
    const seed = options.faults.seed + 2 * faulty.length;
    const injector = new FaultInjector(inner, { scheduler, space: memory, ...options.faults, seed });
    faulty.push(injector);
    inner = injector;
  }
  const outer =
    writer === null ? inner : capturePort(inner, writer, { name, maxFrames: options.captureFrames });
  ports.set(name, outer);
  return outer;
}

/** The switch's equation with the fault injectors' copies, drops and delay lines in it. */
function balance(): FrameBalance {
  const total = network.balance();
  const drops: Record<string, number> = { ...total.drops };
  for (const injector of faulty) {
    const own = injector.balance("transmit");
    if (own === null) continue;
    total.replicated += own.replicated;
    total.inFlight += own.inFlight;
    total.balanced &&= own.balanced;
    for (const [reason, n] of Object.entries(own.drops)) drops[reason] = (drops[reason] ?? 0) + n;
  }
  return { ...total, drops };
}

await serve({
  async start({ options: given, capturePath: path, stations }: HostStart) {
    options = given;
    capturePath = path;
    memory = await MemorySpace.host();
    network = new Switch({
      scheduler,
      space: memory,
      name: "switch0",
      maxMacs: Math.max(MACS_LEAST, stations),
      stallMs: STALL_MS,
    });
    if (options.captureFrames > 0) {
      let sink: CaptureSink = (chunk) => {
        chunks.push(chunk);
      };
      if (path !== null) {
        const { fileSink } = await import("vbus/net/node-file");
        const file = fileSink(path);
        sink = file.sink;
        closeFile = () => {
          file.close();
        };
      }
      writer = new PcapngWriter({
        clock: scheduler,
        sink: (chunk) => {
          captureSize += chunk.length;
          sink(chunk);
        },
      });
    }
    vbus = new Vbus({ scheduler });
    vbus.on("error", (event) => errors.push(event.message));
    vbus.registerClass(venetClass({ port }));
    vbus.registerClass(vblkClass({ backend: () => new MemoryBackend(DISK_BYTES) }));
    bus = vbus.createBus("bus0");
  },

  async addGuest({
    name,
    init,
    mac,
    mtu,
  }: {
    name: string;
    init: GuestMemoryInit;
    mac: string;
    mtu: number;
  }) {
    const nic = vbus.createDevice(`nic${connectors.size}`, "venet", {
      client_mac: mac,
      mtu: String(mtu),
      lazy_indexes: options.lazy ? "1" : "0",
      page_wait_ms: String(STALL_MS / 2),
      enabled: "1",
    });
    bus.connect(nic);
    // the disk comes behind both NICs, and is shared: whoever opens it has it for that long
    if (connectors.size === 1) bus.connect(vbus.createDevice("disk0", "vblk"));
    bus.admit(name);
    connectors.set(name, await attachWorkerGuest({ bus, member: name, init, scheduler, spin: options.spin }));
  },

  /** A guest's thread ended: its sessions are closed, what it had posted is accounted for. */
  guestDied({ name, reason }: { name: string; reason: string }) {
    connectors.get(name)?.close(new Error(reason));
    bus.expel(name);
  },

  report(): HostReport {
    const nics: HostReport["nics"] = {};
    for (const device of vbus.devices) {
      if (device.className !== "venet") continue;
      nics[device.name] = {
        statistics: JSON.parse(
          vbus.read(`devices/${device.name}/statistics`),
        ) as HostReport["nics"][string]["statistics"],
        queues: JSON.parse(
          vbus.read(`devices/${device.name}/queues`),
        ) as HostReport["nics"][string]["queues"],
      };
    }
    return {
      tree: vbus.tree(),
      balance: balance(),
      offload: network.counters(),
      ports: Object.fromEntries([...ports].map(([name, p]) => [name, p.counters()])),
      nics,
      errors,
    };
  },

  /** Whether segments are merged for guests that take superframes. */
  coalesce({ on }: { on: boolean }) {
    for (const device of vbus.devices) {
      if (device.className === "venet") vbus.write(`devices/${device.name}/coalesce`, on ? "1" : "0");
    }
  },

  /** Ends everything and hands the capture over. */
  finish(): HostCapture | null {
    for (const connector of connectors.values()) connector.close(new Error("the run is over"));
    vbus.close();
    if (writer === null) return null;
    writer.close();
    closeFile?.();
    if (capturePath !== null) return { path: capturePath, bytes: null, size: captureSize };
    const bytes = new Uint8Array(captureSize);
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    chunks = [];
    return { path: null, bytes, size: captureSize };
  },
});
