/** Records what crosses ports, whenever somebody wants that, and hands it out as a pcapng file. */
import { Middleware, PcapngWriter, type Batch, type Port } from "vbus/net";

/** A recording ends by itself when it is this long: it lies in the page's memory. */
const MOST_BYTES = 64 << 20;
/** Headers and some of what follows; superframes have 64 KiB. */
const SNAP_LENGTH = 512;

/** One recording at a time, of all ports that it has wrapped. */
export class Recorder {
  #writer: PcapngWriter | null = null;
  #chunks: Uint8Array<ArrayBuffer>[] = [];
  #interfaces = new Map<string, number>();
  #bytes = 0;
  #frames = 0;
  #full = false;

  /** True between {@link Recorder.start} and {@link Recorder.stop}, full or not. */
  get recording(): boolean {
    return this.#writer !== null;
  }

  /** Frames that it holds. */
  get frames(): number {
    return this.#frames;
  }

  /** True when the recording has as many bytes as it may have: what came later is not in it. */
  get full(): boolean {
    return this.#full;
  }

  /** A port that shows what crosses it, under a name. */
  wrap(port: Port, name: string, description: string): Port {
    return new TapPort(port, (batch, from, to, direction) => {
      this.#record(name, description, batch, from, to, direction);
    });
  }

  /** Begins a recording; what the one before held is gone. */
  start(): void {
    this.#chunks = [];
    this.#interfaces = new Map();
    this.#bytes = 0;
    this.#frames = 0;
    this.#full = false;
    this.#writer = new PcapngWriter({
      sink: (chunk) => {
        this.#chunks.push(chunk);
        this.#bytes += chunk.length;
        if (this.#bytes >= MOST_BYTES) this.#full = true;
      },
      clock: performance,
      snapLength: SNAP_LENGTH,
    });
  }

  /** Ends the recording. Returns the file. */
  stop(): Blob {
    this.#writer?.close();
    this.#writer = null;
    return new Blob(this.#chunks, { type: "application/x-pcapng" });
  }

  #record(
    name: string,
    description: string,
    batch: Batch,
    from: number,
    to: number,
    direction: "inbound" | "outbound",
  ): void {
    const writer = this.#writer;
    if (writer === null || this.#full) return;
    let id = this.#interfaces.get(name);
    if (id === undefined) {
      id = writer.addInterface({ name, description });
      this.#interfaces.set(name, id);
    }
    for (let i = from; i < to; i++) writer.frame(id, batch.bytes(i), direction);
    this.#frames += to - from;
  }
}

type Show = (batch: Batch, from: number, to: number, direction: "inbound" | "outbound") => void;

class TapPort extends Middleware {
  constructor(
    inner: Port,
    private readonly show: Show,
  ) {
    super(inner);
  }

  protected override toNetwork(batch: Batch, from: number, to: number): number {
    const n = super.toNetwork(batch, from, to);
    this.show(batch, from, from + n, "outbound");
    return n;
  }

  protected override toPeer(batch: Batch, from: number, to: number): number {
    const n = super.toPeer(batch, from, to);
    if (this.peer !== null) this.show(batch, from, from + n, "inbound");
    return n;
  }
}
