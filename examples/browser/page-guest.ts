/** One Linux guest of the page: its machine, its cards, its two serial lines, and what can be done to it. */
import type { V86 } from "v86";
import {
  attachVbus,
  attachVirtio,
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
import type { SavedGuest } from "./saved-guest.js";
import { MTU, SPARE_STATION, spareAddresses } from "./spare-network.js";
import { TerminalLine } from "./terminal-line.js";
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
  terminal: TerminalLine;
  disks: Disks;
}

/** What is behind the disk that can be plugged in. */
interface Disks {
  /** What the next one holds when it is new; null: zeroes. */
  content: Uint8Array | null;
  latest: MemoryBackend | null;
}

/** A guest with its cards up and its terminal's shell running. */
export class PageGuest implements GuestShell {
  readonly cards: readonly Card[];
  readonly #rival: RivalCard;
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
  }

  /**
   * Starts a guest of a world.
   * @param saved - a guest that goes on; without it, one starts from the state of a booted guest, or boots
   * @throws PageError, GuestError; StateError for what was saved of another machine, or cannot be
   */
  static async start(world: World, number: number, saved?: SavedGuest): Promise<PageGuest> {
    const began = performance.now();
    const { pieces } = world;
    const images = saved === undefined ? await pieces.images() : await pieces.machine();
    const restored = saved !== undefined || (images.from !== null && "state" in images.from);
    const attached: Partial<Attached> = {};
    const options = emulatorOptions(images, { ...pieces.manifest.hardware, mtu: MTU, secondLine: true });
    const { emulator, console } = await startGuest(options, {
      prepare: (made) => attach(world, number, made, attached, saved?.disk ?? null),
      moved: saved?.machine,
      booted: async (booted) => {
        // the next guests need not boot
        pieces.useState(await booted.save_state(), "the state of the first guest");
      },
    }).catch((error: unknown) => {
      closeAttached(attached);
      throw error;
    });
    const startMs = performance.now() - began;
    const guest = new PageGuest(world, number, emulator, console, attached as Attached, restored, startMs);
    guest.attached.disks.content = null; // whatever is plugged in from now on is new
    if (saved !== undefined) {
      guest.setCarrier("eth0", saved.plugged);
      return guest;
    }
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

  /** What the terminal is on. */
  get terminal(): TerminalLine {
    return this.attached.terminal;
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
    const before = new Set(await this.#blockDevices());
    bus.connect(vbus!.createDevice(DISK, "vblk"));
    if ((await this.run(`[ -e /lib/vbus/${DISK_DRIVER} ]`)).status !== 0) return null;
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

  /** Saves it with its cards, its disk and its terminal; it goes on. @throws VbusError, GuestError */
  async save(): Promise<SavedGuest> {
    await this.check("true"); // the shell of the first line is at its prompt, and will be when it goes on
    await this.pause();
    try {
      const screen = await this.terminal.text();
      const machine = await saveMachine(this.emulator);
      // what the disk did since then it will do once more
      const disk = this.hasDisk ? this.attached.disks.latest!.bytes.slice() : null;
      const plugged = this.attached.rivalCable.plugged;
      return { number: this.number, savedAt: Date.now(), machine, plugged, disk, screen };
    } finally {
      await this.resume();
    }
  }

  /** Stops it, until {@link PageGuest.resume}. */
  async pause(): Promise<void> {
    await this.emulator.stop();
  }

  /** It goes on. */
  async resume(): Promise<void> {
    await this.emulator.run();
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
}

/** Everything that the guest finds when it looks: before it runs, and before a state is applied. */
async function attach(
  world: World,
  number: number,
  emulator: V86,
  attached: Partial<Attached>,
  disk: Uint8Array | null,
): Promise<void> {
  const { scheduler, space, recorder, report } = world;
  attached.terminal = new TerminalLine(emulator);
  const guest = number - 1;
  const onError = (error: unknown): void => {
    report(`guest ${number}: ${error instanceof Error ? error.message : String(error)}`);
  };
  const port = (name: string, what: string): Port =>
    recorder.wrap(world.addPort(`guest${number}-${name}`), `guest${number}-${name}`, what);
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
  const disks: Disks = { content: disk, latest: null };
  host.vbus!.registerClass(
    vblkClass({ backend: () => (disks.latest = new MemoryBackend(disks.content ?? DISK_BYTES)) }),
  );
  attached.disks = disks;
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
