import { fc, test } from "@fast-check/vitest";
import { afterEach, describe, expect, it } from "vitest";
import type { Terminal } from "vbus/devices/vconsole";
import { seedOr } from "../engine/seed.js";
import { expectBytes, pattern, readBytes, settle, TestMachine, type TestGuest } from "./machine.js";

interface Writable {
  write(bytes: Uint8Array): Promise<unknown>;
}

/** Writes all bytes in pieces of the given sizes, again and again; some without waiting for the one before. */
async function writeInPieces(end: Writable, bytes: Uint8Array, sizes: readonly number[]): Promise<void> {
  const writes: Promise<unknown>[] = [];
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length]!;
    const write = end.write(bytes.subarray(at, at + size));
    writes.push(write);
    if (i % 3 === 0) await write;
    at += size;
  }
  await Promise.all(writes);
}

describe("bytes between a terminal and a guest", () => {
  let machine: TestMachine;
  let terminal: Terminal;
  let guest: TestGuest;

  afterEach(async () => {
    await machine.close();
    expect(machine.errors).toEqual([]);
  });

  async function start(options = {}, backlog = 65536): Promise<void> {
    machine = new TestMachine();
    terminal = machine.addConsole("console0", { backlog });
    guest = await machine.addGuest("guest", 0, options);
    await guest.console.open();
  }

  test.prop(
    {
      toGuest: fc.integer({ min: 0, max: 40_000 }),
      fromGuest: fc.integer({ min: 0, max: 40_000 }),
      sizes: fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 9000 })), {
        minLength: 1,
        maxLength: 8,
      }),
      rings: fc.record({
        rxRing: fc.integer({ min: 1, max: 5 }),
        txRing: fc.integer({ min: 1, max: 5 }),
        eventRing: fc.integer({ min: 1, max: 3 }),
        bufferSize: fc.integer({ min: 1, max: 700 }),
        backlog: fc.integer({ min: 1, max: 5000 }),
      }),
      backlog: fc.integer({ min: 1, max: 5000 }),
    },
    { numRuns: 30, seed: seedOr(20090402) },
  )(
    "arrive in order and unchanged both ways at once, far more than rings and back-logs hold, whatever the pieces",
    async ({ toGuest, fromGuest, sizes, rings, backlog }) => {
      // rings of 1-byte buffers move a handful of bytes per wake-up: enough of them, not all
      const most = Math.min(rings.bufferSize, 64) * 600;
      await start(rings, backlog);
      const down = pattern(Math.min(toGuest, most), 1);
      const up = pattern(Math.min(fromGuest, most), 2);
      const [gotDown, gotUp] = await Promise.all([
        readBytes(guest.console, down.length),
        readBytes(terminal, up.length),
        writeInPieces(terminal, down, sizes),
        writeInPieces(guest.console, up, sizes),
      ]);
      expectBytes(gotDown, down);
      expectBytes(gotUp, up);
      const { tx, rx } = terminal.statistics();
      expect(rx).toEqual({ bytes: down.length, passed: down.length, drops: {}, held: 0 });
      expect(tx).toEqual({ bytes: up.length, passed: up.length, drops: {}, held: 0 });
      await machine.close();
      expect(machine.errors).toEqual([]);
    },
  );

  it("are not interpreted: every byte value, and UTF-8 cut anywhere, comes out as it went in", async () => {
    await start({ bufferSize: 3 });
    const all = Uint8Array.from({ length: 256 }, (_, i) => i);
    const sequence = new TextEncoder().encode("\u{1F600}é\0\x1b[31m\r\n\x7f\x03\x04");
    const bytes = Buffer.concat([all, sequence, Uint8Array.of(0xc3, 0x28, 0xff, 0xfe)]);
    void terminal.write(bytes);
    expectBytes(await readBytes(guest.console, bytes.length), bytes);
    void guest.console.write(bytes);
    expectBytes(await readBytes(terminal, bytes.length), bytes);
  });

  it("hold the host back while the guest does not read: what is held is bounded, and nothing is lost", async () => {
    await start({ rxRing: 4, bufferSize: 100, backlog: 500 }, 1000);
    const bytes = pattern(10_000);
    let done = false;
    const writing = terminal.write(bytes).then((n) => {
      done = true;
      return n;
    });
    await settle();
    expect(done).toBe(false);
    expect(terminal.tryWrite(pattern(1))).toBe(0); // not before those who wait
    const { rx } = terminal.statistics();
    expect(rx.held).toBe(1000);
    expect(rx.passed).toBeLessThanOrEqual(4 * 100 + 500 + 100);
    expectBytes(await readBytes(guest.console, bytes.length), bytes);
    expect(await writing).toBe(bytes.length);
    expect(terminal.tryWrite(pattern(2000))).toBe(1000); // what there is room for
    expectBytes(await readBytes(guest.console, 1000), pattern(2000).subarray(0, 1000));
  });

  it("hold the guest back while nobody reads the terminal: what is held is bounded, and nothing is lost", async () => {
    await start({ txRing: 4, bufferSize: 100 }, 1000);
    const bytes = pattern(10_000);
    let done = false;
    const writing = guest.console.write(bytes).then(() => {
      done = true;
    });
    await settle();
    expect(done).toBe(false);
    expect(guest.console.tryWrite(pattern(1))).toBe(0);
    expect(terminal.statistics().tx.held).toBeGreaterThanOrEqual(1000);
    expect(terminal.statistics().tx.held).toBeLessThan(1100);
    expect(guest.console.statistics().txWaits).toBeGreaterThan(0);
    expectBytes(await readBytes(terminal, bytes.length), bytes);
    await writing;
    expect(guest.console.tryWrite(pattern(2000))).toBe(400); // a ring full
    await settle();
    expect(terminal.statistics().tx.held).toBe(400);
  });

  it("wait for a receiver that takes its time, one chunk after the other", async () => {
    await start({ bufferSize: 64 }, 256);
    const chunks: Uint8Array[] = [];
    let inside = 0;
    terminal.onData = async (bytes) => {
      expect(++inside, "one at a time").toBe(1);
      await settle(1);
      chunks.push(bytes);
      inside--;
    };
    const bytes = pattern(3000);
    await guest.console.write(bytes);
    while (chunks.reduce((n, chunk) => n + chunk.length, 0) < bytes.length) await settle();
    expectBytes(Buffer.concat(chunks), bytes);
  });

  it("are lost to a receiver that throws, but only its own chunk: the failure is reported and the stream goes on", async () => {
    await start();
    const got: string[] = [];
    terminal.onData = (bytes) => {
      const chunk = Buffer.from(bytes).toString();
      if (chunk === "bad") throw new Error("no");
      if (chunk === "worse") return Promise.reject(new Error("no, later"));
      got.push(chunk);
      return undefined;
    };
    for (const chunk of ["good", "bad", "worse", "fine"]) {
      await guest.console.write(Buffer.from(chunk));
      await settle();
    }
    expect(got).toEqual(["good", "fine"]);
    expect(machine.errors.splice(0)).toMatchObject([
      { source: "devices/console0", error: { message: "no" } },
      { source: "devices/console0", error: { message: "no, later" } },
    ]);
  });

  it("stay the reader's own: writing over a chunk changes nothing that comes later", async () => {
    await start({ rxRing: 1, txRing: 1, bufferSize: 8 });
    const mine = pattern(8);
    await terminal.write(mine);
    mine.fill(0xee);
    const chunk = await guest.console.read();
    expectBytes(chunk, pattern(8));
    chunk.fill(0xdd);
    await terminal.write(pattern(8, 1));
    expectBytes(await readBytes(guest.console, 8), pattern(8, 1));
  });

  it("flow through web streams, with their back-pressure and their end", async () => {
    await start({ bufferSize: 128 }, 512);
    const bytes = pattern(20_000);
    const source = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let at = 0; at < bytes.length; at += 777) controller.enqueue(bytes.subarray(at, at + 777));
        controller.close();
      },
    });
    const collect = async (stream: ReadableStream<Uint8Array>): Promise<Uint8Array> => {
      const reader = stream.getReader();
      const chunks: Uint8Array[] = [];
      for (let next; !(next = await reader.read()).done;) chunks.push(next.value);
      return Buffer.concat(chunks);
    };
    const echo = guest.console.readable().pipeTo(guest.console.writable(), { preventClose: true });
    const collected = collect(terminal.readable());
    await source.pipeTo(terminal.writable()); // hangs up at the end
    await echo;
    await collected; // the guest's echo is cut off by the hang-up
    expect(guest.console.connected).toBe(false);
    const { rx } = terminal.statistics();
    expect(rx).toMatchObject({ bytes: bytes.length, passed: bytes.length, drops: {} });
    expect(guest.console.statistics().rxBytes).toBe(bytes.length);
  });

  it("flow through web streams from the guest, whose end hangs up", async () => {
    await start({ bufferSize: 128 }, 512);
    const bytes = pattern(20_000);
    const writer = guest.console.writable().getWriter();
    const sending = (async () => {
      for (let at = 0; at < bytes.length; at += 999) await writer.write(bytes.subarray(at, at + 999));
      await writer.close();
    })();
    const chunks: Uint8Array[] = [];
    for await (const chunk of terminal) chunks.push(chunk);
    await sending;
    expectBytes(Buffer.concat(chunks), bytes);
    expect(terminal.connected).toBe(false);
  });
});
