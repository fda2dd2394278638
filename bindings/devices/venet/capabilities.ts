import {
  VENET_EVENTQ_LINKSTATE,
  VENET_EVENTQ_TXC,
  VENET_GROUP_EVENTQ,
  VENET_GROUP_L4RO,
  VENET_GROUP_SG,
  VENET_GROUP_USO,
  VENET_L4RO_SG,
  VENET_SG_ECN,
  VENET_SG_PMTD,
  VENET_SG_SG,
  VENET_SG_TSO4,
  VENET_SG_TSO6,
  VENET_USO_RX,
  VENET_USO_TX,
} from "../../../assembly/abi/venet.js";
import { GSO_TCP4, GSO_TCP6, GSO_UDP_L4 } from "../../../assembly/abi/arena.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { OFFLOAD_CSUM, OFFLOAD_ECN, OFFLOAD_TCP4, OFFLOAD_TCP6, OFFLOAD_UDP_L4 } from "../../net/port.js";

const TSO = VENET_SG_TSO4 | VENET_SG_TSO6 | VENET_SG_ECN;

/** All that can ever be granted, by group. */
const GRANTABLE = new Map([
  [VENET_GROUP_SG, VENET_SG_SG | TSO | VENET_SG_PMTD],
  [VENET_GROUP_EVENTQ, VENET_EVENTQ_LINKSTATE | VENET_EVENTQ_TXC],
  [VENET_GROUP_L4RO, VENET_L4RO_SG | TSO],
  [VENET_GROUP_USO, VENET_USO_TX | VENET_USO_RX],
]);

/** What a NIC may grant at this moment: attributes of the device. */
export interface CapabilityPolicy {
  /** Scatter-gather, segmentation, large receive. */
  readonly offloads: boolean;
  /** Transmit completion events: safe only for guests that do not stop on them (`docs/abi/venet.md` section 12). */
  readonly txCompletionEvents: boolean;
}

/** What a session was granted, group by group (`docs/abi/venet.md` section 4): bits are added, never withdrawn. */
export class Capabilities {
  readonly #granted = new Map<number, number>();

  constructor(private readonly policy: CapabilityPolicy) {}

  #available(group: number): number {
    const { offloads, txCompletionEvents } = this.policy;
    switch (group) {
      case VENET_GROUP_SG:
        return offloads ? VENET_SG_SG | TSO | VENET_SG_PMTD : 0; // UFO never
      case VENET_GROUP_EVENTQ:
        return VENET_EVENTQ_LINKSTATE | (txCompletionEvents ? VENET_EVENTQ_TXC : 0);
      case VENET_GROUP_L4RO:
        return offloads ? VENET_L4RO_SG | TSO : 0;
      case VENET_GROUP_USO:
        return offloads ? VENET_USO_TX | VENET_USO_RX : 0;
      default:
        return 0;
    }
  }

  /** NEGCAP: grants what is wanted and available. Returns just that. */
  negotiate(group: number, wanted: number): number {
    const bits = wanted & this.#available(group);
    if (bits !== 0) this.#granted.set(group, (this.#granted.get(group) ?? 0) | bits); // only groups that exist
    return bits;
  }

  /** What was granted, group by group, as plain data. */
  save(): StateValue {
    return [...this.#granted];
  }

  /** Takes over what was granted when the state was saved, whatever would be available now. @throws StateError */
  restore(state: StateReader): void {
    for (const item of state.items(GRANTABLE.size)) {
      const [group, bits] = item.tuple(2).map((at) => at.number(0, 0xffffffff)) as [number, number];
      const known = GRANTABLE.get(group);
      if (known === undefined || (bits & ~known) !== 0) item.fail("no such capability is ever granted");
      this.#granted.set(group, bits);
    }
  }

  #has(group: number, bit: number): boolean {
    return ((this.#granted.get(group) ?? 0) & bit) !== 0;
  }

  /** Transmit descriptors are scatter-gather descriptors. */
  get scatterGather(): boolean {
    return this.#has(VENET_GROUP_SG, VENET_SG_SG);
  }

  /** Transmit descriptors may lie in a pool. */
  get pool(): boolean {
    return this.#has(VENET_GROUP_SG, VENET_SG_PMTD);
  }

  /** Any event was granted. */
  get events(): boolean {
    return (this.#granted.get(VENET_GROUP_EVENTQ) ?? 0) !== 0;
  }

  /** Link state events. */
  get linkState(): boolean {
    return this.#has(VENET_GROUP_EVENTQ, VENET_EVENTQ_LINKSTATE);
  }

  /** Transmit completion events. */
  get completions(): boolean {
    return this.#has(VENET_GROUP_EVENTQ, VENET_EVENTQ_TXC);
  }

  /** Any bit of L4RO was granted: its pool may be shared. */
  get l4roAny(): boolean {
    return (this.#granted.get(VENET_GROUP_L4RO) ?? 0) !== 0;
  }

  /** Receive descriptors are slots of a pool. */
  get l4ro(): boolean {
    return this.#has(VENET_GROUP_L4RO, VENET_L4RO_SG);
  }

  /** Kinds of superframes that the guest may send: bit 1 << GSO_…, bit 0 for ECN. */
  get transmitKinds(): number {
    return (
      (this.#has(VENET_GROUP_SG, VENET_SG_ECN) ? 1 : 0) |
      (this.#has(VENET_GROUP_SG, VENET_SG_TSO4) ? 1 << GSO_TCP4 : 0) |
      (this.#has(VENET_GROUP_SG, VENET_SG_TSO6) ? 1 << GSO_TCP6 : 0) |
      (this.#has(VENET_GROUP_USO, VENET_USO_TX) ? 1 << GSO_UDP_L4 : 0)
    );
  }

  /** What the guest takes unfinished, as far as negotiation goes (`OFFLOAD_…` bits). */
  get receiveOffloads(): number {
    if (!this.l4ro) return 0;
    return (
      OFFLOAD_CSUM |
      (this.#has(VENET_GROUP_L4RO, VENET_SG_TSO4) ? OFFLOAD_TCP4 : 0) |
      (this.#has(VENET_GROUP_L4RO, VENET_SG_TSO6) ? OFFLOAD_TCP6 : 0) |
      (this.#has(VENET_GROUP_L4RO, VENET_SG_ECN) ? OFFLOAD_ECN : 0) |
      (this.#has(VENET_GROUP_USO, VENET_USO_RX) ? OFFLOAD_UDP_L4 : 0)
    );
  }
}
