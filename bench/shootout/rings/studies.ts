/** What is asked of the rings. */
import type { Study } from "../model.js";
import type { RingSetting } from "./setting.js";

/** How much of everything. */
export type EffortName = "quick" | "full" | "tiny";

/** A study before it is measured. */
export interface RingStudy extends Omit<Study, "settings" | "reference" | "part"> {
  points: { at: number; name: string; setting: RingSetting }[];
}

const BASE: RingSetting = {
  work: "descriptors",
  threads: 2,
  burst: 32,
  size: 256,
  rings: 1,
  notify: true,
  length: 0,
  polls: 2000,
};

const RANGES = {
  tiny: { bursts: [1, 32], lengths: [64, 1500], sizes: [64, 256], rings: [1, 16] },
  quick: {
    bursts: [1, 8, 32, 128],
    lengths: [16, 64, 512, 1500, 9000, 65_536],
    sizes: [64, 1024, 16_384],
    rings: [1, 64, 1024],
  },
  full: {
    bursts: [1, 8, 32, 128],
    lengths: [16, 64, 256, 1500, 4096, 16_384, 65_536],
    sizes: [64, 256, 1024, 4096, 16_384],
    rings: [1, 4, 16, 64, 256, 1024],
  },
} as const satisfies Record<EffortName, Record<string, readonly number[]>>;

/** A ring of payloads has at most that many bytes of buffers. */
const MOST_BUFFER_BYTES = 8 << 20;
const BURST_OF_PAYLOADS = 32;

const threadsText = (threads: 1 | 2): string => (threads === 1 ? "one thread" : "two threads");
const burstText = (burst: number): string => (burst === 1 ? "one at a time" : `bursts of ${burst}`);
const bytesText = (bytes: number): string =>
  bytes >= 1024 && bytes % 1024 === 0 ? `${bytes / 1024} KiB` : `${bytes} B`;
/** Descriptors of a ring for payloads: 256, or as many as 8 MiB have room for. */
export const payloadRing = (length: number): number =>
  2 ** Math.floor(Math.log2(Math.min(256, MOST_BUFFER_BYTES / (Math.ceil(length / 64) * 64))));

/** All studies of an effort. */
export function ringStudies(effort: EffortName): RingStudy[] {
  const range = RANGES[effort];
  const studies: RingStudy[] = [];
  for (const threads of [2, 1] as const) {
    for (const notify of [true, false]) {
      studies.push({
        id: `descriptors-${threads}-${notify ? "notified" : "bare"}`,
        title: `Descriptors there and back, ${threadsText(threads)}${notify ? "" : ", without notifications"}`,
        about:
          `A requester describes buffers (address, length, cookie), a responder reads, translates and bounds-checks each, and completes it, ` +
          `the requester takes it back. Ring of 256, ` +
          (threads === 2
            ? "as many outstanding as the ring holds, both sides on cores of their own and polling. "
            : "both sides in turn. wasm without barriers here (no second thread can see such memory), C with them. ") +
          (notify
            ? "Each side also does what it takes to know whether the other wants a notification."
            : "Nobody looks whether the other wants a notification: what the ring alone costs."),
        axis: "descriptors per burst",
        unit: "ns/descriptor",
        lower: true,
        points: range.bursts.map((burst) => ({
          at: burst,
          name: burstText(burst),
          setting: { ...BASE, threads, notify, burst },
        })),
      });
    }
  }
  studies.push({
    id: "trips",
    title: "Round trip, one outstanding, two threads",
    about:
      "One descriptor there, its completion back, then the next: what a request costs that nothing else hides. The mean is of trips on end; for the percentiles each trip is timed by itself, with the some 30 ns that the clock takes.",
    axis: "notifications",
    unit: "ns/round trip",
    lower: true,
    points: [true, false].map((notify) => ({
      at: notify ? 1 : 0,
      name: notify ? "with notifications" : "without notifications",
      setting: { ...BASE, work: "trips", burst: 1, notify },
    })),
  });
  for (const threads of [2, 1] as const) {
    for (const burst of effort === "full" ? [BURST_OF_PAYLOADS, 1] : [BURST_OF_PAYLOADS]) {
      studies.push({
        id: `payload-${threads}-${burst}`,
        title: `Payloads one way, ${burstText(burst)}, ${threadsText(threads)}`,
        about:
          "The producer copies each payload into a buffer of the ring, the consumer copies it out: two copies for everybody, and the ring's own work. Source and sink stay in the cache as far as they fit.",
        axis: "bytes of payload",
        unit: "ns/frame",
        lower: true,
        points: range.lengths.map((length) => ({
          at: length,
          name: bytesText(length),
          setting: { ...BASE, work: "payload", threads, burst, length, size: payloadRing(length) },
        })),
      });
    }
  }
  for (const threads of [2, 1] as const) {
    studies.push({
      id: `size-${threads}`,
      title: `Larger rings, ${threadsText(threads)}`,
      about:
        "The first study with bursts of 32 and rings of other sizes: whether a descriptor costs more when the ring no longer fits the nearest cache.",
      axis: "descriptors of the ring",
      unit: "ns/descriptor",
      lower: true,
      points: range.sizes.map((size) => ({
        at: size,
        name: `ring of ${size}`,
        setting: { ...BASE, threads, size },
      })),
    });
  }
  studies.push({
    id: "rings",
    title: "More rings, one thread",
    about: "A burst of 32 on each of many rings of 64 descriptors in turn: a host with many guests.",
    axis: "rings",
    unit: "ns/descriptor",
    lower: true,
    points: range.rings.map((rings) => ({
      at: rings,
      name: rings === 1 ? "1 ring" : `${rings} rings`,
      setting: { ...BASE, threads: 1, size: 64, rings },
    })),
  });
  const woken = effort === "tiny" ? [1500] : [64, 1500];
  for (const polls of [1, 2000]) {
    studies.push({
      id: `woken-${polls}`,
      title:
        polls === 1 ? "A consumer that sleeps at once" : "A consumer that polls a while before it sleeps",
      about:
        "Payloads one way to a consumer that goes to sleep when it has found nothing " +
        (polls === 1 ? "once" : `${polls} times in a row`) +
        ", and is woken by a doorbell. A wake-up that got lost would be a failure.",
      axis: "setting",
      unit: "ns/frame",
      lower: true,
      points: woken.flatMap((length) =>
        [1, BURST_OF_PAYLOADS].map((burst) => ({
          at: length * 1000 + burst,
          name: `${bytesText(length)}, ${burstText(burst)}`,
          setting: { ...BASE, work: "woken", burst, length, polls },
        })),
      ),
    });
  }
  return studies;
}
