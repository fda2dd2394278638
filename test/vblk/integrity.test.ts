import { fc, test } from "@fast-check/vitest";
import { CowOverlay, MemoryBackend, type BlockBackend } from "vbus/devices/vblk";
import { describe, expect } from "vitest";
import { ControlledBackend } from "./controlled.js";
import { DiskMachine, expectBytes, pattern, settle } from "./machine.js";

const SECTORS = 48;

interface Step {
  kind: "read" | "write" | "zero" | "discard" | "flush";
  sector: number;
  sectors: number;
}

const step: fc.Arbitrary<Step> = fc
  .record({
    kind: fc.constantFrom("read", "read", "write", "write", "write", "zero", "discard", "flush" as const),
    sector: fc.integer({ min: 0, max: SECTORS - 1 }),
    sectors: fc.integer({ min: 1, max: 12 }),
  })
  .map(({ kind, sector, sectors }) => ({ kind, sector, sectors: Math.min(sectors, SECTORS - sector) }));

const seed = fc.integer({ min: 1, max: 0x7fffffff });

/** A generator that the test can print the seed of. */
function random(state: number): (below: number) => number {
  let x = state;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

/** A change that some request made or may have made: what it puts into a sector. */
interface Change {
  begun: number;
  ended: number;
  content: Uint8Array;
}

/**
 * Runs steps with any number of them outstanding, against a model that knows of each sector which contents a read may
 * find: those of the changes that nothing which began later, and ended before the read began, has replaced. Besides, a read
 * must not find a request half done: see {@link atomicity}.
 */
async function play(steps: Step[], backend: BlockBackend, poke: () => Promise<void>): Promise<void> {
  const machine = new DiskMachine(backend);
  const { disk } = await machine.addGuest({ queueDepth: 8 });
  let clock = 0;
  const zeroes = new Uint8Array(512);
  const history = Array.from({ length: SECTORS }, (): Change[] => [
    { begun: -1, ended: -1, content: zeroes },
  ]);
  const running: Promise<void>[] = [];

  const allowed = (sector: number, begun: number, ended: number): Uint8Array[] => {
    const changes = (history[sector] as Change[]).filter((change) => change.begun < ended);
    return changes
      .filter((change) => !changes.some((other) => other.begun > change.ended && other.ended < begun))
      .map(({ content }) => content);
  };

  const perform = async ({ kind, sector, sectors }: Step, number: number): Promise<void> => {
    const length = sectors * 512;
    const begun = clock++;
    if (kind === "flush") {
      await disk.flush();
      return;
    }
    if (kind === "read") {
      const data = await disk.read(sector, length);
      const ended = clock++;
      for (let i = 0; i < sectors; i++) {
        const found = data.subarray(i * 512, (i + 1) * 512);
        const fits = allowed(sector + i, begun, ended).some(
          (content) => Buffer.compare(content, found) === 0,
        );
        expect(fits, `step ${number}: sector ${sector + i} has a content that it may have`).toBe(true);
      }
      return;
    }
    const data = kind === "write" ? pattern(length, number + 1) : new Uint8Array(length);
    const changes = Array.from({ length: sectors }, (_, i) => {
      const change = { begun, ended: Infinity, content: data.subarray(i * 512, (i + 1) * 512) };
      (history[sector + i] as Change[]).push(change);
      return change;
    });
    if (kind === "write") await disk.write(sector, data);
    else if (kind === "zero") await disk.writeZeroes(sector, length);
    else await disk.discard(sector, length);
    const ended = clock++;
    for (const change of changes) change.ended = ended;
  };

  for (const [number, one] of steps.entries()) {
    running.push(perform(one, number));
    await poke();
  }
  /** Pokes the back end until a promise settles. */
  const drive = async <T>(promise: Promise<T>): Promise<T> => {
    let settled = false;
    const watched = promise.finally(() => (settled = true));
    watched.catch(() => {}); // awaited below
    while (!settled) await poke();
    return watched;
  };
  await drive(Promise.all(running));
  // at rest a sector has the content of one of its last changes
  const data = await drive(disk.read(0, SECTORS * 512));
  for (let sector = 0; sector < SECTORS; sector++) {
    const found = data.subarray(sector * 512, (sector + 1) * 512);
    expect(allowed(sector, clock, clock).some((content) => Buffer.compare(content, found) === 0)).toBe(true);
  }
  machine.statistics();
  await machine.close();
}

describe("random requests, many of them outstanding and overlapping", () => {
  test.prop({ steps: fc.array(step, { minLength: 1, maxLength: 60 }), seed }, { numRuns: 40 })(
    "read what they may, whatever order the back end ends them in",
    async ({ steps, seed: start }) => {
      const next = random(start);
      const backend = new ControlledBackend(SECTORS * 512);
      await play(steps, backend, async () => {
        await settle(1);
        if (next(3) > 0) return;
        for (let n = next(4); n >= 0 && backend.held.length > 0; n--)
          backend.held[next(backend.held.length)]?.proceed();
        await settle(1);
        if (next(8) === 0) backend.release();
      });
    },
  );

  test.prop({ steps: fc.array(step, { minLength: 1, maxLength: 60 }), seed }, { numRuns: 20 })(
    "read what they may through an overlay over a back end that is slow",
    async ({ steps, seed: start }) => {
      const next = random(start);
      const base = new ControlledBackend(SECTORS * 512);
      await play(steps, new CowOverlay(base, { clusterSize: 2048 }), async () => {
        await settle(1);
        while (base.held.length > 0 && next(2) === 0) base.held[next(base.held.length)]?.proceed();
      });
      expectBytes(base.content.bytes, new Uint8Array(SECTORS * 512));
    },
  );

  test.prop({ seed }, { numRuns: 15 })(
    "are atomic to each other: a read finds all of a write or nothing of it",
    async ({ seed: start }) => {
      const next = random(start);
      // a back end that stores and reads sector by sector, with others in between
      const content = new MemoryBackend(64 * 512);
      const pause = (): Promise<void> => (next(2) === 0 ? Promise.resolve() : settle(1));
      const bySector = async (length: number, act: (at: number) => Promise<void>): Promise<void> => {
        for (let at = 0; at < length; at += 512) {
          await act(at);
          await pause();
        }
      };
      const torn: BlockBackend = {
        description: "sector by sector",
        readOnly: false,
        size: content.size,
        read: (offset, target) =>
          bySector(target.length, (at) => content.read(offset + at, target.subarray(at, at + 512))),
        write: (offset, data) =>
          bySector(data.length, (at) => content.write(offset + at, data.subarray(at, at + 512))),
        writeZeroes: (offset, length) => bySector(length, (at) => content.writeZeroes(offset + at, 512)),
        flush: () => content.flush(),
        close: () => content.close(),
      };
      const machine = new DiskMachine(torn);
      const { disk } = await machine.addGuest({ queueDepth: 16 });
      const jobs: Promise<void>[] = [];
      for (let n = 1; n <= 40; n++) {
        if (next(2) === 0) jobs.push(disk.write(8, new Uint8Array(16 * 512).fill(n)));
        else
          jobs.push(
            disk.read(8, 16 * 512).then((data) => {
              expect(new Set(data).size, "writers seen by one read").toBe(1);
            }),
          );
      }
      await Promise.all(jobs);
      await machine.close();
    },
  );
});
