import type { StateReader, StateValue } from "../state/reader.js";
import type { VirtioFace } from "./types.js";

/**
 * The device configuration as registers: any width at any offset, and a generation that changes whenever a driver that reads
 * several pieces could see a mix of two states (virtio 1.2: 2.5).
 *
 * The device keeps its configuration, and may change it at any time. So every access compares the image with the one before;
 * the first to see another one counts a generation, at the latest the driver's second look at it.
 */
export class VirtioConfig {
  #image: Uint8Array<ArrayBuffer>;
  #next: Uint8Array<ArrayBuffer>;
  #generation = 0;

  constructor(
    private readonly face: VirtioFace,
    private readonly features: () => bigint,
    private readonly onError: (error: unknown) => void,
  ) {
    this.#image = new Uint8Array(face.configSize);
    this.#next = new Uint8Array(face.configSize);
    this.refresh();
  }

  /** Bytes. */
  get size(): number {
    return this.face.configSize;
  }

  /** Number of states that drivers could have seen, modulo 2^32. */
  get generation(): number {
    this.refresh();
    return this.#generation;
  }

  /** Little-endian, unsigned; 0 behind the end. */
  read(offset: number, width: 1 | 2 | 4): number {
    this.refresh();
    let value = 0;
    for (let i = 0; i < width; i++) value += (this.#image[offset + i] ?? 0) * 2 ** (8 * i);
    return value;
  }

  /** Hands the device those bytes that lie inside. */
  write(offset: number, width: 1 | 2 | 4, value: number): void {
    const inside = Math.min(width, this.size - offset);
    if (offset < 0 || inside <= 0) return;
    this.writeBytes(
      offset,
      Uint8Array.from({ length: inside }, (_, i) => value >>> (8 * i)),
    );
  }

  /** Hands the device any number of bytes, all of which lie inside. They are its own. */
  writeBytes(offset: number, bytes: Uint8Array): void {
    try {
      this.face.writeConfig(offset, bytes, this.features());
    } catch (error) {
      this.onError(error);
    }
  }

  /** A copy of the whole image, from one state. */
  image(): Uint8Array<ArrayBuffer> {
    this.refresh();
    return this.#image.slice();
  }

  /** Number of states that drivers could have seen, as plain data. */
  save(): StateValue {
    return { image: this.image(), generation: this.#generation };
  }

  /** Takes over what a driver has seen: what is different now is a change like any other. @throws StateError */
  restore(state: StateReader): void {
    this.#image = state.get("image").bytes(this.size);
    this.#generation = state.get("generation").number(0, 0xffffffff);
    this.refresh();
  }

  /** Looks whether the device changed it. */
  refresh(): void {
    const next = this.#next;
    next.fill(0);
    try {
      this.face.readConfig(next, this.features());
    } catch (error) {
      this.onError(error);
      return;
    }
    if (next.every((byte, i) => byte === this.#image[i])) return;
    this.#next = this.#image;
    this.#image = next;
    this.#generation = (this.#generation + 1) >>> 0;
  }
}
