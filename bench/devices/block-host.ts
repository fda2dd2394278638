/** The host of the block figures: one bus with a disk in memory, one with a disk in a file. Runs as a worker. */
import { Vbus } from "vbus/bus";
import { attachWorkerGuest, type WorkerHostConnector } from "vbus/connectors/worker";
import { MemoryBackend, vblkClass } from "vbus/devices/vblk";
import { openFileBackend } from "vbus/devices/vblk/node-file";
import type { GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";
import { serveCommands } from "../harness/thread.js";

/** What `addDisk` takes. */
export interface BlockDiskOrder {
  name: string;
  /** Memory of the guest that gets the disk. */
  init: GuestMemoryInit;
  /** A file that exists, or the size of a disk in memory. */
  backend: { path: string } | { size: number };
}

const errors: string[] = [];
const scheduler = new EventLoopScheduler((error) => errors.push(String(error)));
const vbus = new Vbus({ scheduler });
vbus.on("error", (event) => errors.push(event.message));
const connectors: WorkerHostConnector[] = [];

serveCommands({
  async addDisk({ name, init, backend }: BlockDiskOrder) {
    const opened = "path" in backend ? await openFileBackend(backend.path) : new MemoryBackend(backend.size);
    vbus.registerClass(vblkClass({ name: `vblk-${name}`, backend: () => opened }));
    const bus = vbus.createBus(name);
    bus.connect(vbus.createDevice(name, `vblk-${name}`));
    bus.admit(name);
    connectors.push(await attachWorkerGuest({ bus, member: name, init, scheduler }));
  },

  /** Ends everything. Returns what went wrong meanwhile. */
  finish() {
    for (const connector of connectors) connector.close(new Error("the run is over"));
    vbus.close();
    return errors;
  },
});
