/** A Linux guest for a test file: started once, before its first test, and switched off after its last. */
import { afterAll, beforeAll, expect } from "vitest";
import { Lab, type LabOptions } from "../../examples/linux/lab.js";
import type { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";

/** Says what is waited for, past vitest, which shows no output of a test that passes. */
export function tell(message: string): void {
  process.stderr.write(`vbus: ${message}\n`);
}

/**
 * A lab for the tests of a file (`cards`: which cards it has). The function that comes back gives it, to tests only.
 */
export function linuxLab(options: Omit<LabOptions, "pieces" | "progress"> = {}): () => Lab {
  let lab: Lab | undefined;
  beforeAll(async () => {
    lab = await Lab.open({ pieces: readPieces(), progress: tell, ...options });
  });
  afterAll(async () => {
    await lab?.close();
  });
  return () => {
    if (lab === undefined) throw new Error("the lab exists while tests run");
    return lab;
  };
}

/** `name=value` pairs that netprobe printed, behind the word that begins its line. */
export function probed(output: string, first: string): Record<string, number> {
  const line = output.split("\n").find((candidate) => candidate.startsWith(`${first} `));
  if (line === undefined) throw new Error(`netprobe did not say what it ${first}:\n${output}`);
  const result: Record<string, number> = {};
  for (const [, name = "", value] of line.matchAll(/(\w+)=(\d+)/g)) result[name] = Number(value);
  return result;
}

/** Error counters of the kernel's `/proc/net/snmp`: 0, as long as all that the host made was right. */
const SNMP_ERRORS = [
  ["Ip", "InHdrErrors"],
  ["Ip", "InDiscards"],
  ["Icmp", "InErrors"],
  ["Icmp", "InCsumErrors"],
  ["Tcp", "InErrs"],
  ["Tcp", "InCsumErrors"],
  ["Udp", "InErrors"],
  ["Udp", "InCsumErrors"],
] as const;

/** Expects that neither the guest's kernel nor the stations found anything wrong with what they got. */
export async function expectNoErrors(lab: Lab): Promise<void> {
  for (const { name, peer } of lab.cards) {
    expect(peer.counters.checksumErrors, name).toEqual({ ip: 0, icmp: 0, udp: 0, tcp: 0 });
    expect(peer.counters.patternErrors, name).toBe(0);
    for (const counter of [
      "rx_errors",
      "rx_length_errors",
      "rx_crc_errors",
      "rx_frame_errors",
      "tx_errors",
    ]) {
      const value = await lab.machine.check(`cat /sys/class/net/${name}/statistics/${counter}`);
      expect(value, `${name} ${counter}`).toBe("0\n");
    }
  }
  const snmp = await lab.machine.check("cat /proc/net/snmp");
  for (const [protocol, field] of SNMP_ERRORS) {
    const [names, values] = snmp.split("\n").filter((line) => line.startsWith(`${protocol}:`));
    expect(values!.split(" ")[names!.split(" ").indexOf(field)], `${protocol} ${field}`).toBe("0");
  }
  const snmp6 = await lab.machine.check("cat /proc/net/snmp6");
  for (const [, field, value] of snmp6.matchAll(
    /^(\w*(?:InErrors|InHdrErrors|InCsumErrors|InTruncatedPkts))\s+(\d+)$/gm,
  ))
    expect(value, field).toBe("0");
}

/**
 * Has the guest receive datagrams, which `send` sends once its socket is there, with room for all of them: a socket drops
 * what its process does not take in time, and that would be nobody's fault. Returns what netprobe said.
 */
export async function receiveDatagrams(
  { machine }: Lab,
  options: string,
  send: () => Promise<void>,
): Promise<Record<string, number>> {
  await machine.check("echo 8388608 >/proc/sys/net/core/rmem_max; rm -f /tmp/datagrams /tmp/status");
  const command = `netprobe udp-receive -b 4000000 -t 30000 ${options}`;
  await machine.check(`(${command} >/tmp/datagrams; echo $? >/tmp/status) &`);
  const wait = async (command: string): Promise<void> => {
    await machine.check(`until ${command}; do usleep 20000; done`, { timeoutMs: 60_000 });
  };
  await wait("grep -q ready /tmp/datagrams");
  await send();
  await wait("[ -s /tmp/status ]");
  return probed(await machine.check("cat /tmp/datagrams"), "received");
}

/** Waits for a condition; the bound only ends what hangs. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 150_000;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`still waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/**
 * Has a guest do something ten times, and expects that its memory is there afterwards. What lies on the kernel's lists of free
 * pages of each processor comes and goes: the best of five is without it.
 */
export async function expectNoLeak(machine: Machine, work: () => Promise<void>): Promise<void> {
  const best = async (): Promise<number> => {
    let most = 0;
    for (let i = 0; i < 5; i++) {
      await work();
      await machine.check("sync; echo 3 >/proc/sys/vm/drop_caches; sleep 0.2");
      const text = await machine.check("cat /proc/meminfo");
      most = Math.max(most, Number(/MemFree:\s+(\d+)/.exec(text)![1]));
    }
    return most;
  };
  const before = await best();
  expect(before - (await best()), "kB of memory that are gone after five more times").toBeLessThan(1000);
}
