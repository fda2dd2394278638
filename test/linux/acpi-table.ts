/**
 * An ACPI table that tells a Linux guest of memory-mapped virtio devices: what firmware of a machine that has them would
 * bring along. Linux takes such tables from an archive in front of its initramfs.
 */
import { newc } from "../../scripts/newc.mjs";

/** Where a device is. */
export interface MmioPlace {
  memoryAddress: number;
  irq: number;
}

const text = (string: string): number[] => [...Buffer.from(string, "latin1")];
const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

/** A package of the ACPI machine language: its length, which includes the length itself, goes first. */
function sized(content: number[]): number[] {
  const short = content.length + 1;
  if (short < 64) return [short, ...content];
  const long = content.length + 2;
  return [0x40 | (long & 0xf), long >>> 4, ...content];
}

const named = (name: string, value: number[]): number[] => [0x08, ...text(name), ...value];

/** A device with the identity that virtio-mmio goes by, a page of memory, and an interrupt that is an edge. */
function device({ memoryAddress, irq }: MmioPlace, index: number): number[] {
  const resources = [
    ...[0x86, 9, 0, 1, ...u32(memoryAddress), ...u32(0x1000)], // fixed memory, writable
    ...[0x89, 6, 0, 3, 1, ...u32(irq)], // an interrupt: consumed, edge, active high
    ...[0x79, 0],
  ];
  const content = [
    ...text(`VIO${index}`),
    ...named("_HID", [0x0d, ...text("LNRO0005"), 0]),
    ...named("_UID", [0x0a, index]),
    ...named("_CRS", [0x11, ...sized([0x0a, resources.length, ...resources])]),
  ];
  return [0x5b, 0x82, ...sized(content)];
}

/** The archive to put in front of an initramfs. */
export function virtioMmioTables(places: MmioPlace[]): Uint8Array {
  const body = [0x10, ...sized([...text("\\_SB_"), ...places.flatMap(device)])];
  const header = [...text("SSDT"), ...u32(36 + body.length), 2, 0, ...text("VBUS  VIRTMMIO")];
  const table = Uint8Array.from([...header, ...u32(1), ...text("VBUS"), ...u32(1), ...body]);
  table[9] = -table.reduce((sum, byte) => sum + byte, 0);
  const folders = ["kernel", "kernel/firmware", "kernel/firmware/acpi"];
  return newc([
    ...folders.map((name) => ({ name })),
    { name: "kernel/firmware/acpi/ssdt.aml", content: table, mode: 0o644 },
  ]);
}
