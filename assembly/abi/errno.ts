/** Errno values that the ABI uses; calls return them negated (`docs/abi/vbus-bus.md` section 5). */

/** Not a member, or not allowed. */
export const EPERM = 1;
/** No such device, handle or interface. */
export const ENOENT = 2;
/** The device failed, or has no handler for it. */
export const EIO = 5;
/** The device has no back end. */
export const ENXIO = 6;
/** Out of memory. */
export const ENOMEM = 12;
/** A guest address cannot be read or written. */
export const EFAULT = 14;
/** Already in use. */
export const EBUSY = 16;
/** Already there. */
export const EEXIST = 17;
/** No such device. */
export const ENODEV = 19;
/** Wrong argument, version, length or state. */
export const EINVAL = 22;
/** A number space is exhausted. */
export const ENOSPC = 28;
/** The medium cannot be written. */
export const EROFS = 30;
/** The peer broke the protocol. */
export const EPROTO = 71;
/** Not supported in this place. */
export const EOPNOTSUPP = 95;
/** The other side is gone. */
export const ENOTCONN = 107;
/** No answer in time. */
export const ETIMEDOUT = 110;
