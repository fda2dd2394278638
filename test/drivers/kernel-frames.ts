import { expect } from "vitest";
import { byFlow, segments } from "../offload/captures.js";

/** Expects, flow by flow, the very frames that a Linux kernel made of the superframes of `test/data/`. */
export function expectKernelFrames(frames: Iterable<Uint8Array>): void {
  const expected = byFlow(segments());
  const found = byFlow(frames);
  for (const [flow, list] of found) {
    if (expected.get(flow)?.join() !== list.join()) expect(list, flow).toEqual(expected.get(flow));
  }
  // neighbour discovery of the bridge itself, which the port with the superframes did not see
  const missing = [...expected].filter(([flow]) => !found.has(flow));
  expect(missing.every(([flow]) => / 3a /.test(flow))).toBe(true);
}
