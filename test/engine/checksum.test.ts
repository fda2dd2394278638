import fs from "node:fs";
import zlib from "node:zlib";
import { Checksum } from "vbus/engine";
import { beforeAll, describe, expect, it } from "vitest";
import { MemorySpace } from "vbus/memory";
import { expectError, openGuest } from "./guest.js";
import { generator, seedOr } from "./seed.js";

const SEED = seedOr(1071);

/** RFC 1071 word by word in network order, carries folded at once: as plain as it gets. */
function plainSum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i] as number) * 256 + (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

/** One's complement has two zeros; network order and the engine's little-endian words differ by a swap. */
function same(sum: number, expected: number): boolean {
  const swapped = ((sum & 0xff) << 8) | (sum >>> 8);
  return sum <= 0xffff && swapped % 0xffff === expected % 0xffff && (swapped === 0) === (expected === 0);
}

const swap = (value: number): number => ((value & 0xff) << 8) | ((value >>> 8) & 0xff);

/** Frames of a classic little-endian pcap file. */
function* frames(file: string): Generator<Uint8Array> {
  const bytes = zlib.gunzipSync(fs.readFileSync(new URL(`../data/${file}`, import.meta.url)));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const magic = view.getUint32(0, true);
  if (magic !== 0xa1b2c3d4 && magic !== 0xa1b23c4d) throw new Error(`${file} is no little-endian pcap file`);
  for (let at = 24; at < bytes.length;) {
    const length = view.getUint32(at + 8, true);
    yield bytes.subarray(at + 16, at + 16 + length);
    at += 16 + length;
  }
}

for (const shared of [false, true]) {
  describe(`checksum, ${shared ? "shared" : "unshared"} engine (seed ${SEED})`, () => {
    const { south: space, ram, init } = openGuest({ shared, size: 4 << 20 });
    const checksum = new Checksum(space);
    const base = (init.layout.regions[0] as { address: number }).address;
    const random = generator(SEED);

    beforeAll(() => {
      for (let i = 0; i < ram.length; i++) ram[i] = random();
    });

    it("every length 0 … 300 at every alignment 0 … 15, random contents", () => {
      for (let align = 0; align < 16; align++) {
        for (let length = 0; length <= 300; length++) {
          const at = 4096 + align;
          const sum = checksum.range(base + at, length);
          if (!same(sum, plainSum(ram.subarray(at, at + length))))
            expect({ align, length, sum }).toBe("right");
        }
      }
    });

    it("large ranges: 64 KiB and 1 MiB, one byte more, one less", () => {
      for (const size of [65535, 65536, 65537, 131071, 131072, 1 << 20, (1 << 20) - 1, (1 << 20) + 63]) {
        for (const at of [0, 1, 7]) {
          expect(same(checksum.range(base + at, size), plainSum(ram.subarray(at, at + size)))).toBe(true);
        }
      }
    });

    it("all ones and all zeros, where carries pile up", () => {
      const at = 2 << 20;
      for (const size of [1, 2, 3, 63, 64, 65, 300, 1500, 65536, 65537, 1 << 20]) {
        ram.fill(0xff, at, at + size);
        const sum = checksum.range(base + at, size);
        expect(sum).toBe(size % 2 === 0 || size > 2 ? (size % 2 === 0 ? 0xffff : 0x00ff) : 0xff);
        ram.fill(0, at, at + size);
        expect(checksum.range(base + at, size)).toBe(0);
      }
    });

    it("sums add up over any cut; a part at an odd offset is swapped first", () => {
      for (let n = 0; n < 500; n++) {
        const length = random() % 600;
        const cut = length === 0 ? 0 : random() % length;
        const at = random() % 1000;
        const head = checksum.range(base + at, cut);
        const tail = checksum.range(base + at + cut, length - cut);
        const sum = checksum.add(head, cut % 2 === 1 ? checksum.swap(tail) : tail);
        expect(same(sum, plainSum(ram.subarray(at, at + length)))).toBe(true);
      }
      expect(checksum.add(0xffff, 0xffff)).toBe(0xffff);
      expect(checksum.add(0xffff, 1)).toBe(1);
    });

    it("pseudo-headers of IPv4 and IPv6", () => {
      for (let n = 0; n < 200; n++) {
        const at = random() % 4096;
        const protocol = random() & 0xff;
        const length = random() & 0xffff;
        const four = [...ram.subarray(at, at + 8), 0, protocol, length >>> 8, length & 0xff];
        expect(same(checksum.pseudo4(base + at, protocol, length), plainSum(Uint8Array.from(four)))).toBe(
          true,
        );
        const long = random() >>> 4;
        const words = [
          long >>> 24,
          (long >>> 16) & 0xff,
          (long >>> 8) & 0xff,
          long & 0xff,
          0,
          0,
          0,
          protocol,
        ];
        const six = Uint8Array.from([...ram.subarray(at, at + 32), ...words]);
        expect(same(checksum.pseudo6(base + at, protocol, long), plainSum(six))).toBe(true);
      }
    });

    it("completes a partial checksum so that the whole sums to all ones", () => {
      for (let n = 0; n < 300; n++) {
        const length = 40 + (random() % 1500);
        const start = 14 + (random() % 10) * 2;
        const offset = (random() % ((length - start - 2) >>> 1)) * 2;
        const at = random() % 64;
        ram.fill(0, at + start + offset, at + start + offset + 2);
        const before = ram.slice(at, at + length);
        checksum.complete(base + at, length, start, offset);
        expect(checksum.range(base + at + start, length - start)).toBe(0xffff);
        const after = ram.slice(at, at + length);
        after.set(before.subarray(start + offset, start + offset + 2), start + offset);
        expect(after).toEqual(before); // nothing but the field
      }
    });

    it("UDP's zero is sent as all ones, everybody else's stays zero", () => {
      const at = 0x1000;
      const frame = Uint8Array.of(0x12, 0x34, 0, 0, 0xed, 0xcb); // sums to all ones: inverted, zero
      ram.set(frame, at);
      checksum.complete(base + at, 6, 0, 2, false);
      expect([...ram.subarray(at, at + 6)]).toEqual([...frame]);
      checksum.complete(base + at, 6, 0, 2, true);
      expect([...ram.subarray(at, at + 6)]).toEqual([0x12, 0x34, 0xff, 0xff, 0xed, 0xcb]);
      ram.set(Uint8Array.of(0x12, 0x34, 0, 0, 0, 0), at);
      checksum.complete(base + at, 6, 0, 2, true);
      expect([...ram.subarray(at + 2, at + 4)]).toEqual([0xed, 0xcb]);
    });

    it("refuses positions outside of the frame and writes nothing", () => {
      const before = ram.slice(0, 256);
      for (const [length, start, offset] of [
        [100, 99, 0],
        [100, 0, 99],
        [100, 50, 49],
        [100, 101, 0],
        [100, 0xffff, 0xffff],
        [100, 0xffffffff, 2],
        [0, 0, 0],
        [1, 0, 0],
      ] as const) {
        expectError("EINVAL", () => checksum.complete(base, length, start, offset));
      }
      expect(ram.slice(0, 256)).toEqual(before);
      checksum.complete(base, 100, 98, 0);
    });
  });
}

describe("checksums of a real capture", () => {
  it("every IPv4, TCP, UDP, ICMP and ICMPv6 checksum in segments.pcap.gz verifies", async () => {
    const space = await MemorySpace.host();
    const checksum = new Checksum(space);
    const at = space.allocate(65536, 64);
    const counts = { frames: 0, ipv4: 0, tcp: 0, udp: 0, icmp: 0, icmp6: 0 };
    const names: Record<number, "tcp" | "udp" | "icmp" | "icmp6"> = {
      6: "tcp",
      17: "udp",
      1: "icmp",
      58: "icmp6",
    };
    const fields = { tcp: 16, udp: 6, icmp: 2, icmp6: 2 };
    for (const frame of frames("segments.pcap.gz")) {
      counts.frames++;
      space.bytes.set(frame, at);
      const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
      const type = view.getUint16(12);
      let header = 0;
      let protocol = 0;
      let pseudo = 0;
      let end = 0;
      if (type === 0x0800) {
        header = 14 + (view.getUint8(14) & 15) * 4;
        expect(checksum.range(at + 14, header - 14)).toBe(0xffff);
        counts.ipv4++;
        if ((view.getUint16(20) & 0x3fff) !== 0) continue; // a fragment: its checksum covers the whole datagram
        protocol = view.getUint8(23);
        end = 14 + view.getUint16(16);
        pseudo = checksum.pseudo4(at + 26, protocol, end - header);
        if (protocol === 1) pseudo = 0;
      } else if (type === 0x86dd) {
        header = 54;
        protocol = view.getUint8(20);
        end = header + view.getUint16(18);
        pseudo = checksum.pseudo6(at + 22, protocol, end - header);
      }
      const name = names[protocol];
      if (name === undefined) continue;
      counts[name]++;
      expect(checksum.add(pseudo, checksum.range(at + header, end - header)), `frame ${counts.frames}`).toBe(
        0xffff,
      );

      // and completing it from the partial state gives the same bytes
      const field = header + fields[name];
      const original = view.getUint16(field);
      space.engine.data.setUint16(at + field, pseudo, true);
      checksum.complete(at, end, header, fields[name], name === "udp");
      expect(swap(space.engine.data.getUint16(at + field, true))).toBe(original);
    }
    expect(counts.frames).toBe(1563);
    for (const kind of ["ipv4", "tcp", "udp", "icmp", "icmp6"] as const)
      expect(counts[kind]).toBeGreaterThan(0);
    expect(counts.tcp).toBeGreaterThan(1000);
  });
});
