/**
 * vconsole, the guest half: a driver for guests written in TypeScript (`docs/abi/vconsole.md`).
 * @module
 */
import type { Driver, ProxyDevice } from "../proxy.js";
import { VirtualConsole } from "./console.js";
import type { VconsoleOptions } from "./options.js";
import { handOver } from "../hand-over.js";

export { VirtualConsole } from "./console.js";
export type { VconsoleOptions, VirtualConsoleStatistics } from "./options.js";
export type { ByteSink } from "../../bytes/inbox.js";

/** The driver: register it with `proxyBus.registerDriver(...)`; every console that it takes is handed to `onConsole`. */
export class VconsoleDriver implements Driver<VirtualConsole> {
  readonly type = "virtual-console";

  /**
   * @param onConsole - told of every console, closed (call `console.open()`)
   * @param options - ring and buffer sizes
   */
  constructor(
    private readonly onConsole: (console: VirtualConsole) => void = () => {},
    private readonly options: VconsoleOptions = {},
  ) {}

  /** As `Driver.probe` says. */
  async probe(device: ProxyDevice): Promise<VirtualConsole> {
    return handOver(await VirtualConsole.probe(device, this.options), this.onConsole);
  }

  /** As `Driver.remove` says. */
  async remove(console: VirtualConsole): Promise<void> {
    await console.close();
  }
}
