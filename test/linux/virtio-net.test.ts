/** The guest's eth0 is v86's own virtio-net: what passes it tells whether guest, tools, port and peer are sound. */
import { describe, expect, it } from "vitest";
import { PatternStream } from "../support/streams.js";
import { expectNoErrors, linuxLab, probed, receiveDatagrams, until } from "./fixture.js";

const SEED = 20090401;

describe("v86's own card in a Linux guest", () => {
  const lab = linuxLab({ cards: ["eth0"] });

  it("is there, and answers pings of all sizes", async () => {
    const { machine } = lab();
    const card = lab().card("eth0");
    expect(await machine.check("readlink /sys/class/net/eth0/device/driver")).toMatch(/virtio_net\n$/);
    for (const size of [0, 1, 57, 1472]) {
      const output = await machine.check(`netprobe ping -h ${card.peerAddress} -n 20 -z ${size}`);
      const { sent, lost, errors, p50, max } = probed(output, "pinged");
      expect({ sent, lost, errors }).toEqual({ sent: 20, lost: 0, errors: 0 });
      expect(p50).toBeLessThanOrEqual(max!);
    }
  });

  it("carries a TCP stream out, verified by the peer", async () => {
    const card = lab().card("eth0");
    const bytes = 5_000_003;
    const streams: PatternStream[] = [];
    card.peer.tcp.listen(7001, (context) => {
      const stream = new PatternStream(context, { receiveSeed: SEED });
      streams.push(stream);
      return stream;
    });
    const output = await lab().machine.check(
      `netprobe tcp-send -h ${card.peerAddress} -p 7001 -n ${bytes} -s ${SEED}`,
    );
    expect(probed(output, "sent").bytes).toBe(bytes);
    expect(streams).toHaveLength(1);
    // the guest's kernel may still have the end of it
    await until("the end of the stream", () => streams[0]!.received >= bytes);
    expect(streams[0]).toMatchObject({ received: bytes, patternErrors: 0 });
  });

  it("carries a TCP stream in, verified by the guest, which finds a wrong byte", async () => {
    const card = lab().card("eth0");
    const { machine } = lab();
    const bytes = 5_000_003;
    card.peer.tcp.listen(7002, (context) => new PatternStream(context, { send: bytes, sendSeed: SEED }));
    const command = `netprobe tcp-receive -h ${card.peerAddress} -p 7002 -n ${bytes}`;
    expect(probed(await machine.check(`${command} -r ${SEED}`), "received")).toMatchObject({
      bytes,
      errors: 0,
    });
    const wrong = await machine.run(`${command} -r ${SEED + 1}`);
    expect(wrong.status).toBe(1);
    expect(probed(wrong.output, "received")).toMatchObject({ bytes, first: 0 });
    expect(probed(wrong.output, "received").errors).toBeGreaterThan(0);
  });

  it("carries streams both ways at once", async () => {
    const card = lab().card("eth0");
    const [out, into] = [2_000_001, 3_000_001];
    const streams: PatternStream[] = [];
    card.peer.tcp.listen(7003, (context) => {
      const stream = new PatternStream(context, { send: into, sendSeed: SEED, receiveSeed: SEED + 1 });
      streams.push(stream);
      return stream;
    });
    const output = await lab().machine.check(
      `netprobe tcp-both -h ${card.peerAddress} -p 7003 -n ${out} -s ${SEED + 1} -r ${SEED}`,
    );
    expect(probed(output, "sent").bytes).toBe(out);
    expect(probed(output, "received")).toMatchObject({ bytes: into, errors: 0 });
    await until("the end of the stream", () => streams[0]!.received >= out);
    expect(streams[0]).toMatchObject({ received: out, patternErrors: 0 });
  });

  it("carries datagrams of all sizes both ways", async () => {
    const card = lab().card("eth0");
    const { machine } = lab();
    const sink = card.peer.udp.sink(7004, SEED);
    const sizes = 4 + 97;
    const sent = await machine.check(
      `netprobe udp-send -h ${card.peerAddress} -p 7004 -n 500 -z 4:${sizes} -s ${SEED}`,
    );
    expect(probed(sent, "sent").datagrams).toBe(500);
    // the last of them may still be under way
    for (let i = 0; i < 100 && sink.datagrams < 500; i++) await machine.check("usleep 10000");
    expect(sink).toMatchObject({ datagrams: 500, patternErrors: 0, duplicates: 0, missing: 0 });
    const received = await receiveDatagrams(lab(), `-p 7005 -n 300 -r ${SEED}`, () =>
      card.peer.udp.send(card.guestAddress, 7005, {
        count: 300,
        size: (n) => 4 + ((n * 7) % 1469),
        seed: SEED,
      }),
    );
    expect(received).toMatchObject({ datagrams: 300, errors: 0, duplicates: 0, end: 300 });
  });

  it("costs one doorbell and one interrupt per frame, for the table's counters to see", async () => {
    const card = lab().card("eth0");
    const before = await card.notifications.read();
    await lab().machine.check(`netprobe ping -h ${card.peerAddress} -n 50`);
    const after = await card.notifications.read();
    expect(after.doorbells - before.doorbells).toBeGreaterThanOrEqual(50);
    expect(after.lines - before.lines).toBeGreaterThanOrEqual(50);
    expect(after.interrupts - before.interrupts).toBeGreaterThanOrEqual(50);
  });

  it("loses nothing uncounted: the guest's kernel and the peer have found no error", async () => {
    await expectNoErrors(lab());
  });
});
