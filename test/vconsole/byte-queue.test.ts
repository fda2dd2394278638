import { fc, test } from "@fast-check/vitest";
import { ByteQueue } from "../../bindings/bytes/byte-queue.js";
import { describe, expect } from "vitest";
import { pattern } from "./pattern.js";

describe("a queue of bytes", () => {
  test.prop([
    fc.array(
      fc.oneof(
        fc.record({ push: fc.integer({ min: 0, max: 3000 }) }),
        fc.record({ take: fc.integer({ min: 0, max: 3000 }) }),
        fc.record({ into: fc.integer({ min: 0, max: 3000 }) }),
        fc.constant({ clear: true }),
      ),
      { maxLength: 40 },
    ),
  ])("behaves like an array, whatever wraps where", (steps) => {
    const queue = new ByteQueue();
    let model: number[] = [];
    for (const [n, step] of steps.entries()) {
      if ("push" in step) {
        const bytes = pattern(step.push, n);
        queue.push(bytes);
        model = model.concat([...bytes]);
        bytes.fill(0xee);
      } else if ("take" in step) {
        expect([...queue.take(step.take)]).toEqual(model.splice(0, step.take));
      } else if ("into" in step) {
        const target = new Uint8Array(step.into);
        const moved = queue.takeInto(target);
        expect([...target.subarray(0, moved)]).toEqual(model.splice(0, step.into));
      } else {
        expect(queue.clear()).toBe(model.length);
        model = [];
      }
      expect(queue.length).toBe(model.length);
    }
  });
});
