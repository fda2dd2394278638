import { EventLoopScheduler, MemorySpace, Switch, Vbus, venetClass, type Bus } from "vbus";
import { attachVbusMmio, type VbusMmioAttachment } from "vbus/emulators";
import { ATTACH_BASE } from "./map.js";
import { ToyMachine } from "./machine.js";
import { Peer } from "./peer.js";

/** Interrupt line of the register page. */
export const BUS_LINE = 9;

/** What a {@link Lab} is made of. */
export interface LabOptions {
  /** The guest's program. */
  readonly program: Uint8Array;
  /** Bytes of its RAM; default 16 MiB. */
  readonly ramSize?: number;
  /** Gets what the guest prints. */
  readonly print?: (byte: number) => void;
  /** Where the register page lies; default the first page that the guest looks at. */
  readonly memoryAddress?: number;
  /** Told of errors that hurt nothing but what they name. */
  readonly onError?: (error: unknown) => void;
}

/**
 * The toy machine and a guest written in TypeScript, each with a venet, on one switch: one bus system with a bus for each of
 * them, everything in one thread.
 */
export class Lab {
  private constructor(
    /** The machine; not running yet. */
    readonly machine: ToyMachine,
    /** The bus in front of it. */
    readonly attachment: VbusMmioAttachment,
    /** The other guest, with its link up. */
    readonly peer: Peer,
    /** What joins them. */
    readonly net: Switch,
    /** The bus system. */
    readonly vbus: Vbus,
  ) {}

  /** Builds everything. */
  static async build(options: LabOptions): Promise<Lab> {
    const { program, ramSize, print, memoryAddress = ATTACH_BASE, onError } = options;
    const scheduler = new EventLoopScheduler(onError);
    const net = new Switch({ scheduler, space: await MemorySpace.host() });
    const vbus = new Vbus({ scheduler });
    vbus.registerClass(venetClass({ port: (nic) => net.addPort(nic) }));
    const bus = (name: string, mac: string): Bus => {
      const made = vbus.createBus(name);
      made.connect(vbus.createDevice(`nic-${name}`, "venet", { client_mac: mac, enabled: "1" }));
      made.admit(name);
      return made;
    };
    const machine = new ToyMachine({
      program,
      ...(ramSize === undefined ? {} : { ramSize }),
      ...(print === undefined ? {} : { print }),
    });
    const attachment = attachVbusMmio(machine.host, {
      bus: bus("toy", "02:00:00:00:00:02"),
      scheduler,
      memoryAddress,
      irq: BUS_LINE,
      ...(onError === undefined ? {} : { onError }),
    });
    const peer = await Peer.start(bus("peer", "02:00:00:00:00:01"), "peer", scheduler);
    return new Lab(machine, attachment, peer, net, vbus);
  }

  /** Stops the machine and takes everything apart. */
  async close(): Promise<void> {
    this.machine.stop();
    await this.peer.close();
    this.attachment.close();
    this.vbus.close();
  }
}
