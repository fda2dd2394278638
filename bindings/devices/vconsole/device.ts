import { VCONSOLE_VERSION } from "../../../assembly/abi/vconsole.js";
import type {
  Attribute,
  BusPublisher,
  Connection,
  Device,
  DeviceClass,
  DeviceContext,
  DeviceInterface,
  RestoredSignals,
} from "../../bus/types.js";
import { VbusError } from "../../errors.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { flagAttribute, numberAttribute } from "../attributes.js";
import { restoreAttributes, saveAttributes } from "../saved.js";
import { BusSeat } from "../seat.js";
import type { MemorySpace } from "../../memory/space.js";
import { VconsoleConnection, type VconsoleEnvironment } from "./connection.js";
import type { ConsoleStatistics } from "./statistics.js";
import { BACKLOG_MAX, checkTerminal, SIZE_MAX, type Terminal } from "./terminal.js";

/** How a console class is set up. */
export interface VconsoleClassOptions {
  /** Name of the class; default `vconsole`. */
  name?: string;
  /** Gives a console its terminal, one for each device; called when the device is created. The embedder keeps it. */
  terminal: (deviceName: string) => Terminal;
}

/** Attributes that are saved. Whether the terminal is open is part of a conversation, counters are the terminal's own. */
const SAVED = ["cols", "rows", "backlog"];
/** Type of the interface that drivers match. */
const INTERFACE_TYPE = "virtual-console";

/** The device class of consoles (`docs/abi/vconsole.md`). Register it with `vbus.registerClass(...)`. */
export function vconsoleClass(options: VconsoleClassOptions): DeviceClass {
  return {
    name: options.name ?? "vconsole",
    create: (context) => {
      const { name } = context;
      return new VconsoleDevice(
        context,
        checkTerminal(options.terminal(name), `for ${name} \`terminal\` returned`),
      );
    },
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
        numberAttribute(
          () => terminal.cols,
          (cols) => {
            terminal.resize(cols, terminal.rows);
          },
          0,
          SIZE_MAX,
        ),
      ],
      [
        "rows",
        numberAttribute(
          () => terminal.rows,
          (rows) => {
            terminal.resize(terminal.cols, rows);
          },
          0,
          SIZE_MAX,
        ),
      ],
      [
        "backlog",
        numberAttribute(
          () => terminal.backlog,
          (bytes) => {
            terminal.backlog = bytes;
          },
          1,
          BACKLOG_MAX,
        ),
      ],
      [
        "open",
        flagAttribute(
          () => terminal.isOpen,
          (open) => {
            if (open) terminal.open();
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

  save(): StateValue {
    return { attributes: saveAttributes(this.attributes, SAVED) };
  }

  restore(state: StateReader): void {
    restoreAttributes(this.attributes, state.get("attributes"), SAVED);
  }

  restoreSession(memory: MemorySpace, state: StateReader, signals: RestoredSignals): Connection {
    if (this.#connection !== null) throw new VbusError("EBUSY", `${this.context.name} is open already`);
    return (this.#connection = VconsoleConnection.restore(memory, this, state, signals));
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
