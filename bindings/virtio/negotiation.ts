import type { StateReader } from "../state/reader.js";
import { mayHave, offeredFeatures, type VirtioRingOptions } from "./features.js";
import type { VirtioFace } from "./types.js";

const FEATURE_WORDS = 4;

/** 32 of the bits; word 0 holds bits 0 to 31. */
const wordOf = (features: bigint, word: number): number =>
  Number((features >> BigInt(32 * word)) & 0xffffffffn);

/** What a driver chose, as it is saved. */
export interface SavedChoice {
  /** Words of 32 bits, the lowest first. */
  readonly chosen: readonly number[];
  /** Bits beyond them were chosen, too. */
  readonly excess: boolean;
}

/**
 * What a device offers, and what a driver has chosen of it so far (virtio 1.2: 2.2), in words of 32 bits as registers have
 * them. Whether the choice still counts is a matter of the status.
 */
export class FeatureNegotiation {
  #offered: bigint | null = null;
  readonly #chosen = new Uint32Array(FEATURE_WORDS);
  /** A driver wrote bits beyond those that can be offered at all. */
  #excess = false;

  /**
   * @param face - the device
   * @param rings - what is offered of rings and transport
   */
  constructor(
    private readonly face: VirtioFace,
    private readonly rings: VirtioRingOptions,
  ) {}

  /** What is offered, from the first look after a reset on. */
  get offered(): bigint {
    this.#offered ??= offeredFeatures(this.face, this.rings);
    return this.#offered;
  }

  /** 32 of the offered bits; word 0 holds bits 0 to 31. */
  offeredWord(word: number): number {
    return word < FEATURE_WORDS ? wordOf(this.offered, word) : 0;
  }

  /** 32 of the bits that the driver chose. */
  chosenWord(word: number): number {
    return this.#chosen[word] ?? 0;
  }

  /** All bits that the driver chose. */
  get choice(): bigint {
    return this.#chosen.reduce((all, word, i) => all | (BigInt(word) << BigInt(32 * i)), 0n);
  }

  /** The driver chooses 32 bits. */
  chooseWord(word: number, value: number): void {
    if (word < FEATURE_WORDS) this.#chosen[word] = value;
    else if (value !== 0) this.#excess = true;
  }

  /** The driver chooses all bits at once. */
  choose(features: bigint): void {
    for (let word = 0; word < FEATURE_WORDS; word++) this.#chosen[word] = wordOf(features, word);
    this.#excess = features >> BigInt(32 * FEATURE_WORDS) !== 0n;
  }

  /** Whether a driver may have what it chose. @throws what the face throws */
  get acceptable(): boolean {
    return !this.#excess && mayHave(this.face, this.offered, this.choice);
  }

  /** The device was reset: nothing is chosen, and what is offered is asked for anew. */
  reset(): void {
    this.#chosen.fill(0);
    this.#excess = false;
    this.#offered = null;
  }

  /** What was chosen, as plain data. */
  save(): SavedChoice {
    return { chosen: [...this.#chosen], excess: this.#excess };
  }

  /** Takes over what was saved, without a judgement. @throws StateError */
  restore(state: StateReader): void {
    const choice = readChoice(state);
    const excess = state.get("excess").boolean();
    this.choose(choice);
    this.#excess = excess;
  }
}

/** All bits of a saved {@link SavedChoice.chosen}. @throws StateError */
export function readChoice(state: StateReader): bigint {
  return state
    .get("chosen")
    .tuple(FEATURE_WORDS)
    .reduce((all, word, i) => all | (BigInt(word.number(0, 0xffffffff)) << BigInt(32 * i)), 0n);
}
