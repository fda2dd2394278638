/** The serial line that a guest's terminal is on, and whatever shows it. */
import type { V86 } from "v86";

const LINE = 1;

/** What shows a terminal. */
export interface TerminalDisplay {
  /** Takes what the guest wrote. */
  write(bytes: Uint8Array): void;
  /** The text that is on it, once all that it was given is there. */
  text(): Promise<string>;
}

/** The second serial line of one machine. Made before the guest runs, so that not a byte is missed. */
export class TerminalLine {
  readonly #emulator: V86;
  #display: TerminalDisplay | null = null;
  #output: number[] = [];
  #posted = false;

  constructor(emulator: V86) {
    this.#emulator = emulator;
    emulator.add_listener("serial1-output-byte", (byte) => {
      this.#written(byte);
    });
  }

  /** Sends what somebody typed. */
  type(text: string): void {
    this.#emulator.serial_send_bytes(LINE, new TextEncoder().encode(text));
  }

  /** Who shows what the guest writes; null: nobody, it waits here. */
  set display(display: TerminalDisplay | null) {
    this.#display = display;
    this.#flush();
  }

  /** The text that is on the display. */
  async text(): Promise<string> {
    this.#flush();
    return (await this.#display?.text()) ?? "";
  }

  /** v86 hands out single bytes; a terminal wants them by the slice. */
  #written(byte: number): void {
    this.#output.push(byte);
    if (this.#posted) return;
    this.#posted = true;
    setTimeout(() => {
      this.#posted = false;
      this.#flush();
    }, 0);
  }

  #flush(): void {
    if (this.#display === null || this.#output.length === 0) return;
    const bytes = Uint8Array.from(this.#output);
    this.#output = [];
    this.#display.write(bytes);
  }
}
