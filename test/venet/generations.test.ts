import { VENET_FLUSHRX, VENET_LINKDOWN, VENET_LINKUP, VENET_MACQUERY } from "vbus/abi";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { superframes } from "../offload/captures.js";
import { expectFrames, TestMachine, testFrame } from "./machine.js";
import { EVERYTHING, ModernNic, type KernelFrame, type ModernOptions } from "./modern-nic.js";
import { RawGuest } from "./raw-guest.js";
import { V4Nic } from "./v4-nic.js";

const A = [2, 0, 0, 0, 0, 0x0a];
const B = [2, 0, 0, 0, 0, 0x0b];
const captured = superframes();

/** A driver as a test talks to it, whatever its generation. */
interface Driver {
  send(frame: KernelFrame, n: number): boolean;
  /** Looks at its RX ring without being told. */
  poll(): void;
  /** Serves its interrupts. Returns how many there were. */
  interrupts(): number;
  readonly received: Uint8Array[];
  /** Descriptors that north still waits for. */
  readonly pending: number;
  /** It may send frames with partial checksums. */
  readonly checksums: boolean;
  /** … and superframes. */
  readonly superframes: boolean;
}

function modern(guest: RawGuest, options: ModernOptions): Driver {
  const nic = new ModernNic(guest, options);
  return {
    send: (frame, n) => {
      const length = frame.bytes.length;
      return nic.send(frame, nic.scatterGather ? [n % length, (n * 7) % length] : []) !== undefined;
    },
    poll: () => nic.poll(),
    interrupts: () => {
      const n = nic.interrupts();
      if (!nic.completions) nic.reap();
      return n;
    },
    get received() {
      return nic.arrived.map((frame) => frame.bytes);
    },
    get pending() {
      return nic.tx.queue.countOf("inuse");
    },
    checksums: nic.scatterGather,
    superframes: (nic.granted.sg & 7) === 7,
  };
}

function old(guest: RawGuest, ilp32: boolean): Driver {
  const nic = new V4Nic(guest, 8, ilp32);
  return {
    send: (frame) => nic.send(frame.bytes),
    poll: () => nic.poll(),
    interrupts: () => nic.interrupts() + nic.reap(),
    get received() {
      return nic.received;
    },
    get pending() {
      return nic.tx.queue.countOf("inuse");
    },
    checksums: false,
    superframes: false,
  };
}

const GENERATIONS: [string, (guest: RawGuest) => Driver, boolean][] = [
  ["before N1: no NEGCAP call at all", (guest) => old(guest, false), false],
  ["before N1 on i386: 28-byte descriptors", (guest) => old(guest, true), false],
  ["before N1: NEGCAP with no bits", (guest) => modern(guest, { sg: 0 }), false],
  ["N1: SG, slot lengths, no pool", (guest) => modern(guest, { sg: 0x0f, fullLength: true }), false],
  ["N1 on i386", (guest) => modern(guest, { sg: 0x0f, fullLength: true, ilp32: true }), false],
  ["between: SG, PMTD, link state", (guest) => modern(guest, { sg: 0x2f, events: 0x01 }), false],
  [
    "between, with a host that would tell completions",
    (guest) => modern(guest, { sg: 0x2f, events: 0x01 }),
    true,
  ],
  ["N2, completions not granted", (guest) => modern(guest, { sg: 0x2f, events: 0x03, l4ro: 0x0f }), false],
  ["N2 with completions", (guest) => modern(guest, { sg: 0x2f, events: 0x03, l4ro: 0x0f }), true],
  [
    "N2 in slots of 304",
    (guest) => modern(guest, { sg: 0x2f, events: 0x03, l4ro: 0x0f, slotSize: 304 }),
    false,
  ],
  [
    "N3: completions, inuse only",
    (guest) => modern(guest, { sg: 0x2f, events: 0x03, l4ro: 0x0f, inuseOnly: true }),
    true,
  ],
  [
    "ours: UDP superframes, too",
    (guest) => modern(guest, { sg: 0x2f, events: 0x01, l4ro: 0x0f, uso: 3 }),
    false,
  ],
];

describe.each(GENERATIONS)("a driver %s", (_name, make, txc) => {
  let scheduler: VirtualScheduler;
  let machine: TestMachine;
  let network: Switch;
  let guests: [RawGuest, RawGuest];
  let subject: Driver;
  let peer: Driver;

  beforeEach(async () => {
    scheduler = new VirtualScheduler();
    network = new Switch({ scheduler, space: await MemorySpace.host(8 << 20) });
    machine = new TestMachine((name) => network.addPort(name), scheduler);
    machine.addNic("nic0", { client_mac: "02:00:00:00:00:0a", txc: txc ? "1" : "0", coalesce: "0" });
    machine.addNic("nic1", { client_mac: "02:00:00:00:00:0b", coalesce: "0" });
    guests = ["subject", "peer"].map((name, i) => {
      const guest = new RawGuest(machine, name, { size: 8 << 20 });
      expect(guest.open(i)).toBeGreaterThan(0);
      return guest;
    }) as [RawGuest, RawGuest];
    subject = make(guests[0]);
    peer = modern(guests[1], { sg: EVERYTHING, events: EVERYTHING, l4ro: EVERYTHING, uso: EVERYTHING });
    for (const [i, guest] of guests.entries()) {
      const mac = new Uint8Array(6);
      expect(guest.callWith(VENET_MACQUERY, mac)).toBe(0);
      expect([...mac]).toEqual(i === 0 ? A : B);
      expect(guest.call(VENET_LINKUP)).toBe(0);
    }
    // each is known to the switch from here on
    subject.send({ bytes: testFrame(B, A, 60) }, 3);
    peer.send({ bytes: testFrame(A, B, 60) }, 3);
    settle();
    expect([subject.received.length, peer.received.length]).toEqual([1, 1]);
  });

  afterEach(() => {
    expect(machine.errors).toEqual([]);
    const all = machine.assertBalanced();
    for (const statistics of Object.values(all)) {
      expect(statistics.tx.drops).toEqual({});
      expect(statistics.rx.drops).toEqual({});
    }
    expect(network.balance().balanced).toBe(true);
    expect(network.balance().drops).toEqual({});
  });

  function settle(): void {
    for (let quiet = 0; quiet < 2;) {
      const ran = scheduler.run();
      quiet = ran + subject.interrupts() + peer.interrupts() === 0 ? quiet + 1 : 0;
    }
  }

  it("exchanges frames with a modern guest in both directions at once, far more than the rings hold", () => {
    const frames = [0, 1].map((me) =>
      Array.from({ length: 200 }, (_, n) =>
        testFrame(me === 0 ? B : A, me === 0 ? A : B, 60 + ((n * 13) % 1400), n),
      ),
    ) as [Uint8Array[], Uint8Array[]];
    const sent: [number, number] = [0, 0];
    for (let rounds = 0; sent[0] + sent[1] < 400; rounds++) {
      expect(rounds).toBeLessThan(2000);
      for (const [me, driver] of [subject, peer].entries() as Iterable<[0 | 1, Driver]>) {
        while (sent[me] < 200 && driver.send({ bytes: frames[me][sent[me]] as Uint8Array }, sent[me]))
          sent[me]++;
      }
      settle();
    }
    settle();
    expectFrames(peer.received.slice(1), frames[0]);
    expectFrames(subject.received.slice(1), frames[1]);
    expect(subject.pending).toBe(0);
  });

  it("sends what it was granted: checksums and superframes arrive whole at the modern guest", () => {
    const frames = captured.filter(
      (frame) =>
        frame.flags === 0 ||
        (frame.flags === 1 && subject.checksums) ||
        (subject.superframes && frame.kind !== 3 && frame.kind !== 0),
    );
    for (const [n, frame] of frames.entries()) {
      expect(subject.send(frame, n)).toBe(true);
      settle();
    }
    expectFrames(
      peer.received.slice(1),
      frames.map((frame) => frame.bytes),
    );
  });

  it("gets what a modern guest sends in the form that it takes: nothing is lost", () => {
    const mirrored = captured.map((frame) => {
      const bytes = new Uint8Array(frame.bytes);
      bytes.set(A, 0);
      bytes.set(B, 6);
      return { ...frame, bytes };
    });
    for (const [n, frame] of mirrored.entries()) {
      while (!peer.send(frame, n)) settle();
      settle();
    }
    for (let n = 0; n < 20; n++) {
      scheduler.advance(20);
      settle();
    }
    const superframes = subject.received.filter((frame) => frame.length > 1518).length;
    const { rx, superframes_passed } = machine.statistics("nic0");
    expect(rx.passed).toBe(subject.received.length);
    expect(superframes).toBeLessThanOrEqual(superframes_passed);
    const { segments, segmented } = network.counters();
    expect(subject.received.length - 1).toBe(captured.length + segments - segmented);
  });

  it("goes on at the same indexes after LINKDOWN, LINKUP and FLUSHRX", () => {
    const expected: Uint8Array[] = [];
    for (let n = 0; n < 12; n++) {
      if (n % 3 === 0) {
        expect(guests[0].call(VENET_LINKDOWN)).toBe(0);
        settle();
        expect(guests[0].call(VENET_LINKUP)).toBe(0);
        settle();
        subject.send({ bytes: testFrame(B, A, 60) }, 1); // the switch forgot it with the port
        settle();
      }
      if (n % 4 === 1) {
        expect(guests[0].call(VENET_FLUSHRX)).toBe(0);
        subject.poll(); // a flush comes without a signal: the driver polls by itself
        settle();
      }
      const frame = testFrame(A, B, 100 + n, n);
      expected.push(frame);
      expect(peer.send({ bytes: frame }, n)).toBe(true);
      settle();
    }
    expectFrames(subject.received.slice(1), expected);
  });
});
