/** Types of `browser-page.mjs`, for its tests. */

/** How the page is built. */
export interface BrowserPageOptions {
  /** Folder to write, from the project's root; default `.build/browser-page`. It is emptied first. */
  out?: string;
  /** False: without a saved state, so that the page's first guest boots. Default true. */
  state?: boolean;
}

/** The strictest content security policy that the page works with. */
export const BROWSER_PAGE_POLICY: string;
/** Builds the page with Linux guests. Resolves with the folder to serve. */
export function buildBrowserPage(options?: BrowserPageOptions): Promise<string>;
