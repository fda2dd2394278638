/** One Linux guest of the page: its machine, its cards, its two serial lines, and what can be done to it. */
import type { V86 } from "v86";
import {
  attachVbus,
  attachVirtio,
  restoreMachine,
  saveMachine,
  V86NetworkPort,
  type V86Host,
  type V86VirtioHost,
} from "vbus/emulators/v86";
import { MemoryBackend, vblkClass } from "vbus/devices/vblk";
import { venetClass, type VenetStatistics } from "vbus/devices/venet";
import { virtioNet, type VirtioNet } from "vbus/devices/virtio-net";
import { inspectBus } from "vbus/inspect";
import type { Port } from "vbus/net";
import type { CommandResult, Console } from "../linux/console.js";
import {
  bringUp,
  CARD_KINDS,
  CARD_NAMES,
  CARD_PLACES,
  copiedByV86,
  guestAddresses,
  peerAddresses,
  type Card,
  type CardName,
} from "../linux/cards.js";
import { emulatorOptions, startGuest, stopGuest, type GuestShell } from "../linux/guest.js";
import { Notifications } from "../linux/notifications.js";
import { Cable } from "./cable.js";
import { readRival, readVenet, readVirtio, type Reading } from "./readings.js";
import { RivalCard } from "./rival.js";
import { MTU, SPARE_STATION, spareAddresses } from "./spare-network.js";
import type { World } from "./world.js";

/** Cards that charts and tables have a place for: those that are always there, and one that is plugged in. */
export const PAGE_CARDS = [...CARD_NAMES, "eth3"] as const;
/** One of them. */
export type PageCard = (typeof PAGE_CARDS)[number];

const NIC = "nic0";
const SPARE_NIC = "nic1";
const DISK = "disk0";
const DISK_BYTES = 8 << 20;
const DRIVERS = ["vbus.ko", "venet.ko"];
const DISK_DRIVER = "vblk.ko";
const TERMINAL_LINE = 1;
const TERMINAL = "/dev/ttyS1";
const APPEARS_MS = 30_000;
/** What the terminal's shell is told of its terminal. */
const TERMINAL_TYPE = "linux";

interface Attached {
  host: V86Host;
  virtio: { card: VirtioNet; host: V86VirtioHost };
  rivalPort: V86NetworkPort;
  rivalCable: Cable;
  rivalEnd: Port;
}

/** A guest as it was at a moment: see {@link PageGuest.save}. */
export interface SavedGuest {
  /** The machine with all that is attached to it. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Whether the cable of v86's own card was plugged in. */
  readonly plugged: boolean;
}

/** A guest with its cards up and its terminal's shell running. */
export class PageGuest implements GuestShell {
  readonly cards: readonly Card[];
  readonly #rival: RivalCard;
  #listener: ((bytes: Uint8Array) => void) | null = null;
  #output: number[] = [];
  #outputPosted = false;
  #closed = false;

  private constructor(
    private readonly world: World,
    /** Counts guests from 1. */
    readonly number: number,
    readonly emulator: V86,
    private readonly console: Console,
    private readonly attached: Attached,
    /** Whether it came from a saved state. */
    readonly restored: boolean,
    /** Milliseconds until its shell answered. */
    readonly startMs: number,
  ) {
    this.cards = CARD_NAMES.map((name) => {
      const { size, ...place } = CARD_PLACES[name];
      const station = peerAddresses(name);
      return {
        name,
        what: CARD_KINDS[name],
        guestAddress: guestAddresses(name, number - 1).ip4,
        peerAddress: station.ip4,
        peerAddress6: station.ip6,
        peerMac: station.mac,
        peer: world.station(name),
        notifications: new Notifications(this, place, size),
        copied: () => this.#copied(name),
      };
    });
    this.#rival = new RivalCard(emulator, this.cards[0]!.notifications);
    emulator.add_listener("serial1-output-byte", (byte) => {
      this.#written(byte);
    });
  }

  /** Starts a guest of a world. @throws PageError, GuestError */
  static async start(world: World, number: number): Promise<PageGuest> {
    const began = performance.now();
    const images = await world.pieces.images();
    const restored = images.from !== null && "state" in images.from;
    const attached: Partial<Attached> = {};
    const options = emulatorOptions(images, {
      ...world.pieces.manifest.hardware,
      mtu: MTU,
      secondLine: true,
    });
    const { emulator, console } = await startGuest(options, {
      prepare: (made) => attach(world, number, made, attached),
      booted: async (booted) => {
        // the next guests need not boot
        await world.pieces.useState(await booted.save_state(), "the state of the first guest");
      },
    }).catch((error: unknown) => {
      closeAttached(attached);
      throw error;
    });
    const startMs = performance.now() - began;
    const guest = new PageGuest(world, number, emulator, console, attached as Attached, restored, startMs);
    try {
      await guest.#setUp();
    } catch (error) {
      await guest.close();
      throw error;
    }
    return guest;
  }

  /** `guest 1`. */
  get name(): string {
    return `guest ${this.number}`;
  }

  /** Runs one line of shell on the first serial line; see `Console.run`. */
  run(command: string, options?: { timeoutMs?: number }): Promise<CommandResult> {
    return this.console.run(command, options);
  }

  /** As {@link PageGuest.run}; a status other than 0 is an error. */
  check(command: string, options?: { timeoutMs?: number }): Promise<string> {
    return this.console.check(command, options);
  }

  /** Sends what somebody typed to the terminal's shell. */
  type(text: string): void {
    this.emulator.serial_send_bytes(TERMINAL_LINE, new TextEncoder().encode(text));
  }

  /** Who gets what the terminal's shell writes; null: nobody, it waits. */
  set terminal(listener: ((bytes: Uint8Array) => void) | null) {
    this.#listener = listener;
    this.#flush();
  }

  /** Tells the terminal's programs how large it is. */
  async resizeTerminal(columns: number, rows: number): Promise<void> {
    await this.run(`stty -F ${TERMINAL} cols ${columns} rows ${rows}`);
  }

  /** What each card has done so far; null: there is no such card. */
  readings(): Record<PageCard, Reading | null> {
    const { host, virtio, rivalPort } = this.attached;
    const bus = inspectBus(host.vbus!, { maps: false });
    return {
      eth0: readRival(rivalPort, this.#rival),
      eth1: readVenet(bus, NIC),
      eth2: readVirtio(virtio.card, virtio.host),
      eth3: readVenet(bus, SPARE_NIC),
    };
  }

  /** The bus tree, printed. */
  tree(): string {
    return this.attached.host.vbus!.tree();
  }

  /** Whether the host gives a card a carrier. */
  hasCarrier(name: PageCard): boolean {
    const { host, virtio, rivalCable } = this.attached;
    if (name === "eth0") return rivalCable.plugged;
    if (name === "eth2") return virtio.card.carrier;
    return host.vbus!.read(`devices/${name === "eth1" ? NIC : SPARE_NIC}/link`) === "up";
  }

  /** Takes a card's carrier away, or gives it back. */
  setCarrier(name: PageCard, up: boolean): void {
    const { host, virtio, rivalCable } = this.attached;
    if (name === "eth0") {
      rivalCable.plugged = up;
      this.#rival.carrier = up;
    } else if (name === "eth2") virtio.card.carrier = up;
    else host.vbus!.write(`devices/${name === "eth1" ? NIC : SPARE_NIC}/link`, up ? "up" : "down");
  }

  /** Whether there is a card that was plugged in. */
  get hasSpareNic(): boolean {
    return this.attached.host.vbus!.device(SPARE_NIC) !== undefined;
  }

  /** The address of the card that is plugged in. */
  get spareAddress(): string {
    return spareAddresses(this.number).ip4;
  }

  /** Plugs another venet card in, and waits until the guest has it up. Returns the guest's name for it. @throws GuestError */
  async plugNic(): Promise<string> {
    const { vbus, bus } = this.attached.host;
    const { mac, ip4 } = spareAddresses(this.number);
    bus.connect(vbus!.createDevice(SPARE_NIC, "venet", { client_mac: mac, mtu: String(MTU), enabled: "1" }));
    const find = `grep -l ${mac} /sys/class/net/*/address`;
    await this.#until(`${find} >/dev/null 2>&1`);
    const name = (await this.check(`basename "$(dirname "$(${find})")"`)).trim();
    await this.check(`ip link set ${name} up && ip addr add ${ip4}/24 dev ${name}`);
    await this.check(`ping -c 1 -W 10 ${SPARE_STATION.ip4}`, { timeoutMs: APPEARS_MS });
    return name;
  }

  /** Takes it away again, whatever the guest does with it. */
  unplugNic(): void {
    const { vbus, bus } = this.attached.host;
    bus.disconnect(SPARE_NIC);
    vbus!.removeDevice(SPARE_NIC);
  }

  /** Whether a disk is plugged in. */
  get hasDisk(): boolean {
    return this.attached.host.vbus!.device(DISK) !== undefined;
  }

  /**
   * Plugs a disk in, and waits until the guest has it. Returns the guest's name for it; null when the guest has no driver for
   * disks of the bus. @throws GuestError
   */
  async plugDisk(): Promise<string | null> {
    const { vbus, bus } = this.attached.host;
    if (!vbus!.classes.includes("vblk"))
      vbus!.registerClass(vblkClass({ backend: () => new MemoryBackend(DISK_BYTES) }));
    const before = new Set(await this.#blockDevices());
    bus.connect(vbus!.createDevice(DISK, "vblk"));
    if (!this.world.pieces.manifest.drivers.includes(DISK_DRIVER)) return null;
    await this.check(`grep -q '^vblk ' /proc/modules || insmod /lib/vbus/${DISK_DRIVER}`);
    const end = performance.now() + APPEARS_MS;
    for (;;) {
      const found = (await this.#blockDevices()).find((name) => !before.has(name));
      if (found !== undefined) return found;
      if (performance.now() > end) throw new Error(`${this.name} did not take the disk within 30 s`);
      await this.check("usleep 50000");
    }
  }

  /** Takes it away again; what was on it is gone. */
  unplugDisk(): void {
    const { vbus, bus } = this.attached.host;
    bus.disconnect(DISK);
    vbus!.removeDevice(DISK);
  }

  /** Saves it with its cards, while it runs. @throws VbusError */
  async save(): Promise<SavedGuest> {
    await this.check("true"); // the shell of the first line is at its prompt, and will be when it is restored
    return { bytes: await saveMachine(this.emulator), plugged: this.attached.rivalCable.plugged };
  }

  /** Makes it what it was. @throws StateError */
  async restore({ bytes, plugged }: SavedGuest): Promise<void> {
    await this.check("true");
    await restoreMachine(this.emulator, bytes);
    this.attached.rivalCable.plugged = plugged;
    this.#rival.carrier = plugged;
    await this.check("true");
  }

  /** Switches it off. Twice is harmless. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.console.close();
    await stopGuest(this.emulator);
    closeAttached(this.attached);
  }

  async #setUp(): Promise<void> {
    // all cards are on one switch: none may answer for another
    await this.check(
      "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce",
    );
    for (const driver of DRIVERS) await this.check(`insmod /lib/vbus/${driver}`);
    for (const name of CARD_NAMES) await bringUp(this, name, { mtu: MTU, guest: this.number - 1 });
    await this.check(
      `PS1='guest${this.number}# ' TERM=${TERMINAL_TYPE} setsid -c sh <${TERMINAL} >${TERMINAL} 2>&1 &`,
    );
  }

  /** Bytes that the host copied for a card; all of them are on one switch, whose share each is told. */
  #copied(name: CardName): number {
    const { host, virtio, rivalPort } = this.attached;
    const { copiedBytes } = this.world.net.counters();
    if (name === "eth0") return copiedByV86(rivalPort) + copiedBytes;
    if (name === "eth2") return virtio.card.statistics.rxCopiedBytes + copiedBytes;
    const { rxCopiedBytes } = JSON.parse(host.vbus!.read(`devices/${NIC}/statistics`)) as VenetStatistics;
    return rxCopiedBytes + copiedBytes;
  }

  async #until(condition: string): Promise<void> {
    await this.check(
      `n=0; until ${condition} || [ $n -ge 200 ]; do n=$((n+1)); usleep 50000; done; ${condition}`,
      { timeoutMs: APPEARS_MS },
    );
  }

  async #blockDevices(): Promise<string[]> {
    return (await this.check("ls /sys/block")).split("\n").filter((name) => name !== "");
  }

  /** v86 hands out single bytes; a terminal wants them by the slice. */
  #written(byte: number): void {
    this.#output.push(byte);
    if (this.#outputPosted) return;
    this.#outputPosted = true;
    setTimeout(() => {
      this.#outputPosted = false;
      this.#flush();
    }, 0);
  }

  #flush(): void {
    if (this.#listener === null || this.#output.length === 0) return;
    const bytes = Uint8Array.from(this.#output);
    this.#output = [];
    this.#listener(bytes);
  }
}

/** Everything that the guest finds when it looks: before it runs, and before a state is applied. */
async function attach(
  world: World,
  number: number,
  emulator: V86,
  attached: Partial<Attached>,
): Promise<void> {
  const { scheduler, space, net, recorder, report } = world;
  const guest = number - 1;
  const onError = (error: unknown): void => {
    report(`guest ${number}: ${error instanceof Error ? error.message : String(error)}`);
  };
  // a card that was plugged in keeps its port until its guest lets go of it, and the next one may be there by then
  let ports = 0;
  const port = (name: string, what: string): Port =>
    recorder.wrap(net.addPort(`guest${number}-${name}-${++ports}`), `guest${number}-${name}`, what);
  const bridge = attachVbus(emulator, {
    scheduler,
    devices: [
      {
        name: NIC,
        class: venetClass({ port: (name) => port(name === NIC ? "eth1" : "eth3", CARD_KINDS.eth1) }),
        attributes: { client_mac: guestAddresses("eth1", guest).mac, mtu: String(MTU), enabled: "1" },
      },
    ],
    onError,
  });
  const card = virtioNet({
    name: "eth2",
    mac: guestAddresses("eth2", guest).mac,
    mtu: MTU,
    port: port("eth2", CARD_KINDS.eth2),
  });
  const pci = attachVirtio(emulator, { device: card, slot: CARD_PLACES.eth2.slot, scheduler, onError });
  // at once: a function that comes after a saved state was applied misses what it says of it
  const [host, virtioHost] = await Promise.all([bridge, pci]);
  attached.host = host;
  attached.virtio = { card, host: virtioHost };
  attached.rivalPort = new V86NetworkPort(emulator, { scheduler, space, as: "network" });
  attached.rivalEnd = port("eth0", CARD_KINDS.eth0);
  attached.rivalCable = new Cable(attached.rivalPort, attached.rivalEnd);
}

/** Ends what there is; a guest that did not start may have half of it. */
function closeAttached({ host, virtio, rivalPort, rivalCable, rivalEnd }: Partial<Attached>): void {
  if (rivalCable !== undefined) rivalCable.plugged = false;
  rivalPort?.close();
  rivalEnd?.close();
  virtio?.host.close();
  virtio?.card.close();
  host?.close();
}
