import fs from "node:fs";
import { V86 } from "v86";
import { attachVbus } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import { Vbus } from "vbus/bus";
import { venetClass } from "vbus/devices/venet";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
const C = process.env.HOME + "/.cache/vbus/";
const deb = C + fs.readdirSync(C).find((f) => f.startsWith("debian-"));
const buf = (f) => { const b = fs.readFileSync(f); return b.buffer.slice(b.byteOffset, b.byteOffset + b.length); };
const errors = [];
const scheduler = new EventLoopScheduler((e) => console.error("TASK", e));
const space = await MemorySpace.host();
const sw = new Switch({ scheduler, space });
const emulator = new V86({
  wasm_path: "/work/main/node_modules/v86/build/v86.wasm", memory_size: 16 << 20, vga_memory_size: 2 << 20,
  bios: { buffer: buf(`${deb}/usr/share/seabios/bios.bin`) }, multiboot: { buffer: buf("/tmp/h/hostile.elf") }, cmdline: process.argv[2] ?? "7 2000",
  acpi: true, autostart: false, disable_keyboard: true, disable_mouse: true, disable_speaker: true,
});
const vbus = new Vbus({ scheduler });
const kinds = new Map();
const note = (e) => { const k = String(e.message ?? e).slice(0, 100); kinds.set(k, (kinds.get(k) ?? 0) + 1); };
vbus.on("error", (e) => note(e));
vbus.registerClass(venetClass({ port: (n) => sw.addPort(n.name ?? String(Math.random())) }));
const bus = vbus.createBus("linux");
for (let i = 0; i < 4; i++) bus.connect(vbus.createDevice("nic" + i, "venet", { client_mac: "02:00:00:00:00:0" + i, enabled: "1" }));
bus.admit("v86");
const host = await attachVbus(emulator, { bus, scheduler, onError: note });
let out = "";
let done; const finished = new Promise((r) => (done = r));
emulator.add_listener("serial0-output-byte", (b) => { const c = String.fromCharCode(b); out += c; process.stdout.write(c); if (/done.*\n/.test(out) || /no bridge/.test(out)) done(); });
await emulator.run();
await Promise.race([finished, new Promise((r) => setTimeout(r, 100000))]);
await emulator.stop();
console.log(host.counters(), [...kinds]);
console.log(bus.read("devices/nic0/statistics"), bus.read("devices/nic0/queues"));
process.exit(0);
