/** What a report says in a few sentences, for those who read no further. */
import { figureText } from "../../harness/text-table.js";
import type { Setting, Shootout, Study } from "../model.js";
import { nameOf } from "./text.js";

interface Headline {
  study: string;
  /** Where on its axis; absent: its first setting. */
  at?: number;
  /** What the sentence is about. */
  about: string;
  /** Whom it names, in order. */
  names: readonly string[];
}

const RINGS = ["ioq", "ioq-lazy", "ioq-2009", "split", "packed", "c-ring"] as const;
const CARDS = ["venet", "virtio-split", "virtio-packed"] as const;
const LINUX = ["venet-linux", "vbus-virtio", "v86-virtio"] as const;

const HEADLINES: readonly Headline[] = [
  {
    study: "descriptors-2-notified",
    at: 32,
    about: "Rings between two threads, in bursts of 32",
    names: RINGS,
  },
  {
    study: "descriptors-2-notified",
    at: 1,
    about: "Rings between two threads, one descriptor at a time",
    names: RINGS,
  },
  {
    study: "trips",
    at: 1,
    about: "Rings between two threads, one there and back before the next",
    names: RINGS,
  },
  { study: "devices-off", about: "TCP between two guests, all offloads on", names: CARDS },
  { study: "devices-on", about: "TCP between two guests, all offloads off", names: CARDS },
  { study: "devices-trips", about: "One frame between two guests, there and back", names: CARDS },
  { study: "linux-out", about: "A Linux guest in an emulator, TCP out", names: LINUX },
  { study: "linux-in", about: "A Linux guest in an emulator, TCP in", names: LINUX },
];

function sentence(report: Shootout, study: Study, setting: Setting, { about, names }: Headline): string {
  const figures = names.flatMap((id) => {
    const cell = setting.cells.find(({ contestant }) => contestant === id);
    return cell === undefined ? [] : [{ name: nameOf(report, id), value: cell.value.median }];
  });
  if (figures.length < 2) return "";
  const sorted = figures.sort((a, b) => (study.lower ? a.value - b.value : b.value - a.value));
  const list = sorted.map(({ name, value }) => `${name} ${figureText(value)}`).join("; ");
  const cores = setting.placement === null ? "" : ` (${setting.placement} cores)`;
  return `${about}${cores}, ${study.unit}, best first: ${list}.`;
}

/** The sentences. */
export function headlines(report: Shootout): string[] {
  return HEADLINES.flatMap((headline) => {
    const study = report.studies.find(({ id }) => id === headline.study);
    if (study === undefined) return [];
    const at = headline.at ?? study.settings[0]?.at;
    return study.settings
      .filter((setting) => setting.at === at)
      .map((setting) => sentence(report, study, setting, headline))
      .filter((text) => text !== "");
  });
}
