/** venet, the virtual Ethernet device (`docs/abi/venet.md`). */

/** Version that DEVOPEN must ask for. */
export const VENET_VERSION = 1;

/** Segment: the RX ring (RX and TX are the guest's). */
export const VENET_QUEUE_RX = 0;
/** Segment: the TX ring. */
export const VENET_QUEUE_TX = 1;
/** Segment: pool of TX scatter-gather descriptors. */
export const VENET_SEGMENT_PMTD_POOL = 100;
/** Segment: pool of events. */
export const VENET_SEGMENT_EVENT_POOL = 101;
/** Segment: the event ring. */
export const VENET_SEGMENT_EVENT_QUEUE = 102;
/** Segment: pool of RX scatter-gather descriptors. */
export const VENET_SEGMENT_L4RO_POOL = 103;
/** Segment: the page ring. */
export const VENET_SEGMENT_L4RO_PAGE_QUEUE = 104;

/** Call: link up. */
export const VENET_LINKUP = 0;
/** Call: link down. */
export const VENET_LINKDOWN = 1;
/** Call: read the MAC address (6 bytes). */
export const VENET_MACQUERY = 2;
/** Call: negotiate one capability group (8 bytes). */
export const VENET_NEGCAP = 3;
/** Call: return every RX descriptor empty. */
export const VENET_FLUSHRX = 4;
/** Call: which segment is the PMTD pool. */
export const VENET_PMTDQUERY = 5;
/** Call: which segments are the event queue (32 bytes). */
export const VENET_EVQQUERY = 6;
/** Call: which segments are the L4RO pool and page queue (32 bytes). */
export const VENET_L4ROQUERY = 7;

/** `capabilities`: gid 0/4, bits 4/4. */
export const VENET_CAPABILITIES_SIZE = 8;
/** Offset of `gid`. */
export const VENET_CAPABILITIES_OFF_GID = 0;
/** Offset of `bits`. */
export const VENET_CAPABILITIES_OFF_BITS = 4;
/** Capability group: guest TX scatter-gather. */
export const VENET_GROUP_SG = 0;
/** Capability group: events. */
export const VENET_GROUP_EVENTQ = 1;
/** Capability group: large receive. */
export const VENET_GROUP_L4RO = 2;

/** `eventq_query` and `l4ro_query`. */
export const VENET_QUERY_SIZE = 32;

/** Length of the header of an Ethernet frame. */
export const ETH_HEADER_SIZE = 14;
/** Length of a MAC address. */
export const ETH_ADDRESS_SIZE = 6;
/** Length of one 802.1Q tag. */
export const VLAN_TAG_SIZE = 4;
/** EtherType of an 802.1Q tag. */
export const ETHERTYPE_VLAN = 0x8100;
/** EtherType of an 802.1ad service tag. */
export const ETHERTYPE_QINQ = 0x88a8;
/** Smallest MTU a NIC may have. */
export const MTU_MIN = 68;
/** Largest MTU a NIC may have. */
export const MTU_MAX = 65000;
/** MTU when nobody says otherwise. */
export const MTU_DEFAULT = 1500;
/** Completions per signal towards the guest when nobody says otherwise. */
export const VENET_TXMITIGATION_DEFAULT = 10;
