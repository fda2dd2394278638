import { VirtQueueWakeups } from "vbus/engine";
import { VirtualScheduler } from "vbus/scheduler";
import { describe, expect, it } from "vitest";
import { expectError } from "./guest.js";
import { VirtQueuePair } from "./virtqueue-pair.js";

/** A device with wake-ups over a queue. */
class Rig {
  readonly scheduler = new VirtualScheduler();
  readonly pair: VirtQueuePair;
  readonly wakeups: VirtQueueWakeups;
  readonly broken: unknown[] = [];
  runs = 0;
  notifier: () => void = () => this.drain();

  constructor(format: "split" | "packed", eventIndex: boolean, handled = true) {
    this.pair = new VirtQueuePair({ format, size: 8, eventIndex });
    this.wakeups = new VirtQueueWakeups(this.pair.device, {
      scheduler: this.scheduler,
      notifier: () => {
        this.runs++;
        this.notifier();
      },
      ...(handled ? { onBroken: (error) => void this.broken.push(error) } : {}),
    });
  }

  drain(): void {
    const { device, chains } = this.pair;
    for (let n; (n = device.peek(chains, 8)) > 0;) device.release(chains, n);
  }

  /** The driver makes one chain available, and takes back what is done. Returns whether it must kick. */
  send(): boolean {
    const kick = this.pair.add([{ cookie: 1, readable: [{ gpa: this.pair.buffers, length: 8 }] }]);
    return kick;
  }
}

for (const format of ["split", "packed"] as const) {
  for (const eventIndex of [false, true]) {
    describe(`the wake-ups of a virtqueue (${format}, ${eventIndex ? "event index" : "flags"})`, () => {
      it("run the notifier for a kick, and ask for the next one when nothing is left", () => {
        const rig = new Rig(format, eventIndex);
        rig.wakeups.enable();
        expect(rig.send()).toBe(true);
        rig.wakeups.wakeup();
        expect([rig.runs, rig.pair.reap().length]).toEqual([1, 1]);
        expect(rig.send()).toBe(true);
      });

      it("serve what was there before they were enabled, which nobody kicks for", () => {
        const rig = new Rig(format, eventIndex);
        rig.send();
        rig.wakeups.enable();
        expect(rig.runs).toBe(0);
        rig.scheduler.run();
        expect([rig.runs, rig.pair.reap().length]).toEqual([1, 1]);
      });

      it("do nothing before they are enabled, while they are disabled, and when they are closed", () => {
        const rig = new Rig(format, eventIndex);
        rig.send();
        rig.wakeups.wakeup();
        rig.wakeups.enable();
        rig.wakeups.disable();
        rig.scheduler.run();
        expect(rig.runs).toBe(0);
        rig.wakeups.enable();
        rig.wakeups.close();
        rig.scheduler.run();
        rig.wakeups.wakeup();
        expect(rig.runs).toBe(0);
      });

      it("run again for what comes while the notifier runs, and do not recurse", () => {
        const rig = new Rig(format, eventIndex);
        let depth = 0;
        rig.notifier = () => {
          expect(++depth).toBe(1);
          rig.drain();
          if (rig.runs < 3) {
            rig.send(); // no kick is due: the device is awake
            rig.wakeups.wakeup();
          }
          depth--;
        };
        rig.wakeups.enable();
        rig.send();
        rig.wakeups.wakeup();
        expect([rig.runs, rig.pair.reap().length]).toEqual([3, 3]);
      });

      it("let the thread's other work have its turn after a number of runs, and go on then", () => {
        const rig = new Rig(format, eventIndex);
        rig.notifier = () => {
          rig.drain();
          rig.pair.reap();
          if (rig.runs < 40) rig.send();
        };
        rig.wakeups.enable();
        rig.send();
        rig.wakeups.wakeup();
        const before = rig.runs;
        expect(before).toBeLessThan(40);
        rig.scheduler.run();
        expect(rig.runs).toBe(40);
        expect(rig.pair.device.hasWork).toBe(false);
      });

      it("stop for a notifier that cannot go on, until it enables them", () => {
        const rig = new Rig(format, eventIndex);
        rig.notifier = () => rig.wakeups.disable();
        rig.wakeups.enable();
        rig.send();
        rig.wakeups.wakeup();
        expect(rig.runs).toBe(1);
        rig.notifier = () => rig.drain();
        rig.wakeups.enable();
        rig.scheduler.run();
        expect([rig.runs, rig.pair.reap().length]).toEqual([2, 1]);
      });

      it("wait for more than there is, when asked to", () => {
        const rig = new Rig(format, eventIndex);
        rig.notifier = () => void rig.pair.device.peek(rig.pair.chains, 8); // two would be needed
        rig.wakeups.enable(true);
        rig.send();
        rig.wakeups.wakeup();
        rig.scheduler.run();
        expect(rig.runs).toBe(1);
        rig.notifier = () => rig.drain();
        expect(rig.send()).toBe(true);
        rig.wakeups.wakeup();
        expect([rig.runs, rig.pair.reap().length]).toEqual([2, 2]);
      });

      it("tell once of a queue that broke, and end", () => {
        const rig = new Rig(format, eventIndex);
        rig.wakeups.enable();
        rig.pair.add([{ cookie: 1, readable: [{ gpa: 4, length: 8 }] }]);
        rig.wakeups.wakeup();
        rig.wakeups.wakeup();
        rig.wakeups.enable();
        rig.scheduler.run();
        expect(rig.broken).toHaveLength(1);
        expect(String(rig.broken[0])).toMatch(/EPROTO.*address/);
      });

      it("end with what the notifier threw, or throw it where nobody wants to be told", () => {
        const rig = new Rig(format, eventIndex);
        rig.notifier = () => {
          throw new Error("out of order");
        };
        rig.wakeups.enable();
        rig.send();
        rig.wakeups.wakeup();
        rig.wakeups.wakeup();
        expect([rig.runs, String(rig.broken)]).toEqual([1, "Error: out of order"]);

        const loud = new Rig(format, eventIndex, false);
        loud.wakeups.enable();
        loud.pair.device.violate("request");
        loud.wakeups.enable();
        expectError("EPROTO", () => loud.wakeups.wakeup());
      });

      it("survive a notifier that closes the queue", () => {
        const rig = new Rig(format, eventIndex);
        rig.notifier = () => rig.pair.device.close();
        rig.wakeups.enable();
        rig.send();
        rig.wakeups.wakeup();
        rig.wakeups.enable();
        rig.wakeups.disable();
        rig.scheduler.run();
        expect([rig.runs, rig.broken]).toEqual([1, []]);
      });
    });
  }
}
