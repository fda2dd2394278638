import type { SessionQueue } from "../bus/types.js";
import type { Queue } from "../engine/queue.js";

/** The rings of a session that are there, by name, as `Connection.queues` shows them. */
export function shownQueues(
  sides: Readonly<Record<string, { readonly queue: Queue } | null | undefined>>,
): SessionQueue[] {
  return Object.entries(sides).flatMap(([name, side]) =>
    side === null || side === undefined ? [] : [{ name, queue: side.queue }],
  );
}
