import { ENTRY_OFF_HEAD } from "../../../assembly/abi/arena.js";
import { ETHERTYPE_VLAN } from "../../../assembly/abi/venet.js";
import type { Batch } from "../../net/batch.js";
import type { StateReader, StateValue } from "../../state/reader.js";

const BROADCAST = 2 ** 48 - 1;
const GROUP_BIT = 2 ** 40;
const VLANS = 4096;
/** Addresses kept of a table; a longer one lets everything of its kind through, as the specification allows. */
const TABLE_MAX = 256;

/** Receive modes, as the control queue sets them (virtio 1.2: 5.1.6.5.1). */
export interface ReceiveModes {
  /** Everything. */
  promiscuous: boolean;
  /** All multicast. */
  allMulticast: boolean;
  /** All unicast. */
  allUnicast: boolean;
  /** No multicast. */
  noMulticast: boolean;
  /** No unicast. */
  noUnicast: boolean;
  /** No broadcast. */
  noBroadcast: boolean;
}

/**
 * Which frames a driver wants (virtio 1.2: 5.1.6.5.1 to 5.1.6.5.3). Until it says something, everything: a driver without a
 * control queue has no other way to hear of groups.
 */
export class ReceiveFilter {
  /** Modes; set as they are. */
  readonly modes: ReceiveModes = {
    promiscuous: true,
    allMulticast: false,
    allUnicast: false,
    noMulticast: false,
    noUnicast: false,
    noBroadcast: false,
  };
  /** The card's own address. */
  mac: number;
  readonly #unicast = new Set<number>();
  readonly #multicast = new Set<number>();
  #unicastOverflow = false;
  #multicastOverflow = false;
  /** VLAN identifiers let through; null: all, for the driver cannot say. */
  readonly #vlans: Set<number> | null;

  /**
   * @param mac - the card's address
   * @param vlans - whether VLANs are filtered
   */
  constructor(mac: number, vlans: boolean) {
    this.mac = mac;
    this.#vlans = vlans ? new Set() : null;
  }

  /** What the driver wants, as plain data. */
  save(): StateValue {
    return {
      modes: { ...this.modes },
      mac: this.mac,
      unicast: [...this.#unicast],
      multicast: [...this.#multicast],
      unicastOverflow: this.#unicastOverflow,
      multicastOverflow: this.#multicastOverflow,
      vlans: this.#vlans === null ? null : [...this.#vlans],
    };
  }

  /** Takes it over. @throws StateError */
  restore(state: StateReader): void {
    const modes = state.get("modes");
    for (const name of Object.keys(this.modes) as (keyof ReceiveModes)[])
      this.modes[name] = modes.get(name).boolean();
    this.mac = state.get("mac").number(0, BROADCAST);
    const table = (name: string): number[] =>
      state
        .get(name)
        .items(TABLE_MAX)
        .map((item) => item.number(0, BROADCAST));
    this.setTables(table("unicast"), table("multicast"));
    this.#unicastOverflow = state.get("unicastOverflow").boolean();
    this.#multicastOverflow = state.get("multicastOverflow").boolean();
    const vlans = state
      .get("vlans")
      .nullable((at) => at.items(VLANS).map((item) => item.number(0, VLANS - 1)));
    if ((vlans === null) !== (this.#vlans === null)) state.fail("VLANs are filtered just as negotiated");
    for (const id of vlans ?? []) this.addVlan(id);
  }

  /** True when no frame needs to be looked at. */
  get passesAll(): boolean {
    return this.modes.promiscuous;
  }

  /** Replaces the tables of addresses. */
  setTables(unicast: readonly number[], multicast: readonly number[]): void {
    const fill = (set: Set<number>, macs: readonly number[]): boolean => {
      set.clear();
      if (macs.length > TABLE_MAX) return true;
      for (const mac of macs) set.add(mac);
      return false;
    };
    this.#unicastOverflow = fill(this.#unicast, unicast);
    this.#multicastOverflow = fill(this.#multicast, multicast);
  }

  /** Lets a VLAN through. */
  addVlan(id: number): void {
    this.#vlans?.add(id);
  }

  /** Lets it through no more. */
  removeVlan(id: number): void {
    this.#vlans?.delete(id);
  }

  /** True when the driver wants frame i. */
  accepts(batch: Batch, i: number): boolean {
    if (this.modes.promiscuous) return true;
    const { modes } = this;
    if (this.#vlans !== null && batch.etherType(i) === ETHERTYPE_VLAN && !this.#vlans.has(tagOf(batch, i)))
      return false;
    const to = batch.destination(i);
    if (to === BROADCAST) return !modes.noBroadcast;
    if ((Math.floor(to / GROUP_BIT) & 1) !== 0) {
      if (modes.noMulticast) return false;
      return modes.allMulticast || this.#multicastOverflow || this.#multicast.has(to);
    }
    if (modes.noUnicast) return false;
    return modes.allUnicast || this.#unicastOverflow || to === this.mac || this.#unicast.has(to);
  }

  /** First frame in [from, to) for which {@link ReceiveFilter.accepts} is not `accepted`; `to` when there is none. */
  runEnd(batch: Batch, from: number, to: number, accepted: boolean): number {
    let i = from;
    while (i < to && this.accepts(batch, i) === accepted) i++;
    return i;
  }
}

/** Identifier in the outermost tag, from the private copy of the frame's head. */
function tagOf(batch: Batch, i: number): number {
  const { bytes } = batch.space.engine;
  const at = batch.table.entry(i) + ENTRY_OFF_HEAD + 14;
  return (((bytes[at] as number) & 0x0f) << 8) | (bytes[at + 1] as number);
}
