import { VIRTIO_F_RING_RESET, VIRTQ_MAX_SIZE } from "../../assembly/abi/virtio.js";
import {
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FAILED,
  VIRTIO_STATUS_FEATURES_OK,
  VIRTIO_STATUS_NEEDS_RESET,
} from "../../assembly/abi/virtio-status.js";
import { VbusError } from "../errors.js";
import { Gate } from "../gate.js";
import type { MemorySpace } from "../memory/space.js";
import type { Scheduler } from "../scheduler.js";
import { StateError } from "../state/error.js";
import { bitsValue, type StateReader, type StateValue } from "../state/reader.js";
import type { RestoreOptions } from "../state/saveable.js";
import { VirtioConfig } from "./config.js";
import { DeviceSession } from "./device-session.js";
import { featureMask, offeredFeatures, ringFormat, type VirtioRingOptions } from "./features.js";
import { FeatureNegotiation, readChoice } from "./negotiation.js";
import { DeviceNotifications } from "./notifications.js";
import { VirtioQueueSetup, type VirtioQueueArea } from "./queue.js";
import type { VirtioFace, VirtioQueue, VirtioSession } from "./types.js";

const READY = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;
/** Bits that a driver sets (virtio 1.2: 2.1). */
const DRIVER_BITS = READY | VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_FAILED;
/** Room for the device configuration in the smallest layout. */
const CONFIG_MAX = 184;

/** How a {@link VirtioDevice} is wired. */
export interface VirtioDeviceOptions {
  /** The device. */
  readonly face: VirtioFace;
  /** The guest's memory. */
  readonly memory: MemorySpace;
  /** Where deferred work of this thread runs. */
  readonly scheduler: Scheduler;
  /** What is offered of rings and transport. */
  readonly rings?: VirtioRingOptions;
  /** A queue has something for the driver. May be called from within any access, and from tasks. */
  readonly queueInterrupt: (index: number) => void;
  /** The configuration changed, or the device needs a reset. As `queueInterrupt`. */
  readonly configInterrupt: () => void;
  /** The device was reset: what the transport keeps of it (vectors, pending interrupts, selections) goes, too. */
  readonly onReset?: () => void;
  /** Told of errors that hurt nothing but this device. */
  readonly onError?: (error: unknown) => void;
}

/** What a {@link VirtioDevice} counted. */
export interface VirtioDeviceCounters {
  /** Times a driver reached DRIVER_OK with everything in order. */
  starts: number;
  /** Resets, by a driver or by the machine. */
  resets: number;
  /** Times FEATURES_OK did not stick: nothing negotiated, bits that were not offered, dependencies, wrong order. */
  refusals: number;
  /** Kicks that reached the device. */
  kicks: number;
  /** Kicks for queues that do not exist, are not enabled, or before DRIVER_OK: ignored. */
  strayKicks: number;
  /** Queues that were enabled with an impossible size or outside of memory. */
  badQueues: number;
  /** Queues that were reset one by one. */
  queueResets: number;
  /** Writes that came too late or too early for what they change, or make no sense: ignored. */
  ignoredWrites: number;
  /** Times the device asked for a reset. */
  needsReset: number;
  /** Times a driver gave the device up (FAILED). */
  failures: number;
  /** Used-buffer notifications asked for. */
  queueInterrupts: number;
  /** Configuration change notifications asked for. */
  configInterrupts: number;
}

/**
 * Whether a face can be carried at all.
 * @throws VbusError EINVAL for a face with queues or a configuration that no transport can carry
 */
export function checkFace(face: VirtioFace): void {
  if (face.configSize < 0 || face.configSize > CONFIG_MAX || !Number.isInteger(face.configSize))
    throw new VbusError(
      "EINVAL",
      `${face.name} has ${face.configSize} bytes of configuration; 0 to ${CONFIG_MAX} can be`,
    );
  const odd = face.queueSizes.find(
    (size) => !(size >= 1 && size <= VIRTQ_MAX_SIZE && Number.isInteger(Math.log2(size))),
  );
  if (odd !== undefined)
    throw new VbusError(
      "EINVAL",
      `${face.name} has a queue of ${odd}; give powers of two from 1 to ${VIRTQ_MAX_SIZE}`,
    );
}

/**
 * The device side of virtio that is the same whatever carries it (virtio 1.2: 2.1 … 2.6, 3.1): status, feature negotiation,
 * configuration, queues. A transport lays registers over it; accesses come from a guest and never throw.
 *
 *     writeStatus     ACKNOWLEDGE │ DRIVER │ features … FEATURES_OK │ queues … DRIVER_OK │ kick, interrupts
 *       0             ◀───────────────────────── reset, from anywhere ─────────────────────────
 *
 * Order rules, where a driver breaks them: FEATURES_OK without DRIVER, or with features that cannot be, does not stick; features, sizes and addresses that come after what they decide are ignored; a queue enabled before FEATURES_OK,
 * an impossible queue, DRIVER_OK without FEATURES_OK put the device into DEVICE_NEEDS_RESET, because nothing good can follow.
 * Bits of the status cannot be cleared one by one (2.1.1).
 */
export class VirtioDevice {
  /** The device. */
  readonly face: VirtioFace;
  /** Its queues. */
  readonly queues: readonly VirtioQueueSetup[];
  /** Its configuration. */
  readonly config: VirtioConfig;
  readonly #options: VirtioDeviceOptions;
  readonly #rings: VirtioRingOptions;
  #status = 0;
  readonly #features: FeatureNegotiation;
  #session: DeviceSession | null = null;
  #closed = false;
  /** Where everything of the device runs. */
  readonly #gate: Gate;
  readonly #notifications: DeviceNotifications;
  readonly #counters = {
    starts: 0,
    resets: 0,
    refusals: 0,
    kicks: 0,
    strayKicks: 0,
    badQueues: 0,
    queueResets: 0,
    ignoredWrites: 0,
    needsReset: 0,
    failures: 0,
  };

  /** @throws VbusError EINVAL for a face with queues or a configuration that no transport can carry */
  constructor(options: VirtioDeviceOptions) {
    const { face, rings = {} } = options;
    checkFace(face);
    this.face = face;
    this.#options = options;
    this.#gate = new Gate(options.scheduler);
    this.#rings = rings;
    this.#features = new FeatureNegotiation(face, rings);
    this.#notifications = new DeviceNotifications(options);
    this.config = new VirtioConfig(
      face,
      () => this.negotiated,
      (error) => {
        this.#error(error);
      },
    );
    this.queues = face.queueSizes.map(
      (maximum, index) =>
        new VirtioQueueSetup(index, maximum, () => {
          this.#notifications.queue(index);
        }),
    );
  }

  /** The device status field. */
  get status(): number {
    return this.#status;
  }

  /** Features that both sides agreed on; 0n before FEATURES_OK. */
  get negotiated(): bigint {
    return (this.#status & VIRTIO_STATUS_FEATURES_OK) === 0 ? 0n : this.#features.choice;
  }

  /** True while the device works for a driver. */
  get running(): boolean {
    return this.#session !== null;
  }

  /** What is offered, from the first look after a reset on. */
  get offered(): bigint {
    return this.#features.offered;
  }

  /** 32 of the offered bits; word 0 holds bits 0 to 31. */
  offeredWord(word: number): number {
    return this.#features.offeredWord(word);
  }

  /** 32 of the bits that the driver chose. */
  chosenWord(word: number): number {
    return this.#features.chosenWord(word);
  }

  /** The driver chooses 32 bits. Ignored after FEATURES_OK. */
  chooseWord(word: number, value: number): void {
    if (this.#mayChoose()) this.#features.chooseWord(word, value);
  }

  /** The driver chooses all bits at once. False, and nothing done, when that comes too late. */
  choose(features: bigint): boolean {
    if (!this.#mayChoose()) return false;
    this.#features.choose(features);
    return true;
  }

  #mayChoose(): boolean {
    const late = (this.#status & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK)) !== 0;
    if (this.#closed || late) this.ignoreWrite();
    return !this.#closed && !late;
  }

  /** The driver writes the status field: 0 resets, anything else adds bits. */
  writeStatus(value: number): void {
    if (this.#closed) return;
    if (value === 0) {
      this.reset();
      return;
    }
    const added = value & DRIVER_BITS & ~this.#status;
    if ((this.#status & ~value & DRIVER_BITS) !== 0) this.#counters.ignoredWrites++;
    this.#status |= added & READY;
    if ((added & VIRTIO_STATUS_FAILED) !== 0) {
      this.#status |= VIRTIO_STATUS_FAILED;
      this.#counters.failures++;
      this.#endSession();
      return;
    }
    if ((added & VIRTIO_STATUS_FEATURES_OK) !== 0) this.#featuresOk();
    if ((added & VIRTIO_STATUS_DRIVER_OK) !== 0) this.#driverOk();
  }

  #featuresOk(): void {
    const dead = VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET | VIRTIO_STATUS_FAILED;
    if (
      // ACKNOWLEDGE says nothing that matters, and a guest that was restored from a saved state may have said it before
      (this.#status & VIRTIO_STATUS_DRIVER) !== 0 &&
      (this.#status & dead) === 0 &&
      this.#guard(() => this.#features.acceptable, false)
    ) {
      this.#status |= VIRTIO_STATUS_FEATURES_OK;
      this.config.refresh(); // fields may depend on features
    } else {
      this.#counters.refusals++;
    }
  }

  #driverOk(): void {
    this.#status |= VIRTIO_STATUS_DRIVER_OK;
    if ((this.#status & VIRTIO_STATUS_FAILED) !== 0) return;
    if ((this.#status & VIRTIO_STATUS_NEEDS_RESET) !== 0) {
      this.#notifications.configuration(); // what went wrong before, it could not be told
      return;
    }
    if ((this.#status & VIRTIO_STATUS_FEATURES_OK) === 0) {
      this.#needsReset(
        new VbusError("EPROTO", `the driver of ${this.face.name} set DRIVER_OK without FEATURES_OK`),
      );
      return;
    }
    try {
      this.#start();
    } catch (error) {
      this.#needsReset(error);
    }
  }

  /** The driver is there. @throws what the device throws; there is no session then */
  #start(): void {
    const session = new DeviceSession(this, this.#options.memory, this.#gate, this.negotiated, (error) => {
      this.#needsReset(error);
    });
    this.#session = session;
    try {
      const face = this.face.start(session);
      session.face = face;
      // a reset from within start: what it has just begun ends at once
      if (session.live) this.#counters.starts++;
      else this.#stop(face);
    } catch (error) {
      if (this.#session === session) this.#session = null;
      session.live = false;
      throw error;
    }
  }

  /** As `Saveable.settle` says. @throws VbusError EOPNOTSUPP for a device that does not say how it is saved */
  async settle(): Promise<void> {
    const face = this.#session?.face ?? null;
    if (face !== null && face.save === undefined)
      throw new VbusError(
        "EOPNOTSUPP",
        `${this.face.name} does not say how it is saved; have the guest's driver let go of it before`,
      );
    this.#holdGate();
    await face?.settle?.();
  }

  /** As `Saveable.hold` says. */
  hold(): void {
    this.#holdGate();
    this.#notifications.hold();
  }

  #gateHeld = false;

  #holdGate(): void {
    if (!this.#gateHeld) this.#gate.hold();
    this.#gateHeld = true;
  }

  /** As `Saveable.release` says. */
  release(): void {
    if (!this.#gateHeld) return;
    this.#gateHeld = false;
    this.#notifications.release();
    this.#gate.release();
    const session = this.#session;
    const restored = session?.restored === true;
    if (session !== null) {
      session.restored = false;
      this.#guard(() => session.face?.resumed?.(restored), undefined);
    }
    this.#notifications.deliver();
  }

  /** As `Saveable.save` says. */
  save(): StateValue {
    const face = this.#session?.face ?? null;
    return {
      type: this.face.deviceType,
      status: this.#status,
      ...this.#features.save(),
      config: this.config.save(),
      queues: this.queues.map((setup) => setup.save()),
      session: face === null ? null : { face: face.save?.() ?? null },
    };
  }

  /** As `Saveable.check` says. @throws StateError mismatch for another device, or one that offers less */
  check(state: StateReader): void {
    const { face } = this;
    const type = state.get("type").number(0, 0xffffffff);
    const queues = state.get("queues").items(VIRTQ_MAX_SIZE);
    const chosen = readChoice(state);
    const status = state.get("status").number(0, 0xff);
    const offered = offeredFeatures(face, this.#rings);
    if (type !== face.deviceType || queues.length !== this.queues.length)
      throw new StateError(
        "mismatch",
        `the state has a virtio device of type ${type} with ${queues.length} queues where ${face.name} is, of type ${face.deviceType} with ${this.queues.length}; attach what was attached then`,
      );
    if ((status & VIRTIO_STATUS_FEATURES_OK) !== 0 && (chosen & ~offered) !== 0n)
      throw new StateError(
        "mismatch",
        `the guest negotiated features of ${face.name} (${bitsValue(chosen & ~offered)}) that it does not offer here; make it as it was`,
      );
  }

  /** As `Saveable.restore` says; the device was just reset. @throws StateError; VbusError ENOMEM */
  restore(state: StateReader, options: RestoreOptions = {}): void {
    this.check(state);
    try {
      this.#restore(state, options);
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  #restore(state: StateReader, options: RestoreOptions): void {
    const status = state.get("status").number(0, 0xff);
    const agreed = (status & VIRTIO_STATUS_FEATURES_OK) !== 0;
    if ((status & ~(DRIVER_BITS | VIRTIO_STATUS_NEEDS_RESET)) !== 0) state.fail("no status has such bits");
    this.#features.restore(state);
    if (agreed && !this.#guard(() => this.#features.acceptable, false))
      state.fail("no driver may have these features");
    this.#status = status;
    const format = ringFormat(this.negotiated, this.#rings);
    for (const [i, saved] of state.get("queues").items(this.queues.length).entries()) {
      if (!agreed && saved.get("enabled").boolean()) saved.fail("a queue is enabled after FEATURES_OK only");
      this.queues[i]?.restore(saved, this.#options.memory, format);
    }
    const session = state.get("session").nullable((at) => at.get("face"));
    if (session !== null) {
      const working = VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK;
      if ((status & working) !== working || (status & VIRTIO_STATUS_FAILED) !== 0)
        state.fail("a device works for a driver that is there alone");
      state.rebuild(this.face.name, () => {
        this.#start();
      });
      session.rebuild(this.face.name, () => this.#session?.face?.restore?.(session, options));
      if (this.#session !== null) this.#session.restored = true;
      // whatever became of an interrupt that was on its way: a driver bears one too many, and hears of what is different here
      for (const setup of this.queues) if (setup.queue !== null) this.#notifications.owe(setup.index);
      this.#notifications.oweConfiguration();
    }
    this.config.restore(state.get("config"));
  }

  /** The setup registers of a queue; undefined for one that does not exist. */
  queue(index: number): VirtioQueueSetup | undefined {
    return this.queues[index];
  }

  /** The driver sets a queue's size. */
  setQueueSize(index: number, size: number): void {
    if (this.#closed || this.queues[index]?.setSize(size) !== true) this.ignoreWrite();
  }

  /** The driver sets 32 bits of the address of one of a queue's areas. */
  setQueueAddress(index: number, area: VirtioQueueArea, high: boolean, value: number): void {
    if (this.#closed || this.queues[index]?.setAddress(area, high, value) !== true) this.ignoreWrite();
  }

  /** The driver enables a queue. */
  enableQueue(index: number): void {
    const setup = this.queues[index];
    if (this.#closed || setup === undefined || setup.enabled) {
      this.ignoreWrite();
      return;
    }
    if ((this.#status & VIRTIO_STATUS_FEATURES_OK) === 0) {
      this.ignoreWrite();
      this.#needsReset(
        new VbusError(
          "EPROTO",
          `the driver of ${this.face.name} enabled queue ${index} before FEATURES_OK: its format is unknown`,
        ),
      );
      return;
    }
    try {
      this.#enable(setup);
    } catch (error) {
      this.#needsReset(error);
    }
  }

  #enable(setup: VirtioQueueSetup): void {
    let queue: VirtioQueue;
    try {
      queue = setup.enable(this.#options.memory, ringFormat(this.negotiated, this.#rings));
    } catch (error) {
      this.#counters.badQueues++;
      throw error;
    }
    const face = this.#session?.face ?? null;
    if (face !== null) this.#guard(() => face.queueStarted?.(queue), undefined);
  }

  /**
   * The driver sets a queue up and enables it in one step: for transports that can say no. Refused, the queue is as it was.
   * @param areas - guest-physical addresses
   * @throws VbusError EINVAL (no such queue, no FEATURES_OK, FAILED, size, alignment), EEXIST, EFAULT, ENOMEM
   */
  openQueue(index: number, size: number, areas: Readonly<Record<VirtioQueueArea, number>>): void {
    const setup = this.queues[index];
    if (this.#closed || setup === undefined)
      throw new VbusError("EINVAL", `${this.face.name} has no queue ${index}; it has ${this.queues.length}`);
    const state = this.#status & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_FAILED);
    if (state !== VIRTIO_STATUS_FEATURES_OK)
      throw new VbusError("EINVAL", `queues of ${this.face.name} can be enabled after FEATURES_OK only`);
    if (setup.enabled)
      throw new VbusError("EEXIST", `queue ${index} of ${this.face.name} is enabled; reset it first`);
    setup.setSize(size);
    for (const area of ["descriptors", "driver", "device"] as const) {
      setup.setAddress(area, false, areas[area] % 2 ** 32);
      setup.setAddress(area, true, Math.floor(areas[area] / 2 ** 32));
    }
    try {
      this.#enable(setup);
    } catch (error) {
      setup.stop();
      throw error;
    }
  }

  /**
   * The driver resets a queue (RING_RESET): when this returns, it is as it was before it was set up. False when there was
   * nothing to reset, or the feature was not negotiated.
   */
  resetQueue(index: number): boolean {
    if ((this.negotiated & featureMask(VIRTIO_F_RING_RESET)) !== 0n) return this.stopQueue(index);
    this.ignoreWrite();
    return false;
  }

  /** {@link VirtioDevice.resetQueue} for transports in which every driver may stop a queue (virtio-mmio). */
  stopQueue(index: number): boolean {
    const setup = this.queues[index];
    if (this.#closed || setup?.enabled !== true) {
      this.ignoreWrite();
      return false;
    }
    this.#counters.queueResets++;
    if (setup.queue !== null) this.#guard(() => this.#session?.face?.queueStopped(index), undefined);
    setup.stop();
    return true;
  }

  /** The driver kicked a queue. Runs the device's work; see {@link VirtioDevice.postpone} for another time. */
  kick(index: number): void {
    const onKick = this.#session === null ? null : (this.queues[index]?.queue?.onKick ?? null);
    if (onKick === null) {
      this.#counters.strayKicks++;
      return;
    }
    this.#counters.kicks++;
    this.#guard(onKick, undefined);
  }

  /**
   * The kick of a queue will be handed in later: until then the driver need not kick it. False for kicks that lead nowhere.
   * The device asks for kicks again when it has done its work.
   */
  postpone(index: number): boolean {
    const queue = this.#session === null ? null : (this.queues[index]?.queue ?? null);
    if (queue === null || queue.onKick === null) return false;
    this.#guard(() => {
      queue.ring.disable();
    }, undefined);
    return true;
  }

  /** The device says that its configuration changed. */
  configChanged(): void {
    this.config.refresh();
    if (this.#session !== null) this.#notifications.configuration();
  }

  /** Counts a write that changes nothing; for transports. */
  ignoreWrite(): void {
    this.#counters.ignoredWrites++;
  }

  /** Ends what runs, and forgets everything that the driver said (virtio 1.2: 2.4). */
  reset(): void {
    if (this.#closed) return;
    this.#counters.resets++;
    this.#end();
  }

  /** What was counted so far. */
  counters(): VirtioDeviceCounters {
    const { queueInterrupts, configInterrupts } = this.#notifications;
    return { ...this.#counters, queueInterrupts, configInterrupts };
  }

  /** The device goes away. Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#end();
    this.#closed = true;
  }

  #end(): void {
    this.#endSession();
    for (const setup of this.queues) setup.stop();
    this.#status = 0;
    this.#features.reset();
    this.#notifications.clear();
    this.config.refresh();
    this.#options.onReset?.();
  }

  #endSession(): void {
    const session = this.#session;
    if (session === null) return;
    this.#session = null;
    session.live = false;
    if (session.face !== null) this.#stop(session.face);
  }

  #stop(face: VirtioSession): void {
    this.#guard(() => {
      face.stop();
    }, undefined);
  }

  #needsReset(error: unknown): void {
    this.#error(error);
    if (this.#closed || (this.#status & VIRTIO_STATUS_NEEDS_RESET) !== 0) return;
    this.#counters.needsReset++;
    this.#status |= VIRTIO_STATUS_NEEDS_RESET;
    // only a driver that is there can be told (2.1.2)
    if ((this.#status & VIRTIO_STATUS_DRIVER_OK) !== 0) this.#notifications.configuration();
  }

  #guard<T>(act: () => T, otherwise: T): T {
    try {
      return act();
    } catch (error) {
      this.#error(error);
      return otherwise;
    }
  }

  #error(error: unknown): void {
    this.#options.onError?.(error);
  }
}
