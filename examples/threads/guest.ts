/**
 * The emulator's thread: a Linux guest in v86 whose venet leads into another thread, and nothing else. What the other thread
 * wants of the guest's shell comes as messages.
 */
import { parentPort, workerData } from "node:worker_threads";
import { venetClass } from "vbus/devices/venet";
import { attachVbus } from "vbus/emulators/v86";
import { WorkerPort, type FrameLink } from "vbus/net/threads";
import { EventLoopScheduler } from "vbus/scheduler";
import { Machine } from "../linux/machine.js";
import type { Pieces } from "../linux/pieces.js";

/** What the thread is given. */
export interface GuestWork {
  pieces: Pieces;
  link: FrameLink;
  mtu: number;
  mac: string;
  address: string;
}

/** Something for the guest's shell to do. */
export interface GuestOrder {
  id: number;
  /** A line of shell; absent: end. */
  command?: string;
  timeoutMs?: number;
}

/** What became of it; number 0: the guest is up. */
export interface GuestAnswer {
  id: number;
  output?: string;
  error?: string;
}

const { pieces, link, mtu, mac, address } = workerData as GuestWork;
const answer = (message: GuestAnswer): void => {
  parentPort!.postMessage(message);
};
const progress = (message: string): void => void process.stderr.write(`vbus: ${message}\n`);

const scheduler = new EventLoopScheduler();
const port = await WorkerPort.open(link, { side: "guest", scheduler });
const machine = await Machine.start({
  pieces,
  mtu,
  progress,
  preparedAs: "vbus-pci bridge in slot 0x10",
  prepare: async (emulator) => {
    const attributes = { client_mac: mac, mtu: String(mtu), enabled: "1" };
    const nic = venetClass({ port: () => port });
    await attachVbus(emulator, { scheduler, devices: [{ name: "nic0", class: nic, attributes }] });
  },
});
await machine.check("insmod /lib/vbus/vbus.ko && insmod /lib/vbus/venet.ko");
await machine.check("until [ -e /sys/class/net/eth1 ]; do usleep 50000; done");
await machine.check(
  `ip link set eth1 mtu ${mtu} && ip link set eth1 up && ip addr add ${address}/24 dev eth1`,
);

parentPort!.on("message", ({ id, command, timeoutMs }: GuestOrder) => {
  if (command === undefined) {
    void machine.close().then(() => {
      port.close();
      answer({ id });
      parentPort!.close();
    });
    return;
  }
  machine.check(command, timeoutMs === undefined ? {} : { timeoutMs }).then(
    (output) => answer({ id, output }),
    (error: unknown) => answer({ id, error: String(error) }),
  );
});
answer({ id: 0 });
