import {
  VIRTIO_ISR_CONFIG,
  VIRTIO_ISR_QUEUE,
  VIRTIO_MSI_NO_VECTOR,
} from "../../../assembly/abi/virtio-pci.js";
import { StateError } from "../../state/error.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { guardInterrupt, InterruptLine } from "../interrupt-line.js";
import type { PciConfigSpace } from "../pci/config-space.js";
import type { PciInterruptSink } from "../pci/function.js";
import { MsixTable } from "../pci/msix-table.js";

/** How interrupts of a function went out. */
export interface VirtioPciInterruptCounters {
  /** Messages sent (MSI-X or MSI). */
  messages: number;
  /** Times the INTA line was raised. */
  lines: number;
  /** Times the guest read the ISR status while something was in it. */
  acknowledged: number;
  /** Notifications that the guest wants no interrupt for: their vector is `NO_VECTOR`. */
  unwanted: number;
}

/**
 * How a virtio function interrupts (virtio 1.2: 4.1.5.3, 4.1.5.4): by one of its MSI-X vectors, as the driver mapped them;
 * without MSI-X through the ISR status, by the INTA line or (an option that the specification does not know, for guests
 * without MSI-X) by one MSI message.
 */
export class VirtioPciInterrupts {
  /** Null for a function without MSI-X. */
  readonly table: MsixTable | null;
  readonly #queueVectors: Uint16Array;
  #configVector = VIRTIO_MSI_NO_VECTOR;
  #isr = 0;
  readonly #line: InterruptLine;
  readonly #counters = { messages: 0, acknowledged: 0, unwanted: 0 };

  constructor(
    queues: number,
    vectors: number,
    private readonly config: PciConfigSpace,
    private readonly sink: PciInterruptSink,
    private readonly onError?: (error: unknown) => void,
  ) {
    this.#line = new InterruptLine((asserted) => {
      sink.setLine(asserted);
    }, onError);
    this.#queueVectors = new Uint16Array(queues).fill(VIRTIO_MSI_NO_VECTOR);
    this.table =
      vectors === 0
        ? null
        : new MsixTable(vectors, ({ address, data }) => {
            this.#message(address, data);
          });
  }

  /** Vector of configuration changes. */
  get configVector(): number {
    return this.#configVector;
  }

  /** Vector of a queue; `NO_VECTOR` for none that exists. */
  queueVector(index: number): number {
    return this.#queueVectors[index] ?? VIRTIO_MSI_NO_VECTOR;
  }

  /** Maps configuration changes. A vector that does not exist becomes `NO_VECTOR`, which the driver reads back (4.1.5.1.2). */
  mapConfig(vector: number): void {
    this.#configVector = this.#existing(vector);
  }

  /** Maps a queue. */
  mapQueue(index: number, vector: number): void {
    if (index < this.#queueVectors.length) this.#queueVectors[index] = this.#existing(vector);
  }

  #existing(vector: number): number {
    return vector < (this.table?.vectors ?? 0) ? vector : VIRTIO_MSI_NO_VECTOR;
  }

  /** A queue used buffers. */
  queue(index: number): void {
    this.#raise(VIRTIO_ISR_QUEUE, this.queueVector(index));
  }

  /** The configuration changed. */
  configuration(): void {
    this.#raise(VIRTIO_ISR_CONFIG, this.#configVector);
  }

  #raise(isr: number, vector: number): void {
    if (this.config.msixEnabled) {
      if (vector === VIRTIO_MSI_NO_VECTOR) this.#counters.unwanted++;
      else this.table?.notify(vector);
      return;
    }
    this.#isr |= isr;
    const message = this.config.msi;
    // every time, not only when it was 0: a guest with a vector of its own need not read the status
    if (message !== null) this.#message(message.address, message.data);
    this.#updateLine();
  }

  /** The ISR status, which reading clears (4.1.4.5). */
  readIsr(): number {
    const isr = this.#isr;
    if (isr === 0) return 0;
    this.#isr = 0;
    this.#counters.acknowledged++;
    this.#updateLine();
    return isr;
  }

  /** The guest wrote to the command register or one of the capabilities. */
  configWritten(): void {
    this.table?.control(this.config.msixEnabled, this.config.msixMasked);
    this.#updateLine();
  }

  /** The device was reset: nothing is pending, nothing is mapped (4.1.5.1.2, 2.4.1). */
  reset(): void {
    this.#isr = 0;
    this.#configVector = VIRTIO_MSI_NO_VECTOR;
    this.#queueVectors.fill(VIRTIO_MSI_NO_VECTOR);
    this.table?.clearPending();
    this.#updateLine();
  }

  /** True while the INTA line is up. */
  get line(): boolean {
    return this.#line.asserted;
  }

  /** What is mapped and pending, as plain data. */
  save(): StateValue {
    return {
      configVector: this.#configVector,
      queueVectors: [...this.#queueVectors],
      isr: this.#isr,
      line: this.#line.asserted,
      table: this.table?.save() ?? null,
    };
  }

  /** Becomes what was saved; configuration space was restored before. Nothing is sent. @throws StateError */
  restore(state: StateReader): void {
    const vectors = state.get("queueVectors").tuple(this.#queueVectors.length);
    this.#configVector = this.#existing(state.get("configVector").number(0, 0xffff));
    for (const [i, vector] of vectors.entries()) this.mapQueue(i, vector.number(0, 0xffff));
    this.#isr = state.get("isr").number(0, VIRTIO_ISR_QUEUE | VIRTIO_ISR_CONFIG);
    this.#line.restore(state.get("line"), this.#lineWanted);
    const table = state.get("table").nullable((at) => at);
    if ((table === null) !== (this.table === null))
      throw new StateError(
        "mismatch",
        "the guest saw this function with MSI-X, or saw it without; give it the same vectors",
      );
    if (table !== null) this.table?.restore(table, this.config.msixEnabled, this.config.msixMasked);
    this.config.setInterruptStatus(this.#isr !== 0);
  }

  /** One queue was reset. */
  resetQueue(index: number): void {
    this.mapQueue(index, VIRTIO_MSI_NO_VECTOR);
  }

  /** What was counted so far. */
  counters(): VirtioPciInterruptCounters {
    return { ...this.#counters, lines: this.#line.raised };
  }

  #message(address: number, data: number): void {
    this.#counters.messages++;
    guardInterrupt(() => {
      this.sink.msi(address, data);
    }, this.onError);
  }

  #updateLine(): void {
    this.config.setInterruptStatus(this.#isr !== 0);
    this.#line.asserted = this.#lineWanted;
  }

  /** Level that the line has to have. A function with messages enabled must not use it (PCI 3.0 section 6.8.3.3). */
  get #lineWanted(): boolean {
    const { intxDisabled, msixEnabled, msi } = this.config;
    return this.#isr !== 0 && !intxDisabled && !msixEnabled && msi === null;
  }
}
