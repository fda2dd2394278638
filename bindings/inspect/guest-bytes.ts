import { VbusError } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";

/**
 * A private copy of a guest range, so that what is looked at twice is the same twice; null when it is not in the guest's
 * memory any more (an emulator moved its RAM).
 */
export function guestBytes(space: MemorySpace, gpa: number, length: number): DataView | null {
  try {
    return new DataView(space.copyFrom(gpa, length).buffer);
  } catch (error) {
    if (error instanceof VbusError && error.code === "EFAULT") return null;
    throw error;
  }
}
