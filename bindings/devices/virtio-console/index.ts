/**
 * virtio-console, the device: consoles and ports for drivers that know virtio (virtio 1.2: 5.3), on the terminals of
 * `vbus/devices/vconsole`.
 * @module
 */
export { VirtioConsole, virtioConsole, type VirtioConsoleOptions, type VirtioConsolePort } from "./device.js";
