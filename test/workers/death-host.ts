// A host in a thread of its own, for tests in which guests die: one bus, one switch, NICs that stay; guests come and go.
import { Vbus, type Bus } from "vbus/bus";
import { attachWorkerGuest, type WorkerHostConnector } from "vbus/connectors/worker";
import { venetClass, type VenetStatistics } from "vbus/devices/venet";
import { MemorySpace, openHostView, type GuestMemoryInit } from "vbus/memory";
import { Switch, type FrameBalance, type Port } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";

import { serve } from "../../examples/replay/threads.js";

/** What the host knows at one moment. */
export interface DeathReport {
  balance: FrameBalance;
  nics: Record<string, { statistics: VenetStatistics; link: string }>;
  stalled: string[];
  /** Frames that wait in egress queues. */
  waiting: Record<string, number>;
  clients: number;
  /** Sessions open at this moment. */
  sessions: number;
  /** Bytes of the host's own memory in use. */
  hostBytes: number;
  /** Why connections ended that nobody had closed. */
  ended: string[];
  /** Whatever went wrong in the host, exceptions of tasks included. */
  errors: string[];
}

const errors: string[] = [];
const ended: string[] = [];
const scheduler = new EventLoopScheduler((error) =>
  errors.push(error instanceof Error ? error.stack! : String(error)),
);
const connectors = new Map<string, { connector: WorkerHostConnector; init: GuestMemoryInit }>();
const ports = new Map<string, Port>();
let vbus: Vbus;
let bus: Bus;
let space: MemorySpace;
let network: Switch;
let sessions = 0;

const handlers = {
  async start({ stallMs, egressFrames }: { stallMs: number; egressFrames: number }) {
    space = await MemorySpace.host();
    network = new Switch({ scheduler, space, name: "switch0", stallMs, egressFrames });
    vbus = new Vbus({ scheduler });
    vbus.on("error", (event) => errors.push(event.message));
    vbus.on("connectionOpened", () => sessions++);
    vbus.on("connectionClosed", () => sessions--);
    vbus.registerClass(
      venetClass({
        port: (name) => {
          const port = network.addPort(name);
          ports.set(name, port);
          return port;
        },
      }),
    );
    bus = vbus.createBus("bus0");
  },

  plug({ nic, mac }: { nic: string; mac: string }) {
    bus.connect(vbus.createDevice(nic, "venet", { client_mac: mac, enabled: "1" }));
  },

  /** Puts the bus in front of a guest. */
  async attach({
    member,
    init,
    guestTimeoutMs,
  }: {
    member: string;
    init: GuestMemoryInit;
    guestTimeoutMs: number;
  }) {
    bus.admit(member);
    const onClose = (reason: Error): void => void ended.push(`${member}: ${reason.message}`);
    const connector = await attachWorkerGuest({ bus, member, init, scheduler, guestTimeoutMs, onClose });
    connectors.set(member, { connector, init });
  },

  /** Ends a guest's connection. Returns how many bytes of its arena did not come back. */
  async detach({ member, reason }: { member: string; reason: string }): Promise<number> {
    const { connector, init } = connectors.get(member)!;
    connectors.delete(member);
    connector.close(new Error(reason));
    bus.expel(member);
    const fresh = await openHostView(init);
    return fresh.arena.available - connector.memory.arena.available;
  },

  write({ path, value }: { path: string; value: string }) {
    vbus.write(path, value);
  },

  report(): DeathReport {
    const nics: DeathReport["nics"] = {};
    for (const { name } of vbus.devices) {
      nics[name] = {
        statistics: JSON.parse(vbus.read(`devices/${name}/statistics`)) as VenetStatistics,
        link: vbus.read(`devices/${name}/link`),
      };
    }
    const live = [...ports].filter(([, port]) => network.ports.includes(port));
    return {
      balance: network.balance(),
      nics,
      stalled: live.filter(([, port]) => network.isStalled(port)).map(([name]) => name),
      waiting: Object.fromEntries(live.map(([name, port]) => [name, port.counters().inFlight])),
      clients: bus.clients.length,
      sessions,
      hostBytes: space.arena.end - space.arena.start - space.arena.available,
      ended,
      errors,
    };
  },

  /** Serves nobody for a while. */
  block({ ms }: { ms: number }) {
    const end = performance.now() + ms;
    while (performance.now() < end);
  },

  /** Closes parts of the host in the order given; each twice, for that is harmless. */
  stop({ order }: { order: ("guests" | "bus" | "vbus" | "switch")[] }) {
    const parts = {
      guests: () => {
        for (const { connector } of connectors.values()) connector.close();
      },
      bus: () => {
        bus.close();
      },
      vbus: () => {
        vbus.close();
      },
      switch: () => {
        network.close();
      },
    };
    for (const part of [...order, ...order]) parts[part]();
  },

  final: () => ({
    balance: network.balance(),
    clients: bus.clients.length,
    sessions,
    errors,
    ports: network.ports.length,
  }),
};

await serve(handlers);
