import { VIRTIO_F_RING_RESET } from "../../../assembly/abi/virtio.js";
import { VIRTIO_VBUS_SEGMENT_CONFIG } from "../../../assembly/abi/virtio-vbus.js";
import type {
  Connection,
  HostSignal,
  RestoredSignals,
  SavedSignals,
  SessionQueue,
  SharedSegment,
} from "../../bus/types.js";
import { Signal, type SignalCounters } from "../../engine/signal.js";
import { SignalWakeups } from "../../engine/signal-wakeup.js";
import type { VirtQueueCounters } from "../../engine/virtqueue.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import { VirtioDevice, type VirtioDeviceCounters } from "../../virtio/device.js";
import { featureMask, type VirtioRingOptions } from "../../virtio/features.js";
import type { VirtioQueueArea } from "../../virtio/queue.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { RestoreOptions } from "../../state/saveable.js";
import type { VirtioFace } from "../../virtio/types.js";
import { callOf, type CallTarget } from "./calls.js";

/** What a connection needs of its device. */
export interface VirtioVbusEnvironment {
  /** The virtio device. */
  readonly face: VirtioFace;
  /** What is offered of rings. */
  readonly rings: VirtioRingOptions;
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** Something went wrong that hurts this device alone. */
  failed(error: unknown): void;
  /** The session goes on, which may be one that was restored. */
  resumed(): void;
  /** The guest closed the device. */
  closed(): void;
}

/** What a queue and its signal counted. */
export interface VirtioVbusQueueReport {
  /** Its index. */
  index: number;
  /** Descriptors. */
  size: number;
  /** `split` or `packed`. */
  format: string;
  /** Chains that the device has and has not given back. */
  inFlight: number;
  /** Why it is broken, or null. */
  broken: string | null;
  /** The ring's counters. */
  ring: VirtQueueCounters;
  /** Counters of its signal. */
  signal: SignalCounters;
}

/**
 * One session of virtio over vbus (`docs/abi/virtio-vbus.md`): segments and calls on this side, the status machine that all
 * transports share on the other. Each queue has a signal that lives as long as the session; it listens while the queue is
 * enabled.
 */
export class VirtioVbusConnection implements Connection, CallTarget {
  readonly device: VirtioDevice;
  /** By segment id: queues by their indexes, and the configuration. */
  readonly #signals = new Map<number, SignalWakeups>();
  /** Where those lie, and the bus's half. */
  readonly #places = new Map<number, { readonly gpa: number; readonly signal: HostSignal }>();

  constructor(
    private readonly memory: MemorySpace,
    private readonly environment: VirtioVbusEnvironment,
  ) {
    this.device = new VirtioDevice({
      face: environment.face,
      memory,
      scheduler: environment.scheduler,
      rings: { ...environment.rings, notificationData: false }, // a kick carries nothing
      queueInterrupt: (index) => {
        this.#signals.get(index)?.inject();
      },
      configInterrupt: () => {
        this.#signals.get(VIRTIO_VBUS_SEGMENT_CONFIG)?.inject();
      },
      onReset: () => {
        for (const signal of this.#signals.values()) signal.disable();
      },
      onError: (error) => {
        environment.failed(error);
      },
    });
  }

  /** {@inheritDoc Connection.call} */
  call(func: number, gpa: number, length: number): number {
    const call = callOf(func, length);
    const data = length === 0 ? new Uint8Array(0) : this.memory.copyFrom(gpa, length);
    const result = call.run(this, new DataView(data.buffer));
    if (call.answers) this.memory.copyTo(gpa, data);
    return result;
  }

  /** {@inheritDoc Connection.queues} */
  queues(): readonly SessionQueue[] {
    return this.device.queues.flatMap(({ index, queue }) => {
      if (queue === null) return [];
      const signal = this.#signals.get(index)?.signal;
      const shown = { name: String(index), queue: queue.ring };
      return [signal === undefined ? shown : { ...shown, signal }];
    });
  }

  /** {@inheritDoc Connection.shm} */
  shm(id: number, segment: SharedSegment, signal: HostSignal | null): number {
    const isQueue = id < this.device.queues.length;
    if (!isQueue && id !== VIRTIO_VBUS_SEGMENT_CONFIG)
      throw new VbusError("EINVAL", `virtio over vbus has no segment ${id}`);
    if (signal === null) throw new VbusError("EINVAL", `segment ${id} is nothing but a signal; give one`);
    if (this.#signals.has(id)) throw new VbusError("EEXIST", `segment ${id} is shared already`);
    this.#listen(id, segment.gpa + signal.offset, signal);
    return 0;
  }

  /** @throws VbusError EFAULT, EINVAL */
  #listen(id: number, gpa: number, signal: HostSignal): void {
    const isQueue = id < this.device.queues.length;
    const wakeups = new SignalWakeups(Signal.attach(this.memory, gpa), {
      scheduler: this.environment.scheduler,
      notifier: () => {
        if (isQueue) this.device.kick(id);
      },
      ring: () => {
        signal.notify();
      },
    });
    this.#signals.set(id, wakeups);
    this.#places.set(id, { gpa, signal });
    signal.onDoorbell = wakeups.wakeup;
  }

  /** {@inheritDoc CallTarget.enableQueue} */
  enableQueue(index: number, size: number, areas: Record<VirtioQueueArea, number>): void {
    const signal = this.#signals.get(index);
    if (signal === undefined && this.device.queue(index) !== undefined)
      throw new VbusError("ENXIO", `queue ${index} has no signal; share its segment first`);
    this.device.openQueue(index, size, areas);
    signal?.enable();
  }

  /** {@inheritDoc CallTarget.resetQueue} */
  resetQueue(index: number): void {
    if (this.device.queue(index) === undefined) throw new VbusError("EINVAL", `there is no queue ${index}`);
    if ((this.device.negotiated & featureMask(VIRTIO_F_RING_RESET)) === 0n)
      throw new VbusError("EOPNOTSUPP", "queues are reset one by one only with VIRTIO_F_RING_RESET");
    if (this.device.queue(index)?.enabled !== true) return;
    this.device.resetQueue(index);
    this.#signals.get(index)?.disable();
  }

  /** {@inheritDoc Connection.settle} */
  async settle(): Promise<void> {
    await this.device.settle();
  }

  /** {@inheritDoc Connection.hold} */
  hold(): void {
    this.device.hold();
  }

  /** {@inheritDoc Connection.resume} */
  resume(): void {
    this.device.release();
    this.environment.resumed();
    for (const signal of this.#signals.values()) signal.schedule(); // a doorbell may have been on its way
  }

  /** {@inheritDoc Connection.save} */
  save(signals: SavedSignals): StateValue {
    return {
      device: this.device.save(),
      signals: [...this.#places].map(([id, { gpa, signal }]): StateValue => [
        id,
        gpa,
        signals.number(signal),
      ]),
    };
  }

  /** The session that was saved; held. @throws StateError; VbusError ENOMEM */
  static restore(
    memory: MemorySpace,
    environment: VirtioVbusEnvironment,
    state: StateReader,
    signals: RestoredSignals,
    options: RestoreOptions,
  ): VirtioVbusConnection {
    const connection = new VirtioVbusConnection(memory, environment);
    connection.device.hold();
    try {
      for (const item of state.get("signals").items(connection.device.queues.length + 1)) {
        const [id, gpa, number] = item.tuple(3) as [StateReader, StateReader, StateReader];
        const segment = id.number(0, VIRTIO_VBUS_SEGMENT_CONFIG);
        if (segment >= connection.device.queues.length && segment !== VIRTIO_VBUS_SEGMENT_CONFIG)
          id.fail("there is no such segment");
        if (connection.#signals.has(segment)) id.fail("the segment comes twice");
        const place = gpa.number(0, Number.MAX_SAFE_INTEGER);
        const signal = signals.take(number);
        item.rebuild("a signal", () => {
          connection.#listen(segment, place, signal);
        });
      }
      connection.device.restore(state.get("device"), options);
      for (const { index, enabled } of connection.device.queues)
        if (enabled && !connection.#signals.has(index))
          state.fail(`queue ${index} was enabled without a signal`);
    } catch (error) {
      connection.close();
      throw error;
    }
    return connection;
  }

  /** {@inheritDoc Connection.close} */
  close(): void {
    this.device.close();
    for (const signal of this.#signals.values()) signal.close();
    this.environment.closed();
  }

  /** Counters of the status machine. */
  counters(): VirtioDeviceCounters {
    return this.device.counters();
  }

  /** The queues that are in service. */
  queueReports(): VirtioVbusQueueReport[] {
    return this.device.queues.flatMap(({ index, size, queue }) => {
      const signal = this.#signals.get(index);
      if (queue === null || signal === undefined) return [];
      const { format, inFlight, broken } = queue.ring;
      const ring = queue.ring.counters();
      return [{ index, size, format, inFlight, broken, ring, signal: signal.signal.counters() }];
    });
  }
}
