/** The terminal: one xterm.js for each guest, on its second serial line. */
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import type { PageGuest } from "./page-guest.js";

const SCROLLBACK = 2000;
const SETTLE_MS = 300;

/** A guest's terminal in an element of its own, which may be hidden. */
export class GuestTerminal {
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
  #settling: ReturnType<typeof setTimeout> | undefined;

  constructor(
    parent: HTMLElement,
    private readonly guest: PageGuest,
  ) {
    this.element.className = "guest-terminal";
    parent.append(this.element);
    this.#terminal.loadAddon(this.#fit);
    this.#terminal.open(this.element);
    this.#terminal.onData((text) => {
      guest.type(text);
    });
    this.#terminal.onResize(({ cols, rows }) => {
      clearTimeout(this.#settling);
      this.#settling = setTimeout(() => {
        // a guest that was switched off has no terminal to resize
        guest.resizeTerminal(cols, rows).catch(() => undefined);
      }, SETTLE_MS);
    });
    guest.terminal = (bytes) => {
      this.#terminal.write(bytes);
    };
    this.#observer = new ResizeObserver(() => {
      if (this.element.clientWidth > 0) this.#fit.fit();
    });
    this.#observer.observe(this.element);
  }

  /** Puts the cursor here. */
  focus(): void {
    this.#terminal.focus();
  }

  /** Takes it off the page. */
  close(): void {
    clearTimeout(this.#settling);
    this.guest.terminal = null;
    this.#observer.disconnect();
    this.#terminal.dispose();
    this.element.remove();
  }
}
