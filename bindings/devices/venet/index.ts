/**
 * venet, the host half: the device class `venet` (`docs/abi/venet.md`).
 * @module
 */
export { venetClass, type VenetClassOptions } from "./device.js";
export type { VenetStatistics, VenetDirection } from "./statistics.js";
export type { NicDirection } from "../ethernet/statistics.js";
