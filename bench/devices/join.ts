/** How a guest of the device benchmarks gets at its device. */
import { connectWorkerHost } from "vbus/connectors/worker";
import { ProxyBus, type Driver, type ProxyDevice } from "vbus/drivers";
import type { GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";

/** How long a guest waits for its device. */
const DEVICE_MS = 10_000;

/** Joins the bus of the host thread. */
export async function joinBus(init: GuestMemoryInit): Promise<ProxyBus> {
  const bus = new ProxyBus(await connectWorkerHost({ init, scheduler: new EventLoopScheduler() }));
  await bus.start();
  return bus;
}

/** A device that was taken, and how to give it back. */
export interface Taken<T> {
  device: T;
  giveBack(): Promise<void>;
}

/** Takes the device that a driver is for; each bus of the benchmarks has one of a kind. */
export function takeDevice<T>(bus: ProxyBus, driver: Driver<T>): Promise<Taken<T>> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error(`no ${driver.type} was found within ${DEVICE_MS} ms`));
    }, DEVICE_MS);
    bus.events.error = (_device, error) => {
      clearTimeout(timer);
      reject(error instanceof Error ? error : new Error(`the ${driver.type} failed`, { cause: error }));
    };
    const registered: Driver = {
      type: driver.type,
      probe: async (found: ProxyDevice) => {
        const device = await driver.probe(found);
        clearTimeout(timer);
        resolve({ device, giveBack: () => bus.unregisterDriver(registered) });
        return device;
      },
      remove: (instance, gone) => driver.remove(instance as T, gone),
    };
    bus.registerDriver(registered);
  });
}
