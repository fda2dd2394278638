/**
 * The bus model: device classes, devices, buses, clients and their events (`docs/abi/vbus-bus.md`).
 * @module
 */
export { Vbus, type VbusOptions } from "./vbus.js";
export { Bus, type BusOptions, type ClientOptions } from "./bus.js";
export { CLIENT_LIMITS, Client, type ClientLimits } from "./client.js";
export type { InterfacePlace, ManagedDevice } from "./device.js";
export type { SessionView } from "./session.js";
export type {
  ClientNotice,
  ConnectionNotice,
  ErrorReport,
  InterfaceNotice,
  TreeEvents,
  TreeEventType,
  Unsubscribe,
} from "./emitter.js";
export type {
  Attribute,
  BusClient,
  ClientSource,
  BusEvent,
  BusPublisher,
  Connection,
  Device,
  DeviceClass,
  DeviceContext,
  DeviceInterface,
  HostSignal,
  PublishedInterface,
  RestoredSignals,
  SavedSignals,
  SessionQueue,
  SharedSegment,
  SignalCookie,
  SignalRequest,
} from "./types.js";
export type { CookieNumber } from "./client-state.js";
export type { CookieAt } from "./saved-sessions.js";
