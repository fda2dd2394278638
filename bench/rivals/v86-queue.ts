import { createRequire } from "node:module";
import path from "node:path";
import { V86 } from "v86";

/** The parts of a request of v86's VirtQueue that a device uses. Property names survive in the published build. */
export interface V86Request {
  length_readable: number;
  get_next_blob(target: Uint8Array): number;
}

/** The parts of v86's VirtQueue that a device uses, and its state. */
export interface V86Queue {
  desc_addr: number;
  avail_addr: number;
  used_addr: number;
  set_size(size: number): void;
  enable(): void;
  has_request(): boolean;
  pop_request(): V86Request;
  push_reply(request: V86Request): void;
  flush_replies(): void;
}

interface V86Internals {
  v86: { cpu: { mem8: Uint8Array; devices: { virtio_net: { virtio: { queues: V86Queue[] } } } } };
}

/** Guest-physical places of the queue. */
const DESC = 0x100000;
const AVAIL = 0x102000;
const USED = 0x103000;
const BUFFERS = 0x200000;
const READY_MS = 20_000;
/** Descriptors of the queue. */
const SIZE = 256;
/** Flag of the available ring: the guest wants no interrupts. Cheaper for v86 than raising them. */
const NO_INTERRUPT = 1;

/**
 * The transmit queue of the virtio network card inside a real, idle v86, with a guest half that costs next to nothing:
 * descriptors and available entries are written once, and posting a batch is one 16-bit store.
 */
export class V86Rival {
  readonly #memory: DataView;
  #posted = 0;

  private constructor(
    private readonly emulator: V86,
    /** The queue itself: v86's own object. */
    readonly queue: V86Queue,
    /** Guest memory. */
    readonly bytes: Uint8Array,
  ) {
    this.#memory = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Starts an emulator that runs nothing. @throws Error when this version's internals look different */
  static async start(): Promise<V86Rival> {
    const folder = path.dirname(createRequire(import.meta.url).resolve("v86/package.json"));
    const emulator = new V86({
      wasm_path: path.join(folder, "build/v86.wasm"),
      memory_size: 32 << 20,
      vga_memory_size: 1 << 20,
      autostart: false,
      disable_speaker: true,
      net_device: { type: "virtio" },
    });
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`v86 was not ready within ${READY_MS} ms`));
      }, READY_MS);
      emulator.add_listener("emulator-ready", () => {
        clearTimeout(timer);
        resolve();
      });
    });
    const { cpu } = (emulator as unknown as V86Internals).v86;
    const queue = cpu.devices.virtio_net.virtio.queues[1];
    if (typeof queue?.pop_request !== "function" || typeof queue.flush_replies !== "function") {
      throw new Error(
        "this version of v86 does not have the VirtQueue that the benchmark compares with (0.5.462)",
      );
    }
    return new V86Rival(emulator, queue, cpu.mem8);
  }

  /** Address in {@link V86Rival.bytes} of the buffer of a descriptor. */
  bufferAt(i: number, length: number): number {
    return BUFFERS + i * length;
  }

  /** Sets the queue up: `buffers` distinct buffers of `length` bytes, taken in turn. */
  set(buffers: number, length: number): void {
    const { queue } = this;
    const memory = this.#memory;
    this.bytes.fill(0, DESC, USED + 0x1000);
    for (let i = 0; i < SIZE; i++) {
      memory.setUint32(DESC + i * 16, this.bufferAt(i % buffers, length), true);
      memory.setUint32(DESC + i * 16 + 8, length, true);
      memory.setUint16(AVAIL + 4 + 2 * i, i, true);
    }
    memory.setUint16(AVAIL, NO_INTERRUPT, true);
    this.#posted = 0;
    const state = queue as V86Queue & { avail_last_idx: number };
    state.avail_last_idx = 0;
    queue.desc_addr = DESC;
    queue.avail_addr = AVAIL;
    queue.used_addr = USED;
    queue.set_size(SIZE);
    queue.enable();
  }

  /** The guest posts n more descriptors. */
  post(n: number): void {
    this.#posted = (this.#posted + n) & 0xffff;
    this.#memory.setUint16(AVAIL + 2, this.#posted, true);
  }

  /** Ends the emulator. */
  close(): void {
    void this.emulator.destroy();
  }
}
