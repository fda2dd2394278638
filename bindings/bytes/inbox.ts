import { ByteQueue } from "./byte-queue.js";

/** What an inbox needs of its owner. */
export interface InboxHooks {
  /** Bytes above which nothing more is taken in; read anew each time, at least 1. */
  limit(): number;
  /** There is room again, after {@link ByteInbox.hasRoom} said no. */
  onRoom(): void;
  /** Something that the reader supplied failed: its callback threw, or its promise was rejected. */
  onError(error: unknown): void;
}

/** Who takes bytes as they come. The chunk is the taker's; a promise holds the next chunk back until it settles. */
export type ByteSink = (bytes: Uint8Array<ArrayBuffer>) => void | Promise<void>;

interface Mark {
  /** It is reached when this many bytes were handed out. */
  position: number;
  kind: "begin" | "break" | "end";
  told: () => void;
}

/**
 * The receiving end of a byte stream that ends and begins again: bytes and marks in order, handed to a callback or to
 * readers. Bounded by its owner, who asks {@link ByteInbox.hasRoom} before each chunk.
 */
export class ByteInbox {
  readonly #queue = new ByteQueue();
  readonly #marks: Mark[] = [];
  readonly #readers: {
    resolve: (bytes: Uint8Array<ArrayBuffer>) => void;
    reject: (error: Error) => void;
  }[] = [];
  #sink: ByteSink | null = null;
  #handedOut = 0;
  /** The end of a stream was reached, and no read() returned it yet. */
  #endUnread = false;
  #busy = false;
  #flushing = false;
  #starved = false;
  #failure: Error | null = null;

  constructor(private readonly hooks: InboxHooks) {}

  /** Bytes held. */
  get length(): number {
    return this.#queue.length;
  }

  /** Bytes handed out in all. */
  get handedOut(): number {
    return this.#handedOut;
  }

  /** True when another chunk may be pushed, however long. After false the owner is told when this changes. */
  hasRoom(): boolean {
    if (this.#queue.length < this.hooks.limit()) return true;
    this.#starved = true;
    return false;
  }

  /** Appends a copy. Nothing is handed out before {@link ByteInbox.flush}. */
  push(bytes: Uint8Array): void {
    this.#queue.push(bytes);
  }

  /** A stream begins behind the bytes pushed so far. One before it that nobody was told of and had no bytes is forgotten. */
  begin(told: () => void): void {
    const marks = this.#marks;
    const last = marks.findLastIndex((mark) => mark.kind === "begin");
    // a peer that begins and ends without a byte between must not pile up marks while nobody reads
    if (last >= 0 && marks[last]?.position === this.#pushed && marks.at(-1)?.kind === "end")
      marks.splice(last);
    this.#mark("begin", told);
  }

  /** The stream ends behind the bytes pushed so far: read() returns an empty chunk, once. */
  end(told: () => void): void {
    this.#mark("end", told);
  }

  /** A break comes behind the bytes pushed so far. Several at one place are one. */
  mark(told: () => void): void {
    const last = this.#marks.at(-1);
    if (last?.kind !== "break" || last.position !== this.#pushed) this.#mark("break", told);
  }

  get #pushed(): number {
    return this.#handedOut + this.#queue.length;
  }

  #mark(kind: Mark["kind"], told: () => void): void {
    this.#marks.push({ position: this.#pushed, kind, told });
  }

  /** Who takes bytes as they come; null: they wait for {@link ByteInbox.read}. */
  get sink(): ByteSink | null {
    return this.#sink;
  }

  set sink(sink: ByteSink | null) {
    this.#sink = sink;
    if (sink === null) return;
    this.#endUnread = false; // was for readers
    queueMicrotask(() => {
      this.flush();
    });
  }

  /** A copy of what was pushed since the stream began, as far as it is held: bytes, and where among them breaks are. */
  copyStream(): { bytes: Uint8Array<ArrayBuffer>; breaks: number[] } {
    const all = this.#queue.copy();
    const begin = this.#marks.findLast((mark) => mark.kind === "begin")?.position ?? this.#handedOut;
    const from = begin - this.#handedOut;
    const breaks = this.#marks.filter(({ kind, position }) => kind === "break" && position >= begin);
    return { bytes: all.slice(from), breaks: breaks.map(({ position }) => position - begin) };
  }

  /** Hands out what can be handed out: runs the reader's callbacks, so it is called outside of all ring work. */
  flush(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    try {
      while (!this.#busy && this.#step());
    } finally {
      this.#flushing = false;
    }
    if (this.#starved && this.#queue.length < this.hooks.limit()) {
      this.#starved = false;
      this.hooks.onRoom();
    }
  }

  /** One chunk or one mark. False when there is none, or nobody to take it. */
  #step(): boolean {
    const mark = this.#marks[0];
    const n = mark === undefined ? this.#queue.length : mark.position - this.#handedOut;
    if (n > 0) {
      if (this.#sink !== null) {
        this.#pour(this.#sink, this.#take(n));
        return true;
      }
      const reader = this.#readers.shift();
      reader?.resolve(this.#take(n));
      return reader !== undefined;
    }
    if (mark === undefined) return false;
    this.#marks.shift();
    if (mark.kind === "end" && this.#sink === null) {
      const reader = this.#readers.shift();
      if (reader === undefined) this.#endUnread = true;
      else reader.resolve(new Uint8Array(0));
    }
    try {
      mark.told();
    } catch (error) {
      this.hooks.onError(error);
    }
    return true;
  }

  #take(n: number): Uint8Array<ArrayBuffer> {
    this.#handedOut += n;
    return this.#queue.take(n);
  }

  #pour(sink: ByteSink, bytes: Uint8Array<ArrayBuffer>): void {
    try {
      const settled = sink(bytes);
      if (settled === undefined) return;
      this.#busy = true;
      const go = (): void => {
        this.#busy = false;
        this.flush();
      };
      settled.then(go, (error: unknown) => {
        this.hooks.onError(error);
        go();
      });
    } catch (error) {
      this.hooks.onError(error);
    }
  }

  /**
   * Waits for bytes: everything that is held, up to the next mark. Empty once at the end of a stream; the next read waits
   * for the stream after it. The bytes are the caller's. Rejects with the reason of {@link ByteInbox.fail}, once nothing
   * is held.
   */
  read(): Promise<Uint8Array<ArrayBuffer>> {
    if (this.#endUnread) {
      this.#endUnread = false;
      return Promise.resolve(new Uint8Array(0));
    }
    if (this.#failure !== null && this.#queue.length === 0 && this.#marks.length === 0)
      return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#readers.push({ resolve, reject });
      this.flush();
    });
  }

  /** Nothing will come any more. What is held can still be read; whoever waits is told. */
  fail(reason: Error): void {
    this.#failure ??= reason;
    this.flush();
    for (const reader of this.#readers.splice(0)) reader.reject(this.#failure);
  }
}
