import {
  ENTRY_OFF_GSO_SIZE,
  ENTRY_OFF_HEADER_LENGTH,
  FRAME_CSUM_VALID,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
} from "../../../assembly/abi/arena.js";
import { VbusError } from "../../errors.js";
import type { Batch } from "../../net/batch.js";
import type { ReceivedFrame } from "./frames.js";
import { kindName } from "./offloads.js";

interface Waiter {
  /** True: its frames were taken, and it was told. */
  serve: () => boolean;
  reject: (error: Error) => void;
}

/** Received frames that wait for somebody to ask for them, and those who wait for frames. */
export class FrameInbox {
  #frames: ReceivedFrame[] = [];
  readonly #waiters: Waiter[] = [];
  #left = false;

  /**
   * @param capacity - frames kept before the ring is left to fill
   * @param onRoom - there is room again for frames that had none
   */
  constructor(
    private readonly capacity: number,
    private readonly onRoom: () => void,
  ) {}

  /** Copies frames [from, to) of a batch as far as there is room, and hands them to who waits. Returns how many. */
  put(batch: Batch, from: number, to: number): number {
    const take = Math.min(to - from, this.capacity - this.#frames.length);
    for (let i = from; i < from + take; i++) this.#frames.push(describe(batch, i));
    this.#left = take < to - from;
    while (this.#frames.length > 0) {
      const waiter = this.#waiters[0];
      if (waiter?.serve() !== true) break;
      this.#waiters.shift();
    }
    return take;
  }

  /** Everything that is there. */
  #takeAll(): ReceivedFrame[] {
    const frames = this.#frames;
    this.#frames = [];
    if (this.#left) {
      this.#left = false;
      this.onRoom();
    }
    return frames;
  }

  /**
   * Waits for frames: resolves with what `convert` makes of everything that is there, as soon as that is anything. Without
   * frames and with a `reason` rejects.
   */
  take<T>(convert: (frames: ReceivedFrame[]) => T[], reason: Error | null): Promise<T[]> {
    return new Promise((resolve, reject) => {
      const serve = (): boolean => {
        if (this.#frames.length === 0) return false;
        try {
          const results = convert(this.#takeAll());
          if (results.length === 0) return false;
          resolve(results);
        } catch (error) {
          reject(
            error instanceof Error
              ? error
              : new VbusError("EIO", "converting frames failed", { cause: error }),
          );
        }
        return true;
      };
      if (serve()) return;
      if (reason !== null) reject(reason);
      else this.#waiters.push({ serve, reject });
    });
  }

  /** Everybody who waits is told why there will be no more. What is there can still be taken. */
  end(reason: Error): void {
    for (const waiter of this.#waiters.splice(0)) waiter.reject(reason);
  }
}

/** A copy of a frame with what is known of it. */
function describe(batch: Batch, i: number): ReceivedFrame {
  const { table } = batch;
  // a scattered frame is gathered, which is a copy already
  const data = table.fragments(i) > 1 ? (batch.bytes(i) as Uint8Array<ArrayBuffer>) : batch.copy(i);
  const flags = table.flags(i);
  if ((flags & (FRAME_GSO | FRAME_NEEDS_CSUM | FRAME_CSUM_VALID)) === 0) {
    return { data, checksum: null, verified: false, gso: null };
  }
  const kind = (flags & FRAME_GSO) === 0 ? null : kindName(batch.gsoKind(i));
  const { data: view } = table.space.engine;
  const entry = table.entry(i);
  return {
    data,
    checksum: (flags & FRAME_NEEDS_CSUM) === 0 ? null : batch.checksumPlace(i),
    verified: (flags & (FRAME_NEEDS_CSUM | FRAME_CSUM_VALID)) !== 0,
    gso:
      kind === null
        ? null
        : {
            kind,
            size: view.getUint16(entry + ENTRY_OFF_GSO_SIZE, true),
            headerLength: view.getUint16(entry + ENTRY_OFF_HEADER_LENGTH, true),
            ecn: (flags & FRAME_ECN) !== 0,
          },
  };
}
