/**
 * The page: `npm run page`. The query may hold `state=<address>` (a saved guest that goes on here, or the state of a booted one
 * to start from), `boot` (start from none), and `guests=<n>`.
 */
import { Charts } from "./charts.js";
import { Comparison, showComparison } from "./comparison.js";
import { History, INTERVAL_MS } from "./history.js";
import { CardTable } from "./card-table.js";
import { listenForFiles } from "./file-opening.js";
import { GuestTabs } from "./guest-tabs.js";
import { unpack, type Progress } from "./packing.js";
import { PAGE_CARDS, type PageCard, type PageGuest } from "./page-guest.js";
import { PageError } from "./page-error.js";
import { fetchFile, GuestPieces } from "./pieces.js";
import { packGuest, readStateFile, type SavedGuest } from "./saved-guest.js";
import { MTU } from "./spare-network.js";
import { describe, Status } from "./status.js";
import { GuestTerminal } from "./terminal.js";
import { MOST_GUESTS, World } from "./world.js";

const TREE_MS = 1000;

function element<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`index.html has no ${type.name} #${id}`);
  return found;
}

const button = (id: string): HTMLButtonElement => element(id, HTMLButtonElement);

const buttons = {
  addGuest: button("add-guest"),
  removeGuest: button("remove-guest"),
  pingGuests: button("ping-guests"),
  plugNic: button("plug-nic"),
  plugDisk: button("plug-disk"),
  save: button("save"),
  restore: button("restore"),
  downloadState: button("download-state"),
  openState: button("open-state"),
  record: button("record"),
  download: button("download"),
  compare: button("compare"),
  stopCompare: button("stop-compare"),
};
const terminals = element("terminals", HTMLElement);
const recorded = element("recorded", HTMLElement);
const compareStatus = element("compare-status", HTMLElement);
const comparisonForm = element("comparison", HTMLFormElement);
const resultTable = element("result", HTMLTableElement);
const tree = element("tree", HTMLPreElement);

/** A guest, and all of the page that belongs to it. */
interface Place {
  guest: PageGuest;
  readonly terminal: GuestTerminal;
  history: History;
  saved: SavedGuest | null;
}

const places: Place[] = [];
const comparison = new Comparison();
const status = new Status({
  status: element("status", HTMLElement),
  failure: element("failure", HTMLElement),
  progress: element("progress", HTMLProgressElement),
  log: element("log", HTMLOListElement),
});
const tabs = new GuestTabs(
  element("guests", HTMLElement),
  element("guest", HTMLElement),
  (number, pointed) => {
    select(places.find(({ guest }) => guest.number === number) ?? null);
    if (pointed) shown?.terminal.focus();
  },
);
const charts = new Charts(element("charts", HTMLElement));
const cardTable = new CardTable(element("cards", HTMLTableElement), toggleLink);
let world: World | null = null;
let shown: Place | null = null;
let working: string | null = null;
let capture: Blob | null = null;

const mebibytes = (bytes: number): string => `${(bytes / (1 << 20)).toFixed(0)} MiB`;
const clock = (time: number): string => new Date(time).toLocaleTimeString([], { hour12: false });

/** Which buttons make sense now, and what they say. */
function updateButtons(): void {
  const idle = working === null && shown !== null;
  const recording = world?.recorder.recording === true;
  buttons.addGuest.disabled = working !== null || world === null || places.length >= MOST_GUESTS;
  buttons.removeGuest.disabled = !idle;
  buttons.pingGuests.disabled = !idle || places.length < 2;
  buttons.plugNic.disabled = buttons.plugDisk.disabled = !idle;
  buttons.save.disabled = buttons.downloadState.disabled = !idle;
  const saved = shown?.saved ?? null;
  buttons.restore.disabled = !idle || saved === null;
  buttons.openState.disabled = working !== null || world === null;
  buttons.record.disabled = !idle && !recording;
  buttons.download.disabled = !recording && capture === null;
  buttons.compare.disabled = !idle;
  buttons.stopCompare.disabled = !comparison.running;
  buttons.plugNic.textContent = shown?.guest.hasSpareNic === true ? "Unplug the NIC" : "Plug a NIC";
  buttons.plugDisk.textContent = shown?.guest.hasDisk === true ? "Unplug the disk" : "Plug a disk";
  buttons.record.textContent = recording ? "Stop recording" : "Record";
  buttons.restore.textContent = saved === null ? "Restore" : `Restore ${clock(saved.savedAt)}`;
  tabs.show(
    places.map(({ guest }) => guest.number),
    shown?.guest.number ?? null,
  );
}

/** Does one thing at a time, and says how it went. Returns whether it went well. */
async function perform(what: string, work: (progress: Progress) => Promise<string>): Promise<boolean> {
  if (working !== null) {
    status.note(`${what}: not now, first this ends: ${working}`, true);
    return false;
  }
  working = what;
  const focused = document.activeElement;
  status.show("busy", `${what} …`);
  updateButtons();
  refresh();
  try {
    const done = await work(status.progress);
    status.note(done);
    status.show("ready", done);
    return true;
  } catch (error) {
    const text = `${what}: ${describe(error)}`;
    status.note(text, true);
    status.show("failed", text);
    return false;
  } finally {
    working = null;
    updateButtons();
    refresh();
    // a button that cannot be pressed for a while loses the focus
    if (document.activeElement === document.body && focused instanceof HTMLElement) focused.focus();
  }
}

function select(place: Place | null): void {
  shown = place;
  for (const { terminal } of places) terminal.element.hidden = terminal !== place?.terminal;
  updateButtons();
  refresh();
  showTree();
}

const shownCards = (guest: PageGuest): readonly PageCard[] =>
  PAGE_CARDS.filter((card) => card !== "eth3" || guest.hasSpareNic);

/** Shows everything of the guest that is shown, as it is now. */
function refresh(): void {
  const cards = shown === null ? [] : shownCards(shown.guest);
  charts.show(shown?.history ?? new History(), cards);
  cardTable.show(shown?.guest ?? null, cards, working === null);
}

function showTree(): void {
  const text = shown?.guest.tree() ?? "";
  if (tree.textContent !== text) tree.textContent = text;
}

function sample(): void {
  for (const { guest, history } of places) history.add(guest.readings());
  refresh();
  const { recorder } = world!;
  if (!recorder.recording) return;
  const full = recorder.full ? ", as much as fits" : "";
  recorded.textContent = `${recorder.frames.toLocaleString("en-US")} frames${full}`;
}

/** Gives a guest its place in the page: that of the guest with its number, if there is one. */
function settle(guest: PageGuest, saved: SavedGuest | null): void {
  let place = places.find((candidate) => candidate.guest.number === guest.number);
  if (place === undefined) {
    place = { guest, terminal: new GuestTerminal(terminals), history: new History(), saved: null };
    places.push(place);
    places.sort((a, b) => a.guest.number - b.guest.number);
  }
  place.guest = guest;
  place.history = new History();
  place.terminal.connect(guest, saved?.screen);
  select(place);
  if (document.activeElement === document.body) place.terminal.focus();
}

async function addGuest(): Promise<string> {
  const guest = await world!.addGuest();
  settle(guest, null);
  const addresses = guest.cards.map((card) => card.guestAddress).join(", ");
  const how = guest.restored ? "from a saved state" : "booted";
  return `${guest.name} is there, ${how} in ${(guest.startMs / 1000).toFixed(1)} s: ${addresses}`;
}

async function removeGuest(guest: PageGuest): Promise<string> {
  const place = shown!;
  await world!.removeGuest(guest);
  place.terminal.close();
  places.splice(places.indexOf(place), 1);
  select(places[0] ?? null);
  return `${guest.name} is switched off`;
}

/** The guest that is shown pings all others, through each of its cards. */
async function pingGuests(guest: PageGuest): Promise<string> {
  const lines: string[] = [];
  for (const { guest: other } of places) {
    if (other === guest) continue;
    const times: string[] = [];
    for (const card of other.cards) {
      const output = await guest.check(`ping -c 3 -i 0.2 -W 10 ${card.guestAddress}`);
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
  return `${guest.name} is saved, ${mebibytes(place.saved.machine.length)} with everything on its bus`;
}

async function restore(): Promise<string> {
  const { saved } = shown!;
  const guest = await world!.goOn(saved!);
  settle(guest, saved);
  return `${guest.name} is what it was when it was saved`;
}

async function downloadState(guest: PageGuest, progress: Progress): Promise<string> {
  const saved = await guest.save();
  const file = await packGuest(saved, world!.pieces.manifest, progress);
  const time = new Date(saved.savedAt).toISOString().replace(/\.\d+/, "").replaceAll(/[-:]/g, "");
  const name = `vbus-guest${guest.number}-${time}.state.gz`;
  download(file, name);
  return `${guest.name} is in ${name}, ${mebibytes(file.size)}: “Open state” has it go on from there, in any page like this one`;
}

/** What messages call a file: what is opened they have said by then. */
const FILE = "it";

async function open(bytes: ArrayBuffer, name: string): Promise<string> {
  const { pieces } = world!;
  const opened = readStateFile(bytes, FILE, pieces.manifest);
  if (opened.kind === "guest") {
    const { saved } = opened;
    const guest = await world!.goOn(saved);
    settle(guest, saved);
    const when = new Date(saved.savedAt).toLocaleString([], { hour12: false });
    return `${guest.name} goes on from ${name}, saved ${when}: there in ${(guest.startMs / 1000).toFixed(1)} s`;
  }
  const before = pieces.state;
  pieces.useState(opened.state, FILE);
  try {
    return await addGuest();
  } catch (error) {
    pieces.useState(before, FILE);
    throw error;
  }
}

async function openFiles(files: readonly File[], progress: Progress): Promise<string> {
  const [file, another] = files;
  if (another !== undefined) throw new PageError("one file at a time, please");
  return open(await unpack(file!, FILE, progress), file!.name);
}

/** An address that a link may hold: states are as trusted as programs, so they come from where the program came from. */
async function openAddress(address: string, progress: Progress): Promise<string> {
  const url = URL.canParse(address, document.baseURI) ? new URL(address, document.baseURI) : null;
  if (url?.origin !== location.origin)
    throw new PageError("it is on another server: put the file beside the page, or open it from your disk");
  return open(await fetchFile(url, FILE, progress, "put the file beside the page"), address);
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
    status.note(`recorded ${frames} frames`);
  } else {
    capture = null;
    recorder.start();
    status.note("recording what crosses the cards");
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
  const guestAction = (name: string, work: (guest: PageGuest, progress: Progress) => Promise<string>) => () =>
    void perform(name, (progress) => work(shown!.guest, progress));
  buttons.addGuest.addEventListener("click", () => void perform("starting a guest", addGuest));
  buttons.removeGuest.addEventListener("click", guestAction("switching off", removeGuest));
  buttons.pingGuests.addEventListener("click", guestAction("ping", pingGuests));
  buttons.plugNic.addEventListener("click", guestAction("hot-plugging a card", plugNic));
  buttons.plugDisk.addEventListener("click", guestAction("hot-plugging a disk", plugDisk));
  buttons.save.addEventListener("click", guestAction("saving", save));
  buttons.restore.addEventListener("click", guestAction("restoring", restore));
  buttons.downloadState.addEventListener("click", guestAction("saving to a file", downloadState));
  listenForFiles(
    {
      button: buttons.openState,
      chooser: element("state-file", HTMLInputElement),
      target: element("drop-target", HTMLElement),
    },
    (files) => void perform(`opening ${files[0]!.name}`, (progress) => openFiles(files, progress)),
  );
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
  addEventListener("error", (event) => {
    status.note(`error in the page: ${event.message}`, true);
  });
  addEventListener("unhandledrejection", (event) => {
    status.note(`error in the page: ${describe(event.reason)}`, true);
  });
}

async function start(): Promise<void> {
  const query = new URLSearchParams(location.search);
  listen();
  try {
    status.show("starting", "fetching the guest's files …");
    const pieces = await GuestPieces.open(status.progress);
    pieces.boots = query.has("boot");
    world = await World.open(pieces, (message) => {
      status.note(message, true);
    });
  } catch (error) {
    // what is no PageError is a mistake of ours: where it happened helps whoever reports it
    if (!(error instanceof PageError)) console.error(error);
    status.note(describe(error), true);
    status.show("failed", describe(error));
    return;
  }
  setInterval(sample, INTERVAL_MS);
  setInterval(showTree, TREE_MS);
  const guests = Math.min(MOST_GUESTS, Math.max(1, Number(query.get("guests") ?? 1) || 1));
  const state = query.get("state");
  for (let i = 0; i < guests; i++) {
    const started =
      i === 0 && state !== null
        ? perform(`opening ${state}`, (progress) => openAddress(state, progress))
        : perform(`starting guest ${i + 1}`, addGuest);
    if (!(await started)) return;
  }
}

await start();
