/**
 * venet, the guest half: a driver for guests written in TypeScript (`docs/abi/venet.md`).
 * @module
 */
import { VbusError } from "../../errors.js";
import { nameOf } from "../../given.js";
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
   * @param onNic - told of every NIC, closed (call `nic.open()`); without, the bus tells of them by its event `bound`
   * @param options - ring sizes, MTU, extensions
   * @throws VbusError EINVAL for an `onNic` that cannot be called
   */
  constructor(
    private readonly onNic: (nic: VenetNic) => void = () => {},
    private readonly options: VenetOptions = {},
  ) {
    if (typeof onNic !== "function")
      throw new VbusError(
        "EINVAL",
        `the first argument is who is told of NICs, not ${nameOf(onNic)}: new VenetDriver((nic) => …, options)`,
      );
  }

  /** As `Driver.probe` says. */
  async probe(device: ProxyDevice): Promise<VenetNic> {
    return handOver(await VenetNic.probe(device, this.options), this.onNic);
  }

  /** As `Driver.remove` says. */
  async remove(nic: VenetNic): Promise<void> {
    await nic.close();
  }
}
