/**
 * The files that guests are made of, fetched from where the page came from. `guest/guest.json` names them. Each may be
 * packed with gzip, whatever its name and whatever the server says of it.
 */
import type { GuestHardware, GuestImages } from "../linux/guest.js";
import coreUrl from "v86/build/v86.wasm?url";
import { counted, unpack, type Progress } from "./packing.js";
import { PageError } from "./page-error.js";

/** What `guest/guest.json` says. File names are relative to it. */
export interface GuestManifest {
  /** Release of v86 that the state was made with. */
  v86: string;
  hardware: GuestHardware;
  bios: string;
  vgaBios?: string;
  kernel: string;
  initrd: string;
  /** The state of a guest that has booted; without one guests boot. */
  state?: string;
  /** Drivers of this project in the guest's `/lib/vbus`. */
  drivers: string[];
}

/*
 * A state of v86's begins with four little-endian words: this one, a version, the length of everything, and that of the
 * description.
 */
const STATE_MAGIC = 0x86768676;
const STATE_VERSION = 6;
const STATE_HEADER = 16;
const MANIFEST = new URL("guest/guest.json", document.baseURI);

async function get(url: URL, what: string, remedy = "npm run page puts it there"): Promise<Response> {
  let response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new PageError(
      `${what} cannot be fetched from ${url.href} (${error instanceof Error ? error.message : String(error)}): ` +
        "is the server still there? A page opened as a file cannot fetch anything; npm run page serves it",
    );
  }
  if (!response.ok)
    throw new PageError(`${what} is not on the server (${response.status} for ${url.pathname}): ${remedy}`);
  return response;
}

/**
 * Fetches a file, packed or not, and unpacks it.
 * @param what - what it is, for messages
 * @param remedy - what to do when it is not there
 * @throws PageError
 */
export async function fetchFile(
  url: URL,
  what: string,
  progress?: Progress,
  remedy?: string,
): Promise<ArrayBuffer> {
  const { headers, body } = await get(url, what, remedy);
  if (body === null) return new ArrayBuffer(0);
  const length = Number(headers.get("content-length"));
  let file;
  try {
    file = await new Response(body.pipeThrough(counted(length > 0 ? length : null, progress))).blob();
  } catch (error) {
    throw new PageError(
      `${what} did not come to its end (${error instanceof Error ? error.message : String(error)}): try again`,
      { cause: error },
    );
  }
  return unpack(file, what);
}

/** Whether bytes begin like a state of v86's. */
export function isBootedState(bytes: ArrayBuffer): boolean {
  return bytes.byteLength >= STATE_HEADER && new DataView(bytes).getUint32(0, true) === STATE_MAGIC;
}

/** v86 itself looks at a state when the page cannot hear its complaints any more. @throws PageError */
export function checkBootedState(state: ArrayBuffer, what: string): void {
  if (!isBootedState(state)) throw new PageError(`${what} is no saved state of v86`);
  const header = new DataView(state);
  const [version, length] = [header.getUint32(4, true), header.getUint32(8, true)];
  if (version !== STATE_VERSION)
    throw new PageError(
      `${what} has version ${version} of v86's format, and this v86 reads ${STATE_VERSION}: make it anew`,
    );
  if (length !== state.byteLength)
    throw new PageError(`${what} is damaged: it has ${state.byteLength} bytes of ${length}`);
}

/** The files of one guest after another: each is fetched once, and each guest gets copies of its own. */
export class GuestPieces {
  readonly #files = new Map<string, Promise<ArrayBuffer>>();
  #core: Promise<WebAssembly.Module> | null = null;
  #state: ArrayBuffer | null = null;
  /** True: the state that lies on the server is not used; the first guest boots. */
  boots = false;

  private constructor(
    readonly manifest: GuestManifest,
    private readonly progress: Progress | undefined,
  ) {}

  /** Reads the manifest. @param progress - told how far the file is that is being fetched @throws PageError */
  static async open(progress?: Progress): Promise<GuestPieces> {
    if (typeof WebAssembly !== "object")
      throw new PageError("this browser has no WebAssembly, or it is switched off: guests need it");
    const response = await get(MANIFEST, "the list of the guest's files");
    let manifest;
    try {
      manifest = (await response.json()) as GuestManifest;
    } catch {
      throw new PageError(`${MANIFEST.pathname} is no JSON: npm run page writes it anew`);
    }
    return new GuestPieces(manifest, progress);
  }

  /** Guests start from this state of a booted one from now on; null: from the server's. @throws PageError when it is none */
  useState(state: ArrayBuffer | null, what: string): void {
    if (state !== null) checkBootedState(state, what);
    this.#state = state;
  }

  /** The state that guests start from; null when none was needed or given yet. */
  get state(): ArrayBuffer | null {
    return this.#state;
  }

  async #haveState(): Promise<ArrayBuffer | null> {
    const { state } = this.manifest;
    if (this.#state === null && state !== undefined && !this.boots)
      this.useState(await this.#fetch(state, "the saved state"), "the saved state");
    return this.#state;
  }

  /** Everything for a guest of its own, which boots or starts from a booted one's state. @throws PageError */
  async images(): Promise<GuestImages> {
    const { kernel, initrd } = this.manifest;
    const state = await this.#haveState();
    const [machine, kernelImage, initrdImage] = await Promise.all([
      this.machine(),
      state === null ? this.#copy(kernel, "the guest's kernel") : null,
      state === null ? this.#copy(initrd, "the guest's initramfs") : null,
    ]);
    const from = state === null ? { kernel: kernelImage!, initrd: initrdImage! } : { state: state.slice(0) };
    return { ...machine, from };
  }

  /** A machine alone, for a guest that goes on. @throws PageError */
  async machine(): Promise<GuestImages> {
    const { bios, vgaBios } = this.manifest;
    const [core, biosImage, vgaImage] = await Promise.all([
      this.#compiled(),
      this.#copy(bios, "the BIOS"),
      vgaBios === undefined ? undefined : this.#copy(vgaBios, "the VGA BIOS"),
    ]);
    return { core, bios: biosImage, vgaBios: vgaImage, from: null };
  }

  async #copy(name: string, what: string): Promise<ArrayBuffer> {
    return (await this.#fetch(name, what)).slice(0);
  }

  #fetch(name: string, what: string): Promise<ArrayBuffer> {
    let file = this.#files.get(name);
    if (file === undefined) {
      file = fetchFile(new URL(name, MANIFEST), what, this.progress);
      // what failed may succeed the next time
      file.catch(() => this.#files.delete(name));
      this.#files.set(name, file);
    }
    return file;
  }

  #compiled(): Promise<WebAssembly.Module> {
    this.#core ??= get(new URL(coreUrl, document.baseURI), "v86's core")
      .then((response) => response.arrayBuffer())
      .then(async (bytes) => {
        try {
          return await WebAssembly.compile(bytes);
        } catch (error) {
          throw new PageError(
            `this browser refuses WebAssembly (${error instanceof Error ? error.message : String(error)}): a content ` +
              "security policy must allow 'wasm-unsafe-eval'",
          );
        }
      });
    return this.#core;
  }
}
