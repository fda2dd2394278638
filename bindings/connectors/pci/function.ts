import {
  BAR0_OFF_DATAP,
  BAR0_OFF_LEN,
  BAR0_OFF_VECTOR,
  BAR0_SIZE,
  INTX_STATUS_RAISED,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PORT_INTX_STATUS,
} from "../../../assembly/abi/pci.js";
import { BRIDGE_QREG, PORT_EVENTQ, PORT_FASTCALL, PORT_SHMSIGNAL } from "../../../assembly/abi/vbus.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { RestoreOptions, Saveable } from "../../state/saveable.js";
import type { BridgeCounters, BridgeHost } from "../bridge/host.js";
import { guardInterrupt, InterruptLine } from "../interrupt-line.js";
import { openBridge, type BridgeAttachOptions } from "../bridge/open.js";
import { bridgeConfigSpace, type PciConfigOptions } from "./bridge-config.js";
import type { AccessWidth, ConfigChange, PciConfigSpace } from "./config-space.js";

/**
 * Where a function's interrupts go: the emulator. Both methods may be called from within any access that the emulator
 * passes on, from tasks of the scheduler, and from the emulator's own hooks; an emulator that must not touch its
 * interrupt controller in some of these keeps it for later.
 */
export interface PciInterruptSink {
  /** Sends a message-signalled interrupt: a 32-bit write of `data` to guest-physical `address`. An edge. */
  msi(address: number, data: number): void;
  /** Sets the level of the INTA line. Told only when it changes. */
  setLine(asserted: boolean): void;
}

/** How a {@link PciBridge} is wired. */
export interface PciBridgeOptions extends BridgeAttachOptions {
  /** Where interrupts go. */
  readonly interrupts: PciInterruptSink;
  /** Fixed addresses, for emulators whose BARs cannot move. */
  readonly config?: PciConfigOptions;
  /** What a saved state finds it by; default `bridge`. */
  readonly stateName?: string;
}

/** What a bridge counted. */
export interface PciBridgeCounters extends BridgeCounters {
  /** Fastcall doorbells. */
  fastcallDoorbells: number;
  /** Messages sent (MSI). */
  messages: number;
  /** Times the INTA line was raised. */
  lines: number;
  /** Interrupts that wait because the guest has switched off the way they would go. */
  withheld: number;
  /** Times the guest acknowledged INTx by reading its status. */
  acknowledged: number;
  /**
   * Accesses to registers that nothing answers: of another width or at another offset; doorbells of a queue or a fastcall
   * channel that does not exist.
   */
  ignored: number;
}

/**
 * The PCI bridge (`docs/abi/vbus-pci.md`, PCI ABI 2): a PCI function that puts one bus in front of one guest. It knows no
 * emulator: accesses come in through `config…`, `bar0…` and `bar1…`, interrupts go out through the sink, memory is a
 * `MemorySpace`. Used by the emulator's thread.
 *
 * Accesses come from a guest and never throw. All bus work happens inside the access that asks for it, as the ABI says;
 * events and doorbells are tasks of the scheduler.
 */
export class PciBridge implements Saveable {
  /** As `Saveable.stateName` says: `bridge`, or what the options said. */
  readonly stateName: string;
  /** Configuration space. */
  readonly config: PciConfigSpace;
  /** Calls, events and signals of the guest. */
  readonly bridge: BridgeHost;
  readonly #options: PciBridgeOptions;
  readonly #registers = new Uint8Array(BAR0_SIZE);
  readonly #view = new DataView(this.#registers.buffer);
  /** MSI was enabled at QREG: from then on interrupts are messages, with the current address and data. */
  #messages = false;
  /** An interrupt that was raised and not acknowledged (INTx), or that could not be sent yet (MSI). */
  #pending = false;
  readonly #line: InterruptLine;
  #counters = { fastcallDoorbells: 0, messages: 0, withheld: 0, acknowledged: 0, ignored: 0 };

  /** @throws VbusError EPERM when the member was not admitted; ENOMEM; EINVAL for addresses that no BAR can hold */
  constructor(options: PciBridgeOptions) {
    this.#options = options;
    this.stateName = options.stateName ?? "bridge";
    this.config = bridgeConfigSpace(options.config);
    this.#line = new InterruptLine((asserted) => {
      options.interrupts.setLine(asserted);
    }, options.onError);
    this.bridge = openBridge(options, {
      interrupt: () => {
        this.#interrupt();
      },
      ended: () => {
        this.#quiet();
      },
    });
  }

  /** A configuration read; unsigned. */
  configRead(offset: number, width: AccessWidth): number {
    return this.config.read(offset, width);
  }

  /** A configuration write. A 1 → 0 edge of bus mastering or I/O decoding resets the bridge (section 10.4). */
  configWrite(offset: number, width: AccessWidth, value: number): void {
    this.#configChanged(this.config.write(offset, width, value));
  }

  /** {@link PciBridge.configWrite} for emulators that keep configuration spaces themselves: what they stored. */
  configWritten(offset: number, bytes: Uint8Array): void {
    this.#configChanged(this.config.written(offset, bytes));
  }

  #configChanged(change: ConfigChange): void {
    // several drivers of 2009 never set bus mastering at all
    if ((change.cleared & (PCI_COMMAND_MASTER | PCI_COMMAND_IO)) !== 0) this.#stop();
    if (change.interrupts) this.#deliver();
  }

  /**
   * A read of BAR 0: 32 bits at offset 0 make the bridge call that the registers describe and return its result, unsigned;
   * anything else is 0 and does nothing. An acknowledge for guests that never read the INTx status.
   */
  bar0Read(offset: number, width: AccessWidth): number {
    if (offset !== BAR0_OFF_VECTOR || width !== 4) {
      this.#counters.ignored++;
      return 0;
    }
    this.#acknowledge();
    const view = this.#view;
    const vector = view.getUint32(BAR0_OFF_VECTOR, true);
    if (vector === BRIDGE_QREG && !this.bridge.registered) {
      this.#messages = this.config.msi !== null;
      // a guest that does not know the status register acknowledges INTx by this doorbell only
      this.bridge.listenToEventq(!this.#messages);
    }
    const result = this.bridge.call(
      vector,
      view.getUint32(BAR0_OFF_LEN, true),
      view.getUint32(BAR0_OFF_DATAP, true),
      view.getUint32(BAR0_OFF_DATAP + 4, true),
    );
    if (!this.bridge.registered) this.#quiet(); // NEGOTIATE: the old incarnation interrupts no more
    return result >>> 0;
  }

  /** A write to BAR 0, of any width: stored, in as far as it lies inside. */
  bar0Write(offset: number, width: AccessWidth, value: number): void {
    if (offset < 0 || offset >= BAR0_SIZE) this.#counters.ignored++;
    for (let i = 0; i < width; i++) {
      const at = offset + i;
      if (at >= 0 && at < BAR0_SIZE) this.#registers[at] = value >>> (8 * i);
    }
  }

  /** A read of BAR 1: 32 bits at +12 return and clear the INTx status and lower the line; anything else is 0. */
  bar1Read(offset: number, width: AccessWidth): number {
    if (offset !== PORT_INTX_STATUS || width !== 4) {
      this.#counters.ignored++;
      return 0;
    }
    this.bridge.listenToEventq(false); // it knows the register
    if (this.#messages || !this.#pending) return 0;
    this.#counters.acknowledged++;
    this.#acknowledge();
    return INTX_STATUS_RAISED;
  }

  /** A write to BAR 1: a doorbell, when it is 32 bits wide and at one of the doorbells' offsets. */
  bar1Write(offset: number, width: AccessWidth, value: number): void {
    const argument = value >>> 0;
    if (width === 4) {
      switch (offset) {
        case PORT_EVENTQ:
          if (argument !== 0) break; // only queue 0 exists
          this.#acknowledge();
          this.bridge.eventqDoorbell();
          return;
        case PORT_FASTCALL:
          this.#counters.fastcallDoorbells++;
          if (this.bridge.fastcall(argument)) return;
          break;
        case PORT_SHMSIGNAL:
          this.bridge.shmSignal(argument);
          return;
      }
    }
    this.#counters.ignored++;
  }

  /** The machine was reset: configuration space and bridge are what they were at the start. */
  machineReset(): void {
    this.#stop();
    this.config.reset();
    this.#registers.fill(0);
  }

  /** True while the INTA line is up. */
  get line(): boolean {
    return this.#line.asserted;
  }

  /** As `Saveable.settle` says. @throws VbusError EOPNOTSUPP */
  async settle(): Promise<void> {
    await this.bridge.settle();
  }

  /** As `Saveable.hold` says. */
  hold(): void {
    this.bridge.hold();
  }

  /** As `Saveable.release` says. */
  release(): void {
    this.bridge.release();
  }

  /** As `Saveable.save` says. */
  save(): StateValue {
    return {
      config: this.config.image(),
      registers: this.#registers.slice(),
      messages: this.#messages,
      pending: this.#pending,
      line: this.#line.asserted,
      bridge: this.bridge.save(),
    };
  }

  /** As `Saveable.check` says. @throws StateError */
  check(state: StateReader): void {
    this.bridge.check(state.get("bridge"));
  }

  /** As `Saveable.clear` says. */
  clear(): void {
    this.machineReset();
  }

  /** As `Saveable.restore` says; the emulator's interrupt controller knows the level of the line. @throws StateError; VbusError ENOMEM */
  restore(state: StateReader, options: RestoreOptions = {}): void {
    try {
      this.config.restore(state.get("config"));
      this.#registers.set(state.get("registers").bytes(BAR0_SIZE));
      this.#messages = state.get("messages").boolean();
      this.#pending = state.get("pending").boolean();
      this.config.setInterruptStatus(this.#raised);
      this.#line.restore(state.get("line"), this.#lineWanted);
      this.bridge.restore(state.get("bridge"), options);
    } catch (error) {
      this.machineReset();
      throw error;
    }
  }

  /** As `Saveable.restored` says: the guest looks at its events again, whatever became of an interrupt. */
  restored(): void {
    if (this.bridge.registered) this.#interrupt();
  }

  /** What was counted so far. */
  counters(): PciBridgeCounters {
    return { ...this.bridge.counters(), ...this.#counters, lines: this.#line.raised };
  }

  /** Ends everything, lowers the line, gives the arena back what the bridge took. Twice is harmless. */
  close(): void {
    this.#quiet();
    this.bridge.close();
  }

  #stop(): void {
    this.#quiet();
    this.bridge.reset();
  }

  /** Nothing of what was registered may interrupt any more, by the way that was in force then (defect P9). */
  #quiet(): void {
    this.#messages = false;
    this.#pending = false;
    this.#deliver();
  }

  /** INTx only: the guest has seen the interrupt. Messages are edges, which nobody takes back. */
  #acknowledge(): void {
    if (this.#messages || !this.#pending) return;
    this.#pending = false;
    this.#deliver();
  }

  #interrupt(): void {
    this.#pending = true;
    if (!this.#deliver()) this.#counters.withheld++;
  }

  /**
   * Lets out what waits, by the way that was chosen at QREG, as the configuration space allows at this moment. False when it
   * does not allow it.
   */
  #deliver(): boolean {
    const { config } = this;
    const { interrupts, onError } = this.#options;
    const message = config.msi;
    if (this.#messages && this.#pending && message !== null) {
      this.#pending = false;
      this.#counters.messages++;
      guardInterrupt(() => {
        interrupts.msi(message.address, message.data);
      }, onError);
    }
    config.setInterruptStatus(this.#raised);
    this.#line.asserted = this.#lineWanted;
    return this.#line.asserted || !this.#pending;
  }

  /** An INTx interrupt is pending. */
  get #raised(): boolean {
    return this.#pending && !this.#messages;
  }

  /** Level that the line has to have. A function with MSI enabled must not use it (PCI 3.0 section 6.8.1.3). */
  get #lineWanted(): boolean {
    return this.#raised && !this.config.intxDisabled && this.config.msi === null;
  }
}
