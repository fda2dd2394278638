/** Virtio functions of ours in a Linux guest: its init leaves them alone, so that saved states hold none that works. */
import type { GuestShell } from "./guest.js";

const addressOf = (slot: number): string => `0000:00:${slot.toString(16).padStart(2, "0")}.0`;

/** Has the guest's own virtio-pci driver take the function in a slot; returns its device's name, such as `virtio1`. */
export async function adoptFunction(machine: GuestShell, slot: number): Promise<string> {
  const address = addressOf(slot);
  const folder = `/sys/bus/pci/devices/${address}`;
  await machine.check(`echo >${folder}/driver_override && echo ${address} >/sys/bus/pci/drivers_probe`);
  const name = await machine.check(`basename ${folder}/virtio*`);
  return name.trim();
}

/** Takes it away from the driver again. */
export async function abandonFunction(machine: GuestShell, slot: number): Promise<void> {
  await machine.check(`echo ${addressOf(slot)} >/sys/bus/pci/drivers/virtio-pci/unbind`);
}

/** Lines of `/proc/interrupts` of a device, as name and count. */
export async function interruptsOf(
  machine: GuestShell,
  device: string,
): Promise<{ how: string; what: string; count: number }[]> {
  const text = await machine.check("cat /proc/interrupts");
  const found = [];
  for (const line of text.split("\n")) {
    const match = /^\s*\d+:\s+(\d+)\s+(.*\S)\s*$/.exec(line);
    if (match === null) continue;
    const [, count = "", rest = ""] = match;
    const words = rest.split(/\s+/);
    const names = words.slice(words.findIndex((word) => word.startsWith("virtio") || word.includes(device)));
    if (names.some((word) => word.replace(",", "").split("-")[0] === device))
      found.push({ how: words[0] ?? "", what: names.join(" "), count: Number(count) });
  }
  return found;
}
