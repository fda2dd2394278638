import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_SIZE,
} from "vbus/abi";
import type { VirtioNicOptions } from "vbus/drivers/virtio-net";
import type { BurstTable } from "vbus/engine";
import { describe, expect, it } from "vitest";
import { generator, seedOr } from "../engine/seed.js";
import { testFrame } from "../venet/machine.js";
import { expectBytes } from "../vblk/machine.js";
import { cut, DeviceByHand, type HandOptions, type PostedBuffer } from "./device-by-hand.js";
import { bit, type Header } from "./machine.js";

const SEED = seedOr(20261126);
const TO = [2, 0, 0, 0, 0, 0x0a];
const FROM = [2, 0, 0, 0, 0, 1];
/** {@link TO} as a number. */
const STATION = 0x02_00_00_00_00_0a;
const PLAIN: HandOptions = { features: 0n };
const MERGEABLE: HandOptions = { features: bit(VIRTIO_NET_F_MRG_RXBUF) };
const OFFLOADS: HandOptions = {
  features: bit(VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4),
};
/** Bytes of the buffers that are posted for an MTU of 1500. */
const BUFFER = 1536;

const frame = (length: number, n = 0): Uint8Array<ArrayBuffer> => testFrame(TO, FROM, length, n);

/** All frames that the driver hands up, as copies. `most`: how many it takes at a time. */
function collect(device: DeviceByHand, most = Infinity): Uint8Array[] {
  const got: Uint8Array[] = [];
  const { nic } = device;
  nic.onFrames = (batch, from, to) => {
    const n = Math.min(most, to - from);
    for (let i = from; i < from + n; i++) {
      const bytes = batch.copy(i);
      if (batch.destination(i) !== STATION || batch.etherType(i) !== 0x88b5)
        throw new Error(`the private copy of the head of frame ${got.length} is not its head`);
      got.push(bytes);
    }
    if (n < to - from) device.scheduler.post(() => nic.resumeReceive());
    return n;
  };
  return got;
}

function expectFrames(got: readonly Uint8Array[], wanted: readonly Uint8Array[]): void {
  expect(got.map(({ length }) => length)).toEqual(wanted.map(({ length }) => length));
  for (const [i, bytes] of got.entries()) expectBytes(bytes, wanted[i]!);
}

describe.each<[string, HandOptions, VirtioNicOptions]>([
  ["split rings, in any order", MERGEABLE, { packed: false }],
  ["packed rings, in any order", MERGEABLE, {}],
  ["split rings, in order", { ...MERGEABLE, inOrder: true }, { packed: false }],
  ["packed rings, in order", { ...MERGEABLE, inOrder: true }, {}],
  ["rings of 64, no longer than a burst", { ...MERGEABLE, rxRing: 64 }, {}],
])("a virtio-net driver that receives (%s)", (_what, options, driver) => {
  it.each([
    ["all at once", Infinity],
    ["a few at a time", 3],
  ])(
    `gets frames over any number of buffers, used in any portions, and takes them %s (seed ${SEED})`,
    async (_how, most) => {
      const device = await DeviceByHand.create(options, driver);
      const random = generator(SEED);
      const size = options.rxRing ?? 256;
      const got = collect(device, most);
      const sent: Uint8Array[] = [];
      let buffers: PostedBuffer[] = [];
      /** What the buffers that come next will hold. */
      const parts: Uint8Array[] = [];
      for (let turn = 0; turn < 80; turn++) {
        buffers.push(...device.take());
        if (options.inOrder !== true) buffers.sort(() => (random() & 1) - 0.5);
        let portion = 1 + (random() % 150);
        while (portion-- > 0 && buffers.length > 0) {
          if (parts.length === 0) {
            const one = frame(14 + (random() % (random() % 4 === 0 ? 40_000 : 1500)), sent.length);
            const cuts: number[] = [];
            for (let left = one.length; left > 0;) {
              const room = (cuts.length === 0 ? BUFFER - VIRTIO_NET_HDR_SIZE : BUFFER) - (random() % 2) * 5;
              if (left <= room) break;
              cuts.push(room);
              left -= room;
            }
            sent.push(one);
            parts.push(...cut(one, cuts, { buffers: cuts.length + 1 }));
          }
          device.use(buffers.shift()!, parts.shift()!);
        }
        if (random() % 3 > 0) device.run();
      }
      device.run();
      const whole = parts.length === 0 ? sent : sent.slice(0, -1);
      expectFrames(got, whole);
      expect(
        sent.some(({ length }) => length > 20 * BUFFER),
        "some are long",
      ).toBe(true);
      expect(device.nic.statistics()).toMatchObject({
        rx_packets: whole.length,
        rx_bytes: whole.reduce((sum, { length }) => sum + length, 0),
        rx_length_errors: 0,
        rx_frame_errors: 0,
      });
      // all came back but the beginning of the last frame, which waits for its rest
      buffers = [...buffers, ...device.take()];
      for (const part of parts.splice(0)) device.use(buffers.shift()!, part);
      device.run();
      buffers.push(...device.take());
      expect(buffers, "buffers that the device has in the end").toHaveLength(size);
      expect(new Set(buffers.map(({ gpa }) => gpa)).size, "each of them once").toBe(size);
      expectFrames(got, sent);
      expect(device.failures).toEqual([]);
    },
  );
});

describe("the bookkeeping of received frames", () => {
  it("holds a whole ring of frames that nobody takes, in their order, and gives no buffer back before", async () => {
    const device = await DeviceByHand.create(MERGEABLE);
    const { nic } = device;
    let asked = 0;
    nic.onFrames = () => {
      asked++;
      return 0;
    };
    const buffers = device.take();
    expect(buffers).toHaveLength(256);
    const sent = buffers.map((_, n) => frame(60 + n, n));
    for (const [n, buffer] of buffers.entries()) {
      device.deliver([buffer], sent[n]!);
      if (n % 50 === 49) {
        device.run();
        nic.resumeReceive(); // in vain: still nothing is taken
      }
    }
    device.run();
    expect(asked).toBeGreaterThan(5);
    expect(device.take()).toEqual([]);
    const got = collect(device, 10);
    nic.resumeReceive();
    device.run();
    expectFrames(got, sent);
    expect(device.take()).toHaveLength(256);
  });

  it("joins a frame whose buffers span the end of a burst, with the frames around it", async () => {
    const device = await DeviceByHand.create(MERGEABLE);
    const got = collect(device);
    const buffers = device.take();
    const before = Array.from({ length: 60 }, (_, n) => frame(100 + n, n));
    const spanning = frame(8 * BUFFER, 60);
    const after = frame(1514, 61);
    for (const one of before) device.deliver([buffers.shift()!], one);
    // buffers 60 … 68, of which a burst has 64
    device.deliver(
      buffers.splice(0, 9),
      spanning,
      Array.from({ length: 8 }, (_, k) => (k === 0 ? 1000 : BUFFER)),
    );
    device.deliver([buffers.shift()!], after);
    device.run();
    expectFrames(got, [...before, spanning, after]);
    expect(device.take()).toHaveLength(70);
  });

  it("waits for the rest of a frame, however often it looks meanwhile", async () => {
    const device = await DeviceByHand.create(MERGEABLE);
    const got = collect(device);
    const buffers = device.take();
    const long = frame(4000);
    const parts = cut(long, [1500, 1500], { buffers: 3 });
    for (const part of parts) {
      expect(got).toEqual([]);
      device.use(buffers.shift()!, part);
      device.nic.resumeReceive();
      device.run();
    }
    expectFrames(got, [long]);
  });

  it("hands a frame up to a reader who waits, and those that did not fit in his backlog after it", async () => {
    const device = await DeviceByHand.create(MERGEABLE, { receiveBacklog: 4 });
    const sent = Array.from({ length: 30 }, (_, n) => frame(60 + n, n));
    const got: Uint8Array[] = [];
    const reading = (async () => {
      while (got.length < sent.length) got.push(...(await device.nic.receive()));
    })();
    const buffers = device.take();
    for (const one of sent) device.deliver([buffers.shift()!], one);
    for (let turn = 0; turn < 100 && got.length < sent.length; turn++) {
      device.run();
      await Promise.resolve();
    }
    expectFrames(got, sent);
    await reading;
  });

  it("comes again at once when the receiver took fewer, and said meanwhile that it can take more", async () => {
    const device = await DeviceByHand.create(PLAIN);
    const { nic } = device;
    const got: number[] = [];
    nic.onFrames = (batch, from) => {
      got.push(batch.length(from));
      nic.resumeReceive();
      return 1;
    };
    for (const [n, buffer] of device.take().slice(0, 5).entries()) device.deliver([buffer], frame(60 + n));
    device.run();
    expect(got).toEqual([60, 61, 62, 63, 64]);
  });

  it("has the head of a frame that begins with a few bytes, or has no more", async () => {
    const device = await DeviceByHand.create(MERGEABLE);
    const heads: number[][] = [];
    device.nic.onFrames = (batch, from, to) => {
      for (let i = from; i < to; i++)
        heads.push(Array.from({ length: 16 }, (_, k) => batch.table.headByte(i, k)));
      return to - from;
    };
    const buffers = device.take();
    for (const { gpa, length } of buffers)
      device.rx.ring.space.copyTo(gpa, new Uint8Array(length).fill(0xee));
    const short = frame(14);
    const long = frame(100, 7);
    device.deliver([buffers.shift()!], short);
    device.deliver(buffers.splice(0, 2), long, [1]);
    device.deliver(buffers.splice(0, 3), long, [13, 2]);
    device.deliver(buffers.splice(0, 2), short, [13]);
    device.run();
    expect(heads).toEqual([
      [...short, 0, 0],
      [...long.subarray(0, 16)],
      [...long.subarray(0, 16)],
      [...short, 0, 0],
    ]);
  });

  it("stops in the midst of a burst when the receiver closes the card", async () => {
    const device = await DeviceByHand.create(MERGEABLE);
    const { nic } = device;
    let closing: Promise<void> | undefined;
    let calls = 0;
    nic.onFrames = (_batch, from, to) => {
      calls++;
      closing = nic.close();
      return to - from;
    };
    for (const buffer of device.take().slice(0, 200)) device.deliver([buffer], frame(60));
    device.run();
    await closing;
    device.run();
    expect(calls).toBe(1);
    expect(nic.statistics().rx_packets).toBe(0);
    const { ram } = device.transport.memory;
    expect(ram.available).toBe(ram.size);
  });
});

describe("frames of a virtio-net driver lie where shared memory is copied by words", () => {
  it("at multiples of 16, those that it posts room for and those that it sends", async () => {
    const device = await DeviceByHand.create(OFFLOADS);
    const buffers = device.take();
    for (const { gpa, length } of buffers) {
      expect((gpa + VIRTIO_NET_HDR_SIZE) % 16).toBe(0);
      expect(length % 8, "what follows in the next buffer lies alike").toBe(0);
    }
    await device.nic.send([frame(60), frame(1514)]);
    for (const { gpa } of device.takeSent()) expect((gpa + VIRTIO_NET_HDR_SIZE) % 16).toBe(0);
  });

  it("which are given in arrays", async () => {
    const { nic } = await DeviceByHand.create(OFFLOADS);
    await expect(nic.send(frame(60) as never)).rejects.toThrow("EINVAL: frames are sent in an array");
  });
});

/** A frame that cannot be, the buffers that it takes, and what is counted of it. */
interface Lie {
  what: string;
  options: HandOptions;
  /** Bytes and bytes said to be written, for each buffer. */
  buffers: (readonly [bytes: Uint8Array, written?: number])[];
  counted: "rx_length_errors" | "rx_frame_errors";
}

const whole = (header: Header, one = frame(100)): Uint8Array => cut(one, [], { buffers: 1, ...header })[0]!;
const pieces = (count: number, length: number): Lie["buffers"] => {
  const cuts = Array.from({ length: count - 1 }, (_, k) => (k === 0 ? length - VIRTIO_NET_HDR_SIZE : length));
  return cut(frame(count * length - VIRTIO_NET_HDR_SIZE), cuts, { buffers: count }).map((part) => [part]);
};
const NEEDS = { flags: VIRTIO_NET_HDR_F_NEEDS_CSUM, start: 34, offset: 16 };

const LIES: Lie[] = [
  { what: "nothing written", options: PLAIN, buffers: [[whole({}), 0]], counted: "rx_length_errors" },
  { what: "half a header", options: MERGEABLE, buffers: [[whole({}), 11]], counted: "rx_length_errors" },
  { what: "a header alone", options: MERGEABLE, buffers: [[whole({}), 12]], counted: "rx_length_errors" },
  {
    what: "13 bytes of a frame",
    options: PLAIN,
    buffers: [[whole({}), VIRTIO_NET_HDR_SIZE + 13]],
    counted: "rx_length_errors",
  },
  { what: "no buffers", options: MERGEABLE, buffers: [[whole({ buffers: 0 })]], counted: "rx_length_errors" },
  {
    what: "more buffers than the longest frame takes",
    options: MERGEABLE,
    buffers: [[whole({ buffers: 45 })]],
    counted: "rx_length_errors",
  },
  {
    what: "65535 buffers",
    options: MERGEABLE,
    buffers: [[whole({ buffers: 65535 })]],
    counted: "rx_length_errors",
  },
  {
    what: "a second buffer with nothing in it",
    options: MERGEABLE,
    buffers: [[whole({ buffers: 3 })], [new Uint8Array(0)], [frame(100)]],
    counted: "rx_length_errors",
  },
  {
    what: "a first buffer with nothing but a header",
    options: MERGEABLE,
    buffers: [[whole({ buffers: 2 }), VIRTIO_NET_HDR_SIZE], [frame(100)]],
    counted: "rx_length_errors",
  },
  {
    what: "two buffers with 13 bytes together",
    options: MERGEABLE,
    buffers: [[whole({ buffers: 2 }), VIRTIO_NET_HDR_SIZE + 12], [Uint8Array.of(1)]],
    counted: "rx_length_errors",
  },
  {
    what: "more bytes than the longest superframe",
    options: MERGEABLE,
    buffers: pieces(43, BUFFER),
    counted: "rx_length_errors",
  },
  {
    what: "a checksum that was not negotiated",
    options: MERGEABLE,
    buffers: [[whole(NEEDS)]],
    counted: "rx_frame_errors",
  },
  {
    what: "a checksum beyond the end",
    options: OFFLOADS,
    buffers: [[whole({ ...NEEDS, start: 83, offset: 16 })]],
    counted: "rx_frame_errors",
  },
  {
    what: "a checksum far beyond the end",
    options: OFFLOADS,
    buffers: [[whole({ ...NEEDS, start: 0xffff, offset: 0xffff })]],
    counted: "rx_frame_errors",
  },
  {
    what: "segments that were not negotiated",
    options: OFFLOADS,
    buffers: [[whole({ ...NEEDS, type: VIRTIO_NET_HDR_GSO_TCPV6, size: 10 })]],
    counted: "rx_frame_errors",
  },
  {
    what: "segments of an unknown kind",
    options: OFFLOADS,
    buffers: [[whole({ ...NEEDS, type: 0x7f, size: 10 })]],
    counted: "rx_frame_errors",
  },
  {
    what: "ECN of no segments",
    options: OFFLOADS,
    buffers: [[whole({ ...NEEDS, type: VIRTIO_NET_HDR_GSO_ECN, size: 10 })]],
    counted: "rx_frame_errors",
  },
  {
    what: "ECN that was not negotiated",
    options: OFFLOADS,
    buffers: [[whole({ ...NEEDS, type: VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN, size: 10 })]],
    counted: "rx_frame_errors",
  },
  {
    what: "segments of no bytes",
    options: OFFLOADS,
    buffers: [[whole({ ...NEEDS, type: VIRTIO_NET_HDR_GSO_TCPV4, size: 0 })]],
    counted: "rx_frame_errors",
  },
  {
    what: "segments without a checksum",
    options: OFFLOADS,
    buffers: [[whole({ type: VIRTIO_NET_HDR_GSO_TCPV4, size: 10 })]],
    counted: "rx_frame_errors",
  },
];

describe("a device that lies about a frame", () => {
  it.each(LIES)(
    "($what) loses that frame, counted; its buffers go back",
    async ({ options, buffers: lie, counted }) => {
      const device = await DeviceByHand.create(options);
      let open = false;
      const got: Uint8Array[] = [];
      device.nic.onFrames = (batch, from, to) => {
        if (!open) return 0;
        for (let i = from; i < to; i++) got.push(batch.copy(i));
        return to - from;
      };
      const buffers = device.take();
      const good = [frame(200, 1), frame(300, 2), frame(400, 3)];
      const tell = (): void => {
        for (const [bytes, written] of lie) device.use(buffers.shift()!, bytes, written);
      };
      device.deliver([buffers.shift()!], good[0]!);
      device.deliver([buffers.shift()!], good[1]!);
      tell();
      device.deliver([buffers.shift()!], good[2]!);
      tell();
      device.run();
      device.nic.resumeReceive(); // in vain, but now the next burst is looked at, too
      device.run();
      // what was before it waits, and is no obstacle
      expect(got).toEqual([]);
      expect(device.nic.statistics()[counted]).toBe(2);
      expect(device.take()).toHaveLength(2 * lie.length);
      open = true;
      device.nic.resumeReceive();
      device.run();
      expectFrames(got, good);
      expect(device.take()).toHaveLength(3);
      expect(device.nic.statistics()).toMatchObject({
        rx_packets: 3,
        rx_bytes: 900,
        rx_length_errors: 0,
        rx_frame_errors: 0,
        [counted]: 2,
      });
      expect(device.failures).toEqual([]);
    },
  );

  it("(a superframe of exactly the longest length) is believed when it tells the truth", async () => {
    const device = await DeviceByHand.create(OFFLOADS);
    const got: { length: number; pieces: number; gso: number }[] = [];
    device.nic.onFrames = (batch, from, to) => {
      for (let i = from; i < to; i++)
        got.push({ length: batch.length(i), pieces: batch.table.fragments(i), gso: batch.gsoKind(i) });
      return to - from;
    };
    const longest = frame(65536, 3);
    const cuts = Array.from({ length: 42 }, (_, k) => (k === 0 ? BUFFER - VIRTIO_NET_HDR_SIZE : BUFFER));
    device.deliver(device.take(), longest, cuts, {
      ...NEEDS,
      type: VIRTIO_NET_HDR_GSO_TCPV4,
      size: 1446,
      headerLength: 54,
    });
    device.run();
    expect(got).toEqual([{ length: 65536, pieces: 43, gso: expect.any(Number) as number }]);
    expect(got[0]!.gso).not.toBe(0);
    expect(device.nic.statistics()).toMatchObject({ rx_gro: 1, rx_csum_partial: 1, rx_packets: 1 });
    expect(device.take()).toHaveLength(43);
  });

  it("(more bytes than a buffer has, were the ring to believe that) loses the frame, too", async () => {
    const device = await DeviceByHand.create(MERGEABLE);
    const got = collect(device);
    // entries of one burst: a frame in one buffer, one in two, one in two, one in one
    falsify(device, (table) => {
      table.setLength(0, BUFFER + 1);
      table.setLength(2, BUFFER + 1);
      table.setLength(3, 0xffffffff);
    });
    const buffers = device.take();
    const good = frame(300, 4);
    device.deliver([buffers.shift()!], frame(100));
    device.deliver(buffers.splice(0, 2), frame(2000), [1000]);
    device.deliver(buffers.splice(0, 2), frame(2000), [1000]);
    device.deliver([buffers.shift()!], good);
    device.run();
    expectFrames(got, [good]);
    expect(device.nic.statistics().rx_length_errors).toBe(3);
    expect(device.take()).toHaveLength(6);
  });

  it("(a buffer that was never posted, likewise) ends the card, and hurts nobody", async () => {
    const device = await DeviceByHand.create(MERGEABLE);
    falsify(device, (table) => {
      table.setCookie(0, 256);
    });
    device.deliver(device.take(), frame(100));
    device.run();
    expect(device.failures).toMatchObject([{ code: "EPROTO" }]);
    await expect(device.nic.receive()).rejects.toMatchObject({ code: "EPROTO" });
  });
});

/** Changes what the driver's end of the receive ring says of the first burst, as an engine would that checked nothing. */
function falsify(device: DeviceByHand, change: (table: BurstTable) => void): void {
  const { ring } = device.transport.driverQueues.get(0)!;
  const reap = ring.reap.bind(ring);
  let done = false;
  ring.reap = (table, max) => {
    const n = reap(table, max);
    if (n > 0 && !done) change(table);
    done ||= n > 0;
    return n;
  };
}
