/** Something that the page needs is not there, or is not what it should be: the message says what, and what to do. */
export class PageError extends Error {
  override readonly name = "PageError";
}
