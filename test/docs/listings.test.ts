/** The listings of the documentation, as a reader copies them: with the imports that they show, they are programs. */
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { beforeAll, describe, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

const SCHEDULER = `declare const scheduler: import("vbus").EventLoopScheduler;`;
const MACHINE = `declare const emulator: import("v86").V86; ${SCHEDULER}`;
const NET = `declare const net: import("vbus").Switch;`;
const SPACE = `declare const space: import("vbus").MemorySpace;`;
const SOURCES = `declare const sources: import("vbus/inspect").InspectSources;`;

/** What a listing has of those before it, and of the reader's own program, in the order of the listings. */
const PAGES: Readonly<Record<string, readonly string[]>> = {
  "embedding.md": [
    "declare const program: Uint8Array;",
    `declare const machine: import("./machine.js").ToyMachine, other: import("./machine.js").ToyMachine;`,
  ],
  "v86.md": ["", MACHINE, MACHINE, `${MACHINE} ${NET}`],
  "virtio.md": [
    "",
    MACHINE,
    MACHINE,
    "",
    "",
    `${SCHEDULER}
     declare const face: import("vbus/virtio").VirtioFace, memory: import("vbus").MemorySpace;
     declare const apic: { write(address: number, data: number): boolean };
     declare const pic: { set(irq: number, asserted: boolean): void };
     declare const offset: number, width: 1 | 2 | 4, bar: number; declare let value: number;`,
    `declare const vbus: import("vbus").Vbus, bus: import("vbus").Bus; ${NET}`,
    `declare const proxyBus: import("vbus").ProxyBus, nics: import("vbus/drivers/virtio-net").VirtioNic[];`,
  ],
  "inspect.md": [
    `declare const vbus: import("vbus").Vbus, uplink: import("vbus/net").Port; ${NET}
     declare const attachment: import("vbus/emulators").VbusPciAttachment;
     declare const card: import("vbus/emulators").VirtioPciAttachment;`,
    SOURCES,
    SOURCES,
  ],
  "threads.md": [
    "declare const url: URL;",
    `declare const emulator: import("v86").V86, attributes: Record<string, string>;`,
    `declare const worker: Worker; ${NET} ${SCHEDULER} ${SPACE}`,
    `${NET} ${SCHEDULER} ${SPACE}`,
  ],
};

interface Listing {
  readonly name: string;
  readonly file: string;
  readonly text: string;
}

/** Listings as files where what they import resolves as in a program of a user's. */
function listingsOf(page: string, given: readonly string[]): Listing[] {
  const text = fs.readFileSync(path.join(ROOT, "docs", page), "utf8");
  const found = [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1] as string);
  expect(found.length, `listings of ${page}, and what they are given`).toBe(given.length);
  return found.map((listing, i) => ({
    name: `docs/${page}, listing ${i + 1}`,
    file: path.join(ROOT, "examples/toy-emulator", `${path.parse(page).name}-${i + 1}.listing.ts`),
    text: `${listing}\n${given[i] ?? ""}\nexport {};\n`,
  }));
}

describe("listings of the documentation", () => {
  let errors: Map<string, string[]>;
  const listings = Object.entries(PAGES).flatMap(([page, given]) => listingsOf(page, given));

  beforeAll(() => {
    const options: ts.CompilerOptions = {
      target: ts.ScriptTarget.ES2022,
      lib: ["lib.es2024.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts"],
      types: ["node"],
      module: ts.ModuleKind.NodeNext,
      moduleResolution: ts.ModuleResolutionKind.NodeNext,
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: true,
      noEmit: true,
    };
    const host = ts.createCompilerHost(options);
    const texts = new Map(listings.map(({ file, text }) => [file, text]));
    const { fileExists, readFile, getSourceFile } = host;
    host.getCurrentDirectory = () => ROOT;
    host.fileExists = (file) => texts.has(file) || fileExists(file);
    host.readFile = (file) => texts.get(file) ?? readFile(file);
    host.getSourceFile = (file, version, ...rest) => {
      const text = texts.get(file);
      return text === undefined
        ? getSourceFile(file, version, ...rest)
        : ts.createSourceFile(file, text, version);
    };
    const program = ts.createProgram([...texts.keys()], options, host);
    errors = new Map();
    for (const { file } of listings) {
      const source = program.getSourceFile(file);
      errors.set(
        file,
        [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)].map(
          ({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"),
        ),
      );
    }
  }, 120_000);

  it.each(listings.map(({ name, file }) => [name, file] as const))("%s", (_name, file) => {
    expect(errors.get(file)).toEqual([]);
  });
});
