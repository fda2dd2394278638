/** The goals that the shoot-out judges, as they were found. */
import type { Target } from "../harness/result.js";
import type { GoalResult, Study } from "./model.js";

/** What they are about. */
export const SHOOTOUT_GOALS = {
  G2: "IOQ against virtio split (event index, in-order), the same engine, two threads, notifications included",
  G4: "IOQ in wasm against native loops like those of Linux' ringtest, one at a time",
  G10: "venet against the emulator's own virtio-net, in one Linux guest",
  G11: "our virtio-net for stock guests against the emulator's own, in one Linux guest",
} as const;

interface Judged {
  goal: keyof typeof SHOOTOUT_GOALS;
  name: string;
  /** Study, and where on its axis. */
  study: string;
  at: number;
  ours: string;
  rival: string;
  target: number | null;
}

const STRICT = "ioq";
const NEGOTIATED = ["ioq-lazy", "ioq-compact"] as const;
const NAMES: Record<string, string> = { "ioq-lazy": "lazy", "ioq-compact": "compact" };
const BURSTS = "descriptors-2-notified";
const TRIPS = "trips";

const g2 = (rival: string, name: string, judged: boolean): Judged[] => {
  const base = { goal: "G2", rival } as const;
  const against = ` vs ${name}`;
  const target = (value: number): number | null => (judged ? value : null);
  return [
    {
      ...base,
      name: `strict, bursts of 32${against}`,
      study: BURSTS,
      at: 32,
      ours: STRICT,
      target: target(2),
    },
    {
      ...base,
      name: `strict, one at a time${against}`,
      study: BURSTS,
      at: 1,
      ours: STRICT,
      target: target(1.5),
    },
    { ...base, name: `strict, round trip${against}`, study: TRIPS, at: 1, ours: STRICT, target: target(1.5) },
    ...NEGOTIATED.flatMap((ours): Judged[] => {
      const own = NAMES[ours] as string;
      return [
        { ...base, name: `${own}, bursts of 32${against}`, study: BURSTS, at: 32, ours, target: null },
        { ...base, name: `${own}, one at a time${against}`, study: BURSTS, at: 1, ours, target: target(3) },
        { ...base, name: `${own}, round trip${against}`, study: TRIPS, at: 1, ours, target: target(2) },
      ];
    }),
  ];
};

const g4 = (ours: string, name: string, judged: boolean): Judged[] => [
  {
    goal: "G4",
    name: `${name} vs virtio 0.9`,
    study: BURSTS,
    at: 1,
    ours,
    rival: "c-virtio09",
    target: judged ? 1.5 : null,
  },
  {
    goal: "G4",
    name: `${name} vs ring`,
    study: BURSTS,
    at: 1,
    ours,
    rival: "c-ring",
    target: judged ? 0.7 : null,
  },
];

const JUDGED: readonly Judged[] = [
  ...g2("split", "split", true),
  ...g2("split-in-order", "split in order", true),
  ...g2("packed", "packed", false),
  ...g2("packed-in-order", "packed in order", false),
  ...g4(STRICT, "strict", true),
  ...g4("ioq-lazy", "lazy", false),
  ...g4("ioq-compact", "compact", false),
];

/** Judges G2 and G4 by the studies of part (a). Nothing for a study that was not made. */
export function judgeRings(studies: readonly Study[]): GoalResult[] {
  const results: GoalResult[] = [];
  for (const { goal, name, study, at, ours, rival, target } of JUDGED) {
    const found = studies.find(({ id }) => id === study);
    if (found === undefined) continue;
    const wanted: Target | null = target === null ? null : { sense: "at least", value: target };
    const settings = found.settings.filter((setting) => setting.at === at);
    const judged = settings.flatMap(({ placement, duels }): GoalResult[] =>
      duels
        .filter((duel) => duel.ours === ours && duel.rival === rival)
        .map(({ ratio }) => ({
          goal,
          name,
          placement,
          figure: ratio,
          target: wanted,
          note: `${ratio.count} pairs of samples`,
        })),
    );
    if (judged.length > 0) {
      results.push(...judged);
      continue;
    }
    const reasons = settings
      .flatMap(({ absent }) => absent)
      .filter(({ contestant }) => contestant === ours || contestant === rival)
      .map(({ reason }) => reason);
    const note = [...new Set(reasons)].join("; ") || `${rival} took no part`;
    results.push({ goal, name, placement: null, figure: null, target: wanted, note });
  }
  return results;
}
