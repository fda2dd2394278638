/** Contestants in JavaScript: ringbuf.js, and the MessageChannel that everybody has. */
import process from "node:process";
import { MessageChannel } from "node:worker_threads";
import { RingBuffer } from "ringbuf.js";
import type { PairJob } from "../../harness/jobs.js";
import { answerMessages, askByMessages } from "../../harness/message-halves.js";
import { latencyExtras, type Contestant } from "../model.js";
import {
  itemsOf,
  payloadExtras,
  type Measured,
  type RingContestant,
  type RingContext,
  type RingSetting,
  type Sampler,
} from "./setting.js";

const TRIPS = 2000;
const MESSAGE_TRIPS = 150;
/** Bytes and words of what stands for a descriptor. */
const RECORD_BYTES = 16;
const RECORD_WORDS = RECORD_BYTES / 4;
const RINGBUF_SLOWNESS = 4;
/** Messages of a sample. */
const MESSAGES = 120;

/** Nanoseconds of processor time since `then`. */
function cpuSince(then: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(then);
  return (user + system) * 1000;
}

/** Storage for as many records as the ring has descriptors; 32-bit words, for ringbuf.js pops element by element. */
const storageFor = (size: number, bytes: number): SharedArrayBuffer =>
  RingBuffer.getStorageForCapacity((size * bytes) / 4, Uint32Array);

/** Samples a job of the pair's: `items` descriptors, payloads or round trips. */
function pairSampler(
  setting: RingSetting,
  { pair }: RingContext,
  job: PairJob,
  items: number,
  signals: Measured["extras"] = {},
): Sampler {
  return async () => {
    const sample = await pair.sample(job, items);
    const payload =
      setting.work === "payload" ? payloadExtras(setting.length, items, sample.ns, sample.cpu) : {};
    const latency = sample.latency === null ? {} : latencyExtras(sample.latency);
    return { ns: sample.ns, probes: sample, extras: { ...payload, ...latency, ...signals } };
  };
}

function ringbufAlone(setting: RingSetting): Sampler {
  const { burst, length, size } = setting;
  const items = itemsOf(setting, RINGBUF_SLOWNESS);
  const payload = setting.work === "payload";
  const there = new RingBuffer(storageFor(size, payload ? length : RECORD_BYTES), Uint32Array);
  const back = new RingBuffer(storageFor(size, RECORD_BYTES), Uint32Array);
  const chunk = new Uint32Array(payload ? (burst * length) / 4 : burst * RECORD_WORDS);
  return () => {
    const cpu = process.cpuUsage();
    const begin = performance.now();
    for (let done = 0; done < items; done += burst) {
      let moved = there.push(chunk, chunk.length, 0);
      moved += there.pop(chunk, chunk.length, 0);
      if (!payload) {
        moved += back.push(chunk, chunk.length, 0);
        moved += back.pop(chunk, chunk.length, 0);
      }
      if (moved !== chunk.length * (payload ? 2 : 4)) throw new Error("a burst did not fit the ring");
    }
    const ns = ((performance.now() - begin) * 1e6) / items;
    return { ns, probes: null, extras: payload ? payloadExtras(length, items, ns, cpuSince(cpu)) : {} };
  };
}

function ringbufPair(setting: RingSetting, context: RingContext): Sampler {
  const { burst, length, size } = setting;
  const words = RECORD_WORDS;
  const target = itemsOf(setting, RINGBUF_SLOWNESS);
  if (setting.work === "payload") {
    const storage = storageFor(size, length);
    return pairSampler(setting, context, { kind: "ringbuf", burst, target, length, storage }, target);
  }
  const rings = { requests: storageFor(size, RECORD_BYTES), completions: storageFor(size, RECORD_BYTES) };
  return setting.work === "trips"
    ? pairSampler(setting, context, { kind: "ringbuf-trips", trips: TRIPS, words, ...rings }, TRIPS)
    : pairSampler(setting, context, { kind: "ringbuf-requests", burst, target, words, ...rings }, target);
}

/** ringbuf.js from npm. */
export function ringbufRing(about: Contestant): RingContestant {
  return {
    ...about,
    enter(setting, context) {
      if (setting.work === "woken") return "it has no notifications: a consumer can only poll";
      if (setting.rings !== 1) return "it is left out where many rings are compared";
      return setting.threads === 1 ? ringbufAlone(setting) : ringbufPair(setting, context);
    },
  };
}

/** Each message is a wake-up of its receiver, there and back. */
function messageSignals(burst: number): Measured["extras"] {
  return { doorbells: 1000 / burst, interrupts: 1000 / burst };
}

function messagesAlone(setting: RingSetting): Sampler {
  const { burst, length, size } = setting;
  const payload = setting.work === "payload";
  const items = MESSAGES * burst;
  const data = new Uint8Array(burst * (payload ? length : RECORD_BYTES));
  return async () => {
    const { port1, port2 } = new MessageChannel();
    try {
      const cpu = process.cpuUsage();
      const begin = performance.now();
      const answering = answerMessages(port2, payload ? new Uint8Array(1) : null, MESSAGES);
      await askByMessages(port1, data, MESSAGES, Math.max(1, size / burst));
      await answering;
      const ns = ((performance.now() - begin) * 1e6) / items;
      const carried = payload ? payloadExtras(length, items, ns, cpuSince(cpu)) : {};
      return { ns, probes: null, extras: { ...carried, ...messageSignals(burst) } };
    } finally {
      port1.close();
    }
  };
}

function messagesPair(setting: RingSetting, context: RingContext): Sampler {
  const { burst, length, size, work } = setting;
  const window = Math.max(1, size / burst);
  if (work === "trips") {
    const job: PairJob = { kind: "message-trips", trips: MESSAGE_TRIPS, length: RECORD_BYTES };
    return pairSampler(setting, context, job, MESSAGE_TRIPS);
  }
  const target = MESSAGES * burst;
  const kind = work === "descriptors" ? "message-requests" : "messages";
  const bytes = work === "descriptors" ? RECORD_BYTES : length;
  const job: PairJob = { kind, burst, target, length: bytes, window };
  return pairSampler(setting, context, job, target, messageSignals(burst));
}

/** A MessageChannel: each burst is one message, and each message wakes its receiver. */
export function messageRing(about: Contestant): RingContestant {
  return {
    ...about,
    enter(setting, context) {
      if (setting.rings !== 1) return "it is left out where many rings are compared";
      if (!setting.notify) return "it cannot do without notifications: each message is one";
      return setting.threads === 1 ? messagesAlone(setting) : messagesPair(setting, context);
    },
  };
}
