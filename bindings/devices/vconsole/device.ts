import { VCONSOLE_VERSION } from "../../../assembly/abi/vconsole.js";
import type {
  Attribute,
  BusPublisher,
  Connection,
  Device,
  DeviceClass,
  DeviceContext,
  DeviceInterface,
} from "../../bus/types.js";
import { VbusError } from "../../errors.js";
import { BusSeat } from "../seat.js";
import type { MemorySpace } from "../../memory/space.js";
import { VconsoleConnection, type VconsoleEnvironment } from "./connection.js";
import type { ConsoleStatistics } from "./statistics.js";
import type { Terminal } from "./terminal.js";

/** How a console class is set up. */
export interface VconsoleClassOptions {
  /** Name of the class; default `vconsole`. */
  name?: string;
  /** Gives a console its terminal, one for each device; called when the device is created. The embedder keeps it. */
  terminal: (deviceName: string) => Terminal;
}

/** Type of the interface that drivers match. */
const INTERFACE_TYPE = "virtual-console";

/** The device class of consoles (`docs/abi/vconsole.md`). Register it with `vbus.registerClass(...)`. */
export function vconsoleClass(options: VconsoleClassOptions): DeviceClass {
  return {
    name: options.name ?? "vconsole",
    create: (context) => new VconsoleDevice(context, options.terminal(context.name)),
  };
}

class VconsoleDevice implements Device, DeviceInterface, VconsoleEnvironment {
  readonly name = "default";
  readonly type = INTERFACE_TYPE;
  readonly attributes: ReadonlyMap<string, Attribute>;
  #connection: VconsoleConnection | null = null;
  readonly #seat: BusSeat;

  constructor(
    private readonly context: DeviceContext,
    readonly terminal: Terminal,
  ) {
    this.#seat = new BusSeat(context.name, this);
    terminal.claim((message, error) => {
      context.report(`${context.name}: ${message}`, error);
    });
    this.attributes = new Map<string, Attribute>([
      [
        "cols",
        number(
          () => terminal.cols,
          (cols) => {
            terminal.resize(cols, terminal.rows);
          },
        ),
      ],
      [
        "rows",
        number(
          () => terminal.rows,
          (rows) => {
            terminal.resize(terminal.cols, rows);
          },
        ),
      ],
      [
        "backlog",
        number(
          () => terminal.backlog,
          (bytes) => {
            terminal.backlog = bytes;
          },
        ),
      ],
      [
        "open",
        number(
          () => (terminal.isOpen ? 1 : 0),
          (value) => {
            if (value > 1) throw new VbusError("EINVAL", `${value}: write 1 to open, 0 to hang up`);
            if (value === 1) terminal.open();
            else void terminal.hangup();
          },
        ),
      ],
      ["line", { get: () => this.#connection?.state ?? "down" }],
      ["queues", { get: () => JSON.stringify(this.#connection?.queueCounters() ?? null) }],
      ["statistics", { get: () => JSON.stringify(terminal.statistics()) }],
    ]);
  }

  /** What its terminal counted. */
  get statistics(): ConsoleStatistics {
    return this.terminal.statistics();
  }

  get scheduler(): DeviceContext["scheduler"] {
    return this.context.scheduler;
  }

  busConnect(bus: BusPublisher): void {
    this.#seat.connect(bus);
  }

  busDisconnect(bus: BusPublisher): void {
    this.#seat.disconnect(bus);
  }

  connect(memory: MemorySpace, version: number): Connection {
    if (version !== VCONSOLE_VERSION)
      throw new VbusError("EINVAL", `vconsole has version ${VCONSOLE_VERSION}, not ${version}`);
    if (this.#connection !== null) throw new VbusError("EBUSY", `${this.context.name} is open already`);
    return (this.#connection = new VconsoleConnection(memory, this));
  }

  closed(): void {
    this.#connection = null;
  }

  failed(error: unknown): void {
    const guilty = error instanceof VbusError && error.code === "EPROTO";
    this.context.report(
      `${this.context.name}: ${guilty ? "the guest broke a ring" : "the host failed at a ring"}; it works again once the guest reopens the device`,
      error,
    );
  }

  release(): void {
    this.terminal.disown();
  }
}

/** An attribute that is a whole number, whose range the setter knows. */
function number(get: () => number, set: (value: number) => void): Attribute {
  return {
    get: () => String(get()),
    set: (text) => {
      if (!/^\d{1,10}$/.test(text)) throw new VbusError("EINVAL", `"${text}": write a whole number`);
      set(Number(text));
    },
  };
}
