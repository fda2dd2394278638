/**
 * Saving and restoring what an emulator's own saved state does not hold: buses, bridges, devices and virtio functions of a
 * guest (`docs/state.md`).
 * @module
 */
export { StateError, type StateFault } from "./error.js";
export { decodeState, encodeState, STATE_FORMAT_VERSION } from "./container.js";
export { bitsValue, StateReader, type BlobSource, type StateValue } from "./reader.js";
export type { MacPolicy, RestoreOptions, Saveable } from "./saveable.js";
export { Quiesced, quiesce, restoreState, type RestoreStateOptions } from "./saving.js";
