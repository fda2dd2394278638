import type { Scheduler } from "../scheduler.js";

/** An error that no call could return: somebody's callback failed, or a device reported something. */
export interface ErrorReport {
  /** Where, as a path of the tree, such as `devices/nic0` or `instances/bus0`. */
  readonly source: string;
  /** What was going on. */
  readonly message: string;
  /** What was thrown, or `undefined` when a device only reported a message. */
  readonly error: unknown;
}

/** What happens to an interface. */
export interface InterfaceNotice {
  /** Name of the bus. */
  readonly bus: string;
  /** Name of the device. */
  readonly device: string;
  /** Number of the interface on the bus. */
  readonly id: number;
  /** Name of the interface within the device. */
  readonly name: string;
  /** Type that drivers match. */
  readonly type: string;
}

/** What happens to a client. */
export interface ClientNotice {
  /** Name of the bus. */
  readonly bus: string;
  /** Member that the client belongs to. */
  readonly member: string;
  /** Label of the client. */
  readonly client: string;
}

/** What happens to a connection. */
export interface ConnectionNotice extends ClientNotice {
  /** Name of the device. */
  readonly device: string;
  /** Name of the interface within the device. */
  readonly interface: string;
  /** Handle that the client got. */
  readonly handle: number;
}

/** Events of the device tree, by type; what a listener is given. Those of one bus also reach the listeners of that bus. */
export interface TreeEvents {
  /** A class was registered. */
  classRegistered: { readonly className: string };
  /** A class was unregistered. */
  classUnregistered: { readonly className: string };
  /** A device was created. */
  deviceCreated: { readonly device: string; readonly className: string };
  /** The administrator removed a device. Sessions may still use it. */
  deviceRemoved: { readonly device: string; readonly className: string };
  /** A removed device lost its last user and gave everything back. */
  deviceReleased: { readonly device: string; readonly className: string };
  /** A bus was created. */
  busCreated: { readonly bus: string };
  /** A bus was removed. */
  busRemoved: { readonly bus: string };
  /** A device was connected to a bus. */
  deviceConnected: { readonly bus: string; readonly device: string };
  /** A device was disconnected from a bus. */
  deviceDisconnected: { readonly bus: string; readonly device: string };
  /** An interface was published. */
  interfacePublished: InterfaceNotice;
  /** An interface was withdrawn. */
  interfaceWithdrawn: InterfaceNotice;
  /** A member was admitted. */
  memberAdmitted: { readonly bus: string; readonly member: string };
  /** A member was expelled. */
  memberExpelled: { readonly bus: string; readonly member: string };
  /** A client attached to a bus. */
  clientOpened: ClientNotice;
  /** A client left a bus. */
  clientClosed: ClientNotice;
  /** A client opened an interface. */
  connectionOpened: ConnectionNotice;
  /** A session ended, for whatever reason. */
  connectionClosed: ConnectionNotice;
  /** Something failed that no call could return. */
  error: ErrorReport;
}

/** Type of an event of the tree. */
export type TreeEventType = keyof TreeEvents;

/** Ends a subscription. Twice is harmless. */
export type Unsubscribe = () => void;

type Listener = (event: never) => void;

/** Reports kept for the first `error` listener; older ones give way. */
const UNHEARD_MAX = 64;

/**
 * Distributes the events of the tree. Emitters form a chain: what a bus emits also reaches the listeners of the root.
 *
 * A listener that throws hurts nobody: its error becomes an `error` event; when an `error` listener throws, the error is
 * thrown in a task of its own, so it reaches the scheduler's error handler. Errors that nobody listens to are kept (the
 * latest few) for the first listener, because a guest must not be able to end the host by provoking one.
 */
export class Emitter {
  readonly #listeners = new Map<TreeEventType, Set<{ readonly call: Listener }>>();
  #unheard: ErrorReport[] = [];
  #reporting = false;

  /**
   * @param scheduler - where what cannot happen now is posted
   * @param parent - emitter that hears everything, too
   */
  constructor(
    private readonly scheduler: Scheduler,
    private readonly parent: Emitter | null,
  ) {}

  /**
   * Subscribes to one type. Listeners run synchronously, in order of subscription. Returns what ends the subscription.
   * A first `error` listener of the root gets the reports that nobody heard, in a task of their own.
   */
  on<Type extends TreeEventType>(type: Type, listener: (event: TreeEvents[Type]) => void): Unsubscribe {
    const entry = { call: listener as Listener };
    let entries = this.#listeners.get(type);
    if (entries === undefined) this.#listeners.set(type, (entries = new Set()));
    entries.add(entry);
    if (type === "error" && this.#unheard.length > 0) {
      const unheard = this.#unheard;
      this.#unheard = [];
      this.scheduler.post(() => {
        for (const report of unheard) this.emit("error", report);
      });
    }
    return () => {
      entries.delete(entry);
    };
  }

  /** Tells everybody. Never throws. */
  emit<Type extends TreeEventType>(type: Type, event: TreeEvents[Type]): void {
    if (type === "error") this.#report(event as ErrorReport, false);
    else this.#notify(type, event);
  }

  /** Emits an `error` event. Never throws. */
  error(source: string, message: string, error: unknown): void {
    this.#report({ source, message, error }, false);
  }

  #notify<Type extends TreeEventType>(type: Type, event: TreeEvents[Type]): void {
    for (const entry of [...(this.#listeners.get(type) ?? [])]) {
      try {
        entry.call(event as never);
      } catch (error) {
        this.error("", `a listener of "${type}" failed`, error);
      }
    }
    if (this.parent !== null) this.parent.#notify(type, event);
  }

  #report(report: ErrorReport, heard: boolean): void {
    if (this.#reporting) {
      // a listener caused another error: it waits its turn, or two listeners could recurse for ever
      this.scheduler.post(() => {
        this.#report(report, heard);
      });
      return;
    }
    const entries = [...(this.#listeners.get("error") ?? [])];
    this.#reporting = true;
    for (const entry of entries) {
      try {
        entry.call(report as never);
      } catch (error) {
        this.scheduler.post(() => {
          throw error;
        });
      }
    }
    this.#reporting = false;
    const reached = heard || entries.length > 0;
    if (this.parent !== null) {
      this.parent.#report(report, reached);
    } else if (!reached) {
      if (this.#unheard.length === UNHEARD_MAX) this.#unheard.shift();
      this.#unheard.push(report);
    }
  }
}
