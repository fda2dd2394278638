/** A shell on a guest's serial line, driven by a program: one command at a time, its status and its output. */

/** What init gives the shell. */
const PROMPT = "guest# ";
/** Bytes the guest may send without an end of a command in sight; a command that writes more is an error. */
const BUFFER_LIMIT = 8 << 20;
/** The shell reads lines in the terminal's canonical mode, which holds 4095 characters. */
const LINE_LIMIT = 4000;
const TAIL = 2000;
const COMMAND_MS = 120_000;
const PANIC = "Kernel panic ";
const INTERRUPT = "\x03";
const INTERRUPT_MS = 10_000;

/** How a command ended. */
export interface CommandResult {
  /** The shell's `$?`. */
  status: number;
  /** What it wrote on standard output and standard error, lines ending with "\n". */
  output: string;
}

/** The guest did not do what was waited for: the message says what that was and what the console said last. */
export class GuestError extends Error {
  override readonly name = "GuestError";
}

/** The line: bytes out of the guest are given to {@link Console.receive}, `send` takes those into it. */
export interface SerialLine {
  /** Sends characters to the guest. */
  send(text: string): void;
}

interface Waiting {
  what: string;
  /** Looks at all characters that nobody has taken yet; a result other than undefined ends the wait. */
  match: (text: string) => unknown;
  resolve: (value: never) => void;
  reject: (error: Error) => void;
}

/** Drives the shell. One wait at a time; `run` queues behind the one before. */
export class Console {
  #text = "";
  #tail = "";
  #waiting: Waiting | null = null;
  #sequence = 0;
  #queue: Promise<unknown> = Promise.resolve();
  #failure: GuestError | null = null;
  #listener: ((character: string) => void) | null = null;

  constructor(private readonly line: SerialLine) {}

  /** Takes a byte that the guest wrote. */
  receive(byte: number): void {
    const character = String.fromCharCode(byte);
    this.#listener?.(character);
    this.#text += character;
    // A prompt and a panic end where a line ends or in a blank: between those there is nothing to look for.
    if (byte !== 0x0a && byte !== 0x20) return;
    if (this.#text.length > BUFFER_LIMIT) this.#fail(`the guest wrote more than ${BUFFER_LIMIT >> 20} MiB`);
    else if (this.#text.slice(-PANIC.length - 1).includes(PANIC))
      setTimeout(() => this.#fail("the guest's kernel panicked"), 1000);
    this.#look();
  }

  /** Hands everything the guest writes from now on to a listener as well; null ends that. */
  listen(listener: ((character: string) => void) | null): void {
    this.#listener = listener;
  }

  /** Sends characters as they are: for an interactive console. */
  send(text: string): void {
    this.line.send(text);
  }

  /** What the console said last. */
  get tail(): string {
    return clean(this.#tail + this.#text).slice(-TAIL);
  }

  /** Waits for the first prompt and makes the shell fit for {@link Console.run}. */
  async start(timeoutMs: number): Promise<void> {
    await this.#expect("the shell's prompt", timeoutMs, prompt);
    // Without echo the shell stops editing lines as well; -n 2 leaves emergencies and alerts on the console.
    this.line.send("stty -echo; set +m; dmesg -n 2\n");
    await this.#expect("the shell's second prompt", timeoutMs, prompt);
    await this.run("true", { timeoutMs });
  }

  /**
   * Runs a command line and waits for its end.
   *
   * @param command - one line of shell
   * @param options - `timeoutMs` (default two minutes): after that the command is interrupted
   * @throws RangeError for a line that the terminal cannot take; GuestError when it does not end in time, or the guest
   * panicked
   */
  run(command: string, options: { timeoutMs?: number } = {}): Promise<CommandResult> {
    if (/\p{Cc}/u.test(command) || command.length > LINE_LIMIT)
      throw new RangeError(
        `a command is one line of at most ${LINE_LIMIT} characters, no control characters`,
      );
    const result = this.#queue.then(() => this.#run(command, options.timeoutMs ?? COMMAND_MS));
    this.#queue = result.catch(() => undefined);
    return result;
  }

  /** As {@link Console.run}; a status other than 0 is an error. Returns the output. */
  async check(command: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { status, output } = await this.run(command, options);
    if (status !== 0) throw new GuestError(`in the guest, "${command}" ended with ${status}:\n${output}`);
    return output;
  }

  /** Ends all waiting; for a machine that is switched off. */
  close(): void {
    this.#fail("the machine was closed");
  }

  async #run(command: string, timeoutMs: number): Promise<CommandResult> {
    if (this.#failure !== null) throw this.#failure;
    this.#take(this.#text.length);
    // The shell must not see the marker in one piece: where its echo is on, it would match.
    const id = ++this.#sequence;
    const quoted = command.replaceAll("'", `'\\''`);
    this.line.send(`eval '${quoted}'; echo "Z""7Z:${id}:$?:"\n`);
    const marker = new RegExp(`Z7Z:${id}:(\\d+):\r?\n${PROMPT}$`);
    const longest = 64;
    try {
      return await this.#expect(`the end of "${command}"`, timeoutMs, (text) => {
        const found = marker.exec(text.slice(-longest));
        if (found === null) return undefined;
        return { status: Number(found[1]), output: clean(text.slice(0, text.length - found[0].length)) };
      });
    } catch (error) {
      if (!this.#isLost()) await this.#interrupt();
      throw error;
    }
  }

  /** Gets the shell back from a command that does not end. */
  async #interrupt(): Promise<void> {
    this.line.send(INTERRUPT);
    try {
      await this.#expect("the prompt after an interrupt", INTERRUPT_MS, prompt);
    } catch (error) {
      this.#failure ??= error as GuestError;
    }
  }

  async #expect<T>(what: string, timeoutMs: number, match: (text: string) => T | undefined): Promise<T> {
    if (this.#failure !== null) throw this.#failure;
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#waiting = { what, match, resolve, reject };
        timer = setTimeout(() => {
          reject(
            new GuestError(
              `waited ${timeoutMs / 1000} s for ${what}; the guest's console said last:\n${this.tail}`,
            ),
          );
        }, timeoutMs);
        this.#look();
      });
    } finally {
      clearTimeout(timer);
      this.#waiting = null;
    }
  }

  #isLost(): boolean {
    return this.#failure !== null;
  }

  #look(): void {
    const waiting = this.#waiting;
    if (waiting === null) return;
    const result = waiting.match(this.#text);
    if (result === undefined) return;
    this.#waiting = null;
    this.#take(this.#text.length);
    waiting.resolve(result as never);
  }

  #take(length: number): void {
    this.#tail = (this.#tail + this.#text.slice(0, length)).slice(-TAIL);
    this.#text = this.#text.slice(length);
  }

  #fail(why: string): void {
    if (this.#failure !== null) return;
    const waited = this.#waiting === null ? "" : ` while waiting for ${this.#waiting.what}`;
    this.#failure = new GuestError(`${why}${waited}; its console said last:\n${this.tail}`);
    this.#waiting?.reject(this.#failure);
    this.#waiting = null;
  }
}

function prompt(text: string): true | undefined {
  return text.endsWith(PROMPT) ? true : undefined;
}

/** Plain text: no carriage returns, none of the shell's questions for the cursor's position. */
function clean(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replaceAll("\r\n", "\n").replace(/\x1b\[[0-9;?]*[A-Za-z]/g, "");
}
