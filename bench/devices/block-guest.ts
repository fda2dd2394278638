/** A guest of the block figures: requests through vblk, or from the same thread to the file itself. Runs as a worker. */
import { open, type FileHandle } from "node:fs/promises";
import { VblkDriver, type VblkDisk } from "vbus/drivers/vblk";
import type { GuestMemoryInit } from "vbus/memory";
import { serveCommands } from "../harness/thread.js";
import { runLoad, type BlockLoad, type BlockSample, type BlockTarget } from "./block-load.js";
import { joinBus, takeDevice } from "./join.js";

/** What `run` takes. */
export interface BlockRunOrder {
  load: BlockLoad;
  ms: number;
  seed: number;
}

function diskTarget(disk: VblkDisk): BlockTarget {
  return {
    read: (offset, target) => disk.readInto(offset / disk.sectorSize, target),
    write: (offset, data) => disk.write(offset / disk.sectorSize, data),
  };
}

function fileTarget(file: FileHandle): BlockTarget {
  const whole = (done: number, length: number): void => {
    if (done !== length) throw new Error(`${done} of ${length} bytes: the file is shorter than it was made`);
  };
  return {
    read: async (offset, target) => {
      whole((await file.read(target, 0, target.length, offset)).bytesRead, target.length);
    },
    write: async (offset, data) => {
      whole((await file.write(data, 0, data.length, offset)).bytesWritten, data.length);
    },
  };
}

let target: BlockTarget | undefined;
let size = 0;
let release: () => Promise<void> = () => Promise.resolve();

serveCommands({
  /** Takes the disk of a bus. */
  async joinDisk({ init }: { init: GuestMemoryInit }) {
    const bus = await joinBus(init);
    const taken = await takeDevice(bus, new VblkDriver());
    release = () => taken.giveBack();
    const disk = taken.device;
    target = diskTarget(disk);
    size = disk.size;
  },

  /** Opens a file itself. */
  async openFile({ path }: { path: string }) {
    const file = await open(path, "r+");
    release = () => file.close();
    target = fileTarget(file);
    ({ size } = await file.stat());
  },

  run({ load, ms, seed }: BlockRunOrder): Promise<BlockSample> {
    if (target === undefined) throw new Error("give this thread a disk or a file first");
    return runLoad(target, load, size, ms, seed);
  },

  async close() {
    await release();
  },
});
