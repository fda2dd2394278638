/** A host and guests in threads of their own, as tests of death drive them. */
import { isDeepStrictEqual } from "node:util";

import { setUpLink } from "vbus/connectors/worker";
import type { NicStatistics, VenetOptions } from "vbus/drivers/venet";
import { ChecksumFinisher, Coalescer, Segmenter } from "vbus/engine";
import { allocateGuestMemory, MemorySpace, type GuestMemoryInit } from "vbus/memory";
import { totalDrops } from "vbus/net";
import { expect } from "vitest";

import { Thread } from "../../examples/replay/threads.js";
import type { DeathGuestStart, Received } from "../workers/death-guest.js";
import type { DeathReport } from "../workers/death-host.js";

const program = (name: string): URL => new URL(`../../.build/test/workers/${name}.js`, import.meta.url);

/** Address of NIC n. */
export const mac = (n: number): number[] => [2, 0, 0, 0, 0, 10 + n];
export const ALL = [255, 255, 255, 255, 255, 255];
/** How a receiver names frames from NIC n that were for it alone. */
export const from = (n: number): string => String(10 + n);

/** Waits for a condition; the bound is only there to fail with a message instead of hanging. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  ms = 60_000,
): Promise<void> {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`still waiting for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const STAGING_BYTES = 128 * 1024;
/** Validator, segmenter and checksum finisher of a memory; the same with its coalescer. */
const KEPT_BYTES = await toolsSizes();

/** How a guest differs from others. */
export interface GuestOptions {
  options?: VenetOptions;
  callTimeoutMs?: number;
  hostTimeoutMs?: number;
  guestTimeoutMs?: number;
}

/** A guest's thread. */
export class Guest {
  readonly committed = new Int32Array(new SharedArrayBuffer(4));
  readonly exited: Promise<Error>;

  constructor(
    readonly thread: Thread,
    readonly name: string,
    readonly nic: number,
    readonly init: GuestMemoryInit,
    /** Number of its first frame. */
    readonly first: number,
  ) {
    this.exited = new Promise((resolve) => (thread.onExit = resolve));
  }

  ask<T>(verb: string, payload: object = {}): Promise<T> {
    return this.thread.call<T>(verb, payload);
  }

  async received(from: string): Promise<Received> {
    const { received, failure } = await this.ask<{
      received: Record<string, Received>;
      failure: string | null;
    }>("status");
    expect(failure).toBeNull();
    return received[from] ?? { frames: 0, gaps: 0, disorder: 0, damaged: 0, next: -1 };
  }

  statistics(): Promise<NicStatistics> {
    return this.ask("statistics");
  }
}

/** The host's thread, and whom it serves. */
export class DeathMachine {
  readonly guests = new Set<Guest>();
  #members = 0;

  private constructor(readonly host: Thread) {}

  static async start(
    nics: number,
    options: { stallMs?: number; egressFrames?: number } = {},
  ): Promise<DeathMachine> {
    const machine = new DeathMachine(await Thread.start(program("death-host"), "host"));
    await machine.host.call("start", { stallMs: 100, egressFrames: 256, ...options });
    for (let n = 0; n < nics; n++) await machine.plug(n);
    return machine;
  }

  async plug(n: number): Promise<void> {
    const text = mac(n).map((byte) => byte.toString(16).padStart(2, "0"));
    await this.host.call("plug", { nic: `nic${n}`, mac: text.join(":") });
  }

  memory(): GuestMemoryInit {
    return allocateGuestMemory({ size: 4 << 20, arenaSize: 1 << 19, shared: true });
  }

  /** A guest that has taken NIC `nic` and left its link down. The memory may be one that a dead guest had. */
  async guest(nic: number, init: GuestMemoryInit = this.memory(), given: GuestOptions = {}): Promise<Guest> {
    const { options = {}, callTimeoutMs = 60_000, hostTimeoutMs = 60_000, guestTimeoutMs = 0 } = given;
    setUpLink(init);
    const name = `guest${this.#members++}`;
    const first = this.#members << 20;
    const guest = new Guest(await Thread.start(program("death-guest"), name), name, nic, init, first);
    this.guests.add(guest);
    await this.host.call("attach", { member: name, init, guestTimeoutMs });
    const order: DeathGuestStart = {
      init,
      first,
      nic,
      options,
      committed: guest.committed,
      callTimeoutMs,
      hostTimeoutMs,
    };
    expect(await guest.ask("start", order)).toEqual(mac(nic));
    return guest;
  }

  /**
   * The guest's thread has ended: tells the host. Every byte of the guest's arena comes back, but for two areas that are
   * kept as long as the host's view once frames went through them: the staging area, and the tools that finish frames.
   */
  async bury(guest: Guest): Promise<void> {
    const reason = await guest.exited;
    this.guests.delete(guest);
    const lost = await this.host.call<number>("detach", { member: guest.name, reason: reason.message });
    expect([0, ...KEPT_BYTES].flatMap((kept) => [kept, kept + STAGING_BYTES])).toContain(lost);
  }

  async kill(guest: Guest): Promise<void> {
    guest.thread.terminate();
    await this.bury(guest);
  }

  report(): Promise<DeathReport> {
    return this.host.call("report");
  }

  async nic(n: number): Promise<DeathReport["nics"][string]> {
    return (await this.report()).nics[`nic${n}`]!;
  }

  close(): void {
    for (const guest of this.guests) guest.thread.terminate();
    this.host.terminate();
  }
}

/** Every equation there is, from the host's view; nothing may be under way. */
export function expectBalanced(report: DeathReport): void {
  const { balance, nics, errors } = report;
  expect(errors).toEqual([]);
  expect(balance.balanced).toBe(true);
  const all = Object.values(nics).map(({ statistics }) => statistics);
  const sum = (value: (nic: (typeof all)[number]) => number): number =>
    all.reduce((total, nic) => total + value(nic), 0);
  for (const { tx, rx } of all) {
    expect(tx.frames).toBe(tx.passed + totalDrops(tx.drops));
    expect(rx.frames).toBe(rx.passed + totalDrops(rx.drops));
  }
  expect(sum(({ tx }) => tx.passed)).toBe(balance.received);
  expect(sum(({ rx }) => rx.frames)).toBe(balance.delivered);
  const sent = sum(({ tx }) => tx.frames);
  const delivered = sum(({ rx }) => rx.passed);
  const drops = totalDrops(balance.drops) + sum(({ tx, rx }) => totalDrops(tx.drops) + totalDrops(rx.drops));
  expect(sent + balance.replicated).toBe(delivered + drops + balance.inFlight);
}

/**
 * Ends the streams of guests that exchange frames, and waits until all that they sent to each other has come: complete,
 * in order, unchanged.
 */
export async function settle(guests: readonly Guest[]): Promise<void> {
  const sent = await Promise.all(guests.map((guest) => guest.ask<Record<string, number>>("endStream")));
  for (const [i, sender] of guests.entries()) {
    for (const receiver of guests) {
      const count = sent[i]![String(mac(receiver.nic))];
      if (receiver === sender || count === undefined) continue;
      const key = from(sender.nic);
      await until(
        `${count} frames from ${sender.name}`,
        async () => (await receiver.received(key)).frames >= count,
      );
      expect(await receiver.received(key)).toEqual({
        frames: count,
        gaps: 0,
        disorder: 0,
        damaged: 0,
        next: sender.first + count,
      });
    }
  }
}

/**
 * Waits until nothing is under way in the host, and the guests named (which had their NICs since the beginning) have
 * taken everything out of their rings.
 */
export async function quiet(machine: DeathMachine, guests: readonly Guest[]): Promise<DeathReport> {
  await until("silence", async () => {
    const before = await machine.report();
    if (before.balance.inFlight > 0) return false;
    for (const guest of guests) {
      const { tx_packets, rx_packets, rx_length_errors } = await guest.statistics();
      const { tx, rx } = before.nics[`nic${guest.nic}`]!.statistics;
      expect(rx_length_errors).toBe(0);
      if (tx.frames < tx_packets || rx_packets < rx.passed) return false;
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
    return isDeepStrictEqual((await machine.report()).balance, before.balance);
  });
  return machine.report();
}

async function toolsSizes(): Promise<number[]> {
  const space = await MemorySpace.host(1 << 20);
  const before = space.arena.available;
  for (const capacity of [1, 64]) new Segmenter(space, capacity);
  new ChecksumFinisher(space);
  const finishing = before - space.arena.available;
  new Coalescer(space);
  return [finishing, before - space.arena.available];
}
