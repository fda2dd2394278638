/** Addresses of network cards when a state is restored: kept and announced, or renewed, with original and copy on one switch. */
import {
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_STATUS,
} from "vbus/abi";
import { Vbus, type Bus, type BusEvent, type Client } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import { venetClass } from "vbus/devices/venet";
import { VirtioNet } from "vbus/devices/virtio-net";
import { virtioClass } from "vbus/devices/virtio-vbus";
import { ProxyBus, type Driver } from "vbus/drivers";
import { VenetDriver } from "vbus/drivers/venet";
import { virtioBusDriver } from "vbus/drivers/virtio";
import { VirtioNetDriver } from "vbus/drivers/virtio-net";
import { allocateGuestMemory, GuestMemory, MemorySpace, openHostView } from "vbus/memory";
import { formatMac, Switch, type Port } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { quiesce, restoreState, StateReader, type RestoreOptions, type Saveable } from "vbus/state";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { turns } from "../event-loop.js";
import { TestPort } from "../venet/port.js";
import { expectFrames, testFrame } from "../venet/machine.js";
import { TRANSPORTS, VERSION_1, VirtioMachine } from "../virtio/machine.js";
import { ClientPart, memoryImage } from "./client-part.js";

const ETHERTYPE_RARP = 0x8035;
const macText = (bytes: Uint8Array): string =>
  formatMac([...bytes].reduce((mac, byte) => mac * 256 + byte, 0));
const typeOf = (frame: Uint8Array): number => (frame[12]! << 8) | frame[13]!;

/** A card as a guest in TypeScript has it. */
interface Nic {
  readonly mac: Uint8Array;
  send(frames: readonly Uint8Array[]): Promise<void>;
  receive(): Promise<Uint8Array[]>;
  open?(): Promise<void>;
}

/** A kind of card on a bus. */
interface Kind {
  plug(host: Host, name: string, mac: string): void;
  address(host: Host, name: string): string;
  driver(bound: (nic: Nic) => void): Driver;
}

const KINDS: Record<string, Kind> = {
  venet: {
    plug({ vbus, bus, port }, name, mac) {
      vbus.registerClass(venetClass({ port }));
      bus.connect(vbus.createDevice(name, "venet", { client_mac: mac, enabled: "1" }));
    },
    address: ({ vbus }, name) => vbus.read(`devices/${name}/client_mac`),
    driver: (bound) => new VenetDriver(bound),
  },
  "virtio-net over vbus": {
    plug(host, name, mac) {
      const { vbus, bus, port } = host;
      const card = new VirtioNet({ name, port: port(), mac });
      host.cards.set(name, card);
      const create = (): { face: VirtioNet; release: () => void } => ({
        face: card,
        release: () => {
          card.close();
        },
      });
      vbus.registerClass(virtioClass({ name: "card", create }));
      bus.connect(vbus.createDevice(name, "card"));
    },
    address: ({ cards }, name) => cards.get(name)!.mac,
    driver: (bound) => virtioBusDriver([new VirtioNetDriver(bound)]),
  },
};

let errors: unknown[];
let scheduler: EventLoopScheduler;
let net: Switch;
let hosts: Host[];

/** A host with one card and one guest. */
class Host {
  readonly vbus = new Vbus({ scheduler });
  readonly bus: Bus;
  readonly cards = new Map<string, VirtioNet>();
  plugged!: Port;
  client!: Client;
  memory!: GuestMemory;
  space!: MemorySpace;
  proxy: ProxyBus | null = null;

  private constructor(
    private readonly kind: Kind,
    readonly name: string,
  ) {
    this.vbus.on("error", (event) => errors.push(event));
    this.bus = this.vbus.createBus("bus0");
    this.bus.admit("guest");
    hosts.push(this);
  }

  /** A host whose guest has memory, and nothing in it. */
  static async make(kind: Kind, name: string, mac: string): Promise<Host> {
    const host = new Host(kind, name);
    kind.plug(host, "nic0", mac);
    const init = allocateGuestMemory({ size: 4 << 20 });
    host.memory = await GuestMemory.open(init);
    host.space = await openHostView(init);
    host.client = host.bus.openClient({ member: "guest", memory: host.space });
    return host;
  }

  readonly port = (): Port => (this.plugged = net.addPort(this.name));

  get address(): string {
    return this.kind.address(this, "nic0");
  }

  get part(): ClientPart {
    return new ClientPart(this.client);
  }

  /** Starts a driver; the card that it finds. */
  async start(): Promise<Nic> {
    const proxy = new ProxyBus(new LocalConnector(this.client, this.memory, scheduler), {
      error: (_device, error) => errors.push(error),
    });
    this.proxy = proxy;
    const found = new Promise<Nic>((resolve) => {
      proxy.registerDriver(this.kind.driver(resolve));
    });
    await proxy.start();
    const nic = await found;
    await nic.open?.();
    return nic;
  }

  /** The state of all this, and of the guest's memory. */
  async save(): Promise<{ state: Uint8Array; image: Uint8Array }> {
    const quiesced = await quiesce([this.vbus, this.part]);
    const [region] = this.space.regions;
    const image = this.space.bytes.slice(region!.address, region!.address + region!.length);
    const state = quiesced.save();
    quiesced.resume();
    return { state, image };
  }

  async restore(
    { state, image }: { state: Uint8Array; image: Uint8Array },
    options: RestoreOptions,
  ): Promise<void> {
    const memory = (): void => {
      this.space.bytes.set(image, this.space.regions[0]!.address);
    };
    await restoreState([this.vbus, this.part], state, { ...options, memory });
  }

  /** Events that the guest would get now. */
  events(): BusEvent[] {
    const all: BusEvent[] = [];
    for (let event; (event = this.client.nextEvent()) !== null;) all.push(event);
    return all;
  }

  async close(): Promise<void> {
    await this.proxy?.close();
    this.client.disconnect();
    this.vbus.close();
  }
}

beforeEach(async () => {
  errors = [];
  hosts = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  net = new Switch({ scheduler, space: await MemorySpace.host() });
});

afterEach(async () => {
  for (const host of hosts) await host.close();
  net.close();
  expect(errors).toEqual([]);
});

/** The next frames of ours that a card gets; a switch floods those for cards that it does not know. */
async function receive(nic: Nic, n: number): Promise<Uint8Array[]> {
  const all: Uint8Array[] = [];
  const isFor = (frame: Uint8Array): boolean => Buffer.compare(frame.subarray(0, 6), nic.mac) === 0;
  while (all.length < n)
    all.push(...(await nic.receive()).filter((frame) => typeOf(frame) === 0x88b5 && isFor(frame)));
  return all;
}

async function exchange(from: Nic, to: Nic): Promise<void> {
  const sent = Array.from({ length: 50 }, (_, n) => testFrame(to.mac, from.mac, 60 + n * 20, n));
  const received = receive(to, sent.length);
  await from.send(sent);
  expectFrames(await received, sent);
}

describe.each(Object.keys(KINDS))("a state with a card (%s)", (name) => {
  const kind = KINDS[name]!;

  it("gives a copy of its guest a card with another address, plugged in anew; it and the original live on one switch", async () => {
    const original = await Host.make(kind, "original", "02:00:00:00:00:0a");
    const other = await Host.make(kind, "other", "02:00:00:00:00:0c");
    const [a, c] = [await original.start(), await other.start()];
    await exchange(a, c);
    await exchange(c, a);
    const saved = await original.save();

    const copy = await Host.make(kind, "copy", "02:00:00:00:00:0b");
    await copy.restore(saved, { macs: "renew" });
    await turns();
    // its guest knows the original's address: not a frame of it gets out, nor one to it in
    const session = copy.client.connections[0]!;
    for (let n = 0; n < 3; n++) await exchange(c, a);
    await exchange(a, c);
    expect(copy.plugged.counters()).toMatchObject({ received: 0, delivered: 0 });
    const told = copy.events();
    expect(told).toContainEqual({ kind: "devdrop", id: 0 });
    expect(told.filter(({ kind }) => kind === "devadd")).toEqual([]);

    // it lets go of the card, and finds another
    expect(copy.client.close(session.handle)).toBe(0);
    const after = copy.events();
    const added = after.filter(({ kind }) => kind === "devadd");
    expect(added).toMatchObject([{ id: 1 }]);
    copy.client.returnEvent(added[0]!);
    const b = await copy.start();
    expect(macText(b.mac)).toBe("02:00:00:00:00:0b");
    expect(copy.address).toBe("02:00:00:00:00:0b");
    for (const [from, to] of [
      [a, b],
      [b, a],
      [b, c],
      [c, b],
      [a, c],
      [c, a],
    ] as const)
      await exchange(from, to);
    expect(copy.vbus.device("nic0")?.connections).toBe(1);
  });

  it("that was renewed, and is saved before its guest has run, is plugged in anew where it goes on", async () => {
    const original = await Host.make(kind, "original", "02:00:00:00:00:0a");
    const other = await Host.make(kind, "other", "02:00:00:00:00:0c");
    const [a, c] = [await original.start(), await other.start()];
    await exchange(a, c);
    const copy = await Host.make(kind, "copy", "02:00:00:00:00:0b");
    await copy.restore(await original.save(), { macs: "renew" });
    const saved = await copy.save();
    await copy.close();

    const third = await Host.make(kind, "third", "02:00:00:00:00:0d");
    await third.restore(saved, { macs: "renew" });
    await turns();
    const told = third.events().filter((event) => event.kind === "devdrop" || event.kind === "devadd");
    expect(told).toMatchObject([
      { kind: "devdrop", id: 0 },
      { kind: "devadd", id: 1 },
    ]);
    expect(third.plugged.counters().received).toBe(0);
    third.client.returnEvent(told[1]!);
    const d = await third.start();
    expect(macText(d.mac)).toBe("02:00:00:00:00:0d");
    for (const from of [a, c]) await exchange(from, d);
    for (const to of [a, c]) await exchange(d, to);
    expect(net.counters().moved).toBe(0);
  });

  it("renews nothing in the machine that it was saved in: the card goes on", async () => {
    const original = await Host.make(kind, "original", "02:00:00:00:00:0a");
    const other = await Host.make(kind, "other", "02:00:00:00:00:0c");
    const [a, c] = [await original.start(), await other.start()];
    await exchange(a, c);
    const part = original.part;
    // in one step, for the guest's half is in JavaScript objects
    await part.settle();
    part.hold();
    const quiesced = await quiesce([original.vbus]);
    const state = { tree: original.vbus.save(), part: part.save() };
    quiesced.resume();
    const image = memoryImage(original.space);
    part.clear();
    image();
    original.vbus.restore(new StateReader(state.tree, "tree"), { macs: "renew" });
    part.restore(new StateReader(state.part, "part"), { macs: "renew" });
    part.release();
    await exchange(c, a);
    await exchange(a, c);
    expect(original.address).toBe("02:00:00:00:00:0a");
  });

  it("gives the card its address back in another machine, and has it announce itself where it is now", async () => {
    const original = await Host.make(kind, "original", "02:00:00:00:00:0a");
    const other = await Host.make(kind, "other", "02:00:00:00:00:0c");
    const [a, c] = [await original.start(), await other.start()];
    await exchange(a, c);
    const saved = await original.save();
    await original.close();
    const moved = await Host.make(kind, "moved", "02:00:00:00:00:0b");
    await moved.restore(saved, {});
    expect(moved.address).toBe("02:00:00:00:00:0a");
    for (;;) {
      const frame = (await c.receive()).find((frame) => typeOf(frame) === ETHERTYPE_RARP);
      if (frame === undefined) continue;
      expect(macText(frame.subarray(0, 6))).toBe("ff:ff:ff:ff:ff:ff");
      expect(macText(frame.subarray(6, 12))).toBe("02:00:00:00:00:0a");
      break;
    }
    // so the switch knows where it is: a frame for it goes there
    const before = moved.plugged.counters().delivered;
    await c.send([testFrame([2, 0, 0, 0, 0, 0x0a], c.mac, 60, 1)]);
    await turns();
    expect(moved.plugged.counters().delivered).toBe(before + 1);
    expect(moved.events().filter(({ kind }) => kind === "devdrop" || kind === "devadd")).toEqual([]);
  });
});

const MACHINES: VirtioMachine[] = [];

afterEach(() => {
  for (const machine of MACHINES.splice(0)) {
    machine.close();
    expect(machine.errors).toEqual([]);
  }
});

describe.each(TRANSPORTS)("a virtio-net card behind %s registers", (transport) => {
  const FEATURES =
    VERSION_1 |
    [
      VIRTIO_NET_F_MAC,
      VIRTIO_NET_F_STATUS,
      VIRTIO_NET_F_CTRL_VQ,
      VIRTIO_NET_F_CTRL_MAC_ADDR,
      VIRTIO_NET_F_GUEST_ANNOUNCE,
    ].reduce((all, bit) => all | (1n << BigInt(bit)), 0n);
  const STATUS = 6;
  const LINK_UP = 1;
  const ANNOUNCE = 2;
  const CONTROL_QUEUE = 2;
  const partOf = ({ fn, registers }: VirtioMachine): Saveable => (fn ?? registers)!;
  const macOf = ({ door }: VirtioMachine): string =>
    macText(Uint8Array.from({ length: 6 }, (_, i) => door.config(i, 1)));

  async function make(mac: string): Promise<{ machine: VirtioMachine; card: VirtioNet; port: TestPort }> {
    const port = new TestPort();
    const card = new VirtioNet({ name: "card", port, mac });
    const machine = await VirtioMachine.create(transport, card);
    MACHINES.push(machine);
    return { machine, card, port };
  }

  async function save(machine: VirtioMachine): Promise<Uint8Array> {
    const quiesced = await quiesce([partOf(machine)]);
    const state = quiesced.save();
    quiesced.resume();
    return state;
  }

  /** A command of the driver's, which the card does. */
  function command(machine: VirtioMachine, ...bytes: number[]): void {
    const queue = machine.queues.get(CONTROL_QUEUE)!;
    const { ram, space } = machine.guest;
    const at = ram.allocate(bytes.length + 1, 16);
    space.copyTo(at, Uint8Array.of(...bytes, 0xff));
    const end = at + bytes.length;
    queue.chains.setChain(0, [{ gpa: at, length: bytes.length }], [{ gpa: end, length: 1 }]);
    queue.ring.add(queue.chains, 1);
    machine.door.kick(CONTROL_QUEUE);
    machine.scheduler.run();
    expect(machine.reap(queue)).toHaveLength(1);
    expect([...space.copyFrom(end, 1)]).toEqual([0]);
  }

  const take = (machine: VirtioMachine, last: number): void => {
    command(machine, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, 2, 0, 0, 0, 0, last);
  };

  /** A card of 02:00:00:00:00:0b whose driver uses 02:00:00:00:00:0a, and can give commands. */
  async function renewed(): Promise<Awaited<ReturnType<typeof make>>> {
    const made = await make("02:00:00:00:00:0a");
    const { machine, card, port } = made;
    machine.bringUp(FEATURES);
    const state = await save(machine);
    const putBack = memoryImage(machine.memory);
    card.mac = "02:00:00:00:00:0b";
    await restoreState([partOf(machine)], state, { macs: "renew", memory: putBack });
    machine.scheduler.run();
    machine.door.acknowledge();
    expect(card.renewed).toBe(true);
    expect(port.peer).toBeNull();
    return made;
  }

  it("announces itself when it goes on, and has its driver announce itself until it says that it has", async () => {
    const { machine, port } = await make("02:00:00:00:00:0a");
    machine.bringUp(FEATURES);
    expect(machine.door.config(STATUS, 2)).toBe(LINK_UP);
    const state = await save(machine);
    const putBack = memoryImage(machine.memory);
    machine.door.acknowledge();
    expect(port.sent).toEqual([]);
    await restoreState([partOf(machine)], state, { memory: putBack });
    machine.scheduler.run();
    expect(port.sent.map(typeOf)).toEqual([ETHERTYPE_RARP]);
    expect(machine.door.acknowledge() & 2, "the configuration changed").toBe(2);
    expect(machine.door.config(STATUS, 2)).toBe(LINK_UP | ANNOUNCE);
    command(machine, VIRTIO_NET_CTRL_ANNOUNCE, 0);
    expect(machine.door.config(STATUS, 2)).toBe(LINK_UP);
  });

  it("that got another address is silent until its driver begins anew, and then has it", async () => {
    const one = await make("02:00:00:00:00:0a");
    one.machine.bringUp(FEATURES);
    const state = await save(one.machine);
    const { machine, card, port } = await make("02:00:00:00:00:0b");
    const generation = one.machine.door.generation();
    const [from, to] = [one.machine.memory, machine.memory];
    await restoreState([partOf(machine)], state, {
      macs: "renew",
      memory: () => {
        for (const [i, { address, length }] of from.regions.entries())
          to.bytes.set(from.bytes.subarray(address, address + length), to.regions[i]!.address);
      },
    });
    machine.scheduler.run();
    expect(card.renewed).toBe(true);
    expect(macOf(machine), "what drivers find that look").toBe("02:00:00:00:00:0b");
    expect(card.mac).toBe("02:00:00:00:00:0b");
    expect(machine.door.config(STATUS, 2)).toBe(0);
    expect(machine.door.generation()).not.toBe(generation);
    expect(machine.door.acknowledge() & 2, "the configuration changed").toBe(2);
    expect(port.peer).toBeNull();
    card.carrier = false;
    card.carrier = true;
    expect(port.peer).toBeNull();
    expect(port.sent).toEqual([]);

    machine.bringUp(FEATURES);
    expect(card.renewed).toBe(false);
    expect(macOf(machine)).toBe("02:00:00:00:00:0b");
    expect(machine.door.config(STATUS, 2)).toBe(LINK_UP);
    expect(port.peer).not.toBeNull();
  });

  it("that got another address works on when its driver takes that one, without a word about who it was", async () => {
    const { machine, card, port } = await renewed();
    take(machine, 0x0a); // as drivers do that set what they use whenever their interface comes up
    expect(card.renewed).toBe(true);
    expect(port.peer).toBeNull();
    expect(machine.door.config(STATUS, 2)).toBe(0);

    take(machine, 0x0b);
    expect(card.renewed).toBe(false);
    expect(card.mac).toBe("02:00:00:00:00:0b");
    expect(port.peer).not.toBeNull();
    expect(machine.door.acknowledge() & 2, "the configuration changed").toBe(2);
    expect(machine.door.config(STATUS, 2)).toBe(LINK_UP);
    expect(port.sent).toEqual([]);
  });

  it("that got another address works on when its driver takes a third one, or the host gives back the old one", async () => {
    const { machine, card, port } = await renewed();
    take(machine, 0x0c);
    expect(macOf(machine)).toBe("02:00:00:00:00:0c");
    expect(port.peer).not.toBeNull();

    const other = await renewed();
    other.card.mac = "02:00:00:00:00:0a";
    expect(other.card.renewed).toBe(false);
    expect(other.port.peer).not.toBeNull();
    expect(other.machine.door.config(STATUS, 2)).toBe(LINK_UP | ANNOUNCE);
    expect(card.renewed).toBe(false);
  });

  it("that waits for its driver to learn its address is saved as that", async () => {
    const { machine, card, port } = await renewed();
    const state = await save(machine);
    const putBack = memoryImage(machine.memory);
    take(machine, 0x0b);
    await restoreState([partOf(machine)], state, { memory: putBack });
    machine.scheduler.run();
    expect(card.renewed).toBe(true);
    expect(macOf(machine)).toBe("02:00:00:00:00:0b");
    expect(port.peer).toBeNull();
    expect(port.sent).toEqual([]);
  });
});
