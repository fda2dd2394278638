import { EXPOSITION_TYPE, inspect, inspectBus, prometheusText, type Inspection } from "vbus/inspect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseExposition, type Family } from "./exposition-parser.js";
import { InspectedHost } from "./host.js";

const EMPTY: Inspection = {
  format: "vbus-inspection",
  version: 1,
  time: 0,
  vbus: null,
  bridges: [],
  virtio: [],
  switches: [],
  ports: [],
};

type Snapshot = NonNullable<Inspection["vbus"]>;

/** A host with one device, of a class that has these statistics. */
function hostOf(statistics: Snapshot["devices"][number]["statistics"]): Inspection {
  const device = {
    name: "d",
    className: "c",
    buses: [],
    interfaces: [],
    connections: 0,
    attributes: {},
    statistics,
  };
  return { ...EMPTY, vbus: { classes: [], buses: [], devices: [device] } };
}

/** The value of the one sample that has these labels. */
function value(family: Family | undefined, labels: Record<string, string>): number {
  const found = (family?.samples ?? []).filter((sample) =>
    Object.entries(labels).every(([name, text]) => sample.labels[name] === text),
  );
  expect(found, JSON.stringify(labels)).toHaveLength(1);
  return found[0]!.value;
}

describe("a host's text for Prometheus", () => {
  let host: InspectedHost;
  let text: string;
  let families: Map<string, Family>;
  beforeAll(async () => {
    host = await InspectedHost.open();
    await host.work(25);
    text = prometheusText(host.look({ maps: false }));
    families = parseExposition(text);
  });
  afterAll(() => host.close());

  it("is what a strict reader takes, with a type and a help for every metric", () => {
    expect(families.size).toBeGreaterThan(40);
    for (const [name, { type, help }] of families) {
      expect(name).toMatch(/^vbus_[a-z0-9_]+$/);
      expect(["counter", "gauge"], name).toContain(type);
      expect(help.length, name).toBeGreaterThan(5);
    }
    expect(EXPOSITION_TYPE).toBe("text/plain; version=0.0.4; charset=utf-8");
  });

  it("says what was counted, by device and direction", () => {
    const frames = families.get("vbus_device_frames_total");
    expect(value(frames, { device: "nic0", direction: "tx" })).toBe(25);
    expect(value(frames, { device: "nic1", direction: "rx" })).toBe(25);
    expect(value(families.get("vbus_device_operations_total"), { device: "disk0", operation: "write" })).toBe(
      1,
    );
    expect(value(families.get("vbus_device_outstanding"), { device: "disk0" })).toBe(0);
    expect(value(families.get("vbus_device_bytes_written_total"), { device: "disk0" })).toBe(4096);
    expect(value(families.get("vbus_device_info"), { device: "nic0", class: "venet" })).toBe(1);
    expect(value(families.get("vbus_device_sessions"), { device: "entropy0" })).toBe(0);
  });

  it("says how queues, ports and virtio devices are", () => {
    const descriptors = families.get("vbus_queue_descriptors");
    const rx = { client: "guest-a", device: "nic1", queue: "rx" };
    const size = value(descriptors, rx);
    const owned = families.get("vbus_queue_owned_descriptors");
    const of = (owner: string): number => value(owned, { ...rx, owner });
    expect(of("north") + of("south") + of("other")).toBe(size);
    expect(value(families.get("vbus_queue_broken"), rx)).toBe(0);
    expect(value(families.get("vbus_queue_pushed_total"), rx)).toBeGreaterThanOrEqual(25);
    expect(value(families.get("vbus_virtio_status"), { device: "card3", bit: "driver-ok" })).toBe(1);
    expect(value(families.get("vbus_virtio_status"), { device: "card3", bit: "failed" })).toBe(0);
    expect(value(families.get("vbus_virtio_starts_total"), { device: "card3" })).toBe(1);
    expect(value(families.get("vbus_port_received_total"), { switch: "lan", port: "nic0" })).toBe(25);
    expect(value(families.get("vbus_port_received_bytes_total"), { port: "nic0" })).toBe(2500);
    expect(value(families.get("vbus_switch_stations"), { switch: "lan" })).toBe(1);
  });

  it("knows every number that the devices of this package count", () => {
    expect([...families.keys()].filter((name) => name.startsWith("vbus_custom"))).toEqual([]);
    const numbers = (at: unknown): number =>
      typeof at === "number"
        ? 1
        : typeof at === "object" && at !== null
          ? Object.values(at).reduce<number>((n, inner) => n + numbers(inner), 0)
          : 0;
    const { devices } = inspectBus(host.vbus);
    for (const { name, statistics } of devices) {
      const samples = [...families.entries()]
        .filter(([family]) => !["vbus_device_info", "vbus_device_sessions"].includes(family))
        .filter(([family]) => family.startsWith("vbus_device_"))
        .flatMap(([, { samples }]) => samples)
        .filter(({ labels }) => labels["device"] === name);
      expect(samples, name).toHaveLength(numbers(statistics));
    }
  });

  it("only rises where it says so", async () => {
    const before = families;
    await host.work(5);
    const after = parseExposition(prometheusText(host.look()));
    for (const [name, { type, samples }] of before) {
      if (type !== "counter") continue;
      for (const { labels, value: was } of samples)
        expect(value(after.get(name), labels), name).toBeGreaterThanOrEqual(was);
    }
  });
});

it("of nothing is nothing", () => {
  expect(prometheusText(EMPTY)).toBe("");
  expect(parseExposition(prometheusText(inspect({}))).size).toBe(0);
});

describe("names and values that need care", () => {
  const port = (name: string, received = 1): Inspection["ports"][number] => ({
    name,
    stalled: false,
    received,
    receivedBytes: 0,
    delivered: 0,
    deliveredBytes: 0,
    drops: {},
    inFlight: 0,
  });

  it.each(['a"b', "back\\slash", "two\nlines", "\\n", "{}=,", "größe ✓", '\\"', ""])(
    "a port called %j",
    (name) => {
      const families = parseExposition(prometheusText({ ...EMPTY, ports: [port(name, 7)] }));
      expect(families.get("vbus_port_received_total")!.samples).toEqual([
        { labels: { port: name }, value: 7 },
      ]);
    },
  );

  it("two ports of one name are both there", () => {
    const families = parseExposition(
      prometheusText({ ...EMPTY, ports: [port("p", 1), port("p", 2), port("p", 3)] }),
    );
    expect(families.get("vbus_port_received_total")!.samples).toEqual([
      { labels: { port: "p" }, value: 1 },
      { labels: { port: "p", repeated: "2" }, value: 2 },
      { labels: { port: "p", repeated: "3" }, value: 3 },
    ]);
  });

  it("large and small numbers arrive as they are", () => {
    for (const n of [2 ** 53 - 1, 1e21, 0.125]) {
      const families = parseExposition(prometheusText({ ...EMPTY, ports: [port("p", n)] }));
      expect(families.get("vbus_port_received_total")!.samples[0]!.value).toBe(n);
    }
  });

  it("statistics that only their class understands are told without a type, whatever they are called", () => {
    const statistics = {
      "odd name!": 5,
      constructor: 1,
      __proto__x: 2,
      nested: { deep: { "9": 3 } },
      frames: { lost: 4 },
      text: "no",
    };
    const text = prometheusText(hostOf(statistics));
    const families = parseExposition(text);
    const custom = [...families].filter(([name]) => name.startsWith("vbus_custom_"));
    expect(custom.map(([name, { type, samples }]) => [name, type, samples[0]!.value])).toEqual([
      ["vbus_custom_odd_name_", "untyped", 5],
      ["vbus_custom_constructor", "untyped", 1],
      ["vbus_custom___proto__x", "untyped", 2],
      ["vbus_custom_nested_deep_9", "untyped", 3],
      ["vbus_custom_frames_lost", "untyped", 4],
    ]);
  });

  it("a device with thousands of numbers does not flood whoever reads them", () => {
    const statistics = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`n${i}`, i]));
    const text = prometheusText(hostOf(statistics));
    expect(parseExposition(text).size).toBeLessThan(600);
  });
});

it("the strict reader is strict", () => {
  const good = '# HELP a_total help\n# TYPE a_total counter\na_total{x="1"} 2\n';
  expect(parseExposition(good).get("a_total")!.samples).toEqual([{ labels: { x: "1" }, value: 2 }]);
  for (const bad of [
    good.slice(0, -1),
    `${good}a_total{x="1"} 3\n`,
    good.replace('"1"', '"1'),
    good.replace('"1"', '"\\q"'),
    good.replace(" 2", " two"),
    good.replace(" 2", " -2"),
    good.replace("counter", "sum"),
    good.replaceAll("a_total", "a"),
    good.replaceAll("a_total", "a-b"),
    `${good}b 1\n`,
    `${good}${good.replace('"1"', '"2"')}`,
    good.replace("# TYPE a_total counter\n", ""),
    "# HELP a_total help\n# TYPE a_total counter\n",
    `${good}\n`,
  ])
    expect(() => parseExposition(bad), bad).toThrow();
});
