/** Work for a back end, and the bytes of the medium that it touches. */
export interface Operation {
  /** Whose it is, for {@link Operations.cancel}. */
  readonly owner: object;
  /** First byte. */
  readonly start: number;
  /** Byte after the last; equal to `start` for work that has no range, such as a flush. */
  readonly end: number;
  /** `read` goes along with other reads of the same bytes, `change` with nothing there, `alone` with nothing at all. */
  readonly kind: "read" | "change" | "alone";
  /** Does it. Called once, perhaps at once. */
  run(): Promise<void>;
  /** Told, once, how it ended: null, or why it failed. Must not throw. */
  done(error: unknown): void;
}

/**
 * Keeps a back end's operations apart: those that overlap run one after another, in the order in which they came, so that each
 * is atomic to the others whatever the back end does; at most `limit` run at all. Both hold across sessions: what a guest
 * that is gone began still counts, and the next guest's requests for the same bytes wait for it.
 */
export class Operations {
  readonly #running = new Set<Operation>();
  readonly #waiting: Operation[] = [];
  readonly #idle: (() => void)[] = [];

  /** @param limit - most operations that run at a time; may change, which applies to what starts from then on */
  constructor(public limit: number) {}

  /** Operations that run. */
  get running(): number {
    return this.#running.size;
  }

  /** Operations that wait for others. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Resolves when nothing runs and nothing waits. What is submitted meanwhile is waited for, too. */
  async idle(): Promise<void> {
    while (this.#running.size > 0 || this.#waiting.length > 0)
      await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Starts an operation, or keeps it until it may start. */
  submit(operation: Operation): void {
    if (this.#mayStart(operation, this.#waiting.length)) this.#start(operation);
    else this.#waiting.push(operation);
  }

  /** Forgets an owner's operations that have not started; `done` is not called. Those that run go on. */
  cancel(owner: object): void {
    for (let i = this.#waiting.length - 1; i >= 0; i--)
      if (this.#waiting[i]?.owner === owner) this.#waiting.splice(i, 1);
    this.#startWaiting(); // what waited for one of them
  }

  /** True when nothing that runs, and nothing among the first n that wait, is in the way. */
  #mayStart(operation: Operation, n: number): boolean {
    if (this.#running.size >= this.limit) return false;
    for (const other of this.#running) if (conflict(operation, other)) return false;
    for (let i = 0; i < n; i++) if (conflict(operation, this.#waiting[i] as Operation)) return false;
    return true;
  }

  #start(operation: Operation): void {
    this.#running.add(operation);
    const run = async (): Promise<void> => {
      await operation.run();
    };
    run().then(
      () => {
        this.#end(operation, null);
      },
      (error: unknown) => {
        this.#end(operation, error ?? new Error("the back end rejected without a reason"));
      },
    );
  }

  #end(operation: Operation, error: unknown): void {
    this.#running.delete(operation);
    try {
      operation.done(error);
    } finally {
      this.#startWaiting();
      if (this.#running.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
    }
  }

  #startWaiting(): void {
    for (let i = 0; i < this.#waiting.length && this.#running.size < this.limit;) {
      const operation = this.#waiting[i] as Operation;
      if (this.#mayStart(operation, i)) {
        this.#waiting.splice(i, 1);
        this.#start(operation);
      } else {
        i++;
      }
    }
  }
}

function conflict(a: Operation, b: Operation): boolean {
  if (a.kind === "alone" || b.kind === "alone") return true;
  return (a.kind === "change" || b.kind === "change") && a.start < b.end && b.start < a.end;
}
