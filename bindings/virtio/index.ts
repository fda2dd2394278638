/**
 * Virtio devices and what carries them: the interfaces between the two, and the rules of the status register, feature
 * negotiation and queue set-up, which are the same for every transport.
 * @module
 */
export type { VirtioFace, VirtioQueue, VirtioSession, VirtioSessionContext } from "./types.js";
