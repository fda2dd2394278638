/**
 * What an emulator offers so that devices can be attached to its machine, and the functions that attach them: written once
 * for any emulator. `docs/embedding.md` takes an emulator's author through it.
 * @module
 */
export type {
  EmulatorContext,
  EmulatorHooks,
  EmulatorHost,
  HostedPciFunction,
  InterruptLine,
  Mapping,
  MessageSink,
  PciSeat,
  RegisterBlock,
} from "./host.js";
export type { HostedBusOptions, HostedDevice } from "./bus-options.js";
export type { AttachmentCounters } from "./attachment.js";
export type { InterruptCounters } from "./interrupts.js";
export type { MachineOptions } from "./machine.js";
export { savedParts } from "./saved-part.js";
export {
  attachVbusPci,
  type VbusPciAttachment,
  type VbusPciCounters,
  type VbusPciOptions,
} from "./attach-vbus-pci.js";
export {
  attachVbusMmio,
  type VbusMmioAttachment,
  type VbusMmioAttachmentCounters,
  type VbusMmioOptions,
} from "./attach-vbus-mmio.js";
export {
  attachVirtioPci,
  type HostedVirtioPciOptions,
  type VirtioPciAttachment,
  type VirtioPciAttachmentCounters,
} from "./attach-virtio-pci.js";
export {
  attachVirtioMmio,
  type HostedVirtioMmioOptions,
  type VirtioMmioAttachment,
  type VirtioMmioAttachmentCounters,
} from "./attach-virtio-mmio.js";
