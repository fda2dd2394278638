/** The terminal: one xterm.js for each guest, on its second serial line. Shift+Tab leaves it; Tab belongs to the guest. */
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import type { PageGuest } from "./page-guest.js";
import type { TerminalDisplay } from "./terminal-line.js";

const SCROLLBACK = 2000;
const SETTLE_MS = 300;
/** Lines of text that a saved guest keeps. */
const SAVED_LINES = 500;

/** A guest's terminal in an element of its own, which may be hidden. */
export class GuestTerminal implements TerminalDisplay {
  readonly element = document.createElement("div");
  readonly #terminal = new Terminal({
    scrollback: SCROLLBACK,
    fontSize: 13,
    fontFamily: "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace",
    cursorBlink: true,
    convertEol: false,
    theme: { background: "#0b0f14", foreground: "#d7dde4" },
  });
  readonly #fit = new FitAddon();
  readonly #observer: ResizeObserver;
  #guest: PageGuest | null = null;
  #settling: ReturnType<typeof setTimeout> | undefined;

  constructor(parent: HTMLElement) {
    this.element.className = "guest-terminal";
    parent.append(this.element);
    this.#terminal.loadAddon(this.#fit);
    this.#terminal.open(this.element);
    this.#terminal.attachCustomKeyEventHandler((event) => event.key !== "Tab" || !event.shiftKey);
    this.#terminal.onData((text) => {
      this.#guest?.terminal.type(text);
    });
    this.#terminal.onResize(() => {
      clearTimeout(this.#settling);
      this.#settling = setTimeout(() => {
        this.#tellSize();
      }, SETTLE_MS);
    });
    this.#observer = new ResizeObserver(() => {
      if (this.element.clientWidth > 0) this.#fit.fit();
    });
    this.#observer.observe(this.element);
  }

  /** Shows a guest from now on. @param text - what was on its terminal when it was saved */
  connect(guest: PageGuest, text = ""): void {
    if (this.#guest !== null) this.#guest.terminal.display = null;
    this.#guest = guest;
    this.#terminal.textarea?.setAttribute("aria-label", `Terminal of ${guest.name}`);
    this.#terminal.reset();
    this.#terminal.write(text.replaceAll("\n", "\r\n"));
    guest.terminal.display = this;
    this.#tellSize();
  }

  /** As `TerminalDisplay.write` says. */
  write(bytes: Uint8Array): void {
    this.#terminal.write(bytes);
  }

  /** As `TerminalDisplay.text` says. */
  async text(): Promise<string> {
    await new Promise<void>((done) => {
      this.#terminal.write("", done);
    });
    const { active } = this.#terminal.buffer;
    const last = active.baseY + active.cursorY;
    let text = "";
    for (let y = Math.max(0, last - SAVED_LINES); y <= last; y++) {
      const line = active.getLine(y);
      if (line === undefined) continue;
      if (text !== "" && !line.isWrapped) text += "\n";
      // the blank behind a prompt counts
      text += y === last ? line.translateToString(false, 0, active.cursorX) : line.translateToString(true);
    }
    return text;
  }

  /** Puts the cursor here. */
  focus(): void {
    this.#terminal.focus();
  }

  /** Takes it off the page. */
  close(): void {
    clearTimeout(this.#settling);
    if (this.#guest !== null) this.#guest.terminal.display = null;
    this.#observer.disconnect();
    this.#terminal.dispose();
    this.element.remove();
  }
  #tellSize(): void {
    const { cols, rows } = this.#terminal;
    // a guest that was switched off has no terminal to resize
    this.#guest?.resizeTerminal(cols, rows).catch(() => undefined);
  }
}
