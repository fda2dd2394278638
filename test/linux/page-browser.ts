/** The page with Linux guests in a real browser: built, served by a plain static server, and looked at. */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import { expect } from "vitest";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { BROWSER_PAGE_POLICY, buildBrowserPage } from "../../scripts/browser-page.mjs";
import { servePages, type PageServer } from "../../scripts/pages.mjs";
import { launchBrowser } from "../browser/surroundings.js";
import { tell } from "./fixture.js";

/** Where screenshots are left for people. */
export const SCREENSHOTS = path.resolve(".build/screenshots");
const READY_MS = 180_000;
/**
 * Most tests are run with V8's fast compiler alone: a page cannot ask for it, and the optimising one takes several times the
 * processor time of the guest, which a busy machine does not have (`docs/browser.md` has figures).
 */
const FLAGS = ["--js-flags=--liftoff-only"];

/** The page's folder, its server and a browser. */
export class PageBrowser {
  /** Errors that pages printed, and exceptions that nobody caught there. */
  readonly complaints: string[] = [];

  #ordinary: Promise<Browser> | null = null;

  private constructor(
    private readonly browser: Browser,
    private readonly server: PageServer,
    private readonly folder: string,
  ) {}

  /** Builds, serves, starts the browser. */
  static async start(): Promise<PageBrowser> {
    const folder = await buildBrowserPage({ out: `.build/browser-page-${process.pid}` });
    const server = await servePages({ folder, isolation: false, policy: BROWSER_PAGE_POLICY });
    mkdirSync(SCREENSHOTS, { recursive: true });
    return new PageBrowser(await launchBrowser(FLAGS), server, folder);
  }

  /** Opens the page. @param query - what stands behind its address */
  async open(query = "", options: BrowserContextOptions = {}): Promise<GuestPage> {
    const page = await this.blank(options);
    await page.goto(this.server.url + query);
    return new GuestPage(page);
  }

  /** Opens the page in a browser without any flags for V8, as its visitors have it. */
  async openOrdinary(query: string, options: BrowserContextOptions = {}): Promise<GuestPage> {
    this.#ordinary ??= launchBrowser();
    const page = await this.blank(options, await this.#ordinary);
    await page.goto(this.server.url + query);
    return new GuestPage(page);
  }

  /** A page that is nowhere yet, for those who want to meddle with what it fetches; {@link PageBrowser.url} is where to go. */
  async blank(options: BrowserContextOptions = {}, browser = this.browser): Promise<Page> {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    page.on("console", (message) => {
      if (message.type() === "error") this.complaints.push(message.text());
    });
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    return page;
  }

  /** Where the page is. */
  get url(): string {
    return this.server.url;
  }

  /** Puts a file beside the page. Returns its address, as the page's query may name it. */
  put(file: string): string {
    copyFileSync(file, path.join(this.folder, path.basename(file)));
    return path.basename(file);
  }

  /** Ends all of it. */
  async close(): Promise<void> {
    await this.browser.close();
    await (await this.#ordinary)?.close();
    await this.server.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The page, as its user sees and handles it. */
export class GuestPage {
  constructor(readonly page: Page) {}

  /** Waits until what was asked for is done, and returns what the page says. @throws Error when it failed */
  async ready(): Promise<string> {
    const ended = this.page.locator("html[data-state=ready], html[data-state=failed]");
    await ended.waitFor({ state: "attached", timeout: READY_MS });
    if ((await ended.getAttribute("data-state")) === "failed")
      throw new Error(`the page says: ${(await this.page.locator("#failure").textContent()) ?? ""}`);
    return (await this.page.locator("#status").textContent()) ?? "";
  }

  /** Waits until the page says that something went wrong, in these words. */
  async complains(words: RegExp): Promise<void> {
    await this.page.locator("#failure").filter({ hasText: words }).waitFor({ timeout: READY_MS });
    expect(await this.page.locator("html").getAttribute("data-state")).toBe("failed");
  }

  /** Has the page open a file, as its dialog would. */
  async choose(file: string): Promise<void> {
    const chooser = this.page.waitForEvent("filechooser");
    await this.page.locator("#open-state").click();
    await (await chooser).setFiles(file);
  }

  /** Drops a file on the page. */
  async drop(name: string, content: string): Promise<void> {
    await this.page.evaluate(
      ([name, content]) => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([content], name));
        for (const type of ["dragenter", "dragover", "drop"])
          document.body.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
      },
      [name, content] as const,
    );
  }

  /** Presses a button and waits for its outcome. */
  async press(selector: string): Promise<string> {
    await this.page.locator(selector).click();
    return this.ready();
  }

  /** Runs a command in the terminal that is shown, as a person would, and returns what it wrote. */
  async typed(command: string, timeout = 60_000): Promise<string> {
    const marker = `done-${Math.random().toString(36).slice(2)}`;
    await this.page.locator(".guest-terminal:not([hidden]) .xterm-helper-textarea").focus();
    // cleared first: what was there before scrolls no line of it away. The echo must not look like the end
    await this.page.keyboard.type(`clear; ${command}; echo "${marker.slice(0, 3)}""${marker.slice(3)}"\n`);
    const rows = this.page.locator(".guest-terminal:not([hidden]) .xterm-rows");
    await rows.filter({ hasText: marker }).waitFor({ timeout });
    const text = (await rows.locator("> div").allTextContents())
      .map((line) => line.replaceAll("\u00a0", " ").trimEnd())
      .join("\n");
    return text.slice(0, text.indexOf(marker)).trimEnd();
  }

  /** A number that a chart shows at this moment; null: none. */
  async latest(metric: string, card: string): Promise<number | null> {
    const value = this.page.locator(`[data-metric=${metric}] [data-card=${card}]`);
    const text = await value.getAttribute("data-value");
    return text === null || text === "" ? null : Number(text);
  }

  /** Keeps the largest number that each chart showed for each card from now on; {@link GuestPage.largest} gives it. */
  async watchCharts(): Promise<void> {
    await this.page.evaluate(() => {
      const seen: Record<string, number> = {};
      (globalThis as unknown as { seen: typeof seen }).seen = seen;
      new MutationObserver(() => {
        for (const figure of document.querySelectorAll<HTMLElement>("#charts figure")) {
          for (const value of figure.querySelectorAll<HTMLElement>("[data-card]")) {
            const key = `${figure.dataset.metric} ${value.dataset.card}`;
            seen[key] = Math.max(seen[key] ?? 0, Number(value.dataset.value));
          }
        }
      }).observe(document.querySelector("#charts")!, { subtree: true, attributes: true });
    });
  }

  /** See {@link GuestPage.watchCharts}. */
  async largest(): Promise<Record<string, number>> {
    return this.page.evaluate(() => (globalThis as unknown as { seen: Record<string, number> }).seen);
  }

  /** Leaves a picture of the whole page. */
  async picture(name: string): Promise<void> {
    const file = path.join(SCREENSHOTS, `${name}.png`);
    await this.page.screenshot({ path: file, fullPage: true });
    tell(`screenshot: ${file}`);
  }

  /** Closes it, with its context. */
  async close(): Promise<void> {
    await this.page.context().close();
  }
}

/** What tshark says of a capture, one line for each frame. */
export function dissect(file: string, filter: string, fields: readonly string[]): string[][] {
  const tshark = process.env.VBUS_TSHARK ?? path.join("/usr/bin", "tshark");
  const columns = fields.flatMap((field) => ["-e", field]);
  const text = execFileSync(tshark, ["-n", "-r", file, "-Y", filter, "-T", "fields", ...columns], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.split("\t"));
}
