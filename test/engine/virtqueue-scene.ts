/** What the tests of corrupted virtqueues have in common: the place, what may be done there, and what may come of it. */
import {
  DriverVirtQueue,
  VbusError,
  VIRTQUEUE_VIOLATION_NAMES,
  type DeviceVirtQueue,
  type VirtQueueViolation,
} from "vbus/engine";
import { expect } from "vitest";
import { firstDifference, openGuest, type Guest } from "./guest.js";
import { VirtQueuePair, type PairOptions } from "./virtqueue-pair.js";

/** What all memory is filled with that no queue has business in. */
export const CANARY = 0x5a;

/** A guest with a queue under attack, a healthy one of the other format, and canaries everywhere else. */
export class Scene {
  readonly guest: Guest;
  readonly #ram: Uint8Array;
  readonly #canaries: [address: number, size: number][];
  readonly #healthy: VirtQueuePair;
  #sent = 0;

  constructor(
    shared: boolean,
    readonly options: PairOptions,
  ) {
    this.guest = openGuest({ shared, size: 1 << 17 });
    const { north, south, init } = this.guest;
    this.#canaries = [
      [0, 65536],
      [init.layout.link.address, init.layout.link.size],
      [north.allocate(4096, 64), 4096],
      [south.allocate(4096, 64), 4096],
    ];
    for (const [address, size] of this.#canaries) north.bytes.fill(CANARY, address, address + size);
    this.guest.ram.fill(CANARY);
    this.#healthy = new VirtQueuePair(
      { format: options.format === "split" ? "packed" : "split", size: 8, shared },
      { ...this.guest, gpa: this.guest.gpa + 65536 },
    );
    this.#ram = this.guest.ram.slice();
  }

  /** A fresh queue with some traffic behind it and some before it. */
  attacked(): VirtQueuePair {
    const pair = new VirtQueuePair(this.options, this.guest);
    const buffer = (i: number): { gpa: number; length: number } => ({
      gpa: pair.buffers + 64 * i,
      length: 64,
    });
    pair.add([
      { cookie: 1, readable: [buffer(0), buffer(1)] },
      { cookie: 2, writable: [buffer(2)] },
    ]);
    pair.device.release(pair.chains, pair.device.peek(pair.chains, 2));
    pair.reap();
    pair.add([
      { cookie: 3, readable: [buffer(0)], writable: [buffer(1)] },
      { cookie: 4, readable: [buffer(2)] },
    ]);
    pair.device.peek(pair.chains, 1);
    pair.device.advance(1);
    pair.device.completeOne(pair.chains.id(0), pair.chains.slots(0), 5);
    return pair;
  }

  /** Bytes from the first area of a queue to the end of the last: its indirect tables, when it has some. */
  shown({ options, buffers }: VirtQueuePair): number {
    const areas = DriverVirtQueue.areaSizes(options.format, options.size);
    const { gpa = 0, pieces = 0 } = options.tables ?? {};
    const end = Math.max(
      options.device + areas.device.size,
      gpa + DriverVirtQueue.tablesSize(options.size, pieces),
    );
    expect(end).toBeLessThanOrEqual(buffers);
    return end - options.descriptors;
  }

  /** A whole lap on the other queue; its contents are checked. Returns chains completed. */
  healthyLap(): number {
    const pair = this.#healthy;
    const chains = [0, 1, 2].map((i) => ({
      cookie: this.#sent + i,
      readable: [{ gpa: pair.buffers, length: 1 + i }],
    }));
    pair.add(chains);
    const n = pair.device.peek(pair.chains, 8);
    pair.device.release(pair.chains, n);
    const back = pair.reap();
    for (const [i, { cookie }] of back.entries()) if (cookie !== this.#sent + i) return -1;
    this.#sent += 3;
    return back.length;
  }

  /** Nothing but the two queues' own areas was written. */
  expectIntact(pair: VirtQueuePair): void {
    for (const [address, size] of this.#canaries) {
      const bytes = this.guest.north.bytes.subarray(address, address + size);
      expect(bytes.findIndex((byte) => byte !== CANARY)).toBe(-1);
    }
    const outside: [number, number][] = [
      [0, 4096],
      [pair.buffers - this.guest.gpa, 65536 + 4096],
      [this.#healthy.buffers - this.guest.gpa, 1 << 17],
    ];
    for (const [from, to] of outside) {
      expect(firstDifference(this.guest.ram.subarray(from, to), this.#ram.subarray(from, to))).toBe(-1);
    }
  }
}

/** Everything that the two sides may do. */
export function operations(pair: VirtQueuePair): (() => unknown)[] {
  const { device, driver, chains, back } = pair;
  return [
    () => device.release(chains, device.peek(chains, 3)),
    () => {
      const n = device.peek(chains, 2);
      device.advance(n);
      for (let i = 0; i < n; i++) device.completeOne(chains.id(i), chains.slots(i), chains.writableBytes(i));
    },
    () => device.enable(),
    () => device.enable(true),
    () => device.disable(),
    () => device.hasWork,
    () => driver.reap(back, 3),
    () => driver.enable(),
    () => driver.enableDelayed(),
    () => driver.disable(),
    () =>
      pair.add([
        {
          cookie: 9,
          readable: [{ gpa: pair.buffers, length: 64 }],
          writable: [{ gpa: pair.buffers, length: 64 }],
        },
      ]),
    () => [device.counters(), driver.counters()],
    () => device.exportState(),
    () => driver.exportState(),
  ];
}

/** Runs an operation; a queue may answer with EPROTO (the peer's fault), EINVAL or ENOSPC, nothing else. */
export function attempt(operation: () => unknown): void {
  try {
    operation();
  } catch (error) {
    if (!(error instanceof VbusError) || !["EPROTO", "EINVAL", "ENOSPC"].includes(error.code)) throw error;
  }
}

/** Checks that a broken side has a typed, counted reason and hands out nothing more. */
export function expectVerdict(side: DeviceVirtQueue | DriverVirtQueue): VirtQueueViolation | null {
  const { broken } = side;
  if (broken === null) {
    expect(side.counters().violations).toEqual({});
    return null;
  }
  expect(VIRTQUEUE_VIOLATION_NAMES.slice(1)).toContain(broken);
  expect(side.counters().violations[broken]).toBeGreaterThan(0);
  expect(side.hasWork).toBe(false);
  return broken;
}
