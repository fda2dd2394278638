/** Traffic between two network cards that are saved meanwhile: the same for every driver. */
import { expectFrames, testFrame } from "../venet/machine.js";

const FRAMES = 1500;

/** A card's driver, as far as it is needed here. */
interface Card {
  readonly mac: Uint8Array;
  send(frames: readonly Uint8Array[]): Promise<void>;
  receive(): Promise<Uint8Array[]>;
}

/** Test frames; a restored card also announces itself. */
const isOurs = (frame: Uint8Array): boolean => frame[12] === 0x88 && frame[13] === 0xb5;

/** The switch learns where both are: what it floods never waits. */
export async function introduce(a: Card, b: Card): Promise<void> {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    await from.send([testFrame(to.mac, from.mac, 60, 0)]);
    while ((await to.receive()).length === 0);
  }
}

/** Sends frames of all sizes from one card to the other, and expects each of them once, in order and unchanged. */
export async function sendFrames(from: Card, to: Card): Promise<void> {
  const sent = Array.from({ length: FRAMES }, (_, i) => testFrame(to.mac, from.mac, 60 + (i % 1400), i));
  const received: Uint8Array[] = [];
  const sending = from.send(sent);
  while (received.length < sent.length) received.push(...(await to.receive()).filter(isOurs));
  await sending;
  expectFrames(received, sent);
}
