/** Where the notifications of a device go. */
export interface NotificationSink {
  /** A queue has something for the driver. */
  readonly queueInterrupt: (index: number) => void;
  /** The configuration changed, or the device needs a reset. */
  readonly configInterrupt: () => void;
}

/** Notifications of a device for its driver (virtio 1.2: 2.3). While the machine is saved or restored they wait, each once. */
export class DeviceNotifications {
  /** Used-buffer notifications asked for. */
  queueInterrupts = 0;
  /** Configuration change notifications asked for. */
  configInterrupts = 0;
  #held = false;
  readonly #owed = new Set<number>();
  #configOwed = false;

  /** @param sink - where they go */
  constructor(private readonly sink: NotificationSink) {}

  /** A queue has something for the driver. */
  queue(index: number): void {
    if (this.#held) {
      this.owe(index);
      return;
    }
    this.queueInterrupts++;
    this.sink.queueInterrupt(index);
  }

  /** The configuration changed, or the device needs a reset. */
  configuration(): void {
    if (this.#held) {
      this.oweConfiguration();
      return;
    }
    this.configInterrupts++;
    this.sink.configInterrupt();
  }

  /** {@link DeviceNotifications.queue}, at {@link DeviceNotifications.release}. */
  owe(index: number): void {
    this.#owed.add(index);
  }

  /** {@link DeviceNotifications.configuration}, at {@link DeviceNotifications.release}. */
  oweConfiguration(): void {
    this.#configOwed = true;
  }

  /** None goes out from now on. */
  hold(): void {
    this.#held = true;
  }

  /** Notifications go out again. {@link DeviceNotifications.deliver} those that waited. */
  release(): void {
    this.#held = false;
  }

  /** Those that waited go out. */
  deliver(): void {
    const owed = [...this.#owed];
    this.#owed.clear();
    for (const index of owed) this.queue(index);
    if (!this.#configOwed) return;
    this.#configOwed = false;
    this.configuration();
  }

  /** The device was reset: nothing waits any more. */
  clear(): void {
    this.#owed.clear();
    this.#configOwed = false;
  }
}
