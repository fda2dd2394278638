/**
 * vblk, the guest half: a driver for block devices, for guests written in TypeScript (`docs/abi/vblk.md`).
 * @module
 */
import type { Driver, ProxyDevice } from "../proxy.js";
import { VblkDisk, type VblkOptions } from "./disk.js";
import { handOver } from "../hand-over.js";

export { VblkDisk, type DiskStatistics, type VblkOptions, type WriteOptions } from "./disk.js";
export type { GuestPiece, RequestStatistics } from "./requests.js";

/** The driver: register it with `proxyBus.registerDriver(...)`; every disk that it takes is handed to `onDisk`. */
export class VblkDriver implements Driver<VblkDisk> {
  readonly type = "virtual-block";

  /**
   * @param onDisk - told of every disk, ready for requests
   * @param options - queue depth, longest request
   */
  constructor(
    private readonly onDisk: (disk: VblkDisk) => void = () => {},
    private readonly options: VblkOptions = {},
  ) {}

  /** As `Driver.probe` says. */
  async probe(device: ProxyDevice): Promise<VblkDisk> {
    return handOver(await VblkDisk.probe(device, this.options), this.onDisk);
  }

  /** As `Driver.remove` says. */
  async remove(disk: VblkDisk): Promise<void> {
    await disk.close();
  }
}
