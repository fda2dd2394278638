import {
  VIRTIO_CONSOLE_CONFIG_OFF_COLS,
  VIRTIO_CONSOLE_CONFIG_OFF_EMERG_WR,
  VIRTIO_CONSOLE_CONFIG_OFF_MAX_PORTS,
  VIRTIO_CONSOLE_CONFIG_OFF_ROWS,
  VIRTIO_CONSOLE_CONFIG_SIZE,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
} from "../../../assembly/abi/virtio-console.js";
import { VIRTIO_ID_CONSOLE } from "../../../assembly/abi/virtio-status.js";
import { VbusError } from "../../errors.js";
import type { VirtioFace, VirtioSession, VirtioSessionContext } from "../../virtio/types.js";
import type { ConsoleStatistics } from "../vconsole/statistics.js";
import { checkTerminal, type Terminal } from "../vconsole/terminal.js";
import { ConsoleSession, type ConsoleEnvironment, type PortOfDevice } from "./session.js";

/** A port of a virtio-console. */
export interface VirtioConsolePort {
  /** What is behind it; belongs to the device until that is closed. */
  terminal: Terminal;
  /** Its name in the guest (`/sys/class/virtio-ports/…/name`), up to 64 characters of ASCII; default none. */
  name?: string;
  /** A console, such as `hvc0`; otherwise a plain port, such as `/dev/vport0p1`. Default: the first one is. */
  console?: boolean;
}

/** How a virtio-console is set up. */
export interface VirtioConsoleOptions {
  /** Name for messages. */
  name: string;
  /** Its ports, 1 to 31. A driver that does not know several has the first one, as a console. */
  ports: readonly VirtioConsolePort[];
  /** Most descriptors of a queue, a power of two; default 128. */
  queueSize?: number;
  /** Told when a callback of a terminal fails. */
  onError?: (error: unknown) => void;
}

const PORTS_MAX = 31;
const NAME_MAX = 64;
const QUEUE_SIZE = 128;

const mask = (bit: number): bigint => 1n << BigInt(bit);

/**
 * A virtio-console without a transport (virtio 1.2: 5.3), on the terminals of vconsole: hand it to virtio-pci, virtio-mmio or
 * virtio over vbus.
 */
export class VirtioConsole implements VirtioFace {
  readonly deviceType = VIRTIO_ID_CONSOLE;
  readonly configSize = VIRTIO_CONSOLE_CONFIG_SIZE;
  readonly inOrder = true;
  readonly features =
    mask(VIRTIO_CONSOLE_F_SIZE) | mask(VIRTIO_CONSOLE_F_MULTIPORT) | mask(VIRTIO_CONSOLE_F_EMERG_WRITE);
  readonly name: string;
  readonly queueSizes: readonly number[];
  readonly #environment: ConsoleEnvironment;
  #session: VirtioSession | null = null;
  #closed = false;

  /** @throws VbusError EINVAL for options that make no sense, EBUSY for a terminal that another device has */
  constructor(options: VirtioConsoleOptions) {
    const { name, ports, queueSize = QUEUE_SIZE, onError } = options;
    if (ports.length < 1 || ports.length > PORTS_MAX)
      throw new VbusError("EINVAL", `${ports.length} ports; give 1 to ${PORTS_MAX}`);
    const settled: PortOfDevice[] = ports.map((port, i) => ({
      terminal: checkTerminal(port.terminal, `${name}: \`terminal\` of port ${i} is`),
      name: checkName(port.name ?? ""),
      console: port.console ?? i === 0,
    }));
    const claimed: Terminal[] = [];
    try {
      for (const { terminal } of settled) {
        terminal.claim((message, cause) => {
          onError?.(new VbusError("EIO", `${name}: ${message}`, { cause }));
        });
        claimed.push(terminal);
      }
    } catch (error) {
      for (const terminal of claimed) terminal.disown();
      throw error;
    }
    this.name = name;
    this.queueSizes = Array.from({ length: 2 + 2 * Math.max(1, ports.length) }, () => queueSize);
    this.#environment = {
      name,
      ports: settled,
      ended: (session) => {
        if (this.#session === session) this.#session = null;
      },
    };
  }

  /** No bit needs another one (5.3.3). */
  acceptable(): boolean {
    return true;
  }

  /** Writes the configuration, as it is at this moment. */
  readConfig(into: Uint8Array): void {
    const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
    const { terminal } = this.#first;
    view.setUint16(VIRTIO_CONSOLE_CONFIG_OFF_COLS, terminal.cols, true);
    view.setUint16(VIRTIO_CONSOLE_CONFIG_OFF_ROWS, terminal.rows, true);
    view.setUint32(VIRTIO_CONSOLE_CONFIG_OFF_MAX_PORTS, this.#environment.ports.length, true);
  }

  get #first(): PortOfDevice {
    return this.#environment.ports[0] as PortOfDevice; // there is one at least
  }

  /** A character of a guest that cannot do better (5.3.4): the first terminal gets it. Anything else is ignored. */
  writeConfig(offset: number, bytes: Uint8Array): void {
    const character = bytes[VIRTIO_CONSOLE_CONFIG_OFF_EMERG_WR - offset];
    if (character === undefined || this.#closed) return;
    const { terminal } = this.#first;
    if (!terminal.isOpen || !terminal.hasRoom()) {
      terminal.discard("hangup", 1);
      return;
    }
    terminal.deliver(Uint8Array.of(character));
    terminal.flush();
  }

  /** A driver is there. @throws VbusError EBUSY when another transport has the device, ENOTCONN after close */
  start(context: VirtioSessionContext): VirtioSession {
    if (this.#closed) throw new VbusError("ENOTCONN", `${this.name} was closed; make a new device`);
    if (this.#session !== null)
      throw new VbusError("EBUSY", `${this.name} has a driver on another transport`);
    return (this.#session = new ConsoleSession(this.#environment, context));
  }

  /** What the terminals counted, by number of the port. */
  get statistics(): { ports: Record<string, ConsoleStatistics> } {
    const { ports } = this.#environment;
    return { ports: Object.fromEntries(ports.map(({ terminal }, i) => [String(i), terminal.statistics()])) };
  }

  /** True while a driver uses the device. */
  get open(): boolean {
    return this.#session !== null;
  }

  /** Ends the device and lets its terminals go. Its transport should be gone by then. Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#session?.stop();
    for (const { terminal } of this.#environment.ports) terminal.disown();
  }
}

/** A virtio-console; hand it to a transport. @throws VbusError as the constructor */
export function virtioConsole(options: VirtioConsoleOptions): VirtioConsole {
  return new VirtioConsole(options);
}

/** @throws VbusError EINVAL */
function checkName(name: string): string {
  if (!/^[!-~]*$/.test(name) || name.length > NAME_MAX)
    throw new VbusError(
      "EINVAL",
      `"${name}": give a port's name of up to ${NAME_MAX} characters of ASCII, no spaces`,
    );
  return name;
}
