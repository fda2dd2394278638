/**
 * Letting everything that is under way in this thread happen. Time alone does not do that: on a busy machine the process may
 * get no turn before the time is over. So what is counted are turns of the event loop, in each of which the scheduler works
 * off all it has, or a slice of it.
 */

/** What runs in the next turn of the event loop; there is no setImmediate in browsers. */
const later = (globalThis as { setImmediate?: (callback: () => void) => unknown }).setImmediate ?? setTimeout;

/** Lets the event loop turn `n` times. */
export async function turns(n = 32): Promise<void> {
  for (let turn = 0; turn < n; turn++)
    await new Promise<void>((resolve) => {
      later(resolve);
    });
}

/** Lets at least `ms` milliseconds pass, for timers, and then the event loop turn often enough for what they started. */
export async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
  await turns();
}
