import fs from "node:fs";
import os from "node:os";
import process from "node:process";

/** Facts about the machine and the programs that the figures belong to. */
export interface MachineFacts {
  cpu: string;
  cores: number;
  /** Bytes of the caches that Linux names, by level. */
  caches: string;
  memory: string;
  system: string;
  node: string;
  v8: string;
  /** Load average when the run began: figures of a busy machine are worth less. */
  load: string;
}

function caches(): string {
  const folder = "/sys/devices/system/cpu/cpu0/cache";
  if (!fs.existsSync(folder)) return "unknown";
  const read = (name: string, file: string): string =>
    fs.readFileSync(`${folder}/${name}/${file}`, "utf8").trim();
  return fs
    .readdirSync(folder)
    .filter((name) => name.startsWith("index"))
    .filter((name) => read(name, "type") !== "Instruction")
    .map((name) => `L${read(name, "level")} ${read(name, "size")}`)
    .join(", ");
}

/** Collects the facts. */
export function machineFacts(): MachineFacts {
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model.trim() ?? "unknown",
    cores: cpus.length,
    caches: caches(),
    memory: `${Math.round(os.totalmem() / 2 ** 30)} GiB`,
    system: `${os.type()} ${os.release()} ${process.arch}`,
    node: process.versions.node,
    v8: process.versions.v8,
    load: os
      .loadavg()
      .map((n) => n.toFixed(2))
      .join(" "),
  };
}

/** What to tell people before anything is measured on a machine that has more to do than processors; else null. */
export function busyWarning([load = 0] = os.loadavg(), cores = os.cpus().length): string | null {
  if (load <= cores) return null;
  return (
    `this machine is busy (load average ${load.toFixed(1)}, ${cores} processors): it takes longer, many samples are dropped, ` +
    "and figures that remain are worth little; end what else runs"
  );
}
