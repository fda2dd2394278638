import { MTU_DEFAULT, VENET_GSO_MAX } from "../../../assembly/abi/venet.js";
import { VbusError } from "../../errors.js";
import type { SuperframeOptions } from "../venet/offloads.js";

/**
 * What to take of the offloads that a card offers. True takes a direction's checksums and all superframes, false neither; named
 * kinds of superframes come with the checksums, which they need.
 */
export interface VirtioOffloadOptions {
  /** Towards the device: CSUM, HOST_TSO4, HOST_TSO6, HOST_USO, HOST_ECN; default true. */
  transmit?: boolean | SuperframeOptions;
  /** From the device: GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_USO4 and 6, GUEST_ECN; default true. */
  receive?: boolean | SuperframeOptions;
}

/** How a card is driven. */
export interface VirtioNicOptions {
  /** Descriptors of the receive queue; default 256, at most what the device takes. A power of two, unless rings are packed. */
  rxRing?: number;
  /** Descriptors of the transmit queue; default 256, likewise. */
  txRing?: number;
  /** MTU of a device that says none; default 1500. */
  mtu?: number;
  /** Frames kept for `receive()` before the ring is left to fill (back-pressure); default 1024. */
  receiveBacklog?: number;
  /** Take partial checksums and superframes, both ways or as it says, as far as they are offered; default true. */
  offloads?: boolean | VirtioOffloadOptions;
  /** Let received frames lie in several buffers; without, no superframes are received. Default true. */
  mergeable?: boolean;
  /** Take packed rings when they are offered; default true. */
  packed?: boolean;
  /** Take notifications by ring position when they are offered; default true. */
  eventIndex?: boolean;
  /** Most bytes of guest memory for superframes under way, taken as they are needed; default 2 MiB, at least 64 KiB. */
  superframeMemory?: number;
}

/** {@link VirtioNicOptions} with everything decided. */
export type ResolvedVirtioNicOptions = Required<VirtioNicOptions>;

/** Checks options and fills in what was left out. @throws VbusError EINVAL */
export function resolveOptions(options: VirtioNicOptions): ResolvedVirtioNicOptions {
  const resolved = {
    rxRing: 256,
    txRing: 256,
    mtu: MTU_DEFAULT,
    receiveBacklog: 1024,
    offloads: true,
    mergeable: true,
    packed: true,
    eventIndex: true,
    superframeMemory: 2 << 20,
    ...options,
  };
  for (const name of ["rxRing", "txRing", "receiveBacklog"] as const) {
    if (!(Number.isInteger(resolved[name]) && resolved[name] >= 1))
      throw new VbusError("EINVAL", `${name}: ${resolved[name]}; give a whole number from 1 on`);
  }
  if (!(resolved.superframeMemory >= VENET_GSO_MAX))
    throw new VbusError(
      "EINVAL",
      `superframeMemory of ${resolved.superframeMemory} bytes; one superframe takes up to ${VENET_GSO_MAX}`,
    );
  return resolved;
}
