import { VENET_FLUSHRX, VENET_LINKUP } from "vbus/abi";
import { MemorySpace } from "vbus/memory";
import { HostFrames } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { describe, expect, it } from "vitest";
import { superframes } from "../offload/captures.js";
import { TestMachine, testFrame } from "./machine.js";
import { EVERYTHING, ModernNic, type KernelFrame, type ModernOptions } from "./modern-nic.js";
import { TestPort } from "./port.js";
import { RawGuest } from "./raw-guest.js";

const FROM = [2, 0, 0, 0, 0, 0x0a];
const MAC = [2, 0, 0, 0, 0, 0x0b];
const large = superframes().filter((frame) => frame.bytes.length > 20_000);

/** A NIC whose guest is an emulator's: what the host writes is watched and compared with what it says it wrote. */
class Watched {
  readonly scheduler = new VirtualScheduler();
  readonly port = new TestPort();
  readonly guest: RawGuest;
  readonly nic: ModernNic;
  readonly #machine: TestMachine;

  constructor(
    private readonly host: MemorySpace,
    options: ModernOptions,
  ) {
    this.#machine = new TestMachine(() => this.port, this.scheduler);
    this.#machine.addNic("nic0", { coalesce: "0", txc: "1" });
    this.guest = new RawGuest(this.#machine, "raw", { size: 1 << 19 });
    this.guest.open();
    this.nic = new ModernNic(this.guest, options);
    this.guest.host.logWrites(true);
  }

  /** Runs a step of the host. Every byte of guest memory that it changed must be in the write log. Returns how many. */
  watch(step: () => void): number {
    const { host } = this.guest;
    const [region] = host.regions;
    if (region === undefined) throw new Error("a guest without memory");
    const ram = host.bytes.subarray(region.address, region.address + region.length);
    host.takeWrites();
    const before = Buffer.from(ram);
    step();
    const log = host.takeWrites();
    if (log === "everything") throw new Error("too much for the log: take smaller steps");
    const covered = new Uint8Array(ram.length);
    for (const { gpa, length } of log) covered.fill(1, gpa - region.gpa, gpa - region.gpa + length);
    let changed = 0;
    for (let at = 0; at < ram.length; at++) {
      if (ram[at] === before[at]) continue;
      changed++;
      if (covered[at] === 0) throw new Error(`guest address ${region.gpa + at} was written and not noted`);
    }
    return changed;
  }

  deliver(...frames: KernelFrame[]): void {
    const batch = new HostFrames(this.host, frames.length, 1 << 18);
    for (const { bytes, flags = 0, kind = 0, size = 0, start = 0, offset = 0 } of frames)
      batch.add(bytes, {
        flags,
        gsoKind: kind,
        gsoSize: size,
        checksumStart: start,
        checksumOffset: offset,
        headerLength: 54,
      });
    expect(this.port.peer?.receive(batch.batch, 0, frames.length)).toBe(frames.length);
    batch.close();
  }
}

describe("every byte that a NIC writes to its guest is in the write log", () => {
  it.each([
    ["linear buffers", {}],
    ["linear buffers, 28-byte descriptors", { ilp32: true }],
    ["slots and pages, events", { sg: EVERYTHING, l4ro: EVERYTHING, uso: EVERYTHING, events: EVERYTHING }],
    [
      "slots and pages, 12-byte pieces",
      { sg: EVERYTHING, l4ro: EVERYTHING, uso: EVERYTHING, events: EVERYTHING, ilp32: true },
    ],
  ] satisfies [string, ModernOptions][])("%s", async (_what, options) => {
    const watched = new Watched(await MemorySpace.host(1 << 20), options);
    const { guest, nic, scheduler } = watched;
    expect(
      watched.watch(() => {
        expect(guest.call(VENET_LINKUP)).toBe(0);
        scheduler.run();
      }),
    ).toBeGreaterThan(0);
    for (let n = 0; n < 20; n++) {
      const ordinary = { bytes: testFrame(MAC, FROM, 60 + n * 70, n) };
      const frames = nic.l4ro ? [ordinary, large[n % large.length] as KernelFrame] : [ordinary];
      const least = frames.reduce((sum, { bytes }) => sum + bytes.length, 0) / 4;
      expect(
        watched.watch(() => {
          watched.deliver(...frames);
        }),
      ).toBeGreaterThan(least);
      nic.poll();
      nic.send({ bytes: testFrame(FROM, MAC, 100, n) });
      expect(
        watched.watch(() => {
          scheduler.run();
        }),
      ).toBeGreaterThan(0);
      nic.takeEvents();
      nic.reap();
    }
    expect(
      watched.watch(() => {
        expect(guest.call(VENET_FLUSHRX)).toBe(0);
      }),
    ).toBeGreaterThan(0);
    expect(nic.poll()).toBe(8);
    expect(nic.flushed).toBe(8);
    expect(nic.arrived).toHaveLength(nic.l4ro ? 40 : 20);
  });
});
