/**
 * A page that does one thing, named in its query, and writes what it found. Nothing is evaluated from outside: the
 * debugger's evaluation is exempt from the content security policy, which is part of what is tested.
 */
import { attachWorkerGuest, connectWorkerHost, watchLife } from "vbus/connectors/worker";
import { Vbus } from "vbus/bus";
import type { VenetStatistics } from "vbus/devices/venet";
import type { NicStatistics } from "vbus/drivers/venet";
import { allocateGuestMemory, MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { packFrames } from "../../examples/replay/frames.js";
import type { HostStart } from "../../examples/replay/host.js";
import type { HostReport } from "../../examples/replay/job.js";
import { DEFAULT_OPTIONS } from "../../examples/replay/options.js";
import { Thread } from "../../examples/replay/threads.js";
import { CONFORMANCE } from "../engine/conformance.js";
import { engine } from "../engine/implementations.js";
import { TestMachine, testFrame, type TestGuest } from "../venet/machine.js";
import { errorOutcome, probeEngine, type LinkWay } from "./engine-probe.js";
import type {
  ConformanceOutcome,
  DeathOutcome,
  DiskOutcome,
  EngineOutcome,
  ErrorOutcome,
  LocalOutcome,
  RefusalOutcome,
  StoredDiskOutcome,
  ToyOutcome,
} from "./outcome.js";
import { runToy } from "./toy.js";

const query = new URLSearchParams(location.search);
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((a, b) => a + b, 0);

async function engineInPage(): Promise<EngineOutcome> {
  return probeEngine(query.get("way") as LinkWay);
}

async function engineInWorker(): Promise<EngineOutcome> {
  const thread = await Thread.start(new URL("./probe-worker.js", import.meta.url), "probe");
  try {
    return await thread.call<EngineOutcome>("engine", { way: query.get("way") });
  } finally {
    thread.terminate();
  }
}

/** The whole table against the unshared engine, for small rings. */
async function conformance(): Promise<ConformanceOutcome> {
  const failures: string[] = [];
  let ran = 0;
  const implementation = engine(false, "both");
  for (const layout of ["lp64", "ilp32"] as const) {
    for (const count of [1, 2, 8, 256]) {
      for (const { name, pattern, sizes, run } of CONFORMANCE) {
        if (sizes?.(count) === false) continue;
        ran++;
        try {
          run(implementation.open(pattern, layout, count));
        } catch (error) {
          failures.push(`${layout}, ${count} descriptors: ${name}: ${String(error)}`);
        }
      }
    }
  }
  await implementation.close();
  return { ran, failures };
}

async function refusal(): Promise<RefusalOutcome> {
  const attempt = async (action: () => unknown): Promise<ErrorOutcome | null> => {
    try {
      await action();
      return null;
    } catch (error) {
      return errorOutcome(error);
    }
  };
  const scheduler = new EventLoopScheduler();
  const bus = new Vbus({ scheduler }).createBus("bus0");
  bus.admit("a");
  const init = allocateGuestMemory({ size: 1 << 20 });
  // without isolation the constructor does give a shared memory, and nobody can post it
  const own = { ...init, memory: new WebAssembly.Memory({ initial: 128, maximum: 128, shared: true }) };
  return {
    isolated: crossOriginIsolated,
    sharedArrayBuffer: typeof SharedArrayBuffer,
    allocate: await attempt(() => allocateGuestMemory({ shared: true })),
    host: await attempt(() => attachWorkerGuest({ bus, member: "a", init, scheduler })),
    guest: await attempt(() => connectWorkerHost({ init, scheduler })),
    ownMemory: await attempt(() => attachWorkerGuest({ bus, member: "a", init: own, scheduler })),
  };
}

/** Two guests and their host in this thread, a switch between them, frames both ways at once. */
async function local(): Promise<LocalOutcome> {
  const sent = 2000;
  const network = new Switch({ scheduler: new EventLoopScheduler(), space: await MemorySpace.host() });
  const machine = new TestMachine((name) => network.addPort(name));
  machine.addNic("nic0", { client_mac: "02:00:00:00:00:0a" });
  machine.addNic("nic1", { client_mac: "02:00:00:00:00:0b" });
  const a = await machine.addGuest("a", 0);
  const b = await machine.addGuest("b", 1);
  await a.nic.open();
  await b.nic.open();
  const exchange = async (from: TestGuest, to: TestGuest): Promise<number> => {
    const frames = Array.from({ length: sent }, (_, n) =>
      testFrame(to.nic.mac, from.nic.mac, 60 + ((n * 37) % 1400), n),
    );
    const sending = from.nic.send(frames);
    let intact = 0;
    for (let got = 0; got < sent;) {
      for (const frame of await to.nic.receive()) {
        const expected = frames[got++];
        if (expected?.length === frame.length && expected.every((byte, i) => byte === frame[i])) intact++;
      }
    }
    await sending;
    return intact;
  };
  const intact = await Promise.all([exchange(a, b), exchange(b, a)]);
  const { balanced, drops, inFlight } = network.balance();
  await machine.close();
  return { sent, intact, balanced, drops, inFlight, errors: machine.errors.map(String) };
}

/** Starts a guest of the main job and has it find its NIC. `onDeath` is told what its Web Lock says. */
async function startGuest(
  host: Thread,
  name: string,
  mac: string,
  onDeath?: (reason: Error) => void,
  program = "guest",
): Promise<[Thread, number]> {
  const init = allocateGuestMemory({ size: 16 << 20, shared: true });
  const life = `probe-${name}-${crypto.randomUUID()}`;
  if (onDeath !== undefined) watchLife({ name: life, onDeath });
  await host.call("addGuest", { name, init, mac, mtu: 1500 });
  const guest = await Thread.start(new URL(`./${program}.js`, import.meta.url), name);
  const { id } = await guest.call<{ id: number }>("start", {
    name,
    life,
    init,
    nic: {},
    timeoutMs: 60_000,
  });
  await guest.call("open");
  return [guest, id];
}

/** Ends a guest that is sending as fast as it can, from outside or by itself; its Web Lock tells of it. */
async function death(): Promise<DeathOutcome> {
  const host = await Thread.start(new URL("./host.js", import.meta.url), "host");
  const options = { ...DEFAULT_OPTIONS, captureFrames: 0 };
  await host.call("start", { options, capturePath: null, stations: 3 } satisfies HostStart);
  const never = new Promise<string>(() => {});
  let died: (reason: Error) => void = () => {};
  const told = new Promise<string>((resolve) => {
    died = (reason) => {
      resolve(reason.message);
    };
  });
  const [a, device] = await startGuest(host, "A", "02:00:00:00:00:0a", died, "mortal-guest");
  const [b] = await startGuest(host, "B", "02:00:00:00:00:0b");
  const report = (): Promise<HostReport> => host.call<HostReport>("report");
  const nic = (from: HostReport, name: string): VenetStatistics => {
    const found = from.nics[name];
    if (found === undefined) throw new Error(`the host reports no ${name}`);
    return found.statistics;
  };

  await b.call("announce");
  await b.call("settle", { ms: 1 });
  const frames = Array.from({ length: 256 }, (_, n) =>
    testFrame([2, 0, 0, 0, 0, 0xb], [2, 0, 0, 0, 0, 0xa], 60 + 5 * n, n),
  );
  const order = { pack: packFrames(frames), repetitions: 1e6, batch: 64 };
  const finished = a.call("send", order).then(
    () => "the guest finished before it ended",
    () => never, // the end that was asked for
  );
  let before = await report();
  while (nic(before, "nic0").tx.frames < 2000) {
    await pause(5);
    before = await report();
  }
  if (query.get("end") === "close") new BroadcastChannel("mortal-guest").postMessage("end");
  else a.terminate();
  const reason = await Promise.race([told, finished]);
  await host.call("guestDied", { name: "A", reason });

  // what was on its way to the other guest arrives
  let after = await report();
  let living = await b.call<NicStatistics>("statistics");
  for (let turn = 0; turn < 200; turn++) {
    if (after.balance.inFlight === 0 && living.rx_packets === nic(after, "nic1").rx.passed) break;
    await pause(20);
    after = await report();
    living = await b.call<NicStatistics>("statistics");
  }
  const [next, successor] = await startGuest(host, "C", "02:00:00:00:00:0c");
  const { tx } = nic(after, "nic0");
  for (const thread of [next, b, host]) thread.terminate();
  return {
    reason,
    device,
    successor,
    before: before.tree,
    after: after.tree,
    nic: { frames: tx.frames, passed: tx.passed, drops: sum(tx.drops) },
    balance: after.balance,
    living: { received: living.rx_packets, passed: nic(after, "nic1").rx.passed },
    errors: after.errors,
  };
}

async function disk(): Promise<DiskOutcome | StoredDiskOutcome> {
  const thread = await Thread.start(new URL("./disk-worker.js", import.meta.url), "disk");
  try {
    return await thread.call(query.get("backend") ?? "blob");
  } finally {
    thread.terminate();
  }
}

async function toy(): Promise<ToyOutcome> {
  if (query.get("where") === "page") return runToy();
  const thread = await Thread.start(new URL("./toy-worker.js", import.meta.url), "toy");
  try {
    return await thread.call<ToyOutcome>("toy");
  } finally {
    thread.terminate();
  }
}

const PROBES: Record<string, () => Promise<unknown>> = {
  engine: engineInPage,
  worker: engineInWorker,
  conformance,
  refusal,
  local,
  disk,
  death,
  toy,
};

const probe = PROBES[query.get("run") ?? ""];
const target = document.querySelector("#outcome");
if (probe === undefined || target === null) throw new Error("open this page with ?run=engine, for instance");
try {
  target.textContent = JSON.stringify(await probe());
  document.documentElement.dataset.state = "done";
} catch (error) {
  target.textContent = error instanceof Error ? (error.stack ?? error.message) : String(error);
  document.documentElement.dataset.state = "failed";
}
