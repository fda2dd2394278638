/**
 * The page: `npm run page`. The query may hold `state=<address>` (a saved state to start from), `boot` (start from none),
 * and `guests=<n>`. `<html data-state>` says where the page is: starting, ready, busy, failed.
 */
import { Charts } from "./charts.js";
import { Comparison, showComparison } from "./comparison.js";
import { History, INTERVAL_MS } from "./history.js";
import { CardTable } from "./card-table.js";
import { PAGE_CARDS, type PageCard, type PageGuest, type SavedGuest } from "./page-guest.js";
import { GuestPieces, PageError } from "./pieces.js";
import { MTU } from "./spare-network.js";
import { GuestTerminal } from "./terminal.js";
import { MOST_GUESTS, World } from "./world.js";

type State = "starting" | "ready" | "busy" | "failed";

const LOG_LINES = 200;
const TREE_MS = 1000;

function element<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`index.html has no ${type.name} #${id}`);
  return found;
}

const button = (id: string): HTMLButtonElement => element(id, HTMLButtonElement);

const buttons = {
  addGuest: button("add-guest"),
  pingGuests: button("ping-guests"),
  plugNic: button("plug-nic"),
  plugDisk: button("plug-disk"),
  save: button("save"),
  restore: button("restore"),
  record: button("record"),
  download: button("download"),
  compare: button("compare"),
  stopCompare: button("stop-compare"),
  downloadState: button("download-state"),
};
const status = element("status", HTMLElement);
const log = element("log", HTMLOListElement);
const tabs = element("guests", HTMLElement);
const terminals = element("terminals", HTMLElement);
const recorded = element("recorded", HTMLElement);
const compareStatus = element("compare-status", HTMLElement);
const comparisonForm = element("comparison", HTMLFormElement);
const resultTable = element("result", HTMLTableElement);
const tree = element("tree", HTMLPreElement);
const stateFile = element("state-file", HTMLInputElement);

/** A guest, and all of the page that belongs to it. */
interface Place {
  guest: PageGuest;
  terminal: GuestTerminal;
  history: History;
  tab: HTMLButtonElement;
  saved: SavedGuest | null;
}

const places: Place[] = [];
const comparison = new Comparison();
let charts: Charts;
let cardTable: CardTable;
let world: World | null = null;
let shown: Place | null = null;
let working = false;
let capture: Blob | null = null;

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function note(message: string, failed = false): void {
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString([], { hour12: false });
  line.append(time, message);
  line.classList.toggle("failed", failed);
  log.append(line);
  while (log.childElementCount > LOG_LINES) log.firstElementChild?.remove();
  log.scrollTop = log.scrollHeight;
}

function show(state: State, text: string): void {
  document.documentElement.dataset.state = state;
  status.textContent = text;
}

/** Which buttons make sense now, and what they say. */
function updateButtons(): void {
  const idle = !working && shown !== null;
  const recording = world?.recorder.recording === true;
  buttons.addGuest.disabled = working || world === null || places.length >= MOST_GUESTS;
  buttons.pingGuests.disabled = !idle || places.length < 2;
  buttons.plugNic.disabled = buttons.plugDisk.disabled = !idle;
  buttons.save.disabled = !idle;
  buttons.restore.disabled = !idle || shown?.saved === null;
  buttons.record.disabled = !idle;
  buttons.download.disabled = !recording && capture === null;
  buttons.compare.disabled = !idle;
  buttons.stopCompare.disabled = !comparison.running;
  buttons.downloadState.disabled = working || world === null || world.pieces.state === null;
  buttons.plugNic.textContent = shown?.guest.hasSpareNic === true ? "Unplug the NIC" : "Plug a NIC";
  buttons.plugDisk.textContent = shown?.guest.hasDisk === true ? "Unplug the disk" : "Plug a disk";
  buttons.record.textContent = recording ? "Stop recording" : "Record";
  for (const { tab } of places) tab.setAttribute("aria-selected", String(tab === shown?.tab));
}

/** Does one thing at a time, and says how it went. Returns whether it went well. */
async function perform(what: string, work: () => Promise<string>): Promise<boolean> {
  if (working) return false;
  working = true;
  show("busy", `${what} …`);
  updateButtons();
  refresh();
  try {
    const done = await work();
    note(done);
    show("ready", done);
    return true;
  } catch (error) {
    const text = `${what}: ${describe(error)}`;
    note(text, true);
    show("failed", text);
    return false;
  } finally {
    working = false;
    updateButtons();
    refresh();
  }
}

function select(place: Place): void {
  shown = place;
  for (const { terminal } of places) terminal.element.hidden = terminal !== place.terminal;
  place.terminal.focus();
  updateButtons();
  refresh();
}

const shownCards = (guest: PageGuest): readonly PageCard[] =>
  PAGE_CARDS.filter((card) => card !== "eth3" || guest.hasSpareNic);

/** Shows everything of the guest that is shown, as it is now. */
function refresh(): void {
  if (shown === null) return;
  const { guest, history } = shown;
  charts.show(history, shownCards(guest));
  cardTable.show(guest, shownCards(guest), !working);
}

function sample(): void {
  for (const { guest, history } of places) history.add(guest.readings());
  refresh();
  const { recorder } = world!;
  recorded.textContent = recorder.recording
    ? `${recorder.frames.toLocaleString("en-US")} frames${recorder.full ? ", as much as fits" : ""}`
    : recorded.textContent;
}

async function addGuest(): Promise<string> {
  const guest = await world!.addGuest();
  const tab = document.createElement("button");
  tab.type = "button";
  tab.setAttribute("role", "tab");
  tab.textContent = `Guest ${guest.number}`;
  tabs.append(tab);
  const place: Place = { guest, tab, terminal: new GuestTerminal(terminals, guest), history: new History(), saved: null };
  tab.addEventListener("click", () => {
    select(place);
  });
  places.push(place);
  select(place);
  const addresses = guest.cards.map((card) => card.guestAddress).join(", ");
  const how = guest.restored ? "from a saved state" : "booted";
  return `${guest.name} is there, ${how} in ${(guest.startMs / 1000).toFixed(1)} s: ${addresses}`;
}

/** The guest that is shown pings all others, through each of its cards. */
async function pingGuests(): Promise<string> {
  const { guest } = shown!;
  const lines: string[] = [];
  for (const { guest: other } of places) {
    if (other === guest) continue;
    const times: string[] = [];
    for (const card of other.cards) {
      const output = await guest.check(`ping -c 3 -W 10 ${card.guestAddress}`);
      const found = /(\d+)% packet loss[^]*?= [\d.]+\/([\d.]+)\//.exec(output);
      if (found === null || found[1] !== "0") throw new Error(`${card.guestAddress} lost pings:\n${output}`);
      times.push(`${card.name} ${found[2]} ms`);
    }
    lines.push(`${guest.name} → ${other.name}: ${times.join(", ")}`);
  }
  return lines.join("; ");
}

async function save(guest: PageGuest): Promise<string> {
  const place = shown!;
  place.saved = await guest.save();
  const size = (place.saved.bytes.length / (1 << 20)).toFixed(0);
  return `${guest.name} is saved, ${size} MiB with everything on its bus`;
}

async function restore(guest: PageGuest): Promise<string> {
  await guest.restore(shown!.saved!);
  return `${guest.name} is what it was when it was saved`;
}

async function plugNic(guest: PageGuest): Promise<string> {
  if (guest.hasSpareNic) {
    guest.unplugNic();
    return `${guest.name} lost its fourth card`;
  }
  const name = await guest.plugNic();
  return `${guest.name} has another venet card: ${name}, ${guest.spareAddress}`;
}

async function plugDisk(guest: PageGuest): Promise<string> {
  if (guest.hasDisk) {
    guest.unplugDisk();
    return `${guest.name} lost its disk`;
  }
  const name = await guest.plugDisk();
  return name === null
    ? `a disk is on the bus of ${guest.name}; this guest has no driver for it`
    : `${guest.name} has a disk: /dev/${name}`;
}

function toggleLink(card: PageCard): void {
  const { guest } = shown!;
  const up = !guest.hasCarrier(card);
  void perform(`link of ${card}`, async () => {
    guest.setCarrier(card, up);
    return `${guest.name}: the link of ${card} is ${up ? "up" : "down"}`;
  });
}

function toggleRecording(): void {
  const { recorder } = world!;
  if (recorder.recording) {
    const { frames } = recorder;
    capture = recorder.stop();
    note(`recorded ${frames} frames`);
  } else {
    capture = null;
    recorder.start();
    note("recording what crosses the cards");
  }
  updateButtons();
}

function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // the browser has taken it by then
  setTimeout(() => {
    URL.revokeObjectURL(link.href);
  }, 60_000);
}

async function compare(): Promise<string> {
  const numberOf = (name: string): number => {
    const input = comparisonForm.elements.namedItem(name);
    return input instanceof HTMLInputElement ? input.valueAsNumber : NaN;
  };
  const options = {
    seconds: numberOf("seconds"),
    rounds: numberOf("rounds"),
    warmUp: numberOf("warmUp"),
    mtu: MTU,
    seed: 1,
  };
  const { guest } = shown!;
  try {
    const running = comparison.run(guest, options, (message) => {
      compareStatus.textContent = message;
    });
    updateButtons();
    const result = await running;
    if (result === null) return "the comparison was stopped";
    showComparison(resultTable, result);
    resultTable.hidden = false;
    return `the cards of ${guest.name} are compared`;
  } finally {
    compareStatus.textContent = "";
  }
}

function listen(): void {
  const guestAction = (name: string, work: (guest: PageGuest) => Promise<string>) => () =>
    void perform(name, () => work(shown!.guest));
  buttons.addGuest.addEventListener("click", () => void perform("starting a guest", addGuest));
  buttons.pingGuests.addEventListener("click", guestAction("ping", pingGuests));
  buttons.plugNic.addEventListener("click", guestAction("hot-plugging a card", plugNic));
  buttons.plugDisk.addEventListener("click", guestAction("hot-plugging a disk", plugDisk));
  buttons.save.addEventListener("click", guestAction("saving", save));
  buttons.restore.addEventListener("click", guestAction("restoring", restore));
  buttons.record.addEventListener("click", toggleRecording);
  buttons.download.addEventListener("click", () => {
    if (world!.recorder.recording) toggleRecording();
    download(capture!, "vbus.pcapng");
  });
  comparisonForm.addEventListener("submit", (event) => {
    event.preventDefault();
    void perform("comparing the cards", compare);
  });
  buttons.stopCompare.addEventListener("click", () => {
    comparison.stop();
  });
  buttons.downloadState.addEventListener("click", () => {
    download(new Blob([world!.pieces.state!]), "booted.state");
  });
  stateFile.addEventListener("change", () => {
    const file = stateFile.files?.[0];
    if (file === undefined) return;
    void perform("reading the state", async () => {
      await world!.pieces.useState(await file.arrayBuffer(), file.name);
      return `guests start from ${file.name} from now on`;
    });
  });
  addEventListener("error", (event) => {
    note(`error in the page: ${event.message}`, true);
  });
  addEventListener("unhandledrejection", (event) => {
    note(`error in the page: ${describe(event.reason)}`, true);
  });
}

async function start(): Promise<void> {
  const query = new URLSearchParams(location.search);
  charts = new Charts(element("charts", HTMLElement));
  cardTable = new CardTable(element("cards", HTMLTableElement), toggleLink);
  listen();
  try {
    show("starting", "fetching the guest's files …");
    const pieces = await GuestPieces.open();
    const state = query.get("state");
    if (state !== null) await pieces.fetchState(state);
    if (query.has("boot")) pieces.boots = true;
    world = await World.open(pieces, (message) => {
      note(message, true);
    });
  } catch (error) {
    // what is no PageError is a mistake of ours: where it happened helps whoever reports it
    if (!(error instanceof PageError)) console.error(error);
    note(describe(error), true);
    show("failed", describe(error));
    return;
  }
  setInterval(sample, INTERVAL_MS);
  setInterval(() => {
    if (shown !== null) tree.textContent = shown.guest.tree();
  }, TREE_MS);
  const guests = Math.min(MOST_GUESTS, Math.max(1, Number(query.get("guests") ?? 1) || 1));
  for (let i = 0; i < guests; i++) {
    if (!(await perform(`starting guest ${i + 1}`, addGuest))) return;
  }
}

await start();
