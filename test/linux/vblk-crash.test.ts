/**
 * A Linux guest that dies in the middle of writing to an ext4 file system on vblk, whose disk forgets what was not flushed:
 * what is left is a journal to be replayed, and then a file system without a fault, with all that was promised.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DISK_DRIVER, disk, loadFileSystem } from "../../examples/linux/disks.js";
import { Lab } from "../../examples/linux/lab.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { generator } from "../engine/seed.js";
import { countsOf, nodeOf, VolatileBackend } from "./disks.js";
import { tell, until } from "./fixture.js";
import { checkFileSystem, emptyFileSystem, filesIn, readFrom, replayJournal } from "./root-disk.js";

const SIZE = 16 << 20;
/** Files that are kept; older ones are removed. */
const KEPT = 10;
/** Moments per run at which the power might have failed, the last of which is when it does. */
const MOMENTS = 3;

const seeds = process.env["VBUS_SEED"] === undefined ? [1, 20090401] : [Number(process.env["VBUS_SEED"])];

const lines = (from: number, count: number): string =>
  Array.from({ length: count }, (_, n) => `${from + n}\n`).join("");

describe.each(seeds)(
  "a Linux guest that is killed while it writes (seed %i, VBUS_SEED=n to repeat)",
  (seed) => {
    let folder: string;
    let lab: Lab | null = null;

    beforeEach(async () => {
      folder = await mkdtemp(join(tmpdir(), "vbus-crash-"));
    });

    afterEach(async () => {
      await lab?.close();
      await rm(folder, { recursive: true, force: true });
    });

    it("leaves a file system that is whole after a replay of its journal, and all that was synced", async () => {
      const random = generator(seed);
      const backend = new VolatileBackend(await emptyFileSystem(folder, SIZE));
      lab = await Lab.open({
        pieces: readPieces(),
        progress: tell,
        cards: [],
        devices: [disk("victim", backend)],
        drivers: [DISK_DRIVER],
      });
      const { machine } = lab;
      const node = await nodeOf(machine, "victim");
      await loadFileSystem(machine);
      await machine.check(`mount -t ext4 -o init_itable=0 /dev/${node} /mnt`);

      const images: Uint8Array[] = [];
      let lost = 0;
      let due = backend.operations + 40 + (random() % 30);
      backend.onOperation = () => {
        if (images.length === MOMENTS || backend.operations < due) return;
        lost += backend.cached;
        images.push(backend.afterPowerLoss(random));
        due += 8 + (random() % 40);
      };
      // "done" names the last file that was synced; a name that is there must have its content
      const work = [
        "n=0; while n=$((n+1)); do",
        "seq $((n*100)) $((n*100+n%50*20)) | dd of=/mnt/file$n conv=fsync 2>/dev/null;",
        "echo $n | dd of=/mnt/next conv=fsync 2>/dev/null; mv /mnt/next /mnt/done;",
        `[ $n -le ${KEPT} ] || rm /mnt/file$((n-${KEPT})); done`,
      ].join(" ");
      await machine.check(`(${work}) >/dev/null 2>&1 &`);
      await until("the moments", () => images.length === MOMENTS);
      const counts = countsOf(lab, "victim");
      expect(counts.failed).toBe(0);
      expect(counts.operations.flush, "a journal flushes").toBeGreaterThan(0);
      await lab.close(); // it is in the middle of it
      lab = null;

      let promised = 0;
      for (const [n, bytes] of images.entries()) {
        const image = join(folder, `image${n}`);
        await writeFile(image, bytes);
        await replayJournal(image);
        await checkFileSystem(image);
        const names = await filesIn(image, "/");
        if (!names.includes("done")) continue;
        const last = Number((await readFrom(image, "/done", folder)).toString());
        expect(last).toBeGreaterThan(0);
        for (let file = Math.max(1, last - KEPT + 1); file <= last; file++) {
          const content = (await readFrom(image, `/file${file}`, folder)).toString();
          expect(content === lines(file * 100, (file % 50) * 20 + 1), `file${file} of image ${n}`).toBe(true);
          promised++;
        }
      }
      expect(promised, "files that had to be there").toBeGreaterThan(0);
      expect(lost, "writes that the disk might have forgotten").toBeGreaterThan(0);
    });
  },
);
