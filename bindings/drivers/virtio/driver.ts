import { VbusError } from "../../errors.js";
import type { Driver, ProxyDevice } from "../proxy.js";
import type { VirtioDriver } from "./transport.js";
import { VbusVirtioTransport } from "./vbus.js";

/** A virtio device that has its driver. */
export interface VirtioBinding {
  /** The driver that took it. */
  readonly driver: VirtioDriver;
  /** What its `probe` gave. */
  readonly instance: unknown;
  /** How the driver reaches it. */
  readonly transport: VbusVirtioTransport;
}

/**
 * The driver of a proxy bus for everything of type `virtio`: hands each device to the virtio driver of its kind.
 *
 * ```ts
 * bus.registerDriver(virtioBusDriver([virtioNetDriver({ … })]));
 * ```
 *
 * A device whose kind none of them drives stays unbound; the bus reports ENODEV for it.
 * @throws VbusError EEXIST for two drivers of a kind
 */
export function virtioBusDriver(drivers: readonly VirtioDriver[]): Driver<VirtioBinding> {
  const kinds = new Map<number, VirtioDriver>();
  for (const driver of drivers) {
    if (kinds.has(driver.deviceType))
      throw new VbusError("EEXIST", `two drivers for virtio devices of type ${driver.deviceType}; give one`);
    kinds.set(driver.deviceType, driver);
  }
  return {
    type: "virtio",
    async probe(device: ProxyDevice): Promise<VirtioBinding> {
      const transport = await VbusVirtioTransport.open(device);
      const driver = kinds.get(transport.deviceType);
      if (driver === undefined) {
        throw new VbusError(
          "ENODEV",
          `device ${device.id} is a virtio device of type ${transport.deviceType}, for which no driver was given`,
        );
      }
      try {
        return { driver, transport, instance: await driver.probe(transport) };
      } catch (error) {
        await transport.reset();
        throw error;
      }
    },
    async remove({ driver, instance, transport }: VirtioBinding): Promise<void> {
      try {
        await driver.remove(instance, transport);
      } finally {
        await transport.reset(); // harmless a second time; rings go back to the guest's memory
      }
    },
  };
}
