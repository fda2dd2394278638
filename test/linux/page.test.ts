import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeState } from "vbus/state";
import { namelessControls, faintTexts } from "./page-access.js";
import { dissect, GuestPage, PageBrowser, SCREENSHOTS } from "./page-browser.js";
import { BROWSER_PAGE_POLICY } from "../../scripts/browser-page.mjs";
import type { GuestManifest } from "../../examples/browser/pieces.js";
import { tell } from "./fixture.js";

const CARDS = ["eth0", "eth1", "eth2"] as const;
const WIDE = { width: 1440, height: 1000 };
const NARROW = { width: 400, height: 850 };

let browser: PageBrowser;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(path.join(os.tmpdir(), "vbus-page-"));
  browser = await PageBrowser.start();
});
afterAll(async () => {
  await browser.close();
  rmSync(folder, { recursive: true });
  tell(`screenshots are in ${SCREENSHOTS}`);
});

describe("the page with Linux guests, on a server without isolation", () => {
  let guest: GuestPage;
  let saved: string;

  beforeAll(async () => {
    guest = await browser.open("", { viewport: WIDE, colorScheme: "light" });
  });
  afterAll(async () => {
    await guest.close();
    expect(browser.complaints).toEqual([]);
  });

  it("starts a guest from the saved state, with three cards up and a shell in the terminal", async () => {
    expect(await guest.ready()).toMatch(
      /^guest 1 is there, from a saved state in [\d.]+ s: 10\.0\.0\.2, 10\.0\.1\.2, 10\.0\.2\.2$/,
    );
    expect(await guest.page.evaluate(() => crossOriginIsolated)).toBe(false);
    for (const card of CARDS)
      expect(await guest.page.locator(`#cards tr[data-card=${card}] .link span`).textContent()).toBe("up");
    expect(await guest.typed("echo $((6 * 7)) $(tty)")).toBe("42 /dev/ttyS1");
    const tree = guest.page.locator("#tree");
    await tree.filter({ hasText: "client_mac: 02:00:00:00:01:02" }).waitFor();
  });

  it("compares the cards, verified, while its charts move", async () => {
    await guest.watchCharts();
    const picture = (): Promise<string> =>
      guest.page.evaluate(() =>
        document.querySelector<HTMLCanvasElement>("[data-metric=bits] canvas")!.toDataURL(),
      );
    const before = await picture();
    await guest.page.locator("input[name=seconds]").fill("0.8");
    await guest.page.locator("input[name=rounds]").fill("1");
    await guest.page.locator("input[name=warmUp]").fill("0");
    expect(await guest.press("#compare")).toBe("the cards of guest 1 are compared");
    expect(await picture()).not.toBe(before);

    const rows = await guest.page.locator("#result tbody").first().locator("tr").allInnerTexts();
    expect(rows.map((row) => row.split("\t")[0])).toEqual([
      "ping, median, µs",
      "60-byte frames out, kframes/s",
      "TCP out, MB/s",
      "TCP in, MB/s",
      "TCP on lo, the ceiling, MB/s",
    ]);
    for (const row of rows.slice(0, 4)) {
      const [, ...cells] = row.split("\t");
      expect(
        cells
          .slice(0, 3)
          .map(Number)
          .every((value) => value > 0),
      ).toBe(true);
      expect(cells.slice(3).every((cell) => /^\d+\.\d\d ×$/.test(cell))).toBe(true);
    }
    tell(rows.join("\n"));

    const seen = await guest.largest();
    for (const metric of ["frames", "bits", "doorbells", "interrupts", "rx"])
      for (const card of CARDS) expect(seen[`${metric} ${card}`], `${metric} ${card}`).toBeGreaterThan(0);
    for (const card of ["eth1", "eth2"]) expect(seen[`suppressed ${card}`], card).toBeGreaterThan(0);
  });

  it("looks like something, wide and narrow, light and dark", async () => {
    const { page } = guest;
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      for (const [name, size] of [
        ["wide", WIDE],
        ["narrow", NARROW],
      ] as const) {
        await page.setViewportSize(size);
        await page.waitForTimeout(1200); // terminal and charts follow the window
        const overflow = await page.evaluate(
          () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
        );
        expect(overflow, `${name}: pixels that one must scroll to the side for`).toBe(0);
        const widths = await page.evaluate(() =>
          [...document.querySelectorAll<HTMLElement>("#charts .plot")].map(
            (plot) => plot.querySelector("canvas")!.getBoundingClientRect().width - plot.clientWidth,
          ),
        );
        expect(widths.every((difference) => Math.abs(difference) < 2)).toBe(true);
        expect(await faintTexts(page), `${name}, ${colorScheme}: text of too little contrast`).toEqual([]);
        await guest.picture(`${name}-${colorScheme}`);
      }
    }
    await page.setViewportSize(WIDE);
    await page.emulateMedia({ colorScheme: "light" });
  });

  it("can be used without a mouse, and by who hears it read aloud", async () => {
    const { page } = guest;
    expect(await namelessControls(page)).toEqual([]);
    const focused = (): Promise<string> => page.evaluate(() => document.activeElement?.id ?? "");
    await page.locator(".guest-terminal .xterm-helper-textarea").focus();
    await page.keyboard.press("Shift+Tab");
    expect(await focused()).toBe("record"); // what is before it, of what can be pressed
    await page.locator("#save").focus();
    await page.keyboard.press("Enter");
    expect(await guest.ready()).toMatch(/^guest 1 is saved/);
    expect(await focused()).toBe("save");
    expect(await page.locator("[role=alert]").textContent()).toBe("");
  });

  it("records what crosses the cards, and tshark reads the file", async () => {
    const file = path.join(folder, "page.pcapng");
    await guest.page.locator("#record").click();
    await guest.typed("for n in 0 1 2; do ping -c 2 -W 10 10.0.$n.1 >/dev/null || echo lost; done");
    const download = guest.page.waitForEvent("download");
    await guest.page.locator("#download").click();
    await (await download).saveAs(file);
    for (const [n, card] of CARDS.entries()) {
      const echoes = dissect(file, `frame.interface_name == "guest1-${card}" && icmp`, [
        "ip.src",
        "icmp.type",
      ]);
      const [asked, answered] = [`10.0.${n}.2 8`, `10.0.${n}.1 0`];
      expect(echoes.map((fields) => fields.join(" "))).toEqual([asked, answered, asked, answered]);
    }
    expect(dissect(file, "_ws.malformed || icmp.checksum.status == 0", ["frame.number"])).toEqual([]);
  });

  it("takes each link down and up, and the guest notices", async () => {
    for (const card of CARDS) {
      const button = `#cards tr[data-card=${card}] button`;
      const carrier = (wanted: string): Promise<string> =>
        guest.typed(`until [ $(cat /sys/class/net/${card}/carrier) = ${wanted} ]; do usleep 20000; done`);
      expect(await guest.press(button)).toBe(`guest 1: the link of ${card} is down`);
      await carrier("0");
      expect(await guest.press(button)).toBe(`guest 1: the link of ${card} is up`);
      await carrier("1");
    }
    expect(
      await guest.typed("for n in 0 1 2; do ping -c 1 -W 10 10.0.$n.1 >/dev/null && echo answer $n; done"),
    ).toBe("answer 0\nanswer 1\nanswer 2");
  });

  it("hot-plugs a card, which works at once and leaves again", async () => {
    expect(await guest.press("#plug-nic")).toBe("guest 1 has another venet card: eth3, 10.0.3.2");
    await guest.page.locator("#tree").filter({ hasText: "nic1" }).waitFor();
    expect(await guest.page.locator("#cards tr[data-card=eth3]").count()).toBe(1);
    expect(await guest.typed("ping -c 3 -W 10 10.0.3.1 | grep -o '[0-9]* packets received'")).toBe(
      "3 packets received",
    );
    expect(await guest.latest("rx", "eth3")).toBeGreaterThan(0);
    expect(await guest.press("#plug-nic")).toBe("guest 1 lost its fourth card");
    expect(await guest.page.locator("#cards tr[data-card=eth3]").count()).toBe(0);
    await guest.typed("while [ -e /sys/class/net/eth3 ]; do usleep 20000; done");
  });

  it("hot-plugs a disk", async () => {
    const said = await guest.press("#plug-disk");
    await guest.page.locator("#tree").filter({ hasText: "disk0" }).waitFor();
    const manifest = await guest.page.request.get(`${browser.url}guest/guest.json`);
    if (((await manifest.json()) as GuestManifest).drivers.includes("vblk.ko")) {
      const name = /^guest 1 has a disk: (\/dev\/\w+)$/.exec(said)?.[1];
      expect(name, said).toBeDefined();
      expect(
        await guest.typed(`echo kept by the disk | dd of=${name} 2>/dev/null; sync; head -n 1 ${name}`),
      ).toBe("kept by the disk");
    } else expect(said).toBe("a disk is on the bus of guest 1; this guest has no driver for it");
    expect(await guest.press("#plug-disk")).toBe("guest 1 lost its disk");
  });

  const TRAFFIC = "for n in 0 1 2; do ping -c 1 -W 10 10.0.$n.1 >/dev/null && echo answer $n; done";
  const ANSWERS = "answer 0\nanswer 1\nanswer 2";

  it("is saved, goes on, and is what it was when it is restored", async () => {
    await guest.typed("echo before >/tmp/when");
    expect(await guest.press("#save")).toMatch(/^guest 1 is saved, \d+ MiB/);
    expect(await guest.typed(`echo after >/tmp/when; ${TRAFFIC}`)).toBe(ANSWERS);
    expect(await guest.press("#restore")).toBe("guest 1 is what it was when it was saved");
    expect(await guest.typed(`cat /tmp/when; ${TRAFFIC}`)).toBe(`before\n${ANSWERS}`);
  });

  it("is saved to a file, with its disk, and goes on from it in another browser, as people have it", async () => {
    const disk = /\/dev\/\w+$/.exec(await guest.press("#plug-disk"))?.[0] ?? "no disk";
    await guest.typed(
      `echo kept by the disk | dd of=${disk} 2>/dev/null; sync; echo kept in memory >/tmp/when`,
    );
    const download = guest.page.waitForEvent("download");
    expect(await guest.press("#download-state")).toMatch(
      /^guest 1 is in vbus-guest1-\w+\.state\.gz, \d+ MiB/,
    );
    saved = path.join(folder, (await download).suggestedFilename());
    await (await download).saveAs(saved);
    tell(`a saved guest has ${readFileSync(saved).length} bytes`);

    const address = browser.put(saved);
    const other = await browser.openOrdinary(`?state=${address}`, { viewport: WIDE });
    try {
      const said = await other.ready();
      expect(said).toContain(`guest 1 goes on from ${address}, saved `);
      tell(said);
      expect(await other.page.locator(".xterm-rows").textContent()).toContain("done-"); // what was typed before
      expect(await other.typed(`cat /tmp/when; head -n 1 ${disk}; ${TRAFFIC}`)).toBe(
        `kept in memory\nkept by the disk\n${ANSWERS}`,
      );
      await other.picture("from-a-file");
    } finally {
      await other.close();
    }
  });

  it("says what is wrong with a file, and the guest that runs takes no harm", async () => {
    const packed = readFileSync(saved);
    const plain = gunzipSync(packed);
    const altered = (at: number, value: number): Buffer => {
      const copy = Buffer.from(plain);
      copy[at] = value;
      return gzipSync(copy, { level: 1 });
    };
    const { v86, hardware } = (await (
      await guest.page.request.get(`${browser.url}guest/guest.json`)
    ).json()) as GuestManifest;
    const forged = (differently: Record<string, number | string>): Buffer =>
      Buffer.from(
        encodeState({
          page: {
            format: 1,
            v86,
            memory: hardware.memory ?? 0,
            number: 1,
            savedAt: 0,
            plugged: true,
            disk: null,
            screen: "",
            machine: Buffer.from("no machine at all, but long enough to be looked at"),
            ...differently,
          },
        }),
      );
    await guest.typed("echo untouched >/tmp/when");
    const files: [content: Buffer, wrong: RegExp][] = [
      [packed.subarray(0, packed.length >> 1), /it is damaged: it was cut off or altered/],
      [altered(plain.length >> 1, plain[plain.length >> 1]! ^ 1), /damaged \(its checksum is wrong\)/],
      [altered(8, 99), /this state has format 99, and this release reads format 1 alone/],
      [forged({ format: 2 }), /has format 2 and this page reads format 1/],
      [forged({ v86: "0.0.1" }), /is of v86 0\.0\.1 and this page runs/],
      [forged({ memory: 64 }), /is of a machine with 64 MiB, and those of this page have 128/],
      [forged({ number: 0 }), /a whole number from 1 to/],
      [forged({}), /no state saved by vbus/],
    ];
    const bad = path.join(folder, "bad.state.gz");
    for (const [content, wrong] of files) {
      writeFileSync(bad, content);
      await guest.choose(bad);
      await guest.complains(wrong);
    }
    await guest.drop("holiday.txt", "no guest");
    await guest.complains(/^opening holiday\.txt: it is no saved guest: open what “Download state” gave$/);
    expect(await guest.typed(`cat /tmp/when; ${TRAFFIC}`)).toBe(`untouched\n${ANSWERS}`);
  });

  it("runs a second guest on the same switch, and they ping each other through all cards", async () => {
    const { page } = guest;
    expect(await guest.press("#add-guest")).toMatch(/^guest 2 is there, from a saved state/);
    expect(
      await guest.typed("hostname >/dev/null; tty; ip -4 -o addr show eth1 | grep -o '10[0-9.]*/24'"),
    ).toBe("/dev/ttyS1\n10.0.1.3/24");
    const said = await guest.press("#ping-guests");
    expect(said).toMatch(/^guest 2 → guest 1: eth0 [\d.]+ ms, eth1 [\d.]+ ms, eth2 [\d.]+ ms$/);
    tell(said);
    await page.locator("#tree").filter({ hasText: "client_mac: 02:00:00:00:01:03" }).waitFor();
    await guest.picture("two-guests");
    await page.getByRole("tab", { name: "Guest 2" }).focus();
    await page.keyboard.press("ArrowLeft");
    await page.locator("#tree").filter({ hasText: "client_mac: 02:00:00:00:01:02" }).waitFor();
    await guest.watchCharts();
    expect(await guest.typed("ping -c 3 -i 0.3 -W 10 10.0.1.3 | grep -o '[0-9]* packets received'")).toBe(
      "3 packets received",
    );
    const seen = await guest.largest();
    expect(seen["frames eth1"]).toBeGreaterThan(0);
  });

  it("has one of two guests saved and restored: they still hear each other", async () => {
    await guest.page.getByRole("tab", { name: "Guest 2" }).click();
    expect(await guest.press("#save")).toMatch(/^guest 2 is saved/);
    expect(await guest.press("#restore")).toBe("guest 2 is what it was when it was saved");
    expect(await guest.press("#ping-guests")).toMatch(/^guest 2 → guest 1: eth0 .*, eth1 .*, eth2 /);
    await guest.page.getByRole("tab", { name: "Guest 1" }).click();
    expect(await guest.press("#ping-guests")).toMatch(/^guest 1 → guest 2: eth0 .*, eth1 .*, eth2 /);
    expect(await guest.press("#remove-guest")).toBe("guest 1 is switched off");
    expect(await guest.typed(TRAFFIC)).toBe(ANSWERS);
  });
});

describe("a page without a saved state", () => {
  it("boots its first guest; the next one starts from what that one left", async () => {
    const guest = await browser.open("?boot");
    try {
      expect(await guest.ready()).toMatch(/^guest 1 is there, booted in /);
      expect(await guest.press("#add-guest")).toMatch(/^guest 2 is there, from a saved state in /);
      expect(browser.complaints).toEqual([]);
    } finally {
      await guest.close();
    }
  });
});

describe("a page that cannot start", () => {
  /** Opens the page with some of its files replaced, and waits for what it says. */
  async function fails(
    query: string,
    replaced: Record<string, { status?: number; body?: string | Buffer }>,
    words: RegExp,
  ): Promise<void> {
    const page = await browser.blank();
    const complaints = browser.complaints.length;
    try {
      for (const [name, answer] of Object.entries(replaced))
        await page.route(`**/guest/${name}`, (route) => route.fulfill(answer));
      await page.goto(browser.url + query);
      await new GuestPage(page).complains(words);
    } finally {
      await page.context().close();
      browser.complaints.length = complaints; // what the browser says of files that are missing is wanted here
    }
  }

  it.each([
    [
      "the list of files is missing",
      { "guest.json": { status: 404 } },
      /the list of the guest's files is not on the server \(404/,
    ],
    ["the list of files is none", { "guest.json": { body: "<html>" } }, /guest\.json is no JSON/],
    [
      "the kernel is missing",
      { "kernel.gz": { status: 404 } },
      /the guest's kernel is not on the server \(404.*npm run page puts it there/,
    ],
    [
      "the initramfs is damaged",
      { "initrd.gz": { body: Buffer.from([0x1f, 0x8b, 8]) } },
      /the guest's initramfs is damaged/,
    ],
  ])("says so in words: %s", async (_what, replaced, said) => {
    await fails("?boot", replaced, said);
  });

  it.each([
    [
      "nobody put there",
      "?state=missing.state.gz",
      /^opening missing\.state\.gz: it is not on the server \(404 .*beside the page/,
    ],
    ["of another server", "?state=//elsewhere.example/a.state.gz", /: it is on another server/],
    ["that is none", "?state=guest/kernel.gz", /: it is no saved guest/],
  ])("says so in words: it is given a state %s", async (_what, query, said) => {
    await fails(query, {}, said);
  });

  it("says so in words: no WebAssembly", async () => {
    const page = await browser.blank();
    const complaints = browser.complaints.length;
    try {
      await page.addInitScript(() => {
        Object.defineProperty(globalThis, "WebAssembly", { value: undefined });
      });
      await page.goto(browser.url);
      await new GuestPage(page).complains(/this browser has no WebAssembly/);
    } finally {
      await page.context().close();
      browser.complaints.length = complaints;
    }
  });

  it("says so in words: a content security policy forbids WebAssembly", async () => {
    const page = await browser.blank();
    const complaints = browser.complaints.length;
    try {
      await page.route(browser.url, async (route) => {
        const response = await route.fetch();
        const policy = BROWSER_PAGE_POLICY.replace(" 'wasm-unsafe-eval'", "");
        await route.fulfill({
          response,
          headers: { ...response.headers(), "content-security-policy": policy },
        });
      });
      await page.goto(browser.url);
      await new GuestPage(page).complains(/wasm-unsafe-eval/);
    } finally {
      await page.context().close();
      browser.complaints.length = complaints;
    }
  });
});
