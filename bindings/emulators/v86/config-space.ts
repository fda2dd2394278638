import { PCI_OFF_BAR0, PCI_OFF_STATUS, PCI_STATUS_INTERRUPT } from "../../../assembly/abi/pci.js";
import type { PciConfigSpace } from "../../connectors/pci/config-space.js";
import { PCI_BARS_END } from "./pci-internals.js";

/** The copy of a function's configuration space that v86 keeps, and its guest reads. */
export class V86ConfigSpace {
  #live: Uint8Array | null = null;

  /** v86's copy is there. */
  attach(live: Uint8Array): void {
    this.#live = live;
  }

  /** Shows in the status register whether the function's line is up. */
  readonly showInterrupt = (asserted: boolean): void => {
    if (this.#live === null) return;
    const status = (this.#live[PCI_OFF_STATUS] as number) & ~PCI_STATUS_INTERRUPT;
    this.#live[PCI_OFF_STATUS] = status | (asserted ? PCI_STATUS_INTERRUPT : 0);
  };

  /** v86 keeps whatever was written: puts back what no guest may change. BARs are v86's own business. */
  putBack(config: PciConfigSpace, offset: number, width: number): void {
    if (this.#live === null) return;
    for (let at = offset; at < offset + width; at++)
      if (at < PCI_OFF_BAR0 || at >= PCI_BARS_END) this.#live[at] = config.read(at, 1);
  }

  /** Everything but the BARs: after a reset. */
  putBackAll(config: PciConfigSpace): void {
    this.putBack(config, 0, 256);
  }
}
