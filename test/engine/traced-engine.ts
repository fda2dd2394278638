/**
 * The engine, compiled with a `memory-order.ts` that writes down each access whose order matters, and what the ring
 * looked like by then. Everything else is the engine's own source, so that a test can hold it against the steps that
 * `test/model/` proves.
 */
import { execFile } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { provideEngineModule } from "vbus/engine";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const ASC = path.join(ROOT, "node_modules/assemblyscript/bin/asc.js");

/** The log lies in the first page, which no side uses: next entry, address of the segment, its length; entries. */
const CELL = 16;
const FIRST = 64;
const HEADER = 12;

const TRACED_MEMORY_ORDER = `
function note(kind: u32, address: usize, value: u32): void {
  const at = load<u32>(${CELL});
  if (at == 0) return;
  const length = load<u32>(${CELL + 8});
  store<u32>(at, kind);
  store<u32>(at + 4, <u32>address);
  store<u32>(at + 8, value);
  memory.copy(at + ${HEADER}, load<u32>(${CELL + 4}), length);
  store<u32>(${CELL}, at + ${HEADER} + length);
}
export function loadByte(address: usize): u32 {
  const value = <u32>atomic.load<u8>(address);
  note(0, address, value);
  return value;
}
export function storeByte(address: usize, value: u32): void {
  note(1, address, value);
  atomic.store<u8>(address, <u8>value);
}
export function loadHalf(address: usize): u32 {
  const value = <u32>atomic.load<u16>(address);
  note(0, address, value);
  return value;
}
export function storeHalf(address: usize, value: u32): void {
  note(1, address, value);
  atomic.store<u16>(address, <u16>value);
}
export function loadWord(address: usize): u32 {
  const value = atomic.load<u32>(address);
  note(0, address, value);
  return value;
}
export function storeWord(address: usize, value: u32): void {
  note(1, address, value);
  atomic.store<u32>(address, value);
}
export function addCounter(address: usize, amount: u64): void {
  store<u64>(address, load<u64>(address) + amount);
}
`;

const OPTIONS = [
  "--runtime stub --importMemory --noExportMemory --initialMemory 1 --maximumMemory 65536 --sharedMemory",
  "--noAssert --use abort= --enable threads --enable simd --enable bulk-memory --optimizeLevel 0",
].flatMap((line) => line.split(" "));

/** Compiles the traced engine, and has this process use it for shared memory. */
export async function useTracedEngine(): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "vbus-traced-"));
  try {
    fs.cpSync(path.join(ROOT, "assembly"), folder, { recursive: true });
    fs.writeFileSync(path.join(folder, "memory-order.ts"), TRACED_MEMORY_ORDER);
    const args = [ASC, "vbus.shared.ts", "--outFile", "traced.wasm", ...OPTIONS];
    await promisify(execFile)(process.execPath, args, { cwd: folder });
    const binary = fs.readFileSync(path.join(folder, "traced.wasm"));
    provideEngineModule("shared", new WebAssembly.Module(binary));
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

/** An access in the order in which the engine makes them. */
export interface Access {
  store: boolean;
  /** Offset in the segment. */
  offset: number;
  value: number;
  /** The segment before it. */
  before: Uint8Array;
}

/** Runs `work` and returns its accesses to the segment that lies at `address`. */
export function trace(
  memory: WebAssembly.Memory,
  address: number,
  length: number,
  work: () => unknown,
): Access[] {
  const data = new DataView(memory.buffer, 0, 65536);
  data.setUint32(CELL, FIRST, true);
  data.setUint32(CELL + 4, address, true);
  data.setUint32(CELL + 8, length, true);
  work();
  const end = data.getUint32(CELL, true);
  data.setUint32(CELL, 0, true);
  const accesses: Access[] = [];
  for (let at = FIRST; at < end; at += HEADER + length) {
    accesses.push({
      store: data.getUint32(at, true) === 1,
      offset: data.getUint32(at + 4, true) - address,
      value: data.getUint32(at + 8, true),
      before: new Uint8Array(memory.buffer, at + HEADER, length).slice(),
    });
  }
  return accesses;
}
