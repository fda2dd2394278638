import { readFileSync } from "node:fs";
import { gunzipSync, gzipSync } from "node:zlib";

import { PcapngWriter, readCapture } from "vbus/net";
import { describe, expect, it } from "vitest";

import { dataPath, frame } from "./rig.js";

const DATA = frame(1, 2, 3, 61);
const bytesOf = (...parts: Uint8Array[]): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.concat(parts));

/** Writes words of a byte order: [size in bytes, value] pairs, or bytes as they are. */
function words(little: boolean, ...items: ([2 | 4, number] | Uint8Array)[]): Uint8Array {
  return Buffer.concat(
    items.map((item) => {
      if (item instanceof Uint8Array) return item;
      const data = new DataView(new ArrayBuffer(item[0]));
      if (item[0] === 2) data.setUint16(0, item[1], little);
      else data.setUint32(0, item[1], little);
      return new Uint8Array(data.buffer);
    }),
  );
}

function pcap(little: boolean, magic: number, fraction: number): Uint8Array<ArrayBuffer> {
  const header = words(little, [4, magic], [2, 2], [2, 4], [4, 0], [4, 0], [4, 65535], [4, 1]);
  const record = words(little, [4, 1_600_000_000], [4, fraction], [4, DATA.length], [4, 100], DATA);
  return bytesOf(header, record, record);
}

function block(little: boolean, type: number, ...body: ([2 | 4, number] | Uint8Array)[]): Uint8Array {
  const inner = words(little, ...body);
  const padded = Buffer.concat([inner, new Uint8Array((4 - (inner.length % 4)) % 4)]);
  const length = padded.length + 12;
  return words(little, [4, type], [4, length], padded, [4, length]);
}

const section = (little: boolean): Uint8Array =>
  block(little, 0x0a0d0d0a, [4, 0x1a2b3c4d], [2, 1], [2, 0], [4, 0xffffffff], [4, 0xffffffff]);

function interfaceBlock(little: boolean, resolution?: number, offset = 0, snap = 0): Uint8Array {
  const options: [2 | 4, number][] = [];
  const tsresol =
    resolution === undefined ? [] : [words(little, [2, 9], [2, 1]), Uint8Array.of(resolution, 0, 0, 0)];
  const seconds: [2 | 4, number][] = little
    ? [
        [4, offset],
        [4, 0],
      ]
    : [
        [4, 0],
        [4, offset],
      ];
  if (offset > 0) options.push([2, 14], [2, 8], ...seconds);
  return block(little, 1, [2, 1], [2, 0], [4, snap], ...tsresol, ...options, [4, 0]);
}

function packet(little: boolean, id: number, high: number, low: number, captured = DATA.length): Uint8Array {
  return block(little, 6, [4, id], [4, high], [4, low], [4, captured], [4, 100], DATA);
}

describe("reading captures", () => {
  it("reads pcap in both byte orders and both resolutions, and says which frames were cut", async () => {
    for (const little of [true, false]) {
      for (const [magic, fraction, ns] of [
        [0xa1b2c3d4, 123456, 123456000n],
        [0xa1b23c4d, 123456789, 123456789n],
      ] as const) {
        const file = await readCapture(pcap(little, magic, fraction));
        expect(file.format).toBe("pcap");
        expect(file.interfaces).toEqual([{ linkType: 1, snapLength: 65535 }]);
        expect(file.frames.length).toBe(2);
        expect(file.frames[1]).toEqual({
          data: new Uint8Array(DATA),
          timestampNs: 1_600_000_000_000_000_000n + ns,
          interface: 0,
          originalLength: 100,
          truncated: true,
        });
      }
    }
  });

  it("reads the real capture, compressed and not, to the same frames", async () => {
    const packed = new Uint8Array(readFileSync(dataPath("segments.pcap.gz")));
    const a = await readCapture(packed);
    const b = await readCapture(new Uint8Array(gunzipSync(packed)));
    expect(a.frames.length).toBe(1563);
    expect(a).toEqual(b);
  });

  it("reads pcapng with sections of both byte orders, each with interfaces of its own, and every resolution", async () => {
    const parts: Uint8Array[] = [];
    for (const little of [true, false]) {
      parts.push(
        section(little),
        block(little, 0x0bad, [4, 1]), // unknown
        interfaceBlock(little), // microseconds
        interfaceBlock(little, 3, 10), // milliseconds, and 10 s later
        interfaceBlock(little, 0x80 | 20), // 2^-20 s
        packet(little, 0, 0, 5),
        packet(little, 1, 1, 0),
        packet(little, 2, 0, 1 << 19),
      );
    }
    const { interfaces, frames } = await readCapture(bytesOf(...parts));
    expect(interfaces.length).toBe(6);
    expect(frames.map((each) => each.interface)).toEqual([0, 1, 2, 3, 4, 5]);
    const stamps = [5000n, 2n ** 32n * 1_000_000n + 10_000_000_000n, 500_000_000n];
    expect(frames.map((each) => each.timestampNs)).toEqual([...stamps, ...stamps]);
  });

  it("reads simple packets, cut by the snap length, and the obsolete packet block", async () => {
    const little = true;
    const simple = block(little, 3, [4, 100], DATA.subarray(0, 40));
    const old = block(little, 2, [2, 0], [2, 7], [4, 0], [4, 9], [4, DATA.length], [4, DATA.length], DATA);
    const { frames } = await readCapture(
      bytesOf(section(little), interfaceBlock(little, 9, 0, 40), simple, old),
    );
    expect(frames[0]).toMatchObject({ originalLength: 100, truncated: true, timestampNs: 0n });
    expect(frames[0]?.data.length).toBe(40);
    expect(frames[1]).toMatchObject({ originalLength: 61, truncated: false, timestampNs: 9n });
  });
});

describe("a file that is not a capture, or a damaged one, is refused with its offset and the reason", () => {
  const good = pcap(true, 0xa1b2c3d4, 1);
  const ng = bytesOf(section(true), interfaceBlock(true), packet(true, 0, 0, 1));
  const patched = (bytes: Uint8Array, at: number, ...values: number[]): Uint8Array<ArrayBuffer> => {
    const copy = bytesOf(bytes);
    copy.set(values, at);
    return copy;
  };
  const cases: [string, Uint8Array<ArrayBuffer>, RegExp][] = [
    ["nothing at all", new Uint8Array(0), /EINVAL: capture file, offset 0: only 0 bytes/],
    ["three bytes", good.slice(0, 3), /offset 0: only 3 bytes/],
    [
      "a text file",
      bytesOf(Buffer.from("hello, world\n")),
      /offset 0: begins with 0x68656c6c, which is neither/,
    ],
    ["half a file header", good.slice(0, 20), /offset 0: truncated: 20 bytes of a file header of 24/],
    ["another version", patched(good, 4, 3), /offset 4: version 3 of pcap/],
    ["half a record header", good.slice(0, 30), /offset 24: truncated: 6 bytes of a record header/],
    ["half a frame", good.slice(0, -1), /offset 101: a frame of 61 bytes, but the file ends after 60 more/],
    [
      "a frame longer than it was",
      patched(good, 24 + 12, 10),
      /offset 24: 61 bytes recorded of a frame of 10/,
    ],
    [
      "damaged gzip",
      patched(bytesOf(gzipSync(good)), 20, 1, 2, 3, 4, 5, 6, 7, 8),
      /EINVAL: .*gzip data is damaged/,
    ],
    [
      "truncated gzip",
      bytesOf(gzipSync(good).subarray(0, -12)),
      /EINVAL: .*gzip data is damaged or truncated/,
    ],
    ["a section with a foreign byte order", patched(ng, 8, 9), /offset 8: byte-order magic/],
    ["a pcapng version to come", patched(ng, 12, 2), /offset 12: version 2 of pcapng/],
    ["a block that is too short", patched(ng, 28 + 4, 8), /offset 28: a block of 8 bytes/],
    ["a block length that is odd", patched(ng, 28 + 4, 25), /offset 28: a block of 25 bytes/],
    [
      "a block beyond the end",
      patched(ng, 28 + 5, 8),
      /offset 28: a block of \d+ bytes, but the file ends after/,
    ],
    [
      "a block whose lengths differ",
      patched(ng, 28 + 20, 8),
      /offset 28: a block of 24 bytes that ends with length 8/,
    ],
    ["a cut block", ng.slice(0, -5), /offset 52: a block of \d+ bytes, but the file ends/],
    ["a few bytes at the end", bytesOf(ng, new Uint8Array(5)), /truncated: 5 bytes where a block begins/],
    [
      "an interface nobody described",
      bytesOf(section(true), packet(true, 0, 0, 1)),
      /offset 36: interface 0/,
    ],
    [
      "a frame beyond its block",
      bytesOf(section(true), interfaceBlock(true), packet(true, 0, 0, 1, 70)),
      /offset 80: a frame of 70/,
    ],
    [
      "an option beyond its block",
      bytesOf(section(true), block(true, 1, [2, 1], [2, 0], [4, 0], [2, 2], [2, 99])),
      /option 2 of 99/,
    ],
    [
      "a packet block without its members",
      bytesOf(section(true), interfaceBlock(true), block(true, 6, [4, 0])),
      /too short/,
    ],
  ];
  for (const [what, bytes, message] of cases) {
    it(what, async () => {
      await expect(readCapture(bytes)).rejects.toThrow(message);
      await expect(readCapture(bytes)).rejects.toMatchObject({ code: "EINVAL" });
    });
  }

  it("whatever byte of a pcapng file is damaged, or wherever it ends: never anything but EINVAL", async () => {
    const chunks: Uint8Array[] = [];
    const writer = new PcapngWriter({
      sink: (chunk) => chunks.push(chunk),
      clock: { now: () => 0 },
      comment: "x",
    });
    const id = writer.addInterface({ name: "eth0", description: "d" });
    writer.frame(id, DATA, "inbound");
    writer.statistics(id, 1, 2);
    writer.close();
    const file = bytesOf(...chunks);
    let refused = 0;
    for (let i = 0; i < file.length; i++) {
      for (const bytes of [patched(file, i, 0xff), patched(file, i, 0), file.slice(0, i)]) {
        try {
          await readCapture(bytes);
        } catch (error) {
          expect(error).toMatchObject({ code: "EINVAL" });
          refused++;
        }
      }
    }
    expect(refused).toBeGreaterThan(file.length);
  });
});
