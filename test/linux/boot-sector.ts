/** A boot sector for tests: 16-bit code that works with its disk through the firmware's INT 13h alone. */

/** What it says at first, on COM1. */
export const GREETING = "the boot sector runs\r\n";
/** What it says when all went well. */
export const DONE = "all done\r\n";
/** What it says when INT 13h returned an error. */
export const FAILED = "INT 13h failed\r\n";
/** Holds a text that ends with 0, which the program writes to COM1. */
export const TEXT_SECTOR = 1;
/** Gets a copy of the text's sector whose first 16 bits are the sum of the bulk's 16-bit words. */
export const RESULT_SECTOR = 2;
/** Where the bulk begins that is read at once. */
export const BULK_SECTOR = 8;
/** Its length: more than the 32 KiB that one segment of a request may have. */
export const BULK_SECTORS = 100;
/** Bytes of a sector. */
export const SECTOR = 512;

/** Where firmware puts a boot sector, and where this one puts what it reads. */
const ORIGIN = 0x7c00;
const TEXT = 0x8000;
const BULK_SEGMENT = 0x1000;
const SIGNATURE = [0x55, 0xaa];

const word = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff];
const zeroEnded = (text: string): number[] => [...Buffer.from(`${text}\0`, "latin1")];

/** INT 13h's disk address packet: its size, sectors, where to in memory, first sector. */
const packet = (sectors: number, segment: number, offset: number, first: number): number[] => [
  ...[16, 0, ...word(sectors), ...word(offset), ...word(segment)],
  ...[...word(first), 0, 0, 0, 0, 0, 0],
];

/** A reference to a label: 16 bits, or the 8 or 16 that a jump goes from its end. */
type Reference = { address: string } | { near: string } | { short: string };
type Line = { label: string } | (number | Reference)[];

const PROGRAM: Line[] = [
  [0x31, 0xc0], //                             xor ax, ax
  [0x8e, 0xd8], //                             mov ds, ax
  [0x8e, 0xc0], //                             mov es, ax
  [0x8e, 0xd0], //                             mov ss, ax
  [0xbc, ...word(ORIGIN)], //                  mov sp, ORIGIN          ; the stack grows down from here
  [0xfc], //                                   cld
  [0x52], //                                   push dx                 ; dl: the disk, as the firmware numbers it
  [0xbe, { address: "greeting" }], //          mov si, greeting
  [0xe8, { near: "print" }], //                call print

  // by cylinder, head and sector, as in 1981; sectors count from 1
  [0x5a], //                                   pop dx
  [0x52], //                                   push dx
  [0xb6, 0], //                                mov dh, 0               ; head 0
  [0xb8, 1, 0x02], //                          mov ax, 0x0201          ; read one sector
  [0xb9, ...word(TEXT_SECTOR + 1)], //         mov cx, TEXT_SECTOR + 1 ; of cylinder 0
  [0xbb, ...word(TEXT)], //                    mov bx, TEXT            ; to es:bx
  [0xcd, 0x13], //                             int 0x13
  [0x72, { short: "fail" }], //                jc fail
  [0xbe, ...word(TEXT)], //                    mov si, TEXT
  [0xe8, { near: "print" }], //                call print

  // by number: many sectors at once
  [0x5a], //                                   pop dx
  [0x52], //                                   push dx
  [0xb4, 0x42], //                             mov ah, 0x42            ; extended read
  [0xbe, { address: "bulk" }], //              mov si, bulk
  [0xcd, 0x13], //                             int 0x13
  [0x72, { short: "fail" }], //                jc fail
  [0x31, 0xdb], //                             xor bx, bx
  [0xb8, ...word(BULK_SEGMENT)], //            mov ax, BULK_SEGMENT
  [0x8e, 0xd8], //                             mov ds, ax
  [0x31, 0xf6], //                             xor si, si
  [0xb9, ...word((BULK_SECTORS * SECTOR) / 2)], // mov cx, words
  { label: "sum" },
  [0xad], //                                   lodsw
  [0x01, 0xc3], //                             add bx, ax
  [0xe2, { short: "sum" }], //                 loop sum
  [0x31, 0xc0], //                             xor ax, ax
  [0x8e, 0xd8], //                             mov ds, ax
  [0x89, 0x1e, ...word(TEXT)], //              mov [TEXT], bx

  [0x5a], //                                   pop dx
  [0xb8, 0x00, 0x43], //                       mov ax, 0x4300          ; extended write, without verifying
  [0xbe, { address: "result" }], //            mov si, result
  [0xcd, 0x13], //                             int 0x13
  [0x72, { short: "fail" }], //                jc fail
  [0xbe, { address: "done" }], //              mov si, done
  [0xe8, { near: "print" }], //                call print
  { label: "halt" },
  [0xfa], //                                   cli
  [0xf4], //                                   hlt
  [0xeb, { short: "halt" }], //                jmp halt
  { label: "fail" },
  [0xbe, { address: "failed" }], //            mov si, failed
  [0xe8, { near: "print" }], //                call print
  [0xeb, { short: "halt" }], //                jmp halt

  { label: "print" }, //                       ; ds:si, up to a 0; changes ax and dx
  [0xac], //                                   lodsb
  [0x84, 0xc0], //                             test al, al
  [0x74, { short: "printed" }], //             jz printed
  [0x88, 0xc4], //                             mov ah, al
  [0xba, 0xfd, 0x03], //                       mov dx, 0x3fd           ; COM1's line status
  { label: "wait" },
  [0xec], //                                   in al, dx
  [0xa8, 0x20], //                             test al, 0x20           ; room for a character
  [0x74, { short: "wait" }], //                jz wait
  [0x88, 0xe0], //                             mov al, ah
  [0xba, 0xf8, 0x03], //                       mov dx, 0x3f8
  [0xee], //                                   out dx, al
  [0xeb, { short: "print" }], //               jmp print
  { label: "printed" },
  [0xc3], //                                   ret

  { label: "bulk" },
  packet(BULK_SECTORS, BULK_SEGMENT, 0, BULK_SECTOR),
  { label: "result" },
  packet(1, 0, TEXT, RESULT_SECTOR),
  { label: "greeting" },
  zeroEnded(GREETING),
  { label: "done" },
  zeroEnded(DONE),
  { label: "failed" },
  zeroEnded(FAILED),
];

const sizeOf = (item: number | Reference): number => (typeof item === "number" || "short" in item ? 1 : 2);

/** The 512 bytes, with the signature by which firmware knows them. */
export function bootSector(): Uint8Array {
  const labels = new Map<string, number>();
  let at = 0;
  for (const line of PROGRAM)
    if ("label" in line) labels.set(line.label, at);
    else at += line.reduce<number>((size, item) => size + sizeOf(item), 0);
  const where = (label: string): number => {
    const offset = labels.get(label);
    if (offset === undefined) throw new Error(`the program has no ${label}`);
    return offset;
  };
  const bytes: number[] = [];
  for (const line of PROGRAM) {
    if ("label" in line) continue;
    for (const item of line) {
      if (typeof item === "number") bytes.push(item);
      else if ("address" in item) bytes.push(...word(ORIGIN + where(item.address)));
      else if ("near" in item) bytes.push(...word(where(item.near) - (bytes.length + 2)));
      else {
        const distance = where(item.short) - (bytes.length + 1);
        if (distance < -128 || distance > 127) throw new Error(`${item.short} is too far for a short jump`);
        bytes.push(distance & 0xff);
      }
    }
  }
  if (bytes.length > SECTOR - 2 - 64) throw new Error("the program reaches into the partition table");
  const sector = new Uint8Array(SECTOR);
  sector.set(bytes);
  sector.set(SIGNATURE, SECTOR - 2);
  return sector;
}
