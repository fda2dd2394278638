/** Types of toy-guest.mjs, for tests. */

/** The image, as text. */
export const TOY_IMAGE: string;

/** SHA-256 of everything that the image is made of. */
export function toySourcesDigest(): string;

/** Compiles the sources. */
export function compileToyGuest(): Promise<{ bytes: Uint8Array; compiler: string }>;

/** What the image says of itself. */
export function toyImageOrigin(): { text: string; digest: string | null; compiler: string | null };
