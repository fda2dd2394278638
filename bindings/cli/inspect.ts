import fs from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { VbusError } from "../errors.js";
import { inspectionText, type Inspection } from "../inspect/index.js";
import { askInspector, readInspection } from "../inspect/node-socket.js";

const HELP = `vbus inspect [SOCKET] looks at a running host: its bus, devices, queues, switches and ports.

SOCKET is where the host serves inspections (serveInspections of vbus/inspect/node-socket, or --inspect of the examples);
default: what VBUS_INSPECT says, or else vbus.sock in this folder.

  --rings          with a picture of each ring
  --json           everything, as JSON
  --prometheus     counters and states as text for Prometheus
  --watch          again and again, with rates; ends with Ctrl+C
  --every SECONDS  how often; default 1
  --help
`;

interface InspectCommand {
  socket: string;
  form: "text" | "json" | "prometheus";
  rings: boolean;
  watch: boolean;
  everyMs: number;
}

/** @throws TypeError for a wrong command line */
function parse(args: string[]): InspectCommand | null {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      rings: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      prometheus: { type: "boolean", default: false },
      watch: { type: "boolean", default: false },
      every: { type: "string", default: "1" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return null;
  if (positionals.length > 1)
    throw new TypeError(`one socket, not ${positionals.length}: ${positionals.join(" ")}`);
  if (values.json && values.prometheus) throw new TypeError("--json or --prometheus, not both");
  const everyMs = Number(values.every) * 1000;
  if (!(everyMs >= 50 && everyMs <= 3_600_000))
    throw new TypeError(`--every ${values.every}: give 0.05 to 3600 seconds`);
  return {
    socket: positionals[0] ?? process.env["VBUS_INSPECT"] ?? "vbus.sock",
    form: values.json ? "json" : values.prometheus ? "prometheus" : "text",
    rings: values.rings,
    watch: values.watch,
    everyMs,
  };
}

/** One look, as it is to be printed; with the inspection for the next one's rates. */
async function look(
  command: InspectCommand,
  before: Inspection | undefined,
): Promise<{ text: string; inspection?: Inspection }> {
  const { socket, form, rings } = command;
  switch (form) {
    case "prometheus":
      return { text: await askInspector(socket, "/metrics") };
    case "json":
      return { text: `${JSON.stringify(await readInspection(socket), null, 2)}\n` };
    case "text": {
      const inspection = await readInspection(socket, { maps: rings });
      const text = inspectionText(inspection, { rings, ...(before === undefined ? {} : { before }) });
      return { text: `${text}\n`, inspection };
    }
  }
}

/** A connection is refused by a file, too, as by a socket that nobody serves. @throws VbusError ENOTCONN */
function checkSocket(path: string): void {
  if (process.platform === "win32") return; // pipes are no files
  const found = fs.statSync(path, { throwIfNoEntry: false });
  if (found !== undefined && !found.isSocket())
    throw new VbusError(
      "ENOTCONN",
      `"${path}" is no socket; give the one that the host serves inspections at`,
    );
}

async function run(command: InspectCommand): Promise<void> {
  checkSocket(command.socket);
  let before: Inspection | undefined;
  for (;;) {
    const { text, inspection } = await look(command, before);
    const clear = command.watch && command.form === "text" && process.stdout.isTTY;
    process.stdout.write(clear ? `\u001b[H\u001b[2J${text}` : text);
    if (!command.watch) return;
    before = inspection;
    await new Promise((resolve) => setTimeout(resolve, command.everyMs));
  }
}

/**
 * `vbus inspect`. Resolves with its exit code: 1 when the host could not be looked at, 2 for a wrong command line. With
 * `--watch` it ends only when the host does.
 */
export async function inspectMain(args: string[]): Promise<number> {
  let command: InspectCommand | null;
  try {
    command = parse(args);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    process.stderr.write(`${error.message}\n\n${HELP}`);
    return 2;
  }
  if (command === null) {
    process.stdout.write(HELP);
    return 0;
  }
  try {
    await run(command);
    return 0;
  } catch (error) {
    if (!(error instanceof VbusError)) throw error;
    process.stderr.write(`vbus inspect: ${error.message}\n`);
    return 1;
  }
}
