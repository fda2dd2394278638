/** Links of the documents, in the repository and in the package: what they lead to is there. */
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = path.join(import.meta.dirname, "../..");

/** A document without its listings. */
const prose = (file: string): string =>
  fs.readFileSync(path.join(ROOT, file), "utf8").replace(/^```.*?^```$/gms, "");

/** Names of its sections, as they are linked to. */
const anchors = (file: string): string[] =>
  [...prose(file).matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
    title!
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, "")
      .trim()
      .replace(/\s/g, "-"),
  );

/** Links of these documents that lead to no file that is there, or to no section of it. */
function broken(documents: readonly string[], isThere: (file: string) => boolean): string[] {
  const bad: string[] = [];
  for (const document of documents) {
    for (const [, link] of prose(document).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link!)) continue;
      const [to = "", anchor] = link!.split("#", 2);
      const file = to === "" ? document : path.normalize(path.join(path.dirname(document), to));
      if (!isThere(file) || (anchor !== undefined && !anchors(file).includes(anchor)))
        bad.push(`${document}: ${link!}`);
    }
  }
  return bad;
}

/** The files that npm would publish. */
function packed(): string[] {
  const told = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: ROOT,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [{ files }] = JSON.parse(told) as [{ files: { path: string }[] }];
  return files.map((file) => file.path);
}

describe("links", () => {
  it("of the package's documents lead to files of the package", () => {
    const files = packed();
    const documents = files.filter((file) => file.endsWith(".md"));
    expect(documents).toEqual(expect.arrayContaining(["README.md", "docs/state.md", "docs/abi/README.md"]));
    expect(broken(documents, (file) => files.includes(file))).toEqual([]);
  });

  it("of documents that are not published lead to files of the repository", () => {
    const documents = ["guest/linux/README.md", "test/data/README.md"];
    expect(broken(documents, (file) => fs.existsSync(path.join(ROOT, file)))).toEqual([]);
  });
});
