import { IOQ_MAX_COUNT } from "../../../assembly/abi/ioq.js";
import { MTU_DEFAULT, MTU_MAX, MTU_MIN, VENET_GSO_MAX } from "../../../assembly/abi/venet.js";
import { VbusError } from "../../errors.js";
import type { OffloadOptions } from "./offloads.js";

/** How a NIC is driven. */
export interface VenetOptions {
  /** Descriptors of the RX ring; default 256, at most 2048. */
  rxRing?: number;
  /** Descriptors of the TX ring; default 256, at most 2048. */
  txRing?: number;
  /** MTU at the start; default 1500. Must not exceed the host's attribute, or larger frames are dropped there. */
  mtu?: number;
  /** Offer lazily written indexes (an extension; the host must allow it). Default false: strict IOQ v4. */
  lazyIndexes?: boolean;
  /** Offer descriptors of 16 bytes (`docs/abi/extensions.md` 5); default false: the layout of version 4. */
  compactDescriptors?: boolean;
  /** Frames kept for `receive()` before the ring is left to fill (back-pressure); default 1024. */
  receiveBacklog?: number;
  /** What to ask the host for; default true: all but completion events. False: nothing, linear frames only. */
  offloads?: boolean | OffloadOptions;
  /** Most bytes of guest memory for superframes under way, taken as they are needed; default 2 MiB, at least 64 KiB. */
  superframeMemory?: number;
}

/** {@link VenetOptions} with everything decided. */
export type ResolvedVenetOptions = Required<VenetOptions>;

/** Checks options and fills in what was left out. @throws VbusError EINVAL */
export function resolveOptions(options: VenetOptions): ResolvedVenetOptions {
  const resolved: ResolvedVenetOptions = {
    rxRing: options.rxRing ?? 256,
    txRing: options.txRing ?? 256,
    mtu: options.mtu ?? MTU_DEFAULT,
    lazyIndexes: options.lazyIndexes ?? false,
    compactDescriptors: options.compactDescriptors ?? false,
    receiveBacklog: options.receiveBacklog ?? 1024,
    offloads: options.offloads ?? true,
    superframeMemory: options.superframeMemory ?? 2 << 20,
  };
  checkMtu(resolved.mtu);
  for (const name of ["rxRing", "txRing"] as const) {
    const count = resolved[name];
    if (!(Number.isInteger(count) && count >= 1 && count <= IOQ_MAX_COUNT)) {
      throw new VbusError("EINVAL", `${name}: a ring of ${count} descriptors; use 1 to ${IOQ_MAX_COUNT}`);
    }
  }
  if (!(resolved.receiveBacklog >= 1)) {
    throw new VbusError("EINVAL", `a receiveBacklog of ${resolved.receiveBacklog} frames; use at least 1`);
  }
  if (!(resolved.superframeMemory >= VENET_GSO_MAX)) {
    throw new VbusError(
      "EINVAL",
      `superframeMemory of ${resolved.superframeMemory} bytes; one superframe takes up to ${VENET_GSO_MAX}`,
    );
  }
  return resolved;
}

/** @throws VbusError EINVAL for an MTU outside 68 … 65000 */
export function checkMtu(mtu: number): void {
  if (!Number.isInteger(mtu) || mtu < MTU_MIN || mtu > MTU_MAX) {
    throw new VbusError("EINVAL", `an MTU of ${mtu}; use ${MTU_MIN} to ${MTU_MAX}`);
  }
}
