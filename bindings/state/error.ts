import { VbusError, type ErrorCode } from "../errors.js";

/**
 * Why a saved state cannot be used. `foreign`: it is no saved state of this project's. `version`: it is one of another version.
 * `damaged`: it was cut off or altered. `mismatch`: it belongs to a machine with other devices than this one. `contradiction`:
 * it is whole, but what it says cannot be.
 */
export type StateFault = "foreign" | "version" | "damaged" | "mismatch" | "contradiction";

const CODES: Record<StateFault, ErrorCode> = {
  foreign: "EINVAL",
  version: "EOPNOTSUPP",
  damaged: "EIO",
  mismatch: "ENODEV",
  contradiction: "EPROTO",
};

/** A saved state that cannot be used. */
export class StateError extends VbusError {
  override readonly name = "StateError";

  /**
   * @param fault - what is wrong with it
   * @param message - what it is, and what to do
   * @param options - `cause`, when another error led to this one
   */
  constructor(
    readonly fault: StateFault,
    message: string,
    options?: ErrorOptions,
  ) {
    super(CODES[fault], message, options);
  }
}
