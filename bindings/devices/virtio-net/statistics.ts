import { emptyNicStatistics, type NicStatistics } from "../ethernet/statistics.js";

/** What a virtio-net card counted since it was created, over all sessions and all queues. */
export interface VirtioNetStatistics extends NicStatistics {
  /** Times too few buffers were there for a frame that takes several. */
  rxBuffersShort: number;
  /** Interrupts put off by notification coalescing. */
  moderated: number;
  /** Commands on the control queue that were done. */
  commands: number;
  /** Commands that were refused. */
  refused: number;
}

/** Fresh counters. */
export function emptyStatistics(): VirtioNetStatistics {
  return { ...emptyNicStatistics(), rxBuffersShort: 0, moderated: 0, commands: 0, refused: 0 };
}
