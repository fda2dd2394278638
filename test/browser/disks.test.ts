import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { DiskOutcome, StoredDiskOutcome } from "./outcome.js";
import { Surroundings } from "./surroundings.js";

describe("disks of a guest in Chromium", () => {
  let surroundings: Surroundings;

  beforeAll(async () => {
    surroundings = await Surroundings.start();
  });
  afterAll(() => surroundings.close());
  afterEach(() => {
    expect(surroundings.complaints.splice(0)).toEqual([]);
  });

  const good = { before: true, after: true, refused: { code: "ENOSPC" } };

  it("an overlay over a blob gives back what was written, without cross-origin isolation", async () => {
    const outcome = await surroundings.probe<DiskOutcome>("plain", "run=disk&backend=blob");
    expect(outcome).toMatchObject({ ...good, description: "overlay over blob" });
  });

  it("a file of the origin private file system keeps it until it is opened again", async () => {
    const { outcome, again, size } = await surroundings.probe<StoredDiskOutcome>(
      "plain",
      "run=disk&backend=opfs",
    );
    expect(outcome).toMatchObject({ ...good, description: "opfs" });
    expect(again).toMatchObject(good);
    expect(size).toBe(256 * 1024);
  });
});
