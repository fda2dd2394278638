import { NO_SIGNAL } from "../../assembly/abi/vbus.js";
import { IOQ_OFF_SIGNAL } from "../../assembly/abi/ioq.js";
import { Queue, queueSegmentLength, type QueueRole } from "../engine/queue.js";
import { QueueWakeups } from "../engine/wakeup.js";
import { VbusError } from "../errors.js";
import { ProxySignal, type ProxySignalOptions, type SignalSink } from "./proxy-signal.js";
import type { DeviceHandle, GuestEvent, GuestTransport } from "./transport.js";

/** A driver for one type of device (`docs/abi/vbus-bus.md` section 8). */
export interface Driver<Instance = unknown> {
  /** Type that it drives: exact, case-sensitive match; also its name. */
  readonly type: string;
  /** Takes a device. Rejecting leaves the device unbound; it is closed when probe opened it. */
  probe(device: ProxyDevice): Promise<Instance>;
  /** The device is going (unplugged, driver unregistered, guest leaving): give everything back. */
  remove(instance: Instance, device: ProxyDevice): Promise<void>;
}

/** How a driver wants a queue. */
export interface ProxyQueueOptions {
  /** Number of descriptors. */
  count: number;
  /** What the driver does on the ring. */
  role: QueueRole;
  /** What to look at besides `dirty` (`RECHECK_…`). */
  recheck: number;
  /** Runs when there may be something to do. */
  notifier: () => void;
  /** The queue broke, or the host let it go. */
  onBroken?: (error: unknown) => void;
  /** True: the 28-byte descriptors of 2009's 32-bit guests. */
  ilp32?: boolean;
  /** Extension bits to offer (`EXT_…`); default none. */
  offer?: number;
}

/** A queue of an opened device: the ring, its wake-ups, and its doorbell. */
export class ProxyQueue implements SignalSink {
  /** Drives notifications. */
  readonly wakeups: QueueWakeups;
  /** Handle to ring, once the host accepted the segment. */
  signalHandle: number | null = null;
  readonly #onBroken: ((error: unknown) => void) | undefined;

  /** @internal */
  constructor(
    readonly queue: Queue,
    readonly gpa: number,
    readonly cookie: number,
    device: ProxyDevice,
    options: ProxyQueueOptions,
  ) {
    this.#onBroken = options.onBroken;
    this.wakeups = new QueueWakeups(queue, {
      scheduler: device.bus.transport.scheduler,
      recheck: options.recheck,
      notifier: options.notifier,
      ...(options.onBroken === undefined ? {} : { onBroken: options.onBroken }),
      ring: () => {
        if (this.signalHandle !== null) device.bus.transport.ring(this.signalHandle);
      },
    });
  }

  /** @internal */
  woken(): void {
    this.wakeups.wakeup();
  }

  /** The host released the signal of a queue that the driver still has: it never wakes up again. @internal */
  released(): void {
    this.wakeups.close();
    this.#onBroken?.(
      new VbusError("ENOTCONN", "the host let the queue go; close the device and open it again"),
    );
  }
}

/** A device as its driver sees it: the proxy operations of `docs/abi/vbus-bus.md` section 8. */
export class ProxyDevice {
  #handle: DeviceHandle | null = null;
  #opening = false;
  #queues = new Set<ProxyQueue>();
  #signals = new Set<ProxySignal>();
  /** Guest memory that the host may use until the device is closed. */
  #lent: number[] = [];
  /** Told when the device was unplugged on the host; the driver's `remove` follows. */
  onDrop: (() => void) | null = null;
  /** Told, once, that the host is gone; nothing will be answered any more. */
  onLost: ((error: Error) => void) | null = null;

  /** @internal */
  constructor(
    readonly bus: ProxyBus,
    /** Number on the bus, as announced to this guest. */
    readonly id: number,
    /** Type string. */
    readonly type: string,
  ) {}

  /** What udev would match: `vbus-proxy:<type>`. */
  get modalias(): string {
    return `vbus-proxy:${this.type}`;
  }

  /** True between open and close. */
  get isOpen(): boolean {
    return this.#handle !== null;
  }

  /** Opens the device. @throws VbusError EINVAL when open already or refused (version), EBUSY, ENOENT, ENXIO */
  async open(version: number): Promise<void> {
    if (this.#handle !== null || this.#opening)
      throw new VbusError("EINVAL", `device ${this.id} is open already; close it first`);
    this.#opening = true;
    try {
      this.#handle = await this.bus.transport.open(this.id, version);
    } finally {
      this.#opening = false;
    }
  }

  #opened(): DeviceHandle {
    if (this.#handle === null) throw new VbusError("EINVAL", `device ${this.id} is not open; open it first`);
    return this.#handle;
  }

  /**
   * Calls the device with data that it may read and write in place; the data ends up as the device left it.
   * @throws VbusError with the device's errno
   */
  async call(func: number, data: Uint8Array = new Uint8Array(0), flags = 0): Promise<number> {
    const handle = this.#opened();
    const { transport } = this.bus;
    if (data.length === 0) return transport.call(handle, func, 0, 0, flags);
    const { ram, space } = transport.memory;
    const gpa = ram.allocate(data.length, 8);
    try {
      space.copyTo(gpa, data);
      const result = await transport.call(handle, func, gpa, data.length, flags);
      data.set(space.copyFrom(gpa, data.length));
      ram.free(gpa);
      return result;
    } catch (error) {
      // after a time-out the host may still write there: the block is never used again
      if (!(error instanceof VbusError) || error.code !== "ETIMEDOUT") ram.free(gpa);
      throw error;
    }
  }

  /** Shares a segment without a signal. It is the driver's to free after the device is closed. @throws VbusError */
  async shm(id: number, gpa: number, length: number, flags = 0): Promise<void> {
    await this.bus.transport.shm(this.#opened(), id, gpa, length, null, flags);
  }

  /**
   * Allocates zeroed guest memory that the host will learn of (in a descriptor, or by {@link ProxyDevice.shm}).
   * The device owns it: close() gives it back, once the host let go of it. Returns its guest-physical address.
   * @throws VbusError EINVAL when the device is not open, ENOMEM
   */
  lend(length: number, align = 64): number {
    this.#opened();
    const { ram, space } = this.bus.transport.memory;
    const gpa = ram.allocate(length, align);
    this.#lent.push(gpa);
    space.view(gpa, length).fill(0);
    return gpa;
  }

  /**
   * Allocates a zeroed pool and shares it as segment `id`, without a signal. The device owns it: close()
   * gives it back. Returns its guest-physical address. @throws VbusError as the device refuses, ENOMEM
   */
  async createPool(id: number, length: number): Promise<number> {
    const gpa = this.lend(length);
    try {
      await this.shm(id, gpa, length);
    } catch (error) {
      // refused: the host has nothing of it. No answer: close() will not get one either, and keeps it
      const at = this.#lent.indexOf(gpa); // closed meanwhile: given back already
      if (at >= 0 && (!(error instanceof VbusError) || error.code !== "ETIMEDOUT")) {
        this.#lent.splice(at, 1);
        this.bus.transport.memory.ram.free(gpa);
      }
      throw error;
    }
    return gpa;
  }

  /**
   * Allocates a ring, shares it as segment `id` and wires its notifications (masked until the driver enables them).
   * The device owns it: close() gives it back. @throws VbusError as the device refuses, ENOMEM, EINVAL (count)
   */
  async createQueue(id: number, options: ProxyQueueOptions): Promise<ProxyQueue> {
    const handle = this.#opened();
    const { transport } = this.bus;
    const { ram, space } = transport.memory;
    const length = queueSegmentLength(options.count, options.ilp32 ?? false);
    const gpa = ram.allocate(length, { align: 64, offset: 8 });
    let queue: Queue | undefined;
    let proxy: ProxyQueue | undefined;
    try {
      queue = Queue.create(space, {
        gpa,
        count: options.count,
        role: options.role,
        ...(options.ilp32 === undefined ? {} : { ilp32: options.ilp32 }),
        ...(options.offer === undefined ? {} : { offer: options.offer }),
      });
      const cookie = this.bus.nextCookie();
      proxy = new ProxyQueue(queue, gpa, cookie, this, options);
      this.bus.register(proxy); // before the call: an event may arrive before its answer
      proxy.signalHandle = await transport.shm(
        handle,
        id,
        gpa,
        length,
        { offset: IOQ_OFF_SIGNAL, prio: 0, cookie },
        0,
      );
    } catch (error) {
      if (proxy !== undefined) {
        proxy.wakeups.close();
        this.bus.unregister(proxy);
      }
      queue?.close();
      if (!(error instanceof VbusError) || error.code !== "ETIMEDOUT") ram.free(gpa);
      throw error;
    }
    this.#queues.add(proxy); // the host uses the ring from now on: whatever happens, close() gives it back, not we
    queue.negotiated();
    return proxy;
  }

  /**
   * Allocates a signal and shares it as segment `id` (masked until the driver enables it). The device owns it: close() gives it
   * back. @throws VbusError as the device refuses, ENOMEM
   */
  async createSignal(id: number, options: ProxySignalOptions): Promise<ProxySignal> {
    const handle = this.#opened();
    const { transport } = this.bus;
    const { ram } = transport.memory;
    const gpa = ram.allocate(ProxySignal.length, 64);
    let signal: ProxySignal | undefined;
    try {
      signal = new ProxySignal(transport, gpa, this.bus.nextCookie(), options);
      this.bus.register(signal); // before the call: an event may arrive before its answer
      const record = { offset: 0, prio: 0, cookie: signal.cookie };
      signal.signalHandle = await transport.shm(handle, id, gpa, ProxySignal.length, record, 0);
    } catch (error) {
      if (signal !== undefined) {
        signal.wakeups.close();
        this.bus.unregister(signal);
      }
      if (!(error instanceof VbusError) || error.code !== "ETIMEDOUT") ram.free(gpa);
      throw error;
    }
    this.#signals.add(signal);
    return signal;
  }

  /**
   * Closes the device on the host, then gives its queues, signals, pools and lent memory back. Twice is harmless; a host that is
   * gone is no error. Resolves with false when the host did not answer: it may still use what it was given, so memory that was shared with
   * it must not be used again.
   */
  async close(): Promise<boolean> {
    const handle = this.#handle;
    if (handle === null) return true;
    this.#handle = null;
    for (const proxy of this.#queues) {
      proxy.wakeups.close();
      this.bus.unregister(proxy); // so that its SHMCLOSE is nobody's surprise
    }
    for (const signal of this.#signals) {
      signal.wakeups.close();
      this.bus.unregister(signal);
    }
    let answered = true;
    try {
      await this.bus.transport.close(handle);
    } catch (error) {
      if (!(error instanceof VbusError)) throw error;
      // ENOENT, ENOTCONN: the session is gone already. A host that did not answer may still use the rings: keep them.
      answered = error.code !== "ETIMEDOUT";
    }
    for (const proxy of this.#queues) {
      proxy.queue.close();
      if (answered) this.bus.transport.memory.ram.free(proxy.gpa);
    }
    this.#queues.clear();
    if (answered) for (const { gpa } of this.#signals) this.bus.transport.memory.ram.free(gpa);
    this.#signals.clear();
    if (answered) for (const gpa of this.#lent) this.bus.transport.memory.ram.free(gpa);
    this.#lent = [];
    return answered;
  }
}

interface Binding {
  device: ProxyDevice;
  driver: Driver | null;
  instance: unknown;
  dropped: boolean;
  /** Probe or remove in progress; the next one waits for it. */
  busy: Promise<void>;
}

/** What happened on a proxy bus. */
export interface ProxyBusEvents {
  /** A device appeared. */
  add?: (device: ProxyDevice) => void;
  /** A device was unplugged. */
  drop?: (device: ProxyDevice) => void;
  /** A driver took a device. */
  bound?: (device: ProxyDevice, instance: unknown) => void;
  /** A probe or remove failed. */
  error?: (device: ProxyDevice, error: unknown) => void;
  /** The host is gone; told once, after the drivers were. */
  lost?: (error: Error) => void;
}

/** The guest's side of a bus: devices as they are announced, drivers as they are registered, matched by type. */
export class ProxyBus {
  /** Name of the bus in a guest. */
  readonly name = "vbus-proxy";
  #bindings = new Map<number, Binding>();
  #drivers = new Map<string, Driver>();
  #signals = new Map<number, SignalSink>();
  #cookie = 0;
  #closed = false;
  /** Removes in progress of devices that are gone already. */
  #leaving = new Set<Promise<void>>();
  /** Observers. What they throw goes to the scheduler's error handler. */
  readonly events: ProxyBusEvents;

  /**
   * @param transport - the guest half of a connector, not started yet
   * @param events - observers
   */
  constructor(
    readonly transport: GuestTransport,
    events: ProxyBusEvents = {},
  ) {
    this.events = events;
    transport.onEvent = (event) => {
      this.#event(event);
    };
    const { onLost } = transport;
    transport.onLost = (error) => {
      for (const { device } of this.#bindings.values()) this.#tell(() => device.onLost?.(error));
      this.#tell(() => this.events.lost?.(error));
      onLost?.(error);
    };
  }

  /** Calls an observer, whose failure is its own. */
  #tell(observer: () => void): void {
    try {
      observer();
    } catch (error) {
      this.transport.scheduler.post(() => {
        throw error;
      });
    }
  }

  /** Starts: devices present are announced and probed. */
  async start(): Promise<void> {
    await this.transport.start();
  }

  /** Devices present, by number. */
  get devices(): ProxyDevice[] {
    return [...this.#bindings.values()].filter((b) => !b.dropped).map((b) => b.device);
  }

  /**
   * Registers a driver and probes matching devices.
   * @throws VbusError EEXIST for a second driver of a type, ENOTCONN after close
   */
  registerDriver(driver: Driver): void {
    if (this.#closed) throw new VbusError("ENOTCONN", "this guest left the bus; make a new one");
    if (this.#drivers.has(driver.type))
      throw new VbusError("EEXIST", `there is a driver for ${driver.type} already; unregister it first`);
    this.#drivers.set(driver.type, driver);
    for (const binding of this.#bindings.values()) this.#probe(binding);
  }

  /** Unregisters a driver; its devices are removed from it first. */
  async unregisterDriver(driver: Driver): Promise<void> {
    if (this.#drivers.get(driver.type) !== driver) return;
    this.#drivers.delete(driver.type);
    await Promise.all([...this.#bindings.values()].map((binding) => this.#unbind(binding, driver)));
  }

  #probe(binding: Binding): void {
    const driver = this.#drivers.get(binding.device.type);
    if (driver === undefined) return;
    binding.busy = binding.busy.then(async () => {
      if (binding.dropped || binding.driver !== null || this.#drivers.get(driver.type) !== driver) return;
      const { device } = binding;
      try {
        binding.instance = await driver.probe(device);
      } catch (error) {
        await this.#closeDevice(device); // defect B3: a failed probe must not leave the session open
        this.#tell(() => this.events.error?.(device, error));
        return;
      }
      binding.driver = driver;
      this.#tell(() => this.events.bound?.(device, binding.instance));
    });
  }

  #unbind(binding: Binding, driver: Driver | null): Promise<void> {
    binding.busy = binding.busy.then(async () => {
      if (binding.driver === null || (driver !== null && binding.driver !== driver)) return;
      const { driver: bound, instance, device } = binding;
      binding.driver = null;
      binding.instance = undefined;
      try {
        await bound.remove(instance, device);
      } catch (error) {
        this.#tell(() => this.events.error?.(device, error));
      }
      await this.#closeDevice(device);
    });
    return binding.busy;
  }

  async #closeDevice(device: ProxyDevice): Promise<void> {
    try {
      await device.close();
    } catch (error) {
      this.#tell(() => this.events.error?.(device, error));
    }
  }

  #event(event: GuestEvent): void {
    if (this.#closed) return;
    switch (event.kind) {
      case "devadd": {
        if (this.#bindings.has(event.id)) return; // a host that announces twice is not worth a crash
        const device = new ProxyDevice(this, event.id, event.type);
        const binding: Binding = {
          device,
          driver: null,
          instance: undefined,
          dropped: false,
          busy: Promise.resolve(),
        };
        this.#bindings.set(event.id, binding);
        this.#tell(() => this.events.add?.(device));
        this.#probe(binding);
        return;
      }
      case "devdrop": {
        const binding = this.#bindings.get(event.id);
        if (binding === undefined) return;
        binding.dropped = true;
        this.#bindings.delete(event.id);
        this.#tell(() => binding.device.onDrop?.());
        this.#tell(() => this.events.drop?.(binding.device));
        const leaving = this.#unbind(binding, null);
        this.#leaving.add(leaving);
        void leaving.then(() => this.#leaving.delete(leaving));
        return;
      }
      case "shmsignal":
        this.#signals.get(event.cookie)?.woken();
        return;
      case "shmclose": {
        const signal = this.#signals.get(event.cookie);
        if (signal === undefined) return; // closed by its driver, as usual
        this.#signals.delete(event.cookie);
        this.#tell(() => signal.released());
        return;
      }
    }
  }

  /** Resolves when every probe and remove in progress has ended. */
  async settled(): Promise<void> {
    await Promise.all([...this.#leaving, ...[...this.#bindings.values()].map((binding) => binding.busy)]);
  }

  /** Removes every device from its driver and leaves the bus. Twice is harmless. */
  async close(): Promise<void> {
    this.#closed = true;
    const removed = [...this.#bindings.values()].map((binding) => this.#unbind(binding, null));
    await Promise.all([...this.#leaving, ...removed]);
    this.transport.disconnect();
  }

  /** @internal */
  nextCookie(): number {
    this.#cookie = this.#cookie === NO_SIGNAL ? 1 : this.#cookie + 1;
    return this.#signals.has(this.#cookie) ? this.nextCookie() : this.#cookie;
  }

  /** @internal */
  register(signal: SignalSink): void {
    this.#signals.set(signal.cookie, signal);
  }

  /** @internal */
  unregister(signal: SignalSink): void {
    this.#signals.delete(signal.cookie);
  }
}
