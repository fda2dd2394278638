// The page with Linux guests (examples/browser): Vite bundles it, and the guest's files are put beside it. What comes out is
// a folder for any static server.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import zlib from "node:zlib";
import { guestPieces, PIECES_VARIABLE } from "./guest-pieces.mjs";
import { ROOT, StepError, step } from "./step.mjs";

/** Kernel and state are mostly zeroes: the fastest level packs them to a quarter. */
const PACKING = { level: 1 };

/**
 * What the page needs of a content security policy: WebAssembly, the worker that v86 makes of a blob to keep time, styles that
 * the terminal writes.
 */
export const BROWSER_PAGE_POLICY =
  "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; " +
  "style-src 'self' 'unsafe-inline'; img-src 'self' data:";

/** The state of a guest that has booted with the page's hardware: boots one, when there is none in the cache. */
function stateFile(pieces) {
  const program = path.join(ROOT, ".build/examples/browser/prepare-state.js");
  const { status, stdout } = spawnSync(process.execPath, [program], {
    env: { ...process.env, [PIECES_VARIABLE]: JSON.stringify(pieces) },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) throw new StepError("no guest booted for the page, see above");
  return stdout.trim();
}

/**
 * Builds the page; the package and its programs must be built.
 * @param {import("./browser-page.mjs").BrowserPageOptions} [options] see browser-page.d.mts
 * @returns {Promise<string>} the folder to serve
 * @throws {StepError} when the guest's files cannot be had
 */
export async function buildBrowserPage({ out = ".build/browser-page", state = true } = {}) {
  const folder = path.join(ROOT, out);
  const pieces = await guestPieces();
  const { build } = await import("vite");
  await step("bundling the page", () =>
    build({ configFile: path.join(ROOT, "examples/browser/vite.config.ts"), build: { outDir: folder } }),
  );
  const guest = path.join(folder, "guest");
  fs.mkdirSync(guest, { recursive: true });
  const pack = (name, file) => {
    fs.writeFileSync(path.join(guest, `${name}.gz`), zlib.gzipSync(fs.readFileSync(file), PACKING));
    return `${name}.gz`;
  };
  const { version } = JSON.parse(fs.readFileSync(path.join(ROOT, "node_modules/v86/package.json"), "utf8"));
  const manifest = {
    v86: version,
    hardware: { memory: 128 },
    bios: pack("bios", pieces.bios),
    ...(pieces.vgaBios === undefined ? {} : { vgaBios: pack("vgabios", pieces.vgaBios) }),
    kernel: pack("kernel", pieces.kernel),
    initrd: pack("initrd", pieces.initrd),
    ...(state ? { state: pack("state", stateFile(pieces)) } : {}),
    drivers: pieces.drivers,
  };
  fs.writeFileSync(path.join(guest, "guest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
  return folder;
}
