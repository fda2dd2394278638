import type { EmulatorHooks } from "vbus/emulators";
import { AddressSpace } from "./address-space.js";
import { StateError, type StateReader, type StateValue } from "vbus/state";
import { Cpu } from "./cpu.js";
import { MEIP, MTIP } from "./csr.js";
import { Console, InterruptController, powerRegister, Timer } from "./devices.js";
import { ToyHost } from "./host.js";

const PAGE = 65536;
/** Instructions between two looks at timer, hooks and interrupts from outside: about a millisecond. */
const SLICE = 50_000;
/** Longest that a guest runs before the event loop gets its turn, in ms. */
const TURN_MS = 4;
/** Longest sleep of an idle machine, in ms: bounds what a host that forgets to wake it could do. */
const SLEEP_MS = 100;

/** What a {@link ToyMachine} is made of. */
export interface ToyMachineOptions {
  /** What RAM begins with: the guest's program. */
  readonly program: Uint8Array;
  /** Bytes of RAM; default 16 MiB. Rounded up to 64 KiB. */
  readonly ramSize?: number;
  /** Gets what the guest prints. */
  readonly print?: (byte: number) => void;
  /** Time in ms; default the real one. */
  readonly now?: () => number;
}

/**
 * A complete small machine: one RISC-V hart, RAM, console, timer, interrupt controller, a power register, and room for what
 * is attached from outside. Everything runs in one thread.
 */
export class ToyMachine {
  /** Guest RAM lies in it, and what is private: page 0 stays unused, RAM follows, private memory behind it. */
  readonly memory: WebAssembly.Memory;
  /** Where RAM starts in the memory. */
  readonly ramAddress = PAGE;
  /** Bytes of RAM. */
  readonly ramSize: number;
  /** Registers. */
  readonly space = new AddressSpace();
  /** The hart. */
  readonly cpu: Cpu;
  /** The interrupt controller. */
  readonly interrupts: InterruptController;
  /** The console. */
  readonly console: Console;
  /** This machine, as `vbus/emulators` sees it. */
  readonly host: ToyHost;
  readonly #timer: Timer;
  readonly #now: () => number;
  readonly #program: Uint8Array;
  readonly #hooks = new Set<EmulatorHooks>();
  #exitCode: number | null = null;
  #stopped = false;
  #resetting = false;
  #running = false;
  #standstill = Promise.resolve();
  #wake: (() => void) | null = null;

  constructor(options: ToyMachineOptions) {
    const { program, ramSize = 16 << 20, print = () => undefined, now = () => performance.now() } = options;
    this.ramSize = Math.ceil(ramSize / PAGE) * PAGE;
    if (program.length > this.ramSize)
      throw new RangeError(`a program of ${program.length} bytes does not fit ${this.ramSize} bytes of RAM`);
    this.#now = now;
    this.#program = program;
    this.memory = new WebAssembly.Memory({ initial: 1 + this.ramSize / PAGE });
    this.cpu = new Cpu(
      { memory: this.memory, address: this.ramAddress, size: this.ramSize },
      this.space,
      () => this.#timer.ticks,
    );
    this.#timer = new Timer(now, (asserted) => {
      this.cpu.setPending(MTIP, asserted);
    });
    this.interrupts = new InterruptController((asserted) => {
      this.cpu.setPending(MEIP, asserted);
      if (asserted) this.wake();
    });
    this.console = new Console(print);
    for (const registers of [this.interrupts.registers, this.#timer.registers, this.console.registers])
      this.space.map(registers);
    this.space.map(
      powerRegister(
        (code) => {
          this.#exitCode = code;
          this.cpu.endSlice();
        },
        () => {
          this.#resetting = true; // not in the middle of an instruction
          this.cpu.endSlice();
        },
      ),
    );
    this.host = new ToyHost(this);
    this.#load();
  }

  #load(): void {
    const ram = new Uint8Array(this.memory.buffer, this.ramAddress, this.ramSize);
    ram.fill(0);
    ram.set(this.#program);
  }

  /** Calls these between slices, until what it returns is called. */
  hook(hooks: EmulatorHooks): () => void {
    this.#hooks.add(hooks);
    return () => {
      this.#hooks.delete(hooks);
    };
  }

  /** Ends the sleep of an idle machine: something may have happened. */
  wake(): void {
    this.#wake?.();
  }

  /** Runs until the guest switches itself off (its exit code) or {@link ToyMachine.stop} is called (null). */
  async run(): Promise<number | null> {
    if (this.#running) throw new Error("this machine is running already");
    this.#running = true;
    this.#stopped = false;
    let standsStill = (): void => undefined;
    this.#standstill = new Promise((resolve) => {
      standsStill = resolve;
    });
    const channel = new MessageChannel();
    try {
      while (!this.#over) {
        for (const hooks of this.#hooks) hooks.enter();
        this.#turn();
        if (this.cpu.idle) await this.#sleep();
        else await nextTurn(channel);
      }
    } finally {
      channel.port1.close();
      this.#running = false;
      standsStill();
    }
    return this.#exitCode;
  }

  /** Slices, until it is the event loop's turn. */
  #turn(): void {
    const end = this.#now() + TURN_MS;
    do {
      this.step(SLICE);
    } while (!this.#over && !this.cpu.idle && this.#now() < end);
  }

  get #over(): boolean {
    return this.#exitCode !== null || this.#stopped;
  }

  /** One slice of at most so many instructions, and what is to be done after it. */
  step(instructions: number): void {
    if (this.#resetting) this.reset(); // somebody else than the guest wrote to the register
    this.#timer.update();
    this.cpu.run(instructions);
    if (this.#resetting) this.reset();
    for (const hooks of this.#hooks) hooks.between();
  }

  /** As at power-on, with all that is attached. Not from within an access: the guest has a register for that. */
  reset(): void {
    this.#resetting = false;
    for (const hooks of this.#hooks) hooks.reset();
    this.interrupts.reset();
    this.#timer.reset();
    this.cpu.reset();
    this.#load();
  }

  /** Until something wakes it, or the guest's timer has run down. */
  #sleep(): Promise<void> {
    return new Promise((resolve) => {
      const finish = (): void => {
        clearTimeout(timeout);
        this.#wake = null;
        resolve();
      };
      const timeout = setTimeout(finish, Math.min(SLEEP_MS, this.#timer.remaining));
      this.#wake = finish;
    });
  }

  /** What is the machine's own of its state: RAM, hart, console, timer, interrupt controller. Not while it runs. */
  save(): StateValue {
    return {
      ram: new Uint8Array(this.memory.buffer, this.ramAddress, this.ramSize),
      cpu: this.cpu.save(),
      timer: this.#timer.save(),
      interrupts: this.interrupts.save(),
      console: this.console.save(),
    };
  }

  /** Refuses a state that cannot be this machine's, and changes nothing. @throws StateError */
  check(state: StateReader): void {
    const { length } = state.get("ram").borrow(2 ** 32);
    if (length !== this.ramSize)
      throw new StateError("mismatch", `the state has ${length} bytes of RAM, this machine ${this.ramSize}`);
  }

  /** It is what was saved, and not switched off. Not while it runs. @throws StateError; then it is neither: reset it */
  restore(state: StateReader): void {
    this.check(state);
    this.#exitCode = null;
    this.#resetting = false;
    new Uint8Array(this.memory.buffer, this.ramAddress, this.ramSize).set(
      state.get("ram").borrow(this.ramSize),
    );
    this.cpu.restore(state.get("cpu"));
    this.#timer.restore(state.get("timer"));
    this.interrupts.restore(state.get("interrupts"));
    this.console.restore(state.get("console"));
  }

  /** Stops it, and waits until it stands still. */
  async halt(): Promise<void> {
    this.stop();
    await this.#standstill;
  }

  /** Ends {@link ToyMachine.run} soon; it may be called again. */
  stop(): void {
    this.#stopped = true;
    this.cpu.endSlice();
    this.wake();
  }
}

/** Lets the event loop have its turn: sooner than a timer, in Node and in browsers. */
function nextTurn({ port1, port2 }: MessageChannel): Promise<void> {
  return new Promise((resolve) => {
    port1.onmessage = () => {
      resolve();
    };
    port2.postMessage(0);
  });
}
