import { VbusError } from "../errors.js";
import { crc32 } from "./crc.js";
import { StateError } from "./error.js";
import { StateReader, type StateValue } from "./reader.js";

/**
 * Version of the format. Another one is refused: a state is a snapshot of one release's inner life, made to be restored soon,
 * by the same release. Raised whenever anything that is saved changes its meaning.
 */
export const STATE_FORMAT_VERSION = 1;

/*
 * A saved state (all numbers little-endian):
 *
 *     0   magic "VBUSSAVE"
 *     8   version
 *     12  length of everything, low and high word
 *     20  CRC-32 of everything from offset 32 on
 *     24  length of the description
 *     28  0
 *     32  description: JSON, UTF-8; bytes stand in it as {"$": number}
 *         blobs, in the order of their numbers, each padded to 8 bytes: "blobs" of the description has their lengths
 */
const MAGIC = "VBUSSAVE";
const HEADER = 32;
const OFF_VERSION = 8;
const OFF_LENGTH = 12;
const OFF_CRC = 20;
const OFF_DESCRIPTION = 24;
const BLOB = "$";

const padded = (length: number): number => Math.ceil(length / 8) * 8;

/** Whether an object is a record: made by `{}`, here or in another realm, and not by a class. */
function isRecord(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** What cannot be saved, in words, and what to give instead. */
function refusal(value: unknown): string {
  if (value instanceof ArrayBuffer) return "an ArrayBuffer; give new Uint8Array(buffer)";
  if (ArrayBuffer.isView(value))
    return "a view that is no Uint8Array; give new Uint8Array(view.buffer, view.byteOffset, view.byteLength)";
  switch (typeof value) {
    case "bigint":
      return "a bigint; give a string, such as bitsValue(bits)";
    case "number":
      return `${value}, which is no finite number; give null for it`;
    case "undefined":
      return "undefined; leave it out, or give null";
    case "object": {
      const { constructor } = value as { constructor?: { name?: unknown } };
      return `an object of the class ${String(constructor?.name)}; give what is in it as plain data`;
    }
    default:
      return `a ${typeof value}; give plain data`;
  }
}

/**
 * Writes a state into one piece of bytes.
 * @throws VbusError EINVAL for what is no {@link StateValue}: it would not come back as it was
 */
export function encodeState(state: StateValue): Uint8Array<ArrayBuffer> {
  const blobs: Uint8Array[] = [];
  const plain = (value: unknown, path: string): unknown => {
    if (value === null || typeof value === "string" || typeof value === "boolean") return value;
    if (typeof value === "number" && Number.isFinite(value)) return value;
    if (value instanceof Uint8Array) {
      blobs.push(value);
      return { [BLOB]: blobs.length - 1 };
    }
    // not map(): it passes over holes
    if (Array.isArray(value)) return Array.from(value, (item: unknown, i) => plain(item, `${path}[${i}]`));
    if (typeof value !== "object" || !isRecord(value))
      throw new VbusError("EINVAL", `${path} cannot be saved: it is ${refusal(value)}`);
    if (Object.hasOwn(value, BLOB))
      throw new VbusError("EINVAL", `${path} cannot be saved: "${BLOB}" stands for bytes; use another name`);
    return Object.fromEntries(
      Object.entries(value).map(([name, member]) => [name, plain(member, `${path}.${name}`)]),
    );
  };
  const tree = plain(state, "state");
  const description = new TextEncoder().encode(
    JSON.stringify({ blobs: blobs.map((blob) => blob.length), state: tree }),
  );
  let at = HEADER + padded(description.length);
  const bytes = new Uint8Array(blobs.reduce((sum, blob) => sum + padded(blob.length), at));
  for (let i = 0; i < MAGIC.length; i++) bytes[i] = MAGIC.charCodeAt(i);
  bytes.set(description, HEADER);
  for (const blob of blobs) {
    bytes.set(blob, at);
    at += padded(blob.length);
  }
  const view = new DataView(bytes.buffer);
  view.setUint32(OFF_VERSION, STATE_FORMAT_VERSION, true);
  view.setUint32(OFF_LENGTH, bytes.length >>> 0, true);
  view.setUint32(OFF_LENGTH + 4, Math.floor(bytes.length / 2 ** 32), true);
  view.setUint32(OFF_DESCRIPTION, description.length, true);
  view.setUint32(OFF_CRC, crc32(bytes.subarray(HEADER)), true);
  return bytes;
}

/**
 * Opens a saved state, which may be anything. The bytes are borrowed for as long as the reader is used.
 * @throws StateError foreign, version, damaged
 */
export function decodeState(bytes: Uint8Array): StateReader {
  if (!((bytes as unknown) instanceof Uint8Array))
    throw new StateError(
      "foreign",
      "a saved state is a Uint8Array; of an ArrayBuffer, give new Uint8Array(buffer)",
    );
  if (bytes.length < HEADER || String.fromCharCode(...bytes.subarray(0, MAGIC.length)) !== MAGIC) {
    throw new StateError(
      "foreign",
      "these bytes are no state saved by vbus; give what Quiesced.save or saveMachine returned",
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint32(OFF_VERSION, true);
  if (version !== STATE_FORMAT_VERSION) {
    throw new StateError(
      "version",
      `this state has format ${version}, and this release reads format ${STATE_FORMAT_VERSION} alone; restore it with the ` +
        "release that saved it, or start the guest anew",
    );
  }
  const damaged = (what: string): never => {
    throw new StateError("damaged", `this saved state is damaged (${what}); use another copy of it`);
  };
  const length = view.getUint32(OFF_LENGTH, true) + view.getUint32(OFF_LENGTH + 4, true) * 2 ** 32;
  if (length !== bytes.length) damaged(`it has ${bytes.length} bytes of ${length}`);
  if (view.getUint32(OFF_CRC, true) !== crc32(bytes.subarray(HEADER))) damaged("its checksum is wrong");
  const size = view.getUint32(OFF_DESCRIPTION, true);
  if (size > length - HEADER) damaged("its description is longer than all of it");
  let description: unknown;
  try {
    description = JSON.parse(
      new TextDecoder("utf-8", { fatal: true }).decode(bytes.slice(HEADER, HEADER + size)),
    );
  } catch (cause) {
    throw new StateError("damaged", "this saved state is damaged (its description cannot be read)", {
      cause,
    });
  }
  const root = new StateReader(description, "saved");
  const blobs: Uint8Array[] = [];
  let at = HEADER + padded(size);
  for (const item of root.get("blobs").items(length)) {
    const n = item.number(0, length);
    if (at + n > length) item.fail("the blob lies outside of the state");
    blobs.push(bytes.subarray(at, at + n));
    at += padded(n);
  }
  return new StateReader((description as { state?: unknown }).state, "state", (value) => {
    const number = Object.hasOwn(value, BLOB) ? (value as Record<string, unknown>)[BLOB] : undefined;
    return typeof number === "number" ? (blobs[number] ?? null) : null;
  });
}
