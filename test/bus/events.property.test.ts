import fc from "fast-check";
import { describe, expect, it } from "vitest";

import type { BusEvent, HostSignal } from "vbus/bus";

import { Bench, guestMemory, spell, VERSION, type MailboxSession } from "./mailbox.js";

/** How the device behaves while it is offered a segment. */
type Manner =
  | "accept"
  | "refuse"
  | "throw"
  | "notify"
  | "release"
  | "notify+release"
  | "notify+refuse"
  | "release+refuse";

type Step =
  | { do: "open" | "reset" | "listen" | "take" | "giveBack" | "publish" | "withdraw" }
  | { do: "close" | "notify" | "release"; which: number }
  | { do: "shm"; which: number; manner: Manner };

const which = fc.nat({ max: 7 });
const steps = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: fc.constantFrom("open", "listen", "publish", "withdraw") }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("reset") }) },
    { weight: 8, arbitrary: fc.record({ do: fc.constantFrom("take", "giveBack") }) },
    { weight: 10, arbitrary: fc.record({ do: fc.constantFrom("notify", "release", "notify"), which }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("close"), which }) },
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant("shm"),
        which,
        manner: fc.constantFrom<Manner>(
          "accept",
          "accept",
          "refuse",
          "throw",
          "notify",
          "release",
          "notify+release",
          "notify+refuse",
          "release+refuse",
        ),
      }),
    },
  ),
  { minLength: 5, maxLength: 120, size: "max" },
);

interface ModelSignal {
  cookie: number;
  closed: boolean;
  dead: boolean;
}

interface ModelItem {
  kind: BusEvent["kind"];
  /** The signal, or null for an interface. */
  signal: ModelSignal | null;
  epoch: number;
}

/** The rules of section 6, said as plainly as possible: a list that is searched. */
class Model {
  queue: ModelItem[] = [];
  taken: ModelItem[] = [];
  epoch = 0;
  listening = false;

  notify(signal: ModelSignal): void {
    if (signal.dead || signal.closed || this.queue.some((item) => item.signal === signal)) return;
    this.queue.push({ kind: "shmsignal", signal, epoch: this.epoch });
  }

  release(signal: ModelSignal): void {
    if (signal.dead || signal.closed) return;
    signal.closed = true;
    const waiting = this.queue.find((item) => item.signal === signal);
    if (waiting !== undefined) waiting.kind = "shmclose";
    else this.queue.push({ kind: "shmclose", signal, epoch: this.epoch });
  }

  take(): ModelItem | null {
    const item = this.listening ? this.queue.shift() : undefined;
    if (item === undefined) return null;
    this.taken.push({ ...item });
    return item;
  }

  giveBack(): void {
    const item = this.taken.pop();
    if (item === undefined || item.epoch !== this.epoch) return;
    const { signal } = item;
    if (signal !== null && item.kind === "shmsignal") {
      const waiting = this.queue.find((other) => other.signal === signal);
      if (waiting !== undefined) this.queue.splice(this.queue.indexOf(waiting), 1);
      else if (signal.closed) return;
      item.kind = signal.closed ? "shmclose" : "shmsignal";
    }
    this.queue.unshift(item);
  }
}

interface Shared {
  host: HostSignal;
  model: ModelSignal;
}

class Run {
  readonly model = new Model();
  readonly sessions: { handle: number; session: MailboxSession; signals: Shared[] }[] = [];
  /** Every signal ever offered, dead ones too: devices may keep them and misbehave. */
  readonly offered: Shared[] = [];
  readonly log: { kind: string; cookie: number }[] = [];
  readonly accepted = new Set<number>();
  readonly forgotten = new Set<number>();
  #nextCookie = 0;
  #events: BusEvent[] = [];

  constructor(readonly bench: Bench) {}

  step(step: Step): void {
    const { bench, model } = this;
    const { client } = bench;
    switch (step.do) {
      case "open": {
        const handle = client.open(this.#anyId(), VERSION);
        const session = bench.mailbox.opened.at(-1);
        if (handle > 0 && session !== undefined) this.sessions.push({ handle, session, signals: [] });
        break;
      }
      case "close": {
        const picked = this.sessions[step.which];
        if (picked === undefined) break;
        expect(client.close(picked.handle)).toBe(0);
        for (const { model: signal } of picked.signals) model.release(signal);
        this.sessions.splice(step.which, 1);
        break;
      }
      case "shm": {
        const picked = this.sessions[step.which % Math.max(1, this.sessions.length)];
        if (picked !== undefined) this.#shm(picked, step.manner);
        break;
      }
      case "notify":
      case "release": {
        const picked = this.offered.at(-1 - step.which);
        if (picked === undefined) break;
        picked.host[step.do]();
        model[step.do](picked.model);
        break;
      }
      case "take":
        this.#take();
        break;
      case "giveBack": {
        const event = this.#events.pop();
        if (event === undefined) break;
        // what is returned was not delivered, unless it is too old to come again
        if (model.taken.at(-1)?.epoch === model.epoch && "cookie" in event) {
          this.log.splice(this.#lastLogged(event), 1);
        }
        client.returnEvent(event);
        model.giveBack();
        break;
      }
      case "reset":
        client.reset();
        for (const { model: signal } of this.offered) signal.dead = true;
        for (const cookie of this.accepted) this.forgotten.add(cookie);
        this.sessions.length = 0;
        model.queue = [];
        model.epoch++;
        model.listening = false;
        break;
      case "listen":
        client.listen();
        if (!model.listening && bench.bus.devices.length > 0) {
          model.queue.push({ kind: "devadd", signal: null, epoch: model.epoch });
        }
        model.listening = true;
        break;
      case "publish":
        if (bench.bus.devices.length > 0) break;
        bench.bus.connect("box0");
        if (model.listening) model.queue.push({ kind: "devadd", signal: null, epoch: model.epoch });
        break;
      case "withdraw":
        if (bench.bus.devices.length === 0) break;
        bench.bus.disconnect("box0");
        if (model.listening) model.queue.push({ kind: "devdrop", signal: null, epoch: model.epoch });
        break;
    }
  }

  /** Sessions are opened by whatever number the client knows the interface under now. */
  #anyId(): number {
    for (let id = 0; id < 200; id++) {
      // an unknown number has no effect; a wrong version tells the known one without opening it
      if (this.bench.client.open(id, VERSION + 1) === -22) return id;
    }
    return -1;
  }

  #lastLogged(event: BusEvent & { cookie: unknown }): number {
    return this.log.findLastIndex((entry) => entry.kind === event.kind && entry.cookie === event.cookie);
  }

  #shm(picked: Run["sessions"][number], manner: Manner): void {
    const cookie = this.#nextCookie++;
    const signal: ModelSignal = { cookie, closed: false, dead: false };
    const refused = manner.endsWith("refuse") || manner === "throw";
    this.bench.mailbox.hooks.shm = (host) => {
      if (host === null) throw new Error("no signal was offered");
      this.offered.push({ host, model: signal });
      if (manner.includes("notify")) host.notify();
      if (manner.includes("release")) host.release();
      if (manner === "throw") throw new Error("thrown by the test");
      return refused ? -22 : 0;
    };
    const result = this.bench.share(picked.handle, cookie);
    expect(result < 0).toBe(refused);
    if (refused) {
      signal.dead = true;
      return;
    }
    this.accepted.add(cookie);
    const shared = this.offered.at(-1);
    if (shared !== undefined) picked.signals.push(shared);
    if (manner.includes("notify")) this.model.notify(signal);
    if (manner.includes("release")) this.model.release(signal);
  }

  #take(): boolean {
    const event = this.bench.client.nextEvent();
    const expected = this.model.take();
    if (event === null || expected === null) {
      expect(event).toEqual(expected);
      return false;
    }
    this.#events.push(event);
    const { kind, signal } = expected;
    expect("cookie" in event ? spell([event])[0] : event.kind).toBe(
      signal === null ? kind : `${kind} ${signal.cookie}`,
    );
    if ("cookie" in event) this.log.push({ kind: event.kind, cookie: event.cookie as number });
    return true;
  }

  /** Ends everything, takes what is left, and checks the rule that the guest's memory depends on. */
  finish(): void {
    while (this.sessions.length > 0) this.step({ do: "close", which: 0 });
    this.step({ do: "listen" });
    while (this.#take());
    const closed = new Set<number>();
    for (const { kind, cookie } of this.log) {
      expect(this.accepted.has(cookie), `an event for ${cookie}, whose DEVSHM failed`).toBe(true);
      expect(closed.has(cookie), `${kind} after SHMCLOSE of ${cookie}`).toBe(false);
      if (kind === "shmclose") closed.add(cookie);
    }
    for (const cookie of this.accepted) {
      if (!this.forgotten.has(cookie)) expect(closed.has(cookie), `no SHMCLOSE for ${cookie}`).toBe(true);
    }
  }
}

describe("whatever guest and device do", () => {
  it("every successful DEVSHM gets exactly one SHMCLOSE, last, and a failed one gets nothing", async () => {
    const memory = await guestMemory();
    const reached = { closed: 0, reset: 0, returned: 0 };
    fc.assert(
      fc.property(steps, (all) => {
        const bench = Bench.over(memory);
        bench.mailbox.sessionsMax = Infinity;
        const run = new Run(bench);
        for (const step of all) run.step(step);
        run.finish();
        reached.closed += run.log.filter(({ kind }) => kind === "shmclose").length;
        reached.reset += run.forgotten.size;
        reached.returned += all.filter((step) => step.do === "giveBack").length;
        bench.vbus.close();
      }),
      { numRuns: 400 },
    );
    // the runs were about something
    expect(Math.min(reached.closed, reached.reset, reached.returned)).toBeGreaterThan(100);
  });
});
