/** Inspections for other processes: the socket, and the command that reads it. */
import { execFile } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { VbusError } from "vbus";
import { inspect, type Inspection } from "vbus/inspect";
import {
  askInspector,
  inspectHandler,
  readInspection,
  serveInspections,
  type InspectServer,
} from "vbus/inspect/node-socket";
import { afterAll, beforeAll, beforeEach, afterEach, describe, expect, it, vi } from "vitest";
import { parseExposition } from "./exposition-parser.js";
import { InspectedHost } from "./host.js";

const COMMAND = path.join(import.meta.dirname, "../../dist/bindings/cli/vbus.js");

let folder: string;
let socket: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "vbus-inspect-"));
  socket = path.join(folder, "vbus.sock");
});
afterEach(() => {
  fs.rmSync(folder, { recursive: true, force: true });
});

interface Ran {
  code: number;
  out: string;
  err: string;
}

/** Runs the command as its user does. */
function run(args: string[], cwd = folder, env: Record<string, string> = {}): Promise<Ran> {
  return new Promise((resolve) => {
    const options = { cwd, env: { ...process.env, ...env } };
    const child = execFile(process.execPath, [COMMAND, ...args], options, (_error, out, err) => {
      resolve({ code: child.exitCode ?? -1, out, err });
    });
  });
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof VbusError) return error.code;
    throw error;
  }
  return "none";
}

describe("a host that serves inspections", () => {
  let host: InspectedHost;
  let server: InspectServer;
  let looks = 0;
  beforeAll(async () => {
    host = await InspectedHost.open();
    await host.work();
  });
  afterAll(() => host.close());
  beforeEach(async () => {
    server = await serveInspections(socket, (options) => {
      looks++;
      return host.look(options);
    });
  });
  afterEach(async () => {
    await server.close();
    await server.close();
    expect(fs.existsSync(socket)).toBe(false);
  });

  it("gives everything to who asks, with and without maps", async () => {
    const read = await readInspection(socket);
    expect({ ...read, time: 0 }).toEqual({ ...host.look(), time: 0, switches: read.switches });
    const slim = await readInspection(socket, { maps: false });
    const maps = (inspection: Inspection): (string | null)[] =>
      inspection.vbus!.buses[0]!.clients[0]!.sessions.flatMap(({ queues }) => queues.map(({ map }) => map));
    expect(maps(read).every((map) => map !== null)).toBe(true);
    expect(maps(slim).every((map) => map === null)).toBe(true);
  });

  it("gives Prometheus what it reads", async () => {
    expect(
      parseExposition(await askInspector(socket, "/metrics")).get("vbus_device_info")!.samples,
    ).toHaveLength(6);
  });

  it("is for its user alone", () => {
    expect(fs.statSync(socket).mode & 0o777).toBe(0o600);
  });

  it("says what there is, refuses what there is not, and takes nothing", async () => {
    expect(await askInspector(socket, "/")).toContain("/inspection");
    expect(await codeOf(askInspector(socket, "/nothing"))).toBe("EIO");
    const status = await new Promise<number>((resolve) => {
      http
        .request({ socketPath: socket, method: "POST", path: "/inspection" }, (answer) => {
          answer.resume();
          resolve(answer.statusCode!);
        })
        .end("x");
    });
    expect(status).toBe(405);
  });

  it("keeps its path: a second host is told so", async () => {
    expect(await codeOf(serveInspections(socket, () => inspect({})))).toBe("EBUSY");
    expect(await readInspection(socket)).toMatchObject({ format: "vbus-inspection" });
  });

  it("survives who talks nonsense, or leaves in the middle", async () => {
    for (const nonsense of ["\0\u0001garbage\r\n\r\n", "GET /inspection HTTP/1.1\r\nhost: x\r\n\r\n", "G"])
      await new Promise<void>((resolve) => {
        const client = net.connect(socket, () => {
          client.write(nonsense);
          setImmediate(() => client.destroy());
        });
        client.on("close", () => {
          resolve();
        });
        client.on("error", () => {});
      });
    expect(await readInspection(socket)).toMatchObject({ format: "vbus-inspection" });
  });

  describe("is shown by `vbus inspect`", () => {
    it("as a tree, with pictures on request", async () => {
      const { code, out, err } = await run(["inspect", socket]);
      expect({ code, err }).toEqual({ code: 0, err: "" });
      expect(out).toMatch(/^vbus\n├── devices/);
      expect(out).toContain("nic0/default");
      const pictures = await run(["inspect", "--rings", socket]);
      expect(pictures.out).toMatch(/guest-a nic0 tx {2}ioq/);
    });

    it("as JSON, and as text for Prometheus", async () => {
      const { out } = await run(["inspect", socket, "--json"]);
      expect(JSON.parse(out)).toMatchObject({
        format: "vbus-inspection",
        vbus: { buses: [{ name: "bus0" }] },
      });
      const metrics = await run(["inspect", socket, "--prometheus"]);
      expect(parseExposition(metrics.out).has("vbus_queue_descriptors")).toBe(true);
    });

    it("at the socket of this folder, or of the environment, when none is named", async () => {
      expect((await run(["inspect"])).out).toContain("nic0/default");
      const env = { VBUS_INSPECT: socket };
      expect((await run(["inspect"], os.tmpdir(), env)).out).toContain("nic0/default");
    });

    it("again and again, until the host ends", async () => {
      const watching = run(["inspect", "--watch", "--every", "0.05", socket]);
      const before = looks;
      while (looks < before + 4) await new Promise((resolve) => setTimeout(resolve, 5));
      await server.close();
      const { code, out, err } = await watching;
      expect(code).toBe(1);
      expect(err).toContain("vbus inspect: ");
      expect(out.split(/^vbus$/m).length).toBeGreaterThan(2);
    });
  });
});

describe("`vbus inspect`", () => {
  it("says what is wrong with the command line", async () => {
    for (const [args, what] of [
      [["inspect", "--json", "--prometheus"], "not both"],
      [["inspect", "a", "b"], "one socket"],
      [["inspect", "--every", "0"], "--every 0"],
      [["inspect", "--nonsense"], "--nonsense"],
      [["nonsense"], 'no command "nonsense"'],
      [[], "vbus inspect"],
    ] as const) {
      const { code, err } = await run([...args]);
      expect(code, what).toBe(2);
      expect(err).toContain(what);
    }
    expect(await run(["inspect", "--help"])).toMatchObject({ code: 0, err: "" });
    expect(await run(["--help"])).toMatchObject({ code: 0, err: "" });
  });

  it("says that nobody is there", async () => {
    const { code, err } = await run(["inspect", socket]);
    expect(code).toBe(1);
    expect(err).toContain(`there is no "${socket}"`);
  });
});

describe("a path", () => {
  const served = (at: string): Promise<InspectServer> => serveInspections(at, () => inspect({}));

  it("that is too long for a socket is refused, and nothing is made", async () => {
    const longest = process.platform === "linux" ? 107 : 103;
    const of = (length: number): string => path.join(folder, "x".repeat(length - folder.length - 1));
    for (const length of [longest + 1, 4000]) {
      const refused = served(of(length));
      await expect(refused).rejects.toThrow(`has ${length} bytes, and a socket's path at most ${longest}`);
      expect(await codeOf(refused)).toBe("EINVAL");
      expect(fs.readdirSync(folder)).toEqual([]);
    }
    const server = await served(of(longest));
    expect(fs.statSync(of(longest)).mode & 0o777).toBe(0o600);
    await server.close();
  });

  it("in a folder that is missing, or is none, is refused with its name", async () => {
    fs.writeFileSync(path.join(folder, "file"), "");
    for (const name of ["missing", "file"]) {
      const refused = served(path.join(folder, name, "vbus.sock"));
      await expect(refused).rejects.toThrow(`there is no folder "${path.join(folder, name)}"; make it`);
      expect(await codeOf(refused)).toBe("ENOENT");
    }
    expect(await codeOf(served(path.join(folder, "file", "inside", "vbus.sock")))).toBe("EIO");
  });

  it("that cannot be kept from others is given up", async () => {
    const refusing = vi.spyOn(fs, "chmodSync").mockImplementation(() => {
      throw new Error("this file system has no modes");
    });
    try {
      await expect(served(socket)).rejects.toThrow(
        `EIO: cannot be inspected at "${socket}": this file system`,
      );
    } finally {
      refusing.mockRestore();
    }
    expect(await codeOf(askInspector(socket, "/"))).toBe("ENOENT");
    const server = await served(socket);
    await server.close();
  });

  it("where a dead process left its socket is taken over", async () => {
    // a socket that is bound and served by nobody: its process was killed
    const script = `require("net").createServer().listen(${JSON.stringify(socket)}, () => process.kill(process.pid, "SIGKILL"))`;
    await new Promise<void>((resolve) => {
      execFile(process.execPath, ["-e", script], () => {
        resolve();
      });
    });
    expect(fs.existsSync(socket)).toBe(true);
    expect(await codeOf(readInspection(socket))).toBe("ENOTCONN");
    const server = await serveInspections(socket, () => inspect({}));
    expect(await readInspection(socket)).toMatchObject({ vbus: null });
    await server.close();
  });

  it("where something else lies is left alone", async () => {
    fs.writeFileSync(socket, "precious");
    expect(await codeOf(serveInspections(socket, () => inspect({})))).toBe("EEXIST");
    expect(fs.readFileSync(socket, "utf8")).toBe("precious");
  });
});

describe("an answer", () => {
  let answer: { status?: number; body: string };
  let server: http.Server;
  beforeEach(async () => {
    server = http.createServer((_request, response) => {
      response.writeHead(answer.status ?? 200).end(answer.body);
    });
    await new Promise<void>((resolve) => server.listen(socket, resolve));
  });
  afterEach(() => {
    server.close();
  });

  it.each([
    ["that is no JSON", { body: "<html>" }, "EPROTO"],
    ["that is something else", { body: '{"format":"other"}' }, "EPROTO"],
    ["that is null", { body: "null" }, "EPROTO"],
    ["of another version", { body: '{"format":"vbus-inspection","version":2}' }, "EPROTO"],
    ["that says no", { status: 500, body: "the inspection failed" }, "EIO"],
  ])("%s is refused with a reason", async (_what, given, code) => {
    answer = given;
    expect(await codeOf(readInspection(socket))).toBe(code);
  });
});

it("an inspection that fails is an answer, and the next one is asked for anew", async () => {
  let fails = true;
  const server = http.createServer(
    inspectHandler(() => {
      if (fails) throw new Error("not now");
      return inspect({});
    }),
  );
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  await expect(readInspection(socket)).rejects.toThrow("not now");
  fails = false;
  expect(await readInspection(socket)).toMatchObject({ vbus: null });
  server.close();
});

it("a host that serves inspections ends when its work does", async () => {
  const script = `
    import { inspect } from ${JSON.stringify(path.join(import.meta.dirname, "../../dist/bindings/inspect/index.js"))};
    import { serveInspections } from ${JSON.stringify(path.join(import.meta.dirname, "../../dist/bindings/inspect/node-socket.js"))};
    await serveInspections(${JSON.stringify(socket)}, () => inspect({}));
    console.log("served");
  `;
  const ran = await new Promise<{ out: string; error: Error | null }>((resolve) => {
    execFile(process.execPath, ["--input-type=module", "-e", script], (error, out) => {
      resolve({ out, error });
    });
  });
  expect(ran).toEqual({ out: "served\n", error: null });
});
