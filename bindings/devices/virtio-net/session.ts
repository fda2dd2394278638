import { ENTRY_OFF_FLAGS, ENTRY_OFF_LENGTH, ENTRY_SIZE, FRAME_GSO } from "../../../assembly/abi/arena.js";
import { ETH_HEADER_SIZE } from "../../../assembly/abi/venet.js";
import {
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
} from "../../../assembly/abi/virtio-net.js";
import { VbusError } from "../../errors.js";
import type { Batch } from "../../net/batch.js";
import { type PortPeer } from "../../net/port.js";
import { bitsValue, type StateReader, type StateValue } from "../../state/reader.js";
import type { RestoreOptions } from "../../state/saveable.js";
import type { VirtioQueue, VirtioSession, VirtioSessionContext } from "../../virtio/types.js";
import type { NicEnvironment } from "../ethernet/environment.js";
import { announcement } from "../ethernet/announcement.js";
import { ReceiveSide } from "../ethernet/receive.js";
import { dropFrames } from "../ethernet/statistics.js";
import { frameLimit, TransmitSide } from "../ethernet/transmit.js";
import { ControlQueue, type ControlTarget } from "./control.js";
import {
  changeGuestOffloads,
  guestOffloads,
  hasFeature,
  receiveOffloads,
  transmitGrants,
} from "./features.js";
import { ReceiveFilter } from "./filter.js";
import { InterruptModerator, type Moderation } from "./moderation.js";
import { ReceiveQueue } from "./receive-queue.js";
import type { VirtioNetStatistics } from "./statistics.js";
import { FlowSteering } from "./steering.js";
import { TransmitQueue } from "./transmit-queue.js";

/** What a session needs of its card. */
export interface CardEnvironment extends Omit<NicEnvironment, "scheduler" | "carrier" | "failed"> {
  /** Name for messages. */
  readonly name: string;
  /** What was counted, over all sessions and queues. */
  readonly statistics: VirtioNetStatistics;
  /** The card's address, as a number. */
  readonly macNumber: number;
  /** Pairs of queues that the card has. */
  readonly pairs: number;
  /** Frames may pass, as far as the card is concerned. */
  readonly connected: boolean;
  /** Asks the driver to announce itself. */
  announce(): void;
  /** The driver has announced itself. */
  announced(): void;
  /** The driver took another address. @throws what the port throws that refuses the card */
  addressed(mac: number): void;
  /** The session ended. */
  ended(session: VirtioNetSession): void;
  /** What the card remembers for its session, as plain data. */
  saveSession(): StateValue;
  /** Takes it over. @throws StateError */
  restoreSession(state: StateReader, options: RestoreOptions): void;
}

interface TransmitPair {
  readonly moderator: InterruptModerator;
  readonly side: TransmitSide;
}

interface ReceivePair {
  readonly moderator: InterruptModerator;
  readonly side: ReceiveSide;
}

const NONE: Moderation = { packets: 0, microseconds: 0 };

/**
 * One driver's session with a virtio-net card (virtio 1.2: 5.1.6), from DRIVER_OK to reset.
 *
 * Queues: receive of pair i is 2 i, transmit 2 i + 1, control comes behind those of all pairs (5.1.2); without MQ there is
 * one pair.
 */
export class VirtioNetSession implements VirtioSession, PortPeer, ControlTarget {
  readonly filter: ReceiveFilter;
  /** Negotiated, with what the driver changed since. */
  features: bigint;
  readonly #environment: NicEnvironment & { readonly statistics: VirtioNetStatistics };
  readonly #transmit: (TransmitPair | null)[];
  readonly #receive: (ReceivePair | null)[];
  #control: ControlQueue | null = null;
  readonly #steering: FlowSteering | null;
  /** Pairs that exist for this driver. */
  readonly #pairs: number;
  /** Pairs that it uses. */
  #used = 1;
  readonly #moderation = { rx: NONE, tx: NONE };
  #offloads: number;
  #attached = false;
  #stopped = false;
  /** Frames were offered while the session was held. */
  #refused = false;
  #turn = 0;

  /** @throws VbusError ENOMEM; what the port throws that refuses the card */
  constructor(
    private readonly card: CardEnvironment,
    private readonly context: VirtioSessionContext,
  ) {
    this.features = context.features;
    this.#offloads = receiveOffloads(this.features);
    this.filter = new ReceiveFilter(card.macNumber, hasFeature(this.features, VIRTIO_NET_F_CTRL_VLAN));
    this.#pairs = hasFeature(this.features, VIRTIO_NET_F_MQ) ? card.pairs : 1;
    this.#steering = this.#pairs > 1 ? new FlowSteering() : null;
    this.#transmit = Array.from({ length: this.#pairs }, () => null);
    this.#receive = Array.from({ length: this.#pairs }, () => null);
    this.#environment = new SessionEnvironment(card, context);
    try {
      for (let index = 0; index < this.#queueCount; index++) {
        const queue = context.queue(index);
        if (queue !== null) this.#setUp(queue);
      }
      if (card.connected) this.#attach();
    } catch (error) {
      this.#close();
      throw error;
    }
    this.#startTransmit();
  }

  /** Queues that this driver may use. */
  get #queueCount(): number {
    return this.#pairs * 2 + (hasFeature(this.features, VIRTIO_NET_F_CTRL_VQ) ? 1 : 0);
  }

  /** @throws VbusError ENOMEM */
  #setUp(queue: VirtioQueue): void {
    const { index } = queue;
    if (index >= this.#queueCount) return; // a queue of a feature that was not negotiated: nobody looks at it
    const { scheduler } = this.context;
    const environment = this.#environment;
    const { statistics } = environment;
    if (index === this.#pairs * 2) {
      this.#control = new ControlQueue(queue, scheduler, this);
      return;
    }
    const pair = index >> 1;
    const direction = (index & 1) === 0 ? "rx" : "tx";
    const moderator = new InterruptModerator(
      queue,
      scheduler,
      () => {
        statistics.moderated++;
      },
      this.#moderation[direction],
    );
    if (direction === "tx") {
      const steering = this.#steering;
      const source = new TransmitQueue(queue, {
        scheduler,
        moderator,
        grants: transmitGrants(this.context.features),
        found:
          steering === null
            ? null
            : (batch, n) => {
                steering.sent(batch, n, pair);
              },
      });
      this.#transmit[pair] = { moderator, side: new TransmitSide(source, environment) };
    } else {
      const sink = new ReceiveQueue(queue, {
        scheduler,
        moderator,
        mergeable: hasFeature(this.context.features, VIRTIO_NET_F_MRG_RXBUF),
        offloads: () => this.#offloads,
        dataValid: () => hasFeature(this.features, VIRTIO_NET_F_GUEST_CSUM),
        statistics,
      });
      this.#receive[pair] = { moderator, side: new ReceiveSide(sink, environment) };
    }
  }

  /** Lets the transmit queues of the pairs in use run, and those alone. */
  #startTransmit(): void {
    for (const [pair, transmit] of this.#transmit.entries()) {
      if (pair < this.#used) transmit?.side.start();
      else transmit?.side.stop();
    }
  }

  #attach(): void {
    const { port } = this.card;
    if (this.#attached || port === null) return;
    this.#attached = true; // first: the port may hand over what waits while it is being attached
    try {
      port.attach(this);
    } catch (error) {
      this.#attached = false;
      throw error;
    }
  }

  #detach(): void {
    if (!this.#attached) return;
    this.#attached = false;
    this.card.port?.detach();
  }

  /** What the driver takes unfinished on every queue in use (`OFFLOAD_…` bits). */
  get offloads(): number {
    let all = this.#offloads;
    for (let pair = 0; pair < this.#used; pair++) all &= this.#receive[pair]?.side.offloads ?? all;
    return all;
  }

  /** As `PortPeer.receive` says. */
  receive(batch: Batch, from: number, to: number): number {
    if (this.context.held) {
      this.#refused = true;
      return 0;
    }
    let at = from;
    while (at < to) {
      const wanted = this.#wanted(batch, at);
      let end = at + 1;
      while (end < to && this.#wanted(batch, end) === wanted) end++;
      if (wanted === null) {
        const n = this.#deliver(batch, at, end);
        at += n;
        if (at < end) break;
      } else {
        dropFrames(this.card.statistics.rx, wanted, end - at);
        at = end;
      }
    }
    return at - from;
  }

  /** Why the driver must not get a frame, or null. */
  #wanted(batch: Batch, i: number): "oversize" | "filtered" | null {
    const { words } = batch.space.engine;
    const at = (batch.table.address + i * ENTRY_SIZE) >>> 2;
    const length = words[at + (ENTRY_OFF_LENGTH >>> 2)] as number;
    // nothing longer than the MTU once the driver knows it, but superframes (5.1.4.1)
    if (
      length > this.card.mtu + ETH_HEADER_SIZE &&
      ((words[at + (ENTRY_OFF_FLAGS >>> 2)] as number) & FRAME_GSO) === 0 &&
      length > frameLimit(this.card.mtu, batch.etherType(i)) &&
      hasFeature(this.context.features, VIRTIO_NET_F_MTU)
    )
      return "oversize";
    return this.filter.passesAll || this.filter.accepts(batch, i) ? null : "filtered";
  }

  #deliver(batch: Batch, from: number, to: number): number {
    if (this.#steering === null || this.#used === 1) return this.#deliverTo(0, batch, from, to);
    let at = from;
    while (at < to) {
      const { pair, end } = this.#steering.run(batch, at, to, this.#used);
      at += this.#deliverTo(pair, batch, at, end);
      if (at < end) break;
    }
    return at - from;
  }

  #deliverTo(pair: number, batch: Batch, from: number, to: number): number {
    const side = this.#receive[pair]?.side;
    if (side !== undefined && !this.#stopped) return side.deliver(batch, from, to);
    dropFrames(this.card.statistics.rx, "no-link", to - from);
    return to - from;
  }

  /** As `PortPeer.writable` says. */
  writable(): void {
    // another queue first each time, or the first one would take all the room for ever
    this.#turn = (this.#turn + 1) % this.#used;
    for (let k = 0; k < this.#used; k++) this.#transmit[(this.#turn + k) % this.#used]?.side.resume();
  }

  /** The card is connected now, or no more, or has another port. @throws what the port throws */
  linkChanged(): void {
    if (this.#stopped) return;
    if (this.card.connected) this.#attach();
    else this.#detach();
    this.writable(); // frames that nobody took, or that wait for a port that is out of reach now
  }

  /** The card is about to lose its port. */
  portLeaves(): void {
    this.#detach();
  }

  /** The configuration changed. */
  configChanged(): void {
    this.context.configChanged();
  }

  /** As `ControlTarget.setMac` says. */
  setMac(mac: number): void {
    this.filter.mac = mac;
    try {
      this.card.addressed(mac);
    } catch (error) {
      this.context.needsReset(error); // a port that refuses the card
    }
  }

  /** As `ControlTarget.announced` says. */
  announced(): void {
    this.card.announced();
  }

  /** As `ControlTarget.setPairs` says. */
  setPairs(pairs: number): boolean {
    if (pairs > this.#pairs) return false;
    this.#used = pairs;
    this.#startTransmit();
    return true;
  }

  /** As `ControlTarget.setGuestOffloads` says. */
  setGuestOffloads(wanted: bigint): boolean {
    const features = changeGuestOffloads(this.context.features, wanted);
    if (features === null) return false;
    this.features = features;
    this.#offloads = receiveOffloads(features);
    return true;
  }

  /** As `ControlTarget.moderate` says. */
  moderate(direction: "rx" | "tx", moderation: Moderation): void {
    this.#moderation[direction] = moderation;
    for (const pair of direction === "rx" ? this.#receive : this.#transmit) pair?.moderator.set(moderation);
  }

  #moderator(index: number): InterruptModerator | null {
    return ((index & 1) === 0 ? this.#receive : this.#transmit)[index >> 1]?.moderator ?? null;
  }

  /** As `ControlTarget.moderateQueue` says. */
  moderateQueue(index: number, moderation: Moderation): boolean {
    const moderator = this.#moderator(index);
    moderator?.set(moderation);
    return moderator !== null;
  }

  /** As `ControlTarget.moderationOf` says. */
  moderationOf(index: number): Moderation | null {
    return this.#moderator(index)?.current ?? null;
  }

  /** As `ControlTarget.counted` says. */
  counted(done: boolean): void {
    if (done) this.card.statistics.commands++;
    else this.card.statistics.refused++;
  }

  /** As `ControlTarget.failed` says. */
  failed(error: unknown): void {
    this.context.needsReset(failure(this.card.name, "control", error));
  }

  /** As `VirtioSession.queueStarted` says. */
  queueStarted(queue: VirtioQueue): void {
    if (this.#stopped) return;
    try {
      this.#setUp(queue);
      this.#startTransmit();
      this.card.port?.ready(); // what waited for a queue that was not there
    } catch (error) {
      this.context.needsReset(error);
    }
  }

  /** As `VirtioSession.queueStopped` says. */
  queueStopped(index: number): void {
    if (index === this.#pairs * 2) {
      this.#control?.close();
      this.#control = null;
    } else if ((index & 1) === 0) {
      this.#receive[index >> 1]?.side.close();
      this.#receive[index >> 1] = null;
    } else {
      this.#transmit[index >> 1]?.side.close();
      this.#transmit[index >> 1] = null;
    }
  }

  /** As `VirtioSession.stop` says. */
  stop(): void {
    if (this.#stopped) return;
    this.#close();
    this.card.ended(this);
  }

  /** As `VirtioSession.save` says. */
  save(): StateValue {
    return {
      filter: this.filter.save(),
      offloads: bitsValue(guestOffloads(this.features)),
      used: this.#used,
      moderation: (["rx", "tx"] as const).map((direction) => moderationValue(this.#moderation[direction])),
      receive: this.#receive.map((pair) => pair && savedPair(pair)),
      transmit: this.#transmit.map((pair) => pair && savedPair(pair)),
      card: this.card.saveSession(),
    };
  }

  /** As `VirtioSession.restore` says. @throws StateError; VbusError ENOMEM */
  restore(state: StateReader, options: RestoreOptions): void {
    this.filter.restore(state.get("filter"));
    if (!this.setGuestOffloads(state.get("offloads").bits()))
      state.fail("the driver may not take such frames");
    if (!this.setPairs(state.get("used").number(1, this.#pairs))) state.fail("there are not as many pairs");
    const [rx, tx] = state.get("moderation").tuple(2) as [StateReader, StateReader];
    this.#moderation.rx = readModeration(rx);
    this.#moderation.tx = readModeration(tx);
    for (const [name, pairs] of [
      ["receive", this.#receive],
      ["transmit", this.#transmit],
    ] as const) {
      for (const [i, item] of state.get(name).tuple(pairs.length).entries()) {
        const saved = item.nullable((at) => at);
        const pair = pairs[i] ?? null;
        if ((saved === null) !== (pair === null))
          item.fail("a queue is served just as long as it is enabled");
        if (saved === null || pair === null) continue;
        pair.moderator.set(readModeration(saved.get("moderation")));
        pair.side.restore(saved.get("side"));
      }
    }
    this.card.restoreSession(state.get("card"), options);
  }

  /** As `VirtioSession.resumed` says. */
  resumed(restored: boolean): void {
    if (restored) {
      for (const pair of this.#receive) pair?.side.resume();
      this.writable();
      if (this.#attached) {
        this.#transmit[0]?.side.send(announcement(macBytes(this.filter.mac)));
        this.card.announce(); // with the addresses that only the driver knows
      }
    }
    if (this.#refused) this.card.port?.ready();
    this.#refused = false;
  }

  #close(): void {
    this.#stopped = true;
    for (const transmit of this.#transmit) transmit?.side.stop();
    try {
      this.#detach();
    } finally {
      // whatever a port does: the guest's memory is let go of, and the card is free for the next driver
      for (let index = 0; index <= this.#pairs * 2; index++) this.queueStopped(index);
    }
  }
}

function macBytes(mac: number): Uint8Array {
  const bytes = new Uint8Array(6);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, Math.floor(mac / 2 ** 32));
  view.setUint32(2, mac >>> 0);
  return bytes;
}

function savedPair({ moderator, side }: TransmitPair | ReceivePair): StateValue {
  return { moderation: moderationValue(moderator.current), side: side.save() };
}

function moderationValue({ packets, microseconds }: Moderation): StateValue {
  return [packets, microseconds];
}

/** @throws StateError */
function readModeration(state: StateReader): Moderation {
  const [packets, microseconds] = state.tuple(2).map((at) => at.number(0, 0xffffffff)) as [number, number];
  return { packets, microseconds };
}

/** What the data path needs, from card and transport. */
class SessionEnvironment implements NicEnvironment {
  constructor(
    private readonly card: CardEnvironment,
    private readonly context: VirtioSessionContext,
  ) {}

  get scheduler(): NicEnvironment["scheduler"] {
    return this.context.scheduler;
  }

  get statistics(): VirtioNetStatistics {
    return this.card.statistics;
  }

  get port(): NicEnvironment["port"] {
    return this.card.port;
  }

  get carrier(): boolean {
    return this.card.connected;
  }

  get mtu(): number {
    return this.card.mtu;
  }

  get coalesce(): boolean {
    return this.card.coalesce;
  }

  get bufferWaitMs(): number {
    return this.card.bufferWaitMs;
  }

  failed(queue: "rx" | "tx", error: unknown): void {
    this.context.needsReset(failure(this.card.name, queue, error));
  }
}

/** Says which queue of which card it was. */
function failure(name: string, queue: string, cause: unknown): VbusError {
  const guilty = cause instanceof VbusError && cause.code === "EPROTO";
  return new VbusError(
    guilty ? "EPROTO" : "EIO",
    `${name}: ${guilty ? "the guest broke" : "the host failed at"} the ${queue} queue; it works again once the driver resets the device`,
    { cause },
  );
}
