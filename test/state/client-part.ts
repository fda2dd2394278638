/** A guest in TypeScript whose host half is saved and put back, while the guest itself notices nothing. */
import type { Client } from "vbus/bus";
import type { MemorySpace } from "vbus/memory";
import {
  decodeState,
  encodeState,
  type RestoreOptions,
  type Saveable,
  type StateReader,
  type StateValue,
} from "vbus/state";

/** The sessions of a guest behind the local connector, whose cookies are numbers. */
export class ClientPart implements Saveable {
  readonly stateName = "guest";

  constructor(readonly client: Client) {}

  async settle(): Promise<void> {
    await this.client.settle();
  }
  hold(): void {
    this.client.hold();
  }
  release(): void {
    this.client.resume();
  }
  save(): StateValue {
    const cookies: number[] = [];
    const client = this.client.save((cookie) => {
      const found = cookies.indexOf(cookie as number);
      return found >= 0 ? found : cookies.push(cookie as number) - 1;
    });
    return { cookies, client };
  }
  check(state: StateReader): void {
    this.client.check(state.get("client"), state.get("cookies").items(65536).length);
  }
  clear(): void {
    this.client.reset();
  }
  restore(state: StateReader, options: RestoreOptions = {}): void {
    const cookies = state
      .get("cookies")
      .items(65536)
      .map((item) => item.number(0, 2 ** 32));
    this.client.restore(state.get("client"), cookies.length, (number) => cookies[number], options);
  }
}

/** A copy of guest RAM, and what puts it back. */
export function memoryImage(host: MemorySpace): () => void {
  const images = host.regions.map(({ address, length }) => ({
    address,
    bytes: host.bytes.slice(address, address + length),
  }));
  return () => {
    for (const { address, bytes } of images) host.bytes.set(bytes, address);
  };
}

/**
 * Saves the host half of a guest, ends it, and restores it from the bytes, as if it were another host's: in one step, so that
 * the guest cannot run in between. Returns the size of the state.
 */
export async function replaceHost(client: Client, host: MemorySpace): Promise<number> {
  const part = new ClientPart(client);
  await part.settle();
  part.hold();
  try {
    const bytes = encodeState(part.save());
    const putBack = memoryImage(host);
    const state = decodeState(bytes);
    part.check(state);
    part.clear(); // ends the sessions, which writes to their rings
    putBack();
    part.restore(state);
    return bytes.length;
  } finally {
    part.release();
  }
}
