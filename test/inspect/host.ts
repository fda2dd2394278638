/** A host with one of everything: guests on a bus with cards, a disk and a console, a virtio card beside it, a switch. */
import { Vbus, type Bus, type DeviceClass } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import { VirtioLocal } from "vbus/connectors/virtio-local";
import { MemoryBackend, vblkClass } from "vbus/devices/vblk";
import { Terminal, vconsoleClass } from "vbus/devices/vconsole";
import { venetClass } from "vbus/devices/venet";
import { virtioNet, type VirtioNet } from "vbus/devices/virtio-net";
import { virtioEntropy } from "vbus/devices/virtio-rng";
import { virtioClass } from "vbus/devices/virtio-vbus";
import { ProxyBus } from "vbus/drivers";
import { VblkDriver, type VblkDisk } from "vbus/drivers/vblk";
import { VconsoleDriver } from "vbus/drivers/vconsole";
import { VenetDriver, type VenetNic } from "vbus/drivers/venet";
import { virtioBusDriver } from "vbus/drivers/virtio";
import { VirtioNetDriver, type VirtioNic } from "vbus/drivers/virtio-net";
import { inspect, type Inspection, type InspectOptions } from "vbus/inspect";
import { allocateGuestMemory, GuestMemory, MemorySpace, openHostView } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { testFrame } from "../venet/machine.js";

/** What a host is made of. */
interface Parts {
  readonly net: Switch;
  readonly memory: GuestMemory;
  readonly proxy: ProxyBus;
  readonly disk: VblkDisk;
  readonly nics: VenetNic[];
  /** The virtio card that is not on the bus. */
  readonly beside: { card: VirtioNet; local: VirtioLocal; nic: VirtioNic; driver: VirtioNetDriver };
}

/** The part of a host that is there first. */
interface Root {
  readonly errors: unknown[];
  readonly scheduler: EventLoopScheduler;
  readonly vbus: Vbus;
  readonly bus: Bus;
}

/** The host; its one guest is `guest-a`. */
export class InspectedHost {
  private constructor(
    readonly root: Root,
    readonly parts: Parts,
  ) {}

  get vbus(): Vbus {
    return this.root.vbus;
  }

  get errors(): unknown[] {
    return this.root.errors;
  }

  static async open(): Promise<InspectedHost> {
    const errors: unknown[] = [];
    const scheduler = new EventLoopScheduler((error) => errors.push(error));
    const vbus = new Vbus({ scheduler });
    const bus = vbus.createBus("bus0");
    vbus.on("error", (event) => errors.push(event));
    const net = new Switch({ scheduler, space: await MemorySpace.host(), name: "lan" });
    const card = (name: string): VirtioNet =>
      virtioNet({ name, port: net.addPort(name), mac: `02:00:00:00:01:0${name.at(-1)!}` });
    const classes: DeviceClass[] = [
      venetClass({ port: (name) => net.addPort(name) }),
      vblkClass({ backend: () => new MemoryBackend(1 << 20) }),
      vconsoleClass({ terminal: () => new Terminal() }),
      virtioClass({
        name: "virtio-net",
        create: ({ name }) => {
          const face = card(name);
          return { face, release: () => face.close() };
        },
      }),
      virtioClass({ name: "virtio-rng", create: () => ({ face: virtioEntropy() }) }),
    ];
    for (const each of classes) vbus.registerClass(each);
    for (const [name, className, attributes] of [
      ["nic0", "venet", { enabled: "1" }],
      ["nic1", "venet", { enabled: "1" }],
      ["disk0", "vblk", {}],
      ["console0", "vconsole", {}],
      ["card2", "virtio-net", {}],
    ] as const)
      bus.connect(vbus.createDevice(name, className, attributes));
    vbus.createDevice("entropy0", "virtio-rng"); // on no bus
    bus.admit("guest-a");
    const init = allocateGuestMemory({ size: 16 << 20, arenaSize: 2 << 20 });
    const memory = await GuestMemory.open(init);
    const view = await openHostView(init);
    const client = bus.openClient({ member: "guest-a", memory: view });
    const proxy = new ProxyBus(new LocalConnector(client, memory, scheduler), {
      error: (_device, error) => errors.push(error),
    });
    const nics: VenetNic[] = [];
    let disk: VblkDisk | undefined;
    let virtioNic: VirtioNic | undefined;
    proxy.registerDriver(new VenetDriver((nic) => nics.push(nic)));
    proxy.registerDriver(new VblkDriver((found) => (disk = found)));
    proxy.registerDriver(new VconsoleDriver(() => {}));
    proxy.registerDriver(virtioBusDriver([new VirtioNetDriver((nic) => (virtioNic = nic))]));
    await proxy.start();
    while (nics.length < 2 || disk === undefined || virtioNic === undefined)
      await new Promise((resolve) => setTimeout(resolve, 1));
    for (const nic of nics) await nic.open();
    const face = card("card3");
    const local = new VirtioLocal({
      face,
      guest: memory,
      host: view,
      scheduler,
      onError: (error) => errors.push(error),
    });
    const driver = new VirtioNetDriver(() => {});
    const nic = await driver.probe(local);
    return new InspectedHost(
      { errors, scheduler, vbus, bus },
      { net, memory, proxy, disk, nics, beside: { card: face, local, nic, driver } },
    );
  }

  /** Some frames, some blocks. */
  async work(frames = 20): Promise<void> {
    const { nics, disk } = this.parts;
    const [a, b] = nics as [VenetNic, VenetNic];
    const sending = a.send(Array.from({ length: frames }, (_, n) => testFrame(b.mac, a.mac, 100, n)));
    for (let received = 0; received < frames;) received += (await b.receive()).length;
    await sending;
    await disk.write(0, new Uint8Array(4096).fill(7));
    await disk.read(0, 4096);
  }

  look(options: InspectOptions = {}): Inspection {
    const { net, beside } = this.parts;
    return inspect({ vbus: this.vbus, switches: [net], virtio: [beside.local.device] }, options);
  }

  async close(): Promise<void> {
    const { net, proxy, beside } = this.parts;
    await beside.driver.remove(beside.nic);
    beside.card.close();
    await proxy.close();
    this.vbus.close();
    net.close();
  }
}
