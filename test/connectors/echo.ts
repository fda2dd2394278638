import {
  BURST_SIGNAL,
  BURST_TRANSLATE,
  BurstTable,
  Queue,
  QueueWakeups,
  RECHECK_INUSE_HEAD,
  VbusError,
} from "vbus/engine";
import type { MemorySpace } from "vbus/memory";
import type { Scheduler } from "vbus/scheduler";
import type {
  Connection,
  Device,
  DeviceClass,
  DeviceInterface,
  HostSignal,
  PublishedInterface,
  SharedSegment,
} from "vbus/bus";

/** Type and version of the test device. */
export const ECHO_TYPE = "test-echo";
export const ECHO_VERSION = 3;

/** Calls: reverse the data in place; fail; throw; signal every segment n times; hang for n ms; release every signal. */
export const ECHO_REVERSE = 1;
export const ECHO_FAIL = 2;
export const ECHO_THROW = 3;
export const ECHO_SIGNAL = 4;
export const ECHO_HANG = 5;
export const ECHO_RELEASE = 6;

/** Segments: a transmit ring that is consumed; anything with a signal; one that is refused; one without a signal. */
export const ECHO_RING = 0;
export const ECHO_SIGNALLED = 1;
export const ECHO_REFUSED = 2;
export const ECHO_PLAIN = 3;

/** What happened to the test devices of this thread. */
export const echoed = { connects: 0, closes: 0, calls: 0, doorbells: 0, consumed: 0, bytes: 0 };

/** Ends ECHO_HANG before its time. */
export const hang = { over: (): boolean => false };

class EchoConnection implements Connection {
  #signals: HostSignal[] = [];
  #end: (() => void)[] = [];

  constructor(
    private readonly memory: MemorySpace,
    private readonly scheduler: Scheduler,
    private readonly closed: () => void,
  ) {}

  call(func: number, gpa: number, length: number, flags: number): number {
    echoed.calls++;
    switch (func) {
      case ECHO_REVERSE:
        this.memory.copyTo(gpa, this.memory.copyFrom(gpa, length).reverse());
        return length;
      case ECHO_FAIL:
        throw new VbusError("ENXIO", "this call always fails");
      case ECHO_THROW:
        throw new Error("this call throws");
      case ECHO_SIGNAL:
        for (let i = 0; i < flags; i++) for (const signal of this.#signals) signal.notify();
        return this.#signals.length;
      case ECHO_HANG: {
        const end = performance.now() + flags;
        while (performance.now() < end && !hang.over());
        return 0;
      }
      case ECHO_RELEASE:
        for (const signal of this.#signals) signal.release();
        this.#signals = [];
        return 0;
      default:
        return -22;
    }
  }

  shm(id: number, segment: SharedSegment, signal: HostSignal | null): number {
    if (id === ECHO_REFUSED) return -16;
    if (id === ECHO_RING) {
      if (signal === null) return -22;
      this.#consume(segment, signal);
    }
    if (signal !== null) {
      if (id !== ECHO_RING) signal.onDoorbell = () => echoed.doorbells++;
      this.#signals.push(signal);
    }
    return 7;
  }

  #consume(segment: SharedSegment, signal: HostSignal): void {
    const { gpa, length, memory } = segment;
    const queue = Queue.attach(memory, { gpa, length, role: "southTransmit" });
    const table = BurstTable.allocate(memory, 32);
    const wakeups = new QueueWakeups(queue, {
      scheduler: this.scheduler,
      recheck: RECHECK_INUSE_HEAD,
      notifier: () => {
        for (let n; (n = queue.peek("inuse", table, 32, BURST_TRANSLATE)) > 0;) {
          for (let i = 0; i < n; i++) echoed.bytes += table.length(i);
          echoed.consumed += n;
          if (queue.release("inuse", table, n, BURST_SIGNAL)) signal.notify();
        }
      },
      ring: () => {
        signal.notify();
      },
      onBroken: () => {},
    });
    signal.onDoorbell = wakeups.wakeup;
    wakeups.enable();
    this.#end.push(() => {
      wakeups.close();
      queue.close();
      table.close();
      signal.release();
    });
  }

  close(): void {
    echoed.closes++;
    for (const end of this.#end) end();
    for (const signal of this.#signals) signal.release();
    this.closed();
  }
}

/** A small device with everything that a connector carries: calls, a ring, signals, segments; one session at a time. */
export const echoClass: DeviceClass = {
  name: "echo",
  create(context): Device {
    let published: PublishedInterface | null = null;
    let busy = false;
    const face: DeviceInterface = {
      name: "default",
      type: ECHO_TYPE,
      connect(memory, version) {
        if (version !== ECHO_VERSION) throw new VbusError("EINVAL", "wrong version");
        if (busy) throw new VbusError("EBUSY", "one session at a time");
        busy = true;
        echoed.connects++;
        return new EchoConnection(memory, context.scheduler, () => {
          busy = false;
        });
      },
    };
    return {
      attributes: new Map(),
      busConnect(bus) {
        if (published !== null) throw new VbusError("EBUSY", "one bus at a time");
        published = bus.publish(face);
      },
      busDisconnect() {
        published?.withdraw();
        published = null;
      },
      release() {},
    };
  },
};
