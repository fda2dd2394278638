/** What the page tells: what it does at this moment and how far it is, what went wrong, and what happened so far. */
import type { Progress } from "./packing.js";

/** Where the page is; `<html data-state>` says it, too. */
export type State = "starting" | "ready" | "busy" | "failed";

const LOG_LINES = 200;

/** The elements that it is told with. */
export interface StatusElements {
  readonly status: HTMLElement;
  /** Read out at once by who reads the page aloud. */
  readonly failure: HTMLElement;
  readonly progress: HTMLProgressElement;
  readonly log: HTMLOListElement;
}

/** Words of an error, for people. */
export function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Tells. */
export class Status {
  constructor(private readonly elements: StatusElements) {}

  /** Says where the page is. */
  show(state: State, text: string): void {
    const { status, failure, progress } = this.elements;
    const failed = state === "failed";
    status.textContent = failed ? "" : text;
    failure.textContent = failed ? text : "";
    progress.hidden = true;
    document.documentElement.dataset.state = state;
  }

  /** Shows how far it is, until the next {@link Status.show}. */
  readonly progress: Progress = (part) => {
    const { progress } = this.elements;
    progress.hidden = false;
    // what comes after the last piece takes its time, too
    if (part === null || part === 1) progress.removeAttribute("value");
    else progress.value = part;
  };

  /** Adds a line to what happened. */
  note(message: string, failed = false): void {
    const { log } = this.elements;
    const line = document.createElement("li");
    const time = document.createElement("time");
    time.textContent = new Date().toLocaleTimeString([], { hour12: false });
    line.append(time, message);
    line.classList.toggle("failed", failed);
    log.append(line);
    while (log.childElementCount > LOG_LINES) log.firstElementChild?.remove();
    log.scrollTop = log.scrollHeight;
  }
}
