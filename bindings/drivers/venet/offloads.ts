import { GSO_TCP4, GSO_TCP6, GSO_UDP_L4 } from "../../../assembly/abi/arena.js";
import {
  VENET_CAPABILITIES_OFF_BITS,
  VENET_CAPABILITIES_OFF_GID,
  VENET_CAPABILITIES_SIZE,
  VENET_EVENTQ_LINKSTATE,
  VENET_EVENTQ_TXC,
  VENET_GROUP_EVENTQ,
  VENET_GROUP_L4RO,
  VENET_GROUP_SG,
  VENET_GROUP_USO,
  VENET_L4RO_SG,
  VENET_NEGCAP,
  VENET_SG_ECN,
  VENET_SG_PMTD,
  VENET_SG_SG,
  VENET_SG_TSO4,
  VENET_SG_TSO6,
  VENET_USO_RX,
  VENET_USO_TX,
  VSG_GSO_TCPV4,
  VSG_GSO_TCPV6,
  VSG_GSO_UDP_L4,
} from "../../../assembly/abi/venet.js";
import type { ProxyDevice } from "../proxy.js";

/** Kinds of superframes: TCP over IPv4, TCP over IPv6, UDP datagrams of equal size. */
export type SuperframeKind = "tcp4" | "tcp6" | "udp";

/** What goes with each kind: `GSO_…` of burst tables and the type of a VSG. */
export const SUPERFRAME_KINDS: Readonly<Record<SuperframeKind, { gso: number; vsg: number }>> = {
  tcp4: { gso: GSO_TCP4, vsg: VSG_GSO_TCPV4 },
  tcp6: { gso: GSO_TCP6, vsg: VSG_GSO_TCPV6 },
  udp: { gso: GSO_UDP_L4, vsg: VSG_GSO_UDP_L4 },
};

/** Name of a segmentation kind (`GSO_…`) of a burst table, or null. */
export function kindName(gso: number): SuperframeKind | null {
  for (const name of ["tcp4", "tcp6", "udp"] as const) if (SUPERFRAME_KINDS[name].gso === gso) return name;
  return null;
}

/** Superframes to ask for in one direction; each defaults to true. */
export interface SuperframeOptions {
  /** TCP over IPv4. */
  tcp4?: boolean;
  /** TCP over IPv6. */
  tcp6?: boolean;
  /** UDP datagrams of equal size: group USO, an extension (`docs/abi/extensions.md` section 4). */
  udp?: boolean;
  /** TCP superframes of flows that use ECN. */
  ecn?: boolean;
}

/** What to ask the host for (`docs/abi/venet.md` section 4). A host that grants nothing leaves the NIC in linear mode. */
export interface OffloadOptions {
  /** Group SG: scattered frames, partial checksums and superframes towards the host; default true. */
  transmit?: boolean | SuperframeOptions;
  /** Group L4RO: the same from the host; default true. Takes one page of 4096 bytes for each RX descriptor. */
  receive?: boolean | SuperframeOptions;
  /** PMTD: scatter-gather descriptors in a pool that the host knows beforehand; default true. */
  descriptorPool?: boolean;
  /** Link state events; default true. */
  linkState?: boolean;
  /** Completions of sent frames as events, in any order; default false. */
  txCompletionEvents?: boolean;
}

/** What was granted in one direction. */
export interface GrantedOffloads {
  /** Scatter-gather descriptors are in use; everything else in this direction depends on it. */
  readonly scatterGather: boolean;
  /** Frames may have partial checksums. */
  readonly checksum: boolean;
  /** TCP/IPv4 superframes. */
  readonly tcp4: boolean;
  /** TCP/IPv6 superframes. */
  readonly tcp6: boolean;
  /** UDP superframes. */
  readonly udp: boolean;
  /** TCP superframes may carry the ECN flag. */
  readonly ecn: boolean;
}

/** What was granted to a NIC; fixed from the probe on. */
export interface NicOffloads {
  /** Towards the host. */
  readonly tx: GrantedOffloads;
  /** From the host. */
  readonly rx: GrantedOffloads;
  /** Transmit descriptors lie in a pool that the host knows. */
  readonly descriptorPool: boolean;
  /** The host reports link state. */
  readonly linkState: boolean;
  /** The host reports completions as events. */
  readonly txCompletionEvents: boolean;
}

/** Capability bits by group. */
export interface CapabilityBits {
  /** Group SG. */
  sg: number;
  /** Group EVENTQ. */
  eventq: number;
  /** Group L4RO. */
  l4ro: number;
  /** Group USO. */
  uso: number;
}

const kinds = (wanted: boolean | SuperframeOptions | undefined): Required<SuperframeOptions> | null => {
  if (wanted === false) return null;
  const all = { tcp4: true, tcp6: true, udp: true, ecn: true };
  return typeof wanted === "object" ? { ...all, ...wanted } : all;
};

/** Bits of groups SG and L4RO, which share the positions of everything that both have. */
function superframeBits(wanted: Required<SuperframeOptions> | null, scatterGather: number): number {
  if (wanted === null) return 0;
  return (
    scatterGather |
    (wanted.tcp4 ? VENET_SG_TSO4 : 0) |
    (wanted.tcp6 ? VENET_SG_TSO6 : 0) |
    (wanted.ecn ? VENET_SG_ECN : 0)
  );
}

/** The bits to ask for. */
export function wantedBits(offloads: boolean | OffloadOptions | undefined): CapabilityBits {
  if (offloads === false) return { sg: 0, eventq: 0, l4ro: 0, uso: 0 };
  const options: OffloadOptions = typeof offloads === "object" ? offloads : {};
  const tx = kinds(options.transmit);
  const rx = kinds(options.receive);
  const pool = tx !== null && options.descriptorPool !== false;
  return {
    sg: superframeBits(tx, VENET_SG_SG) | (pool ? VENET_SG_PMTD : 0),
    eventq:
      (options.linkState === false ? 0 : VENET_EVENTQ_LINKSTATE) |
      (options.txCompletionEvents === true ? VENET_EVENTQ_TXC : 0),
    l4ro: superframeBits(rx, VENET_L4RO_SG),
    uso: (tx?.udp === true ? VENET_USO_TX : 0) | (rx?.udp === true ? VENET_USO_RX : 0),
  };
}

/**
 * Asks for the bits of one group. Resolves with those granted; none when none are asked for, without a call.
 * @throws VbusError as the device refuses
 */
export async function negotiate(device: ProxyDevice, group: number, bits: number): Promise<number> {
  if (bits === 0) return 0;
  const block = new Uint8Array(VENET_CAPABILITIES_SIZE);
  const view = new DataView(block.buffer);
  view.setUint32(VENET_CAPABILITIES_OFF_GID, group, true);
  view.setUint32(VENET_CAPABILITIES_OFF_BITS, bits, true);
  await device.call(VENET_NEGCAP, block);
  return (view.getUint32(VENET_CAPABILITIES_OFF_BITS, true) & bits) >>> 0;
}

/** Asks for group SG. Without SG itself nothing else of the group is of use, granted or not. */
export async function negotiateTransmit(device: ProxyDevice, wanted: CapabilityBits): Promise<number> {
  const granted = await negotiate(device, VENET_GROUP_SG, wanted.sg);
  return (granted & VENET_SG_SG) === 0 ? 0 : granted;
}

/** Asks for group EVENTQ. */
export function negotiateEvents(device: ProxyDevice, wanted: CapabilityBits): Promise<number> {
  return negotiate(device, VENET_GROUP_EVENTQ, wanted.eventq);
}

/** Asks for group L4RO. Only its SG switches the mode on. */
export async function negotiateReceive(device: ProxyDevice, wanted: CapabilityBits): Promise<number> {
  const granted = await negotiate(device, VENET_GROUP_L4RO, wanted.l4ro);
  return (granted & VENET_L4RO_SG) === 0 ? 0 : granted;
}

/** Asks for group USO: only for the directions that have scatter-gather descriptors, which name the kind. */
export function negotiateUdp(
  device: ProxyDevice,
  wanted: CapabilityBits,
  sg: number,
  l4ro: number,
): Promise<number> {
  const possible = (sg === 0 ? 0 : VENET_USO_TX) | (l4ro === 0 ? 0 : VENET_USO_RX);
  return negotiate(device, VENET_GROUP_USO, wanted.uso & possible);
}

function direction(bits: number, udp: boolean): GrantedOffloads {
  const scatterGather = bits !== 0;
  return {
    scatterGather,
    checksum: scatterGather, // part of the descriptor, not a bit of its own
    tcp4: (bits & VENET_SG_TSO4) !== 0,
    tcp6: (bits & VENET_SG_TSO6) !== 0,
    udp: scatterGather && udp,
    ecn: (bits & VENET_SG_ECN) !== 0,
  };
}

/** What granted bits mean. */
export function grantedOffloads(granted: CapabilityBits): NicOffloads {
  return {
    tx: direction(granted.sg, (granted.uso & VENET_USO_TX) !== 0),
    rx: direction(granted.l4ro, (granted.uso & VENET_USO_RX) !== 0),
    descriptorPool: (granted.sg & VENET_SG_PMTD) !== 0,
    linkState: (granted.eventq & VENET_EVENTQ_LINKSTATE) !== 0,
    txCompletionEvents: (granted.eventq & VENET_EVENTQ_TXC) !== 0,
  };
}
