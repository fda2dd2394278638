/**
 * Guest memory: regions, arenas, allocation, checked copies.
 * @module
 */
export { RangeAllocator, type Placement } from "./allocator.js";
export { MemorySpace, type ArenaRange, type MemoryRegion, type WrittenRange } from "./space.js";
export {
  allocateGuestMemory,
  GuestMemory,
  openHostView,
  type GuestLayout,
  type GuestMemoryInit,
  type GuestMemoryOptions,
} from "./guest.js";
