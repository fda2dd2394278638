import type { DeviceNode } from "./device.js";
import type { Published } from "./interfaces.js";
import type { TreeDirectory, TreeFile, TreeLink, TreeNode } from "./tree.js";

/** The ABI version that `version` shows. */
const BUS_VERSION = "1";

/** A bus as the tree shows it. */
export interface BusView {
  /** Its name. */
  readonly name: string;
  /** Its members. */
  readonly members: readonly string[];
  /** What is published on it. */
  readonly published: Iterable<Published>;
}

/** What the tree shows; looked at anew every time. */
export interface SysfsView {
  /** Names of device classes. */
  classes(): Iterable<string>;
  /** Devices. */
  devices(): Iterable<DeviceNode>;
  /** Buses. */
  buses(): Iterable<BusView>;
}

const directory = (entries: () => Iterable<readonly [string, TreeNode]>): TreeDirectory => ({
  kind: "directory",
  entries: () => new Map(entries()),
});
const file = (text: string): TreeFile => ({ kind: "file", attribute: { get: () => text } });
const link = (...target: string[]): TreeLink => ({ kind: "link", target });

/**
 * The tree of `/sys/vbus` (`docs/abi/vbus-bus.md` section 3).
 * @param view - what it shows
 * @param bus - name of the one bus that it is limited to, or null for all
 */
export function sysfs(view: SysfsView, bus: string | null): TreeDirectory {
  return directory(() => [
    ["version", file(BUS_VERSION)],
    ["deviceclass", directory(() => [...view.classes()].map((name) => [name, directory(() => [])] as const))],
    [
      "devices",
      directory(() => [...view.devices()].map((device) => [device.name, deviceEntry(device, bus)] as const)),
    ],
    ["instances", directory(() => [...view.buses()].map((each) => [each.name, busEntry(each)] as const))],
  ]);
}

function deviceEntry(device: DeviceNode, bus: string | null): TreeDirectory {
  return directory(() => [
    ["class", link("deviceclass", device.className)],
    ...[...device.implementation.attributes].map(([name, attribute]): [string, TreeFile] => [
      name,
      { kind: "file", attribute },
    ]),
    ["interfaces", directory(() => interfaceLinks(device, bus))],
  ]);
}

function interfaceLinks(device: DeviceNode, bus: string | null): [string, TreeLink][] {
  return device.published
    .filter((entry) => bus === null || entry.bus === bus)
    .map((entry) => [
      // on one bus names are unique, so nothing needs to tell them apart
      bus === null ? entry.entryName : entry.implementation.name,
      link("instances", entry.bus, "devices", String(entry.id)),
    ]);
}

function busEntry(bus: BusView): TreeDirectory {
  return directory(() => [
    [
      "devices",
      directory(() => [...bus.published].map((entry) => [String(entry.id), interfaceEntry(entry)] as const)),
    ],
    ["members", directory(() => bus.members.map((member) => [member, directory(() => [])] as const))],
  ]);
}

function interfaceEntry(entry: Published): TreeDirectory {
  return directory(() => [
    ["type", file(entry.implementation.type)],
    ["device", link("devices", entry.device.name)],
  ]);
}
