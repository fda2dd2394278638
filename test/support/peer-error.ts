/** What can go wrong for somebody who uses a network peer. */
export type PeerErrorCode =
  | "EADDRINUSE"
  | "EADDRNOTAVAIL"
  | "ECONNREFUSED"
  | "ECONNRESET"
  | "EHOSTUNREACH"
  | "EIO"
  | "EMSGSIZE"
  | "ENOBUFS"
  | "ENOTCONN"
  | "ETIMEDOUT";

/** An error of a network peer; the message says what to do. */
export class PeerError extends Error {
  override readonly name = "PeerError";

  constructor(
    readonly code: PeerErrorCode,
    message: string,
  ) {
    super(`${code}: ${message}`);
  }
}
