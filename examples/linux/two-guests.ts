/**
 * Two Linux guests with a venet each, and if wanted a guest written in TypeScript, on one switch. Nothing of their traffic is
 * checksummed or cut on the way: what one kernel hands to its card as a superframe, the other one gets from its card as that.
 *
 *     ┌ Linux, 10.0.1.2 ┐   ┌ Linux, 10.0.1.3 ┐   ┌ TypeScript, 10.0.1.4 ┐
 *     │ eth1 (venet)    │   │ eth1 (venet)    │   │ venet driver         │
 *     └──────┬──────────┘   └──────┬──────────┘   └──────┬───────────────┘
 *         ───┴──────── switch ─────┴─────────────────────┴───
 */
import { Vbus } from "vbus/bus";
import { venetClass, type VenetStatistics } from "vbus/devices/venet";
import { attachVbus, type V86Host } from "vbus/emulators/v86";
import { MemorySpace } from "vbus/memory";
import { capturePort, Switch, type Port } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { CaptureFile } from "./capture-file.js";
import { Machine, type MachineOptions } from "./machine.js";
import { TypeScriptGuest } from "./typescript-guest.js";

const READY_MS = 60_000;
const STREAM_MS = 120_000;

/** One of the Linux guests. */
export interface LinuxGuest {
  readonly name: string;
  readonly machine: Machine;
  readonly host: V86Host;
  /** Of its card. */
  readonly address: string;
  readonly mac: string;
}

/** What {@link TwoGuests} are made of. */
export interface TwoGuestsOptions extends Omit<MachineOptions, "prepare" | "preparedAs" | "name"> {
  /** File for everything that crosses the cards, as pcapng. */
  capture?: string;
  /** True: a guest written in TypeScript, too. Default false. */
  typescript?: boolean;
}

/** What a stream between two guests did. */
export interface StreamResult {
  /** Bytes that came, each as it was sent. */
  bytes: number;
  bytesPerSecond: number;
}

type Closer = () => void | Promise<void>;

const NAMES = ["a", "b"] as const;
const addressOf = (i: number): string => `10.0.1.${i + 2}`;
const macOf = (i: number): string => `02:00:00:00:01:0${i + 2}`;
let ports = 6100;

/** Two Linux guests, up and connected. */
export class TwoGuests {
  private constructor(
    readonly a: LinuxGuest,
    readonly b: LinuxGuest,
    /** When it was asked for. */
    readonly typescript: TypeScriptGuest | null,
    /** Its address. */
    readonly typescriptAddress: string,
    readonly net: Switch,
    private readonly vbus: Vbus,
    private readonly closers: Closer[],
  ) {}

  /** Starts all. @throws GuestError, Error */
  static async open(options: TwoGuestsOptions): Promise<TwoGuests> {
    const { mtu = 1500, capture, typescript = false } = options;
    const closers: Closer[] = [];
    const scheduler = new EventLoopScheduler();
    const net = new Switch({ scheduler, space: await MemorySpace.host(), egressBytes: 4 << 20 });
    const file = capture === undefined ? null : new CaptureFile(capture);
    if (file !== null) closers.push(() => file.close());
    closers.push(() => net.close());
    const wrap = (port: Port): Port => (file === null ? port : capturePort(port, file.writer));
    const vbus = new Vbus({ scheduler });
    closers.push(() => vbus.close());
    vbus.registerClass(venetClass({ port: (nic) => wrap(net.addPort(nic)) }));
    const addBus = (name: string, i: number) => {
      const bus = vbus.createBus(name);
      const attributes = { client_mac: macOf(i), mtu: String(mtu), enabled: "1" };
      bus.connect(vbus.createDevice(`nic-${name}`, "venet", attributes));
      return bus;
    };
    try {
      const guests: LinuxGuest[] = [];
      for (const [i, name] of NAMES.entries()) {
        const bus = addBus(name, i);
        bus.admit("v86");
        let host: V86Host | undefined;
        const machine = await Machine.start({
          ...options,
          name: `guest ${name}`,
          preparedAs: "vbus-pci bridge in slot 0x10",
          prepare: async (emulator) => {
            host = await attachVbus(emulator, { bus, scheduler });
          },
        });
        closers.push(async () => {
          host?.close();
          await machine.close();
        });
        guests.push({ name, machine, host: host!, address: addressOf(i), mac: macOf(i) });
      }
      const [a, b] = guests as [LinuxGuest, LinuxGuest];
      for (const guest of guests) await bringUp(guest, mtu);
      await a.machine.check(`ping -c 1 -W 10 ${b.address}`, { timeoutMs: READY_MS });
      const third = NAMES.length;
      let own: TypeScriptGuest | null = null;
      if (typescript) {
        const bus = addBus("typescript", third);
        own = await TypeScriptGuest.start({
          bus,
          scheduler,
          mac: macOf(third),
          address: addressOf(third),
          mtu,
        });
        const started = own;
        closers.push(() => started.close());
      }
      return new TwoGuests(a, b, own, addressOf(third), net, vbus, closers);
    } catch (error) {
      await closeAll(closers);
      throw error;
    }
  }

  /** What the card of a guest (`a`, `b`, `typescript`) counted. */
  statistics(name: string): VenetStatistics {
    return JSON.parse(this.vbus.read(`devices/nic-${name}/statistics`)) as VenetStatistics;
  }

  /**
   * One TCP stream from a guest to the other, of `bytes` or for `ms`, verified where it arrives.
   * @throws Error when anything was not as it was sent
   */
  async stream(
    from: LinuxGuest,
    to: LinuxGuest,
    { bytes, ms, seed }: { bytes?: number; ms?: number; seed: number },
  ): Promise<StreamResult> {
    const port = ports++;
    const length = bytes === undefined ? `-d ${ms ?? 1000}` : `-n ${bytes}`;
    await to.machine.check(
      `rm -f /tmp/in.status; (netprobe tcp-receive -p ${port} -r ${seed} >/tmp/in; echo $? >/tmp/in.status) & ` +
        `until grep -qi ':${port.toString(16).padStart(4, "0")} ' /proc/net/tcp /proc/net/tcp6; do usleep 10000; done`,
    );
    const sent = await from.machine.check(
      `netprobe tcp-send -h ${to.address} -p ${port} ${length} -s ${seed}`,
      {
        timeoutMs: STREAM_MS + (ms ?? 0) * 4,
      },
    );
    await to.machine.check("until [ -s /tmp/in.status ]; do usleep 10000; done", { timeoutMs: STREAM_MS });
    const received = await to.machine.check("cat /tmp/in /tmp/in.status");
    const out = Number(/^sent .*?bytes=(\d+)/m.exec(sent)?.[1]);
    const into = /^received .*?bytes=(\d+).*?ns=(\d+).*?errors=(\d+)/m.exec(received);
    if (into === null || Number(into[1]) !== out || into[3] !== "0" || !/^0$/m.test(received))
      throw new Error(`from ${from.name} to ${to.name}: sent ${sent.trim()}; received ${received.trim()}`);
    return { bytes: out, bytesPerSecond: (out / Number(into[2])) * 1e9 };
  }

  /** Round trips from a guest to an address. Returns the median in µs. @throws Error when an answer was missing or wrong */
  async ping(from: LinuxGuest, address: string, count = 50): Promise<number> {
    const output = await from.machine.check(`netprobe ping -h ${address} -n ${count}`, {
      timeoutMs: STREAM_MS,
    });
    const found = /lost=(\d+).*?errors=(\d+)/.exec(output);
    const median = /p50=(\d+)/.exec(output);
    if (found === null || median === null || found[1] !== "0" || found[2] !== "0")
      throw new Error(`${from.name} pinged ${address}: ${output.trim()}`);
    return Number(median[1]) / 1000;
  }

  /** Ends everything. */
  async close(): Promise<void> {
    await closeAll(this.closers);
  }
}

async function closeAll(closers: Closer[]): Promise<void> {
  for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) await closer();
}

async function bringUp({ machine, address }: LinuxGuest, mtu: number): Promise<void> {
  await machine.check("insmod /lib/vbus/vbus.ko");
  await machine.check("insmod /lib/vbus/venet.ko");
  await machine.check(
    "n=0; until [ -e /sys/class/net/eth1 ] || [ $n -ge 200 ]; do n=$((n+1)); usleep 50000; done",
    {
      timeoutMs: READY_MS,
    },
  );
  await machine.check(
    `ip link set eth1 mtu ${mtu} && ip link set eth1 up && ip addr add ${address}/24 dev eth1`,
  );
}

/** `npm run guest -- --two-guests`: ping and verified streams between the guests, and what the cards counted. */
export async function runTwoGuests(
  options: TwoGuestsOptions,
  { rounds, warmUp, seconds, seed }: { rounds: number; warmUp: number; seconds: number; seed: number },
  progress: (message: string) => void,
): Promise<string> {
  const guests = await TwoGuests.open({ ...options, typescript: true });
  try {
    const { a, b } = guests;
    progress(`guests a (${a.address}) and b (${b.address}) are up`);
    const lines: string[] = [];
    const rates: Record<string, number[]> = { "a to b": [], "b to a": [] };
    for (let round = 1 - warmUp; round <= rounds; round++) {
      const what = round < 1 ? "warming up" : `round ${round} of ${rounds}`;
      for (const [from, to] of [
        [a, b],
        [b, a],
      ] as const) {
        const name = `${from.name} to ${to.name}`;
        const { bytesPerSecond } = await guests.stream(from, to, {
          ms: seconds * 1000,
          seed: seed + warmUp + round,
        });
        progress(`${what}: TCP from ${name} ${(bytesPerSecond / 1e6).toFixed(1)} MB/s`);
        if (round > 0) rates[name]!.push(bytesPerSecond / 1e6);
      }
    }
    const ping = await guests.ping(a, b.address, 200);
    const other = await guests.ping(a, guests.typescriptAddress, 200);
    for (const [name, values] of Object.entries(rates)) {
      const sorted = [...values].sort((x, y) => x - y);
      const median = sorted[sorted.length >> 1]!.toFixed(1);
      const spread = `${sorted[0]!.toFixed(1)} … ${sorted.at(-1)!.toFixed(1)}`;
      lines.push(`TCP from ${name}  ${median} MB/s (${spread})`);
    }
    lines.push(
      `ping a to b      ${ping.toFixed(0)} µs; to the guest written in TypeScript ${other.toFixed(0)} µs`,
      "",
    );
    for (const name of NAMES) {
      const { superframes_passed, segmented, checksummed, tx, rx } = guests.statistics(name);
      lines.push(
        `${name}: ${tx.frames} frames out, ${rx.passed} in, ${superframes_passed} superframes in both untouched; ` +
          `cut in software: ${segmented}, checksums completed in software: ${checksummed}`,
      );
    }
    const { superframes_passed, segmented, checksummed, balanced } = guests.net.counters();
    lines.push(
      `switch: ${superframes_passed} superframes passed, ${segmented} cut, ${checksummed} checksums completed; ` +
        `every frame accounted for: ${balanced ? "yes" : "no"}`,
      "Every byte of the streams was verified in the guest that received it.",
    );
    return `${lines.join("\n")}\n`;
  } finally {
    await guests.close();
  }
}
