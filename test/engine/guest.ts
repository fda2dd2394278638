/** A guest memory with both sides' spaces in one thread, for tests that look at one mechanism. */
import { allocateGuestMemory, MemorySpace, type GuestMemoryInit, type GuestMemoryOptions } from "vbus/memory";
import { VbusError, type ErrorCode } from "vbus/engine";
import { expect } from "vitest";

/** Guest RAM with both sides' engines. */
export interface Guest {
  init: GuestMemoryInit;
  /** Guest-physical address of the first byte. */
  gpa: number;
  north: MemorySpace;
  south: MemorySpace;
  /** Guest RAM as raw bytes. */
  ram: Uint8Array;
  /** Raw view of a guest range. */
  view(gpa: number, length: number): DataView;
}

/** Allocates a guest of 1 MiB (or as told) and links both sides. */
export function openGuest(options: GuestMemoryOptions = {}): Guest {
  const init = allocateGuestMemory({ size: 1 << 20, ...options });
  const { guestArena, hostArena, regions } = init.layout;
  const region = regions[0] as { gpa: number; length: number; address: number };
  const { buffer } = init.memory;
  return {
    init,
    gpa: region.gpa,
    north: MemorySpace.attachSync(init.memory, guestArena, regions),
    south: MemorySpace.attachSync(init.memory, hostArena, regions),
    ram: new Uint8Array(buffer, region.address, region.length),
    view: (gpa, length) => new DataView(buffer, region.address + (gpa - region.gpa), length),
  };
}

/** Expects a VbusError with a code, and returns it. */
export function expectError(code: ErrorCode, call: () => unknown): VbusError {
  let thrown: unknown;
  try {
    call();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(VbusError);
  expect(thrown).toMatchObject({ code });
  return thrown as VbusError;
}

/** First position at which two byte ranges differ, or -1. (Comparing a megabyte with `toEqual` takes seconds.) */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  if (
    Buffer.compare(
      Buffer.from(a.buffer, a.byteOffset, a.length),
      Buffer.from(b.buffer, b.byteOffset, b.length),
    ) === 0
  ) {
    return -1;
  }
  return a.findIndex((byte, i) => byte !== b[i]);
}
