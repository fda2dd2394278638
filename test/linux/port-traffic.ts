/** Much data through a port of a virtio console, both ways: the same for every transport that carries the console. */
import type { Terminal } from "vbus/devices/vconsole";
import { expect } from "vitest";
import type { Machine } from "../../examples/linux/machine.js";
import { until } from "./fixture.js";

/** A named port of a guest's console, and what was heard of it. */
export interface NamedPort {
  /** Its device in the guest, below `/dev`. */
  readonly port: string;
  readonly terminal: Terminal;
  /** Everything that the guest has written to it so far. */
  readonly heard: () => string;
}

/** 20,000 lines from the guest, and the same back to it; neither side may change or lose any. */
export async function carryNumbers(
  machine: Machine,
  { port, terminal, heard }: NamedPort,
  timeoutMs: number,
): Promise<void> {
  await machine.check(`seq 1 20000 >/tmp/numbers; cat /tmp/numbers >/dev/${port}`, { timeoutMs });
  const numbers = Array.from({ length: 20000 }, (_, n) => `${n + 1}\n`).join("");
  await until("the numbers", () => heard().length >= numbers.length);
  expect(heard() === numbers).toBe(true);
  await machine.check(`rm -f /tmp/back; (head -c ${numbers.length} </dev/${port} >/tmp/back) & true`);
  await until("the guest to open the port", () => terminal.connected);
  await terminal.write(Buffer.from(numbers));
  await until(
    "the numbers to arrive",
    async () => (await machine.run("cmp /tmp/numbers /tmp/back")).status === 0,
  );
}
