import * as errno from "../assembly/abi/errno.js";

/** Names of the errors that the ABI and its connectors use. */
export type ErrorCode =
  | "EPERM"
  | "ENOENT"
  | "EIO"
  | "ENXIO"
  | "ENOMEM"
  | "EFAULT"
  | "EBUSY"
  | "EEXIST"
  | "ENODEV"
  | "EINVAL"
  | "ENOSPC"
  | "EROFS"
  | "EPROTO"
  | "EOPNOTSUPP"
  | "ENOTCONN"
  | "ETIMEDOUT";

const names = new Map<number, ErrorCode>(
  Object.entries(errno).map(([name, value]) => [value, name as ErrorCode]),
);

/**
 * An error with a code from the ABI's errno names. The message says what went wrong and what to do.
 * Guests never see the object: a call returns its {@link VbusError.errno} negated.
 */
export class VbusError extends Error {
  override readonly name: string = "VbusError";

  /**
   * @param code - errno name, such as `"EINVAL"`
   * @param message - what went wrong and what to do about it
   * @param options - `cause`, when another error led to this one
   */
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(`${code}: ${message}`, options);
  }

  /** The code as a positive number. */
  get errno(): number {
    return errno[this.code];
  }
}

/** Name of an errno number (either sign), `EIO` for numbers that the ABI does not know. */
export function errorCode(value: number): ErrorCode {
  return names.get(Math.abs(value)) ?? "EIO";
}

/**
 * Passes results >= 0 through and throws a {@link VbusError} for a negated errno.
 * @param result - result of an engine function or of a bus call
 * @param message - what was attempted, and what to do when it fails
 */
export function checkResult(result: number, message: string): number {
  if (result < 0) throw new VbusError(errorCode(result), message);
  return result;
}

/** What a guest gets to see of a thrown value: a negated errno; -EIO for anything that is not a {@link VbusError}. */
export function negatedErrno(thrown: unknown): number {
  return thrown instanceof VbusError ? -thrown.errno : -errno.EIO;
}
