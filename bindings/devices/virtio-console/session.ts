import {
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_CONSOLE_PORT_ADD,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_RESIZE,
} from "../../../assembly/abi/virtio-console.js";
import { VbusError } from "../../errors.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { VirtioQueue, VirtioSession, VirtioSessionContext } from "../../virtio/types.js";
import type { Terminal } from "../vconsole/terminal.js";
import { ControlQueues, type ControlMessage } from "./control.js";
import { ConsolePort } from "./port.js";

/** A port as its device has it. */
export interface PortOfDevice {
  /** What is behind it. */
  readonly terminal: Terminal;
  /** Its name in the guest; empty: none. */
  readonly name: string;
  /** A console, such as `hvc0`; otherwise a plain port, such as `/dev/vport0p1`. */
  readonly console: boolean;
}

/** What a session needs of its device. */
export interface ConsoleEnvironment {
  /** Name for messages. */
  readonly name: string;
  /** Its ports. */
  readonly ports: readonly PortOfDevice[];
  /** The session ended. */
  ended(session: VirtioSession): void;
}

/** Which port and direction a queue belongs to (5.3.2); port -1: control. */
function place(index: number): { port: number; output: boolean } {
  const output = (index & 1) === 1; // what the driver sends
  if (index < 2) return { port: 0, output };
  if (index < 4) return { port: -1, output };
  return { port: (index >> 1) - 1, output };
}

/** One driver's session with a virtio-console, from DRIVER_OK to reset. */
export class ConsoleSession implements VirtioSession {
  readonly #multiport: boolean;
  readonly #ports: ConsolePort[];
  readonly #control: ControlQueues | null;
  readonly #ready: boolean[];
  #stopped = false;

  /** @throws VbusError ENOMEM */
  constructor(
    private readonly device: ConsoleEnvironment,
    private readonly context: VirtioSessionContext,
  ) {
    const { scheduler } = context;
    this.#multiport = this.#has(VIRTIO_CONSOLE_F_MULTIPORT);
    const failed = (error: unknown): void => {
      this.#failed(error);
    };
    this.#control = this.#multiport
      ? new ControlQueues(
          scheduler,
          (message) => {
            this.#receive(message);
          },
          failed,
          () => context.held,
        )
      : null;
    const ports = this.#multiport ? device.ports : device.ports.slice(0, 1);
    this.#ready = ports.map(() => false);
    this.#ports = ports.map(
      ({ terminal }, id) =>
        new ConsolePort(terminal, {
          scheduler,
          failed,
          held: () => context.held,
          tell: (event, value) => {
            if (this.#ready[id] === true) this.#control?.tell({ id, event, value });
          },
          resized: () => {
            this.#resized(id);
          },
        }),
    );
    try {
      for (let index = 0; index < this.#queueCount; index++) {
        const queue = context.queue(index);
        if (queue !== null) this.#setUp(queue);
      }
    } catch (error) {
      this.#close();
      throw error;
    }
    // one that is restored says itself whether it is open
    if (!this.#multiport && !context.held) this.#ports[0]?.guestOpened(true); // a single console is open as long as there is a driver
  }

  #has(feature: number): boolean {
    return ((this.context.features >> BigInt(feature)) & 1n) !== 0n;
  }

  get #queueCount(): number {
    return this.#multiport ? 2 + 2 * this.#ports.length : 2;
  }

  #setUp(queue: VirtioQueue): void {
    if (queue.index >= this.#queueCount) return; // nobody looks at it
    const { port, output } = place(queue.index);
    if (port < 0) this.#control?.setUp(output ? "in" : "out", queue);
    else this.#ports[port]?.setUp(output ? "tx" : "rx", queue);
  }

  #resized(id: number): void {
    if (!this.#has(VIRTIO_CONSOLE_F_SIZE)) return;
    if (!this.#multiport) this.context.configChanged();
    else if (this.device.ports[id]?.console === true) this.#tellSize(id);
  }

  #tellSize(id: number): void {
    const terminal = this.device.ports[id]?.terminal;
    if (terminal === undefined || this.#ready[id] !== true) return;
    const data = new Uint8Array(4);
    const view = new DataView(data.buffer);
    view.setUint16(0, terminal.cols, true);
    view.setUint16(2, terminal.rows, true);
    this.#control?.tell({ id, event: VIRTIO_CONSOLE_RESIZE, value: 0, data });
  }

  /** The driver said something (5.3.6.2); what makes no sense is ignored. */
  #receive({ id, event, value }: ControlMessage): void {
    if (event === VIRTIO_CONSOLE_DEVICE_READY) {
      if (value === 0) return; // it failed: there is nothing to be done
      for (const port of this.#ports.keys())
        this.#control?.tell({ id: port, event: VIRTIO_CONSOLE_PORT_ADD, value: 0 });
      return;
    }
    const port = this.#ports[id];
    const what = this.device.ports[id];
    if (port === undefined || what === undefined) return;
    if (event === VIRTIO_CONSOLE_PORT_READY) {
      if (value === 0) return;
      this.#ready[id] = true;
      if (what.console) this.#control?.tell({ id, event: VIRTIO_CONSOLE_CONSOLE_PORT, value: 1 });
      if (what.name !== "")
        this.#control?.tell({
          id,
          event: VIRTIO_CONSOLE_PORT_NAME,
          value: 1,
          data: new TextEncoder().encode(what.name),
        });
      if (what.terminal.isOpen) this.#control?.tell({ id, event: VIRTIO_CONSOLE_PORT_OPEN, value: 1 });
      if (what.console && this.#has(VIRTIO_CONSOLE_F_SIZE)) this.#tellSize(id);
    } else if (event === VIRTIO_CONSOLE_PORT_OPEN) {
      port.guestOpened(value !== 0);
    }
  }

  #failed(cause: unknown): void {
    const guilty = cause instanceof VbusError && cause.code === "EPROTO";
    this.context.needsReset(
      new VbusError(
        guilty ? "EPROTO" : "EIO",
        `${this.device.name}: ${guilty ? "the guest broke" : "the host failed at"} a queue; it works again once the driver resets the device`,
        { cause },
      ),
    );
  }

  /** {@inheritDoc VirtioSession.queueStarted} */
  queueStarted(queue: VirtioQueue): void {
    if (this.#stopped) return;
    try {
      this.#setUp(queue);
    } catch (error) {
      this.context.needsReset(error);
    }
  }

  /** {@inheritDoc VirtioSession.queueStopped} */
  queueStopped(index: number): void {
    const { port, output } = place(index);
    if (port < 0) this.#control?.tearDown(output ? "in" : "out");
    else this.#ports[port]?.tearDown(output ? "tx" : "rx");
  }

  /** {@inheritDoc VirtioSession.stop} */
  stop(): void {
    if (this.#stopped) return;
    this.#close();
    this.device.ended(this);
  }

  /** {@inheritDoc VirtioSession.save} */
  save(): StateValue {
    return {
      ready: [...this.#ready],
      ports: this.#ports.map((port) => port.save()),
      control: this.#control?.save() ?? null,
    };
  }

  /** {@inheritDoc VirtioSession.restore} */
  restore(state: StateReader): void {
    for (const [i, item] of state.get("ready").tuple(this.#ready.length).entries())
      this.#ready[i] = item.boolean();
    const control = state.get("control").nullable((at) => at);
    if ((control === null) !== (this.#control === null))
      state.fail("there is a control queue just as negotiated");
    if (control !== null) this.#control?.restore(control);
    for (const [i, item] of state.get("ports").tuple(this.#ports.length).entries())
      this.#ports[i]?.restore(item);
  }

  /** {@inheritDoc VirtioSession.resumed} */
  resumed(): void {
    this.#control?.resume();
    for (const port of this.#ports) port.resume();
  }

  #close(): void {
    this.#stopped = true;
    for (const port of this.#ports) port.close();
    this.#control?.close();
  }
}
