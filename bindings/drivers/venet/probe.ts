import { RECHECK_INUSE_HEAD, RECHECK_VALID_HEAD } from "../../../assembly/abi/arena.js";
import { EXT_COMPACT, EXT_LAZY_INDEXES } from "../../../assembly/abi/ioq.js";
import {
  ETH_ADDRESS_SIZE,
  ETH_HEADER_SIZE,
  VENET_L4ROQUERY,
  VENET_MACQUERY,
  VENET_PMTDQUERY,
  VENET_QUERY_SIZE,
  VENET_QUEUE_RX,
  VENET_QUEUE_TX,
  VENET_VERSION,
  VLAN_TAG_SIZE,
} from "../../../assembly/abi/venet.js";
import type { QueueRole } from "../../engine/queue.js";
import type { Batch } from "../../net/batch.js";
import type { ProxyDevice, ProxyQueue } from "../proxy.js";
import { EventRing, queryWords } from "./events.js";
import {
  grantedOffloads,
  negotiateEvents,
  negotiateReceive,
  negotiateTransmit,
  negotiateUdp,
  wantedBits,
  type NicOffloads,
} from "./offloads.js";
import type { ResolvedVenetOptions } from "./options.js";
import { PageRing } from "./pages.js";
import { ReceiveRing, type LargeReceive } from "./receive.js";
import { SLOT_SIZE, TransmitSlots } from "./transmit-slots.js";
import { TransmitRing } from "./transmit.js";

/** What the parts of a NIC tell it. Set by the NIC; nothing is told before the probe has ended. */
export interface NicHooks {
  /** MTU of this moment. */
  mtu: number;
  /** Takes received frames. */
  receive: (batch: Batch, from: number, to: number) => number;
  /** A ring broke, or the host is gone. */
  fail: (error: unknown) => void;
  /** A link state event. */
  carrier: (up: boolean) => void;
}

/** A NIC that was probed, in parts. */
export interface NicParts {
  /** The device, opened. */
  readonly device: ProxyDevice;
  /** MAC address, 6 bytes. */
  readonly mac: Uint8Array;
  /** What was granted. */
  readonly offloads: NicOffloads;
  /** The RX ring; its buffers are posted. */
  readonly rx: ReceiveRing;
  /** The TX ring. */
  readonly tx: TransmitRing;
  /** The event queue, if any event was granted. */
  readonly events: EventRing | null;
  /** The page queue, with large receive. */
  readonly pages: PageRing | null;
  /** The rings themselves. */
  readonly queues: { readonly rx: ProxyQueue; readonly tx: ProxyQueue };
  /** Where the NIC hangs itself in. */
  readonly hooks: NicHooks;
}

/** Size of buffers: a frame of the MTU with one tag. */
export function frameSize(mtu: number): number {
  return mtu + ETH_HEADER_SIZE + VLAN_TAG_SIZE;
}

/**
 * Brings a device up to the point where LINKUP works: the probe of `docs/abi/venet.md` section 10, in that order.
 * When it fails the device is closed and everything given back. @throws VbusError as the device refuses, ENOMEM, EPROTO
 */
export async function probeNic(device: ProxyDevice, options: ResolvedVenetOptions): Promise<NicParts> {
  await device.open(VENET_VERSION);
  const probe = new Probe(device, options);
  try {
    return await probe.run();
  } catch (error) {
    const released = await device.close();
    probe.undo(released);
    throw error;
  }
}

class Probe {
  readonly #hooks: NicHooks;
  #rx: ReceiveRing | null = null;
  #tx: TransmitRing | null = null;
  #events: EventRing | null = null;
  #pages: PageRing | null = null;

  constructor(
    private readonly device: ProxyDevice,
    private readonly options: ResolvedVenetOptions,
  ) {
    this.#hooks = {
      mtu: options.mtu,
      receive: () => 0,
      fail: () => {},
      carrier: () => {},
    };
  }

  async run(): Promise<NicParts> {
    const { device, options } = this;
    const hooks = this.#hooks;
    const wanted = wantedBits(options.offloads);
    const sg = await negotiateTransmit(device, wanted);
    const eventq = await negotiateEvents(device, wanted);
    const events = eventq === 0 ? null : await this.#createEvents(eventq);
    const l4ro = await negotiateReceive(device, wanted);
    const large = l4ro === 0 ? null : await this.#createLargeReceive();
    const uso = await negotiateUdp(device, wanted, sg, l4ro);
    const offloads = grantedOffloads({ sg, eventq, l4ro, uso });

    const queues = {
      rx: await this.#createRing(VENET_QUEUE_RX, options.rxRing, "northReceive", () => this.#rx?.wake()),
      tx: await this.#createRing(VENET_QUEUE_TX, options.txRing, "northTransmit", () => this.#tx?.wake()),
    };
    const size = (): number => frameSize(hooks.mtu);
    const rx = new ReceiveRing(
      queues.rx,
      device,
      large === null ? null : { ...large, granted: offloads.rx },
      size,
      (batch, from, to) => hooks.receive(batch, from, to),
      this.#fail,
    );
    this.#rx = rx;
    rx.post();
    const slots = offloads.tx.scatterGather ? await this.#createSlots(offloads.descriptorPool) : null;
    const tx = new TransmitRing(
      queues.tx,
      device,
      {
        slots,
        completionEvents: offloads.txCompletionEvents,
        superframeMemory: options.superframeMemory,
      },
      size,
      this.#fail,
    );
    this.#tx = tx;
    const mac = new Uint8Array(ETH_ADDRESS_SIZE);
    await device.call(VENET_MACQUERY, mac);
    return { device, mac, offloads, rx, tx, events, pages: large?.pages ?? null, queues, hooks };
  }

  readonly #fail = (error: unknown): void => {
    this.#hooks.fail(error);
  };

  async #createEvents(eventq: number): Promise<EventRing> {
    const { linkState, txCompletionEvents } = grantedOffloads({ sg: 0, eventq, l4ro: 0, uso: 0 });
    this.#events = await EventRing.create(
      this.device,
      this.options.txRing,
      { linkState, completions: txCompletionEvents },
      {
        link: (up) => {
          this.#hooks.carrier(up);
        },
        completed: (low, high) => this.#tx?.completed(low, high),
        completedAll: () => this.#tx?.wake(),
        broken: this.#fail,
      },
    );
    return this.#events;
  }

  async #createLargeReceive(): Promise<Omit<LargeReceive, "granted">> {
    const { device } = this;
    const count = this.options.rxRing;
    const query = new Uint8Array(VENET_QUERY_SIZE);
    await device.call(VENET_L4ROQUERY, query);
    const [, poolId = 0, queueId = 0] = queryWords(query); // flags, then the ids of pool and page queue
    const pool = await device.createPool(poolId, count * SLOT_SIZE);
    this.#pages = await PageRing.create(device, queueId, count, this.#fail);
    return { pool, pages: this.#pages };
  }

  /** TX slots: in a pool that the host is told of, or wherever descriptors say. */
  async #createSlots(pooled: boolean): Promise<TransmitSlots> {
    const { device } = this;
    const { space } = device.bus.transport.memory;
    const count = this.options.txRing;
    const length = count * SLOT_SIZE;
    const gpa = pooled
      ? await device.createPool(await device.call(VENET_PMTDQUERY), length)
      : device.lend(length);
    return new TransmitSlots(space, gpa, count, pooled);
  }

  #createRing(id: number, count: number, role: QueueRole, notifier: () => void): Promise<ProxyQueue> {
    return this.device.createQueue(id, {
      count,
      role,
      recheck: role === "northReceive" ? RECHECK_INUSE_HEAD : RECHECK_VALID_HEAD,
      notifier,
      onBroken: this.#fail,
      offer:
        (this.options.lazyIndexes ? EXT_LAZY_INDEXES : 0) |
        (this.options.compactDescriptors ? EXT_COMPACT : 0),
    });
  }

  /** The device is closed: gives back what was built so far. */
  undo(released: boolean): void {
    this.#tx?.close(released);
    if (this.#rx !== null) this.#rx.close(released);
    else this.#pages?.close();
    this.#events?.close();
  }
}
