/** A Linux guest whose emulator has a thread of its own; the network is in this one. */
import { totalDrops } from "vbus/net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readPieces } from "../../examples/linux/pieces.js";
import { sampleIn, sampleOut, samplePing } from "../../examples/linux/samples.js";
import { ThreadsLab } from "../../examples/threads/compare.js";
import { PatternStream } from "../support/streams.js";
import { until } from "./fixture.js";
import { SEED } from "./traffic.js";

describe("a Linux guest in another thread", () => {
  let lab: ThreadsLab;

  beforeAll(async () => {
    lab = await ThreadsLab.open({
      pieces: readPieces(),
      mtu: 1500,
      spin: 0,
      program: new URL("../../.build/examples/threads/guest.js", import.meta.url), // a worker cannot be handed TypeScript
    });
  });
  afterAll(() => lab.close());

  it("pings, and has its streams verified at both ends; superframes cross untouched", async () => {
    const { card, machine } = lab;
    const options = { ms: 500, mtu: 1500, seed: SEED };
    expect((await samplePing(lab, card, options)).details).toMatchObject({ lost: 0, errors: 0 });
    expect((await sampleOut(lab, card, options)).value).toBeGreaterThan(0); // throws when a byte is wrong
    expect((await sampleIn(lab, card, options)).value).toBeGreaterThan(0);
    const { superframes_passed, segmented, checksummed } = machine.port.offloadCounters();
    expect(superframes_passed).toBeGreaterThan(10);
    expect([segmented, checksummed]).toEqual([0, 0]);
    expect(lab.net.counters()).toMatchObject({ segmented: 0, checksummed: 0, balanced: true });
    expect(machine.port.counters()).toMatchObject({ violations: 0 });
    expect(machine.port.balance().balanced).toBe(true);
  });

  it("is missed by nobody when its thread is killed in the middle of a stream", async () => {
    const { machine } = lab;
    const { port } = machine;
    const streams: PatternStream[] = [];
    lab.card.peer.tcp.listen(5099, (context) => {
      const stream = new PatternStream(context, { send: Infinity, sendSeed: 1 });
      streams.push(stream);
      return stream;
    });
    const killed = machine
      .check(`netprobe tcp-receive -h ${lab.card.peerAddress} -p 5099 -r 1`)
      .catch((error: unknown) => String(error));
    const { delivered } = port.counters();
    await until("the stream", () => port.counters().delivered > delivered + 20);
    await machine.kill();
    expect(await killed).toMatch(/thread ended/);
    await until("the port to notice", () => port.lost !== null);
    await until("what was left to be delivered", () => port.counters().inFlight === 0);
    const counters = port.counters();
    expect(counters.received).toBe(counters.acknowledged + totalDrops(counters.outgoingDrops));
    expect(lab.net.balance().balanced).toBe(true);
  });
});
