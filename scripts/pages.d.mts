/** Types of `pages.mjs`, for the browser tests. */

/** What to bundle besides the page of the main job. */
export interface BundleOptions {
  /** Folder to write, from the project's root; default `.build/pages`. It is emptied first. */
  out?: string;
  /** More programs, from the project's root. Each becomes `NAME.js`. */
  entries?: readonly string[];
  /** More files to serve: name on the server, source from the project's root. */
  files?: Readonly<Record<string, string>>;
  /** Modules to take instead of others: name, absolute path. */
  alias?: Readonly<Record<string, string>>;
}

/** How to serve a folder. */
export interface ServeOptions {
  /** Absolute path. */
  folder: string;
  /** False: without the headers that make a page cross-origin isolated. Default true. */
  isolation?: boolean;
  /** Content security policy; default {@link POLICY}. */
  policy?: string;
  /** Port; default 0, any free one. */
  port?: number;
}

/** A running server. */
export interface PageServer {
  /** Address of its root, with a slash at the end. */
  readonly url: string;
  /** Ends it, with all of its connections. */
  close(): Promise<void>;
}

/** The strictest content security policy that vbus works with. */
export const POLICY: string;
/** Bundles the page of the main job, its workers, and what else is asked for. Resolves with the folder to serve. */
export function bundlePages(options?: BundleOptions): Promise<string>;
/** Serves a folder on 127.0.0.1. */
export function servePages(options: ServeOptions): Promise<PageServer>;
