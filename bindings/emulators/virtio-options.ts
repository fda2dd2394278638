import type { VirtioFace } from "../virtio/types.js";
import type { MachineOptions } from "./machine.js";
import { checkMachineOptions, checkShape, type Shape } from "./validation.js";

/** A virtio device to put in front of a guest. */
interface VirtioDeviceOptions extends MachineOptions {
  readonly device: VirtioFace;
}

const FACE: Shape = {
  name: "string",
  deviceType: "number",
  features: "bigint",
  queueSizes: "object",
  configSize: "number",
  acceptable: "function",
  readConfig: "function",
  writeConfig: "function",
  start: "function",
};

/** @throws VbusError EINVAL unless there is a virtio device */
export function checkDevice(options: VirtioDeviceOptions): void {
  checkMachineOptions(options);
  checkShape(
    "device",
    options.device,
    FACE,
    "give a VirtioFace, such as virtioNet, virtioBlk or virtioConsole return",
  );
}
