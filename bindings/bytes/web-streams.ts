/** Either end of a console, as the adapters see it. */
export interface ByteStreamEnd {
  /** Next bytes; empty at the end of the stream. */
  read(): Promise<Uint8Array<ArrayBuffer>>;
  /** Resolves when the bytes were accepted. */
  write(bytes: Uint8Array): Promise<unknown>;
  /** Ends the stream; `now`: without waiting for bytes under way. */
  hangup(options?: { now?: boolean }): Promise<void>;
}

/** A web stream of what an end reads. It closes when the stream ends; cancelling it just stops reading. */
export function readableOf(end: ByteStreamEnd): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream(
    {
      async pull(controller) {
        const bytes = await end.read();
        if (bytes.length === 0) controller.close();
        else controller.enqueue(bytes);
      },
    },
    { highWaterMark: 0 }, // read only when somebody asks: what was read ahead could not be given back
  );
}

/** A web stream whose chunks an end writes, with its back-pressure. Closing it hangs up; so does aborting, at once. */
export function writableOf(end: ByteStreamEnd): WritableStream<Uint8Array> {
  return new WritableStream(
    {
      async write(bytes) {
        await end.write(bytes);
      },
      close: () => end.hangup(),
      abort: () => end.hangup({ now: true }),
    },
    { highWaterMark: 1 },
  );
}

/** Chunks of an end until its stream ends. */
export async function* chunksOf(
  end: Pick<ByteStreamEnd, "read">,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
  for (let bytes; (bytes = await end.read()).length > 0;) yield bytes;
}
