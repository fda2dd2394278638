/** Both sides of a virtqueue in one guest memory, in one thread, by the engine's typed door. */
import {
  BurstTable,
  ChainTable,
  CHAIN_WRITABLE,
  DeviceVirtQueue,
  DriverVirtQueue,
  type ChainPiece,
  type VirtQueueFormat,
  type VirtQueueOptions,
} from "vbus/engine";
import { openGuest, type Guest } from "./guest.js";

/** What varies between queues. */
export interface PairOptions {
  format: VirtQueueFormat;
  size: number;
  shared?: boolean;
  eventIndex?: boolean;
  inOrder?: boolean;
  /** Pieces of each indirect table; 0: not negotiated. */
  indirect?: number;
  maxPieces?: number;
}

/** A chain as a test describes it. */
export interface Chain {
  cookie: number;
  readable?: ChainPiece[];
  writable?: ChainPiece[];
}

/** A reaped chain. */
export interface Reaped {
  cookie: number;
  length: number;
}

const PIECES = 32;

/** A queue, both of its sides, and tables for them. */
export class VirtQueuePair {
  readonly guest: Guest;
  readonly options: VirtQueueOptions;
  readonly driver: DriverVirtQueue;
  readonly device: DeviceVirtQueue;
  readonly out: ChainTable;
  readonly back: BurstTable;
  readonly chains: ChainTable;
  /** First guest-physical address behind the queue. */
  readonly buffers: number;

  constructor(pair: PairOptions, guest = openGuest({ shared: pair.shared === true })) {
    this.guest = guest;
    const { format, size, eventIndex = false, inOrder = false, indirect = 0 } = pair;
    const areas = DriverVirtQueue.areaSizes(format, size);
    const descriptors = guest.gpa + 4096;
    const driver = descriptors + areas.descriptors.size;
    const device = (driver + areas.driver.size + 63) & ~63;
    const tables = (device + areas.device.size + 63) & ~63;
    this.buffers = (tables + DriverVirtQueue.tablesSize(size, indirect) + 4095) & ~4095;
    this.options = {
      format,
      size,
      descriptors,
      driver,
      device,
      eventIndex,
      inOrder,
      indirect: indirect !== 0,
      ...(pair.maxPieces === undefined ? {} : { maxPieces: pair.maxPieces }),
      ...(indirect === 0 ? {} : { tables: { gpa: tables, pieces: indirect } }),
    };
    this.driver = DriverVirtQueue.create(guest.north, this.options);
    this.device = DeviceVirtQueue.attach(guest.south, this.options);
    this.out = ChainTable.allocate(guest.north, size + 1, PIECES);
    this.back = BurstTable.allocate(guest.north, size + 1);
    this.chains = ChainTable.allocate(guest.south, size + 1, PIECES);
  }

  /** Makes chains available; one piece goes as a plain entry, as drivers of simple devices do it. */
  add(chains: readonly Chain[]): boolean {
    const { table } = this.out;
    for (const [i, { cookie, readable = [], writable = [] }] of chains.entries()) {
      const [only] = [...readable, ...writable];
      if (readable.length + writable.length === 1 && only !== undefined) {
        table.setBuffer(i, 0, only.length);
        table.setGpa(i, only.gpa);
        table.setFlags(i, writable.length === 1 ? CHAIN_WRITABLE : 0);
      } else {
        this.out.setChain(i, readable, writable);
      }
      table.setCookie(i, cookie);
    }
    return this.driver.add(this.out, chains.length);
  }

  /** What the driver gets back. */
  reap(max = this.back.capacity): Reaped[] {
    const n = this.driver.reap(this.back, max);
    return Array.from({ length: n }, (_, i) => ({
      cookie: this.back.cookie(i),
      length: this.back.length(i),
    }));
  }

  /** What the device finds: the pieces of each chain. */
  peek(max = this.chains.capacity): Required<Omit<Chain, "cookie">>[] {
    const n = this.device.peek(this.chains, max);
    return Array.from({ length: n }, (_, i) => {
      const readable = this.chains.readablePieces(i);
      const pieces = Array.from({ length: readable + this.chains.writablePieces(i) }, (__, k) => {
        const { gpa, length, address } = this.chains.piece(i, k);
        if (address !== this.guest.south.translate(gpa, length)) throw new Error(`piece at ${address}`);
        return { gpa, length };
      });
      return { readable: pieces.slice(0, readable), writable: pieces.slice(readable) };
    });
  }

  close(): void {
    this.driver.close();
    this.device.close();
    this.out.close();
    this.back.close();
    this.chains.close();
  }
}
