// A host in a thread of its own, with one test device on one bus; to be terminated at any moment.
import { parentPort, workerData } from "node:worker_threads";

import { Vbus } from "vbus/bus";
import { attachWorkerGuest } from "vbus/connectors/worker";
import type { GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";

import { echoClass } from "../connectors/echo.js";

const { init } = workerData as { init: GuestMemoryInit };
const scheduler = new EventLoopScheduler();
const vbus = new Vbus({ scheduler });
vbus.registerClass(echoClass);
const bus = vbus.createBus("test");
bus.admit("guest");
vbus.createDevice("echo0", "echo");
bus.connect("echo0");
await attachWorkerGuest({ bus, member: "guest", init, scheduler });
parentPort!.postMessage("attached");
