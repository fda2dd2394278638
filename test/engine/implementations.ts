/** Everything that the conformance table runs against. */
import { EXT_COMPACT } from "vbus/abi";
import { allocateGuestMemory, MemorySpace } from "vbus/memory";
import { MODEL_ENDS, ModelSide } from "./model-side.js";
import { ReferenceRing, segmentLength } from "./reference/ring.js";
import { RemoteThread } from "./remote-side.js";
import type { Implementation, Layout, Pattern, Rig, RingSide } from "./ring-side.js";
import { SingleSide, WasmSide } from "./wasm-side.js";

const GPA = 0x20008;
const RAM = 1 << 20;

/** Extension bits that a layout needs. */
function offered(layout: Layout): number {
  return layout === "compact" ? EXT_COMPACT : 0;
}

function modelNorth(view: DataView, pattern: Pattern, layout: Layout, count: number): RingSide {
  return new ModelSide(ReferenceRing.create(view, 0, count, layout, MODEL_ENDS[pattern][0]));
}

function modelSouth(view: DataView, pattern: Pattern): RingSide {
  const ring = ReferenceRing.attach(view, 0, view.byteLength, 2048, MODEL_ENDS[pattern][1]);
  if (typeof ring === "number") throw new Error(`the reference model refuses the segment: ${ring}`);
  return new ModelSide(ring);
}

/** The reference model on both sides. */
export function modelOnly(): Implementation {
  return {
    name: "reference model",
    largest: 2048,
    open(pattern, layout, count) {
      const segment = new DataView(new ArrayBuffer(segmentLength(count, layout)));
      const north = modelNorth(segment, pattern, layout, count);
      return { count, layout, north, south: modelSouth(segment, pattern), segment };
    },
    close: async () => {},
  };
}

/** Who is the engine; the other side is the reference model, in the same memory. */
export type EngineSides = "both" | "north" | "south";

/** The engine on one side or both, in one thread, on unshared or shared memory, by bursts or by single descriptors. */
export function engine(
  shared: boolean,
  sides: EngineSides,
  how: "bursts" | "singles" = "bursts",
): Implementation {
  const Side = how === "bursts" ? WasmSide : SingleSide;
  const init = allocateGuestMemory({ size: RAM, shared });
  const { memory, layout: places } = init;
  const northSpace = MemorySpace.attachSync(memory, places.guestArena, places.regions);
  const southSpace = MemorySpace.attachSync(memory, places.hostArena, places.regions);
  const flavour = shared ? "shared wasm" : "unshared wasm";
  const names: Record<EngineSides, string> = {
    both: flavour,
    north: `${flavour} north, model south`,
    south: `model north, ${flavour} south`,
  };
  let last: Rig | undefined;
  return {
    name: how === "bursts" ? names[sides] : `${names[sides]}, one descriptor at a time`,
    largest: 2048,
    open(pattern, layout, count) {
      last?.north.close();
      last?.south.close();
      const length = segmentLength(count, layout);
      const segment = new DataView(memory.buffer, northSpace.translate(GPA, length), length);
      const north =
        sides === "south"
          ? modelNorth(segment, pattern, layout, count)
          : Side.create(northSpace, pattern, GPA, count, layout === "ilp32", offered(layout));
      const south =
        sides === "north"
          ? modelSouth(segment, pattern)
          : Side.attach(southSpace, pattern, GPA, length, offered(layout));
      if (north instanceof WasmSide) north.queue.negotiated();
      last = { count, layout, north, south, segment };
      return last;
    },
    close: async () => {},
  };
}

/** The shared engine, north in this thread and south in another. */
export function twoThreads(): Implementation {
  const init = allocateGuestMemory({ size: RAM, shared: true });
  const space = MemorySpace.attachSync(init.memory, init.layout.guestArena, init.layout.regions);
  const thread = new RemoteThread(init);
  let last: Rig | undefined;
  return {
    name: "shared wasm across two threads",
    largest: 256,
    open(pattern, layout, count) {
      last?.north.close();
      last?.south.close();
      const length = segmentLength(count, layout);
      const north = WasmSide.create(space, pattern, GPA, count, layout === "ilp32", offered(layout));
      const south = thread.attach(pattern, GPA, length, offered(layout));
      north.queue.negotiated();
      const segment = new DataView(init.memory.buffer, space.translate(GPA, length), length);
      last = { count, layout, north, south, segment };
      return last;
    },
    close: () => thread.close(),
  };
}
