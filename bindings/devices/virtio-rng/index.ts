/**
 * virtio-rng: random numbers for guests (virtio 1.2: 5.4), which begin their lives with very few.
 * @module
 */
export {
  virtioEntropy,
  type VirtioEntropy,
  type VirtioEntropyCounters,
  type VirtioEntropyOptions,
} from "./entropy.js";
