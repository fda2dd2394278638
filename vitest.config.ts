import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

// No test is judged by how long it takes: these only end one that hangs, on the busiest machine.
const UNIT_TIMEOUT = 180_000;
const STRESS_TIMEOUT = 240_000;
/** A guest boots in seconds, on a busy machine in minutes; single waits have bounds of their own. */
const LINUX_TIMEOUT = 300_000;
const SETUP = ["./test/seed-properties.ts"];
/** vitest leaves one core to itself, which is half of a small machine. */
const UNIT_WORKERS = Math.max(2, availableParallelism() - 1);

// Workers cannot be handed TypeScript: tests start those that lie built in .build/. The package itself is imported
// by its own name, from dist/, by tests and workers alike.
export default defineConfig({
  test: {
    watch: false,
    pool: "forks",
    reporters: ["default", "./scripts/vitest-closing-line.mjs"],
    // A group starts when the one before it has ended: stress tests measure handovers between threads, and want the
    // cores to themselves.
    projects: [
      {
        test: {
          name: "unit",
          pool: "forks",
          include: ["test/**/*.test.ts"],
          exclude: ["test/stress/**", "test/browser/**", "test/linux/**"],
          setupFiles: SETUP,
          testTimeout: UNIT_TIMEOUT,
          hookTimeout: UNIT_TIMEOUT,
          maxWorkers: UNIT_WORKERS,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: "stress",
          pool: "forks",
          include: ["test/stress/**/*.test.ts"],
          setupFiles: SETUP,
          testTimeout: STRESS_TIMEOUT,
          hookTimeout: STRESS_TIMEOUT,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: "browser",
          pool: "forks",
          include: ["test/browser/**/*.test.ts"],
          setupFiles: SETUP,
          testTimeout: STRESS_TIMEOUT,
          hookTimeout: STRESS_TIMEOUT,
          fileParallelism: false,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          name: "linux",
          pool: "forks",
          include: ["test/linux/**/*.test.ts"],
          testTimeout: LINUX_TIMEOUT,
          hookTimeout: LINUX_TIMEOUT,
          fileParallelism: false,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});
