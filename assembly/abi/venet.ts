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

/** Capability group of this project: UDP segmentation (`docs/abi/extensions.md` section 4). */
export const VENET_GROUP_USO = 0x76620001;
/** Group SG: scatter-gather transmit descriptors. */
export const VENET_SG_SG = 0x01;
/** Group SG: TCP/IPv4 superframes. */
export const VENET_SG_TSO4 = 0x02;
/** Group SG: TCP/IPv6 superframes. */
export const VENET_SG_TSO6 = 0x04;
/** Group SG: superframes of flows that use ECN. */
export const VENET_SG_ECN = 0x08;
/** Group SG: UDP fragmentation; never granted. */
export const VENET_SG_UFO = 0x10;
/** Group SG: transmit descriptors in a pool shared beforehand. */
export const VENET_SG_PMTD = 0x20;
/** Group EVENTQ: link state events. */
export const VENET_EVENTQ_LINKSTATE = 0x01;
/** Group EVENTQ: transmit completion events. */
export const VENET_EVENTQ_TXC = 0x02;
/** Group L4RO: scatter-gather receive descriptors; TSO4, TSO6 and ECN have the bits of group SG. */
export const VENET_L4RO_SG = 0x01;
/** Group USO: the guest may send UDP superframes. */
export const VENET_USO_TX = 0x01;
/** Group USO: the guest takes UDP superframes. */
export const VENET_USO_RX = 0x02;

/** VSG: the fixed part, before the pieces. */
export const VSG_SIZE_FIXED = 32;
/** VSG: size of a piece. */
export const VSG_IOV_SIZE = 16;
/** VSG: size of a piece, i386 layout of 2009. */
export const VSG_IOV_SIZE_ILP32 = 12;
/** Most pieces that a guest of 2009 builds (defect V13). */
export const VSG_IOVS_MAX = 19;
/** Longest VSG that is accepted. */
export const VSG_SIZE_MAX = 336;
/** VSG: cookie, u64. */
export const VSG_OFF_COOKIE = 0;
/** VSG: flags, u32. */
export const VSG_OFF_FLAGS = 8;
/** VSG: length of all pieces, u32. */
export const VSG_OFF_LEN = 12;
/** VSG: first byte to sum, u16. */
export const VSG_OFF_CSUM_START = 16;
/** VSG: where the sum goes, from there, u16. */
export const VSG_OFF_CSUM_OFFSET = 18;
/** VSG: segmentation type, u8. */
export const VSG_OFF_GSO_TYPE = 20;
/** VSG: length of the headers (a hint), u16. */
export const VSG_OFF_GSO_HDRLEN = 22;
/** VSG: segment size, u16. */
export const VSG_OFF_GSO_SIZE = 24;
/** VSG: number of pieces, u32. */
export const VSG_OFF_COUNT = 28;
/** VSG piece: length, u32. */
export const VSG_IOV_OFF_LEN = 0;
/** VSG piece: guest-physical address, u64. */
export const VSG_IOV_OFF_PTR = 8;
/** VSG piece: guest-physical address, i386 layout of 2009. */
export const VSG_IOV_OFF_PTR_ILP32 = 4;
/** VSG flag: partial checksum. */
export const VSG_NEEDS_CSUM = 1;
/** VSG flag: superframe. */
export const VSG_GSO = 2;
/** VSG flag: the TCP flow uses ECN. */
export const VSG_ECN = 4;
/** VSG segmentation type: TCP over IPv4. */
export const VSG_GSO_TCPV4 = 0;
/** VSG segmentation type: UDP fragmentation; never granted. */
export const VSG_GSO_UDP = 1;
/** VSG segmentation type: TCP over IPv6. */
export const VSG_GSO_TCPV6 = 2;
/** VSG segmentation type of this project: UDP datagrams of equal size (group USO). */
export const VSG_GSO_UDP_L4 = 3;
/** Longest superframe. */
export const VENET_GSO_MAX = 65536;

/** Size of the L4RO pool at most. */
export const VENET_L4RO_POOL_MAX = 655360;
/** Size of an event record in the pool. */
export const VENET_EVENT_SIZE = 24;
/** Event: flags, u32. */
export const VENET_EVENT_OFF_FLAGS = 0;
/** Event: size of the whole, u32. */
export const VENET_EVENT_OFF_SIZE = 4;
/** Event: id, u32. */
export const VENET_EVENT_OFF_ID = 8;
/** Event LINKSTATE. */
export const VENET_EVENT_LINKSTATE = 0;
/** Its size. */
export const VENET_LINKSTATE_SIZE = 16;
/** Its state, u8: 0 down, 1 up. */
export const VENET_LINKSTATE_OFF_STATE = 12;
/** Event TXC: a frame was sent. */
export const VENET_EVENT_TXC = 1;
/** Its size. */
export const VENET_TXC_SIZE = 24;
/** Its queue, u32. */
export const VENET_TXC_OFF_TXQID = 12;
/** Its cookie, u64. */
export const VENET_TXC_OFF_COOKIE = 16;

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
