/**
 * venet, the guest half: a driver for guests written in TypeScript (`docs/abi/venet.md`).
 * @module
 */
import type { Driver, ProxyDevice } from "../proxy.js";
import { VenetNic } from "./nic.js";
import type { VenetOptions } from "./options.js";
import { handOver } from "../hand-over.js";

export { VenetNic, type NicStatistics } from "./nic.js";
export type { VenetOptions } from "./options.js";
export type {
  GrantedOffloads,
  NicOffloads,
  OffloadOptions,
  SuperframeKind,
  SuperframeOptions,
} from "./offloads.js";
export type { PartialChecksum, ReceivedFrame, Superframe, TransmitFrame } from "./frames.js";
export type { EventStatistics } from "./events.js";
export type { PageStatistics } from "./pages.js";
export type { TransmitStatistics } from "./transmit.js";
export type { ReceiveStatistics } from "./receive.js";

/** The driver: register it with `proxyBus.registerDriver(...)`; every NIC that it takes is handed to `onNic`. */
export class VenetDriver implements Driver<VenetNic> {
  readonly type = "virtual-ethernet";

  /**
   * @param onNic - told of every NIC, closed (call `nic.open()`)
   * @param options - ring sizes, MTU, extensions
   */
  constructor(
    private readonly onNic: (nic: VenetNic) => void = () => {},
    private readonly options: VenetOptions = {},
  ) {}

  /** As `Driver.probe` says. */
  async probe(device: ProxyDevice): Promise<VenetNic> {
    return handOver(await VenetNic.probe(device, this.options), this.onNic);
  }

  /** As `Driver.remove` says. */
  async remove(nic: VenetNic): Promise<void> {
    await nic.close();
  }
}
