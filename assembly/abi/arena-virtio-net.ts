/**
 * What the engine's half of virtio-net and its typed door agree on. Private like everything in `arena.ts`.
 */

/** Granted to the guest beside `1 << GSO_…` for kinds of superframes and bit 0 for ECN: partial checksums. */
export const NET_GRANT_CSUM = 0x10000;

/** How headers are written: frames may take several chains. */
export const NET_MERGEABLE = 1;
/** How headers are written: checksums that are known to be right are said to be. */
export const NET_DATA_VALID = 2;

/** Target entry: number of chains that the frame takes, u32 (where chains have their slots). */
export const TARGET_OFF_CHAINS = 56;

/** Result of placing: chains used. */
export const PLACE_OFF_CHAINS = 0;
/** Result of placing: why it stopped, `PLACE_…`. */
export const PLACE_OFF_REASON = 4;
/** Size of a result of placing. */
export const PLACE_RESULT_SIZE = 8;

/** Every frame has its place. */
export const PLACE_ALL = 0;
/** The next frame needs more chains than there are. */
export const PLACE_CHAINS = 1;
/** The next frame needs more pieces than the lists hold. */
export const PLACE_PIECES = 2;
/** The next chain is no receive buffer. */
export const PLACE_BAD = 3;

/** Private bytes that the flow hash needs: Ethernet, two tags, the longest IPv4 or the IPv6 header, ports. */
export const FLOW_SCRATCH_SIZE = 96;
