/** A driver that writes anything: headers, commands, rings. Fixed seeds; whatever happens is counted and hurts nobody else. */
import { fc, test } from "@fast-check/vitest";
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_NET_F_MRG_RXBUF,
} from "vbus/abi";
import { VbusError } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { HostFrames, OFFLOAD_ALL } from "vbus/net";
import { describe, expect } from "vitest";
import { generator } from "../engine/seed.js";
import { superframe } from "../offload/packets.js";
import { testFrame } from "../venet/machine.js";
import { bit, NEEDS_RESET, NetMachine, RING_FEATURES } from "./machine.js";

const TO = [2, 0, 0, 0, 0, 1];
const MAC = [2, 0, 0, 0, 0, 0x0a];
const BASES = [
  testFrame(TO, MAC, 60),
  testFrame(TO, MAC, 1514),
  superframe({ payload: new Array<number>(3000).fill(5) }, 1000).bytes,
  superframe({ version: 6, payload: new Array<number>(3000).fill(5) }, 1000).bytes,
  superframe({ protocol: "udp", payload: new Array<number>(3000).fill(5) }, 1000).bytes,
];

/** Values that come near to meaning something, and all others. */
const half = fc.oneof(fc.constantFrom(0, 1, 6, 14, 16, 34, 54, 60, 1000, 1514, 65535), fc.nat(65535));
const header = fc.record({
  flags: fc.nat(255),
  type: fc.oneof(fc.constantFrom(0, 1, 3, 4, 5, 0x81, 0x84), fc.nat(255)),
  headerLength: half,
  size: half,
  start: half,
  offset: half,
  buffers: half,
});
const sending = fc.record({
  header,
  base: fc.nat(BASES.length - 1),
  length: fc.oneof(fc.constant(0xffff), fc.nat(3100)),
  cuts: fc.array(fc.nat(200), { maxLength: 5 }),
});

const ring = fc.constantFrom(
  0n,
  bit(VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC),
  bit(VIRTIO_F_RING_PACKED),
  bit(VIRTIO_F_RING_PACKED, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC),
);

describe("a driver that writes anything into its headers", () => {
  test.prop(
    { sends: fc.array(sending, { minLength: 1, maxLength: 20 }), ring, all: fc.boolean() },
    { numRuns: 60 },
  )(
    "gets every chain back, every frame is accounted for, nothing breaks",
    async ({ sends, ring: features, all }) => {
      const machine = await NetMachine.create({ memory: 1 << 20 });
      await machine.start(undefined, features);
      machine.port.offloads = all ? OFFLOAD_ALL : 0;
      for (const { header: head, base, length, cuts } of sends) {
        const frame = (BASES[base] as Uint8Array).subarray(0, length);
        const ends = [...new Set(cuts)]
          .filter((cut) => cut > 0 && cut < frame.length + 12)
          .sort((a, b) => a - b);
        machine.send(frame, head, ends);
      }
      machine.scheduler.run();
      expect(machine.tx.reap()).toHaveLength(sends.length);
      expect(machine.card.statistics.tx.frames).toBe(sends.length);
      machine.assertBalanced();
      expect(machine.errors).toEqual([]);
      expect(machine.transport.device.status & NEEDS_RESET).toBe(0);
    },
  );
});

describe("a driver that writes anything into its commands", () => {
  const command = fc.record({
    kind: fc.oneof(fc.nat(7), fc.nat(255)),
    command: fc.oneof(fc.nat(6), fc.nat(255)),
    data: fc.uint8Array({ maxLength: 40 }),
    room: fc.nat(12),
  });

  test.prop({ commands: fc.array(command, { minLength: 1, maxLength: 30 }), ring }, { numRuns: 60 })(
    "gets an answer to each, and frames go on as it then wants them",
    async ({ commands, ring: features }) => {
      const machine = await NetMachine.create({ memory: 1 << 20, pairs: 2 });
      await machine.start(undefined, features);
      const control = machine.queue(4);
      for (const { kind, command: number, data, room } of commands) {
        control.add(
          machine.place(Uint8Array.from([kind, number, ...data])),
          room === 0 ? [] : machine.room(room),
        );
        machine.scheduler.run();
        const [used] = control.reap();
        expect(used?.written).toBeGreaterThanOrEqual(room === 0 ? 0 : 1);
        expect(used?.written).toBeLessThanOrEqual(room);
      }
      const { commands: done, refused } = machine.card.statistics;
      expect(done + refused).toBe(commands.length);
      for (let n = 0; n < 8; n++) {
        machine.queue(0).add([], machine.room(2000));
        machine.queue(2).add([], machine.room(2000));
      }
      const { batch } = HostFrames.of(await MemorySpace.host(), [
        testFrame(MAC, TO, 60),
        testFrame(TO, MAC, 60),
      ]);
      expect(machine.port.peer?.receive(batch, 0, 2)).toBe(2);
      machine.send(testFrame(TO, MAC, 60));
      machine.scheduler.advance(5000);
      expect(machine.port.sent).toHaveLength(1);
      machine.assertBalanced();
      expect(machine.errors).toEqual([]);
    },
  );
});

describe("a driver that writes anything anywhere in its rings, at any time", () => {
  test.prop({ seed: fc.nat(), ring, mergeable: fc.boolean() }, { numRuns: 80 })(
    "breaks its own queues at most: every frame is accounted for, errors are typed, and after a reset all is well",
    async ({ seed, ring: features, mergeable }) => {
      const random = generator(seed);
      const machine = await NetMachine.create({ memory: 1 << 20 });
      const wanted =
        (await machine.transport.offeredFeatures()) &
        ~RING_FEATURES &
        ~(mergeable ? 0n : bit(VIRTIO_NET_F_MRG_RXBUF));
      await machine.start(wanted, features, { 0: 8, 1: 8, 2: 4 });
      const { batch } = HostFrames.of(await MemorySpace.host(), [
        testFrame(MAC, TO, 60),
        testFrame(MAC, TO, 1514),
        testFrame(TO, MAC, 60),
      ]);
      const areas = [...machine.queues.keys()].flatMap((index) => {
        const setup = machine.transport.device.queue(index);
        return (["descriptors", "driver", "device"] as const).map((area) => ({
          gpa: setup?.address(area, false) ?? 0,
          length: area === "descriptors" ? 16 * (setup?.size ?? 0) : 24,
        }));
      });
      /** A driver may fall over what it wrote itself: that is its own affair. */
      const stumble = (step: () => void): void => {
        try {
          step();
        } catch (error) {
          expect(error).toBeInstanceOf(VbusError);
        }
      };
      for (let n = 0; n < 40; n++) {
        switch (random() % 6) {
          case 0: {
            const { gpa, length } = areas[random() % areas.length] as { gpa: number; length: number };
            const bytes = Uint8Array.from(
              { length: 1 + (random() % 8) },
              () => [0, 1, 2, 4, 0x7f, 0x80, 0xff][random() % 7] as number,
            );
            machine.guest.space.copyTo(gpa + (random() % (length - 8)), bytes);
            break;
          }
          case 1:
            stumble(() =>
              machine.send(testFrame(TO, MAC, 60 + (random() % 60)), {}, random() % 2 === 0 ? [] : [12]),
            );
            break;
          case 2:
            stumble(() => {
              machine.post(1, 12, 1600);
            });
            break;
          case 3:
            machine.port.peer?.receive(batch, 0, 3);
            break;
          case 4:
            machine.transport.device.kick(random() % 4);
            break;
          default:
            machine.scheduler.advance(random() % 20);
        }
      }
      machine.scheduler.run();
      for (const error of machine.errors) expect(error).toMatchObject({ name: "VbusError", code: "EPROTO" });
      await machine.transport.reset();
      machine.assertBalanced();
      machine.errors.length = 0;
      machine.port.sent.length = 0;
      await machine.start(wanted, features);
      machine.send(testFrame(TO, MAC, 60));
      machine.post(2, 2000);
      machine.port.peer?.receive(batch, 0, 1);
      machine.scheduler.run();
      expect(machine.port.sent).toHaveLength(1);
      expect(machine.received()).toHaveLength(1);
      expect(machine.errors).toEqual([]);
      machine.assertBalanced();
    },
  );
});
