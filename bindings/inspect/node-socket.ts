/**
 * Inspections for other processes, over a local socket that speaks HTTP, in Node. The command `vbus inspect` reads it, and
 * `curl --unix-socket`.
 * @module
 */
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import { dirname } from "node:path";
import process from "node:process";
import { VbusError } from "../errors.js";
import { INSPECTION_VERSION, type Inspection } from "./inspection.js";
import { EXPOSITION_TYPE, prometheusText } from "./prometheus.js";
import type { InspectOptions } from "./queue.js";

/** Makes an inspection on the thread that owns what is inspected: usually `(options) => inspect(sources, options)`. */
export type Inspector = (options: InspectOptions) => Inspection;

/** A socket that is being served. */
export interface InspectServer {
  /** Where it is. */
  readonly path: string;
  /** Ends it, and removes the socket. Twice is harmless. */
  close(): Promise<void>;
}

const USAGE = `GET /inspection            everything, as JSON (?maps=0: without the maps of the rings)
GET /metrics               text for Prometheus
`;

/** No inspection is larger. */
const ANSWER_MAX = 256 << 20;
/** How long an answer may take: the other side may be stopped in a debugger. */
const ANSWER_MS = 10_000;

/**
 * Answers a request: for an HTTP server of yours. `/inspection` is JSON, `/metrics` is what Prometheus reads; what cannot be
 * looked at is a 500 with the reason.
 */
export function inspectHandler(inspector: Inspector): http.RequestListener {
  return (request, response) => {
    const answer = (status: number, type: string, body: string): void => {
      response.writeHead(status, { "content-type": type, "cache-control": "no-store" });
      response.end(request.method === "HEAD" ? undefined : body);
    };
    const text = "text/plain; charset=utf-8";
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("allow", "GET, HEAD");
      answer(405, text, "only GET is answered here\n");
      return;
    }
    try {
      const [path, query = ""] = (request.url ?? "/").split("?", 2) as [string, string?];
      switch (path) {
        case "/":
          answer(200, text, USAGE);
          return;
        case "/inspection":
          answer(
            200,
            "application/json",
            `${JSON.stringify(inspector({ maps: new URLSearchParams(query).get("maps") !== "0" }))}\n`,
          );
          return;
        case "/metrics":
          answer(200, EXPOSITION_TYPE, prometheusText(inspector({ maps: false })));
          return;
        default:
          answer(404, text, `there is no ${path} here\n${USAGE}`);
      }
    } catch (error) {
      answer(500, text, `the inspection failed: ${error instanceof Error ? error.message : String(error)}\n`);
    }
  };
}

/**
 * Serves inspections on a local socket: a path in the file system (a pipe's name on Windows), for this user alone. It does
 * not keep the process running. A socket that a dead process left there is replaced.
 * @throws VbusError EBUSY when another process serves that path, EEXIST when something else is there, ENOENT when its folder is
 *   missing, EINVAL when the path is too long for a socket, EIO for any other failure of the file system; nothing is left behind
 */
export async function serveInspections(path: string, inspector: Inspector): Promise<InspectServer> {
  checkLength(path);
  const server = http.createServer(inspectHandler(inspector));
  try {
    await makeRoom(path);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(path, resolve);
    });
    server.removeAllListeners("error");
    if (process.platform !== "win32") fs.chmodSync(path, 0o600);
  } catch (error) {
    server.close();
    if (error instanceof VbusError) throw error;
    const { message } = error as Error;
    throw new VbusError("EIO", `cannot be inspected at "${path}": ${message}; choose another path`, {
      cause: error,
    });
  }
  server.unref();
  let closing: Promise<void> | null = null;
  return {
    path,
    close: () =>
      (closing ??= new Promise<void>((resolve) => {
        server.close(() => {
          resolve();
        });
        server.closeAllConnections();
      })),
  };
}

/**
 * Bytes of the longest path that an address of a socket holds, `sun_path` without its NUL. What is longer would be cut off, and
 * the socket be made under another name.
 */
const PATH_MAX = process.platform === "linux" ? 107 : 103;

/** @throws VbusError EINVAL */
function checkLength(path: string): void {
  const length = Buffer.byteLength(path);
  if (process.platform === "win32" || length <= PATH_MAX) return;
  throw new VbusError(
    "EINVAL",
    `"${path}" has ${length} bytes, and a socket's path at most ${PATH_MAX}; choose a shorter one, or one from the current folder on`,
  );
}

/** Takes away a socket that nobody serves. */
async function makeRoom(path: string): Promise<void> {
  if (process.platform === "win32") return; // pipes go with their processes
  const folder = dirname(path);
  if (fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new VbusError("ENOENT", `there is no folder "${folder}"; make it, or choose another path`);
  const found = fs.lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket())
    throw new VbusError("EEXIST", `"${path}" is there already, and is no socket; choose another path`);
  const alive = await new Promise<boolean>((resolve) => {
    const probe = net.connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => {
      resolve(false);
    });
  });
  if (alive) throw new VbusError("EBUSY", `another process is inspected at "${path}"; choose another path`);
  fs.unlinkSync(path);
}

/**
 * Asks for a path of a socket that {@link serveInspections} serves: `/inspection`, `/metrics`.
 * @throws VbusError ENOENT (no socket there), ECONNREFUSED as ENOTCONN (nobody serves it), ETIMEDOUT, EIO (any other failure)
 */
export async function askInspector(socketPath: string, request: string): Promise<string> {
  return new Promise<string>((resolve, reject) => {
    const refuse = (error: NodeJS.ErrnoException): void => {
      reject(connectError(socketPath, error));
    };
    const asked = http.get({ socketPath, path: request, timeout: ANSWER_MS }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (piece: string) => {
        body += piece;
        if (body.length > ANSWER_MAX) asked.destroy(new Error("the answer does not end"));
      });
      response.on("error", refuse);
      response.on("end", () => {
        if (response.statusCode === 200) resolve(body);
        else
          reject(
            new VbusError(
              "EIO",
              `${socketPath} answered ${response.statusCode ?? "nothing"}: ${body.trim()}`,
            ),
          );
      });
    });
    asked.on("timeout", () => {
      asked.destroy(new VbusError("ETIMEDOUT", `${socketPath} does not answer; is its process stopped?`));
    });
    asked.on("error", refuse);
  });
}

function connectError(path: string, error: NodeJS.ErrnoException): VbusError {
  if (error instanceof VbusError) return error;
  switch (error.code) {
    case "ENOENT":
      return new VbusError(
        "ENOENT",
        `there is no "${path}"; start the host with a socket to be inspected at`,
        { cause: error },
      );
    case "ECONNREFUSED":
      return new VbusError("ENOTCONN", `nobody serves "${path}" any more; start the host again`, {
        cause: error,
      });
    default:
      return new VbusError("EIO", `"${path}": ${error.message}`, { cause: error });
  }
}

/**
 * Reads an inspection from a socket.
 * @throws VbusError as {@link askInspector}; EPROTO for an answer that is none, or one of another version
 */
export async function readInspection(socketPath: string, options: InspectOptions = {}): Promise<Inspection> {
  const body = await askInspector(socketPath, options.maps === false ? "/inspection?maps=0" : "/inspection");
  let answer: unknown;
  try {
    answer = JSON.parse(body);
  } catch (error) {
    throw new VbusError("EPROTO", `${socketPath} answered something that is no JSON`, { cause: error });
  }
  const { format, version } = (answer ?? {}) as Partial<Inspection>;
  if (format !== "vbus-inspection")
    throw new VbusError("EPROTO", `${socketPath} answered something that is no inspection of vbus`);
  if (version !== INSPECTION_VERSION)
    throw new VbusError(
      "EPROTO",
      `${socketPath} speaks version ${String(version)}, this command version ${INSPECTION_VERSION}; use the same release of vbus`,
    );
  return answer as Inspection;
}
