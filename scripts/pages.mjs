// The replay in a browser: bundles its page and its workers, and serves folders on the loopback interface. The browser tests
// use both halves for pages of their own.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { ROOT, StepError } from "./step.mjs";

/** What a page of the main job consists of, by its name on the server. */
const FILES = {
  "index.html": "examples/replay/page.html",
  "page.css": "examples/replay/page.css",
  "segments.pcap.gz": "test/data/segments.pcap.gz",
  "superframes.pcap.gz": "test/data/superframes.pcap.gz",
  "vbus.wasm": "dist/wasm/vbus.wasm",
  "vbus.shared.wasm": "dist/wasm/vbus.shared.wasm",
};
const ENTRIES = ["page", "host", "guest"].map((name) => `examples/replay/${name}.ts`);

/** The strictest content security policy that vbus works with: WebAssembly may be compiled, text is never evaluated. */
export const POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'";

const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".gz": "application/gzip",
  ".hex": "text/plain; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".map": "application/json",
  ".wasm": "application/wasm",
};

/**
 * Modules of Node may be imported by branches that only run in Node. A browser that gets to see a static import of one
 * fails to load the whole program, so that nobody would know why.
 */
function checkImports({ outputs }, programs) {
  for (const [entry, { entryPoint }] of Object.entries(outputs)) {
    // what is imported on demand counts as an entry, too
    if (!programs.includes(entryPoint)) continue;
    const seen = new Set();
    const visit = (file) => {
      if (seen.has(file)) return;
      seen.add(file);
      for (const { path: imported, kind, external } of outputs[file].imports) {
        if (kind !== "import-statement") continue;
        if (external) {
          throw new StepError(
            `${entryPoint} imports ${imported} at its start, which no page can load: import it where it is needed`,
          );
        }
        visit(imported);
      }
    };
    visit(entry);
  }
}

/**
 * Bundles the page and its workers (ES modules, shared chunks) from the sources and the built package.
 * @param {import("./pages.mjs").BundleOptions} [options] see pages.d.mts
 * @returns {Promise<string>} the folder to serve
 */
export async function bundlePages({ out = ".build/pages", entries = [], files = {}, alias = {} } = {}) {
  const { build } = await import("esbuild");
  const folder = path.join(ROOT, out);
  fs.rmSync(folder, { recursive: true, force: true });
  const programs = [...ENTRIES, ...entries];
  const { metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: programs,
    outdir: out,
    entryNames: "[name]",
    chunkNames: "chunks/[name]-[hash]",
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    sourcemap: true,
    external: ["node:*"],
    alias,
    metafile: true,
    logLevel: "warning",
  });
  checkImports(metafile, programs);
  for (const [name, source] of Object.entries({ ...FILES, ...files }))
    fs.copyFileSync(path.join(ROOT, source), path.join(folder, name));
  return folder;
}

/** The file that a request means, or null. Nothing outside of the folder is ever served. */
function fileOf(folder, url) {
  let name;
  try {
    name = decodeURIComponent(new URL(url, "http://localhost").pathname);
  } catch (error) {
    if (error instanceof URIError || error.code === "ERR_INVALID_URL") return null;
    throw error;
  }
  const file = path.join(folder, name.endsWith("/") ? `${name}index.html` : name);
  if (!file.startsWith(folder + path.sep) || file.includes("\0")) return null;
  return fs.existsSync(file) && fs.statSync(file).isFile() ? file : null;
}

/**
 * Serves a folder on the loopback interface.
 * @param {import("./pages.mjs").ServeOptions} options see pages.d.mts
 * @returns {Promise<import("./pages.mjs").PageServer>} its address, and how to end it
 */
export function servePages({ folder, isolation = true, policy = POLICY, port = 0 }) {
  const headers = {
    "content-security-policy": policy,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    ...(isolation
      ? {
          "cross-origin-opener-policy": "same-origin",
          "cross-origin-embedder-policy": "require-corp",
          "cross-origin-resource-policy": "same-origin",
        }
      : {}),
  };
  const server = http.createServer((request, response) => {
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.writeHead(405, { ...headers, allow: "GET, HEAD" }).end();
      return;
    }
    const url = request.url ?? "/";
    const file = fileOf(folder, url);
    if (file === null) {
      // browsers ask for it unasked, and print an error when there is none
      response.writeHead(url === "/favicon.ico" ? 204 : 404, headers).end();
      return;
    }
    const body = fs.readFileSync(file);
    const type = TYPES[path.extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { ...headers, "content-type": type, "content-length": body.length });
    response.end(request.method === "HEAD" ? undefined : body);
  });
  return new Promise((resolve, reject) => {
    server.on("error", (error) => {
      const busy = error.code === "EADDRINUSE";
      reject(busy ? new StepError(`port ${port} is in use: give another one with --port, or 0`) : error);
    });
    server.listen(port, "127.0.0.1", () => {
      resolve({
        url: `http://127.0.0.1:${server.address().port}/`,
        close: () =>
          new Promise((closed) => {
            server.close(() => closed());
            server.closeAllConnections();
          }),
      });
    });
  });
}
