import { VIRTIO_CONSOLE_PORT_OPEN } from "../../../assembly/abi/virtio-console.js";
import { readChain, writeChain } from "../../engine/chain-bytes.js";
import { ChainTable } from "../../engine/chain-table.js";
import { VirtQueueWakeups } from "../../engine/virtqueue-wakeup.js";
import { VbusError } from "../../errors.js";
import type { Scheduler } from "../../scheduler.js";
import type { VirtioQueue } from "../../virtio/types.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { HangupReason, Terminal, TerminalLine } from "../vconsole/terminal.js";

/** Chains looked at at once. */
const BURST = 16;
/** Pieces of a chain. */
const PIECES = 64;
/** Bursts per run before other work of the thread gets its turn. */
const BURSTS_PER_RUN = 16;
/** Most bytes of one chain from the guest; drivers send pages. */
const CHUNK_MAX = 1 << 20;
/** Most bytes put into one chain for the guest. */
const INPUT_MAX = 1 << 16;

/** What a port needs of its session. */
export interface PortEnvironment {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** The machine is being saved or restored: guest memory must not be touched. */
  held(): boolean;
  /** Tells the guest about this port; does nothing where there is no control queue. */
  tell(event: number, value: number): void;
  /** The window size changed. */
  resized(): void;
  /** The guest broke a queue, or the host failed at it. */
  failed(error: unknown): void;
}

/** One of the two queues of a port. */
class Lane {
  readonly chains: ChainTable;
  readonly wakeups: VirtQueueWakeups;

  constructor(
    readonly queue: VirtioQueue,
    scheduler: Scheduler,
    run: () => void,
    failed: (error: unknown) => void,
  ) {
    this.chains = ChainTable.allocate(queue.ring.space, BURST, PIECES);
    this.wakeups = new VirtQueueWakeups(queue.ring, {
      scheduler,
      notifier: () => {
        this.wakeups.disable();
        run();
      },
      onBroken: failed,
    });
    queue.onKick = this.wakeups.wakeup;
  }

  get dead(): boolean {
    return this.queue.ring.closed || this.queue.ring.broken !== null;
  }

  close(): void {
    this.wakeups.close();
    this.queue.onKick = null;
    this.chains.close();
  }
}

/**
 * A port of virtio-console and the terminal behind it (virtio 1.2: 5.3.6): bytes both ways with back-pressure. A conversation is
 * on while the guest has its side open and the terminal is open, too; bytes of the guest outside of one are dropped and
 * counted by the terminal.
 */
export class ConsolePort implements TerminalLine {
  #rx: Lane | null = null;
  #tx: Lane | null = null;
  #guestOpen = false;
  /** A conversation is on. */
  #up = false;
  #scheduled = false;
  #running = false;
  #over = false;

  constructor(
    readonly terminal: Terminal,
    private readonly environment: PortEnvironment,
  ) {
    terminal.connect(this);
  }

  /** The driver set one of the port's queues up. @throws VbusError ENOMEM */
  setUp(direction: "rx" | "tx", queue: VirtioQueue): void {
    const lane = new Lane(
      queue,
      this.environment.scheduler,
      () => {
        this.run();
      },
      (error) => {
        this.environment.failed(error);
      },
    );
    if (direction === "rx") this.#rx = lane;
    else this.#tx = lane;
    this.#schedule();
  }

  /** It took one of them back. */
  tearDown(direction: "rx" | "tx"): void {
    const lane = direction === "rx" ? this.#rx : this.#tx;
    if (direction === "rx") this.#rx = null;
    else this.#tx = null;
    lane?.close();
  }

  /** The guest opened its side, or closed it. */
  guestOpened(open: boolean): void {
    if (open === this.#guestOpen) return;
    this.#guestOpen = open;
    if (open) this.#begin();
    else this.#guestLeft("guest");
    this.#schedule();
  }

  #begin(): void {
    if (this.#up || !this.#guestOpen || !this.terminal.isOpen || this.#over) return;
    this.#up = true;
    this.terminal.begin();
    this.#schedule();
  }

  /** What it sent before is often what matters most: the terminal gets all that it has room for. */
  #guestLeft(reason: HangupReason): void {
    if (!this.#up) return;
    try {
      this.#drain(true);
    } catch (error) {
      this.environment.failed(error);
    }
    this.#end(reason);
  }

  #end(reason: HangupReason): void {
    if (!this.#up) return;
    this.#up = false;
    this.terminal.finish(reason);
  }

  /** {@inheritDoc TerminalLine.inputReady} */
  inputReady(): void {
    this.#schedule();
  }

  /** {@inheritDoc TerminalLine.outputReady} */
  outputReady(): void {
    this.#schedule();
  }

  /** {@inheritDoc TerminalLine.resized} */
  resized(): void {
    this.environment.resized();
  }

  /** {@inheritDoc TerminalLine.opened} */
  opened(): void {
    this.environment.tell(VIRTIO_CONSOLE_PORT_OPEN, 1);
    this.#begin();
  }

  #schedule(): void {
    if (this.#scheduled || this.#over) return;
    this.#scheduled = true;
    this.environment.scheduler.post(() => {
      this.#scheduled = false;
      this.run();
    });
  }

  /** Does whatever can be done on both queues. */
  run(): void {
    if (this.#running || this.#over) return;
    this.#running = true;
    try {
      if (this.#drain(false)) this.#schedule();
      this.#sendInput();
    } catch (error) {
      this.environment.failed(error);
    } finally {
      this.#running = false;
    }
    this.terminal.flush(); // runs the embedder's callbacks, which may do anything
  }

  /** Takes what the guest sent; `all`: whether there is room or not. True: there is more to do soon. @throws VbusError EPROTO */
  #drain(all: boolean): boolean {
    const lane = this.#tx;
    if (lane === null || lane.dead) return false;
    const { queue, chains, wakeups } = lane;
    const { terminal } = this;
    for (let burst = 0; burst < BURSTS_PER_RUN; burst++) {
      const n = queue.ring.peek(chains, BURST);
      if (n === 0) {
        wakeups.enable();
        return false;
      }
      let taken = 0;
      for (; taken < n; taken++) {
        const length = chains.readableBytes(taken);
        if (length > CHUNK_MAX) {
          queue.ring.violate("request");
          throw new VbusError(
            "EPROTO",
            `the guest sent ${length} bytes in one piece; at most ${CHUNK_MAX} are taken: it must reset the device`,
          );
        }
        if (!this.#up || terminal.hangingUp) {
          terminal.discard("hangup", length);
        } else if (terminal.hasRoom()) {
          terminal.deliver(readChain(chains, taken, 0, length));
        } else if (all) {
          terminal.discard("closed", length);
        } else {
          break; // the terminal says when it has room
        }
      }
      if (taken > 0 && queue.ring.release(chains, taken)) queue.interrupt();
      if (taken < n) return false;
    }
    return true;
  }

  /** Puts what the terminal has into the buffers that the guest posted. @throws VbusError EPROTO */
  #sendInput(): void {
    const { terminal } = this;
    const lane = this.#rx;
    if (!this.#up) return;
    let sent = 0;
    while (lane !== null && !lane.dead && sent < BURSTS_PER_RUN) {
      while (terminal.takeBreak()); // there is no such thing here
      const waiting = terminal.inputLength;
      if (waiting === 0) break;
      const { queue, chains, wakeups } = lane;
      if (queue.ring.peek(chains, 1) === 0) {
        wakeups.enable();
        return;
      }
      const room = chains.writableBytes(0);
      if (chains.readablePieces(0) !== 0 || room === 0) {
        queue.ring.violate("request");
        throw new VbusError(
          "EPROTO",
          "the guest posted a buffer that cannot be written; it must reset the device",
        );
      }
      const bytes = new Uint8Array(Math.min(waiting, room, INPUT_MAX));
      const n = terminal.takeInput(bytes);
      chains.setUsed(0, writeChain(chains, 0, 0, bytes.subarray(0, n)));
      if (queue.ring.release(chains, 1)) queue.interrupt();
      sent++;
      terminal.inputTaken();
    }
    if (sent === BURSTS_PER_RUN) this.#schedule();
    if (terminal.hangingUp && (terminal.inputEmpty || lane === null || lane.dead)) {
      this.environment.tell(VIRTIO_CONSOLE_PORT_OPEN, 0);
      this.#end("host");
    }
  }

  /** What is on, as plain data. */
  save(): StateValue {
    return { guestOpen: this.#guestOpen, terminal: this.#up ? this.terminal.save() : null };
  }

  /** Takes it over. @throws StateError */
  restore(state: StateReader): void {
    this.#guestOpen = state.get("guestOpen").boolean();
    const talking = state.get("terminal").nullable((at) => at);
    if (talking === null) {
      this.#begin(); // the saved terminal was hung up; this one may be open
      return;
    }
    if (!this.#guestOpen) state.fail("a conversation with a guest that is not there");
    this.terminal.restore(talking);
    this.#up = true;
  }

  /** Goes on after that. */
  resume(): void {
    this.#schedule();
  }

  /** The session ends: nothing of the guest is touched any more. */
  close(): void {
    if (this.#over) return;
    // one that another takes over from a saved state says nothing more: it will say it again
    if (this.environment.held()) this.#end("closed");
    else this.#guestLeft("closed");
    this.#over = true;
    this.terminal.connect(null);
    this.tearDown("rx");
    this.tearDown("tx");
    this.environment.scheduler.post(() => {
      this.terminal.flush();
    });
  }
}
