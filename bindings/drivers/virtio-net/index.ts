/**
 * virtio-net, the guest half: a driver for guests written in TypeScript (virtio 1.2: 5.1), on any transport.
 * @module
 */
import { VIRTIO_ID_NET } from "../../../assembly/abi/virtio-status.js";
import type { VirtioDriver, VirtioDriverTransport } from "../virtio/transport.js";
import { VirtioNic } from "./nic.js";
import type { VirtioNicOptions } from "./options.js";
import { handOver } from "../hand-over.js";

export { VirtioNic, type VirtioNicStatistics } from "./nic.js";
export type { ResolvedVirtioNicOptions, VirtioNicOptions, VirtioOffloadOptions } from "./options.js";
export { VirtioNetFeatures } from "./features.js";
export type { VirtioReceiveStatistics } from "./receive.js";
export type { VirtioTransmitStatistics } from "./transmit.js";

/** The driver: give it to `virtioBusDriver([...])`; every card that it takes is handed to `onNic`, at work. */
export class VirtioNetDriver implements VirtioDriver<VirtioNic> {
  readonly deviceType = VIRTIO_ID_NET;

  /**
   * @param onNic - told of every card
   * @param options - ring sizes, what to negotiate
   */
  constructor(
    private readonly onNic: (nic: VirtioNic) => void = () => {},
    private readonly options: VirtioNicOptions = {},
  ) {}

  /** As `VirtioDriver.probe` says. */
  async probe(transport: VirtioDriverTransport): Promise<VirtioNic> {
    return handOver(await VirtioNic.probe(transport, this.options), this.onNic);
  }

  /** As `VirtioDriver.remove` says. */
  async remove(nic: VirtioNic): Promise<void> {
    await nic.close();
  }
}
