import { VbusError } from "../errors.js";
import { Gate } from "../gate.js";
import { checkGiven } from "../given.js";
import type { Scheduler } from "../scheduler.js";
import { StateError } from "../state/error.js";
import type { StateReader, StateValue } from "../state/reader.js";
import type { RestoreOptions, Saveable } from "../state/saveable.js";
import { Bus, type BusOptions } from "./bus.js";
import { DeviceNode, type DeviceOwner, type ManagedDevice } from "./device.js";
import { Emitter, type TreeEvents, type TreeEventType, type Unsubscribe } from "./emitter.js";
import { checkName } from "./names.js";
import { readTree, restoreTree, saveTree } from "./saved-tree.js";
import { sysfs } from "./sysfs.js";
import { Tree } from "./tree.js";
import type { DeviceClass } from "./types.js";

/** What a {@link Vbus} needs. */
export interface VbusOptions {
  /** Where deferred work of this thread runs. */
  scheduler: Scheduler;
}

interface ClassEntry {
  readonly implementation: DeviceClass;
  users: number;
}

/**
 * The root of the host's side: device classes, devices and buses (`docs/abi/vbus-bus.md` sections 1 to 3). The
 * administrator's object; guests see only what a {@link Bus} lets their clients see. Used by one thread.
 *
 * ```ts
 * const vbus = new Vbus({ scheduler });
 * vbus.registerClass(venetClass);
 * const bus = vbus.createBus("bus0");
 * bus.connect(vbus.createDevice("nic0", "venet", { client_mac: "02:00:00:00:00:01" }));
 * bus.admit("guest-a");
 * console.log(vbus.tree());
 * ```
 */
export class Vbus implements Saveable {
  /** As `Saveable.stateName` says: `vbus`. A tree is a part of its own when a machine is saved. */
  readonly stateName = "vbus";
  readonly #scheduler: Scheduler;
  readonly #emitter: Emitter;
  readonly #classes = new Map<string, ClassEntry>();
  readonly #devices = new Map<string, DeviceNode>();
  readonly #buses = new Map<string, Bus>();
  readonly #tree: Tree;
  #closed = false;

  /** @param options - where deferred work runs */
  constructor(options: VbusOptions) {
    this.#scheduler = options.scheduler;
    this.#emitter = new Emitter(options.scheduler, null);
    this.#tree = new Tree(
      "vbus",
      sysfs(
        {
          classes: () => this.#classes.keys(),
          devices: () => this.#devices.values(),
          buses: () => [...this.#buses.values()].map((bus) => bus.view),
        },
        null,
      ),
    );
  }

  /** Names of registered classes. */
  get classes(): readonly string[] {
    return [...this.#classes.keys()];
  }

  /** Devices, in order of creation. */
  get devices(): readonly ManagedDevice[] {
    return [...this.#devices.values()];
  }

  /** Buses, in order of creation. */
  get buses(): readonly Bus[] {
    return [...this.#buses.values()];
  }

  /** The device of that name. */
  device(name: string): ManagedDevice | undefined {
    return this.#devices.get(name);
  }

  /** The bus of that name. */
  bus(name: string): Bus | undefined {
    return this.#buses.get(name);
  }

  /** Subscribes to events of everything, buses included. Returns what ends the subscription. */
  on<Type extends TreeEventType>(type: Type, listener: (event: TreeEvents[Type]) => void): Unsubscribe {
    return this.#emitter.on(type, listener);
  }

  /** Registers a class. @throws VbusError EEXIST (name taken), EINVAL (no class, unusable name), ENODEV (closed) */
  registerClass(deviceClass: DeviceClass): void {
    this.#check();
    checkGiven(
      deviceClass,
      "the class to register is",
      "give what makes devices: `vbus.registerClass(venetClass({ port }))`",
      "create",
    );
    const { name } = deviceClass;
    checkName("class", name);
    this.#checkFree("class", name, this.#classes);
    this.#classes.set(name, { implementation: deviceClass, users: 0 });
    this.#emitter.emit("classRegistered", { className: name });
  }

  /**
   * Unregisters a class.
   * @throws VbusError ENOENT (unknown), EBUSY while devices of it live (also removed ones that a session still uses)
   */
  unregisterClass(name: string): void {
    const entry = this.#class(name);
    if (entry.users > 0) {
      throw new VbusError(
        "EBUSY",
        `class "${name}" has ${entry.users} devices; remove them and close their sessions first`,
      );
    }
    this.#forgetClass(name);
  }

  /** Creates a bus. @throws VbusError EEXIST (name taken), EINVAL (unusable name), ENODEV (closed) */
  createBus(name: string, options: BusOptions = {}): Bus {
    this.#check();
    checkName("bus", name);
    this.#checkFree("bus", name, this.#buses);
    const bus = new Bus(
      name,
      {
        scheduler: this.#scheduler,
        emitter: this.#emitter,
        device: (device) => this.#devices.get(device),
        busClosed: (closed) => this.#buses.delete(closed.name),
      },
      options,
    );
    this.#buses.set(name, bus);
    this.#emitter.emit("busCreated", { bus: name });
    return bus;
  }

  /** Removes a bus: devices leave it, its clients end. @throws VbusError ENOENT (unknown) */
  removeBus(name: string): void {
    const bus = this.#buses.get(name);
    if (bus === undefined) throw new VbusError("ENOENT", `there is no bus "${name}"`);
    bus.close();
  }

  /**
   * Creates a device of a class and writes attributes, in the order given. When one cannot be written, the device is
   * released again.
   * @throws VbusError EEXIST (name taken), ENOENT (unknown class or attribute), EINVAL (unusable name), ENODEV (closed);
   *   what the class throws passes unchanged
   */
  createDevice(
    name: string,
    className: string,
    attributes: Readonly<Record<string, string>> = {},
  ): ManagedDevice {
    this.#check();
    checkName("device", name);
    this.#checkFree("device", name, this.#devices);
    const entry = this.#class(className);
    // counted before it exists: the class must not be unregistered from inside its own create()
    entry.users++;
    let node: DeviceNode;
    try {
      node = this.#createNode(name, entry);
    } catch (error) {
      entry.users--;
      throw error;
    }
    try {
      for (const [attribute, value] of Object.entries(attributes)) node.set(attribute, value);
    } catch (error) {
      node.discard();
      throw error;
    }
    this.#devices.set(name, node);
    this.#emitter.emit("deviceCreated", { device: name, className });
    return node;
  }

  #createNode(name: string, entry: ClassEntry): DeviceNode {
    const gate = new Gate(this.#scheduler);
    const implementation = entry.implementation.create({
      name,
      scheduler: gate,
      report: (message, error) => {
        this.#emitter.error(`devices/${name}`, message, error);
      },
    });
    return new DeviceNode(
      name,
      entry.implementation.name,
      implementation,
      gate,
      this.#emitter,
      this.#deviceOwner(entry),
    );
  }

  #deviceOwner(entry: ClassEntry): DeviceOwner {
    return {
      disconnect: (bus, device) => this.#buses.get(bus)?.detach(device),
      removed: (device) => this.#devices.delete(device.name),
      released: () => {
        entry.users--;
      },
    };
  }

  /**
   * Removes a device: it leaves its buses, its name is free at once. Open sessions stay usable; the device is released
   * with the last of them.
   * @throws VbusError ENOENT (unknown)
   */
  removeDevice(name: string): void {
    const node = this.#devices.get(name);
    if (node === undefined) throw new VbusError("ENOENT", `there is no device "${name}"`);
    node.close();
  }

  /**
   * Reads a path of the tree, such as `devices/nic0/client_mac`: a file's text without newline, the last name of what a
   * link points at, the names in a directory, one per line.
   * @throws VbusError ENOENT, EIO (no handler), errors of the device
   */
  read(path: string): string {
    return this.#tree.read(path);
  }

  /** Writes a path; one trailing newline is stripped. @throws VbusError ENOENT, EIO (no handler), EINVAL, errors of the device */
  write(path: string, value: string): void {
    this.#tree.write(path, value);
  }

  /** Names in a directory. @throws VbusError ENOENT; EINVAL when it is none */
  list(path: string): string[] {
    return this.#tree.list(path);
  }

  /** Prints the tree, or what lies under a path, like `tree /sys/vbus`. @throws VbusError ENOENT */
  tree(path?: string): string {
    return this.#tree.print(path);
  }

  /** As `Saveable.holds` says: several guests that share the tree may be saved at once. */
  get holds(): null {
    return null;
  }

  /** As `Saveable.settle` says: sessions are the connectors' affair. */
  async settle(): Promise<void> {
    // nothing of the tree takes time
  }

  /** As `Saveable.hold` says. */
  hold(): void {
    // nothing of the tree touches guest memory
  }

  /** As `Saveable.release` says. */
  release(): void {
    // nothing was held
  }

  /** As `Saveable.save` says: buses with members and devices, devices with their classes and what the administrator set. */
  save(): StateValue {
    return saveTree(this.devices, this.buses);
  }

  /** As `Saveable.check` says. @throws StateError mismatch for a class that is not registered, or a device of another class */
  check(state: StateReader): void {
    const tree = readTree(state);
    for (const { name, className } of tree.devices) {
      const device = this.#devices.get(name);
      if (device === undefined ? !this.#classes.has(className) : device.className !== className)
        throw new StateError(
          "mismatch",
          `the state has a device "${name}" of class "${className}"; ${device === undefined ? "register that class first" : `here it is one of class "${device.className}"`}`,
        );
    }
  }

  /** As `Saveable.clear` says: the tree outlives its guests. */
  clear(): void {
    // sessions are cleared by their connectors
  }

  /**
   * As `Saveable.restore` says: devices, buses and members that are missing are created, those that are there become what was
   * saved. What the state does not know stays, and is new to the guest.
   * @throws StateError; VbusError of classes and attributes
   */
  restore(state: StateReader, options: RestoreOptions = {}): void {
    restoreTree(this, readTree(state), options);
  }

  /** Removes all buses, devices and classes. Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const bus of this.buses) bus.close();
    for (const device of this.devices) device.close();
    for (const name of this.classes) this.#forgetClass(name);
  }

  #check(): void {
    if (this.#closed) throw new VbusError("ENODEV", "this Vbus was closed; create a new one");
  }

  #checkFree(what: string, name: string, taken: ReadonlyMap<string, unknown>): void {
    if (taken.has(name))
      throw new VbusError("EEXIST", `there is a ${what} "${name}" already; choose another name`);
  }

  #forgetClass(name: string): void {
    this.#classes.delete(name);
    this.#emitter.emit("classUnregistered", { className: name });
  }

  #class(name: string): ClassEntry {
    const entry = this.#classes.get(name);
    if (entry !== undefined) return entry;
    const known = this.classes.join(", ");
    throw new VbusError("ENOENT", `there is no device class "${name}"; registered: ${known || "none"}`);
  }
}
