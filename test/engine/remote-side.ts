/** A {@link RingSide} that lives in another thread (`test/workers/ring-side.ts`). */
import { Worker } from "node:worker_threads";
import type { GuestMemoryInit } from "vbus/memory";
import { CALL_BLOCK_SIZE, callRemote } from "./remote-call.js";
import type { Cursor, Index, Item, Options, Pattern, Recheck, RingSide, Seen, Wakeup } from "./ring-side.js";

/** What the thread is asked to do: a method of the side, or of one of its cursors. */
export interface RemoteRequest {
  target: "thread" | "side" | number;
  method: string;
  args: unknown[];
}

/** A thread that holds south's engine. */
export class RemoteThread {
  private readonly block = new SharedArrayBuffer(CALL_BLOCK_SIZE);
  private readonly worker: Worker;

  constructor(init: GuestMemoryInit) {
    const file = new URL("../../.build/test/workers/ring-side.js", import.meta.url);
    this.worker = new Worker(file, { workerData: { init, block: this.block } });
  }

  /** Calls a method there. */
  call(target: RemoteRequest["target"], method: string, ...args: unknown[]): unknown {
    const request: RemoteRequest = { target, method, args };
    return callRemote(this.block, request);
  }

  /** Attaches south there. */
  attach(pattern: Pattern, gpa: number, length: number, accept = 0): RingSide {
    this.call("thread", "attach", pattern, gpa, length, accept);
    return new RemoteSide(this);
  }

  /** Ends the thread. */
  async close(): Promise<void> {
    this.call("thread", "stop");
    await this.worker.terminate();
  }
}

class RemoteCursor implements Cursor {
  constructor(
    private readonly thread: RemoteThread,
    private readonly id: number,
  ) {}

  private call(method: keyof Cursor, ...args: unknown[]): unknown {
    return this.thread.call(this.id, method, ...args);
  }

  seek(to: "tail" | "next" | "head" | "set", offset = 0): number {
    return this.call("seek", to, offset) as number;
  }

  position(): number | null {
    return this.call("position") as number | null;
  }

  push(): number {
    return this.call("push") as number;
  }

  pop(): number {
    return this.call("pop") as number;
  }

  read(): Seen | null {
    return this.call("read") as Seen | null;
  }

  write(item: Partial<Item>, options: Options): number {
    return this.call("write", item, options) as number;
  }

  close(): void {
    this.call("close");
  }
}

class RemoteSide implements RingSide {
  readonly locale = 1;

  constructor(private readonly thread: RemoteThread) {}

  private call(method: keyof RingSide, ...args: unknown[]): unknown {
    return this.thread.call("side", method, ...args);
  }

  cursor(index: Index | "both", options: { autoupdate?: boolean; noflip?: boolean } = {}): Cursor {
    return new RemoteCursor(this.thread, this.call("cursor", index, options) as number);
  }

  countOf(index: Index): number {
    return this.call("countOf", index) as number;
  }

  remain(index: Index): number {
    return this.call("remain", index) as number;
  }

  reserve(index: Index | "both", max: number): number {
    return this.call("reserve", index, max) as number;
  }

  commit(index: Index | "both", items: readonly Item[], options: Options): number {
    return this.call("commit", index, items, options) as number;
  }

  peek(index: Index, max: number): Item[] | number {
    return this.call("peek", index, max) as Item[] | number;
  }

  release(index: Index, n: number, options: Options, items: readonly Item[] = []): number {
    return this.call("release", index, n, options, items) as number;
  }

  inject(): boolean {
    return this.call("inject") as boolean;
  }

  enable(recheck: Recheck): boolean {
    return this.call("enable", recheck) as boolean;
  }

  disable(): void {
    this.call("disable");
  }

  wakeupBegin(budget: number, recheck: Recheck): Wakeup {
    return this.call("wakeupBegin", budget, recheck) as Wakeup;
  }

  wakeupNext(recheck: Recheck): Wakeup {
    return this.call("wakeupNext", recheck) as Wakeup;
  }

  broken(): string | null {
    return this.call("broken") as string | null;
  }

  close(): void {
    this.call("close");
  }
}
