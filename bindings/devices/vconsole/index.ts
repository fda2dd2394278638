/**
 * vconsole, the host half: the device class `vconsole` and the terminal behind it (`docs/abi/vconsole.md`).
 * @module
 */
export { vconsoleClass, type VconsoleClassOptions } from "./device.js";
export { Terminal, type HangupReason, type TerminalOptions, type WindowSize } from "./terminal.js";
export type { ConsoleDirection, ConsoleDropReason, ConsoleStatistics } from "./statistics.js";
export type { ByteSink } from "../../bytes/inbox.js";
