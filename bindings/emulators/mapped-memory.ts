import type { AccessWidth } from "../connectors/pci/config-space.js";
import type { Mapping } from "./host.js";
import type { EmulatorMachine } from "./machine.js";
import { checkShape } from "./validation.js";

/** Registers that know no emulator. */
export interface Registers {
  read(offset: number, width: AccessWidth): number;
  write(offset: number, width: AccessWidth, value: number): void;
}

/** Maps registers into a machine's memory, with its context noted in every access. @throws VbusError as `EmulatorHost.mapRegisters` */
export function mappedMemory(
  machine: EmulatorMachine,
  address: number,
  size: number,
  registers: Registers,
): Mapping {
  const mapping = machine.host.mapRegisters({
    kind: "memory",
    address,
    size,
    read: (offset, width) => machine.in("memory", () => registers.read(offset, width)),
    write: (offset, width, value) => {
      machine.in("memory", () => {
        registers.write(offset, width, value);
      });
    },
  });
  checkShape("what the host's mapRegisters returned", mapping, { unmap: "function" }, "return { unmap }");
  return mapping;
}
