// A kernel image that need not decompress itself: in an emulator the 2.6 billion instructions of that are most of the
// time to the first line of output.
//
//   bzImage                                   flat image
//   ┌──────────────┬────────┬───────────┐     ┌──────────────┬──────────────────────────────────┐
//   │ real mode    │ unpack │ vmlinux   │     │ real mode    │ 0x100000 … as vmlinux's program  │
//   │ part, header │ code   │ (.xz, …)  │     │ part, header │ headers say, entry at code32     │
//   └──────────────┴────────┴───────────┘     └──────────────┴──────────────────────────────────┘
import { spawnSync } from "node:child_process";
import zlib from "node:zlib";
import { StepError } from "./step.mjs";

// The setup header of Documentation/arch/x86/boot: offsets in the file.
const SETUP_SECTS = 0x1f1;
const SYSSIZE = 0x1f4; // of the protected mode part, in units of 16 bytes
const HEADER_MAGIC = 0x202;
const VERSION = 0x206;
const CODE32_START = 0x214;
const PAYLOAD_OFFSET = 0x248; // from the start of the protected mode part
const PAYLOAD_LENGTH = 0x24c;
const SECTOR = 512;
const LOAD_ADDRESS = 0x100000; // where a boot loader puts the protected mode part

// ELF32, little endian.
const E_ENTRY = 24;
const E_PHOFF = 28;
const E_PHENTSIZE = 42;
const E_PHNUM = 44;
const PT_LOAD = 1;
const P_OFFSET = 4;
const P_PADDR = 12;
const P_FILESZ = 16;
const LIMIT = 64 << 20; // the initramfs lies there

/** Name of the payload's compression, or undefined for one that this script cannot undo. */
function compressionOf(payload) {
  if (payload.readUInt32BE(0) === 0xfd377a58) return "xz";
  if (payload.readUInt16BE(0) === 0x1f8b) return "gzip";
  return undefined;
}

function decompress(payload, compression, xz) {
  // The last four bytes are the unpacked size, for the code that is not needed any more.
  const packed = payload.subarray(0, payload.length - 4);
  if (compression === "gzip") return zlib.gunzipSync(packed);
  const { status, stdout, stderr, error } = spawnSync(xz, ["-dc", "--single-stream"], {
    input: packed,
    maxBuffer: 256 << 20,
  });
  if (error !== undefined) throw new StepError(`cannot run ${xz}: ${error.message}`);
  if (status !== 0) throw new StepError(`xz cannot unpack the kernel: ${stderr.toString().trim()}`);
  return stdout;
}

/** The protected mode part as bytes from LOAD_ADDRESS on, and the address to enter it at. */
function layOut(vmlinux) {
  if (vmlinux.readUInt32BE(0) !== 0x7f454c46 || vmlinux[4] !== 1)
    throw new StepError("the kernel image does not hold a 32-bit ELF file: give an i386 kernel");
  const at = (i) => vmlinux.readUInt32LE(E_PHOFF) + i * vmlinux.readUInt16LE(E_PHENTSIZE);
  const segments = Array.from({ length: vmlinux.readUInt16LE(E_PHNUM) }, (_, i) => at(i))
    .filter((header) => vmlinux.readUInt32LE(header) === PT_LOAD)
    .map((header) => ({
      offset: vmlinux.readUInt32LE(header + P_OFFSET),
      address: vmlinux.readUInt32LE(header + P_PADDR),
      size: vmlinux.readUInt32LE(header + P_FILESZ),
    }));
  const end = Math.max(...segments.map(({ address, size }) => address + size));
  if (segments.some(({ address }) => address < LOAD_ADDRESS) || end > LIMIT)
    throw new StepError(
      "the kernel's segments do not lie between 1 MiB and 64 MiB: give a relocatable i386 kernel",
    );
  const flat = Buffer.alloc(((end - LOAD_ADDRESS + 15) >> 4) << 4);
  for (const { offset, address, size } of segments)
    vmlinux.copy(flat, address - LOAD_ADDRESS, offset, offset + size);
  return { flat, entry: vmlinux.readUInt32LE(E_ENTRY) };
}

/**
 * Lays out the kernel inside a bzImage as if it had unpacked itself. The kernel's bytes stay what they are; boot it
 * with nokaslr, since nobody relocates it.
 * @param {Buffer} image an i386 bzImage
 * @param {string | undefined} xz the xz program, when there is one
 * @returns {Buffer | undefined} undefined when the payload is compressed in a way that this script cannot undo
 * @throws {StepError} when it is not an i386 bzImage
 */
export function flatKernel(image, xz) {
  if (image.length < 0x1000 || image.toString("latin1", HEADER_MAGIC, HEADER_MAGIC + 4) !== "HdrS")
    throw new StepError("the kernel is not a bzImage: give the file that Debian calls vmlinuz");
  if (image.readUInt16LE(VERSION) < 0x208) return undefined; // the payload is not described yet
  const setupBytes = ((image[SETUP_SECTS] || 4) + 1) * SECTOR;
  const start = setupBytes + image.readUInt32LE(PAYLOAD_OFFSET);
  const payload = image.subarray(start, start + image.readUInt32LE(PAYLOAD_LENGTH));
  const compression = compressionOf(payload);
  if (compression === undefined || (compression === "xz" && xz === undefined)) return undefined;
  const { flat, entry } = layOut(decompress(payload, compression, xz));
  const setup = Buffer.from(image.subarray(0, setupBytes));
  setup.writeUInt32LE(entry, CODE32_START);
  setup.writeUInt32LE(flat.length >> 4, SYSSIZE);
  return Buffer.concat([setup, flat]);
}
