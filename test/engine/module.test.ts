import { Buffer } from "node:buffer";
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { Engine, engineModule, provideEngineModule, VbusError } from "vbus/engine";

const FILES = {
  unshared: new URL("../../dist/wasm/vbus.wasm", import.meta.url),
  shared: new URL("../../dist/wasm/vbus.shared.wasm", import.meta.url),
};
const compiled = async (file: URL): Promise<WebAssembly.Module> =>
  WebAssembly.compile(new Uint8Array(await readFile(file)));

function refusal(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe("the engine's compiled module", () => {
  it("is compiled once per thread, however many memories it is linked onto", async () => {
    const [first, second] = await Promise.all([engineModule("unshared"), engineModule("unshared")]);
    expect(second).toBe(first);
    Engine.linkSync(new WebAssembly.Memory({ initial: 1 }));
    expect(await engineModule("unshared")).toBe(first);
  });

  it("can be provided from the shipped files, and is used by every link from then on", async () => {
    for (const flavour of ["unshared", "shared"] as const) {
      const module = await compiled(FILES[flavour]);
      provideEngineModule(flavour, module);
      expect(await engineModule(flavour)).toBe(module);
      const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: flavour === "shared" });
      expect(Engine.linkSync(memory).flavour).toBe(flavour);
      expect((await Engine.link(memory)).flavour).toBe(flavour);
    }
  });

  it("is refused when it is something else, and the message names the right file", () => {
    const empty = new WebAssembly.Module(Uint8Array.from(Buffer.from("0061736d01000000", "hex")));
    const error = refusal(() => {
      provideEngineModule("shared", empty);
    });
    expect(error).toBeInstanceOf(VbusError);
    expect(error).toMatchObject({
      code: "EINVAL",
      message: expect.stringContaining("vbus.shared.wasm") as string,
    });
  });

  it("of the wrong flavour does not link, and says so", async () => {
    provideEngineModule("unshared", await compiled(FILES.shared));
    const error = refusal(() => Engine.linkSync(new WebAssembly.Memory({ initial: 1 })));
    expect(error).toMatchObject({ code: "EINVAL", message: expect.stringContaining("unshared") as string });
  });
});
