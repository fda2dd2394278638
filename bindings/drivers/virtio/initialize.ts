import { VIRTIO_F_VERSION_1 } from "../../../assembly/abi/virtio.js";
import {
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_FAILED,
  VIRTIO_STATUS_FEATURES_OK,
} from "../../../assembly/abi/virtio-status.js";
import { VbusError } from "../../errors.js";
import type { VirtioDriverTransport } from "./transport.js";

/**
 * Brings a device from whatever state it is in to FEATURES_OK: the first steps of every driver (virtio 1.2: 3.1.1, 1 to 6).
 * Queues, then DRIVER_OK follow.
 * @param choose - features that the driver uses, of those offered; `VIRTIO_F_VERSION_1` is added by itself
 * @returns the features that were negotiated
 * @throws VbusError EOPNOTSUPP when the device is no modern one, or refuses the choice; ETIMEDOUT when it does not confirm a
 *   reset; what the transport rejects with
 */
export async function initializeVirtio(
  transport: VirtioDriverTransport,
  choose: (offered: bigint) => bigint,
): Promise<bigint> {
  if (!(await transport.reset()))
    throw new VbusError("ETIMEDOUT", "the virtio device did not confirm its reset; its host does not answer");
  await transport.setStatus(VIRTIO_STATUS_ACKNOWLEDGE);
  await transport.setStatus(VIRTIO_STATUS_DRIVER);
  const offered = await transport.offeredFeatures();
  const version1 = 1n << BigInt(VIRTIO_F_VERSION_1);
  const features = (choose(offered) & offered) | version1;
  let refusal: string | null = null;
  if ((offered & version1) === 0n) {
    refusal = "the device does not offer VIRTIO_F_VERSION_1; legacy devices are not supported";
  } else {
    await transport.acceptFeatures(features);
    const status = await transport.setStatus(VIRTIO_STATUS_FEATURES_OK);
    if ((status & VIRTIO_STATUS_FEATURES_OK) === 0)
      refusal = `the device refuses the features 0x${features.toString(16)} of 0x${offered.toString(16)}; choose a set whose dependencies are met`;
  }
  if (refusal === null) return features;
  await transport.setStatus(VIRTIO_STATUS_FAILED);
  throw new VbusError("EOPNOTSUPP", refusal);
}
