import {
  MTU_DEFAULT,
  MTU_MAX,
  MTU_MIN,
  VENET_TXMITIGATION_DEFAULT,
  VENET_VERSION,
} from "../../../assembly/abi/venet.js";
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
import { isKept, restoreAttributes, restoreCounters, saveAttributes, saveCounters } from "../saved.js";
import type { RestoreOptions } from "../../state/saveable.js";
import { BusSeat } from "../seat.js";
import type { MemorySpace } from "../../memory/space.js";
import { formatMac, isGroupMac, parseMac } from "../../net/batch.js";
import { checkPort, type Port } from "../../net/port.js";
import { VenetConnection, type VenetEnvironment } from "./connection.js";
import { emptyStatistics, type VenetStatistics } from "./statistics.js";

/** How a NIC class is set up. */
export interface VenetClassOptions {
  /** Name of the class; default `venet`. */
  name?: string;
  /**
   * Gives a NIC its place in the network; called when its attribute `enabled` becomes 1, which fails with EINVAL when this is
   * no port (a promise, nothing). The NIC closes the port when it is disabled or removed.
   */
  port: (deviceName: string) => Port;
}

/** How long superframes wait for pages: well below what makes a switch give a port up (100 ms). */
const PAGE_WAIT_MS = 50;
/** Attributes that are saved, in the order in which they are restored. */
const SAVED = [
  "client_mac",
  "mtu",
  "txmitigation",
  "compact_descriptors",
  "lazy_indexes",
  "offloads",
  "txc",
  "page_wait_ms",
  "coalesce",
  "enabled",
];
/** Characters of an address. */
const ADDRESS_MAX = 17;
/** Type of the interface that drivers match. */
const INTERFACE_TYPE = "virtual-ethernet";

/** The device class of venet network cards (`docs/abi/venet.md`). Register it with `vbus.registerClass(...)`. */
export function venetClass(options: VenetClassOptions): DeviceClass {
  return {
    name: options.name ?? "venet",
    create: (context) => new VenetDevice(context, options),
  };
}

class VenetDevice implements Device, DeviceInterface, VenetEnvironment {
  readonly name = "default";
  readonly type = INTERFACE_TYPE;
  readonly statistics: VenetStatistics = emptyStatistics();
  readonly attributes: ReadonlyMap<string, Attribute>;
  port: Port | null = null;
  mtu = MTU_DEFAULT;
  txMitigation = VENET_TXMITIGATION_DEFAULT;
  lazyIndexes = false;
  compactDescriptors = false;
  coalesce = true;
  bufferWaitMs = PAGE_WAIT_MS;
  readonly policy = { offloads: true, txCompletionEvents: false };
  #mac = randomMac();
  #carrier = true;
  /** The state that is being restored is of a card with another address. */
  #renewed = false;
  /** So its guest knows another one. */
  #stale = false;
  #connection: VenetConnection | null = null;
  readonly #seat: BusSeat;

  constructor(
    private readonly context: DeviceContext,
    private readonly options: VenetClassOptions,
  ) {
    this.#seat = new BusSeat(context.name, this);
    this.attributes = new Map<string, Attribute>([
      [
        "client_mac",
        {
          get: () => formatMac(this.#mac),
          set: (value) => {
            this.#setMac(value);
          },
        },
      ],
      [
        "mtu",
        numberAttribute(
          () => this.mtu,
          (value) => {
            this.mtu = value;
          },
          MTU_MIN,
          MTU_MAX,
        ),
      ],
      [
        "enabled",
        flagAttribute(
          () => this.port !== null,
          (on) => {
            this.#enable(on);
          },
        ),
      ],
      ["ifname", { get: () => this.port?.name ?? "<disabled>" }],
      [
        "txmitigation",
        numberAttribute(
          () => this.txMitigation,
          (value) => {
            this.txMitigation = value;
          },
          0,
          0xffffffff,
        ),
      ],
      [
        "compact_descriptors",
        flagAttribute(
          () => this.compactDescriptors,
          (on) => {
            this.compactDescriptors = on;
          },
        ),
      ],
      [
        "lazy_indexes",
        flagAttribute(
          () => this.lazyIndexes,
          (on) => {
            this.lazyIndexes = on;
          },
        ),
      ],
      [
        "link",
        {
          get: () => (this.carrier && this.#connection?.linkUp === true ? "up" : "down"),
          set: (value) => {
            this.#setCarrier(value);
          },
        },
      ],
      [
        "offloads",
        flagAttribute(
          () => this.policy.offloads,
          (on) => {
            this.policy.offloads = on;
          },
        ),
      ],
      [
        "txc",
        flagAttribute(
          () => this.policy.txCompletionEvents,
          (on) => {
            this.policy.txCompletionEvents = on;
          },
        ),
      ],
      [
        "page_wait_ms",
        numberAttribute(
          () => this.bufferWaitMs,
          (value) => {
            this.bufferWaitMs = value;
          },
          1,
          60_000,
        ),
      ],
      [
        "coalesce",
        flagAttribute(
          () => this.coalesce,
          (on) => {
            this.coalesce = on;
          },
        ),
      ],
      ["queues", { get: () => JSON.stringify(this.#connection?.queueCounters() ?? null) }],
      ["statistics", { get: () => JSON.stringify(this.statistics) }],
    ]);
  }

  get scheduler(): DeviceContext["scheduler"] {
    return this.context.scheduler;
  }

  get clientMac(): Uint8Array {
    const bytes = new Uint8Array(6);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, Math.floor(this.#mac / 2 ** 32));
    view.setUint32(2, this.#mac >>> 0);
    return bytes;
  }

  #setMac(value: string): void {
    if (this.#connection !== null)
      throw new VbusError("EINVAL", "a guest has the NIC open; change client_mac while it is closed");
    const mac = parseMac(value);
    if (mac === null || mac === 0 || isGroupMac(mac)) {
      throw new VbusError("EINVAL", `"${value}" is no station address; write one such as 02:00:00:00:00:0a`);
    }
    this.#mac = mac;
  }

  /** What was set, but for a guest that knows another address: the card that was saved may be on this very network. */
  get carrier(): boolean {
    return this.#carrier && !this.#stale;
  }

  #setCarrier(value: string): void {
    if (value !== "up" && value !== "down") throw new VbusError("EINVAL", `"${value}": write up or down`);
    const up = value === "up";
    if (up === this.#carrier) return;
    this.#carrier = up;
    if (this.#stale) return;
    try {
      this.#connection?.carrierChanged(up);
    } catch (error) {
      this.#carrier = false; // a port that refuses the NIC is none
      throw error;
    }
  }

  #enable(on: boolean): void {
    if (on === (this.port !== null)) return;
    if (on) {
      const { name } = this.context;
      this.port = checkPort(this.options.port(name), `for ${name} \`port\` returned`, "it must return");
      try {
        this.#connection?.portChanged(true);
      } catch (error) {
        this.#closePort(); // a port that refuses the NIC is none: `enabled` stays 0
        throw error;
      }
    } else {
      this.#connection?.portChanged(false);
      this.#closePort();
    }
  }

  #closePort(): void {
    const { port } = this;
    this.port = null;
    port?.close();
  }

  busConnect(bus: BusPublisher): void {
    this.#seat.connect(bus);
  }

  busDisconnect(bus: BusPublisher): void {
    this.#seat.disconnect(bus);
  }

  connect(memory: MemorySpace, version: number): Connection {
    if (version !== VENET_VERSION)
      throw new VbusError("EINVAL", `venet has version ${VENET_VERSION}, not ${version}`);
    if (this.#connection !== null) throw new VbusError("EBUSY", `${this.context.name} is open already`);
    this.#renewed = this.#stale = false;
    return (this.#connection = new VenetConnection(memory, this));
  }

  restoreSession(memory: MemorySpace, state: StateReader, signals: RestoredSignals): Connection {
    if (this.#connection !== null) throw new VbusError("EBUSY", `${this.context.name} is open already`);
    this.#stale = this.#renewed;
    this.#renewed = false;
    return (this.#connection = VenetConnection.restore(memory, this, state, signals));
  }

  resumed(): void {
    // a guest that knows another address gets the card anew, when it has let go of it
    if (this.#stale) this.#seat.withdraw();
  }

  closed(): void {
    this.#connection = null;
    this.#stale = false;
    this.#seat.publishAgain((message, error) => {
      this.context.report(message, error);
    });
  }

  save(): StateValue {
    return {
      attributes: saveAttributes(this.attributes, SAVED),
      carrier: this.#carrier,
      statistics: saveCounters(this.statistics),
    };
  }

  restore(state: StateReader, options: RestoreOptions): void {
    const attributes = state.get("attributes");
    const kept = SAVED.filter((name) => isKept(name, options));
    restoreAttributes(this.attributes, attributes, kept);
    this.#renewed = parseMac(attributes.get("client_mac").text(ADDRESS_MAX)) !== this.#mac;
    this.#setCarrier(state.get("carrier").boolean() ? "up" : "down");
    restoreCounters(this.statistics, state.get("statistics"));
    this.statistics.tx.held = 0; // what a session holds it brings along
  }

  failed(queue: "rx" | "tx" | "event", error: unknown): void {
    const guilty = error instanceof VbusError && error.code === "EPROTO";
    this.context.report(
      `${this.context.name}: ${guilty ? "the guest broke" : "the host failed at"} the ${queue.toUpperCase()} ring; it works again once the guest reopens the device`,
      error,
    );
  }

  release(): void {
    this.#enable(false);
  }
}

/** A locally administered station address at random. */
function randomMac(): number {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  bytes[0] = ((bytes[0] as number) & 0xfc) | 2;
  return bytes.reduce((mac, byte) => mac * 256 + byte, 0);
}
