import type { InterruptLine, RegisterBlock } from "vbus/emulators";
import { VbusError } from "vbus";
import type { StateReader, StateValue } from "vbus/state";
import { CONSOLE_BASE, INTERRUPTS_BASE, POWER_BASE, TIMER_BASE } from "./map.js";

/** Lines of the interrupt controller. Line 0 does not exist. */
const LINES = 32;

const PAGE = 0x1000;
const PENDING = 0;
const ENABLE = 4;

/** The interrupt controller: 31 level-triggered lines, one output. */
export class InterruptController {
  #levels = 0;
  #enabled = 0;
  readonly #taken = new Set<number>();

  /** @param output - sets the level of the hart's external interrupt */
  constructor(private readonly output: (asserted: boolean) => void) {}

  /** Opens a line. @throws VbusError EINVAL when there is no such line; EBUSY when it is taken */
  open(line: number): InterruptLine {
    if (!Number.isInteger(line) || line < 1 || line >= LINES)
      throw new VbusError("EINVAL", `interrupt line ${line}; there are 1 to ${LINES - 1}`);
    if (this.#taken.has(line)) throw new VbusError("EBUSY", `interrupt line ${line} is taken`);
    this.#taken.add(line);
    let open = true;
    const set = (asserted: boolean): void => {
      if (!open) return;
      this.#levels = asserted ? this.#levels | (1 << line) : this.#levels & ~(1 << line);
      this.#update();
    };
    return {
      set,
      close: () => {
        set(false);
        if (open) this.#taken.delete(line);
        open = false;
      },
    };
  }

  /** Levels and what is enabled, as plain data. */
  save(): StateValue {
    return { levels: this.#levels >>> 0, enabled: this.#enabled >>> 0 };
  }

  /** They are what was saved. @throws StateError for a line that is up, and nobody's */
  restore(state: StateReader): void {
    const levels = state.get("levels").number(0, 0xffffffff);
    const enabled = state.get("enabled").number(0, 0xffffffff);
    for (let line = 0; line < LINES; line++)
      if (((levels >>> line) & 1) !== 0 && !this.#taken.has(line))
        state.get("levels").fail(`line ${line} is up, and nobody has it`);
    this.#levels = levels | 0;
    this.#enabled = enabled & ~1;
    this.#update();
  }

  /** The machine was reset: nothing is enabled. Levels are the devices' own. */
  reset(): void {
    this.#enabled = 0;
    this.#update();
  }

  #update(): void {
    this.output((this.#levels & this.#enabled) !== 0);
  }

  /** Its registers. */
  readonly registers: RegisterBlock = {
    kind: "memory",
    address: INTERRUPTS_BASE,
    size: PAGE,
    read: (offset) => (offset === PENDING ? this.#levels : offset === ENABLE ? this.#enabled : 0) >>> 0,
    write: (offset, width, value) => {
      if (offset !== ENABLE || width !== 4) return;
      this.#enabled = value & ~1;
      this.#update();
    },
  };
}

const COMPARE = 0x4000;
const TIME = 0xbff8;
const TIMER_SIZE = 0x10000;
/** Ticks of the timer in a millisecond: 1 MHz. */
export const TICKS_PER_MS = 1000;

/** The timer: `mtime` counts up, and interrupts from `mtimecmp` on. */
export class Timer {
  /** When it counted 0. */
  #start: number;
  #compareLow = 0xffffffff;
  #compareHigh = 0xffffffff;

  /**
   * @param now - time in ms
   * @param output - sets the level of the hart's timer interrupt
   */
  constructor(
    private readonly now: () => number,
    private readonly output: (asserted: boolean) => void,
  ) {
    this.#start = now();
  }

  /** What it counted. */
  get ticks(): number {
    return Math.floor((this.now() - this.#start) * TICKS_PER_MS);
  }

  get #compare(): number {
    return this.#compareHigh * 2 ** 32 + this.#compareLow;
  }

  /** How long until it interrupts, in ms; may be Infinity. */
  get remaining(): number {
    return Math.max(0, (this.#compare - this.ticks) / TICKS_PER_MS);
  }

  /** Raises its interrupt when the time has come: to be called now and then, time passes by itself. */
  update(): void {
    this.output(this.ticks >= this.#compare);
  }

  /** Its registers, as plain data. */
  save(): StateValue {
    return { ticks: this.ticks, compare: [this.#compareLow, this.#compareHigh] };
  }

  /** They are what was saved: time stood still meanwhile. @throws StateError */
  restore(state: StateReader): void {
    const ticks = state.get("ticks").number(0, Number.MAX_SAFE_INTEGER);
    const [low, high] = state
      .get("compare")
      .tuple(2)
      .map((at) => at.number(0, 0xffffffff)) as [number, number];
    this.#start = this.now() - ticks / TICKS_PER_MS;
    [this.#compareLow, this.#compareHigh] = [low, high];
    this.update();
  }

  /** The machine was reset: it never interrupts. */
  reset(): void {
    this.#compareLow = this.#compareHigh = 0xffffffff;
    this.update();
  }

  /** Its registers. */
  readonly registers: RegisterBlock = {
    kind: "memory",
    address: TIMER_BASE,
    size: TIMER_SIZE,
    read: (offset, width) => {
      if (width !== 4) return 0;
      switch (offset) {
        case COMPARE:
          return this.#compareLow;
        case COMPARE + 4:
          return this.#compareHigh;
        case TIME:
          return this.ticks % 2 ** 32;
        case TIME + 4:
          return Math.floor(this.ticks / 2 ** 32);
        default:
          return 0;
      }
    },
    write: (offset, width, value) => {
      if (width !== 4) return;
      if (offset === COMPARE) this.#compareLow = value;
      else if (offset === COMPARE + 4) this.#compareHigh = value;
      this.update();
    },
  };
}

const DATA = 0;
const LINE_STATUS = 5;
const DATA_READY = 0x01;
const TRANSMITTER_EMPTY = 0x60;
/** A machine may have no keyboard but a program that types: what nobody reads is bounded. */
const INPUT_MAX = 4096;

/** The console: what the guest prints, byte by byte, and what is typed, for guests that poll. */
export class Console {
  readonly #input: number[] = [];

  /** @param output - gets each byte */
  constructor(private readonly output: (byte: number) => void) {}

  /** What was typed and not read, as plain data. */
  save(): StateValue {
    return Uint8Array.from(this.#input);
  }

  /** It is what was saved. @throws StateError */
  restore(state: StateReader): void {
    this.#input.splice(0, Infinity, ...state.bytes(0, INPUT_MAX));
  }

  /** Types. Returns how many bytes there was room for. */
  type(bytes: Uint8Array): number {
    const taken = bytes.subarray(0, INPUT_MAX - this.#input.length);
    this.#input.push(...taken);
    return taken.length;
  }

  /** Its registers. */
  readonly registers: RegisterBlock = {
    kind: "memory",
    address: CONSOLE_BASE,
    size: 8,
    read: (offset) => {
      if (offset === DATA) return this.#input.shift() ?? 0;
      if (offset === LINE_STATUS) return TRANSMITTER_EMPTY | (this.#input.length > 0 ? DATA_READY : 0);
      return 0;
    },
    write: (offset, _width, value) => {
      if (offset === DATA) this.output(value & 0xff);
    },
  };
}

const POWER_OFF = 0x5555;
const POWER_RESET = 0x7777;

/** The power register. @param off - the guest switched itself off, with an exit code; @param reset - it wants a reset */
export function powerRegister(off: (code: number) => void, reset: () => void): RegisterBlock {
  return {
    kind: "memory",
    address: POWER_BASE,
    size: 4,
    read: () => 0,
    write: (_offset, width, value) => {
      if (width !== 4) return;
      if ((value & 0xffff) === POWER_OFF) off(value >>> 16);
      else if ((value & 0xffff) === POWER_RESET) reset();
    },
  };
}
