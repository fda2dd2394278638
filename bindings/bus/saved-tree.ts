import type { StateReader, StateValue } from "../state/reader.js";
import type { RestoreOptions } from "../state/saveable.js";
import type { Bus } from "./bus.js";
import type { ManagedDevice } from "./device.js";
import type { Attribute } from "./types.js";
import type { Vbus } from "./vbus.js";

/** A device of a saved tree. */
export interface SavedDevice {
  readonly name: string;
  readonly className: string;
  /** What the class saved, or the attributes by name. */
  readonly state: StateReader;
}

/** A tree as it was saved. */
export interface SavedTree {
  readonly devices: readonly SavedDevice[];
  readonly buses: readonly {
    readonly name: string;
    readonly members: readonly string[];
    readonly devices: readonly string[];
  }[];
}

const NAME_MAX = 255;
const MANY = 65536;

/** The tree as plain data. */
export function saveTree(devices: readonly ManagedDevice[], buses: readonly Bus[]): StateValue {
  return {
    devices: devices.map((device): StateValue => ({
      name: device.name,
      class: device.className,
      state: device.implementation.save?.() ?? saveWritable(device),
    })),
    buses: buses.map((bus): StateValue => ({
      name: bus.name,
      members: [...bus.members],
      devices: bus.devices.map(({ name }) => name),
    })),
  };
}

/** True for an attribute that can be read and written. */
export function isWritable(attribute: Attribute): boolean {
  return "get" in attribute && "set" in attribute;
}

/** A class that says nothing of saving has its attributes, those that can be read and written. */
function saveWritable({ implementation }: ManagedDevice): StateValue {
  const pairs = [...implementation.attributes]
    .filter(([, attribute]) => isWritable(attribute))
    .map(([name, attribute]): [string, string] => [name, attribute.get?.() ?? ""]);
  return { attributes: Object.fromEntries(pairs) };
}

/** Reads a tree that may be anything. @throws StateError contradiction */
export function readTree(state: StateReader): SavedTree {
  const devices = state
    .get("devices")
    .items(MANY)
    .map((item) => ({
      name: item.get("name").text(NAME_MAX),
      className: item.get("class").text(NAME_MAX),
      state: item.get("state"),
    }));
  const names = new Set(devices.map(({ name }) => name));
  if (names.size !== devices.length) state.fail("a device's name comes twice");
  const buses = state
    .get("buses")
    .items(MANY)
    .map((item) => ({
      name: item.get("name").text(NAME_MAX),
      members: item
        .get("members")
        .items(MANY)
        .map((member) => member.text(NAME_MAX)),
      devices: item
        .get("devices")
        .items(MANY)
        .map((device) => {
          const name = device.text(NAME_MAX);
          if (!names.has(name)) device.fail("there is no such device");
          return name;
        }),
    }));
  return { devices, buses };
}

/** Makes a tree what was saved. @throws StateError; VbusError of classes and attributes */
export function restoreTree(vbus: Vbus, tree: SavedTree, options: RestoreOptions): void {
  for (const { name, className, state } of tree.devices) {
    const device =
      vbus.device(name) ?? state.rebuild(`the device ${name}`, () => vbus.createDevice(name, className));
    const { implementation } = device;
    if (implementation.restore !== undefined) implementation.restore(state, options);
    else restoreWritable(device, state.get("attributes"));
  }
  for (const { name, members, devices } of tree.buses) {
    const bus = vbus.bus(name) ?? vbus.createBus(name);
    for (const member of members) bus.admit(member);
    for (const device of devices) {
      if (!bus.devices.some((connected) => connected.name === device)) bus.connect(device);
    }
  }
}

function restoreWritable(device: ManagedDevice, attributes: StateReader): void {
  for (const name of attributes.names(MANY)) {
    const saved = attributes.get(name);
    const text = saved.text(MANY);
    saved.rebuild(`the attribute ${name} of ${device.name}`, () => {
      if (device.get(name) !== text) device.set(name, text);
    });
  }
}
