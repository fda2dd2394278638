/** Results of traffic between guests. Plain data, and how it is made of samples. */
import { summarize, type Summary } from "./statistics.js";

/** What the traffic table is about. */
export const TRAFFIC_TITLE = "frames between two guests in threads of their own, through a switch in a third";

/** What one run of a case counted. Frames and bytes are the ones sent. */
export interface TrafficSample {
  frames: number;
  bytes: number;
  seconds: number;
  /** Frames that the receiver got: more than were sent when they were cut, fewer when they were merged. */
  received: number;
  /** Bytes of payload. */
  payload: number;
  /** Doorbells and interrupts at all ends of the rings that the frames passed. */
  signals: number;
  /** … those of the guests. */
  doorbells: number;
  /** … and those of the host. */
  interrupts: number;
  /** Bytes copied on the way: by the sender's driver into its buffers, and by the host. */
  copied: number;
  /** Frames whose checksum the receiving guest had to verify. */
  verified: number;
  /** Nanoseconds of processor time of the whole process. */
  cpu: number;
}

/** One line of the traffic table. Plain data: it is what the JSON holds. */
export interface TrafficRow {
  name: string;
  /** Which network card both guests had. */
  card: string;
  mtu: number;
  /** Thousands of frames sent per second. */
  kiloframes: Summary;
  /** … in each round. */
  rounds: number[];
  /** Gbit/s of those. */
  gigabits: Summary;
  /** Doorbells and interrupts per 1000 frames sent. */
  signals: Summary;
  /** Frames received per frame sent. */
  received: Summary;
  /** Seconds of processor time, all threads, per gigabyte sent; null in reports from before this was measured. */
  cpu: Summary | null;
  /** What was done to frames on their way, in the last sample. */
  note: string;
}

/** A row from samples. @throws RangeError for none */
export function trafficRow(
  base: Pick<TrafficRow, "name" | "card" | "mtu" | "note">,
  samples: readonly TrafficSample[],
): TrafficRow {
  const over = (figure: (sample: TrafficSample) => number): Summary => summarize(samples.map(figure));
  return {
    ...base,
    rounds: samples.map(({ frames, seconds }) => frames / seconds / 1000),
    kiloframes: over(({ frames, seconds }) => frames / seconds / 1000),
    gigabits: over(({ bytes, seconds }) => (bytes * 8) / seconds / 1e9),
    signals: over(({ signals, frames }) => (signals * 1000) / frames),
    cpu: over(({ cpu, bytes }) => cpu / bytes),
    received: over(({ received, frames }) => received / frames),
  };
}
