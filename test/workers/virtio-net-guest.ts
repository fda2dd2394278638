// A guest with a virtio-net card on the bus, in a thread of its own, driven by commands; to be terminated at any moment.
import { connectWorkerHost } from "vbus/connectors/worker";
import { ProxyBus } from "vbus/drivers";
import { virtioBusDriver } from "vbus/drivers/virtio";
import { VirtioNetDriver, type VirtioNic, type VirtioNicOptions } from "vbus/drivers/virtio-net";
import type { GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";
import { serve } from "../../examples/replay/threads.js";

/** Frames that a guest sends and expects. */
export interface NetOrder {
  /** MAC address of the other guest. */
  to: number[];
  /** Frames each way. */
  count: number;
  /** What frames consist of, besides their number. */
  seed: number;
  /** The same of what comes. */
  receiveSeed: number;
}

let nic: VirtioNic | null = null;

function opened(): VirtioNic {
  if (nic === null) throw new Error("start first");
  return nic;
}

/** Length and content of a frame follow from its number. */
function fill(bytes: Uint8Array, seed: number, n: number): void {
  for (let i = 14; i < bytes.length; i++) bytes[i] = (seed * 17 + n * 131 + i * 7) & 0xff;
}

const lengthOf = (seed: number, n: number): number => 60 + ((seed * 31 + n * 197) % 1455);

await serve({
  async start({ init, options }: { init: GuestMemoryInit; options: VirtioNicOptions }) {
    const transport = await connectWorkerHost({ init, scheduler: new EventLoopScheduler() });
    const bus = new ProxyBus(transport);
    nic = await new Promise<VirtioNic>((resolve, reject) => {
      bus.registerDriver(virtioBusDriver([new VirtioNetDriver(resolve, options)]));
      bus.events.error = (_device, error) => {
        reject(error instanceof Error ? error : new Error(String(error)));
      };
      bus.start().catch(reject);
    });
    return [...nic.mac];
  },

  /** A frame for everybody. */
  async hello() {
    const bytes = new Uint8Array(60).fill(0xff, 0, 6);
    bytes.set(opened().mac, 6);
    bytes.set([0x88, 0xb5], 12);
    await opened().send([bytes]);
  },

  /** Sends and receives at the same time. Returns how many frames came, and how many bytes of them were wrong. */
  async exchange({ to, count, seed, receiveSeed }: NetOrder) {
    const card = opened();
    const send = async (): Promise<void> => {
      for (let n = 0; n < count;) {
        const burst: Uint8Array[] = [];
        for (let k = 0; k < 1 + (n % 50) && n < count; k++, n++) {
          const bytes = new Uint8Array(lengthOf(seed, n));
          bytes.set(to);
          bytes.set(card.mac, 6);
          bytes.set([0x88, 0xb5], 12);
          fill(bytes, seed, n);
          burst.push(bytes);
        }
        await card.send(burst);
      }
    };
    const receive = async (): Promise<{ received: number; wrong: number }> => {
      let received = 0;
      let wrong = 0;
      while (received < count) {
        for (const bytes of await card.receive()) {
          if (bytes[0] === 0xff) continue; // a hello
          const expected = new Uint8Array(lengthOf(receiveSeed, received));
          expected.set(bytes.subarray(0, 14));
          fill(expected, receiveSeed, received++);
          if (expected.length !== bytes.length) wrong += expected.length;
          else for (let i = 0; i < expected.length; i++) if (expected[i] !== bytes[i]) wrong++;
        }
      }
      return { received, wrong };
    };
    const [result] = await Promise.all([receive(), send()]);
    return result;
  },

  /** Receives for ever, and throws it away. */
  listen() {
    opened().onFrames = (_batch, from, to) => to - from;
    opened().resumeReceive();
    return "listening";
  },

  /** Sends for ever, counting frames where the test can see them after the guest's death. */
  flood({ to, progress }: { to: number[]; progress: SharedArrayBuffer }) {
    const done = new Int32Array(progress);
    const card = opened();
    const bytes = new Uint8Array(600);
    bytes.set(to);
    bytes.set(card.mac, 6);
    bytes.set([0x88, 0xb5], 12);
    const again = (): void => {
      void card.send([bytes, bytes, bytes, bytes]).then(() => {
        Atomics.add(done, 0, 4);
        again();
      });
    };
    again();
    return "flooding";
  },

  statistics: () => {
    const { tx_packets, rx_packets, rx_length_errors, rx_frame_errors, tx_queue_stopped } =
      opened().statistics();
    return { tx_packets, rx_packets, rx_length_errors, rx_frame_errors, tx_queue_stopped };
  },
});
