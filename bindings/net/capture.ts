import type { Batch } from "./batch.js";
import { Middleware } from "./middleware.js";
import type { PcapngWriter } from "./pcapng.js";
import { totalDrops, type Port } from "./port.js";

/** Options of {@link capturePort}. */
export interface CaptureOptions {
  /** Name of the interface in the file; default the port's. */
  name?: string;
  /** A sentence about it. */
  description?: string;
  /** Most frames to record; those after it count as dropped by the capture. Default: all. */
  maxFrames?: number;
}

class CapturePort extends Middleware {
  readonly #interface: number;
  #recorded = 0;
  #unrecorded = 0;
  #finished = false;
  readonly #maxFrames: number;

  constructor(
    inner: Port,
    private readonly writer: PcapngWriter,
    options: CaptureOptions,
  ) {
    super(inner);
    const { name = inner.name, description, maxFrames = Infinity } = options;
    this.#maxFrames = maxFrames;
    this.#interface = writer.addInterface({ name, ...(description === undefined ? {} : { description }) });
    writer.beforeClose(() => {
      this.#finish();
    });
  }

  protected override toNetwork(batch: Batch, from: number, to: number): number {
    const n = super.toNetwork(batch, from, to);
    this.#record(batch, from, from + n, "outbound");
    return n;
  }

  protected override toPeer(batch: Batch, from: number, to: number): number {
    const n = super.toPeer(batch, from, to);
    if (this.peer !== null) this.#record(batch, from, from + n, "inbound");
    return n;
  }

  #record(batch: Batch, from: number, to: number, direction: "inbound" | "outbound"): void {
    const end = Math.min(to, from + this.#maxFrames - this.#recorded);
    for (let i = from; i < end; i++) this.writer.frame(this.#interface, batch.bytes(i), direction);
    this.#recorded += end - from;
    this.#unrecorded += to - end;
  }

  #finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    const seen = this.#recorded + this.#unrecorded;
    this.writer.statistics(this.#interface, seen, totalDrops(this.counters().drops) + this.#unrecorded);
  }

  override close(): void {
    if (this.closed) return;
    super.close();
    this.#finish();
  }
}

/**
 * Wraps a port so that every frame that crosses it is recorded, in both directions, as it crossed: frames that were
 * pushed back are recorded when they are taken at last, superframes as superframes. Outbound is what the peer sends,
 * inbound what it receives. When the port or the writer is closed, whichever comes first, statistics with the number of
 * recorded frames and of drops are written. The writer stays open: several ports may share one.
 * @throws VbusError ENOTCONN when the writer is closed
 */
export function capturePort(inner: Port, writer: PcapngWriter, options: CaptureOptions = {}): Port {
  return new CapturePort(inner, writer, options);
}
