/**
 * How often a guest and a device wake each other, counted in the same way for every card: writes to the register that
 * the driver rings, seen where v86 hands them out, and what `/proc/interrupts` says. It looks into v86, as a debugger
 * would; nothing depends on it but the table.
 */
import type { V86 } from "v86";
import type { GuestShell } from "./guest.js";

type Write = (port: number, value: number) => void;
type Line = (devfn: number) => void;

interface Inside {
  v86: {
    cpu: {
      io: { port_write8: Write; port_write16: Write; port_write32: Write };
      devices: { pci: { device_spaces: Int32Array[]; raise_irq: Line; lower_irq: Line } };
    };
  };
}

/** What was counted of one card. */
export interface NotificationCounts {
  /** Writes of the guest to the card's notification ports. */
  doorbells: number;
  /** Times the card's interrupt line went up; 0 for a card that sends messages. */
  lines: number;
  /** Interrupts that the guest handled. */
  interrupts: number;
}

/** Where a card is. */
export interface CardPlace {
  /** PCI slot. */
  slot: number;
  /** Which BAR its notification registers are in. */
  bar: number;
  /** Where in it they begin; default 0. */
  offset?: number;
  /** Finds its lines in `/proc/interrupts`. */
  interrupt: RegExp;
}

const BAR_WORD = 4;
const PORT_MASK = 0xfffc;

/** Counts for one card of a machine. */
export class Notifications {
  #doorbells = 0;
  #lines = 0;

  constructor(
    private readonly machine: GuestShell,
    private readonly place: CardPlace,
    size: number,
  ) {
    const { io, devices } = (machine.emulator as V86 & Inside).v86.cpu;
    const devfn = place.slot << 3;
    const space = devices.pci.device_spaces[devfn];
    if (space === undefined) throw new Error(`there is no device in PCI slot ${place.slot}`);
    const first = (space[BAR_WORD + place.bar]! & PORT_MASK) + (place.offset ?? 0);
    for (const name of ["port_write8", "port_write16", "port_write32"] as const) {
      const write = io[name].bind(io);
      io[name] = (port, value) => {
        if (port >= first && port < first + size) this.#doorbells++;
        write(port, value);
      };
    }
    const { pci } = devices;
    const raise = pci.raise_irq.bind(pci);
    const lower = pci.lower_irq.bind(pci);
    let up = false;
    pci.raise_irq = (id) => {
      if (id === devfn && !up) {
        up = true;
        this.#lines++;
      }
      raise(id);
    };
    pci.lower_irq = (id) => {
      if (id === devfn) up = false;
      lower(id);
    };
  }

  /** What can be seen without asking the guest. */
  get seen(): Omit<NotificationCounts, "interrupts"> {
    return { doorbells: this.#doorbells, lines: this.#lines };
  }

  /** All since the machine started. Asks the guest. */
  async read(): Promise<NotificationCounts> {
    const text = await this.machine.check("cat /proc/interrupts");
    const lines = text.split("\n").filter((candidate) => this.place.interrupt.test(candidate));
    const interrupts = lines.reduce((sum, line) => sum + Number(/^\s*\d+:\s+(\d+)/.exec(line)?.[1] ?? 0), 0);
    return { doorbells: this.#doorbells, lines: this.#lines, interrupts };
  }
}
