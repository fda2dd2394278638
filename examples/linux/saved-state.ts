/** Saved states of booted guests in the cache folder: a guest that starts from one is there in half a second. */
import { createHash } from "node:crypto";
import { readdir, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readImage } from "./pieces.js";

const PREFIX = "state-";
/** States that are kept; each is as large as the memory that the guest touched, about 30 MB. */
const KEEP = 6;
/** What v86's states begin with: this, a version, the length of the state, the length of the JSON that follows. */
const MAGIC = 0x86768676;
const HEADER_BYTES = 16;

/** Whether v86 can read it: it says no where nobody can catch that, and the guest never comes up. */
function isWhole(state: ArrayBuffer): boolean {
  if (state.byteLength < HEADER_BYTES) return false;
  const header = new DataView(state, 0, HEADER_BYTES);
  if (header.getUint32(0, true) !== MAGIC || header.getUint32(8, true) !== state.byteLength) return false;
  const length = header.getUint32(12, true);
  if (length > state.byteLength - HEADER_BYTES) return false;
  try {
    JSON.parse(new TextDecoder().decode(new Uint8Array(state, HEADER_BYTES, length)));
    return true;
  } catch {
    return false; // a file of the right length with holes
  }
}

/** One state, under a key of all that went into it. */
export class SavedState {
  readonly file: string;

  /**
   * @param cache - the folder
   * @param ingredients - whatever makes one guest different from another
   */
  constructor(
    private readonly cache: string,
    ingredients: readonly string[],
  ) {
    const hash = createHash("sha256");
    for (const text of ingredients) hash.update(`${text.length}\0${text}`);
    this.file = join(cache, `${PREFIX}${hash.digest("hex").slice(0, 16)}`);
  }

  /**
   * The state, or undefined when there is none yet. One that is damaged is thrown away.
   * @param progress - is told of that
   */
  async load(progress?: (message: string) => void): Promise<ArrayBuffer | undefined> {
    let state: ArrayBuffer;
    try {
      state = await readImage(this.file);
    } catch (error) {
      ignoreMissing(error);
      return undefined;
    }
    if (!isWhole(state)) {
      progress?.(`the saved state ${this.file} is damaged: removed, and made anew`);
      await this.remove();
      return undefined;
    }
    const now = new Date();
    await utimes(this.file, now, now).catch(ignoreMissing); // used lately: kept
    return state;
  }

  /** Writes it so that it appears at once, and removes those that nobody used for the longest time. */
  async store(state: ArrayBuffer): Promise<void> {
    const temporary = join(this.cache, `.${PREFIX}${process.pid}.${String(Math.random()).slice(2)}`);
    try {
      await writeFile(temporary, new Uint8Array(state));
      await rename(temporary, this.file);
    } finally {
      await rm(temporary, { force: true });
    }
    await this.#prune();
  }

  /** Removes it. */
  async remove(): Promise<void> {
    await rm(this.file, { force: true });
  }

  async #prune(): Promise<void> {
    const names = (await readdir(this.cache)).filter((name) => name.startsWith(PREFIX));
    const states = await Promise.all(
      names.map(async (name) => {
        const file = join(this.cache, name);
        // Another process may be tidying up, too.
        const time = await stat(file).then(
          (found) => found.mtimeMs,
          () => 0,
        );
        return { file, time };
      }),
    );
    states.sort((a, b) => b.time - a.time);
    for (const { file } of states.slice(KEEP)) await rm(file, { force: true });
  }
}

function ignoreMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
}
