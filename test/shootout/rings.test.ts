import { describe, expect, it } from "vitest";
import { linkContestants, loopOf } from "../../bench/harness/loops.js";
import { RING_CONTESTANTS } from "../../bench/shootout/rings/contestants.js";
import {
  CONTEST_PAGES,
  ContestStage,
  IOQ_2009,
  ioqContestant,
  SPSC,
  virtqueueContestant,
  type ContestPlan,
  type WasmContestant,
} from "../../bench/shootout/rings/stage.js";
import { ringStudies, payloadRing } from "../../bench/shootout/rings/studies.js";

const CONTESTANTS: [string, WasmContestant][] = [
  ["IOQ strict", ioqContestant(0)],
  ["IOQ lazy", ioqContestant(1)],
  ["IOQ compact", ioqContestant(3)],
  ["IOQ as in 2009", IOQ_2009],
  ["SPSC rings", SPSC],
  ["split", virtqueueContestant("split", false)],
  ["split in order", virtqueueContestant("split", true)],
  ["packed", virtqueueContestant("packed", false)],
  ["packed in order", virtqueueContestant("packed", true)],
];
const base: ContestPlan = {
  work: "descriptors",
  size: 64,
  rings: 1,
  notify: true,
  receivers: "awake",
  slot: 0,
};

describe.each(CONTESTANTS)("%s", (_name, contestant) => {
  const memory = new WebAssembly.Memory({ initial: CONTEST_PAGES, maximum: CONTEST_PAGES });
  const stage = new ContestStage(memory, linkContestants(memory));
  const { norths, souths, source, sink } = stage.places;
  const bytes = new Uint8Array(memory.buffer);
  const rounds = loopOf(stage.contestants, `${contestant.prefix}Rounds`);
  const stream = loopOf(stage.contestants, `${contestant.prefix}Stream`);

  it("carries descriptors there and back many times around its ring, in all bursts, with and without notifications", () => {
    for (const notify of [true, false]) {
      for (const burst of [1, 7, 32, 64]) {
        stage.lay(contestant, { ...base, notify });
        expect(rounds(norths, souths, 1, 0, burst, 1000)).toBe(0);
      }
    }
  });

  it("runs many rings in turn", () => {
    stage.lay(contestant, { ...base, rings: 10 });
    expect(rounds(norths, souths, 10, 0, 32, 25)).toBe(5);
  });

  it("copies every byte of its payloads, whatever their length", () => {
    for (const length of [1, 16, 64, 1500, 65_536]) {
      const slot = Math.ceil(length / 64) * 64;
      const size = payloadRing(length);
      const laid = stage.lay(contestant, { ...base, work: "payload", slot, size });
      const burst = 4;
      for (let turn = 0; turn < 3; turn++) {
        for (let i = 0; i < length; i++) bytes[source + i] = (i * 31 + length + turn) & 0xff;
        bytes.fill(0, sink, sink + burst * length + 1);
        const result = stream(laid.norths[0]!, laid.souths[0]!, burst, size / 2, source, sink, length);
        expect(result).toBe(0);
        for (let frame = 0; frame < burst; frame++) {
          const at = sink + frame * length;
          const taken = bytes.subarray(at, at + length);
          expect(Buffer.compare(taken, bytes.subarray(source, source + length))).toBe(0);
        }
        expect(bytes[sink + burst * length]).toBe(0);
      }
    }
  });

  it("asks for a doorbell when its consumer sleeps, and for none while it is awake", () => {
    const { prefix } = contestant;
    const plan: ContestPlan = { ...base, work: "payload", slot: 64, receivers: "asleep" };
    const laid = stage.lay(contestant, plan);
    const [north, south] = [laid.norths[0]!, laid.souths[0]!];
    const feed = loopOf(stage.contestants, `${prefix}Feed`);
    const woken = loopOf(stage.contestants, `${prefix}Woken`);
    const [DONE, AGAIN, DOORBELL] = [0, 1, 2];
    for (let turn = 1; turn <= 5; turn++) {
      expect(feed(north, 8, 16 * turn, source, 64, 10)).toBe(DOORBELL);
      expect(feed(north, 8, 16 * turn, source, 64, 10)).toBe(DONE);
      expect(stage.doorbells(north)).toBe(turn);
      // drains, and goes to sleep again: the last frame has not come yet
      expect(woken(south, 8, 1000, sink, 1, 64)).toBe(AGAIN);
    }
    expect(feed(north, 8, 88, source, 64, 10)).toBe(DOORBELL);
    expect(woken(south, 8, 88, sink, 1, 64)).toBe(DONE);
  });
});

describe("the studies", () => {
  it("differ by name, and keep to rings and bursts that everybody can have", () => {
    for (const effort of ["tiny", "quick", "full"] as const) {
      const studies = ringStudies(effort);
      expect(new Set(studies.map(({ id }) => id)).size).toBe(studies.length);
      for (const { points } of studies) {
        for (const { setting } of points) {
          expect(Math.log2(setting.size) % 1).toBe(0);
          expect(setting.burst).toBeLessThanOrEqual(setting.size);
        }
      }
    }
    expect(new Set(RING_CONTESTANTS.map(({ id }) => id)).size).toBe(RING_CONTESTANTS.length);
  });
});
