import fs from "node:fs";
import { describe, expect, it } from "vitest";

const root = new URL("../../", import.meta.url);
const page = fs.readFileSync(new URL("docs/abi/virtqueue.md", root), "utf8");

/** Rows of the table of rules: where the test lies, and what it is called. */
const rows = [...page.matchAll(/\| `([^`]+\.test\.ts)`: ([^|]+) \|$/gm)].map(
  ([, file, title]) => [file as string, (title as string).trim()] as const,
);

describe("the page about virtqueues", () => {
  it("names tests that exist, word for word", () => {
    expect(rows.length).toBeGreaterThan(25);
    for (const [file, title] of rows) {
      const place = file.startsWith("test/") ? file : `test/engine/${file}`;
      expect(fs.readFileSync(new URL(place, root), "utf8"), `${file}: ${title}`).toContain(title);
    }
  });
});
