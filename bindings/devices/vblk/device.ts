import {
  VBLK_DEFAULT_DEPTH,
  VBLK_DEFAULT_QUEUES,
  VBLK_ID_SIZE,
  VBLK_MAX_DEPTH,
  VBLK_MAX_QUEUES,
  VBLK_VERSION,
} from "../../../assembly/abi/vblk.js";
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
import { restoreAttributes, restoreCounters, saveAttributes, saveCounters } from "../saved.js";
import { BusSeat } from "../seat.js";
import type { MemorySpace } from "../../memory/space.js";
import { checkBackend, type BlockBackend } from "./backend.js";
import { VblkConnection, type VblkEnvironment } from "./connection.js";
import { Medium } from "./medium.js";
import type { BlockRing } from "./ring-pair.js";
import { emptyStatistics, type VblkStatistics } from "./statistics.js";

/** How a block device class is set up. */
export interface VblkClassOptions {
  /** Name of the class; default `vblk`. */
  name?: string;
  /**
   * Gives a device its back end, opened before; called once, when the device is created. The device closes it when it is
   * removed, so no two devices may share one. Creating the device fails with EINVAL when this is none (a promise, a path).
   */
  backend: (deviceName: string) => BlockBackend;
}

/** Attributes that are saved. The size is the medium's, which is not saved and has to be the same. */
const SAVED = ["read_only", "serial", "queue_depth", "max_queues"];
/** Type of the interface that drivers match. */
const INTERFACE_TYPE = "virtual-block";

/** The device class of block devices (`docs/abi/vblk.md`). Register it with `vbus.registerClass(...)`. */
export function vblkClass(options: VblkClassOptions): DeviceClass {
  return {
    name: options.name ?? "vblk",
    create: (context) => {
      const { name } = context;
      return new VblkDevice(context, checkBackend(options.backend(name), `for ${name} \`backend\` returned`));
    },
  };
}

class VblkDevice implements Device, DeviceInterface, VblkEnvironment {
  readonly name = "default";
  readonly type = INTERFACE_TYPE;
  readonly statistics: VblkStatistics = emptyStatistics();
  readonly attributes: ReadonlyMap<string, Attribute>;
  readonly medium: Medium;
  queueDepth = VBLK_DEFAULT_DEPTH;
  maxQueues = VBLK_DEFAULT_QUEUES;
  readOnly: boolean;
  serial: string;
  /** The back end failed the last time; told already. */
  #failing = false;
  #connection: VblkConnection | null = null;
  readonly #seat: BusSeat;

  constructor(
    private readonly context: DeviceContext,
    private readonly backend: BlockBackend,
  ) {
    this.#seat = new BusSeat(context.name, this);
    this.medium = new Medium(backend, this.queueDepth);
    this.readOnly = backend.readOnly;
    this.serial = context.name.replace(/[^ -~]/g, "?").slice(0, VBLK_ID_SIZE);
    this.attributes = new Map<string, Attribute>([
      [
        "size",
        numberAttribute(
          () => this.medium.size,
          (size) => {
            this.#resize(size);
          },
          0,
          Number.MAX_SAFE_INTEGER,
        ),
      ],
      [
        "read_only",
        flagAttribute(
          () => this.readOnly,
          (on) => {
            this.#setReadOnly(on);
          },
        ),
      ],
      [
        "serial",
        {
          get: () => this.serial,
          set: (text) => {
            this.#setSerial(text);
          },
        },
      ],
      ["backend", { get: () => this.backend.description }],
      [
        "queue_depth",
        numberAttribute(
          () => this.queueDepth,
          (depth) => {
            this.#requireClosed("queue_depth");
            this.queueDepth = depth;
            this.medium.operations.limit = depth;
          },
          1,
          VBLK_MAX_DEPTH,
        ),
      ],
      [
        "max_queues",
        numberAttribute(
          () => this.maxQueues,
          (queues) => {
            this.#requireClosed("max_queues");
            this.maxQueues = queues;
          },
          1,
          VBLK_MAX_QUEUES,
        ),
      ],
      ["queues", { get: () => JSON.stringify(this.#connection?.queueCounters() ?? null) }],
      ["statistics", { get: () => JSON.stringify(this.statistics) }],
    ]);
  }

  get scheduler(): DeviceContext["scheduler"] {
    return this.context.scheduler;
  }

  #requireClosed(attribute: string): void {
    if (this.#connection !== null)
      throw new VbusError("EBUSY", `a guest has the device open; change ${attribute} while it is closed`);
  }

  #setReadOnly(readOnly: boolean): void {
    if (readOnly === this.readOnly) return;
    if (this.backend.readOnly)
      throw new VbusError("EROFS", `${this.backend.description} cannot be written; use another back end`);
    this.#requireClosed("read_only");
    this.readOnly = readOnly;
  }

  #setSerial(serial: string): void {
    if (!/^[ -~]*$/.test(serial) || serial.length > VBLK_ID_SIZE)
      throw new VbusError("EINVAL", `"${serial}": write up to ${VBLK_ID_SIZE} characters of ASCII`);
    this.serial = serial;
  }

  #resize(size: number): void {
    if (size === this.medium.size) return;
    if (this.readOnly) throw new VbusError("EROFS", `${this.context.name} is read-only and keeps its size`);
    this.medium.resize(size, (error) => {
      if (error === null) this.#connection?.resized();
      else this.context.report(`${this.context.name}: the back end could not be resized to ${size}`, error);
    });
  }

  busConnect(bus: BusPublisher): void {
    this.#seat.connect(bus);
  }

  busDisconnect(bus: BusPublisher): void {
    this.#seat.disconnect(bus);
  }

  connect(memory: MemorySpace, version: number): Connection {
    if (version !== VBLK_VERSION)
      throw new VbusError("EINVAL", `vblk has version ${VBLK_VERSION}, not ${version}`);
    if (this.#connection !== null) throw new VbusError("EBUSY", `${this.context.name} is open already`);
    return (this.#connection = new VblkConnection(memory, this));
  }

  closed(): void {
    this.#connection = null;
  }

  save(): StateValue {
    return {
      attributes: saveAttributes(this.attributes, SAVED),
      statistics: saveCounters(this.statistics),
      medium: this.medium.save(),
    };
  }

  restore(state: StateReader): void {
    this.medium.check(state.get("medium"));
    restoreAttributes(this.attributes, state.get("attributes"), SAVED);
    restoreCounters(this.statistics, state.get("statistics"));
    this.statistics.outstanding = 0; // a session brings along what is outstanding
  }

  restoreSession(memory: MemorySpace, state: StateReader, signals: RestoredSignals): Connection {
    if (this.#connection !== null) throw new VbusError("EBUSY", `${this.context.name} is open already`);
    return (this.#connection = VblkConnection.restore(memory, this, state, signals));
  }

  ringFailed(ring: BlockRing, queue: number, error: unknown): void {
    const guilty = error instanceof VbusError && error.code === "EPROTO";
    this.context.report(
      `${this.context.name}: ${guilty ? "the guest broke" : "the host failed at"} the ${ring} ring${queue === 0 ? "" : ` of queue ${queue}`}; it works again once the guest reopens the device`,
      error,
    );
  }

  backendDid(error: unknown): void {
    if (error !== null && !this.#failing) {
      this.context.report(
        `${this.context.name}: ${this.backend.description} failed; told again only after it worked in between`,
        error,
      );
    }
    this.#failing = error !== null;
  }

  release(): void {
    this.medium.close((error) => {
      if (error !== null)
        this.context.report(`${this.context.name}: ${this.backend.description} could not be closed`, error);
    });
  }
}
