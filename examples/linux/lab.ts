/**
 * A Linux guest with up to three network cards, and behind each of them a network with one station, which is the same
 * program for all: `eth0` is v86's own virtio-net, `eth1` is venet, `eth2` is the virtio-net of this package. Beside
 * venet there may be other devices on the bus, such as disks and consoles.
 *
 *     ┌ guest ─────────────────────────────┐
 *     │ eth0        eth1        eth2       │
 *     └──┬───────────┬───────────┬─────────┘
 *     virtio-net   venet      virtio-net     v86's own │ ours, through the PCI bridge │ ours, a PCI function
 *        │           │           │
 *     port on     switch      switch
 *     v86's bus      │           │
 *        │           │           │
 *     NetPeer     NetPeer     NetPeer        10.0.N.1; the guest is 10.0.N.2
 */
import { VbusError } from "vbus";
import {
  attachVbus,
  attachVirtio,
  V86NetworkPort,
  type V86Device,
  type V86Host,
  type V86VirtioHost,
  type V86VirtioOptions,
} from "vbus/emulators/v86";
import { venetClass, type VenetStatistics } from "vbus/devices/venet";
import { virtioNet, type VirtioNet, type VirtioNetOptions } from "vbus/devices/virtio-net";
import { inspect } from "vbus/inspect";
import { serveInspections } from "vbus/inspect/node-socket";
import { MemorySpace } from "vbus/memory";
import { capturePort, Switch, type Port } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import type { MacPolicy } from "vbus/state";
import { UserError } from "../../bench/harness/command-line.js";
import { NetPeer } from "../../test/support/net-peer.js";
import type { TcpOptions } from "../../test/support/tcp-connection.js";
import { CaptureFile } from "./capture-file.js";
import {
  bringUp,
  CARD_KINDS,
  CARD_NAMES,
  CARD_PLACES,
  copiedByV86,
  guestAddresses,
  peerAddresses,
  preparedAs,
  type Card,
  type CardLab,
  type CardName,
} from "./cards.js";
import { Machine, type MachineOptions } from "./machine.js";
import { Notifications } from "./notifications.js";

export { CARD_NAMES, type Card, type CardName } from "./cards.js";

/** Those that are set up when nobody says which. */
export const USUAL_CARDS: readonly CardName[] = ["eth0", "eth1"];

const HEADERS = 14 + 4;

/** What is behind the cards. */
interface Networks {
  readonly scheduler: EventLoopScheduler;
  readonly space: MemorySpace;
  readonly switches: Map<CardName, Switch>;
  readonly peers: Map<CardName, NetPeer>;
}

/** What a lab is made of. */
export interface LabOptions extends Omit<MachineOptions, "prepare" | "preparedAs" | "moved"> {
  /** Which guest of its networks it is, from 0: what its cards' addresses are. Default 0. */
  guest?: number;
  /** Cards to set up; v86's own is in the machine in any case. Default {@link USUAL_CARDS}. */
  cards?: readonly CardName[];
  /** What `eth2` is like besides its name, address, MTU and port. */
  virtioNet?: Partial<VirtioNetOptions>;
  /** How `eth2` is attached; `vectors` is part of what a saved state is. */
  virtioFunction?: Pick<V86VirtioOptions, "rings" | "vectors">;
  /**
   * The guest of another lab goes on here: its state, as `saveMachine` saved it, and the lab whose stations and networks it is
   * plugged into again (those of eth1 and eth2; v86's own card finds a new station). Close that lab last. With `macs: "renew"`,
   * and another number in `guest`, beside the one that was saved.
   */
  moved?: { readonly state: Uint8Array; readonly from: Lab; readonly macs?: MacPolicy };
  /** File for everything that crosses the cards, as pcapng. */
  capture?: string;
  /** Socket at which `vbus inspect` finds the host. */
  inspect?: string;
  /** How the stations speak TCP. */
  tcp?: TcpOptions;
  /** Attributes of the venet card besides its address, MTU and carrier. */
  attributes?: Readonly<Record<string, string>>;
  /** Devices on the bus besides the venet card; there is a bus without the card, too, when this is given. */
  devices?: readonly V86Device[];
  /** Drivers for them, such as `vblk.ko`, each with its parameters behind it; loaded in this order, before the cards' one. */
  drivers?: readonly string[];
  /** Parameters of the guest's vbus.ko, such as `ilp32=1`. */
  bridgeParameters?: string;
  /** Parameters of the guest's venet.ko, such as `lazy_indexes=1`. */
  cardParameters?: string;
}

/** The guest, its cards, and the stations behind them. */
export class Lab implements CardLab {
  private constructor(
    readonly machine: Machine,
    /** Those asked for. */
    readonly cards: readonly Card[],
    /** The bridge, when `eth1` or devices were asked for. */
    readonly host: V86Host | null,
    /** Our virtio-net card and its function, when `eth2` was asked for. */
    readonly virtio: { readonly card: VirtioNet; readonly host: V86VirtioHost } | null,
    /** What is behind the cards, but for v86's own. */
    private readonly networks: Networks,
    private readonly closers: (() => void | Promise<void>)[],
  ) {}

  /** Starts the guest and brings its cards up. @throws GuestError, Error; UserError for files and drivers that are not there */
  static async open(options: LabOptions): Promise<Lab> {
    const { moved, ...machineOptions } = options;
    const { cards: names = USUAL_CARDS, mtu = 1500, pieces, guest = 0 } = options;
    const portName = (name: string): string => (guest === 0 ? name : `${name} of guest ${guest}`);
    const drivers = busDrivers(options, names);
    const missing = drivers.map(fileOf).filter((driver) => !pieces.drivers.includes(driver));
    if (missing.length > 0)
      throw new UserError(`the guest has no ${missing.join(", ")}: give --nics eth0, or the drivers`);
    const closers: (() => void | Promise<void>)[] = [];
    const networks: Networks = moved?.from.networks ?? {
      scheduler: new EventLoopScheduler(),
      space: await MemorySpace.host(),
      switches: new Map(),
      peers: new Map(),
    };
    const { scheduler, space } = networks;
    const capture = options.capture === undefined ? null : new CaptureFile(options.capture);
    if (capture !== null) closers.push(() => capture.close());
    const wrap = (port: Port, name: CardName): Port =>
      capture === null ? port : capturePort(port, capture.writer, { name, description: CARD_KINDS[name] });
    const peers = new Map<CardName, NetPeer>();
    const copied = new Map<CardName, () => number>();
    const addPeer = (name: CardName, port: Port): void => {
      const peer = new NetPeer({
        port,
        scheduler,
        space,
        ...peerAddresses(name),
        mtu,
        ...(options.tcp === undefined ? {} : { tcp: options.tcp }),
      });
      closers.push(() => peer.close());
      peers.set(name, peer);
      networks.peers.set(name, peer);
    };
    const network = (name: CardName): { net: Switch; plugStation: () => void } => {
      const there = networks.switches.get(name);
      const net = there ?? new Switch({ scheduler, space, name });
      if (there === undefined) closers.push(() => net.close());
      networks.switches.set(name, net);
      return {
        net,
        plugStation: () => {
          if (there !== undefined) peers.set(name, networks.peers.get(name) as NetPeer);
          else addPeer(name, net.addPort("peer"));
        },
      };
    };
    let host: V86Host | null = null;
    let virtio: { card: VirtioNet; host: V86VirtioHost } | null = null;
    const { vectors } = options.virtioFunction ?? {};
    // the bridge is there for other devices, too
    const prepared = preparedAs(
      CARD_NAMES.filter((name) => (name === "eth1" ? drivers.length > 0 : names.includes(name))),
    );
    if (names.includes("eth2") && vectors !== undefined) prepared.push(`${vectors} vectors`);
    try {
      if (options.inspect !== undefined) {
        const server = await serveInspections(options.inspect, (how) => {
          const { vbus = null, function: bridge = null } = host ?? {};
          return inspect(
            {
              ...(vbus === null ? {} : { vbus }),
              bridges: bridge === null ? {} : { guest: bridge.bridge },
              virtio: virtio === null ? [] : [virtio.host.function.device],
              switches: [...networks.switches.values()],
            },
            how,
          );
        }).catch((error: unknown) => {
          const usual = error instanceof VbusError || (error as NodeJS.ErrnoException).syscall !== undefined;
          if (!usual) throw error;
          throw new UserError(`cannot serve --inspect: ${(error as Error).message}`, { cause: error });
        });
        closers.push(() => server.close());
      }
      const machine = await Machine.start({
        ...machineOptions,
        ...(moved === undefined ? {} : { moved: moved.state, macs: moved.macs }),
        preparedAs: prepared.join("; "),
        prepare: async (emulator) => {
          const attaching: Promise<void>[] = [];
          const devices: V86Device[] = [];
          const eth1 = names.includes("eth1") ? network("eth1") : null;
          if (eth1 !== null) {
            devices.push({
              name: "nic0",
              class: venetClass({ port: (name) => wrap(eth1.net.addPort(portName(name)), "eth1") }),
              attributes: {
                client_mac: guestAddresses("eth1", guest).mac,
                mtu: String(mtu),
                enabled: "1",
                ...options.attributes,
              },
            });
          }
          devices.push(...(options.devices ?? []));
          if (drivers.length > 0) {
            const attached = attachVbus(emulator, {
              scheduler,
              devices,
            });
            attaching.push(
              attached.then((bridge) => {
                host = bridge;
                if (eth1 !== null) {
                  copied.set("eth1", () => {
                    if (bridge.vbus === null) throw new Error("the bridge has no bus of its own");
                    const text = bridge.vbus.read("devices/nic0/statistics");
                    const { rxCopiedBytes } = JSON.parse(text) as VenetStatistics;
                    return rxCopiedBytes + eth1.net.counters().copiedBytes;
                  });
                }
                closers.push(() => bridge.close());
              }),
            );
          }
          eth1?.plugStation();
          if (names.includes("eth2")) {
            const { net, plugStation } = network("eth2");
            const card = virtioNet({
              name: "eth2",
              mac: guestAddresses("eth2", guest).mac,
              mtu,
              port: wrap(net.addPort(portName("eth2")), "eth2"),
              ...options.virtioNet,
            });
            closers.push(() => card.close());
            copied.set("eth2", () => card.statistics.rxCopiedBytes + net.counters().copiedBytes);
            const attached = attachVirtio(emulator, {
              device: card,
              slot: CARD_PLACES.eth2.slot,
              scheduler,
              ...options.virtioFunction,
              onError: (error) => {
                options.progress?.(String(error));
              },
            });
            attaching.push(
              attached.then((pci) => {
                virtio = { card, host: pci };
                closers.push(() => pci.close());
              }),
            );
            plugStation();
          }
          // at once: a function that comes after a saved state was applied misses what it says of it
          await Promise.all(attaching);
          if (names.includes("eth0")) {
            const port = new V86NetworkPort(emulator, { scheduler, space, as: "network" });
            copied.set("eth0", () => {
              return copiedByV86(port);
            });
            addPeer("eth0", wrap(port, "eth0"));
          }
        },
      });
      closers.push(() => machine.close());
      if (moved === undefined)
        for (const driver of drivers) await machine.check(`insmod /lib/vbus/${driver}`);
      const cards: Card[] = [];
      for (const name of CARD_NAMES) {
        const peer = peers.get(name);
        const bytesCopied = copied.get(name);
        if (peer === undefined || bytesCopied === undefined) continue;
        if (moved === undefined) await bringUp(machine, name, { mtu, guest });
        const { size, ...place } = CARD_PLACES[name];
        const behind = peerAddresses(name);
        cards.push({
          name,
          what: CARD_KINDS[name],
          guestAddress: guestAddresses(name, guest).ip4,
          peerAddress: behind.ip4,
          peerAddress6: behind.ip6,
          peerMac: behind.mac,
          peer,
          notifications: new Notifications(machine, place, size),
          copied: bytesCopied,
        });
      }
      return new Lab(machine, cards, host, virtio, networks, closers);
    } catch (error) {
      await closeAll(closers);
      throw error;
    }
  }

  /** The card of that name. @throws Error when it was not asked for */
  card(name: CardName): Card {
    const card = this.cards.find((candidate) => candidate.name === name);
    if (card === undefined) throw new Error(`this lab has no ${name}`);
    return card;
  }

  /** The switch behind eth1 or eth2. @throws Error for cards without one */
  network(name: CardName): Switch {
    const net = this.networks.switches.get(name);
    if (net === undefined) throw new Error(`there is no switch behind ${name}`);
    return net;
  }

  /** Ends everything. */
  async close(): Promise<void> {
    await closeAll(this.closers);
  }
}

async function closeAll(closers: (() => void | Promise<void>)[]): Promise<void> {
  for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) await closer();
}

/** What to load for the bus, in order; nothing without one. */
function busDrivers(options: LabOptions, names: readonly CardName[]): string[] {
  const { bridgeParameters = "", cardParameters = "", devices, drivers = [] } = options;
  const card = names.includes("eth1") ? [`venet.ko ${cardParameters}`] : [];
  if (card.length === 0 && devices === undefined) return [];
  return [`vbus.ko ${bridgeParameters}`, ...drivers, ...card];
}

const fileOf = (driver: string): string => driver.split(" ", 1)[0]!;

/** Longest frame of a card. */
export function frameLimit(mtu: number): number {
  return mtu + HEADERS;
}
