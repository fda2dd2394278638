/**
 * shm-signal with burst publication over IOQ descriptors, as two programs for the machine of
 * `tso.ts`.
 *
 * # What is modelled
 *
 * One ring of `ring` descriptors, each reduced to a body (one value stands for payload, pointer and
 * length) and its owner `sown`; one shared index (`head`, `tail`, `full`); the six signal bytes; one
 * doorbell per direction. The producer publishes `items` descriptors in bursts of at most `burst`,
 * as many as are free. The consumer wakes up, drains, gives back and sleeps again. In the duplex
 * form the consumer answers in the same descriptor and signals back, and the producer sleeps
 * too, so that both directions of the signal are in play at once.
 *
 * The direction is symmetrical in the ABI (patterns (a) and (b) of `docs/abi/ioq.md` section 6 differ
 * in who is which), so producer = locale 0 and consumer = locale 1 stand for both.
 *
 * # How rules become mutants
 *
 * Each program is put together from {@link ProducerRules} or {@link ConsumerRules}: the order of the
 * steps of a publication and of a give-back is a list, the strength of each critical store a
 * word. A mutant changes one of them. Which machine a rule needs:
 *
 * | rule | x86-TSO can break it | so the mutant is |
 * |---|---|---|
 * | O2, O5, O6, R1, R1b | yes: store, then load | the store made plain, on `tso` |
 * | O1, O3, O4, Q1, Q2, Q4, Q6 | no: stores stay in order | steps in the wrong order, on `tso`; where a missing barrier has the same effect elsewhere, plain stores on `relaxed` |
 * | Q3 | no: loads are not moved after stores | body read after the give-back, on `tso` |
 * | Q5, O4 as WebAssembly sees it | no: loads stay in order | body read too early, on `tso`; `sown` loaded plainly, on `relaxed` |
 * | Q7 | not an ordering of stores at all | the re-check left out, on `tso` |
 *
 * # Two receivers
 *
 * `trusting` is a v4 receiver with full fences: it goes back to sleep on the word of `dirty` and
 * `pending` alone. `rechecking` is ours: wherever it looks at those two (when a wake-up begins, after
 * `pending = 0`, after `enabled = 1`) it then also looks at `sown` of the descriptor at its head. The
 * second hides some faults of a peer; the tests say which, because our producer must also serve the first.
 *
 * # What must hold
 *
 * In every reachable state: bodies come out as published and in order; an index that is read in the right
 * order never hides a descriptor that was given, nor promises room that is not there. When all is quiet:
 * everything was consumed (and answered), the receivers are unmasked, `pending` is clear, the index is
 * empty. From every state such an end stays within reach. A producer that leaves a set `dirty` alone needs
 * one thing more: when all is quiet `dirty` is clear, for it takes a set one as the promise of a look to come.
 */

import { ProgramBuilder } from "./program.js";
import type { Exit, Program, Read, Register } from "./program.js";
import { found, INJECT, Layout, receive, signal } from "./receiver.js";
import {
  FALSE_FULL,
  LOST_WAKEUP,
  receiver,
  STUCK_DIRTY,
  STUCK_PENDING,
  WRONG_DATA,
  WRONG_INDEX,
} from "./rules.js";
import type { Scenario } from "./rules.js";
import { explore } from "./tso.js";
import type { Experiment, Outcome } from "./tso.js";

/** Locales; the initial owner of every descriptor is the producer. */
const PRODUCER = 0;
const CONSUMER = 1;
/** Added to an item's value, makes the answer to it. */
const ANSWER = 0x40;
/** Number of the descriptor at which each side stands; same register in both programs. */
const POSITION: Register = 0;
/** Items the producer has begun to publish, including the current burst. */
const BEGUN: Register = 1;
/** Explores one scenario to the end. */
export function run(scenario: Scenario): Outcome {
  const layout = new Layout(scenario.ring);
  const leavesDirtyAlone = scenario.producer.publish.includes("load dirty");
  const experiment: Experiment = {
    model: scenario.model ?? "tso",
    cells: layout.names,
    programs: [producer(layout, scenario), consumer(layout, scenario)],
    progress: true,
    judge: (state) => {
      const consumed = state.register(CONSUMER, POSITION);
      const answered = scenario.duplex === true ? state.register(PRODUCER, POSITION) : consumed;
      if (consumed < scenario.items || answered < scenario.items) {
        const message = `all asleep after ${consumed} of ${scenario.items} were consumed`;
        return { kind: LOST_WAKEUP, message };
      }
      const position = scenario.producer.publish.includes("tail") ? scenario.items % scenario.ring : 0;
      const [tail, head, full] = [layout.tail, layout.head, layout.full].map((cell) => state.cell(cell));
      if (tail !== position || head !== position || full !== 0) {
        const message = `at rest and empty the index is ${tail}/${head}, full = ${full}`;
        return { kind: WRONG_INDEX, message };
      }
      const receivers = scenario.duplex === true ? [PRODUCER, CONSUMER] : [CONSUMER];
      for (const side of receivers) {
        if (state.cell(layout.enabled[side] ?? 0) === 0) {
          return { kind: LOST_WAKEUP, message: `receiver ${side} sleeps masked` };
        }
        if (state.cell(layout.pending[side] ?? 0) !== 0) {
          return { kind: STUCK_PENDING, message: `irq[${side}].pending stays 1 while all sleep` };
        }
        if (leavesDirtyAlone && state.cell(layout.dirty[side] ?? 0) !== 0) {
          return { kind: STUCK_DIRTY, message: `irq[${side}].dirty stays 1 while all sleep` };
        }
      }
      return undefined;
    },
  };
  return explore(experiment);
}

/** Kinds of violation found, sorted. */
export function kinds(outcome: Outcome): string[] {
  return [...outcome.violations.keys()].sort();
}

/** The faults of an outcome as readable text: empty for a correct program. */
export function faults(outcome: Outcome): string {
  return [...outcome.violations.values()]
    .map((each) => [`${each.kind}: ${each.message}`, ...each.trace()].join("\n"))
    .join("\n\n");
}

/** How many descriptors an index shows: `docs/abi/ioq.md` section 3. */
function counter(ring: number): (tail: number, head: number, full: number) => number {
  return (tail, head, full) => (tail === head ? (full === 0 ? 0 : ring) : (tail + ring - head) % ring);
}

function producer(layout: Layout, scenario: Scenario): Program {
  const { ring, items } = scenario;
  const p = new ProgramBuilder("producer");
  const reaped = p.register("reaped");
  const begun = p.register("begun");
  if (reaped !== POSITION || begun !== BEGUN) throw new Error("registers out of place");
  const published = p.register("published");
  const n = p.register("n");
  const i = p.register("i");
  const x = p.register("x");
  const y = p.register("y");
  const flags = found(p);

  const indexCount = counter(ring);

  const each = (from: number, body: () => void): void => {
    p.set(i, from);
    p.loop((exit) => {
      p.exitWhen(exit, (r) => r(i) >= r(n));
      body();
      p.set(i, (r) => r(i) + 1);
    });
    p.forget(i);
  };
  const publish = (): void => {
    for (const step of scenario.producer.publish) {
      switch (step) {
        case "bodies":
          each(0, () =>
            p.store(
              (r) => layout.bodyAt(r(published) + r(i)),
              (r) => r(published) + r(i) + 1,
              "plain",
            ),
          );
          break;
        case "full":
        case "full!":
          p.load(x, layout.head, "atomic");
          p.when(
            (r) => r(x) === r(begun) % ring,
            () => p.store(layout.full, 1, step === "full" ? "plain" : "atomic"),
          );
          p.forget(x);
          break;
        case "tail":
          p.store(layout.tail, (r) => r(begun) % ring, "plain");
          break;
        case "sown rest":
          each(1, () => p.store((r) => layout.sownAt(r(published) + r(i)), CONSUMER, "plain"));
          break;
        case "sown first":
        case "sown first!":
          p.store((r) => layout.sownAt(r(published)), CONSUMER, step === "sown first" ? "plain" : "atomic");
          break;
        default:
          signal(p, layout, CONSUMER, step, flags);
      }
    }
    p.set(published, (r) => r(begun));
    p.forget(n, flags.dirty, flags.enabled, flags.pending);
  };
  /** Counts the free descriptors from the tail on, by their owner, into `n`. */
  const reserve = (): void => {
    p.loop((exit) => {
      p.exitWhen(exit, (r) => r(n) >= Math.min(scenario.burst, items - r(published)));
      p.load(x, (r) => layout.sownAt(r(published) + r(n)), "atomic");
      p.exitWhen(exit, (r) => r(x) !== PRODUCER);
      p.set(n, (r) => r(n) + 1);
    });
    p.forget(x);
  };
  const checkRoom = (owns: boolean): void => {
    if (scenario.indexes !== (owns ? "exact" : "covering")) return;
    // The flag first: a consumer stores head before full = 0, so head is at least as new.
    p.load(x, layout.full, "atomic");
    p.load(y, layout.head, "atomic");
    if (owns) {
      p.check(
        FALSE_FULL,
        "the producer owns the descriptor at its tail, the index says full",
        (r) => !(r(x) !== 0 && r(y) === r(published) % ring),
      );
    }
    p.check(
      WRONG_INDEX,
      "the index shows more room than there is",
      (r, consumer) => indexCount(r(published) % ring, r(y), r(x)) >= r(published) - consumer(POSITION),
    );
    p.forget(x, y);
  };

  if (scenario.duplex !== true) {
    p.loop((done) => {
      p.exitWhen(done, (r) => r(published) >= items);
      checkRoom(false);
      reserve();
      p.when(
        (r) => r(n) > 0,
        () => {
          checkRoom(true);
          p.set(begun, (r) => r(published) + r(n));
          publish();
        },
      );
    });
    return p.build();
  }

  const reapAndPost = (): void => {
    p.loop((exit) => {
      p.loop((reap) => {
        p.exitWhen(reap, (r) => r(reaped) >= r(published));
        p.load(x, (r) => layout.sownAt(r(reaped)), "atomic");
        p.exitWhen(reap, (r) => r(x) !== PRODUCER);
        p.load(x, (r) => layout.bodyAt(r(reaped)), "plain", layout.body);
        p.set(reaped, (r) => r(reaped) + 1);
        p.check(WRONG_DATA, "the answer is not the one to this item", (r) => r(x) === r(reaped) + ANSWER);
      });
      p.forget(x);
      p.set(n, (r) => Math.min(scenario.burst, items - r(published), ring - (r(published) - r(reaped))));
      p.exitWhen(exit, (r) => r(n) <= 0);
      p.set(begun, (r) => r(published) + r(n));
      publish();
    });
    p.forget(n);
  };
  receive(p, layout, PRODUCER, receiver(scenario.consumer.recheck), {
    notifier: reapAndPost,
    more: (into) => {
      p.set(into, (r) => (r(reaped) < r(published) ? 1 : 0));
      p.when(
        (r) => r(into) !== 0,
        () => {
          p.load(x, (r) => layout.sownAt(r(reaped)), "atomic");
          p.set(into, (r) => (r(x) === PRODUCER ? 1 : 0));
          p.forget(x);
        },
      );
    },
    beforeFirstSleep: reapAndPost,
  });
  return p.build();
}

function consumer(layout: Layout, scenario: Scenario): Program {
  const { ring } = scenario;
  const rules = scenario.consumer;
  const p = new ProgramBuilder("consumer");
  const consumed = p.register("consumed");
  if (consumed !== POSITION) throw new Error("registers out of place");
  const base = p.register("base");
  const n = p.register("n");
  const i = p.register("i");
  const x = p.register("x");
  const y = p.register("y");
  const flags = found(p);
  const sownLoad = rules.sownLoad ?? "atomic";
  const limit = rules.popsOneByOne === true ? 1 : (rules.notifierBudget ?? ring);

  const indexCount = counter(ring);

  const readBody = (offset: (r: Read) => number): void =>
    p.load(y, (r) => layout.bodyAt(offset(r)), "plain", layout.body);
  const checkBody = (offset: (r: Read) => number): void => {
    p.check(WRONG_DATA, "the body is not the one published", (r) => r(y) === offset(r) + 1);
    p.forget(y);
  };
  const checkIndex = (): void => {
    // The tail first: a producer stores full = 1 before tail, so the flag is at least as new.
    const fullFirst = rules.indexRead === "full first";
    p.load(x, fullFirst ? layout.full : layout.tail, "atomic");
    p.load(i, fullFirst ? layout.tail : layout.full, "atomic");
    const count = (r: Read): number => {
      const tail = fullFirst ? r(i) : r(x);
      const full = fullFirst ? r(x) : r(i);
      return indexCount(tail, r(consumed) % ring, full);
    };
    p.check(WRONG_INDEX, "the index does not cover a descriptor that was given", (r) => count(r) > r(n));
    p.check(
      WRONG_INDEX,
      "the index counts more than was ever published",
      (r, producer) => count(r) <= producer(BEGUN) - r(consumed),
    );
    p.forget(i, x);
  };
  /** Takes what is there, up to the notifier's budget, and gives it back in one burst. */
  const drain = (): void => {
    const early = rules.bodyBeforeSown === true;
    const readsFirst = rules.release[0] === "read bodies";
    const at = (r: Read): number => r(consumed) + r(n);
    p.loop((exit) => {
      p.exitWhen(exit, (r) => r(n) >= limit);
      if (early) readBody(at);
      p.load(x, (r) => layout.sownAt(at(r)), sownLoad === "atomic" ? "atomic" : "plain", layout.sown);
      if (sownLoad === "fenced") p.fence();
      p.exitWhen(exit, (r) => r(x) !== CONSUMER);
      p.forget(x);
      if (scenario.indexes !== undefined) checkIndex();
      if (readsFirst) {
        if (!early) readBody(at);
        checkBody(at);
      }
      if (scenario.duplex === true) {
        p.store(
          (r) => layout.bodyAt(at(r)),
          (r) => at(r) + 1 + ANSWER,
          "plain",
        );
      }
      p.set(n, (r) => r(n) + 1);
    });
    p.forget(x, y);
  };
  const giveBack = (): void => {
    p.set(base, (r) => r(consumed));
    p.set(consumed, (r) => r(base) + r(n));
    const each = (from: number, body: () => void): void => {
      p.set(i, from);
      p.loop((exit) => {
        p.exitWhen(exit, (r) => r(i) >= r(n));
        body();
        p.set(i, (r) => r(i) + 1);
      });
      p.forget(i);
    };
    rules.release.forEach((step, position) => {
      switch (step) {
        case "read bodies":
          if (position === 0) break;
          each(0, () => {
            readBody((r) => r(base) + r(i));
            checkBody((r) => r(base) + r(i));
          });
          break;
        case "head":
          p.store(layout.head, (r) => r(consumed) % ring, "plain");
          break;
        case "full":
        case "full!":
          p.load(x, layout.full, "atomic");
          p.when(
            (r) => r(x) !== 0,
            () => p.store(layout.full, 0, step === "full" ? "plain" : "atomic"),
          );
          p.forget(x);
          break;
        case "write fence":
          p.writeFence();
          break;
        case "sown rest":
          each(1, () => p.store((r) => layout.sownAt(r(base) + r(i)), PRODUCER, "plain"));
          break;
        default:
          p.store((r) => layout.sownAt(r(base)), PRODUCER, step === "sown first" ? "plain" : "atomic");
      }
    });
    p.forget(n, base);
    if (scenario.duplex === true) {
      for (const step of rules.answer ?? INJECT) signal(p, layout, PRODUCER, step, flags);
      p.forget(flags.dirty, flags.enabled, flags.pending);
    }
  };
  const notifier = (): void => {
    const turn = (exit: Exit | undefined): void => {
      drain();
      if (exit !== undefined) p.exitWhen(exit, (r) => r(n) === 0);
      p.when((r) => r(n) > 0, giveBack);
    };
    if (rules.notifierBudget === undefined) p.loop(turn);
    else turn(undefined);
  };
  receive(p, layout, CONSUMER, rules, {
    notifier,
    more: (into) => {
      p.load(into, (r) => layout.sownAt(r(consumed)), "atomic");
      p.set(into, (r) => (r(into) === CONSUMER ? 1 : 0));
    },
  });
  return p.build();
}
