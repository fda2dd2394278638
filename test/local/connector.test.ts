import { Vbus, type Bus, type Client, type DeviceClass, type HostSignal } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import type { GuestEvent } from "vbus/drivers";
import { queueSegmentLength, Queue } from "vbus/engine";
import { allocateGuestMemory, GuestMemory, MemorySpace } from "vbus/memory";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";

let signals: HostSignal[];
let rung: number[];

const echoClass: DeviceClass = {
  name: "echo",
  create: () => {
    let published: { withdraw(): void } | null = null;
    return {
      attributes: new Map(),
      busConnect: (bus) => {
        published = bus.publish({
          name: "default",
          type: "echo",
          connect: () => ({
            call: (func) => func | 0,
            shm: (id, _segment, signal) => {
              if (signal !== null) {
                signals.push(signal);
                signal.onDoorbell = () => rung.push(id);
              }
              return 0;
            },
            close: () => {},
          }),
        });
      },
      busDisconnect: () => published?.withdraw(),
      release: () => {},
    };
  },
};

let scheduler: VirtualScheduler;
let bus: Bus;
let client: Client;
let memory: GuestMemory;
let connector: LocalConnector;
let events: GuestEvent[];

beforeEach(() => {
  signals = [];
  rung = [];
  events = [];
  scheduler = new VirtualScheduler();
  const vbus = new Vbus({ scheduler });
  vbus.registerClass(echoClass);
  bus = vbus.createBus("bus0");
  bus.connect(vbus.createDevice("echo0", "echo"));
  bus.admit("guest");
  const init = allocateGuestMemory({ size: 1 << 16 });
  memory = GuestMemory.openSync(init);
  const host = MemorySpace.attachSync(init.memory, init.layout.hostArena, init.layout.regions);
  client = bus.openClient({ member: "guest", memory: host });
  connector = new LocalConnector(client, memory, scheduler);
  connector.onEvent = (event) => events.push(event);
});

/** Shares a ring; its signal handle. */
function share(handle: number | object, id: number, cookie: number): Promise<number> {
  const length = queueSegmentLength(4);
  const gpa = memory.ram.allocate(length, { align: 64, offset: 8 });
  Queue.create(memory.space, { gpa, count: 4, role: "northTransmit" });
  return connector.shm(handle, id, gpa, length, { offset: 8, prio: 0, cookie }, 0);
}

describe("the local connector", () => {
  it("delivers no event before start, and each in a task, never inside a call", async () => {
    scheduler.run();
    expect(events).toEqual([]);
    await connector.start();
    expect(events).toEqual([]);
    scheduler.run();
    expect(events).toEqual([{ kind: "devadd", id: 0, type: "echo" }]);
    const handle = await connector.open(0, 1);
    await share(handle, 7, 0xffffffff);
    signals[0]?.notify();
    signals[0]?.notify();
    expect(events).toHaveLength(1);
    scheduler.run();
    expect(events.slice(1)).toEqual([{ kind: "shmsignal", cookie: 0xffffffff }]);
    await connector.close(handle);
    scheduler.run();
    expect(events.slice(2)).toEqual([{ kind: "shmclose", cookie: 0xffffffff }]);
  });

  it("passes results through and turns errors into typed ones", async () => {
    await expect(connector.open(99, 1)).rejects.toMatchObject({ code: "ENOENT" });
    const handle = await connector.open(0, 1);
    expect(await connector.call(handle, 41, 0, 0, 0)).toBe(41);
    await expect(connector.call(handle, -5 >>> 0, 0, 0, 0)).rejects.toMatchObject({ code: "EIO" });
    await expect(connector.call(12345, 0, 0, 0, 0)).rejects.toMatchObject({ code: "ENOENT" });
    await expect(connector.shm(handle, 0, 0x7fff0000, 64, null, 0)).rejects.toThrow(/EFAULT.*0x7fff0000/);
    expect(await connector.shm(handle, 0, memory.ram.start, 64, null, 0)).toBe(0);
    await connector.close(handle);
    await expect(connector.close(handle)).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("rings each doorbell once per task, however often it was pulled", async () => {
    const handle = await connector.open(0, 1);
    const first = await share(handle, 1, 1);
    const second = await share(handle, 2, 2);
    connector.ring(first);
    connector.ring(second);
    connector.ring(first);
    connector.ring(4711); // unknown: nobody is hurt
    expect(rung).toEqual([]);
    scheduler.run();
    expect(rung).toEqual([1, 2]);
    connector.ring(second);
    scheduler.run();
    expect(rung).toEqual([1, 2, 2]);
  });

  it("a doorbell pulled from inside a doorbell is rung in the next task", async () => {
    const handle = await connector.open(0, 1);
    const bell = await share(handle, 1, 1);
    let times = 0;
    (signals[0] as HostSignal).onDoorbell = () => {
      if (++times < 3) connector.ring(bell);
    };
    connector.ring(bell);
    scheduler.run();
    expect(times).toBe(3);
  });

  it("after disconnect nothing is rung or delivered, verbs say ENOTCONN, and doing it twice is harmless", async () => {
    await connector.start();
    const handle = await connector.open(0, 1);
    const bell = await share(handle, 1, 1);
    connector.ring(bell);
    connector.disconnect();
    connector.disconnect();
    connector.ring(bell);
    scheduler.run();
    expect(rung).toEqual([]);
    expect(events).toEqual([]);
    for (const verb of [
      () => connector.open(0, 1),
      () => connector.close(handle),
      () => connector.call(handle, 0, 0, 0, 0),
      () => connector.shm(handle, 0, 0, 0, null, 0),
      () => connector.start(),
    ]) {
      await expect(verb()).rejects.toMatchObject({ code: "ENOTCONN" });
    }
    expect(bus.clients).toEqual([]);
  });

  it("disconnecting inside an event handler delivers no further event", async () => {
    connector.onEvent = (event) => {
      events.push(event);
      connector.disconnect();
    };
    const vbus = new Vbus({ scheduler });
    vbus.close();
    await connector.start();
    await connector.open(0, 1);
    scheduler.run();
    expect(events).toHaveLength(1);
  });

  it("tells the guest once that it was taken off the bus", () => {
    const lost: Error[] = [];
    connector.onLost = (error) => lost.push(error);
    bus.expel("guest");
    connector.lose(new Error("later"));
    scheduler.run();
    expect(lost).toMatchObject([{ code: "ENOTCONN" }]);
  });

  it("leaving by itself is no loss", () => {
    const lost: Error[] = [];
    connector.onLost = (error) => lost.push(error);
    connector.disconnect();
    scheduler.run();
    expect(lost).toEqual([]);
  });

  it("events behind one whose handler failed come all the same, in order", async () => {
    let fail = true;
    connector.onEvent = (event) => {
      if (fail) {
        fail = false;
        throw new Error("on purpose");
      }
      events.push(event);
    };
    await connector.start();
    const handle = await connector.open(0, 1);
    await share(handle, 1, 1);
    signals[0]?.notify();
    expect(() => scheduler.run()).toThrow("on purpose");
    scheduler.run();
    expect(events).toEqual([{ kind: "shmsignal", cookie: 1 }]);
  });
});
