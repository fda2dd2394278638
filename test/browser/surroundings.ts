/** A browser, and servers for the pages under test. */
import { rmSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";
import { bundlePages, POLICY, servePages, type PageServer } from "../../scripts/pages.mjs";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const PAGE_TIMEOUT = 180_000;

/** Starts Chromium. @param flags - more of its command line */
export function launchBrowser(flags: readonly string[] = []): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env.VBUS_CHROMIUM ?? path.join("/usr/bin", "chromium"),
    args: [...FLAGS, ...flags],
  });
}

/** How a page is served. */
export type Serving = "isolated" | "plain" | "no wasm";

/** Everything that a test file of this folder needs; close it in `afterAll`. */
export class Surroundings {
  /** Errors that pages printed, and exceptions that nobody caught there, in pages and their workers. */
  readonly complaints: string[] = [];

  private constructor(
    private readonly browser: Browser,
    private readonly servers: Record<Serving, PageServer>,
    private readonly folder: string,
  ) {}

  /** Bundles the pages, serves them in each way, starts the browser. */
  static async start(): Promise<Surroundings> {
    const folder = await bundlePages({
      out: `.build/pages-${process.pid}`,
      entries: [
        "probe",
        "probe-worker",
        "disk-worker",
        "mortal-guest",
        "port-probe",
        "port-worker",
        "toy-worker",
      ].map((name) => `test/browser/${name}.ts`),
      files: {
        "probe.html": "test/browser/probe.html",
        "port-probe.html": "test/browser/port-probe.html",
        "toy.hex": "examples/toy-emulator/guest/program.hex",
      },
      alias: { "node:assert/strict": fileURLToPath(new URL("assert.ts", import.meta.url)) },
    });
    const servers = {
      isolated: await servePages({ folder }),
      plain: await servePages({ folder, isolation: false }),
      "no wasm": await servePages({ folder, policy: POLICY.replace(" 'wasm-unsafe-eval'", "") }),
    };
    return new Surroundings(await launchBrowser(), servers, folder);
  }

  /** Opens a page, waits until its `data-state` says that it came to an end, hands it to `use`, closes it. */
  async visit<T>(
    serving: Serving,
    address: string,
    use: (page: Page, state: string) => Promise<T>,
    options: BrowserContextOptions = {},
  ): Promise<T> {
    const context = await this.browser.newContext(options);
    try {
      const page = await context.newPage();
      this.#listen(page);
      await page.goto(this.servers[serving].url + address);
      return await use(page, await ended(page));
    } finally {
      await context.close();
    }
  }

  /** Runs a probe. @throws when it failed, with what the page says */
  async probe<T>(serving: Serving, query: string): Promise<T> {
    return this.visit(serving, `probe.html?${query}`, async (page, state) => {
      const text = (await page.locator("#outcome").textContent()) ?? "";
      if (state !== "done") throw new Error(`the probe failed: ${text}\n${this.complaints.join("\n")}`);
      return JSON.parse(text) as T;
    });
  }

  /** Runs a page in several tabs of one browser at once, each with its query. @throws when one failed, with what it says */
  async probes<T>(serving: Serving, page: string, queries: readonly string[]): Promise<T[]> {
    const context = await this.browser.newContext();
    try {
      return await Promise.all(
        queries.map(async (query) => {
          const tab = await context.newPage();
          this.#listen(tab);
          await tab.goto(`${this.servers[serving].url}${page}?${query}`);
          const state = await ended(tab);
          const text = (await tab.locator("#outcome").textContent()) ?? "";
          if (state !== "done")
            throw new Error(`${page}?${query} failed: ${text}\n${this.complaints.join("\n")}`);
          return JSON.parse(text) as T;
        }),
      );
    } finally {
      await context.close();
    }
  }

  #listen(page: Page): void {
    page.on("console", (message) => {
      if (message.type() === "error") this.complaints.push(message.text());
    });
    page.on("pageerror", (error) => this.complaints.push(String(error)));
  }

  /** Ends browser and servers. */
  async close(): Promise<void> {
    await this.browser.close();
    await Promise.all(Object.values(this.servers).map((server) => server.close()));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Waits until a page's `data-state` says that it came to an end. Returns how. */
async function ended(page: Page): Promise<string> {
  const end = page.locator("html[data-state=done], html[data-state=failed]");
  await end.waitFor({ state: "attached", timeout: PAGE_TIMEOUT });
  return (await end.getAttribute("data-state")) ?? "";
}
