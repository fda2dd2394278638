import { ChannelPort, type ChannelPortOptions, type MessageCarrier } from "./channel-port.js";

/** What is used of a `MessagePort`, that of the web and that of Node. */
export interface FrameMessagePort {
  /** Posts a message, whose buffer moves to the other side. */
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
  /** Registers a listener. */
  addEventListener(
    type: "message" | "messageerror" | "close",
    listener: (event: { data?: unknown }) => void,
  ): void;
  /** Takes it back. */
  removeEventListener(
    type: "message" | "messageerror" | "close",
    listener: (event: { data?: unknown }) => void,
  ): void;
  /** Begins to deliver. */
  start(): void;
  /** Ends the connection. */
  close(): void;
}

class PortCarrier implements MessageCarrier {
  #listeners: (() => void)[] = [];

  constructor(private readonly port: FrameMessagePort) {}

  post(message: ArrayBuffer): void {
    this.port.postMessage(message, [message]);
  }

  listen(receive: (data: unknown) => void, gone: () => void): void {
    this.#on("message", (event) => {
      receive(event.data);
    });
    this.#on("messageerror", () => {
      receive(null); // something that cannot be read here: counted as such
    });
    this.#on("close", gone);
    this.port.start();
  }

  #on(type: "message" | "messageerror" | "close", listener: (event: { data?: unknown }) => void): void {
    this.port.addEventListener(type, listener);
    this.#listeners.push(() => {
      this.port.removeEventListener(type, listener);
    });
  }

  close(): void {
    for (const remove of this.#listeners.splice(0)) remove();
    this.port.close();
  }
}

/**
 * A port over a `MessagePort`: frames to and from another thread or page, without shared memory and so without cross-origin
 * isolation. One of these at each end of a `MessageChannel`; it owns the `MessagePort` from then on.
 *
 * Slower than a `WorkerPort`: frames are copied into messages and out of them, and each message needs the other thread's event
 * loop. What one end counts as acknowledged the other end counts as arrived, once both have been closed.
 */
export class MessagePortPort extends ChannelPort {
  /**
   * @param port - one end of a `MessageChannel`, which nobody else uses
   * @param options - as of every port over messages
   * @throws RangeError for limits out of range; VbusError ENOMEM
   */
  constructor(port: FrameMessagePort, options: ChannelPortOptions) {
    super(options, {
      connect: () => new PortCarrier(port),
      maxPeers: 1,
      stallMs: Infinity,
      forgetMs: Infinity,
      name: "message-port",
    });
  }
}
