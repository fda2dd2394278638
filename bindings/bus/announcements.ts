import { VbusError } from "../errors.js";
import type { StateValue } from "../state/reader.js";
import type { ClientState, SavedInterface } from "./client-state.js";
import type { EventEntry, EventQueue } from "./events.js";
import type { InterfaceTable, Published } from "./interfaces.js";

/** An interface as one guest knows it. */
interface Announcement {
  readonly published: Published;
  /** Number that the guest uses; null from a reset to the next listen, when it must be a fresh one. */
  id: number | null;
  /** Its DEVADD, once queued. */
  entry: EventEntry | null;
}

/**
 * What one guest was told, or will be, of the interfaces on its bus, and by which numbers (`docs/abi/vbus-bus.md`
 * section 6, `docs/abi/vbus-pci.md` section 8). The numbers are the bus's own until the guest resets: it may still have
 * the old ones registered, so those that it took are never used again for it.
 */
export class Announcements {
  readonly #all = new Map<Published, Announcement>();
  readonly #byId = new Map<number, Announcement>();
  /** Lowest number that this guest has not seen. */
  #nextId = 0;

  /**
   * @param interfaces - what the bus has; how far its numbers go
   * @param events - where DEVADD and DEVDROP wait for the guest
   * @param outOfNumbers - told of an interface that cannot be announced any more
   */
  constructor(
    private readonly interfaces: InterfaceTable,
    private readonly events: EventQueue,
    private readonly outOfNumbers: (published: Published, error: VbusError) => void,
  ) {
    for (const published of interfaces.entries) this.#admit(published);
  }

  /** Lowest number that this guest has not seen. */
  get nextId(): number {
    return this.#nextId;
  }

  /** The interface that the guest means by a number. */
  find(id: number): Published | undefined {
    return this.#byId.get(id)?.published;
  }

  /** The interface of that name of that device, if the bus has it. */
  named(device: string, name: string): Published | undefined {
    for (const published of this.#all.keys()) {
      if (published.device.name === device && published.implementation.name === name) return published;
    }
    return undefined;
  }

  /** False once the interface left the bus: sessions with it are orphans. */
  has(published: Published): boolean {
    return this.#all.has(published);
  }

  /** An interface came. @param listening - the guest is told at once */
  published(published: Published, listening: boolean): void {
    const announcement = this.#admit(published);
    if (listening) this.#announce(announcement);
  }

  /** An interface left: the guest hears of it if it heard of the interface. */
  withdrawn(published: Published): void {
    const announcement = this.#all.get(published);
    if (announcement === undefined) return;
    this.#all.delete(published);
    if (announcement.id === null) return;
    this.#byId.delete(announcement.id);
    if (announcement.entry !== null) this.events.announce({ kind: "devdrop", id: announcement.id });
  }

  /** The guest listens: all interfaces are announced, in the order of their numbers. */
  announceAll(): void {
    const announcements = [...this.#all.values()];
    for (const announcement of announcements) {
      if (announcement.id === null) this.#number(announcement, this.#nextId);
    }
    // fresh numbers are higher than those of interfaces that came during the reset: the guest expects rising ones
    announcements.sort((a, b) => (a.id ?? 0) - (b.id ?? 0));
    for (const announcement of announcements) this.#announce(announcement);
  }

  /** The guest begins anew, and the events that waited for it are gone. */
  reset(): void {
    for (const announcement of this.#all.values()) {
      // a DEVADD that was never taken cannot have registered anything in the guest
      if (announcement.entry?.taken === true && announcement.id !== null) {
        this.#byId.delete(announcement.id);
        announcement.id = null;
      }
      announcement.entry = null;
    }
  }

  /** The guest is gone. */
  clear(): void {
    this.#all.clear();
    this.#byId.clear();
  }

  /** What the guest knows, as plain data: `interfaces` of a `ClientState`. */
  save(): StateValue {
    return [...this.#all.values()].map(({ published, id, entry }) => ({
      device: published.device.name,
      name: published.implementation.name,
      id,
      told: entry === null ? "no" : entry.queued ? "waits" : "yes",
    }));
  }

  /**
   * Numbers the interfaces as the guest knew them when it was saved, after a {@link Announcements.reset}. Those that wait
   * to be announced are announced again by {@link Announcements.announceAgain}, in their order among the other events.
   */
  restore(state: ClientState): void {
    const saved = new Map(state.interfaces.map((entry) => [placeOf(entry), entry]));
    this.#byId.clear();
    this.#nextId = state.nextId;
    for (const announcement of this.#all.values()) {
      const { device, implementation } = announcement.published;
      const found = saved.get(placeOf({ device: device.name, name: implementation.name }));
      const id = found?.id ?? null;
      announcement.id = id;
      announcement.entry = null;
      if (id === null) continue;
      this.#byId.set(id, announcement);
      if (found?.told === "yes")
        announcement.entry = this.events.tookBefore({ kind: "devadd", id, type: implementation.type });
    }
  }

  /** A DEVADD that waited when the guest was saved; nothing, if the interface is gone since. */
  announceAgain(id: number): void {
    const announcement = this.#byId.get(id);
    if (announcement !== undefined) this.#announce(announcement);
  }

  /** Devices came and went while the state lay about: the guest hears of it as of any other hot-plugging. */
  followChanges(state: ClientState): void {
    const here = new Set([...this.#all.values()].map(({ id }) => id));
    for (const { id, told } of state.interfaces)
      if (id !== null && told === "yes" && !here.has(id)) this.events.announce({ kind: "devdrop", id });
    for (const announcement of this.#all.values()) {
      if (announcement.id !== null || !state.listening) continue;
      this.#number(announcement, this.#nextId);
      this.#announce(announcement);
    }
    if (state.listening) return;
    // a guest that does not listen yet learns of everything when it does
    const saved = new Set(state.interfaces.map(placeOf));
    for (const announcement of this.#all.values()) {
      const { device, implementation } = announcement.published;
      if (announcement.id === null && !saved.has(placeOf({ device: device.name, name: implementation.name })))
        this.#number(announcement, this.#nextId);
    }
  }

  #admit(published: Published): Announcement {
    // the bus's own number, unless a reset has used it up for this guest
    const id = Math.max(published.id, this.#nextId);
    const announcement: Announcement = { published, id: null, entry: null };
    this.#all.set(published, announcement);
    this.#number(announcement, id);
    return announcement;
  }

  /** Gives an interface a number that this guest has not seen. A guest that resets for ever exhausts its own numbers only. */
  #number(announcement: Announcement, id: number): void {
    if (id > this.interfaces.lastId) {
      const error = new VbusError(
        "ENOSPC",
        "this guest has used all its interface numbers; let it connect anew",
      );
      this.outOfNumbers(announcement.published, error);
      return;
    }
    announcement.id = id;
    this.#nextId = id + 1;
    this.#byId.set(id, announcement);
  }

  #announce(announcement: Announcement): void {
    if (announcement.id === null) return;
    const { type } = announcement.published.implementation;
    announcement.entry = this.events.announce({ kind: "devadd", id: announcement.id, type });
  }
}

/** Where an interface is, whatever its number: names hold no NUL. */
function placeOf({ device, name }: Pick<SavedInterface, "device" | "name">): string {
  return `${device}\0${name}`;
}
