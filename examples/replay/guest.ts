/**
 * A guest: finds the bus, takes the NIC, replays frames, checks what arrives. Runs as a worker with a memory of its own.
 */
import { EventLoopScheduler } from "vbus/scheduler";
import { VbusError } from "vbus";
import { ProxyBus, type Driver } from "vbus/drivers";
import { VblkDriver, type VblkDisk } from "vbus/drivers/vblk";
import {
  VenetDriver,
  type NicStatistics,
  type TransmitFrame,
  type VenetNic,
  type VenetOptions,
} from "vbus/drivers/venet";
import { connectWorkerHost, holdLife } from "vbus/connectors/worker";
import type { GuestMemoryInit } from "vbus/memory";
import type { Batch } from "vbus/net";
import { sha256 } from "./digest.js";
import { isGroup, unpackFrames, type FrameNeeds, type FramePack } from "./frames.js";
import { serve } from "./threads.js";

/** What `start` takes. */
export interface GuestStart {
  name: string;
  /** Name of the Web Lock that this thread holds for life. */
  life: string;
  init: GuestMemoryInit;
  nic: VenetOptions;
  /** Milliseconds to wait for a NIC. */
  timeoutMs: number;
}

/** What `sendFrames` takes. */
export interface SendFrames {
  pack: FramePack;
  /** What each frame of the pack needs. */
  needs: FrameNeeds[];
  repetitions: number;
  batch: number;
}

/** What a receiver found. */
export interface ReceiveResult {
  /** Frames of the sequence that arrived, in order and byte for byte. */
  matched: number;
  /** Frames of the sequence that never came (later ones did, or nothing did). */
  missing: number;
  /** Those of them that the switch flooded: such frames never wait, so they are lost where there is no room. */
  missingFlooded: number;
  /** Frames that are none of the next ones expected: damaged, doubled, or out of order. */
  unexpected: number;
  /** Bytes of all frames that arrived. */
  bytes: number;
  /** When the first and the last frame arrived, in ms since the epoch. */
  first: number;
  last: number;
  /** What was wrong with the first unexpected frame. */
  complaint: string | null;
}

/** What `ping` takes. */
export interface PingOrder {
  frame: Uint8Array;
  rounds: number;
  /** How long an answer may take. */
  timeoutMs: number;
  /** How long it all may take. */
  limitMs: number;
}

/** Shortest probe of the latency run. */
const PROBE_LENGTH = 60;
/** How far ahead a receiver looks for a frame when the one expected was lost on purpose. */
const LOOKAHEAD = 512;
const wallClock = (): number => performance.timeOrigin + performance.now();

/** A NIC that was taken, and how to give it back. */
interface TakenNic {
  nic: VenetNic;
  giveBack: () => Promise<void>;
}

/**
 * Takes the first NIC on the bus that nobody else has: both guests see all of them, and each device serves one session
 * at a time (-EBUSY for everybody else).
 */
function takeNic(bus: ProxyBus, name: string, options: VenetOptions, timeoutMs: number): Promise<TakenNic> {
  const venet = new VenetDriver(undefined, options);
  let turn: Promise<unknown> = Promise.resolve();
  return new Promise((resolve, reject) => {
    let taken = false;
    const timer = setTimeout(() => {
      reject(new Error(`${name}: no free NIC was found within ${timeoutMs} ms`));
    }, timeoutMs);
    bus.events.error = (device, error) => {
      if (taken || (error instanceof VbusError && error.code === "EBUSY")) return;
      clearTimeout(timer);
      const what = `device ${device.id} (${device.type}) does not work`;
      if (error instanceof VbusError) reject(new VbusError(error.code, `${what}: ${error.message}`));
      else reject(new Error(`${name}: ${what}`, { cause: error }));
    };
    const driver: Driver = {
      type: venet.type,
      probe: (device) => {
        const mine = turn.then(async () => {
          if (taken) throw new VbusError("EBUSY", "this guest has its NIC");
          const card = await venet.probe(device);
          taken = true;
          clearTimeout(timer);
          resolve({ nic: card, giveBack: () => bus.unregisterDriver(driver) });
          return card;
        });
        turn = mine.catch(() => undefined); // the bus reports it; the next device has its turn whatever became of this one
        return mine;
      },
      remove: (instance) => venet.remove(instance as VenetNic),
    };
    bus.registerDriver(driver);
  });
}

/** Takes the disk on the bus, for as long as `use` runs. */
async function withDisk<T>(bus: ProxyBus, use: (disk: VblkDisk) => Promise<T>): Promise<T> {
  let driver: VblkDriver | undefined;
  try {
    const disk = await new Promise<VblkDisk>((resolve, reject) => {
      bus.events.error = (device, error) => {
        if (device.type !== "virtual-block") return; // a NIC that another guest has is no trouble of the disk's
        reject(error instanceof Error ? error : new Error("the disk does not work", { cause: error }));
      };
      driver = new VblkDriver(resolve);
      bus.registerDriver(driver);
    });
    return await use(disk);
  } finally {
    if (driver !== undefined) await bus.unregisterDriver(driver);
  }
}

let proxyBus: ProxyBus | undefined;
let giveBack: (() => Promise<void>) | undefined;
let nic: VenetNic | undefined;
let failure: unknown;

function theNic(): VenetNic {
  if (failure !== undefined)
    throw failure instanceof Error ? failure : new Error("the NIC failed", { cause: failure });
  if (nic === undefined) throw new Error("start the guest first");
  return nic;
}

/** Compares received frames with an expected sequence, repeated. */
class Checker {
  readonly result: ReceiveResult = {
    matched: 0,
    missing: 0,
    missingFlooded: 0,
    unexpected: 0,
    bytes: 0,
    first: 0,
    last: 0,
    complaint: null,
  };
  #next = 0;
  readonly #words: Uint32Array;
  readonly #total: number;
  readonly #flooded: boolean[];

  constructor(
    private readonly pack: FramePack,
    repetitions: number,
    private readonly tolerant: boolean,
    private readonly onComplete: () => void,
  ) {
    this.#words = new Uint32Array(pack.bytes.buffer, pack.bytes.byteOffset, pack.bytes.length >>> 2);
    this.#total = pack.lengths.length * repetitions;
    this.#flooded = unpackFrames(pack).map(isGroup);
  }

  #isFlooded(n: number): boolean {
    return this.#flooded[n % this.#flooded.length] === true;
  }

  /** How far the next frame may lie ahead: with faults anywhere near, without behind frames that were flooded. */
  #find(batch: Batch, i: number): number {
    let n = this.#next;
    const limit = this.tolerant ? Math.min(n + LOOKAHEAD, this.#total) : this.#total;
    while (n < limit && !this.#equals(batch, i, n)) {
      if (!this.tolerant && !this.#isFlooded(n)) return -1;
      n++;
    }
    return n < limit ? n : -1;
  }

  #skip(to: number): void {
    for (; this.#next < to; this.#next++) {
      this.result.missing++;
      if (this.#isFlooded(this.#next)) this.result.missingFlooded++;
    }
  }

  /** True when the whole sequence has come, or what came after its last parts. */
  get complete(): boolean {
    return this.#next >= this.#total;
  }

  /** Nothing comes any more: what has not come is missing. */
  finish(): ReceiveResult {
    this.#skip(this.#total);
    return this.result;
  }

  /** True when frame i of the batch is number `n` of the sequence. Buffers and packed frames are 8-byte aligned. */
  #equals(batch: Batch, i: number, n: number): boolean {
    const k = n % this.pack.lengths.length;
    const length = this.pack.lengths[k] as number;
    if (batch.length(i) !== length) return false;
    if (batch.table.fragments(i) > 1) {
      return typeof Buffer === "undefined"
        ? this.#equalsCopy(batch.copy(i), k)
        : this.#equalsPieces(batch, i, k);
    }
    const address = batch.table.bufferAddress(i);
    const { words, bytes } = batch.space.engine;
    const at = address >>> 2;
    const expected = (this.pack.offsets[k] as number) >>> 2;
    const whole = length >>> 2;
    for (let w = 0; w < whole; w++) if (words[at + w] !== this.#words[expected + w]) return false;
    for (let b = whole << 2; b < length; b++) {
      if (bytes[address + b] !== this.pack.bytes[(this.pack.offsets[k] as number) + b]) return false;
    }
    return true;
  }

  /** The same for a frame that is scattered over buffers and pages, piece by piece where memory can be compared in place. */
  #equalsPieces(batch: Batch, i: number, k: number): boolean {
    const { buffer } = batch.space.engine.bytes;
    const { bytes } = this.pack;
    let at = bytes.byteOffset + (this.pack.offsets[k] as number);
    for (let p = 0; p < batch.table.fragments(i); p++) {
      const { address, length } = batch.table.piece(i, p);
      const expected = Buffer.from(bytes.buffer, at, length);
      if (Buffer.from(buffer, address, length).compare(expected) !== 0) return false;
      at += length;
    }
    return true;
  }

  /** The same by way of a copy. */
  #equalsCopy(copy: Uint8Array<ArrayBuffer>, k: number): boolean {
    const at = this.pack.offsets[k] as number;
    const words = new Uint32Array(copy.buffer, 0, copy.length >>> 2);
    for (let w = 0; w < words.length; w++) if (words[w] !== this.#words[(at >>> 2) + w]) return false;
    for (let b = words.length << 2; b < copy.length; b++)
      if (copy[b] !== this.pack.bytes[at + b]) return false;
    return true;
  }

  /** Takes frames [from, to) of a batch. */
  take(batch: Batch, from: number, to: number): number {
    const { result } = this;
    const now = wallClock();
    if (result.first === 0) result.first = now;
    result.last = now;
    for (let i = from; i < to; i++) {
      result.bytes += batch.length(i);
      const n = this.#find(batch, i);
      if (n >= 0) {
        this.#skip(n);
        result.matched++;
        this.#next = n + 1;
      } else {
        result.unexpected++;
        result.complaint ??= `frame ${this.#next} of ${this.#total}: got ${batch.length(i)} bytes that are not the ones sent`;
      }
    }
    if (this.complete) this.onComplete();
    return to - from;
  }
}

/** Bytes per sector of a disk. */
const SECTOR = 512;
const BROADCAST = new Uint8Array(6).fill(0xff);

function macBytes(mac: number): Uint8Array {
  return Uint8Array.from({ length: 6 }, (_, i) => Math.floor(mac / 2 ** (40 - 8 * i)));
}

/** A frame of the EtherType for local experiments: no receiver takes it for anything. */
function announcement(to: Uint8Array, from: Uint8Array): Uint8Array {
  const frame = new Uint8Array(60);
  frame.set(to, 0);
  frame.set(from, 6);
  frame.set([0x88, 0xb5], 12);
  return frame;
}

let checker: Checker | undefined;
let completed: Promise<void> = Promise.resolve();

await serve({
  async start({ name, life, init, nic: options, timeoutMs }: GuestStart) {
    await holdLife(life);
    const scheduler = new EventLoopScheduler();
    const transport = await connectWorkerHost({ init, scheduler });
    transport.onLost = (error) => {
      failure ??= error;
      nic?.fail(error);
    };
    const bus = new ProxyBus(transport);
    proxyBus = bus;
    await bus.start();
    ({ nic, giveBack } = await takeNic(bus, name, options, timeoutMs));
    nic.onError = (error) => {
      failure ??= error;
    };
    return { mac: [...nic.mac], modalias: nic.device.modalias, id: nic.device.id };
  },

  /** Gives the NIC back and takes it again with other options; the link is up afterwards. */
  async reopen({ name, nic: options }: { name: string; nic: VenetOptions }) {
    if (proxyBus === undefined || giveBack === undefined) throw new Error("start the guest first");
    await giveBack();
    ({ nic, giveBack } = await takeNic(proxyBus, name, options, 10_000));
    nic.onError = (error) => {
      failure ??= error;
    };
    await nic.open();
    return nic.offloads;
  },

  /** Writes bytes to the disk from sector 0 on, and makes them durable. */
  async writeDisk({ bytes }: { bytes: Uint8Array }) {
    if (proxyBus === undefined) throw new Error("start the guest first");
    const padded = new Uint8Array(Math.ceil(bytes.length / SECTOR) * SECTOR);
    padded.set(bytes);
    const started = performance.now();
    await withDisk(proxyBus, async (disk) => {
      await disk.write(0, padded);
      await disk.flush();
    });
    return { ms: performance.now() - started };
  },

  /** Reads bytes from the disk and returns their SHA-256 in hexadecimal. */
  async readDisk({ length }: { length: number }) {
    if (proxyBus === undefined) throw new Error("start the guest first");
    const started = performance.now();
    const bytes = await withDisk(proxyBus, (disk) => disk.read(0, Math.ceil(length / SECTOR) * SECTOR));
    return { digest: await sha256(bytes.subarray(0, length)), ms: performance.now() - started };
  },

  /** Link up. */
  async open() {
    await theNic().open();
  },

  /** One broadcast frame, so that the switch learns where this guest is. */
  async announce() {
    const card = theNic();
    await card.send([announcement(BROADCAST, card.mac)]);
  },

  /** One frame from each station behind this guest to the other guest, so that the switch learns them, too. */
  async introduce({ stations, to }: { stations: number[]; to: number }) {
    await theNic().send(stations.map((station) => announcement(macBytes(to), macBytes(station))));
  },

  /** Waits until a peer's announcement (or anything else) has come in, and drops it. */
  async settle({ ms }: { ms: number }) {
    const card = theNic();
    card.onFrames = (_batch, from, to) => to - from;
    card.resumeReceive();
    await new Promise((resolve) => setTimeout(resolve, ms));
  },

  /** From now on frames are compared with this sequence. */
  expect({ pack, repetitions, tolerant }: { pack: FramePack; repetitions: number; tolerant: boolean }) {
    const card = theNic();
    completed = new Promise((resolve) => {
      checker = new Checker(pack, repetitions, tolerant, resolve);
      if (pack.lengths.length === 0) resolve();
    });
    card.onFrames = (batch, from, to) => (checker as Checker).take(batch, from, to);
    card.resumeReceive();
  },

  /** Waits until the whole sequence has come, or until `quietMs` pass without a frame. */
  async received({ quietMs }: { quietMs: number }): Promise<ReceiveResult> {
    const current = checker;
    if (current === undefined) throw new Error("expect a sequence first");
    let last = -1;
    for (let waited = 0; !current.complete && waited < quietMs;) {
      theNic();
      await Promise.race([completed, new Promise((resolve) => setTimeout(resolve, 20))]);
      const seen = current.result.matched + current.result.unexpected;
      waited = seen === last ? waited + 20 : 0;
      last = seen;
    }
    return current.finish();
  },

  /** Sends a sequence as fast as the ring takes it. Returns when it started and ended, in ms since the epoch. */
  async send({ pack, repetitions, batch }: { pack: FramePack; repetitions: number; batch: number }) {
    const card = theNic();
    const frames = unpackFrames(pack);
    const bursts: Uint8Array[][] = [];
    for (let i = 0; i < frames.length; i += batch) bursts.push(frames.slice(i, i + batch));
    const started = wallClock();
    for (let r = 0; r < repetitions; r++) for (const burst of bursts) await card.send(burst);
    return { frames: frames.length * repetitions, started, ended: wallClock() };
  },

  /** {@link send} for frames that need finishing: partial checksums, superframes. */
  async sendFrames({ pack, needs, repetitions, batch }: SendFrames) {
    const card = theNic();
    const frames: TransmitFrame[] = unpackFrames(pack).map((data, i) => ({ data, ...needs[i] }));
    const started = wallClock();
    for (let r = 0; r < repetitions; r++) {
      for (let i = 0; i < frames.length; i += batch) await card.send(frames.slice(i, i + batch));
    }
    return { frames: frames.length * repetitions, started, ended: wallClock() };
  },

  /** Sends every frame back with its addresses swapped, until the next `expect` or `settle`. */
  reflect() {
    const card = theNic();
    card.onFrames = (batch, from, to) => {
      const back: Uint8Array[] = [];
      for (let i = from; i < to; i++) {
        const frame = batch.copy(i);
        frame.copyWithin(0, 6, 12);
        frame.set(card.mac, 6);
        back.push(frame);
      }
      card.send(back).catch((error: unknown) => {
        failure ??= error;
      });
      return to - from;
    };
    card.resumeReceive();
  },

  /**
   * One frame outstanding: round-trip times in microseconds. Each round has its number at the end of the frame, so that
   * an answer that comes too late, or twice, is not taken for another one. Stops early when `limitMs` are over.
   */
  async ping({ frame, rounds, timeoutMs, limitMs }: PingOrder): Promise<{ rounds: number; times: number[] }> {
    const card = theNic();
    const probe = new Uint8Array(Math.max(frame.length, PROBE_LENGTH));
    probe.set(frame);
    const serial = new DataView(probe.buffer, probe.length - 4);
    let waiting: (() => void) | null = null;
    card.onFrames = (batch, from, to) => {
      for (let i = from; i < to; i++) {
        if (batch.length(i) !== probe.length) continue;
        const { data } = batch.space.engine;
        const at = batch.table.bufferAddress(i) + probe.length - 4;
        if (data.getUint32(at) === serial.getUint32(0)) waiting?.();
      }
      return to - from;
    };
    card.resumeReceive();
    const times: number[] = [];
    const end = performance.now() + limitMs;
    let round = 0;
    for (; round < rounds && performance.now() < end; round++) {
      serial.setUint32(0, round);
      const answer = new Promise<boolean>((resolve) => {
        const timer = setTimeout(() => {
          resolve(false);
        }, timeoutMs);
        waiting = () => {
          clearTimeout(timer);
          resolve(true);
        };
      });
      const start = performance.now();
      await card.send([probe]);
      if (await answer) times.push((performance.now() - start) * 1000);
    }
    waiting = null;
    return { rounds: round, times };
  },

  statistics(): NicStatistics {
    return theNic().statistics();
  },

  async close() {
    await nic?.close();
  },
});
