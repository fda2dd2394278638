import {
  MSIX_ENTRY_MASKED,
  MSIX_ENTRY_OFF_ADDRESS,
  MSIX_ENTRY_OFF_ADDRESS_HIGH,
  MSIX_ENTRY_OFF_CONTROL,
  MSIX_ENTRY_OFF_DATA,
  MSIX_ENTRY_SIZE,
} from "../../../assembly/abi/msix.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { AccessWidth, MsiMessage } from "./config-space.js";

/**
 * An MSI-X table and its pending bits (PCI 3.0 section 6.8.2), as memory of a function that a guest reads and writes at
 * will. Vectors are edges; a masked one is kept as a pending bit, and sent when it is unmasked.
 *
 * What a guest writes here decides which messages its own machine gets: the sink must take any address and any data.
 */
export class MsixTable {
  readonly #table: Uint8Array;
  readonly #view: DataView;
  readonly #pending: Uint8Array;
  #enabled = false;
  #masked = false;

  /** @param send - sends a message */
  constructor(
    /** Number of vectors. */
    readonly vectors: number,
    private readonly send: (message: MsiMessage) => void,
  ) {
    this.#table = new Uint8Array(vectors * MSIX_ENTRY_SIZE);
    this.#view = new DataView(this.#table.buffer);
    this.#pending = new Uint8Array(8 * Math.ceil(vectors / 64));
    this.reset();
  }

  /** Bytes of the table. */
  get tableSize(): number {
    return this.#table.length;
  }

  /** Bytes of the pending bits. */
  get pendingSize(): number {
    return this.#pending.length;
  }

  /** A read of the table; 0 behind its end. */
  readTable(offset: number, width: AccessWidth): number {
    return read(this.#table, offset, width);
  }

  /** A read of the pending bits, which no write changes. */
  readPending(offset: number, width: AccessWidth): number {
    return read(this.#pending, offset, width);
  }

  /** A write to the table, of any width: reserved bits stay 0. What was pending and is unmasked goes out. */
  writeTable(offset: number, width: AccessWidth, value: number): void {
    for (let i = 0; i < width; i++) {
      const at = offset + i;
      if (at < 0 || at >= this.#table.length) continue;
      const place = at % MSIX_ENTRY_SIZE;
      let byte = (value >>> (8 * i)) & 0xff;
      if (place === MSIX_ENTRY_OFF_ADDRESS) byte &= 0xfc;
      else if (place === MSIX_ENTRY_OFF_CONTROL) byte &= MSIX_ENTRY_MASKED;
      else if (place > MSIX_ENTRY_OFF_CONTROL) byte = 0;
      this.#table[at] = byte;
    }
    const first = Math.max(0, Math.floor(offset / MSIX_ENTRY_SIZE));
    const last = Math.min(this.vectors - 1, Math.floor((offset + width - 1) / MSIX_ENTRY_SIZE));
    for (let vector = first; vector <= last; vector++) this.#flush(vector);
  }

  /** Message control changed. */
  control(enabled: boolean, masked: boolean): void {
    this.#enabled = enabled;
    this.#masked = masked;
    for (let vector = 0; vector < this.vectors; vector++) this.#flush(vector);
  }

  /** Interrupts by a vector: now, or when it is unmasked. Nothing happens while MSI-X is off, or for no such vector. */
  notify(vector: number): void {
    if (!this.#enabled || vector >= this.vectors) return;
    this.#pending[vector >>> 3] = (this.#pending[vector >>> 3] as number) | (1 << (vector & 7));
    this.#flush(vector);
  }

  /** True when the vector is masked and has something to say. */
  isPending(vector: number): boolean {
    return (((this.#pending[vector >>> 3] ?? 0) >>> (vector & 7)) & 1) === 1;
  }

  /** Forgets what is pending: the device was reset. The table stays as the guest wrote it. */
  clearPending(): void {
    this.#pending.fill(0);
  }

  /** Table and pending bits, as plain data. */
  save(): StateValue {
    return { table: this.#table.slice(), pending: this.#pending.slice() };
  }

  /** Becomes what was saved, as if a guest had written it; nothing is sent. @throws StateError */
  restore(state: StateReader, enabled: boolean, masked: boolean): void {
    const table = state.get("table").bytes(this.#table.length);
    this.#enabled = false;
    for (const [at, byte] of table.entries()) this.writeTable(at, 1, byte);
    const pending = state.get("pending");
    this.#pending.set(pending.bytes(this.#pending.length));
    for (let vector = this.vectors; vector < 8 * this.#pending.length; vector++) {
      if (!this.isPending(vector)) continue;
      this.#pending.fill(0);
      pending.fail(`there are ${this.vectors} vectors, and ${vector} is pending`);
    }
    this.#enabled = enabled;
    this.#masked = masked;
  }

  /** The machine was reset: all vectors are masked (section 6.8.2.9), none is pending. */
  reset(): void {
    this.#enabled = this.#masked = false;
    this.#pending.fill(0);
    this.#table.fill(0);
    for (let vector = 0; vector < this.vectors; vector++)
      this.#table[vector * MSIX_ENTRY_SIZE + MSIX_ENTRY_OFF_CONTROL] = MSIX_ENTRY_MASKED;
  }

  #flush(vector: number): void {
    if (!this.#enabled || this.#masked || !this.isPending(vector)) return;
    const entry = vector * MSIX_ENTRY_SIZE;
    const view = this.#view;
    if ((view.getUint8(entry + MSIX_ENTRY_OFF_CONTROL) & MSIX_ENTRY_MASKED) !== 0) return;
    this.#pending[vector >>> 3] = (this.#pending[vector >>> 3] as number) & ~(1 << (vector & 7));
    this.send({
      address:
        view.getUint32(entry + MSIX_ENTRY_OFF_ADDRESS_HIGH, true) * 2 ** 32 +
        view.getUint32(entry + MSIX_ENTRY_OFF_ADDRESS, true),
      data: view.getUint32(entry + MSIX_ENTRY_OFF_DATA, true),
    });
  }
}

function read(bytes: Uint8Array, offset: number, width: AccessWidth): number {
  let value = 0;
  for (let i = 0; i < width; i++) value += (bytes[offset + i] ?? 0) * 2 ** (8 * i);
  return value;
}
