/** A device and its driver in one thread: what one queue's driver does must not keep another queue from its interrupt. */
import { VirtioLocal } from "vbus/connectors/virtio-local";
import { allocateGuestMemory, GuestMemory, openHostView } from "vbus/memory";
import { VirtualScheduler } from "vbus/scheduler";
import type { VirtioFace, VirtioQueue } from "vbus/virtio";
import { describe, expect, it } from "vitest";

const DRIVER_OK = 1 | 2 | 8 | 4;

/** A device with three queues that interrupts on all of them at once. */
class Trio implements VirtioFace {
  readonly name = "trio";
  readonly deviceType = 4;
  readonly features = 0n;
  readonly queueSizes = [4, 4, 4];
  readonly configSize = 0;
  queues: VirtioQueue[] = [];
  acceptable(): boolean {
    return true;
  }
  readConfig(): void {}
  writeConfig(): void {}
  start(context: Parameters<VirtioFace["start"]>[0]): ReturnType<VirtioFace["start"]> {
    this.queues = this.queueSizes.flatMap((_size, index) => context.queue(index) ?? []);
    return { queueStopped() {}, stop() {} };
  }
}

describe("interrupts of several queues in one turn", () => {
  it("reach every driver, although one of them throws", async () => {
    const scheduler = new VirtualScheduler();
    const init = allocateGuestMemory({ size: 1 << 20 });
    const guest = await GuestMemory.open(init);
    const face = new Trio();
    const transport = new VirtioLocal({ face, guest, host: await openHostView(init), scheduler });
    const told: number[] = [];
    await transport.setStatus(1 | 2);
    await transport.acceptFeatures(await transport.offeredFeatures());
    await transport.setStatus(8);
    for (const index of [0, 1, 2]) {
      await transport.createQueue(index, {
        onInterrupt: () => {
          told.push(index);
          if (index === 0) throw new Error("this driver is ill");
        },
      });
    }
    expect(await transport.setStatus(4)).toBe(DRIVER_OK);
    for (let round = 0; round < 2; round++) {
      for (const queue of face.queues) queue.interrupt();
      expect(() => scheduler.run()).toThrow("this driver is ill");
      scheduler.run();
    }
    expect(told).toEqual([0, 1, 2, 0, 1, 2]);
    transport.unplug();
  });
});
