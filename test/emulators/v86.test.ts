import fs from "node:fs";
import { createRequire } from "node:module";
import type { V86 } from "v86";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Bus, Vbus } from "vbus/bus";
import { attachVbus, V86_VERSION, V86NetworkPort, type V86Host } from "vbus/emulators/v86";
import { MemorySpace } from "vbus/memory";
import { HostFrames, type Batch, type Port } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import type { BareGuest, BridgeDoor } from "../connectors/bare-guest.js";
import { ECHO_REVERSE, ECHO_TYPE, ECHO_VERSION, echoClass } from "../connectors/echo.js";
import { cpuOf, echoBus, guestIn, Machines, type Cpu } from "./v86-machine.js";

const { resolve } = createRequire(import.meta.url);
const BAR0 = 0xfea00000;
const BAR1 = 0xd000;
const ENOTCONN = -107;

let machines: Machines;
let scheduler: EventLoopScheduler;
let vbus: Vbus;
let bus: Bus;
let errors: unknown[];

/** What v86's back ends do when a frame comes in. */
function say(made: V86, bytes: Uint8Array): void {
  (made as unknown as { bus: { send(name: string, bytes: Uint8Array): void } }).bus.send(
    "net0-receive",
    bytes,
  );
}

beforeEach(() => {
  machines = new Machines();
  errors = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  ({ vbus, bus } = echoBus(scheduler));
});

afterEach(async () => {
  vbus.close();
  await machines.close();
  expect(errors).toEqual([]);
});

/** Accesses as v86 makes them for its guest. */
class MachineDoor implements BridgeDoor {
  constructor(
    private readonly cpu: Cpu,
    private readonly bar0 = BAR0,
    private readonly bar1 = BAR1,
  ) {}
  call(vector: number, length: number, low: number, high: number): number {
    for (const [i, word] of [vector, length, low, high].entries())
      this.cpu.mmap_write32((this.bar0 + 4 * i) | 0, word | 0);
    return this.cpu.mmap_read32(this.bar0 | 0);
  }
  fastcall(id: number): boolean {
    this.cpu.io.port_write32(this.bar1 + 4, id);
    return true;
  }
  eventqDoorbell(): void {
    this.cpu.io.port_write32(this.bar1, 0);
  }
  shmSignal(handle: number): void {
    this.cpu.io.port_write32(this.bar1 + 8, handle);
  }
}

const turn = (): Promise<void> => new Promise((done) => setImmediate(done));

async function bringUp(guest: BareGuest): Promise<void> {
  expect(guest.negotiate().result).toBe(1);
  guest.makeEventQueue(16);
  expect(guest.qreg()).toBe(0);
  await turn();
}

describe("attaching to v86", () => {
  it(`is tested with the release that it names, ${V86_VERSION}`, () => {
    const { version } = JSON.parse(fs.readFileSync(resolve("v86/package.json"), "utf8")) as {
      version: string;
    };
    expect(version.split("+")[0]).toBe(V86_VERSION);
  });

  it("says which release it wants when this is another one, or no v86 at all", async () => {
    const listeners = { add_listener: () => undefined, remove_listener: () => undefined };
    const machine = { ...listeners, v86: { cpu: { io: {} } } };
    await expect(attachVbus(machine, { bus, scheduler })).rejects.toMatchObject({
      code: "EOPNOTSUPP",
      message: expect.stringContaining(V86_VERSION) as string,
    });
    expect(() => new V86NetworkPort(listeners, {} as never)).toThrow(/bus is missing/);
  });

  it("refuses a port on v86's network whose options cannot be, and listens to nothing then", async () => {
    const made = machines.make();
    await machines.ready(made);
    const space = await MemorySpace.host();
    const fine = { scheduler, space, as: "nic" };
    const { bus: ends } = made as unknown as { bus: { register: () => void } };
    ends.register = () => {
      throw new Error("listens");
    };
    for (const [options, message] of [
      [undefined, /options is missing; give scheduler, space and as/],
      [{ ...fine, as: "host" }, /as is "host"; give "nic" .* or "network"/],
      [{ ...fine, as: undefined }, /as is missing; give "nic"/],
      [{ ...fine, scheduler: undefined }, /scheduler is missing; give the EventLoopScheduler/],
      [{ ...fine, space: MemorySpace.host() }, /space.allocate is missing; .*MemorySpace.host.* awaited/],
      [{ ...fine, id: "0" }, /id is "0"; give the number/],
      [{ ...fine, maxFrames: 0 }, /maxFrames is 0; give a number/],
      [{ ...fine, maxBytes: NaN }, /maxBytes is NaN; give a number/],
    ] as const)
      expect(() => new V86NetworkPort(made, options as never), String(message)).toThrow(message);
    expect(() => new V86NetworkPort(undefined as never, fine as never)).toThrow(
      /give the object that new V86/,
    );
  });

  it("refuses a machine whose interrupt controller lies elsewhere, and leaves it alone", async () => {
    const made = machines.make();
    await machines.ready(made);
    const cpu = cpuOf(made) as Cpu & { get_apic_addr: () => number };
    const address = cpu.get_apic_addr();
    cpu.get_apic_addr = () => address + 4;
    const hooks = [cpu.main_loop, cpu.run_hardware_timers];
    await expect(attachVbus(made, { bus, scheduler })).rejects.toThrow(/APIC has another layout/);
    expect([cpu.main_loop, cpu.run_hardware_timers]).toEqual(hooks);
    expect(cpu.devices.pci.device_spaces[0x10 << 3]).toBeUndefined();
  });

  it("refuses slots that are taken, and options that cannot be", async () => {
    const made = machines.make();
    await expect(attachVbus(machines.make(), { bus, scheduler, slot: 7 })).rejects.toMatchObject({
      code: "EBUSY",
    });
    expect(bus.clients).toHaveLength(0); // nothing is left behind
    for (const [options, message] of [
      [{ bus, scheduler, slot: 32 }, /0 to 31/],
      [{ bus, scheduler, memoryAddress: 0xfea00010 }, /128 KiB/],
      [{ bus, scheduler, memoryAddress: 0xfec00000 }, /128 KiB/],
      [{ bus, scheduler, memoryAddress: "0xfea00000" }, /BAR 0 at "0xfea00000"; give a number/],
      [{ bus, scheduler, port: 0x3f8 }, /0x1000/],
      [{ bus, scheduler: EventLoopScheduler }, /scheduler is a function; give the EventLoopScheduler/],
      [undefined, /options is missing/],
      [{ bus }, /scheduler/],
      [{}, /either a bus or devices/],
      [{ bus, scheduler, devices: [] }, /either a bus or devices/],
    ] as const) {
      await expect(attachVbus(made, options as never), String(message)).rejects.toThrow(message);
    }
    for (const nothing of [undefined, null, {}])
      await expect(attachVbus(nothing as never, { bus, scheduler })).rejects.toThrow(
        /EINVAL: the emulator.* give the object that new V86/,
      );
    bus.expel("v86");
    await expect(attachVbus(made, { bus, scheduler })).rejects.toMatchObject({ code: "EPERM" });
  });

  it("makes a bus of its own from devices", async () => {
    const host = await attachVbus(machines.make(), {
      devices: [
        { name: "first", class: echoClass },
        { name: "second", class: echoClass },
      ],
    });
    expect(host.bus.read("devices/second/class")).toBe("echo");
    expect(host.vbus?.tree()).toContain("second");
    host.close();
  });

  it("finds RAM where v86 put it, without the hole of VGA memory, and keeps its own state out of it", async () => {
    const made = machines.make();
    const host = await attachVbus(made, { bus, scheduler });
    const ram = cpuOf(made).mem8.byteOffset;
    expect(host.memory.regions).toEqual([
      { gpa: 0, length: 0xa0000, address: ram },
      { gpa: 0xc0000, length: (16 << 20) - 0xc0000, address: ram + 0xc0000 },
    ]);
    const { start, end } = host.memory.arena;
    expect(end <= ram || start >= ram + (16 << 20)).toBe(true);
    host.close();
  });
});

describe("a guest of v86's", () => {
  let made: V86;
  let cpu: Cpu;
  let host: V86Host;
  let guest: BareGuest;
  let unhooked: Cpu["main_loop"];

  beforeEach(async () => {
    made = machines.make();
    made.add_listener("emulator-ready", () => {
      unhooked = cpuOf(made).main_loop;
    });
    host = await attachVbus(made, { bus, scheduler });
    cpu = cpuOf(made);
    guest = guestIn(cpu, new MachineDoor(cpu));
  });
  afterEach(() => {
    host.close();
  });

  it("finds the bridge on its PCI bus and calls the devices of the bus", async () => {
    cpu.io.port_write32(0xcf8, 0x80000000 | (0x10 << 11) | 0);
    expect(cpu.io.port_read32(0xcfc)).toBe(0x200011da);
    await bringUp(guest);
    expect(guest.takeEvents().events).toEqual([{ id: 0, value: 0n, type: ECHO_TYPE }]);
    const { channel, result } = guest.addChannel(0);
    expect(result).toBe(0);
    const { handle } = guest.open(0, ECHO_VERSION, channel);
    const data = guest.allocate(4);
    guest.setU32(data, 0x04030201);
    expect(guest.call(handle, ECHO_REVERSE, data, 4, 0, channel)).toBe(4);
    expect(guest.u32(data)).toBe(0x01020304);
  });

  it("is served after v86's memory grew, too", async () => {
    await bringUp(guest);
    cpu.wasm_memory.grow(3);
    const again = guestIn(cpu, new MachineDoor(cpu));
    await bringUp(again);
    expect(again.takeEvents().events).toHaveLength(1);
    const { handle } = again.open(again.takeEvents().events.length + 1, ECHO_VERSION);
    const data = again.allocate(4);
    again.setU32(data, 0x04030201);
    expect(again.call(handle, ECHO_REVERSE, data, 4)).toBe(4);
  });

  it("cannot change what it may not of its configuration space, though v86 would let it", () => {
    const select = (offset: number): void => {
      cpu.io.port_write32(0xcf8, 0x80000000 | (0x10 << 11) | offset | 0);
    };
    for (const offset of [0x00, 0x08, 0x2c, 0x34]) {
      select(offset);
      const before = cpu.io.port_read32(0xcfc);
      cpu.io.port_write32(0xcfc, -1);
      cpu.io.port_write8(0xcfc, 0x55);
      select(offset);
      expect(cpu.io.port_read32(0xcfc)).toBe(before);
    }
    select(0x44);
    cpu.io.port_write32(0xcfc, -1);
    select(0x44);
    expect(cpu.io.port_read32(0xcfc) >>> 0).toBe(0xfffffffc);
  });

  it("finds its BARs where they are, whatever bytes it wrote there", () => {
    const select = (offset: number): void => {
      cpu.io.port_write32(0xcf8, 0x80000000 | (0x10 << 11) | offset | 0);
    };
    for (const [offset, value] of [
      [0x10, BAR0],
      [0x14, BAR1 | 1],
    ] as const) {
      select(offset);
      for (let byte = 0; byte < 4; byte++) cpu.io.port_write8(0xcfc + byte, 0xee);
      cpu.io.port_write16(0xcfc, 0xeeee);
      select(offset);
      expect(cpu.io.port_read32(0xcfc) >>> 0).toBe(value >>> 0);
    }
    select(0x14);
    cpu.io.port_write32(0xcfc, 0xe000); // ports do move, when they are asked to as firmware does
    select(0x14);
    expect(cpu.io.port_read32(0xcfc)).toBe(0xe001);
    expect(guestIn(cpu, new MachineDoor(cpu, BAR0, 0xe000)).negotiate().result).toBe(1);
  });

  it("does no harm by writing to functions that do not exist, where v86 alone would throw", () => {
    cpu.io.port_write32(0xcf8, 0x80000000 | (0x19 << 11) | 0);
    cpu.io.port_write8(0xcfc, 1);
    cpu.io.port_write16(0xcfc, 1);
    cpu.io.port_write32(0xcfc, 1);
  });

  it("loses its session when it gives up bus mastering", async () => {
    cpu.io.port_write32(0xcf8, 0x80000000 | (0x10 << 11) | 4 | 0);
    cpu.io.port_write16(0xcfc, 7);
    await bringUp(guest);
    expect(host.function.bridge.negotiated).toBe(true);
    cpu.io.port_write16(0xcfc, 3);
    expect(host.function.bridge.negotiated).toBe(false);
  });

  it("loses its session when its machine is reset", async () => {
    await bringUp(guest);
    cpu.reboot_internal();
    expect(host.function.bridge.negotiated).toBe(false);
  });

  it("has stale translated code looked for wherever the host wrote, before it runs again", async () => {
    const dirty: [number, number][] = [];
    const original = cpu.jit_dirty_cache.bind(cpu);
    cpu.jit_dirty_cache = (start, end) => {
      dirty.push([start, end]);
      original(start, end);
    };
    await bringUp(guest);
    cpu.main_loop();
    const record = dirty.find(([start, end]) => start <= guest.data && end >= guest.data + 144);
    expect(record).toBeDefined();
    expect(dirty.some(([start]) => start >= guest.ring && start < guest.data)).toBe(true);
  });

  it("that rings again and again is served once per slice", async () => {
    await bringUp(guest);
    const { signalDoorbells } = host.counters();
    for (let i = 0; i < 10; i++) cpu.io.port_write32(BAR1 + 8, 77);
    expect(host.counters()).toMatchObject({ signalDoorbells: signalDoorbells + 1, postponed: 9 });
    cpu.run_hardware_timers(1, performance.now());
    expect(host.counters().signalDoorbells).toBe(signalDoorbells + 2);
  });

  it("gets host work done between its slices, without the event loop having its turn", () => {
    let ran = 0;
    scheduler.post(() => ran++);
    cpu.run_hardware_timers(1, performance.now());
    expect(ran).toBe(1);
  });

  it("gets -ENOTCONN for every call once the host closed, and v86 runs as before", async () => {
    await bringUp(guest);
    host.close();
    host.close();
    expect(guest.negotiate().result).toBe(ENOTCONN);
    expect(guest.open(0, ECHO_VERSION).result).toBe(ENOTCONN);
    cpu.io.port_write32(BAR1 + 8, 1);
    cpu.run_hardware_timers(1, performance.now());
    expect(cpu.main_loop).toBe(unhooked);
    bus.connect(vbus.createDevice("later", "echo"));
    await turn();
  });

  it("may have two bridges, each with a bus of its own", async () => {
    const two = vbus.createBus("second");
    two.admit("v86");
    const other = await attachVbus(made, {
      bus: two,
      scheduler,
      slot: 0x11,
      memoryAddress: BAR0 + 0x20000,
      port: BAR1 + 32,
    });
    const second = guestIn(cpu, new MachineDoor(cpu, BAR0 + 0x20000, BAR1 + 32));
    await bringUp(second);
    expect(second.takeEvents().events).toHaveLength(0);
    const first = guestIn(cpu, new MachineDoor(cpu)); // v86's memory grew
    await bringUp(first);
    expect(first.takeEvents().events).toHaveLength(1);
    host.close(); // below the other's hooks
    two.connect(vbus.createDevice("other", "echo"));
    cpu.run_hardware_timers(1, performance.now());
    expect(second.takeEvents().events).toHaveLength(1);
    other.close();
  });
});

describe("a port on v86's network", () => {
  const MAC = [2, 0, 0, 0, 0, 1];
  const frame = (seed: number, length = 60): Uint8Array =>
    Uint8Array.from({ length }, (_, i) => MAC[i] ?? (seed + i) & 0xff);

  let space: MemorySpace;
  let port: Port & { balance(): { balanced: boolean } };
  let got: number[][];
  let takes: number;

  function plug(): void {
    got = [];
    takes = Infinity;
    port.attach({
      receive(batch: Batch, from: number, to: number) {
        const n = Math.min(takes, to - from);
        for (let i = from; i < from + n; i++) got.push([...batch.bytes(i)]);
        takes -= n;
        return n;
      },
      writable: () => undefined,
    });
  }

  beforeEach(async () => {
    space = await MemorySpace.host();
  });
  afterEach(() => {
    expect(port.balance().balanced).toBe(true);
    port.close();
    port.close();
  });

  describe("as a network card of the machine's", () => {
    let made: V86;
    beforeEach(async () => {
      made = machines.make();
      await machines.ready(made);
      port = new V86NetworkPort(made, { scheduler, space, as: "nic" });
      plug();
    });

    it("says on v86's network what its peer sends: what v86's back ends hear", () => {
      const heard: number[][] = [];
      made.add_listener("net0-send", (bytes: Uint8Array) => heard.push([...bytes]));
      const frames = [frame(1), frame(2, 1514)];
      const { batch } = HostFrames.of(space, frames);
      expect(port.transmit(batch, 0, 2)).toBe(2);
      expect(heard).toEqual(frames.map((bytes) => [...bytes]));
      expect(port.counters()).toMatchObject({ received: 2, receivedBytes: 1574 });
    });

    it("hands its peer what v86's back ends say, in order, at once after a pause and in bursts otherwise", async () => {
      const said = Array.from({ length: 200 }, (_, i) => frame(i));
      say(made, said[0] as Uint8Array);
      expect(got).toHaveLength(1);
      for (const bytes of said.slice(1)) say(made, bytes);
      await turn();
      expect(got).toEqual(said.map((bytes) => [...bytes]));
    });

    it("keeps frames while its peer takes none, drops and counts the rest, and goes on when it is ready", async () => {
      takes = 0;
      for (let i = 0; i < 1500; i++) say(made, frame(i));
      await turn();
      const { drops, inFlight } = port.counters();
      expect(inFlight).toBe(1024);
      expect(drops).toEqual({ "queue-full": 476 });
      takes = Infinity;
      port.ready();
      await turn();
      expect(got).toHaveLength(1024);
      expect(got[1023]).toEqual([...frame(1023)]);
    });

    it("drops and counts what nobody is plugged in for, and what is too long", async () => {
      say(made, new Uint8Array(65537));
      await turn();
      port.detach();
      say(made, frame(1));
      expect(port.counters().drops).toEqual({ oversize: 1, "no-link": 1 });
    });

    it.each(["detach", "close"] as const)(
      "stays balanced when its peer calls %s in the midst of a burst",
      async (end) => {
        port.detach();
        let taken = 0;
        port.attach({
          receive() {
            port[end]();
            return ++taken;
          },
          writable: () => undefined,
        });
        for (let i = 0; i < 20; i++) say(made, frame(i));
        await turn();
        expect(taken).toBe(1);
        const { delivered, drops, inFlight } = port.counters();
        expect([delivered, inFlight]).toEqual([1, 0]);
        // after close nothing is heard any more, so nothing is counted
        if (end === "detach") expect(drops).toEqual({ "no-link": 19 });
        expect(port.balance().balanced).toBe(true);
      },
    );

    it("keeps its books when its peer leaves with a burst half taken", async () => {
      port.detach();
      say(made, frame(0)); // nobody there: and from now on frames are collected
      port.attach({
        receive(_batch: Batch, from: number, to: number) {
          port.detach();
          return Math.min(3, to - from);
        },
        writable: () => undefined,
      });
      for (let i = 0; i < 20; i++) say(made, frame(i));
      await turn();
      const { delivered, drops } = port.counters();
      expect(delivered + (drops["no-link"] ?? 0)).toBe(21);
      expect(port.balance().balanced).toBe(true);
    });

    it("is silent and deaf after close, and counts what came too late", () => {
      port.close();
      say(made, frame(1));
      const { batch } = HostFrames.of(space, [frame(1)]);
      expect(port.transmit(batch, 0, 1)).toBe(1);
      expect(port.counters().drops).toEqual({ closed: 1 });
      expect(got).toEqual([]);
    });
  });

  it("as a network card is served by v86's own back ends: its fetch network answers who it is", async () => {
    const made = machines.make({ net_device: { type: "none" as "virtio", relay_url: "fetch" } });
    await machines.ready(made);
    port = new V86NetworkPort(made, { scheduler, space, as: "nic" });
    plug();
    const request = new Uint8Array(60);
    request.fill(0xff, 0, 6);
    request.set(MAC, 6);
    request.set([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1], 12); // ARP, Ethernet, IPv4, request
    request.set([...MAC, 192, 168, 86, 100], 22);
    request.set([192, 168, 86, 1], 38);
    expect(port.transmit(HostFrames.of(space, [request]).batch, 0, 1)).toBe(1);
    for (let i = 0; i < 100 && got.length === 0; i++) await turn();
    const [answer] = got;
    expect(answer?.slice(0, 6)).toEqual(MAC);
    expect(answer?.slice(12, 14)).toEqual([0x08, 0x06]);
    expect(answer?.slice(20, 22)).toEqual([0, 2]); // a reply …
    expect(answer?.slice(28, 32)).toEqual([192, 168, 86, 1]); // … from the router that v86 plays
  });

  it("as the network of v86's own card takes nothing before the guest has set that up: it would be lost", async () => {
    const made = machines.make({ net_device: { type: "virtio" } });
    await machines.ready(made);
    port = new V86NetworkPort(made, { scheduler, space, as: "network" });
    plug();
    const { batch } = HostFrames.of(space, [frame(1)]);
    expect(port.transmit(batch, 0, 1)).toBe(0);
    expect(port.counters()).toMatchObject({ received: 0, drops: {} });
  });
});
