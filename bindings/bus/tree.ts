import { VbusError } from "../errors.js";
import { readAttribute, writeAttribute } from "./device.js";
import type { Attribute } from "./types.js";

/** A directory; its entries are made when somebody looks. */
export interface TreeDirectory {
  readonly kind: "directory";
  /** Entries by name. */
  entries(): ReadonlyMap<string, TreeNode>;
}

/** A file: one line of text. */
export interface TreeFile {
  readonly kind: "file";
  /** How to read and write it. */
  readonly attribute: Attribute;
}

/** A symbolic link. */
export interface TreeLink {
  readonly kind: "link";
  /** What it points at, from the root. */
  readonly target: readonly string[];
}

/** Whatever has a name in the tree. */
export type TreeNode = TreeDirectory | TreeFile | TreeLink;

/** Longest value that is printed in full; statistics and the like are for `read()`. */
const VALUE_MAX = 48;
/** More links than this in one path are a loop. */
const LINKS_MAX = 16;

/** Numbers by value, everything else by code point, as `tree` sorts in the C locale. */
function byName([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  if (/^\d+$/.test(a) && /^\d+$/.test(b)) return Number(a) - Number(b);
  return a < b ? -1 : 1;
}

/** Values and names of others must not break the lines of the picture. */
function printable(text: string): string {
  // eslint-disable-next-line no-control-regex -- control characters are what is escaped
  return text.replace(/[\u0000-\u001f\u007f]/g, (character) => JSON.stringify(character).slice(1, -1));
}

/** A tree of directories, files and links that is looked at by path, like a file system. */
export class Tree {
  /**
   * @param name - what the root is called when it is printed
   * @param root - where paths start
   */
  constructor(
    private readonly name: string,
    private readonly root: TreeDirectory,
  ) {}

  /**
   * Reads a path: a file's text, the last name of what a link points at, the names in a directory, one per line.
   * @throws VbusError ENOENT, EIO (no handler), errors of the device
   */
  read(path: string): string {
    const { parts, node } = this.#find(path, 0);
    switch (node.kind) {
      case "file":
        return readAttribute(parts.join("/"), node.attribute);
      case "link":
        return node.target.at(-1) ?? "";
      case "directory":
        return names(node).join("\n");
    }
  }

  /**
   * Writes a file; one trailing newline is stripped.
   * @throws VbusError ENOENT, EIO (no handler), EINVAL (no file), errors of the device
   */
  write(path: string, value: string): void {
    const { parts, node } = this.#find(path, 0);
    if (node.kind !== "file")
      throw new VbusError("EINVAL", `"${path}" is a ${node.kind}; only files are written`);
    writeAttribute(parts.join("/"), node.attribute, value);
  }

  /** Names in a directory, in order; links are followed. @throws VbusError ENOENT; EINVAL when it is none */
  list(path: string): string[] {
    const { node } = this.#follow(this.#find(path, 0), 0);
    if (node.kind !== "directory")
      throw new VbusError("EINVAL", `"${path}" is a ${node.kind}; read it instead`);
    return names(node);
  }

  /** Prints a path and what lies under it like `tree`: links as `name -> target`, files as `name: text`. @throws VbusError ENOENT */
  print(path = ""): string {
    const { parts, node } = this.#follow(this.#find(path, 0), 0);
    const title = parts.length === 0 ? this.name : parts.join("/");
    const lines = [printable(line(title, node, parts))];
    if (node.kind === "directory") this.#printEntries(node, parts, "", lines);
    return lines.join("\n");
  }

  #printEntries(directory: TreeDirectory, parts: readonly string[], indent: string, lines: string[]): void {
    const entries = [...directory.entries()].sort(byName);
    for (const [i, [name, node]] of entries.entries()) {
      const last = i === entries.length - 1;
      const path = [...parts, name];
      lines.push(`${indent}${last ? "└── " : "├── "}${printable(line(name, node, path))}`);
      if (node.kind === "directory")
        this.#printEntries(node, path, `${indent}${last ? "    " : "│   "}`, lines);
    }
  }

  #find(path: string, links: number): { parts: string[]; node: TreeNode } {
    let place: { parts: string[]; node: TreeNode } = { parts: [], node: this.root };
    for (const part of path.split("/")) {
      if (part === "") continue;
      const { parts, node } = this.#follow(place, links);
      const next = node.kind === "directory" ? node.entries().get(part) : undefined;
      if (next === undefined)
        throw new VbusError("ENOENT", `there is no "${path}" in ${this.name}; tree() shows what is`);
      place = { parts: [...parts, part], node: next };
    }
    return place;
  }

  #follow(place: { parts: string[]; node: TreeNode }, links: number): { parts: string[]; node: TreeNode } {
    if (place.node.kind !== "link") return place;
    if (links === LINKS_MAX) throw new VbusError("EINVAL", `"${place.parts.join("/")}" is a loop of links`);
    return this.#follow(this.#find(place.node.target.join("/"), links + 1), links + 1);
  }
}

function names(directory: TreeDirectory): string[] {
  return [...directory.entries()].sort(byName).map(([name]) => name);
}

function line(name: string, node: TreeNode, path: readonly string[]): string {
  switch (node.kind) {
    case "directory":
      return name;
    case "link":
      return `${name} -> ${[...path.slice(1).map(() => ".."), ...node.target].join("/")}`;
    case "file":
      return node.attribute.get === undefined
        ? name
        : `${name}: ${fileText(node.attribute.get.bind(node.attribute))}`;
  }
}

/** A picture of many values must not fail for one of them. */
function fileText(get: () => string): string {
  try {
    const text = get();
    return text.length <= VALUE_MAX
      ? text
      : `${text.slice(0, VALUE_MAX)}… (${text.length} characters; read() it)`;
  } catch (error) {
    return `<${error instanceof VbusError ? error.code : "EIO"}>`;
  }
}
