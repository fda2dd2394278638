/** A pcapng file for what crosses the cards. */
import { createWriteStream, type WriteStream } from "node:fs";
import { PcapngWriter } from "vbus/net";
import { UserError } from "../../bench/harness/command-line.js";

/** Is written while the guests run; what goes wrong with the file is told when it is closed. */
export class CaptureFile {
  readonly writer: PcapngWriter;
  readonly #stream: WriteStream;
  #failure: Error | null = null;

  constructor(private readonly file: string) {
    this.#stream = createWriteStream(file);
    this.#stream.on("error", (error) => (this.#failure ??= error));
    this.writer = new PcapngWriter({ sink: (chunk) => this.#stream.write(chunk), clock: performance });
  }

  /** Completes the file. @throws UserError when it is not complete */
  async close(): Promise<void> {
    this.writer.close();
    const closed = new Promise<void>((done) => {
      if (this.#stream.closed) done();
      else this.#stream.once("close", done);
    });
    this.#stream.end();
    await closed;
    if (this.#failure !== null)
      throw new UserError(`the capture ${this.file} is not complete: ${this.#failure.message}`, {
        cause: this.#failure,
      });
  }
}
