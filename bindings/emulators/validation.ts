import { VbusError } from "../errors.js";
import { nameOf } from "../given.js";
import type { EmulatorHost } from "./host.js";
import type { MachineOptions } from "./machine.js";

/*
 * What is attached to an emulator is given by embedders, often in JavaScript: all of it is looked at here, once, before
 * anything happens to the emulator.
 */

/** Members that something must have, and their types. */
export type Shape = Readonly<
  Record<string, "bigint" | "boolean" | "function" | "number" | "object" | "string">
>;

const NO_SHAPE: Shape = {};
/** What a scheduler of any kind has. */
export const SCHEDULER: Shape = { post: "function", after: "function", now: "function" };
const EVENT_LOOP_SCHEDULER: Shape = { ...SCHEDULER, runPending: "function" };
const REGION: Shape = { gpa: "number", length: "number", address: "number" };
const HOST: Shape = {
  name: "string",
  memory: "object",
  regions: "object",
  allocPrivate: "function",
  freePrivate: "function",
  interruptsIn: "object",
  openLine: "function",
  mapRegisters: "function",
  hook: "function",
  instructions: "number",
  idle: "boolean",
};
const HOST_OPTIONAL = ["addPciFunction", "onHostWrite", "endSlice"] as const;

const shown = (value: unknown): string => (value === undefined ? "missing" : nameOf(value));

/** @throws VbusError EINVAL: what is there, and `wanted`, what to give instead */
export function refuse(what: string, value: unknown, wanted: string): never {
  throw new VbusError("EINVAL", `${what} is ${shown(value)}; ${wanted}`);
}

/** @throws VbusError EINVAL unless `value` is an object with these members; `wanted` says what to give */
export function checkShape(what: string, value: unknown, shape: Shape, wanted: string): void {
  if (typeof value !== "object" || value === null) refuse(what, value, wanted);
  for (const [member, type] of Object.entries(shape)) {
    const found = (value as Readonly<Record<string, unknown>>)[member];
    if (typeof found !== type || found === null) refuse(`${what}.${member}`, found, wanted);
  }
}

const hex = (n: number): string => `0x${n.toString(16)}`;
const bytes = (n: number): string => (n % 1024 === 0 ? `${n / 1024} KiB` : String(n));

/** Which addresses, or ports, can be. */
export interface AddressRange {
  /** They are multiples of this, a power of two. */
  readonly multiple: number;
  /** The first; default 0. */
  readonly from?: number;
  /** The last; default: there is none. */
  readonly to?: number;
}

/** @param what - what lies there, such as `registers at`. @throws VbusError EINVAL */
export function checkAddress(
  what: string,
  address: number,
  { multiple, from = 0, to = Number.MAX_SAFE_INTEGER }: AddressRange,
): void {
  if (Number.isSafeInteger(address) && address >= from && address <= to && address % multiple === 0) return;
  const given = Number.isSafeInteger(address) && address >= 0 ? hex(address) : shown(address);
  const limits = to === Number.MAX_SAFE_INTEGER ? "" : ` from ${hex(from)} to ${hex(to)}`;
  throw new VbusError("EINVAL", `${what} ${given}; give a number, a multiple of ${bytes(multiple)}${limits}`);
}

/**
 * Whether registers can lie in a machine's memory, `size` bytes aligned to their size, and have an interrupt. What else of
 * addresses and interrupts there is or is taken, the emulator says.
 * @throws VbusError EINVAL
 */
export function checkRegisters(
  host: EmulatorHost,
  { memoryAddress, irq }: { readonly memoryAddress: number; readonly irq: number },
  size: number,
): void {
  checkAddress("memoryAddress: registers at", memoryAddress, { multiple: size });
  const ram = host.regions.find(
    ({ gpa, length }) => memoryAddress < gpa + length && gpa < memoryAddress + size,
  );
  if (ram !== undefined)
    throw new VbusError(
      "EINVAL",
      `memoryAddress: registers at ${hex(memoryAddress)} would lie in RAM, which is from ${hex(ram.gpa)} to ` +
        `${hex(ram.gpa + ram.length - 1)}; give an address outside of every region of the host's`,
    );
  if (typeof irq !== "number") refuse("irq", irq, "give the number of its interrupt");
}

/** @throws VbusError EINVAL for options that nothing can be attached with */
export function checkMachineOptions(options: MachineOptions): void {
  checkShape("options", options, NO_SHAPE, "give an object with what to attach, and where");
  const { scheduler, arenaSize, onError } = options;
  if (scheduler !== undefined)
    checkShape(
      "scheduler",
      scheduler,
      EVENT_LOOP_SCHEDULER,
      "give the EventLoopScheduler that bus, devices and ports were made with",
    );
  if (arenaSize !== undefined && !(Number.isSafeInteger(arenaSize) && arenaSize > 0))
    refuse("arenaSize", arenaSize, "give a number of bytes");
  if (onError !== undefined && typeof onError !== "function")
    refuse("onError", onError, "give a function that is told of errors");
}

/** @throws VbusError EINVAL for an object that is no {@link EmulatorHost} */
export function checkHost(host: EmulatorHost): void {
  const wanted = "give an EmulatorHost, as docs/embedding.md describes it";
  checkShape("the host", host, HOST, wanted);
  const { memory, regions, interruptsIn, messages, configAccesses } = host;
  if (!(memory instanceof WebAssembly.Memory))
    refuse("the host's memory", memory, "give the WebAssembly.Memory that the guest's RAM lies in");
  const ram = "give an array of { gpa, length, address }, one for each piece of RAM";
  if (!Array.isArray(regions)) refuse("the host's regions", regions, ram);
  if (regions.length === 0) throw new VbusError("EINVAL", `the host's regions are empty; ${ram}`);
  for (const [i, region] of regions.entries()) checkShape(`the host's regions[${i}]`, region, REGION, ram);
  checkShape(
    "the host's interruptsIn",
    interruptsIn,
    { memory: "boolean", port: "boolean" },
    "say for accesses to memory and to ports whether interrupts may be raised in them",
  );
  if (messages !== undefined)
    checkShape("the host's messages", messages, { request: "function", deliver: "function" }, wanted);
  if (configAccesses !== undefined && !["port", "memory"].includes(configAccesses))
    refuse("the host's configAccesses", configAccesses, 'give "port" or "memory"');
  for (const member of HOST_OPTIONAL) {
    const found = (host as unknown as Readonly<Record<string, unknown>>)[member];
    if (found !== undefined && typeof found !== "function") refuse(`the host's ${member}`, found, wanted);
  }
}
