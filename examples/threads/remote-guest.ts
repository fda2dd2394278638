/** A Linux guest in a thread of its own, as the thread sees it that has the network. */
import { Worker } from "node:worker_threads";
import { createFrameLink, WorkerPort } from "vbus/net/threads";
import type { Scheduler } from "vbus/scheduler";
import { GuestError } from "../linux/console.js";
import type { GuestAnswer, GuestOrder, GuestWork } from "./guest.js";

/** What a {@link RemoteGuest} is made of. */
export interface RemoteGuestOptions extends Omit<GuestWork, "link"> {
  /** This thread's scheduler. */
  scheduler: Scheduler;
  /** Polls of the doorbells before this thread sleeps. */
  spin?: number;
  /** The built program of the guest's thread, when it does not lie beside this one. */
  program?: URL;
}

/** The guest: a shell to be driven by messages, and a port. */
export class RemoteGuest {
  readonly #worker: Worker;
  readonly #waiting = new Map<
    number,
    { resolve: (output: string) => void; reject: (error: Error) => void }
  >();
  #orders = 0;
  #ended = false;

  private constructor(
    worker: Worker,
    /** This thread's end of the guest's network cable. */
    readonly port: WorkerPort,
  ) {
    this.#worker = worker;
    const fail = (error: Error): void => {
      port.otherDied();
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    };
    worker.on("message", ({ id, output = "", error }: GuestAnswer) => {
      const order = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) order?.resolve(output);
      else order?.reject(new GuestError(error));
    });
    worker.on("error", fail);
    worker.on("exit", (code) => {
      fail(new GuestError(`the guest's thread ended with exit code ${code}`));
    });
  }

  /** Starts the guest's thread, and waits until the guest is up. */
  static async start({ scheduler, spin = 0, program, ...work }: RemoteGuestOptions): Promise<RemoteGuest> {
    const link = createFrameLink();
    // first: what this thread compiles is optimised, while an emulator runs nothing is (examples/linux/tiers.ts)
    const port = await WorkerPort.open(link, { side: "host", scheduler, spin, name: "guest" });
    const worker = new Worker(program ?? new URL("./guest.js", import.meta.url), {
      workerData: { ...work, link } satisfies GuestWork,
    });
    const guest = new RemoteGuest(worker, port);
    await new Promise<string>((resolve, reject) => {
      guest.#waiting.set(0, { resolve, reject });
    });
    return guest;
  }

  /** Runs one line of shell that must succeed, and returns its output, as `Machine.check`. */
  check(command: string, options: { timeoutMs?: number } = {}): Promise<string> {
    return this.#order({ command, ...options });
  }

  #order(order: Omit<GuestOrder, "id">): Promise<string> {
    const id = ++this.#orders;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...order } satisfies GuestOrder);
    });
  }

  /** Ends its thread at once, whatever it is doing. */
  async kill(): Promise<void> {
    this.#ended = true;
    await this.#worker.terminate();
  }

  /** Switches the guest off, and ends its thread. Twice is harmless. */
  async close(): Promise<void> {
    if (!this.#ended) await this.#order({});
    this.#ended = true;
    this.port.close();
    await this.#worker.terminate();
  }
}
