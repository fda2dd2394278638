import assert from "node:assert/strict";
import fc from "fast-check";
import { describe, it } from "vitest";
import type { Back, Done, Found, Offer, Piece } from "./reference/virtqueue.js";
import { seedOr } from "./seed.js";
import { Lane, LANE_KINDS, type Negotiated } from "./virtqueue-lanes.js";

const SEED = seedOr(20220701);
const RUNS = 300;

/** What a lane did so far, as far as its device's user remembers it. */
interface Flight {
  taken: { chain: Found; used: number }[];
}

/** Something that a side does; its result is compared between the lanes, and so is every byte of the queue afterwards. */
interface Operation {
  text: string;
  run: (lane: Lane, flight: Flight) => unknown;
}

/** How much a device writes: nothing, all, or some of it. */
type Written = "nothing" | "all" | number;

function bytesWritten(chain: Found, written: Written): number {
  const room = chain.writable.reduce((n, { length }) => n + length, 0);
  if (written === "all") return room;
  return written === "nothing" ? 0 : Math.floor((room * written) / 100);
}

/** Adds as many of the chains as fit, and says how many. */
function add(
  lane: Lane,
  chains: readonly Omit<Offer, "cookie">[],
  cookie: number,
  negotiated: Negotiated,
): unknown {
  let room = lane.driver.free();
  const offers: Offer[] = [];
  for (const { readable, writable } of chains) {
    const pieces = readable.length + writable.length;
    const slots = pieces > 1 && pieces <= negotiated.indirect ? 1 : pieces;
    if (slots > room) break;
    room -= slots;
    const place = (piece: Piece): Piece => ({ ...piece, gpa: piece.gpa + lane.buffers });
    offers.push({
      cookie: cookie + offers.length,
      readable: readable.map(place),
      writable: writable.map(place),
    });
  }
  return offers.length === 0 ? "no room" : [offers.length, lane.driver.add(offers), lane.driver.free()];
}

const piece: fc.Arbitrary<Piece> = fc.record({
  gpa: fc.nat(20_000),
  length: fc.integer({ min: 1, max: 4000 }),
});
const chain = fc
  .tuple(fc.array(piece, { maxLength: 3 }), fc.array(piece, { maxLength: 3 }))
  .filter(([readable, writable]) => readable.length + writable.length > 0)
  .map(([readable, writable]) => ({ readable, writable }));
const written = fc.oneof(fc.constantFrom<Written>("nothing", "all"), fc.nat(100));

function operations(negotiated: Negotiated): fc.Arbitrary<Operation> {
  const adding = fc
    .tuple(fc.array(chain, { minLength: 1, maxLength: 6 }), fc.nat(1e9))
    .map(([chains, cookie]) => ({
      text: `driver adds ${JSON.stringify(chains)}`,
      run: (lane: Lane) => add(lane, chains, cookie, negotiated),
    }));
  const serving = fc
    .tuple(fc.nat(9), fc.nat(9), fc.array(written, { minLength: 9, maxLength: 9 }))
    .map(([max, most, amounts]): Operation => ({
      text: `device peeks ${max} and completes ${most} of them`,
      run({ device }, { taken }): unknown {
        const found = device.peek(max);
        // in order, those that were taken before come first
        const n = negotiated.inOrder && taken.length > 0 ? 0 : Math.min(most, found.length);
        const done: Done[] = found.slice(0, n).map((each, i) => ({
          id: each.id,
          slots: each.slots,
          used: bytesWritten(each, amounts[i] as Written),
        }));
        device.advance(n);
        return [found, n === 0 ? "none" : device.complete(done)];
      },
    }));
  const taking = fc.tuple(fc.nat(5), written).map(([max, amount]): Operation => ({
    text: `device takes ${max}`,
    run({ device }, { taken }): unknown {
      const found = device.peek(max);
      device.advance(found.length);
      taken.push(...found.map((each) => ({ chain: each, used: bytesWritten(each, amount) })));
      return found;
    },
  }));
  const finishing = fc.nat(20).map((which): Operation => ({
    text: `device completes one that it took`,
    run({ device }, { taken }): unknown {
      if (taken.length === 0) return "nothing taken";
      const at = negotiated.inOrder ? 0 : which % taken.length;
      const [one] = taken.splice(at, 1) as [Flight["taken"][number]];
      device.peek(0);
      return device.complete([{ id: one.chain.id, slots: one.chain.slots, used: one.used }]);
    },
  }));
  const reaping = fc.nat(9).map((max) => ({
    text: `driver reaps ${max}`,
    run: ({ driver }: Lane): unknown => [driver.reap(max) satisfies Back[], driver.free()],
  }));
  const waking = fc.constantFrom<Operation>(
    { text: "driver enables", run: ({ driver }) => driver.enable() },
    { text: "driver enables, delayed", run: ({ driver }) => driver.enableDelayed() },
    { text: "driver disables", run: ({ driver }) => driver.disable() },
    { text: "device enables", run: ({ device }) => device.enable(false) },
    {
      text: "device enables past what it peeks",
      run: ({ device }) => [device.peek(3), device.enable(true)],
    },
    { text: "device disables", run: ({ device }) => device.disable() },
  );
  const moving = fc.constant<Operation>({
    text: "both sides are exported and imported",
    run: (lane) => lane.relocate(),
  });
  return fc.oneof(
    { weight: 5, arbitrary: adding },
    { weight: 4, arbitrary: serving },
    { weight: 1, arbitrary: taking },
    { weight: 2, arbitrary: finishing },
    { weight: 4, arbitrary: reaping },
    { weight: 3, arbitrary: waking },
    { weight: 1, arbitrary: moving },
  );
}

function compare(negotiated: Negotiated, list: readonly Operation[]): void {
  const lanes = LANE_KINDS.map((kind) => new Lane(kind, negotiated));
  const flights = lanes.map((): Flight => ({ taken: [] }));
  for (const [step, { text, run }] of list.entries()) {
    const results = lanes.map((lane, i) => run(lane, flights[i] as Flight));
    const shared = lanes.map((lane) => lane.bytes());
    for (const [i, lane] of lanes.entries()) {
      const where = `${lane.kind.name}, step ${step}: ${text}`;
      assert.deepEqual(results[i], results[0], `result of ${where}`);
      const [own, model] = [shared[i] as Uint8Array, shared[0] as Uint8Array];
      const at = Buffer.compare(own, model) === 0 ? -1 : own.findIndex((byte, n) => byte !== model[n]);
      if (at >= 0) assert.fail(`byte ${at} is ${own[at]} instead of ${model[at]} after ${where}`);
      assert.equal(lane.broken(), null, `broken after ${where}`);
    }
  }
}

const printed = (list: fc.Arbitrary<Operation[]>): fc.Arbitrary<Operation[]> =>
  list.map((each) =>
    Object.assign(each, { [fc.toStringMethod]: () => each.map(({ text }) => `\n  ${text}`).join("") }),
  );

describe(`random runs of virtqueues, every lane like the model (seed ${SEED}, VBUS_SEED=n for another)`, () => {
  for (const format of ["split", "packed"] as const) {
    for (const inOrder of [false, true]) {
      it(`${format}${inOrder ? ", in order" : ""}: same results, same bytes`, () => {
        const negotiated: fc.Arbitrary<Negotiated> = fc.record({
          format: fc.constant(format),
          size: format === "split" ? fc.constantFrom(1, 2, 4, 8, 16) : fc.constantFrom(1, 2, 3, 5, 8, 17),
          eventIndex: fc.boolean(),
          inOrder: fc.constant(inOrder),
          indirect: fc.constantFrom(0, 2, 6),
        });
        fc.assert(
          fc.property(
            negotiated.chain((each) =>
              fc.tuple(
                fc.constant(each),
                printed(fc.array(operations(each), { maxLength: 60, size: "max" })),
              ),
            ),
            ([each, list]) => compare(each, list),
          ),
          { seed: SEED, numRuns: RUNS },
        );
      });
    }
  }
});
