/** What each card of a guest has done so far, in the same words for all of them: what charts and tables are made of. */
import type { V86VirtioHost } from "vbus/emulators/v86";
import { inspectVirtio, type QueueSnapshot, type VbusSnapshot } from "vbus/inspect";
import type { V86NetworkPort } from "vbus/emulators/v86";
import type { VenetStatistics } from "vbus/devices/venet";
import type { VirtioNet } from "vbus/devices/virtio-net";
import { totalDrops } from "vbus/net";
import type { RivalCard } from "./rival.js";

/** Sums since a card exists, and how full its rings are at this moment. */
export interface Reading {
  /** Frames, both ways. A superframe is one. */
  frames: number;
  /** Bits of those. */
  bits: number;
  /** Times the guest woke the host for this card. */
  doorbells: number;
  /** Notifications that nobody needed, and nobody got. */
  suppressed: number;
  /** Times the card asked to interrupt the guest. */
  interrupts: number;
  /** Frames that were dropped. */
  drops: number;
  /** Part of the transmit ring that is in the host's hands, 0 to 1; null: there is no ring. */
  tx: number | null;
  /** Part of the receive ring that is: buffers that wait for frames. */
  rx: number | null;
}

/** How full a queue is: what its guest has handed over and not got back. */
function occupancy(queue: QueueSnapshot | undefined): number | null {
  if (queue === undefined) return null;
  if (queue.kind === "ioq") return queue.owners === null ? null : queue.owners.south / queue.count;
  return queue.waiting === null ? null : Math.min(1, (queue.waiting + queue.slots) / queue.size);
}

/** A venet card of a bus; null when there is no such device. */
export function readVenet(snapshot: VbusSnapshot, name: string): Reading | null {
  const device = snapshot.devices.find((candidate) => candidate.name === name);
  if (device === undefined) return null;
  const { tx, rx } = device.statistics as unknown as VenetStatistics;
  const queues = snapshot.buses
    .flatMap((bus) => bus.clients)
    .flatMap((client) => client.sessions)
    .filter((session) => session.device === name)
    .flatMap((session) => session.queues);
  let [doorbells, suppressed, interrupts] = [0, 0, 0];
  for (const queue of queues) {
    if (queue.kind !== "ioq") continue;
    doorbells += queue.counters.wakeups;
    suppressed += queue.counters.suppressed + queue.counters.masked;
    interrupts += queue.counters.sent;
  }
  return {
    frames: tx.frames + rx.passed,
    bits: 8 * (tx.bytes + rx.bytes),
    doorbells,
    suppressed,
    interrupts,
    drops: totalDrops(tx.drops) + totalDrops(rx.drops),
    tx: occupancy(queues.find((queue) => queue.name === "tx")),
    rx: occupancy(queues.find((queue) => queue.name === "rx")),
  };
}

/** Our virtio-net card. Its queues are receive and transmit in turn, and one for control. */
export function readVirtio(card: VirtioNet, host: V86VirtioHost): Reading {
  const { queues } = inspectVirtio(host.function.device, { maps: false });
  const { tx, rx } = card.statistics;
  const { kicks, messages, lines } = host.counters();
  let suppressed = 0;
  for (const queue of queues) if (queue.kind === "virtqueue") suppressed += queue.counters.suppressed;
  return {
    frames: tx.frames + rx.passed,
    bits: 8 * (tx.bytes + rx.bytes),
    doorbells: kicks,
    suppressed,
    interrupts: messages + lines,
    drops: totalDrops(tx.drops) + totalDrops(rx.drops),
    tx: occupancy(queues.find((queue) => queue.name === "1")),
    rx: occupancy(queues.find((queue) => queue.name === "0")),
  };
}

/** v86's own card: its frames as its port counts them, the rest as somebody saw it who looked on. */
export function readRival(port: V86NetworkPort, card: RivalCard): Reading {
  const counters = port.counters();
  return {
    frames: counters.received + counters.delivered,
    bits: 8 * (counters.receivedBytes + counters.deliveredBytes),
    drops: totalDrops(counters.drops),
    ...card.read(),
  };
}
