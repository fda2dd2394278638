/**
 * A guest of the page as it was at a moment, and the file that holds one: what `vbus/state` makes of it, packed with gzip. The
 * machine in it is what `saveMachine` returned; beside that lies what the page has of the guest.
 */
import { decodeState, encodeState, StateError, type StateReader } from "vbus/state";
import { pack, type Progress } from "./packing.js";
import { PageError } from "./page-error.js";
import { checkBootedState, isBootedState, type GuestManifest } from "./pieces.js";

/** Version of what the page adds; that of the machine is in what `vbus/state` wrote. */
const FORMAT = 1;
const NUMBER_MAX = 200;
const TEXT_MAX = 64;
const SCREEN_MAX = 1 << 20;
const BYTES_MAX = 2 ** 30;
const TIME_MAX = 8.64e15;

/** A guest as it was. */
export interface SavedGuest {
  /** Which guest it is: its addresses follow from that. */
  readonly number: number;
  /** When it was saved, in ms as `Date` counts them. */
  readonly savedAt: number;
  /** The machine with all that is attached to it: see `saveMachine`. */
  readonly machine: Uint8Array;
  /** Whether the cable of v86's own card was plugged in. */
  readonly plugged: boolean;
  /** What was on the disk that was plugged in; null: none was. */
  readonly disk: Uint8Array | null;
  /** The text in its terminal. */
  readonly screen: string;
}

/** What a file that somebody opens may hold: a guest of a page, or the state of a booted guest that others start from. */
export type OpenedFile =
  | { readonly kind: "guest"; readonly saved: SavedGuest }
  | { readonly kind: "booted"; readonly state: ArrayBuffer };

/** The page's machine, as far as a state depends on it. */
type Machine = Pick<GuestManifest, "v86" | "hardware">;

const memoryOf = ({ hardware }: Machine): number => hardware.memory ?? 0;

/** Packs a guest into a file, for {@link readStateFile}. */
export function packGuest(saved: SavedGuest, machine: Machine, progress?: Progress): Promise<Blob> {
  const { number, savedAt, plugged, disk, screen } = saved;
  const page = {
    format: FORMAT,
    v86: machine.v86,
    memory: memoryOf(machine),
    number,
    savedAt,
    plugged,
    disk,
    screen: screen.slice(-SCREEN_MAX),
    machine: saved.machine,
  };
  return pack(encodeState({ page }), progress);
}

/**
 * Reads what may be anything.
 * @param bytes - the file, unpacked; the guest that comes out borrows them
 * @param what - the file's name, for messages
 * @throws PageError for a file that is foreign, damaged, of another version or of another machine
 */
export function readStateFile(bytes: ArrayBuffer, what: string, machine: Machine): OpenedFile {
  if (isBootedState(bytes)) {
    checkBootedState(bytes, what);
    return { kind: "booted", state: bytes };
  }
  try {
    return { kind: "guest", saved: readGuest(decodeState(new Uint8Array(bytes)), what, machine) };
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    const message =
      error.fault === "foreign"
        ? `${what} is no saved guest: open what “Download state” gave`
        : `${what} cannot be opened: ${error.message}`;
    throw new PageError(message, { cause: error });
  }
}

function readGuest(state: StateReader, what: string, machine: Machine): SavedGuest {
  const page = state.get("page");
  if (page.absent)
    throw new PageError(
      `${what} is a machine that some other program saved: open what “Download state” gave`,
    );
  const format = page.get("format").number(0, Number.MAX_SAFE_INTEGER);
  if (format !== FORMAT)
    throw new PageError(
      `${what} has format ${format} and this page reads format ${FORMAT}: open it with the release that saved it`,
    );
  const v86 = page.get("v86").text(TEXT_MAX);
  if (v86 !== machine.v86)
    throw new PageError(
      `${what} is of v86 ${v86} and this page runs ${machine.v86}: open it with the release that saved it`,
    );
  const memory = page.get("memory").number(0, NUMBER_MAX * 1024);
  if (memory !== memoryOf(machine))
    throw new PageError(
      `${what} is of a machine with ${memory} MiB, and those of this page have ${memoryOf(machine)}: open it in the page that ` +
        "it comes from",
    );
  return {
    number: page.get("number").number(1, NUMBER_MAX),
    savedAt: page.get("savedAt").number(0, TIME_MAX),
    machine: page.get("machine").borrow(BYTES_MAX),
    plugged: page.get("plugged").boolean(),
    disk: page.get("disk").nullable((disk) => disk.borrow(BYTES_MAX)),
    screen: page.get("screen").text(SCREEN_MAX),
  };
}
