import { VbusError } from "../errors.js";
import { nameOf } from "../given.js";
import type { Gate } from "../gate.js";
import type { Emitter } from "./emitter.js";
import type { Published } from "./interfaces.js";
import { checkName } from "./names.js";
import type { Attribute, Device } from "./types.js";

/** Where an interface of a device can be found. */
export interface InterfacePlace {
  /** Name of the bus. */
  readonly bus: string;
  /** Number on that bus. */
  readonly id: number;
  /** Name within the device. */
  readonly name: string;
  /** Type that drivers match. */
  readonly type: string;
}

/** A device as its administrator sees it. Created by `Vbus.createDevice`. */
export interface ManagedDevice {
  /** Unique name. */
  readonly name: string;
  /** Name of its class. */
  readonly className: string;
  /** What the class created: the device's own programming interface. */
  readonly implementation: Device;
  /** Names of the buses that it is connected to. */
  readonly buses: readonly string[];
  /** Interfaces that it publishes now. */
  readonly interfaces: readonly InterfacePlace[];
  /** Number of sessions that use it. */
  readonly connections: number;
  /** True once the administrator removed it. */
  readonly removed: boolean;
  /** Reads an attribute. @throws VbusError ENOENT (no such attribute), EIO (write-only, or it failed), errors of the device */
  get(attribute: string): string;
  /** Writes an attribute; one trailing newline is stripped. @throws VbusError as {@link ManagedDevice.get}; EIO: read-only; EINVAL: no text */
  set(attribute: string, value: string): void;
  /** Removes it, like `Vbus.removeDevice`. Twice is harmless. */
  close(): void;
}

/** Names in a device's directory that are no attributes. */
const RESERVED = new Set(["class", "interfaces"]);

/** What a device needs of those that hold it. */
export interface DeviceOwner {
  /** Takes it off a bus. */
  disconnect(bus: string, device: DeviceNode): void;
  /** It was removed: its name is free. */
  removed(device: DeviceNode): void;
  /** It was released: its class has one user less. */
  released(device: DeviceNode): void;
}

/**
 * A device and its references (`docs/abi/vbus-bus.md` section 7): one of the administrator, one per bus, one per
 * connection. The device is released with the last of them, once the administrator's is gone.
 */
export class DeviceNode implements ManagedDevice {
  /** Interfaces on all buses, in order of publication. */
  readonly published: Published[] = [];
  /** Names of the buses, as a set that their owner keeps. */
  readonly attached = new Set<string>();
  #users = 0;
  #removed = false;
  #released = false;

  /** @throws VbusError EINVAL for an attribute whose name is not usable in the tree; the device was released then */
  constructor(
    readonly name: string,
    readonly className: string,
    readonly implementation: Device,
    /** Where tasks of the device run. */
    readonly gate: Gate,
    private readonly emitter: Emitter,
    private readonly owner: DeviceOwner,
  ) {
    try {
      for (const attribute of implementation.attributes.keys()) this.#checkAttribute(attribute);
    } catch (error) {
      this.#giveBack();
      throw error;
    }
  }

  get buses(): readonly string[] {
    return [...this.attached];
  }

  get interfaces(): readonly InterfacePlace[] {
    return this.published.map((entry) => {
      const { bus, id, name, type } = entry.notice;
      return { bus, id, name, type };
    });
  }

  get connections(): number {
    return this.#users;
  }

  get removed(): boolean {
    return this.#removed;
  }

  get(attribute: string): string {
    return readAttribute(this.#place(attribute), this.#attribute(attribute));
  }

  set(attribute: string, value: string): void {
    writeAttribute(this.#place(attribute), this.#attribute(attribute), value);
  }

  close(): void {
    if (this.#removed) return;
    this.#removed = true;
    for (const bus of [...this.attached]) this.owner.disconnect(bus, this);
    this.owner.removed(this);
    this.emitter.emit("deviceRemoved", { device: this.name, className: this.className });
    this.#releaseWhenUnused();
  }

  /** Releases a device that never entered the tree. */
  discard(): void {
    this.#removed = true;
    this.#release();
  }

  /** A connection (or an attempt at one) uses the device. */
  hold(): void {
    this.#users++;
  }

  /** The converse of {@link DeviceNode.hold}. */
  drop(): void {
    this.#users--;
    this.#releaseWhenUnused();
  }

  /** A bus let go of the device. */
  detached(bus: string): void {
    this.attached.delete(bus);
    this.#releaseWhenUnused();
  }

  #place(attribute: string): string {
    return `devices/${this.name}/${attribute}`;
  }

  #attribute(attribute: string): Attribute {
    const found = this.implementation.attributes.get(attribute);
    if (found !== undefined) return found;
    const names = [...this.implementation.attributes.keys()].join(", ");
    throw new VbusError(
      "ENOENT",
      `device "${this.name}" has no attribute "${attribute}"; it has: ${names || "none"}`,
    );
  }

  #checkAttribute(attribute: string): void {
    checkName("attribute", attribute);
    if (RESERVED.has(attribute)) {
      throw new VbusError(
        "EINVAL",
        `class "${this.className}" has an attribute "${attribute}", a name that the tree itself uses; rename it`,
      );
    }
  }

  #releaseWhenUnused(): void {
    if (!this.#removed || this.#released || this.#users > 0 || this.attached.size > 0) return;
    this.#release();
    this.emitter.emit("deviceReleased", { device: this.name, className: this.className });
  }

  #release(): void {
    this.#released = true;
    this.#giveBack();
    this.owner.released(this);
  }

  #giveBack(): void {
    try {
      this.implementation.release();
    } catch (error) {
      this.emitter.error(`devices/${this.name}`, "the device failed in release()", error);
    }
  }
}

/** Reads an attribute; `path` is for messages. @throws VbusError EIO (write-only, or it failed), errors of the device */
export function readAttribute(path: string, attribute: Attribute): string {
  if (attribute.get === undefined) throw new VbusError("EIO", `"${path}" is write-only`);
  try {
    return attribute.get();
  } catch (error) {
    throw attributeError(path, "read", error);
  }
}

/**
 * Writes an attribute; one trailing newline is stripped, as `echo` appends one.
 * @throws VbusError EIO (read-only, or it failed), EINVAL (no text), errors of the device
 */
export function writeAttribute(path: string, attribute: Attribute, value: string): void {
  if (attribute.set === undefined) throw new VbusError("EIO", `"${path}" is read-only`);
  checkText(path, value);
  try {
    attribute.set(value.endsWith("\n") ? value.slice(0, -1) : value);
  } catch (error) {
    throw attributeError(path, "write", error);
  }
}

/** Attributes are lines of text, numbers and switches among them. */
function checkText(path: string, value: unknown): void {
  if (typeof value === "string") return;
  const instead =
    typeof value === "boolean" || typeof value === "number" ? `"${Number(value)}"` : `a text such as "1"`;
  throw new VbusError("EINVAL", `attributes are text: write ${instead} to "${path}", not ${nameOf(value)}`);
}

function attributeError(path: string, verb: string, error: unknown): VbusError {
  if (error instanceof VbusError) return error;
  return new VbusError("EIO", `the device failed to ${verb} "${path}"; see the cause`, { cause: error });
}
