/** Verified TCP streams between a Linux guest and the station behind one of its cards, both ways at once. */
import { expect } from "vitest";
import type { Card } from "../../examples/linux/lab.js";
import { PatternStream } from "../support/streams.js";
import { probed, until } from "./fixture.js";

const SEED = 20090401;
let ports = 7100;

/** A port of the stations that no other test of this process uses. */
export function freshPort(): number {
  return ports++;
}

/** What of a card streams need. */
export type StreamPlace = Pick<Card, "peer" | "peerAddress" | "peerAddress6">;

/** The guest's command, and what must be true once it ended: `out` bytes leave the guest, `into` come to it. */
export function both(
  card: StreamPlace,
  out: number,
  into: number,
  six = false,
): { command: string; judge(output: string): Promise<void> } {
  const port = freshPort();
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
