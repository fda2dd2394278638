import type { ClientSource } from "../../bus/types.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import { BridgeHost } from "./host.js";

/** Which guest is put in front of which bus, whatever carries it. */
export interface BridgeAttachOptions {
  /** The bus. */
  readonly bus: ClientSource;
  /** Member that the guest acts as; the bus must have admitted it. */
  readonly member: string;
  /** Name of the client in the bus tree. */
  readonly label?: string | undefined;
  /** The guest's memory. */
  readonly memory: MemorySpace;
  /** Where deferred work of the thread that the guest's accesses come in on runs. */
  readonly scheduler: Scheduler;
  /** Told of errors that hurt nothing but what they name, such as a broken event queue. */
  readonly onError?: ((error: unknown) => void) | undefined;
  /** Told, once, that the host took the guest off its bus: every call fails with -ENOTCONN from then on. */
  readonly onEnd?: (() => void) | undefined;
}

/** What a carrier adds. */
export interface BridgeCarrierHooks {
  /** As `BridgeHostOptions.interrupt` says. */
  readonly interrupt: () => void;
  /** As `BridgeHostOptions.onSignal` says. */
  readonly onSignal?: ((handle: number, alive: boolean) => void) | undefined;
  /** The host took the guest off its bus; before {@link BridgeAttachOptions.onEnd}. */
  readonly ended: () => void;
}

/**
 * Opens a bus for a guest, and a bridge on it.
 * @throws VbusError EPERM when the member was not admitted; ENOMEM
 */
export function openBridge(options: BridgeAttachOptions, hooks: BridgeCarrierHooks): BridgeHost {
  const { bus, member, label, memory, scheduler, onError, onEnd } = options;
  const { interrupt, onSignal } = hooks;
  const client = bus.openClient({ member, memory, ...(label === undefined ? {} : { label }) });
  client.onEnd = () => {
    hooks.ended();
    onEnd?.();
  };
  try {
    return new BridgeHost({
      client,
      memory,
      scheduler,
      interrupt,
      ...(onSignal === undefined ? {} : { onSignal }),
      ...(onError === undefined ? {} : { onError }),
    });
  } catch (error) {
    client.disconnect();
    throw error;
  }
}
