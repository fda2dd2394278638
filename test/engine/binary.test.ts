import fs from "node:fs";
import { engineBytes } from "vbus/engine";
import { describe, expect, it } from "vitest";
import { parseModule, SECTION } from "./wasm-parser.js";

const FILES = { unshared: "vbus.wasm", shared: "vbus.shared.wasm" } as const;

/** What an emulator that links the engine onto its own memory pays; far above what it is, far below a runtime. */
const SIZE_LIMIT = 48 * 1024;

for (const flavour of ["unshared", "shared"] as const) {
  const file = fs.readFileSync(new URL(`../../dist/wasm/${FILES[flavour]}`, import.meta.url));
  const module = parseModule(file);

  describe(`the ${flavour} binary, ${file.length} bytes`, () => {
    it("imports its memory and nothing else, with limits that any 32-bit memory satisfies", () => {
      expect(module.imports).toEqual([
        {
          module: "env",
          name: "memory",
          kind: "memory",
          minimum: 1,
          maximum: flavour === "shared" ? 65536 : null,
          shared: flavour === "shared",
        },
      ]);
      const compiled = new WebAssembly.Module(file);
      expect(WebAssembly.Module.imports(compiled)).toEqual([
        { module: "env", name: "memory", kind: "memory" },
      ]);
    });

    it("writes nothing when it is instantiated: no data, no start function, no elements", () => {
      for (const section of [
        SECTION.data,
        SECTION.dataCount,
        SECTION.start,
        SECTION.element,
        SECTION.memory,
      ]) {
        expect(module.sections.get(section) ?? 0).toBe(0);
      }
      const memory = new WebAssembly.Memory({
        initial: 2,
        maximum: 2,
        ...(flavour === "shared" ? { shared: true } : {}),
      });
      const bytes = new Uint8Array(memory.buffer).fill(0xa5);
      new WebAssembly.Instance(new WebAssembly.Module(file), { env: { memory } });
      expect(bytes.every((byte) => byte === 0xa5)).toBe(true);
    });

    it("never grows the memory, never waits, and calls nothing but itself", () => {
      expect(module.instructions).toBeGreaterThan(1000);
      expect(module.opcodes.get("memory.grow") ?? 0).toBe(0);
      expect(module.opcodes.get("call_indirect") ?? 0).toBe(0);
      expect(module.opcodes.get("atomic.wait") ?? 0).toBe(0);
      expect(module.opcodes.get("atomic.fence") ?? 0).toBe(0);
    });

    it(flavour === "shared" ? "uses atomics for what is shared" : "has no atomic instruction", () => {
      const atomics = module.opcodes.get("atomic") ?? 0;
      if (flavour === "unshared") {
        expect(atomics).toBe(0);
        return;
      }
      // a plain store that lost its full ordering shows in no single-threaded test, and seldom in a race
      expect(module.opcodes.get("atomic.store8") ?? 0).toBeGreaterThan(5);
      expect(module.opcodes.get("atomic.load8") ?? 0).toBeGreaterThan(5);
      expect(module.opcodes.get("atomic.store32") ?? 0).toBeGreaterThan(2);
      expect(module.opcodes.get("atomic.load32") ?? 0).toBeGreaterThan(2);
      expect(atomics).toBeGreaterThan(20);
    });

    it("exports functions only", () => {
      const exported = WebAssembly.Module.exports(new WebAssembly.Module(file));
      expect(exported.filter(({ kind, name }) => kind !== "function" && !name.startsWith("__"))).toEqual([]);
      expect(exported.map(({ name }) => name)).toEqual(
        expect.arrayContaining(["ringCreate", "ringAttach", "pushReserve", "popRelease", "checksumRange"]),
      );
    });

    it("is the same as what is embedded in the package, and small", () => {
      expect(Buffer.compare(file, engineBytes(flavour))).toBe(0);
      expect(file.length).toBeLessThan(SIZE_LIMIT);
    });
  });
}
