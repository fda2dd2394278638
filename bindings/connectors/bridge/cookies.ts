import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";

const COOKIE_SIZE = 8;
/** Cookies of one guest that may be alive: a guest that hoards signals must not eat the arena its rings live in. */
export const COOKIES_MAX = 16384;

/** A guest's cookie, as the bus carries it around: never a number, only the place where its 8 bytes are kept. */
export class KeptCookie {
  /** The handle of the signal that it belongs to; null until the device accepted the segment. */
  signalHandle: number | null = null;

  /** @param address - of the 8 bytes in the arena */
  constructor(readonly address: number) {}
}

/**
 * Keeps the 64-bit cookies of a guest's signals in the arena. They are kernel pointers of the guest: nothing here
 * interprets them, and they never become JavaScript numbers (which cannot hold them).
 */
export class CookieStore {
  #live = new Set<KeptCookie>();

  /** @param memory - the host's view of the guest's memory */
  constructor(private readonly memory: MemorySpace) {}

  /** Number of cookies kept. */
  get size(): number {
    return this.#live.size;
  }

  /** True until it is forgotten. */
  has(cookie: KeptCookie): boolean {
    return this.#live.has(cookie);
  }

  /** All of them. */
  get live(): Iterable<KeptCookie> {
    return this.#live;
  }

  /**
   * Keeps the 8 bytes at an address of the memory (a private copy of the guest's block).
   * @throws VbusError ENOMEM when the guest has too many signals, or the arena is exhausted
   */
  keep(address: number): KeptCookie {
    if (this.#live.size >= COOKIES_MAX) {
      throw new VbusError(
        "ENOMEM",
        `the guest keeps ${COOKIES_MAX} signals; it must close devices before it shares more`,
      );
    }
    const cookie = new KeptCookie(this.memory.allocate(COOKIE_SIZE, COOKIE_SIZE));
    this.memory.bytes.copyWithin(cookie.address, address, address + COOKIE_SIZE);
    this.#live.add(cookie);
    return cookie;
  }

  /** Copies a kept cookie to an address of the memory. */
  copyTo(address: number, cookie: KeptCookie): void {
    this.memory.bytes.copyWithin(address, cookie.address, cookie.address + COOKIE_SIZE);
  }

  /** The 8 bytes of a kept cookie. */
  bytesOf(cookie: KeptCookie): Uint8Array<ArrayBuffer> {
    return this.memory.bytes.slice(cookie.address, cookie.address + COOKIE_SIZE);
  }

  /** Keeps 8 bytes that were saved. @throws VbusError ENOMEM */
  keepBytes(bytes: Uint8Array): KeptCookie {
    const cookie = new KeptCookie(this.memory.allocate(COOKIE_SIZE, COOKIE_SIZE));
    this.memory.bytes.set(bytes, cookie.address);
    this.#live.add(cookie);
    return cookie;
  }

  /** Forgets a cookie: its SHMCLOSE was delivered, or its segment refused. Twice is harmless. */
  forget(cookie: KeptCookie): void {
    if (this.#live.delete(cookie)) this.memory.free(cookie.address);
  }

  /** Forgets all. */
  clear(): void {
    for (const cookie of this.#live) this.memory.free(cookie.address);
    this.#live.clear();
  }
}
