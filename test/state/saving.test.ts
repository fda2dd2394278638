/** What saving and restoring are given and by whom: parts, pauses, what embedders add; and machines that do not fit. */
import type { V86 } from "v86";
import { Vbus } from "vbus/bus";
import { venetClass } from "vbus/devices/venet";
import { virtioEntropy } from "vbus/devices/virtio-rng";
import { attachVirtioMmio, savedParts, type EmulatorHost } from "vbus/emulators";
import { attachVbus, restoreMachine, saveMachine } from "vbus/emulators/v86";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { quiesce, restoreState, StateError, type Saveable, type StateValue } from "vbus/state";
import { afterEach, describe, expect, it } from "vitest";
import { echoClass } from "../connectors/echo.js";
import { SimulatedHost } from "../emulators/simulated-host.js";
import { cpuOf, GUEST_RAM, Machines } from "../emulators/v86-machine.js";

const rejection = (code: string, message: RegExp): object => ({
  code,
  message: expect.stringMatching(message) as string,
});

/** An emulator without a guest, to which one device is attached. */
function hostWithDevice(): { host: SimulatedHost; close(): void; attachment: object } {
  const host = new SimulatedHost();
  const attachment = attachVirtioMmio(host, { device: virtioEntropy(), memoryAddress: 0x4000_0000, irq: 3 });
  return {
    host,
    attachment,
    close() {
      attachment.close();
    },
  };
}

describe("the parts of a machine", () => {
  it("are those of its host: what attaching returned is refused, and a host that nothing is attached to", () => {
    const { host, attachment, close } = hostWithDevice();
    expect(savedParts(host).map(({ stateName }) => stateName)).toEqual(["mmio-40000000"]);
    for (const wrong of [attachment, undefined, null, {}, "host"])
      expect(() => savedParts(wrong as EmulatorHost)).toThrow(
        expect.objectContaining(rejection("EINVAL", /no EmulatorHost.*not what attaching returned/)) as Error,
      );
    close();
    for (const empty of [host, new SimulatedHost()])
      expect(() => savedParts(empty)).toThrow(
        expect.objectContaining(rejection("ENOTCONN", /nothing is attached/)) as Error,
      );
  });

  it("come in a list: a host in its place is refused, and so is one among them", async () => {
    const { host, close } = hostWithDevice();
    for (const wrong of [host, undefined, [host], [null]] as unknown as Saveable[][]) {
      await expect(quiesce(wrong)).rejects.toMatchObject(rejection("EINVAL", /savedParts\(host\)/));
      await expect(restoreState(wrong, new Uint8Array(0))).rejects.toMatchObject({ code: "EINVAL" });
    }
    close();
  });

  it("stand still once at a time: whoever comes second is refused, and disturbs nothing", async () => {
    const { host, close } = hostWithDevice();
    const first = await quiesce(savedParts(host));
    const state = first.save();
    const busy = rejection("EBUSY", /"mmio-40000000" stands still already.*resume/);
    await expect(quiesce(savedParts(host))).rejects.toMatchObject(busy);
    await expect(restoreState(savedParts(host), state)).rejects.toMatchObject(busy);
    expect(first.save()).toEqual(state);
    first.resume();
    expect(() => first.save()).toThrow(/go on already/);

    const second = await quiesce(savedParts(host));
    first.resume(); // once more is harmless, also for the second
    await expect(quiesce(savedParts(host))).rejects.toMatchObject(busy);
    second.resume();
    await restoreState(savedParts(host), state);
    await expect(
      restoreState(savedParts(host), state, { atStandstill: () => Promise.reject(new Error("no disk")) }),
    ).rejects.toThrow("no disk");
    (await quiesce(savedParts(host))).resume();
    close();
  });

  it("go on when one of them cannot be held", async () => {
    const { host, close } = hostWithDevice();
    const broken: Saveable = {
      ...savedParts(host)[0]!,
      stateName: "broken",
      holds: {},
      settle: () => Promise.reject(new Error("cannot be saved")),
    };
    await expect(quiesce([...savedParts(host), broken])).rejects.toThrow("cannot be saved");
    (await quiesce(savedParts(host))).resume();
    close();
  });

  it("may be a tree that several guests share, each of which is saved", async () => {
    const vbus = new Vbus({ scheduler: new EventLoopScheduler() });
    const [first, second] = [hostWithDevice(), hostWithDevice()];
    const quiesced = await Promise.all(
      [first, second].map(({ host }) => quiesce([vbus, ...savedParts(host)])),
    );
    const states = quiesced.map((each) => each.save());
    for (const each of quiesced) each.resume();
    expect(states[0]).toEqual(states[1]);
    first.close();
    second.close();
    vbus.close();
  });
});

describe("what an embedder saves with them", () => {
  it("is refused when it would not come back as it was, with what to give instead", async () => {
    const { host, close } = hostWithDevice();
    const quiesced = await quiesce(savedParts(host));
    const refused: [unknown, RegExp][] = [
      [new ArrayBuffer(80), /state\.extra cannot be saved.*new Uint8Array\(buffer\)/],
      [{ ram: new ArrayBuffer(80) }, /state\.extra\.ram .*new Uint8Array\(buffer\)/],
    ];
    for (const [extra, message] of refused)
      expect(() => quiesced.save(extra as StateValue)).toThrow(
        expect.objectContaining(rejection("EINVAL", message)) as Error,
      );
    quiesced.resume();
    close();
  });

  it("is not left out when it is restored: without `memory` nothing is touched", async () => {
    const { host, close } = hostWithDevice();
    const quiesced = await quiesce(savedParts(host));
    const state = quiesced.save(Uint8Array.of(1, 2, 3));
    quiesced.resume();
    let stood = false;
    const atStandstill = (): void => {
      stood = true;
    };
    await expect(restoreState(savedParts(host), state, { atStandstill })).rejects.toMatchObject(
      rejection("EINVAL", /give `memory`/),
    );
    expect(stood).toBe(false);
    const given: Uint8Array[] = [];
    await restoreState(savedParts(host), state, { memory: (extra) => given.push(extra.bytes(3)) });
    expect(given).toEqual([Uint8Array.of(1, 2, 3)]);
    close();
  });
});

describe("a device whose name and port another one has", () => {
  it("makes the state one of another machine, in words that name the port", async () => {
    const scheduler = new EventLoopScheduler();
    const net = new Switch({ scheduler, space: await MemorySpace.host() });
    const trees = ["nic-a", "nic-b"].map((name) => {
      const vbus = new Vbus({ scheduler });
      vbus.registerClass(venetClass({ port: (device) => net.addPort(device) }));
      vbus.createDevice(name, "venet", { enabled: "1" });
      return vbus;
    });
    const quiesced = await quiesce([trees[0]!]);
    const state = quiesced.save();
    quiesced.resume();
    const error: unknown = await restoreState([trees[1]!], state).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(StateError);
    expect(error).toMatchObject({
      name: "StateError",
      fault: "mismatch",
      ...rejection("ENODEV", /is taken here.*has a port nic-a already.*names that they had/),
    });
    for (const vbus of trees) vbus.close();
    net.close();
  });
});

describe("a machine of v86's", () => {
  let machines = new Machines();
  afterEach(async () => {
    await machines.close();
    machines = new Machines();
  });

  const memoryOf = (made: V86): number =>
    (cpuOf(made) as unknown as { memory_size: Int32Array }).memory_size[0]!;

  async function machineWith(options: { memory_size?: number; acpi?: boolean }): Promise<V86> {
    // v86 itself restores a machine without a disk only when firmware has set the BARs of its controller to 0
    const made = machines.make({ ...options, hda: { buffer: new ArrayBuffer(1 << 20) } });
    await attachVbus(made, {
      scheduler: new EventLoopScheduler(),
      devices: [{ name: "echo0", class: echoClass }],
    });
    await machines.ready(made);
    return made;
  }

  it("refuses the state of one with other memory or ACPI before anything is touched", async () => {
    const state = await saveMachine(await machineWith({}));
    for (const [options, message] of [
      [{ memory_size: 8 << 20 }, /memory_size 16777216, and this one has 8388608/],
      [{ memory_size: 32 << 20 }, /memory_size 16777216, and this one has 33554432/],
      [{ acpi: false }, /acpi true, and this one has false/],
    ] as const) {
      const made = await machineWith(options);
      const memory = memoryOf(made);
      const ram = new Uint8Array(cpuOf(made).wasm_memory.buffer, cpuOf(made).mem8.byteOffset, memory);
      ram[GUEST_RAM] = 0x5a;
      let stood = false;
      const atStandstill = (): void => {
        stood = true;
      };
      await expect(restoreMachine(made, state, { atStandstill })).rejects.toMatchObject({
        fault: "mismatch",
        ...rejection("ENODEV", message),
      });
      expect(stood).toBe(false);
      expect(memoryOf(made)).toBe(memory);
      expect(ram[GUEST_RAM]).toBe(0x5a);
    }
    await restoreMachine(await machineWith({}), state);
  });

  it("is saved or restored by one at a time", async () => {
    const made = await machineWith({});
    const state = await saveMachine(made);
    const busy = rejection("EBUSY", /saved or restored already/);
    await saveMachine(made, {
      atStandstill: async () => {
        await expect(saveMachine(made).then(() => "saved")).rejects.toMatchObject(busy);
        await expect(restoreMachine(made, state)).rejects.toMatchObject(busy);
      },
    });
    await restoreMachine(made, state);
  });
});
