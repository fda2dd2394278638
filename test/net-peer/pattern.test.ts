import { MemorySpace } from "vbus/memory";
import { describe, expect, it } from "vitest";
import {
  matchesPattern,
  PATTERN_PERIOD,
  patternBytes,
  PatternMemory,
  patternPosition,
} from "../support/pattern.js";

/** The definition, as a guest's program has it: byte by byte. */
function defined(offset: number, seed: number, length: number): Uint8Array {
  const table = new Uint8Array(65521);
  let x = 1n;
  for (let i = 0; i < table.length; i++) {
    x = (x * 1664525n + 1013904223n) % 2n ** 32n;
    table[i] = Number(x >> 24n);
  }
  return Uint8Array.from({ length }, (_, i) => table[(offset + seed + i) % 65521]!);
}

describe("the pattern", () => {
  it("is what its definition says, at any offset, seed and length", () => {
    expect(PATTERN_PERIOD).toBe(65521);
    for (const [offset, seed, length] of [
      [0, 0, 200_000],
      [65520, 0, 65521],
      [65500, 17, 1460],
      [2 ** 32 - 1, 65520, 70_000],
      [2 ** 45 + 12345, 9, 3],
    ] as const) {
      expect(Buffer.compare(patternBytes(offset, seed, length), defined(offset, seed, length))).toBe(0);
      const padded = Buffer.concat([Buffer.alloc(7), patternBytes(offset, seed, length)]);
      expect(matchesPattern(padded, 7, length, patternPosition(offset, seed))).toBe(true);
    }
  });

  it("lies in a memory so that any piece of it is one block", async () => {
    const space = await MemorySpace.host();
    const memory = new PatternMemory(space);
    for (const offset of [0, 65520, 131_041, 2 ** 40]) {
      const at = memory.at(offset, 3);
      expect(Buffer.compare(space.bytes.subarray(at, at + 65521), defined(offset, 3, 65521))).toBe(0);
    }
    memory.close();
  });

  it("shows a lost, repeated, swapped or changed byte", () => {
    const length = 3000;
    const good = patternBytes(5000, 1, length);
    const position = patternPosition(5000, 1);
    const bad = [
      patternBytes(5001, 1, length),
      patternBytes(5000, 2, length),
      patternBytes(5000 - 1460, 1, length),
      good.with(0, good[0]! ^ 1),
      good.with(length - 1, good[length - 1]! ^ 0x80),
      Uint8Array.from([...good.subarray(1460, 2920), ...good.subarray(0, 1460), ...good.subarray(2920)]),
    ];
    expect(matchesPattern(good, 0, length, position)).toBe(true);
    for (const bytes of bad) expect(matchesPattern(bytes, 0, length, position)).toBe(false);
  });
});
