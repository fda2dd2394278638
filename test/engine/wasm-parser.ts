/**
 * A parser of WebAssembly binaries that is just large enough to prove what the engine's binaries do not contain. It
 * walks every instruction of every function, so that a byte of an immediate is never taken for an opcode, and throws
 * at anything that it does not know.
 */

/** Section numbers of the binary format. */
export const SECTION = {
  custom: 0,
  import: 2,
  memory: 5,
  start: 8,
  element: 9,
  code: 10,
  data: 11,
  dataCount: 12,
} as const;

/** An imported memory, or the kind of anything else that is imported. */
export interface WasmImport {
  module: string;
  name: string;
  kind: string;
  minimum?: number;
  maximum?: number | null;
  shared?: boolean;
}

/** What was found. */
export interface WasmModule {
  /** Payload bytes by section. */
  sections: Map<number, number>;
  imports: WasmImport[];
  /** Number of instructions. */
  instructions: number;
  /** How often instructions of interest occur. */
  opcodes: Map<string, number>;
}

class Reader {
  constructor(
    readonly bytes: Uint8Array,
    public at: number,
  ) {}

  byte(): number {
    const value = this.bytes[this.at++];
    if (value === undefined) throw new RangeError("the module ends early");
    return value;
  }

  /** An unsigned LEB128 number; for signed ones only the length matters. */
  leb(): number {
    let result = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.byte();
      result += (byte & 0x7f) * scale;
      if (byte < 0x80) return result;
    }
  }

  text(): string {
    const length = this.leb();
    this.at += length;
    return new TextDecoder().decode(this.bytes.subarray(this.at - length, this.at));
  }
}

function readImports(reader: Reader): WasmImport[] {
  return Array.from({ length: reader.leb() }, () => {
    const module = reader.text();
    const name = reader.text();
    const kind = ["function", "table", "memory", "global"][reader.byte()] ?? "unknown";
    if (kind !== "memory") return { module, name, kind };
    const flags = reader.byte();
    const minimum = reader.leb();
    return {
      module,
      name,
      kind,
      minimum,
      maximum: (flags & 1) !== 0 ? reader.leb() : null,
      shared: (flags & 2) !== 0,
    };
  });
}

/** Skips the immediates of one instruction and returns its name when it matters. */
function instruction(reader: Reader): string {
  const opcode = reader.byte();
  if (opcode === 0x40) {
    reader.leb();
    return "memory.grow";
  }
  if (opcode === 0xfe) return atomic(reader);
  if (opcode === 0xfd) return vector(reader);
  if (opcode === 0xfc) return bulk(reader);
  if (opcode >= 0x28 && opcode <= 0x3e) {
    reader.leb(); // alignment and offset
    reader.leb();
    return "access";
  }
  switch (opcode) {
    case 0x02: // block, loop, if: a block type
    case 0x03:
    case 0x04:
    case 0x0c: // br, br_if
    case 0x0d:
    case 0x10: // call
    case 0x20: // local and global access
    case 0x21:
    case 0x22:
    case 0x23:
    case 0x24:
    case 0x3f: // memory.size
    case 0x41: // i32.const, i64.const
    case 0x42:
      reader.leb();
      return opcode === 0x10 ? "call" : "plain";
    case 0x0e: // br_table
      for (let n = reader.leb() + 1; n > 0; n--) reader.leb();
      return "plain";
    case 0x11:
      reader.leb();
      reader.leb();
      return "call_indirect";
    case 0x43:
      reader.at += 4;
      return "plain";
    case 0x44:
      reader.at += 8;
      return "plain";
    default:
      // control without immediates, parametric and numeric instructions
      if (opcode <= 0x01 || opcode === 0x05 || opcode === 0x0b || opcode === 0x0f) return "plain";
      if (opcode === 0x1a || opcode === 0x1b || (opcode >= 0x45 && opcode <= 0xc4)) return "plain";
      throw new Error(`unknown opcode 0x${opcode.toString(16)} at ${reader.at - 1}`);
  }
}

function atomic(reader: Reader): string {
  const sub = reader.leb();
  if (sub === 0x03) {
    reader.byte();
    return "atomic.fence";
  }
  reader.leb();
  reader.leb();
  const names: Record<number, string> = {
    0x01: "atomic.wait",
    0x02: "atomic.wait",
    0x10: "atomic.load32",
    0x12: "atomic.load8",
    0x17: "atomic.store32",
    0x19: "atomic.store8",
  };
  return names[sub] ?? "atomic";
}

function vector(reader: Reader): string {
  const sub = reader.leb();
  if (sub <= 11 || sub === 92 || sub === 93) {
    reader.leb();
    reader.leb();
  } else if (sub === 12 || sub === 13) {
    reader.at += 16; // v128.const, shuffle
  } else if (sub >= 21 && sub <= 34) {
    reader.byte(); // lane
  } else if (sub >= 84 && sub <= 91) {
    reader.leb();
    reader.leb();
    reader.byte();
  }
  return "vector";
}

function bulk(reader: Reader): string {
  const sub = reader.leb();
  if (sub <= 7) return "plain"; // saturating conversions
  if (sub === 10)
    reader.at += 2; // memory.copy
  else if (sub === 11)
    reader.at += 1; // memory.fill
  else throw new Error(`unknown opcode 0xfc ${sub}`);
  return "bulk";
}

function readCode(reader: Reader, module: WasmModule): void {
  for (let functions = reader.leb(); functions > 0; functions--) {
    const size = reader.leb();
    const end = reader.at + size;
    for (let groups = reader.leb(); groups > 0; groups--) {
      reader.leb();
      reader.byte();
    }
    while (reader.at < end) {
      const name = instruction(reader);
      module.instructions++;
      module.opcodes.set(name, (module.opcodes.get(name) ?? 0) + 1);
      if (name.startsWith("atomic.")) module.opcodes.set("atomic", (module.opcodes.get("atomic") ?? 0) + 1);
    }
    if (reader.at !== end) throw new Error(`a function body ends at ${reader.at} instead of ${end}`);
  }
}

/** Parses a module. */
export function parseModule(bytes: Uint8Array): WasmModule {
  const header = [...bytes.subarray(0, 8)].join();
  if (header !== "0,97,115,109,1,0,0,0") throw new Error("no WebAssembly module of version 1");
  const module: WasmModule = { sections: new Map(), imports: [], instructions: 0, opcodes: new Map() };
  const reader = new Reader(bytes, 8);
  while (reader.at < bytes.length) {
    const id = reader.byte();
    const size = reader.leb();
    const end = reader.at + size;
    module.sections.set(id, (module.sections.get(id) ?? 0) + size);
    if (id === SECTION.import) module.imports = readImports(reader);
    if (id === SECTION.code) readCode(reader, module);
    reader.at = end;
  }
  return module;
}
