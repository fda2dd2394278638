import { VbusError } from "../errors.js";
import { checkSpace, type MemorySpace } from "../memory/space.js";
import type { Scheduler } from "../scheduler.js";
import { Client, CLIENT_LIMITS, type ClientHost, type ClientLimits } from "./client.js";
import type { DeviceNode, ManagedDevice } from "./device.js";
import { Emitter, type TreeEvents, type TreeEventType, type Unsubscribe } from "./emitter.js";
import { Attachment, InterfaceTable, type Published } from "./interfaces.js";
import { checkName } from "./names.js";
import { sysfs, type BusView } from "./sysfs.js";
import { Tree } from "./tree.js";

/** What may be set when a bus is created. */
export interface BusOptions {
  /** Highest interface number; publishing fails with ENOSPC behind it. Default 2^32 - 1. */
  lastInterfaceId?: number;
  /** Limits of each client; those not given are the defaults of {@link ClientLimits}. */
  clientLimits?: Partial<ClientLimits>;
}

/** Who opens a client, and with which memory. */
export interface ClientOptions {
  /** The member it belongs to; must have been admitted. */
  member: string;
  /** The guest's memory. Belongs to the caller, and must live as long as the client. */
  memory: MemorySpace;
  /** Name for messages and events; default the member. */
  label?: string;
}

/** What a bus needs of the tree that it belongs to. */
export interface BusOwner {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** The root's listeners. */
  readonly emitter: Emitter;
  /** Finds a device of the same tree. */
  device(name: string): DeviceNode | undefined;
  /** The bus was closed: its name is free. */
  busClosed(bus: Bus): void;
}

/**
 * A bus: an isolated container of interfaces, and the members that may use them (`docs/abi/vbus-bus.md` section 1).
 * Nothing of one bus can be seen or opened through another. It outlives its guests. Created by `Vbus.createBus`.
 */
export class Bus {
  readonly #owner: BusOwner;
  readonly #emitter: Emitter;
  readonly #interfaces: InterfaceTable;
  readonly #attachments = new Map<DeviceNode, Attachment>();
  readonly #members = new Set<string>();
  readonly #clients = new Set<Client>();
  readonly #limits: ClientLimits;
  readonly #tree: Tree;
  #closed = false;

  /** Only for `Vbus.createBus`. @hidden */
  constructor(
    /** Unique name. */
    readonly name: string,
    owner: BusOwner,
    options: BusOptions,
  ) {
    this.#owner = owner;
    this.#limits = { ...CLIENT_LIMITS, ...options.clientLimits };
    this.#emitter = new Emitter(owner.scheduler, owner.emitter);
    this.#interfaces = new InterfaceTable(name, this.#emitter, options.lastInterfaceId ?? 2 ** 32 - 1);
    this.#tree = new Tree(
      name,
      sysfs(
        {
          classes: () => new Set([...this.#attachments.keys()].map((device) => device.className)),
          devices: () => this.#attachments.keys(),
          buses: () => [this.view],
        },
        name,
      ),
    );
  }

  /** Members admitted, in order. */
  get members(): readonly string[] {
    return [...this.#members];
  }

  /** Clients attached, in order. */
  get clients(): readonly Client[] {
    return [...this.#clients];
  }

  /** Devices connected, in order. */
  get devices(): readonly ManagedDevice[] {
    return [...this.#attachments.keys()];
  }

  /** True once it was removed. */
  get closed(): boolean {
    return this.#closed;
  }

  /** What the tree shows of it. @hidden */
  get view(): BusView {
    const published: Iterable<Published> = this.#interfaces.entries;
    return { name: this.name, members: this.members, published };
  }

  /** Subscribes to events of this bus: interfaces, members, clients, connections, errors. Returns what ends it. */
  on<Type extends TreeEventType>(type: Type, listener: (event: TreeEvents[Type]) => void): Unsubscribe {
    return this.#emitter.on(type, listener);
  }

  /**
   * Connects a device (or the one of that name): it publishes its interfaces, DEVADD goes to every client.
   * @throws VbusError ENOENT (no such device), EEXIST (connected to this bus already), ENODEV (bus or device was
   *   removed); EBUSY and others from the device
   */
  connect(device: ManagedDevice | string): void {
    this.#check();
    const node = this.#device(device);
    if (this.#attachments.has(node)) {
      throw new VbusError("EEXIST", `device "${node.name}" is connected to bus "${this.name}" already`);
    }
    const attachment = new Attachment(this.#interfaces, node);
    this.#attachments.set(node, attachment);
    node.attached.add(this.name);
    try {
      node.implementation.busConnect(attachment);
    } catch (error) {
      this.#attachments.delete(node);
      attachment.close();
      node.detached(this.name);
      throw error;
    }
    if (!attachment.open) {
      throw new VbusError("ENODEV", `device "${node.name}" was disconnected while it was being connected`);
    }
    this.#emitter.emit("deviceConnected", { bus: this.name, device: node.name });
  }

  /**
   * Disconnects a device: its interfaces vanish, DEVDROP goes to every client; open sessions stay until their guests
   * close them. It cannot be refused: what the device throws becomes an `error` event, what it leaves is withdrawn.
   * @throws VbusError ENOENT (no such device), EINVAL (not connected to this bus)
   */
  disconnect(device: ManagedDevice | string): void {
    const node = this.#device(device);
    if (!this.#attachments.has(node)) {
      throw new VbusError("EINVAL", `device "${node.name}" is not connected to bus "${this.name}"`);
    }
    this.detach(node);
  }

  /**
   * Admits a member. Twice is harmless.
   * @throws VbusError EINVAL for an unusable name, ENODEV when the bus was removed
   */
  admit(member: string): void {
    this.#check();
    checkName("member", member);
    if (this.#members.has(member)) return;
    this.#members.add(member);
    this.#emitter.emit("memberAdmitted", { bus: this.name, member });
  }

  /** Expels a member and disconnects its clients. Harmless when it is none. */
  expel(member: string): void {
    if (!this.#members.delete(member)) return;
    for (const client of [...this.#clients]) {
      if (client.member === member) client.end();
    }
    this.#emitter.emit("memberExpelled", { bus: this.name, member });
  }

  /**
   * Opens a client for a connector. The caller disconnects it.
   * @throws VbusError EPERM when the member was not admitted, EINVAL when the memory is none (or a promise of one), ENODEV
   *   when the bus was removed
   */
  openClient(options: ClientOptions): Client {
    this.#check();
    const { member, memory, label = member } = options;
    if (!this.#members.has(member)) {
      throw new VbusError("EPERM", `"${member}" is no member of bus "${this.name}"; admit() it first`);
    }
    checkSpace(memory, `\`memory\` of client "${label}" is`, "await openHostView(init)");
    const host: ClientHost = {
      interfaces: this.#interfaces,
      emitter: this.#emitter,
      scheduler: this.#owner.scheduler,
      clientClosed: (closed) => {
        this.#clients.delete(closed);
      },
    };
    const client = new Client(host, this.name, member, label, memory, this.#limits);
    this.#clients.add(client);
    this.#emitter.emit("clientOpened", client.notice);
    return client;
  }

  /**
   * Reads a path of the part of the tree that this bus has, such as `devices/nic0/client_mac`.
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

  /** Prints the part of the tree that this bus has, like `tree /sys/vbus`. @throws VbusError ENOENT */
  tree(path?: string): string {
    return this.#tree.print(path);
  }

  /** Removes the bus: devices leave, members are expelled, clients end. Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const node of [...this.#attachments.keys()]) this.detach(node);
    for (const member of [...this.#members]) this.expel(member);
    this.#owner.busClosed(this);
    this.#emitter.emit("busRemoved", { bus: this.name });
  }

  #check(): void {
    if (this.#closed) throw new VbusError("ENODEV", `bus "${this.name}" was removed; create a new one`);
  }

  #device(device: ManagedDevice | string): DeviceNode {
    if (typeof device === "string") {
      const found = this.#owner.device(device);
      if (found !== undefined) return found;
      throw new VbusError("ENOENT", `there is no device "${device}"; create it first`);
    }
    const found = this.#owner.device(device.name);
    if (found === device) return found;
    throw new VbusError("ENODEV", `device "${device.name}" was removed, or belongs to another tree`);
  }

  /** {@link Bus.disconnect} for the device itself; harmless when it is not connected. @hidden */
  detach(node: DeviceNode): void {
    const attachment = this.#attachments.get(node);
    if (attachment === undefined) return;
    this.#attachments.delete(node);
    try {
      node.implementation.busDisconnect(attachment);
    } catch (error) {
      this.#emitter.error(`devices/${node.name}`, `the device failed to leave bus "${this.name}"`, error);
    }
    attachment.close();
    this.#emitter.emit("deviceDisconnected", { bus: this.name, device: node.name });
    node.detached(this.name);
  }
}
