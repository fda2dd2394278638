/**
 * Virtqueues as two programs for the machine of `tso.ts`: a driver that makes chains available in bursts, and a device
 * that uses them in bursts, both of which sleep when there is nothing to do (virtio 1.2, 2.7 and 2.8).
 *
 * # What is modelled
 *
 * A queue of `ring` descriptors, each reduced to a body (one value stands for descriptor and payload). Split: the two
 * indexes, modulo {@link INDEXES}, and what each side wants to be told: a flag, or an event index. Packed: the state of
 * each descriptor (available or used, of an even or an odd lap) and two event areas. One doorbell per direction: the
 * kick and the interrupt.
 *
 * A publication and an arming are lists of steps; a mutant changes one of them. The steps carry the labels of the essays
 * above `assembly/virtq-split.ts` and `assembly/virtq-packed.ts`.
 *
 * # What must hold
 *
 * Bodies come out as published and in order, on both sides. When all is quiet, everything was used and reaped. From
 * every state such an end stays within reach.
 */

import { ProgramBuilder } from "./program.js";
import type { Order, Program, Read, Register } from "./program.js";
import { LOST_WAKEUP, WRONG_DATA } from "./rules.js";
import { explore } from "./tso.js";
import type { MemoryModel, Outcome } from "./tso.js";

/** How a side says what it wants to be told. */
export type Format = "split, flags" | "split, event index" | "packed, flags" | "packed, event index";
/** All formats. */
export const FORMATS: readonly Format[] = [
  "split, flags",
  "split, event index",
  "packed, flags",
  "packed, event index",
];

/** A step of a publication; `!` marks a sequentially consistent store. */
export type PublishStep =
  /** Descriptors, payload. */
  | "bodies"
  /** [A1], [U1] of a split queue. */
  | "index!"
  | "index"
  /** Packed: the flags of all descriptors of the burst but the first. */
  | "flags rest"
  /** [A1], [U1] of a packed queue. */
  | "flags first!"
  | "flags first"
  /** [A2], [U2]. */
  | "load wish"
  /** Notifies the peer when it wants to know. */
  | "ring";

/** What varies. */
export interface VirtqRules {
  readonly publish: readonly PublishStep[];
  /** Order of [N1]. */
  readonly arm: Order;
  /** [N2] is made. */
  readonly looksAgain: boolean;
  /** Event index: which entries of a burst are compared with it. */
  readonly compares: "all" | "last";
  /** Event index: how far behind the first unseen entry it is put. */
  readonly eventAhead: number;
  /** How indexes and flags are loaded. */
  readonly look: Order;
  /** The device reads a body before it gives the descriptor back. */
  readonly readsFirst: boolean;
  /** Packed: an event area is stored in two pieces, of which the second one is [N1]. */
  readonly torn: boolean;
  /** The driver wants to be told only when three quarters of what is in flight have been used. */
  readonly delayed: boolean;
}

/** One run. */
export interface VirtqScenario {
  readonly format: Format;
  readonly model: MemoryModel;
  readonly ring: number;
  readonly burst: number;
  readonly items: number;
  readonly rules: VirtqRules;
}

/** Indexes of a split queue count modulo this, as the real ones do modulo 2^16. */
const INDEXES = 8;
/** Added to an item's value, makes the answer to it. */
const ANSWER = 0x40;
/** What an event area holds (and a flag, as far as it goes): notify, do not, or a place behind this. */
const ENABLE = 0;
const DISABLE = 1;
const PLACE = 2;
/** Progress registers, the same in both programs: chains taken from the peer, chains published. */
const TAKEN: Register = 0;
const PUBLISHED: Register = 1;
const DRIVER = 0;
const DEVICE = 1;

/** The publication of a format, as the engine makes it. */
export function publication(format: Format): readonly PublishStep[] {
  return format.startsWith("split")
    ? ["bodies", "index!", "load wish", "ring"]
    : ["bodies", "flags rest", "flags first!", "load wish", "ring"];
}

/** The rules that the engine keeps. */
export function engineRules(format: Format): VirtqRules {
  return {
    publish: publication(format),
    arm: "atomic",
    looksAgain: true,
    compares: "all",
    eventAhead: 0,
    look: "atomic",
    readsFirst: true,
    torn: false,
    delayed: false,
  };
}

/** Explores one scenario to the end. */
export function runVirtq(scenario: VirtqScenario): Outcome {
  const layout = new Layout(scenario);
  return explore({
    model: scenario.model,
    cells: layout.names,
    programs: [new Side(layout, scenario, DRIVER).program(), new Side(layout, scenario, DEVICE).program()],
    progress: true,
    judge: (state) => {
      const used = state.register(DEVICE, TAKEN);
      const reaped = state.register(DRIVER, TAKEN);
      if (used === scenario.items && reaped === scenario.items) return undefined;
      return {
        kind: LOST_WAKEUP,
        message: `all asleep after ${used} of ${scenario.items} were used and ${reaped} reaped`,
      };
    },
  });
}

class Layout {
  readonly names: string[] = [];
  /** Split: the index that each side publishes. */
  readonly index = [this.#cell("avail.idx"), this.#cell("used.idx")] as const;
  /** What each side wants to be told. */
  readonly wish = [this.#cell("driver's wish"), this.#cell("device's wish")] as const;
  /** The same, when an event area is stored in two pieces: the place. */
  readonly place = [this.#cell("driver's place"), this.#cell("device's place")] as const;
  /** Interrupt, kick. */
  readonly bell = [this.#cell("interrupt"), this.#cell("kick")] as const;
  readonly state: number[];
  readonly body: number[];

  constructor({ ring }: VirtqScenario) {
    this.state = Array.from({ length: ring }, (_, i) => this.#cell(`flags[${i}]`));
    this.body = Array.from({ length: ring }, (_, i) => this.#cell(`body[${i}]`));
  }

  #cell(name: string): number {
    return this.names.push(name) - 1;
  }
}

/** One side's program: it takes what the peer published, publishes, arms, sleeps. */
class Side {
  readonly #p: ProgramBuilder;
  readonly #peer: 0 | 1;
  readonly #packed: boolean;
  readonly #events: boolean;
  readonly #taken: Register;
  readonly #published: Register;
  readonly #n: Register;
  readonly #i: Register;
  readonly #x: Register;
  readonly #wish: Register;
  readonly #place: Register;

  constructor(
    readonly layout: Layout,
    readonly scenario: VirtqScenario,
    readonly self: 0 | 1,
  ) {
    this.#p = new ProgramBuilder(self === DRIVER ? "driver" : "device");
    this.#peer = self === DRIVER ? DEVICE : DRIVER;
    this.#packed = scenario.format.startsWith("packed");
    this.#events = scenario.format.endsWith("event index");
    const p = this.#p;
    this.#taken = p.register("taken");
    this.#published = p.register("published");
    if (this.#taken !== TAKEN || this.#published !== PUBLISHED) throw new Error("registers out of place");
    this.#n = p.register("n");
    this.#i = p.register("i");
    this.#x = p.register("x");
    this.#wish = p.register("wish");
    this.#place = p.register("place");
  }

  program(): Program {
    const p = this.#p;
    p.loop(() => {
      this.#disarm();
      this.#work();
      this.#armAndSleep();
    });
    return p.build();
  }

  /** Odd and even laps have states of their own; what memory holds at first is "used" of the lap before the first. */
  #stateOf(side: 0 | 1, place: number): number {
    const odd = Math.floor(place / this.scenario.ring) % 2 === 1;
    if (side === DRIVER) return odd ? 3 : 1;
    return odd ? 0 : 2;
  }

  #bodyAt(place: number): number {
    return this.layout.body[place % this.scenario.ring] ?? 0;
  }

  #stateAt(place: number): number {
    return this.layout.state[place % this.scenario.ring] ?? 0;
  }

  /** Sets `x` to 1 when the peer has published the chain at this place. */
  #look(place: (r: Read) => number, order: Order): void {
    const p = this.#p;
    const { layout } = this;
    if (this.#packed) {
      p.load(this.#x, (r) => this.#stateAt(place(r)), order, layout.state);
      p.set(this.#x, (r) => (r(this.#x) === this.#stateOf(this.#peer, place(r)) ? 1 : 0));
    } else {
      p.load(this.#x, layout.index[this.#peer], order);
      // never more than a queue's length ahead
      p.set(this.#x, (r) => {
        const ahead = (r(this.#x) - (r(this.#taken) % INDEXES) + INDEXES) % INDEXES;
        return ahead > place(r) - r(this.#taken) && ahead <= this.scenario.ring ? 1 : 0;
      });
    }
  }

  #work(): void {
    if (this.self === DRIVER) this.#drive();
    else this.#serve();
  }

  /** Driver: reaps what was used, and makes available what fits. */
  #drive(): void {
    const p = this.#p;
    const { ring, burst, items } = this.scenario;
    p.loop((exit) => {
      p.loop((reap) => {
        p.exitWhen(reap, (r) => r(this.#taken) >= r(this.#published));
        this.#look((r) => r(this.#taken), this.scenario.rules.look);
        p.exitWhen(reap, (r) => r(this.#x) === 0);
        p.load(this.#x, (r) => this.#bodyAt(r(this.#taken)), "plain", this.layout.body);
        p.set(this.#taken, (r) => r(this.#taken) + 1);
        p.check(
          WRONG_DATA,
          "the answer is not the one to this chain",
          (r) => r(this.#x) === r(this.#taken) + ANSWER,
        );
      });
      p.forget(this.#x);
      p.set(this.#n, (r) =>
        Math.min(burst, items - r(this.#published), ring - (r(this.#published) - r(this.#taken))),
      );
      p.exitWhen(exit, (r) => r(this.#n) <= 0);
      this.#publish(0);
    });
    p.forget(this.#n);
  }

  /** Device: uses what is available, in bursts. */
  #serve(): void {
    const p = this.#p;
    const { burst, rules } = this.scenario;
    const at = (r: Read): number => r(this.#taken) + r(this.#n);
    const read = (place: (r: Read) => number): void => {
      p.load(this.#x, (r) => this.#bodyAt(place(r)), "plain", this.layout.body);
      p.check(WRONG_DATA, "the body is not the one published", (r) => r(this.#x) === place(r) + 1);
      p.forget(this.#x);
    };
    p.loop((exit) => {
      p.loop((peek) => {
        p.exitWhen(peek, (r) => r(this.#n) >= burst);
        this.#look(at, rules.look);
        p.exitWhen(peek, (r) => r(this.#x) === 0);
        if (rules.readsFirst) read(at);
        p.set(this.#n, (r) => r(this.#n) + 1);
      });
      p.forget(this.#x);
      p.exitWhen(exit, (r) => r(this.#n) === 0);
      p.set(this.#taken, at);
      this.#publish(ANSWER, () => {
        if (!rules.readsFirst) read((r) => r(this.#published));
      });
    });
    p.forget(this.#n);
  }

  #each(from: number, body: (place: (r: Read) => number) => void): void {
    const p = this.#p;
    p.set(this.#i, from);
    p.loop((exit) => {
      p.exitWhen(exit, (r) => r(this.#i) >= r(this.#n));
      body((r) => r(this.#published) + r(this.#i));
      p.set(this.#i, (r) => r(this.#i) + 1);
    });
    p.forget(this.#i);
  }

  /** Publishes `n` chains. Their bodies hold the item's number, plus `answer`. */
  #publish(answer: number, afterwards: () => void = () => undefined): void {
    const p = this.#p;
    const { layout, self } = this;
    const state = (place: (r: Read) => number, order: Order): void =>
      p.store(
        (r) => this.#stateAt(place(r)),
        (r) => this.#stateOf(self, place(r)),
        order,
      );
    for (const step of this.scenario.rules.publish) {
      switch (step) {
        case "bodies":
          if (!this.scenario.rules.readsFirst && self === DEVICE) break;
          this.#each(0, (place) =>
            p.store(
              (r) => this.#bodyAt(place(r)),
              (r) => place(r) + 1 + answer,
              "plain",
            ),
          );
          break;
        case "index":
        case "index!":
          p.store(
            layout.index[self],
            (r) => (r(this.#published) + r(this.#n)) % INDEXES,
            step === "index" ? "plain" : "atomic",
          );
          break;
        case "flags rest":
          this.#each(1, (place) => state(place, "plain"));
          break;
        case "flags first":
        case "flags first!":
          state((r) => r(this.#published), step === "flags first" ? "plain" : "atomic");
          break;
        case "load wish":
          p.load(this.#wish, layout.wish[this.#peer], "atomic");
          if (this.scenario.rules.torn) p.load(this.#place, layout.place[this.#peer], "atomic");
          break;
        default:
          p.when(
            (r) => this.#isWanted(r),
            () => p.ring(layout.bell[this.#peer]),
          );
      }
    }
    p.forget(this.#wish, this.#place);
    afterwards();
    p.set(this.#published, (r) => r(this.#published) + r(this.#n));
    p.forget(this.#n);
  }

  /** What a place is in the peer's wish: modulo both laps (packed), modulo 2^16 (split). */
  #modulo(place: number): number {
    return place % (this.#packed ? 2 * this.scenario.ring : INDEXES);
  }

  #isWanted(r: Read): boolean {
    const wish = r(this.#wish);
    if (!this.#events) return wish === ENABLE;
    if (this.#packed && wish === DISABLE) return false;
    if (this.#packed && wish === ENABLE) return true;
    const event = this.scenario.rules.torn ? r(this.#place) : this.#packed ? wish - PLACE : wish;
    const first = this.scenario.rules.compares === "all" ? 0 : r(this.#n) - 1;
    for (let i = first; i < r(this.#n); i++) {
      if (this.#modulo(r(this.#published) + i) === event) return true;
    }
    return false;
  }

  /** As few notifications as possible: an event index of a split queue is just left where it is. */
  #disarm(): void {
    if (this.#events && !this.#packed) return;
    this.#p.store(this.layout.wish[this.self], DISABLE, "plain");
  }

  #armAndSleep(): void {
    const p = this.#p;
    const { layout, self } = this;
    const { rules } = this.scenario;
    const delayed = rules.delayed && self === DRIVER && this.#events;
    /** Entries behind the first unseen one whose use is worth a notification. */
    const behind = (r: Read): number => {
      if (!delayed) return rules.eventAhead;
      const flying = r(this.#published) - r(this.#taken);
      return Math.max(0, Math.ceil((flying * 3) / 4) - 1);
    };
    const event = (r: Read): number => this.#modulo(r(this.#taken) + behind(r));
    if (!this.#events) {
      p.store(layout.wish[self], ENABLE, rules.arm);
    } else if (!this.#packed) {
      p.store(layout.wish[self], event, rules.arm);
    } else if (rules.torn) {
      p.store(layout.place[self], event, "plain");
      p.store(layout.wish[self], PLACE, rules.arm);
    } else {
      p.store(layout.wish[self], (r) => event(r) + PLACE, rules.arm);
    }
    p.set(this.#x, 0);
    if (rules.looksAgain) {
      // a packed queue tells only that something was used, not how much
      this.#look((r) => r(this.#taken) + (delayed && !this.#packed ? behind(r) : 0), rules.look);
    }
    if (self === DRIVER) {
      // what was never made available cannot have been used
      p.set(this.#x, (r) => (r(this.#taken) < r(this.#published) ? r(this.#x) : 0));
    }
    p.when(
      (r) => r(this.#x) === 0,
      () => p.sleep(layout.bell[self]),
    );
    p.forget(this.#x);
  }
}
