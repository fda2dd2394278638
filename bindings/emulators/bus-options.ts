import type { Bus } from "../bus/bus.js";
import type { DeviceClass } from "../bus/types.js";
import { Vbus } from "../bus/vbus.js";
import { VbusError } from "../errors.js";
import type { Scheduler } from "../scheduler.js";
import type { MachineOptions } from "./machine.js";
import { checkMachineOptions, checkShape, refuse } from "./validation.js";

/** A device that is created for a guest's own bus. */
export interface HostedDevice {
  /** Unique name. */
  readonly name: string;
  /** Its class; the same object may serve several devices. */
  readonly class: DeviceClass;
  /** Attributes to write before it is connected. */
  readonly attributes?: Readonly<Record<string, string>>;
}

/** Which bus to put in front of a guest. Give either a bus, with its scheduler, or devices to make one of. */
export interface HostedBusOptions extends MachineOptions {
  /** A bus of yours. */
  readonly bus?: Bus;
  /** Member of it that the guest acts as; the bus must have admitted it. Default: the emulator's name. */
  readonly member?: string;
  /** Devices for a bus of the guest's own. */
  readonly devices?: readonly HostedDevice[];
  /** Name of the client in the bus tree. */
  readonly label?: string;
}

/** @throws VbusError EINVAL unless there is exactly one of a bus and devices, and a scheduler with a bus */
export function checkBus(options: HostedBusOptions): void {
  checkMachineOptions(options);
  const { bus, devices, scheduler } = options;
  if ((bus === undefined) === (devices === undefined))
    throw new VbusError("EINVAL", "give either a bus or devices to make one of");
  if (bus !== undefined && scheduler === undefined)
    throw new VbusError("EINVAL", "give the scheduler that the bus was made with, too");
  if (bus !== undefined) checkShape("bus", bus, { openClient: "function" }, "give what createBus returned");
  if (devices === undefined) return;
  const wanted = "give an array of { name, class, attributes }, one for each device";
  if (!Array.isArray(devices)) refuse("devices", devices, wanted);
  for (const [i, device] of (devices as readonly HostedDevice[]).entries()) {
    checkShape(`devices[${i}]`, device, { name: "string" }, wanted);
    if ((device.class as unknown) === undefined) refuse(`devices[${i}].class`, device.class, wanted);
  }
}

/** The bus that the options name or describe; `vbus` is the bus system that was made for it, null when the bus is given. */
export function busFor(
  { bus, devices = [], member }: HostedBusOptions,
  scheduler: Scheduler,
  name: string,
): { vbus: Vbus | null; bus: Bus } {
  if (bus !== undefined) return { vbus: null, bus };
  const vbus = new Vbus({ scheduler });
  try {
    const own = vbus.createBus(name);
    const classes = new Set<DeviceClass>();
    for (const device of devices) {
      if (!classes.has(device.class)) vbus.registerClass(device.class);
      classes.add(device.class);
      own.connect(vbus.createDevice(device.name, device.class.name, device.attributes));
    }
    own.admit(member ?? name);
    return { vbus, bus: own };
  } catch (error) {
    vbus.close();
    throw error;
  }
}
