import { expect } from "vitest";

import { Vbus, type Bus } from "vbus/bus";
import { BridgeHost } from "vbus/connectors/bridge";
import { allocateGuestMemory, openHostView, type MemorySpace } from "vbus/memory";
import { VirtualScheduler } from "vbus/scheduler";

import { BareGuest, type WireLayout } from "./bare-guest.js";
import { echoClass } from "./echo.js";

/** One bus with test devices, on virtual time: what a guest is put in front of. */
export class EchoHost {
  readonly scheduler = new VirtualScheduler();
  readonly vbus = new Vbus({ scheduler: this.scheduler });
  readonly bus: Bus;

  constructor(devices = 1) {
    this.vbus.registerClass(echoClass);
    this.bus = this.vbus.createBus("test");
    this.bus.admit("guest");
    for (let i = 0; i < devices; i++) this.plug(`echo${i}`);
  }

  plug(name: string): void {
    this.vbus.createDevice(name, "echo");
    this.bus.connect(name);
  }
}

/** One bus with test devices, one bridge, one hand-written guest, on virtual time. */
export class Machine extends EchoHost {
  interrupts = 0;
  errors: unknown[] = [];
  signals = new Set<number>();
  host!: BridgeHost;
  guest!: BareGuest;
  memory!: MemorySpace;
  /** Free bytes of the host's arena before the bridge was made. */
  free = 0;

  async boot(layout: WireLayout): Promise<void> {
    const init = allocateGuestMemory({ size: 1 << 20, arenaSize: 1 << 18 });
    this.memory = await openHostView(init);
    this.free = this.memory.arena.available;
    this.host = new BridgeHost({
      client: this.bus.openClient({ member: "guest", memory: this.memory }),
      memory: this.memory,
      scheduler: this.scheduler,
      interrupt: () => {
        this.interrupts++;
      },
      onError: (error) => this.errors.push(error),
      onSignal: (handle, alive) => (alive ? this.signals.add(handle) : this.signals.delete(handle)),
    });
    this.guest = new BareGuest(init, this.host, layout);
  }

  /** Runs the host, then lets the guest handle its events, as long as there is something to do. */
  events(): { id: number; value: bigint; type: string }[] {
    const all = [];
    for (;;) {
      this.scheduler.run();
      const { events, ring } = this.guest.takeEvents();
      if (ring) this.host.eventqDoorbell();
      if (events.length === 0) return all;
      all.push(...events);
    }
  }

  /** Section 9, steps 3 to 9: returns the devices announced. */
  bringUp(count = 16): { id: number; value: bigint; type: string }[] {
    expect(this.guest.negotiate().result).toBe(1);
    this.guest.makeEventQueue(count);
    expect(this.guest.qreg()).toBe(0);
    return this.events();
  }
}
