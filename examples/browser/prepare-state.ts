/**
 * Prints the file with the state of a booted guest that the page's guests start from; boots one first when there is none. For
 * `npm run page`: the page's machine is the one of `machine.ts` with the page's functions attached and a second serial line.
 */
import { attachVbus, attachVirtio } from "vbus/emulators/v86";
import { virtioNet } from "vbus/devices/virtio-net";
import { CARD_NAMES, CARD_PLACES, preparedAs } from "../linux/cards.js";
import { savedStateFile } from "../linux/machine.js";
import { readPieces } from "../linux/pieces.js";
import { MTU } from "./spare-network.js";

const closers: (() => void)[] = [];
const file = await savedStateFile({
  pieces: readPieces(),
  name: "a guest for the page",
  mtu: MTU,
  secondLine: true,
  preparedAs: preparedAs(CARD_NAMES).join("; "),
  prepare: async (emulator) => {
    const card = virtioNet({ name: "eth2", mtu: MTU });
    const [host, virtio] = await Promise.all([
      attachVbus(emulator, { devices: [] }),
      attachVirtio(emulator, { device: card, slot: CARD_PLACES.eth2.slot }),
    ]);
    closers.push(() => {
      virtio.close();
      card.close();
      host.close();
    });
  },
  progress: (message) => void process.stderr.write(`vbus: ${message}\n`),
});
for (const close of closers) close();
process.stdout.write(`${file}\n`);
