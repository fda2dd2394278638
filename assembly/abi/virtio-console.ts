/**
 * virtio-console (Virtual I/O Device specification, version 1.2, section 5.3).
 *
 * ```
 * configuration (5.3.4):    0 cols u16 | 2 rows u16 | 4 most ports u32 | 8 emergency write u32
 * control message (5.3.6):  0 port u32 | 4 event u16 | 6 value u16 | 8 data …
 * queues (5.3.2):           0, 1: port 0 receive, transmit | 2, 3: control | 2 n + 2, 2 n + 3: port n
 * ```
 */

/** The configuration says the window size. */
export const VIRTIO_CONSOLE_F_SIZE = 0;
/** Several ports, and control queues. */
export const VIRTIO_CONSOLE_F_MULTIPORT = 1;
/** Single characters may be written to the configuration. */
export const VIRTIO_CONSOLE_F_EMERG_WRITE = 2;

/** Characters per line, u16. */
export const VIRTIO_CONSOLE_CONFIG_OFF_COLS = 0;
/** Lines, u16. */
export const VIRTIO_CONSOLE_CONFIG_OFF_ROWS = 2;
/** Most ports, u32. */
export const VIRTIO_CONSOLE_CONFIG_OFF_MAX_PORTS = 4;
/** A character that is to be shown somehow, u32. */
export const VIRTIO_CONSOLE_CONFIG_OFF_EMERG_WR = 8;
/** Size of the configuration. */
export const VIRTIO_CONSOLE_CONFIG_SIZE = 12;

/** Control message: port, u32. */
export const VIRTIO_CONSOLE_CONTROL_OFF_ID = 0;
/** Control message: `VIRTIO_CONSOLE_…` event, u16. */
export const VIRTIO_CONSOLE_CONTROL_OFF_EVENT = 4;
/** Control message: value, u16. */
export const VIRTIO_CONSOLE_CONTROL_OFF_VALUE = 6;
/** Size of a control message without data. */
export const VIRTIO_CONSOLE_CONTROL_SIZE = 8;

/** Driver: it is ready for ports (1), or failed (0). */
export const VIRTIO_CONSOLE_DEVICE_READY = 0;
/** Device: there is a port. */
export const VIRTIO_CONSOLE_PORT_ADD = 1;
/** Device: a port is gone. */
export const VIRTIO_CONSOLE_PORT_REMOVE = 2;
/** Driver: the port can be used (1), or failed (0). */
export const VIRTIO_CONSOLE_PORT_READY = 3;
/** Device: the port is a console. */
export const VIRTIO_CONSOLE_CONSOLE_PORT = 4;
/** Device: the window has another size: cols u16, rows u16 follow. */
export const VIRTIO_CONSOLE_RESIZE = 5;
/** Both: the sender's side of the port is open (1) or closed (0). */
export const VIRTIO_CONSOLE_PORT_OPEN = 6;
/** Device: the port's name follows. */
export const VIRTIO_CONSOLE_PORT_NAME = 7;
