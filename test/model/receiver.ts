/**
 * The shared cells, and the shm-signal halves of both programs: telling the peer (`docs/abi/shm-signal.md` section
 * 2.1) and the life of a receiver (sections 2.2 to 2.4).
 */

import type { ProgramBuilder, Read, Register } from "./program.js";
import { NEEDLESS_DOORBELL } from "./rules.js";
import type { ConsumerRules, PublishStep } from "./rules.js";

/** Numbers and names of the shared cells. */
export class Layout {
  readonly names: string[] = [];
  readonly sown: number[];
  readonly body: number[];
  readonly tail = this.#cell("tail");
  readonly head = this.#cell("head");
  readonly full = this.#cell("full");
  readonly enabled = [this.#cell("irq[0].enabled"), this.#cell("irq[1].enabled")] as const;
  readonly pending = [this.#cell("irq[0].pending"), this.#cell("irq[1].pending")] as const;
  readonly dirty = [this.#cell("irq[0].dirty"), this.#cell("irq[1].dirty")] as const;
  readonly bell = [this.#cell("doorbell[0]"), this.#cell("doorbell[1]")] as const;

  constructor(ring: number) {
    this.sown = Array.from({ length: ring }, (_, i) => this.#cell(`sown[${i}]`));
    this.body = Array.from({ length: ring }, (_, i) => this.#cell(`body[${i}]`));
  }

  #cell(name: string): number {
    return this.names.push(name) - 1;
  }

  sownAt(position: number): number {
    return this.sown[position % this.sown.length] ?? 0;
  }

  bodyAt(position: number): number {
    return this.body[position % this.body.length] ?? 0;
  }
}

/** What a sender has learned of the peer's three bytes; zero outside a publication. */
export interface Found {
  readonly dirty: Register;
  readonly enabled: Register;
  readonly pending: Register;
}

/** Allocates the registers of {@link Found}. */
export function found(p: ProgramBuilder): Found {
  return { dirty: p.register("dirty"), enabled: p.register("enabled"), pending: p.register("pending") };
}

/** Tells the peer: section 2.1, plus whatever the mutant makes of it. */
export function signal(p: ProgramBuilder, layout: Layout, to: 0 | 1, step: PublishStep, flags: Found): void {
  const rings = (read: Read): boolean => read(flags.enabled) !== 0 && read(flags.pending) === 0;
  const wasSet = (read: Read): boolean => read(flags.dirty) !== 0;
  const loadFlags = (): void => {
    p.load(flags.enabled, layout.enabled[to], "atomic");
    p.set(flags.pending, 1);
    p.when(
      (read) => read(flags.enabled) !== 0,
      () => {
        p.load(flags.pending, layout.pending[to], "atomic");
      },
    );
  };
  switch (step) {
    case "dirty":
      p.store(layout.dirty[to], 1, "plain");
      return;
    case "dirty!":
      p.store(layout.dirty[to], 1, "atomic");
      return;
    case "load dirty":
      p.load(flags.dirty, layout.dirty[to], "atomic");
      return;
    case "dirty! unless set":
      p.when(
        (read) => !wasSet(read),
        () => p.store(layout.dirty[to], 1, "atomic"),
      );
      return;
    case "load flags":
      loadFlags();
      return;
    case "load flags unless set":
      p.when((read) => !wasSet(read), loadFlags);
      return;
    case "inject anew":
      p.when(
        (read) => wasSet(read) && rings(read),
        () => {
          p.store(layout.dirty[to], 1, "atomic");
          loadFlags();
        },
      );
      return;
    case "expect no doorbell if set":
      p.check(
        NEEDLESS_DOORBELL,
        "the doorbell is due although dirty was found set",
        (read) => !(wasSet(read) && rings(read)),
      );
      return;
    case "pending":
      p.when(rings, () => p.store(layout.pending[to], 1, "plain"));
      return;
    case "pending!":
      p.when(rings, () => p.store(layout.pending[to], 1, "atomic"));
      return;
    case "ring":
      p.when(rings, () => p.ring(layout.bell[to]));
      return;
    case "ring without draining":
      p.when(rings, () => p.ring(layout.bell[to], false));
      return;
    case "write fence":
      p.writeFence();
      return;
    case "full fence":
      p.fence();
      return;
    default:
      throw new Error(`${step} is no step of inject`);
  }
}

/** inject as section 2.1 has it, with full stores. */
export const INJECT: readonly PublishStep[] = ["dirty!", "load flags", "pending!", "ring"];

/** What a receiver does with the ring. */
export interface Work {
  notifier(): void;
  /** Sets the register to 1 when the ring has something at the head. */
  more(into: Register): void;
  beforeFirstSleep?(): void;
}

/**
 * The life of a receiver: enable, then sleep and wake up for ever. The wake-up is section 2.4 in the
 * inverted form of the engine.
 */
export function receive(
  p: ProgramBuilder,
  layout: Layout,
  self: 0 | 1,
  rules: ConsumerRules,
  work: Work,
): void {
  const on = p.register("on");
  const deferred = p.register("deferred");
  const polling = p.register("polling");
  const inWakeup = p.register("inWakeup");
  const turns = p.register("turns");
  const d = p.register("d");
  const rechecks = rules.recheck === "rechecking";

  /** `d` = dirty or pending. */
  const flags = (): void => {
    p.load(d, layout.dirty[self], "atomic");
    p.when(
      (r) => r(d) === 0,
      () => p.load(d, layout.pending[self], "atomic"),
    );
  };
  const ring = (): void =>
    p.when(
      (r) => r(d) === 0,
      () => work.more(d),
    );

  const disable = (): void => {
    p.store(layout.enabled[self], 0, "plain");
    p.writeFence();
    p.set(on, 0);
  };
  const enable = (): void => {
    p.store(layout.enabled[self], 1, rules.enable ?? "atomic");
    p.set(on, 1);
    const looks = rules.afterEnable ?? (rechecks ? "flags and ring" : "flags");
    if (looks === "flags" || looks === "flags and ring") flags();
    if (looks === "ring" || looks === "flags and ring") ring();
    p.when(
      (r) => r(d) !== 0 && r(inWakeup) === 0,
      () => p.set(deferred, 1),
    );
    p.forget(d);
  };
  const callNotifier = (): void => {
    if (rules.masking === "until polled") {
      disable();
      p.set(polling, 1);
    } else if (rules.masking === "inside the notifier") {
      disable();
      work.notifier();
      enable();
    } else {
      work.notifier();
    }
  };
  const clearDirty = (): void => p.store(layout.dirty[self], 0, rules.dirtyClear ?? "atomic");
  const wakeup = (): void => {
    p.set(inWakeup, 1);
    p.when(
      (r) => r(on) !== 0,
      () => {
        flags();
        if (rules.beginSeesRing ?? rechecks) ring();
      },
    );
    p.loop((outer) => {
      p.exitWhen(outer, (r) => r(on) === 0 || r(d) === 0);
      p.loop((inner) => {
        if (rules.dirtyClearedLate !== true) clearDirty();
        callNotifier();
        if (rules.dirtyClearedLate === true) clearDirty();
        p.load(d, layout.dirty[self], "atomic");
        p.exitWhen(inner, (r) => r(on) === 0 || r(d) === 0);
        if (rules.wakeupBudget !== undefined) p.set(turns, (r) => r(turns) + 1);
        p.exitWhen(inner, (r) => r(turns) >= (rules.wakeupBudget ?? 255));
      });
      const finish = (): void => {
        p.store(layout.pending[self], 0, rules.pendingClear ?? "atomic");
        p.when(
          (r) => r(on) !== 0,
          () => {
            flags();
            if (rechecks) ring();
          },
        );
      };
      if (rules.wakeupBudget === undefined) {
        finish();
        return;
      }
      p.when(
        (r) => r(turns) >= (rules.wakeupBudget ?? 255),
        () => {
          if (rules.clearsPendingOnBudget === true) p.store(layout.pending[self], 0, "atomic");
          p.set(deferred, rules.clearsPendingOnBudget === true ? 0 : 1);
          p.set(d, 0);
        },
        finish,
      );
    });
    p.forget(d, turns, inWakeup);
  };

  enable();
  work.beforeFirstSleep?.();
  const sleepOrDeferred = (): void => {
    p.when(
      (r) => r(deferred) !== 0,
      () => p.set(deferred, 0),
      () => p.sleep(layout.bell[self]),
    );
    wakeup();
  };
  p.loop(() => {
    if (rules.masking !== "until polled") {
      sleepOrDeferred();
      return;
    }
    p.when(
      (r) => r(polling) !== 0,
      () => {
        // A doorbell that arrives while masked is spent: its wakeup leaves pending and dirty as they are.
        p.take(d, layout.bell[self]);
        p.set(polling, 0);
        p.forget(d);
        work.notifier();
        enable();
      },
      sleepOrDeferred,
    );
  });
}
