/** What of a page can be checked for those who see little, hear it read aloud, or use no mouse. */
import type { Page } from "playwright-core";

/** What WCAG 2.2 wants of text (1.4.3, level AA). */
const LEAST_CONTRAST = 4.5;

/**
 * Texts that stand out too little from what is behind them, as the browser computed both; what cannot be used at the moment
 * may be faint. Returns each with its contrast.
 */
export function faintTexts(page: Page): Promise<string[]> {
  return page.evaluate((least) => {
    type Colour = [red: number, green: number, blue: number, alpha: number];
    const parse = (text: string): Colour => {
      const [red = 0, green = 0, blue = 0, alpha = 1] = (text.match(/[\d.]+/g) ?? []).map(Number);
      return [red, green, blue, alpha];
    };
    const luminance = (colour: Colour): number => {
      const [red, green, blue] = colour.slice(0, 3).map((value) => {
        const part = value / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      }) as [number, number, number];
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const behind = (element: Element | null): Colour => {
      for (let at = element; at !== null; at = at.parentElement) {
        const colour = parse(getComputedStyle(at).backgroundColor);
        if (colour[3] > 0) return colour;
      }
      return [255, 255, 255, 1];
    };
    const faint = new Set<string>();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
      const text = node.textContent?.trim() ?? "";
      const parent = node.parentElement;
      if (text === "" || parent === null || !parent.checkVisibility()) continue;
      if (parent.closest(".xterm, noscript, :disabled") !== null) continue;
      const [a, b] = [luminance(parse(getComputedStyle(parent).color)), luminance(behind(parent))];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (contrast < least) faint.add(`${contrast.toFixed(2)}: ${text.slice(0, 40)}`);
    }
    return [...faint];
  }, LEAST_CONTRAST);
}

/** What can be reached with the keyboard, and has no name to be announced by. */
export function namelessControls(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const named = (element: HTMLElement): boolean => {
      const labels = element instanceof HTMLInputElement ? [...(element.labels ?? [])] : [];
      const referred = (element.getAttribute("aria-labelledby") ?? "").split(" ");
      const texts = [
        element.getAttribute("aria-label"),
        ...referred.map((id) => document.getElementById(id)?.textContent),
        ...labels.map((label) => label.textContent),
        element instanceof HTMLButtonElement ? element.textContent : "",
      ];
      return texts.some((text) => (text ?? "").trim() !== "");
    };
    const controls = document.querySelectorAll<HTMLElement>("a, button, input, textarea, select, [tabindex]");
    return [...controls].filter((element) => !named(element)).map((element) => element.outerHTML);
  });
}
