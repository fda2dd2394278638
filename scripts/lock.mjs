// One process at a time: a lock file that holds the process id of its owner.
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { step } from "./step.mjs";

const RETRY_MS = 100;

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    if (error.code === "ESRCH") return false;
    if (error.code === "EPERM") return true;
    throw error;
  }
}

function readHolder(lock) {
  try {
    return Number(fs.readFileSync(lock, "utf8"));
  } catch (error) {
    if (error.code === "ENOENT") return 0;
    throw error;
  }
}

/**
 * Runs `work` while no other process that asks for the same lock file does; waits for those, and takes the place of
 * one that died. What the work writes must still appear at once (a rename): a lock keeps work from being done twice,
 * not a reader from looking.
 */
export async function withLock(lock, label, work) {
  fs.mkdirSync(path.dirname(lock), { recursive: true });
  await step(`waiting for ${label} (${lock})`, async () => {
    for (;;) {
      try {
        fs.writeFileSync(lock, String(process.pid), { flag: "wx" });
        return;
      } catch (error) {
        if (error.code !== "EEXIST") throw error;
      }
      const holder = readHolder(lock);
      if (holder > 0 && !isAlive(holder)) fs.rmSync(lock, { force: true });
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  });
  try {
    return await work();
  } finally {
    fs.rmSync(lock, { force: true });
  }
}
