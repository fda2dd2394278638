/** Verified traffic over a card of a Linux guest, for tests. */
import { expect } from "vitest";
import type { Card, CardName, Lab } from "../../examples/linux/lab.js";
import { PatternStream } from "../support/streams.js";
import { probed, until } from "./fixture.js";

/** Seed of what streams consist of. */
export const SEED = 20090401;
export const MEGABYTE = 1_000_000;
let ports = 7100;

/** A port of a peer that no test has used. */
export function nextPort(): number {
  return ports++;
}

/** What of a card streams need. */
export type StreamPlace = Pick<Card, "peer" | "peerAddress" | "peerAddress6">;

/** Verified streams both ways over a card: the guest's command, and what must be true once it ended. */
export function both(
  card: StreamPlace,
  out: number,
  into: number,
  six = false,
): { command: string; judge(output: string): Promise<void> } {
  const port = nextPort();
  const streams: PatternStream[] = [];
  card.peer.tcp.listen(port, (context) => {
    const stream = new PatternStream(context, { send: into, sendSeed: SEED, receiveSeed: SEED + 1 });
    streams.push(stream);
    return stream;
  });
  const address = six ? card.peerAddress6 : card.peerAddress;
  return {
    command: `netprobe tcp-both -h ${address} -p ${port} -n ${out} -s ${SEED + 1} -r ${SEED}`,
    async judge(output) {
      expect(probed(output, "sent").bytes).toBe(out);
      expect(probed(output, "received")).toMatchObject({ bytes: into, errors: 0 });
      expect(streams).toHaveLength(1);
      // the guest's kernel may still have the end of it
      await until("the end of the stream", () => streams[0]!.received >= out);
      expect(streams[0]).toMatchObject({ received: out, patternErrors: 0 });
      card.peer.tcp.release(port);
    },
  };
}

/** Runs verified traffic both ways over a card. */
export async function traffic(lab: Lab, name: CardName, bytes = 2 * MEGABYTE): Promise<void> {
  const { command, judge } = both(lab.card(name), bytes + 1, bytes + 3);
  await judge(await lab.machine.check(command, { timeoutMs: 120_000 }));
}

/** Runs verified traffic in the guest's background while `work` does something to it. */
export async function during(
  lab: Lab,
  name: CardName,
  work: () => Promise<void>,
  bytes = 6 * MEGABYTE,
): Promise<void> {
  const { command, judge } = both(lab.card(name), bytes + 1, bytes + 3);
  await lab.machine.check(`(${command} >/tmp/stream; echo $? >/tmp/status) & rm -f /tmp/status`);
  await work();
  await until(
    `the stream on ${name}`,
    async () => (await lab.machine.run("[ -e /tmp/status ]")).status === 0,
  );
  expect(await lab.machine.check("cat /tmp/status")).toBe("0\n");
  await judge(await lab.machine.check("cat /tmp/stream"));
}
