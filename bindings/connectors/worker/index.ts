/**
 * The `worker` connector: a bus in one thread, its guest in another, over shared memory (`docs/abi/worker-wire.md`).
 * @module
 */
export {
  attachWorkerGuest,
  WorkerHostConnector,
  type WorkerHostCounters,
  type WorkerHostOptions,
} from "./host.js";
export { connectWorkerHost, type WorkerGuestOptions } from "./guest.js";
export { setUpLink } from "../../doorbells/page.js";
export {
  holdLife,
  watchLife,
  watchWorker,
  type ExitingWorker,
  type Vigil,
  type WatchLifeOptions,
} from "./watch.js";
