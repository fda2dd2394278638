/** A driver that writes anything into its requests and rings. Fixed seeds. */
import { fc, test } from "@fast-check/vitest";
import { VbusError } from "vbus/engine";
import { describe, expect } from "vitest";
import { generator } from "../engine/seed.js";
import { RINGS } from "../virtio-face/machine.js";
import { BlkMachine, head, segments } from "./machine.js";

const type = fc.oneof(fc.constantFrom(0, 1, 4, 8, 11, 13), fc.nat(20));
const sector = fc.oneof(fc.nat(2100), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }));
const request = fc.record({
  type,
  sector,
  data: fc.oneof(fc.constantFrom(0, 16, 512, 1024, 4096), fc.nat(2000)),
  room: fc.array(fc.oneof(fc.constantFrom(1, 20, 512, 4096), fc.integer({ min: 1, max: 3000 })), {
    maxLength: 4,
  }),
  segment: fc.tuple(sector, fc.nat(3000), fc.nat(3)),
  cut: fc.nat(15),
});

describe("a driver that writes anything into its requests", () => {
  test.prop(
    { requests: fc.array(request, { minLength: 1, maxLength: 20 }), ring: fc.constantFrom(...RINGS) },
    { numRuns: 50 },
  )(
    "gets an answer to each that has room for one, and the disk is as large as before",
    async ({ requests, ring: [, ring] }) => {
      const machine = await BlkMachine.create();
      await machine.start(undefined, ring);
      for (const { type: kind, sector: at, data, room, segment, cut } of requests) {
        const first = head(kind, at);
        const body = kind === 11 || kind === 13 ? segments(segment) : new Uint8Array(data);
        machine.request(
          [first.subarray(0, 16 - (cut > 12 ? cut : 0)), ...(body.length > 0 ? [body] : [])],
          room,
        );
      }
      await machine.settle();
      const answers = [...machine.answers().values()];
      expect(answers).toHaveLength(requests.length);
      for (const { status } of answers) expect(status).toBeLessThanOrEqual(2);
      expect(machine.disk.content.bytes.length).toBe(1 << 20);
      machine.assertBalanced();
      expect(machine.errors).toEqual([]);
    },
  );
});

describe("a driver that writes anything anywhere in its rings, at any time", () => {
  test.prop({ seed: fc.nat(), ring: fc.constantFrom(...RINGS) }, { numRuns: 60 })(
    "breaks its own queue at most: every request is accounted for, and after a reset all is well",
    async ({ seed, ring: [, ring] }) => {
      const random = generator(seed);
      const machine = await BlkMachine.create({ hold: true });
      await machine.start(undefined, ring, { 0: 8 });
      const setup = machine.transport.device.queue(0);
      for (let n = 0; n < 40; n++) {
        switch (random() % 5) {
          case 0: {
            const area = (["descriptors", "driver", "device"] as const)[random() % 3] as "driver";
            const gpa = (setup?.address(area, false) ?? 0) + (random() % 24);
            const bytes = Uint8Array.from(
              { length: 1 + (random() % 4) },
              () => [0, 1, 2, 4, 0x7f, 0x80, 0xff][random() % 7] as number,
            );
            machine.guest.space.copyTo(gpa, bytes);
            break;
          }
          case 1:
            try {
              machine.request([head(random() % 14, random() % 2100)], [512]);
            } catch (error) {
              expect(error).toBeInstanceOf(VbusError);
            }
            break;
          case 2:
            machine.disk.held[random() % 4]?.proceed();
            break;
          case 3:
            machine.transport.device.kick(0);
            break;
          default:
            await machine.settle();
        }
      }
      await machine.settle();
      for (const error of machine.errors) expect(error).toMatchObject({ name: "VbusError", code: "EPROTO" });
      machine.disk.hold = false;
      for (const held of [...machine.disk.held]) held.proceed();
      await machine.transport.reset();
      await machine.settle();
      machine.assertBalanced();
      expect(machine.face.statistics.outstanding).toBe(0);
      machine.errors.length = 0;
      await machine.start(undefined, ring);
      expect((await machine.read(0, 512)).status).toBe(0);
      expect(machine.errors).toEqual([]);
    },
  );
});
