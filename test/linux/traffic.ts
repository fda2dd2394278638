/** Verified traffic over a card of a Linux guest, for tests. */
import { expect } from "vitest";
import type { Card, CardName, Lab } from "../../examples/linux/lab.js";
import { PatternStream } from "../support/streams.js";
import { probed, receiveDatagrams, until } from "./fixture.js";

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

/**
 * Verified streams and round trips over a card with an 802.1Q tag; `address` is the guest's in that network. `tagged` is
 * called when the guest has the tag, before there is traffic.
 */
export async function taggedTraffic(
  lab: Lab,
  name: CardName,
  address: string,
  tagged: () => void = () => undefined,
): Promise<void> {
  const { machine } = lab;
  const card = lab.card(name);
  await machine.check(
    `for m in llc stp garp mrp 8021q; do insmod /lib/modules/$m.ko; done; vconfig add ${name} 5; ` +
      `ip addr add ${address} dev ${name}.5; ip link set ${name}.5 up`,
  );
  tagged();
  const { command, judge } = both(card, 3 * MEGABYTE, 3 * MEGABYTE);
  await judge(await machine.check(`${command} -i ${name}.5`, { timeoutMs: 120_000 }));
  const output = await machine.check(`netprobe ping -h ${card.peerAddress} -i ${name}.5 -n 20 -z 1471`);
  expect(probed(output, "pinged")).toMatchObject({ sent: 20, lost: 0, errors: 0 });
  await machine.check(`vconfig rem ${name}.5`);
}

/** Verified streams and pings over IPv6; the guest is number 2 of network fd00:0:0:N, N being that of the card. */
export async function sixTraffic(lab: Lab, name: CardName): Promise<void> {
  const { machine } = lab;
  const card = lab.card(name);
  const address = `fd00:0:0:${name.slice(3)}::2/64`;
  await machine.check(
    `echo 0 >/proc/sys/net/ipv6/conf/${name}/disable_ipv6; ip -6 addr add ${address} dev ${name}`,
  );
  await until(
    "duplicate address detection",
    async () => !/tentative/.test(await machine.check(`ip -6 addr show ${name}`)),
  );
  const { command, judge } = both(card, 3 * MEGABYTE, 3 * MEGABYTE, true);
  await judge(await machine.check(command, { timeoutMs: 120_000 }));
  const output = await machine.check(`netprobe ping -h ${card.peerAddress6} -n 20 -z 1001`);
  expect(probed(output, "pinged")).toMatchObject({ sent: 20, lost: 0, errors: 0 });
}

/** Datagrams of all sizes, odd ones too, both ways. */
export async function datagramsOfAllSizes(lab: Lab, name: CardName): Promise<void> {
  const card = lab.card(name);
  const port = nextPort();
  const sink = card.peer.udp.sink(port, SEED);
  const count = 1469;
  const sent = await lab.machine.check(
    `netprobe udp-send -h ${card.peerAddress} -p ${port} -n ${count} -z 4:1472 -s ${SEED}`,
  );
  expect(probed(sent, "sent").datagrams).toBe(count);
  await until("the datagrams", () => sink.datagrams >= count);
  expect(sink).toMatchObject({ datagrams: count, patternErrors: 0, duplicates: 0, missing: 0 });
  const received = await receiveDatagrams(lab, `-p ${port} -n 200 -r ${SEED}`, () =>
    card.peer.udp.send(card.guestAddress, port, {
      count: 200,
      size: (n) => 4 + ((n * 37) % 1469),
      seed: SEED,
    }),
  );
  expect(received).toMatchObject({ datagrams: 200, errors: 0, duplicates: 0, end: 200 });
}
