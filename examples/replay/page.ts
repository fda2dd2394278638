/**
 * The job in a page: `npm run page -- --replay`. The same host and guests as in Node, as module workers.
 *
 * The query may hold values for the form by the names of its fields, and `auto` to start at once:
 * `?auto&repetitions=20&rounds=100`. `<html data-state>` says where it is: idle, running, done, failed.
 */
import { Job, type JobResult } from "./job.js";
import { DEFAULT_OPTIONS, type JobOptions } from "./options.js";
import { conclusions, directionRows, LATENCY_NOTE } from "./report.js";

const CAPTURE_URL = new URL("./segments.pcap.gz", import.meta.url);
const SUPERFRAMES_URL = new URL("./superframes.pcap.gz", import.meta.url);

type State = "idle" | "running" | "done" | "failed";

function element<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`page.html has no ${type.name} #${id}`);
  return found;
}

const form = element("options", HTMLFormElement);
const start = element("start", HTMLButtonElement);
const stop = element("stop", HTMLButtonElement);
const status = element("status", HTMLElement);
const log = element("log", HTMLPreElement);
const phases = element("phases", HTMLDListElement);
const link = element("capture", HTMLAnchorElement);

/** The job that runs; stopped is what its user wanted. */
const current: { job: Job | null; stopped: boolean } = { job: null, stopped: false };

function show(state: State, text: string): void {
  document.documentElement.dataset.state = state;
  status.textContent = text;
  start.disabled = state === "running";
  stop.disabled = state !== "running";
}

function field(name: string): HTMLInputElement {
  const input = form.elements.namedItem(name);
  if (!(input instanceof HTMLInputElement)) throw new Error(`page.html has no field ${name}`);
  return input;
}

const NUMBERS = [
  "repetitions",
  "batch",
  "rxRing",
  "txRing",
  "mtu",
  "rounds",
  "captureFrames",
  "spin",
] as const;
const FAULTS = ["loss", "duplicate", "reorder", "corrupt", "delay"] as const;

function fillForm(query: URLSearchParams): void {
  for (const name of NUMBERS) field(name).value = query.get(name) ?? String(DEFAULT_OPTIONS[name]);
  for (const name of [...FAULTS, "delayMs", "seed"]) {
    const value = query.get(name);
    if (value !== null) field(name).value = value;
  }
  field("lazy").checked = query.has("lazy");
}

function readForm(): JobOptions {
  const number = (name: string): number => field(name).valueAsNumber;
  const faults = {
    loss: number("loss"),
    duplicate: number("duplicate"),
    reorder: number("reorder"),
    corrupt: number("corrupt"),
    delay: number("delay"),
    delayMs: number("delayMs"),
    seed: number("seed"),
  };
  const options: JobOptions = {
    ...DEFAULT_OPTIONS,
    lazy: field("lazy").checked,
    faults: FAULTS.some((name) => faults[name] > 0) ? faults : null,
  };
  for (const name of NUMBERS) options[name] = number(name);
  return options;
}

async function readCaptureFile(): Promise<Uint8Array<ArrayBuffer>> {
  const own = field("file").files?.[0];
  if (own !== undefined) return new Uint8Array(await own.arrayBuffer());
  return fetchFile(CAPTURE_URL);
}

async function fetchFile(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(url);
  if (!response.ok)
    throw new Error(
      `a capture that comes along is not on the server (${response.status} for ${url.pathname})`,
    );
  return new Uint8Array(await response.arrayBuffer());
}

/** Adds a phase's bar, or moves it. */
function progress(phase: string, done: number, framesPerSecond: number): void {
  let row = phases.querySelector<HTMLElement>(`[data-phase="${CSS.escape(phase)}"]`);
  if (row === null) {
    for (const ended of phases.querySelectorAll("progress")) ended.value = 1;
    const name = document.createElement("dt");
    name.textContent = phase;
    row = document.createElement("dd");
    row.className = "bar";
    row.dataset.phase = phase;
    const bar = document.createElement("progress");
    bar.setAttribute("aria-label", phase);
    row.append(bar);
    const rate = document.createElement("dd");
    rate.className = "rate";
    phases.append(name, row, rate);
  }
  const bar = row.querySelector("progress");
  if (bar !== null) bar.value = done;
  const percent = `${(done * 100).toFixed(0)} %`;
  const rate = `${Math.round(framesPerSecond).toLocaleString("en-US")} frames/s`;
  if (row.nextElementSibling !== null) row.nextElementSibling.textContent = rate;
  status.textContent = `${phase}: ${percent}`;
}

function fillTable(rows: readonly (readonly string[])[]): void {
  const table = element("directions", HTMLTableElement);
  table.replaceChildren();
  for (const [i, cells] of rows.entries()) {
    const row = table.insertRow();
    for (const text of cells) {
      const cell = document.createElement(i === 0 ? "th" : "td");
      if (i === 0) cell.scope = "col";
      cell.textContent = text;
      row.append(cell);
    }
  }
}

function offerCapture(result: JobResult): void {
  const bytes = result.capture?.bytes ?? null;
  if (link.href !== "") URL.revokeObjectURL(link.href);
  link.hidden = bytes === null;
  if (bytes === null) return;
  link.href = URL.createObjectURL(new Blob([bytes], { type: "application/x-pcapng" }));
  const size = Math.ceil(bytes.length / 1024).toLocaleString("en-US");
  link.textContent = `Download what crossed the switch (pcapng, ${size} KiB)`;
}

function showResult(result: JobResult): void {
  fillTable(directionRows(result));
  element("note", HTMLElement).textContent = LATENCY_NOTE;
  const list = element("conclusions", HTMLUListElement);
  list.replaceChildren();
  for (const line of conclusions(result)) {
    if (line === "") continue;
    const entry = document.createElement("li");
    entry.textContent = line.trim();
    entry.classList.toggle("problem", line.startsWith("PROBLEM"));
    list.append(entry);
  }
  offerCapture(result);
  element("tree", HTMLPreElement).textContent = result.tree;
  element("json", HTMLPreElement).textContent = JSON.stringify(
    result,
    (key, value: unknown) => (key === "bytes" && value instanceof Uint8Array ? undefined : value),
    2,
  );
  element("result", HTMLElement).hidden = false;
  element("bus", HTMLElement).hidden = false;
}

async function run(): Promise<void> {
  show("running", "starting");
  log.textContent = "";
  phases.replaceChildren();
  element("progress", HTMLElement).hidden = false;
  element("result", HTMLElement).hidden = true;
  element("bus", HTMLElement).hidden = true;
  const began = performance.now();
  try {
    const job = new Job(readForm(), {
      host: new URL("./host.js", import.meta.url),
      guest: new URL("./guest.js", import.meta.url),
      capture: await readCaptureFile(),
      superframes: await fetchFile(SUPERFRAMES_URL),
      capturePath: null,
      log: (line) => {
        if (current.stopped) current.job?.close(); // threads that were only starting when the user said so
        if (line.startsWith("vbus\n")) element("tree", HTMLPreElement).textContent = line;
        else log.append(`${line}\n`);
        element("bus", HTMLElement).hidden = element("tree", HTMLPreElement).textContent === "";
      },
      progress,
    });
    current.job = job;
    const result = await job.run();
    showResult(result);
    for (const phase of new Set(result.directions.map((direction) => direction.phase))) {
      const both = result.directions.filter((direction) => direction.phase === phase);
      progress(
        phase,
        1,
        both.reduce((sum, direction) => sum + direction.framesPerSecond, 0),
      );
    }
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    if (result.ok) show("done", `ok: every frame accounted for, in ${seconds} s`);
    else show("failed", `failed: ${result.complaints[0] ?? "see below"}`);
  } catch (error) {
    if (current.stopped) show("idle", "stopped");
    else show("failed", error instanceof Error ? error.message : String(error));
  } finally {
    current.job?.close();
    current.job = null;
    current.stopped = false;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void run();
});
stop.addEventListener("click", () => {
  current.stopped = true;
  current.job?.close();
});

const query = new URLSearchParams(location.search);
fillForm(query);
show("idle", "ready");
if (query.has("auto")) form.requestSubmit();
