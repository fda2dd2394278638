import { AddressSpace } from "../../examples/toy-emulator/address-space.js";
import { Cpu } from "../../examples/toy-emulator/cpu.js";
import { RAM_BASE } from "../../examples/toy-emulator/map.js";

const RAM_ADDRESS = 65536;
const RAM_SIZE = 65536;

/** A hart with 64 KiB of RAM and nothing else, to put words in front of. */
export class Hart {
  readonly memory = new WebAssembly.Memory({ initial: 2 });
  readonly space = new AddressSpace();
  ticks = 0;
  readonly cpu = new Cpu(
    { memory: this.memory, address: RAM_ADDRESS, size: RAM_SIZE },
    this.space,
    () => this.ticks,
  );
  readonly view = new DataView(this.memory.buffer, RAM_ADDRESS, RAM_SIZE);

  /** @param words - a program at the first byte of RAM */
  constructor(words: readonly number[]) {
    this.put(RAM_BASE, words);
  }

  /** Puts words at an address. */
  put(address: number, words: readonly number[]): void {
    for (const [i, word] of words.entries()) this.view.setUint32(address - RAM_BASE + 4 * i, word, true);
  }

  /** The word at an address, signed. */
  word(address: number): number {
    return this.view.getInt32(address - RAM_BASE, true);
  }

  /** Executes so many instructions. */
  step(instructions = 1): this {
    const end = this.cpu.instructions + instructions;
    while (this.cpu.instructions < end && !this.cpu.idle) this.cpu.run(end - this.cpu.instructions);
    return this;
  }

  /** A register, signed. */
  x(index: number): number {
    return this.cpu.x[index] as number;
  }
}
