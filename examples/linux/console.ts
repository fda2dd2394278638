/** A shell on a guest's serial line, driven by a program: one command at a time, its status and its output. */

/** What init gives the shell. */
const PROMPT = "guest# ";
/**
 * What reads the lines in place of the shell itself. Without echo the shell does not edit lines, and then reads them with
 * fgets(): a command in the background that ends meanwhile interrupts that, which the shell takes for the end of its
 * input. `read` goes on. So does `echo`, while `printf` gives up what the end of a child, of any orphan for the first process,
 * interrupts, and nobody would ever see that prompt.
 */
export const LOOP = `while echo -n '${PROMPT}'; IFS= read -r vbus_line; do eval "$vbus_line"; done`;
const AT_PROMPT = new RegExp(`${PROMPT}$`);
const LINE_FEED = 0x0a;
const BLANK = 0x20;
/** Bytes the guest may send without an end of a command in sight; a command that writes more is an error. */
const BUFFER_LIMIT = 8 << 20;
/** The shell reads lines in the terminal's canonical mode, which holds 4095 characters. */
const LINE_LIMIT = 4000;
const TAIL = 2000;
const COMMAND_MS = 120_000;
const PANIC = "Kernel panic ";
const PANIC_MS = 1000;
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
  /** Looks at the line before the last and the last one; a match that ends where they end is the end of the wait. */
  end: RegExp;
  /** Gets the match, and all characters before it that nobody has taken yet. */
  resolve: (found: { match: RegExpExecArray; text: string }) => void;
  reject: (error: Error) => void;
}

/** Drives the shell. One wait at a time; `run` queues behind the one before. */
export class Console {
  /** Complete lines that nobody has taken yet, each with its end, and what has come of the next one. */
  #lines: string[] = [];
  #line = "";
  #length = 0;
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
    this.#line += character;
    this.#length++;
    // A prompt and a panic's first words end in a blank, a line in a line feed: in between there is nothing to look for.
    if (byte !== LINE_FEED && byte !== BLANK) return;
    if (this.#length > BUFFER_LIMIT) this.#fail(`the guest wrote more than ${BUFFER_LIMIT >> 20} MiB`);
    else if (this.#line.endsWith(PANIC))
      // the reason and where it happened come now
      setTimeout(() => this.#fail("the guest's kernel panicked"), PANIC_MS);
    if (byte === LINE_FEED) {
      this.#lines.push(this.#line);
      this.#line = "";
    } else this.#look();
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
    return clean(this.#tail + this.#lines.slice(-TAIL).join("") + this.#line).slice(-TAIL);
  }

  /** Waits for the first prompt and makes the shell fit for {@link Console.run}. */
  async start(timeoutMs: number): Promise<void> {
    await this.#expect("the shell's prompt", timeoutMs, AT_PROMPT);
    // -n 2 leaves emergencies and alerts on the console.
    this.line.send(`stty -echo; set +m; dmesg -n 2; ${LOOP}\n`);
    await this.#expect("the shell's second prompt", timeoutMs, AT_PROMPT);
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
    this.#take();
    // The shell must not see the marker in one piece: where its echo is on, it would match.
    const id = ++this.#sequence;
    const quoted = command.replaceAll("'", `'\\''`);
    this.line.send(`eval '${quoted}'; echo "Z""7Z:${id}:$?:"\n`);
    const marker = new RegExp(`Z7Z:${id}:(\\d+):\r?\n${PROMPT}$`);
    try {
      const { match, text } = await this.#expect(`the end of "${command}"`, timeoutMs, marker);
      return { status: Number(match[1]), output: clean(text) };
    } catch (error) {
      if (!this.#isLost()) await this.#interrupt();
      throw error;
    }
  }

  /** Gets the shell back from a command that does not end. */
  async #interrupt(): Promise<void> {
    this.line.send(INTERRUPT);
    try {
      await this.#expect("the prompt after an interrupt", INTERRUPT_MS, AT_PROMPT);
      this.line.send(`${LOOP}\n`); // it was interrupted, too
      await this.#expect("the second prompt after an interrupt", INTERRUPT_MS, AT_PROMPT);
    } catch (error) {
      this.#failure ??= error as GuestError;
    }
  }

  async #expect(
    what: string,
    timeoutMs: number,
    end: RegExp,
  ): Promise<{ match: RegExpExecArray; text: string }> {
    if (this.#failure !== null) throw this.#failure;
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting = { what, end, resolve, reject };
        timer = setTimeout(() => {
          const waited = `waited ${timeoutMs / 1000} s for ${what}`;
          reject(new GuestError(`${waited}; the guest's console said last:\n${this.tail}`));
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
    const last = (this.#lines.at(-1) ?? "") + this.#line;
    const match = waiting.end.exec(last);
    if (match === null) return;
    this.#waiting = null;
    const text = this.#take();
    waiting.resolve({ match, text: text.slice(0, text.length - match[0].length) });
  }

  /** All that has come; nothing is left but its last words. */
  #take(): string {
    const text = this.#lines.join("") + this.#line;
    this.#tail = (this.#tail + text).slice(-TAIL);
    this.#lines = [];
    this.#line = "";
    this.#length = 0;
    return text;
  }

  #fail(why: string): void {
    if (this.#failure !== null) return;
    const waited = this.#waiting === null ? "" : ` while waiting for ${this.#waiting.what}`;
    this.#failure = new GuestError(`${why}${waited}; its console said last:\n${this.tail}`);
    this.#waiting?.reject(this.#failure);
    this.#waiting = null;
  }
}

/** Plain text: no carriage returns, none of the shell's questions for the cursor's position. */
function clean(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replaceAll("\r\n", "\n").replace(/\x1b\[[0-9;?]*[A-Za-z]/g, "");
}
