import { metricName, type Exposition, type Labels, type MetricType } from "./exposition.js";
import type { Plain } from "./plain.js";

/** What the statistics of this package's devices mean; those of other device classes are told without a type. */
const KNOWN: Readonly<Record<string, readonly [MetricType, string]>> = {
  // network cards
  frames: ["counter", "Frames that entered: from the guest (tx) or for it (rx)."],
  replicated: ["counter", "Frames that superframes became beyond themselves when they were cut."],
  passed: [
    "counter",
    "Frames or bytes that left: to the network or reader (tx), into the guest's ring (rx).",
  ],
  merged: ["counter", "Frames that went into a superframe with others."],
  bytes: ["counter", "Bytes of one direction, or given to guests."],
  drops: ["counter", "Frames or bytes dropped, by reason."],
  held: ["gauge", "Frames or bytes that wait."],
  coalesced: ["counter", "Superframes made of segments for the guest."],
  superframes_passed: ["counter", "Superframes handed on untouched."],
  segmented: ["counter", "Superframes cut in software."],
  segments: ["counter", "Frames that came out of superframes."],
  checksummed: ["counter", "Frames whose checksum was completed in software."],
  rxCopiedBytes: ["counter", "Bytes copied to put frames into the guest's buffers."],
  rxCongested: ["counter", "Times the guest had no receive buffer for a frame."],
  txCongested: ["counter", "Times the network had no room for a frame."],
  rxPagesShort: ["counter", "Times the guest had given no page for a superframe."],
  rxBuffersShort: ["counter", "Times too few buffers were there for a frame that takes several."],
  flushed: ["counter", "Receive descriptors returned empty by FLUSHRX."],
  events: ["counter", "Events told to the guest."],
  moderated: ["counter", "Interrupts put off by notification coalescing."],
  commands: ["counter", "Commands on the control queue that were done."],
  refused: ["counter", "Commands on the control queue that were refused."],
  // block devices and entropy sources
  requests: ["counter", "Requests taken from the guest."],
  operations: ["counter", "Requests that were well-formed, by operation."],
  completed: ["counter", "Requests completed well."],
  failed: ["counter", "Requests completed with an error."],
  errors: ["counter", "Requests completed with an error, by error."],
  unsupported: ["counter", "Requests refused as not offered."],
  cancelled: ["counter", "Requests never completed, because their session ended."],
  outstanding: ["gauge", "Requests taken and not completed."],
  bytesRead: ["counter", "Bytes that completed reads put into guest memory."],
  bytesWritten: ["counter", "Bytes that completed writes stored."],
  congested: ["counter", "Times the completion ring had no room."],
  violations: ["counter", "Queues that broke by what their guest put there."],
  cut: ["counter", "Requests that got less than they had room for."],
  // consoles
  conversations: ["counter", "Conversations that began."],
  hangups: ["counter", "Conversations that ended."],
  resizes: ["counter", "Changes of the window size."],
};

/** Members that hold one number for each of something: the label that says which. */
const BY_LABEL: Readonly<Record<string, string>> = {
  drops: "reason",
  errors: "error",
  operations: "operation",
};
/** Members that hold the same statistics for each direction. */
const SIDES = new Set(["tx", "rx"]);
/** No device of ours has half as many numbers; another one's must not flood whoever reads this. */
const SAMPLES_MAX = 512;

/**
 * A device's statistics as metrics: `vbus_device_frames_total{device="nic0",direction="tx"}`, `vbus_custom_…` for what only its
 * class knows the meaning of.
 */
export function addDeviceStatistics(to: Exposition, statistics: Plain, labels: Labels): void {
  let left = SAMPLES_MAX;
  const sample = (path: readonly string[], name: string, own: Labels, value: number): void => {
    if (left-- <= 0) return;
    const known = path.length === 0 && Object.hasOwn(KNOWN, name) ? KNOWN[name] : undefined;
    if (known === undefined) {
      const full = [...path, name].map(metricName).join("_");
      to.add(
        `vbus_custom_${full}`,
        "untyped",
        "A statistic of a device class that this package does not know.",
        own,
        value,
      );
      return;
    }
    const [type, help] = known;
    to.add(`vbus_device_${metricName(name)}${type === "counter" ? "_total" : ""}`, type, help, own, value);
  };
  const walk = (value: Plain, path: readonly string[], own: Labels): void => {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return;
    for (const [key, member] of Object.entries(value)) {
      if (typeof member === "number") {
        sample(path, key, own, member);
      } else if (member !== null && typeof member === "object" && !Array.isArray(member)) {
        const label = Object.hasOwn(BY_LABEL, key) ? BY_LABEL[key] : undefined;
        if (label !== undefined) {
          for (const [which, n] of Object.entries(member))
            if (typeof n === "number") sample(path, key, { ...own, [label]: which }, n);
        } else if (SIDES.has(key)) {
          walk(member, path, { ...own, direction: key });
        } else if (key === "ports") {
          for (const [port, inner] of Object.entries(member)) walk(inner, path, { ...own, port });
        } else {
          walk(member, [...path, key], own);
        }
      }
    }
  };
  walk(statistics, [], labels);
}
