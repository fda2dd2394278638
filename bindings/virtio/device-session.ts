import type { Gate } from "../gate.js";
import type { MemorySpace } from "../memory/space.js";
import type { VirtioDevice } from "./device.js";
import type { VirtioQueue, VirtioSession, VirtioSessionContext } from "./types.js";

/**
 * One driver's work with the device, from DRIVER_OK to its end. What the device holds of it is dead afterwards, so that a
 * late call from a task of the old session cannot touch the next one.
 */
export class DeviceSession implements VirtioSessionContext {
  live = true;
  face: VirtioSession | null = null;
  /** It was restored, and not resumed yet. */
  restored = false;

  constructor(
    private readonly device: VirtioDevice,
    readonly memory: MemorySpace,
    readonly scheduler: Gate,
    readonly features: bigint,
    private readonly fail: (error: unknown) => void,
  ) {}

  /** As `VirtioSessionContext.held` says. */
  get held(): boolean {
    return this.scheduler.held;
  }

  /** As `VirtioSessionContext.queue` says. */
  queue(index: number): VirtioQueue | null {
    return this.live ? (this.device.queues[index]?.queue ?? null) : null;
  }

  /** As `VirtioSessionContext.configChanged` says. */
  configChanged(): void {
    if (this.live) this.device.configChanged();
  }

  /** As `VirtioSessionContext.needsReset` says. */
  needsReset(error: unknown): void {
    if (this.live) this.fail(error);
  }
}
