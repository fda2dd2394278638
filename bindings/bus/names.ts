import { DEVTYPE_SIZE } from "../../assembly/abi/vbus.js";
import { VbusError } from "../errors.js";

const encoder = new TextEncoder();

/** Longest name of a class, device, bus, member, attribute or interface, in bytes of UTF-8. */
export const NAME_MAX = 128;

// eslint-disable-next-line no-control-regex -- control characters are what is looked for
const CONTROL = /[\u0000-\u001f\u007f]/;

/**
 * Checks a name that becomes an entry of the tree.
 * @param what - for the message, such as "device"
 * @throws VbusError EINVAL when it is empty, too long, `.` or `..`, or has a slash or control character in it
 */
export function checkName(what: string, name: string): void {
  const bytes = encoder.encode(name).length;
  if (
    bytes === 0 ||
    bytes > NAME_MAX ||
    name === "." ||
    name === ".." ||
    name.includes("/") ||
    CONTROL.test(name)
  ) {
    throw new VbusError(
      "EINVAL",
      `${JSON.stringify(name)} cannot name a ${what}: give 1 to ${NAME_MAX} bytes without "/" and control characters`,
    );
  }
}

/**
 * Checks the type of an interface, which goes to guests as a NUL-padded string (`docs/abi/vbus-pci.md` section 8).
 * @throws VbusError EINVAL when it is empty, longer than 127 bytes, or has a control character in it
 */
export function checkType(type: string): void {
  const bytes = encoder.encode(type).length;
  if (bytes === 0 || bytes >= DEVTYPE_SIZE || CONTROL.test(type)) {
    throw new VbusError(
      "EINVAL",
      `${JSON.stringify(type)} cannot be an interface type: give 1 to ${DEVTYPE_SIZE - 1} bytes without control characters`,
    );
  }
}
