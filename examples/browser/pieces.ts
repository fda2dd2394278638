/**
 * The files that guests are made of, fetched from where the page came from. `guest/guest.json` names them. Each may be
 * packed with gzip, whatever its name and whatever the server says of it.
 */
import type { GuestHardware, GuestImages } from "../linux/guest.js";
import coreUrl from "v86/build/v86.wasm?url";

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

/** Something that the page needs is not there: the message says what, and what to do. */
export class PageError extends Error {
  override readonly name = "PageError";
}

/** v86's states begin with it. */
const STATE_MAGIC = 0x86768676;
const MANIFEST = new URL("guest/guest.json", document.baseURI);

async function get(url: URL, what: string): Promise<Response> {
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
    throw new PageError(
      `${what} is not on the server (${response.status} for ${url.pathname}): npm run page puts it there`,
    );
  return response;
}

/** A buffer as it is, or what gzip packed into it. */
async function unpacked(buffer: ArrayBuffer, what: string): Promise<ArrayBuffer> {
  const [first, second] = new Uint8Array(buffer, 0, Math.min(2, buffer.byteLength));
  if (first !== 0x1f || second !== 0x8b) return buffer;
  try {
    const stream = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"));
    return await new Response(stream).arrayBuffer();
  } catch {
    throw new PageError(`${what} is damaged: it ends in the middle, or is no gzip file`);
  }
}

/** The files of one guest after another: each is fetched once, and each guest gets copies of its own. */
export class GuestPieces {
  readonly #files = new Map<string, Promise<ArrayBuffer>>();
  #core: Promise<WebAssembly.Module> | null = null;
  #state: ArrayBuffer | null = null;
  /** True: the state that lies on the server is not used; the first guest boots. */
  boots = false;

  private constructor(readonly manifest: GuestManifest) {}

  /** Reads the manifest. @throws PageError */
  static async open(): Promise<GuestPieces> {
    if (typeof WebAssembly !== "object")
      throw new PageError("this browser has no WebAssembly, or it is switched off: guests need it");
    const response = await get(MANIFEST, "the list of the guest's files");
    let manifest;
    try {
      manifest = (await response.json()) as GuestManifest;
    } catch {
      throw new PageError(`${MANIFEST.pathname} is no JSON: npm run page writes it anew`);
    }
    return new GuestPieces(manifest);
  }

  /** Takes a state that somebody gave; guests start from it from now on. @throws PageError when it is none */
  async useState(given: ArrayBuffer, what: string): Promise<void> {
    const state = await unpacked(given, what);
    if (state.byteLength < 16 || new DataView(state).getUint32(0, true) !== STATE_MAGIC)
      throw new PageError(`${what} is no saved state of v86`);
    this.#state = state;
  }

  /** Fetches a state from an address, relative to the page's. @throws PageError */
  async fetchState(address: string): Promise<void> {
    const response = await get(new URL(address, document.baseURI), `the state ${address}`);
    await this.useState(await response.arrayBuffer(), `the state ${address}`);
  }

  /** The state that guests start from; null when there is none yet. */
  get state(): ArrayBuffer | null {
    return this.#state;
  }

  async #haveState(): Promise<ArrayBuffer | null> {
    const { state } = this.manifest;
    if (this.#state === null && state !== undefined && !this.boots)
      await this.useState(await this.#fetch(state, "the saved state"), "the saved state");
    return this.#state;
  }

  /** Everything for a guest of its own. @throws PageError */
  async images(): Promise<GuestImages> {
    const { bios, vgaBios, kernel, initrd } = this.manifest;
    const state = await this.#haveState();
    const [core, biosImage, vgaImage, kernelImage, initrdImage] = await Promise.all([
      this.#compiled(),
      this.#copy(bios, "the BIOS"),
      vgaBios === undefined ? undefined : this.#copy(vgaBios, "the VGA BIOS"),
      state === null ? this.#copy(kernel, "the guest's kernel") : null,
      state === null ? this.#copy(initrd, "the guest's initramfs") : null,
    ]);
    const from = state === null ? { kernel: kernelImage!, initrd: initrdImage! } : { state: state.slice(0) };
    return { core, bios: biosImage, vgaBios: vgaImage, from };
  }

  async #copy(name: string, what: string): Promise<ArrayBuffer> {
    return (await this.#fetch(name, what)).slice(0);
  }

  #fetch(name: string, what: string): Promise<ArrayBuffer> {
    let file = this.#files.get(name);
    if (file === undefined) {
      file = get(new URL(name, MANIFEST), what)
        .then((response) => response.arrayBuffer())
        .then((buffer) => unpacked(buffer, what));
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
