/**
 * virtio-net (Virtual I/O Device specification, version 1.2, section 5.1; feature bits 50 to 56 are of version 1.3).
 *
 * ```
 * header of every frame (5.1.6), 12 bytes
 *    0 flags u8 | 1 gso type u8 | 2 header length u16 | 4 gso size u16
 *    6 csum start u16 | 8 csum offset u16 | 10 num buffers u16
 *
 * configuration (5.1.4)
 *    0 mac[6] | 6 status u16 | 8 max queue pairs u16 | 10 mtu u16 | 12 speed u32 | 16 duplex u8
 *
 * command on the control queue (5.1.6.5)
 *    readable: 0 class u8 | 1 command u8 | 2 data …       writable: 0 ack u8
 * ```
 */

/* ---- feature bits (5.1.3) ---------------------------------------------------------------------- */

/** The device takes frames with partial checksums. */
export const VIRTIO_NET_F_CSUM = 0;
/** The driver takes frames with partial checksums. */
export const VIRTIO_NET_F_GUEST_CSUM = 1;
/** The driver may change what it takes at any time. */
export const VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2;
/** The device says its MTU. */
export const VIRTIO_NET_F_MTU = 3;
/** The device says its MAC address. */
export const VIRTIO_NET_F_MAC = 5;
/** The driver takes TCP/IPv4 superframes. */
export const VIRTIO_NET_F_GUEST_TSO4 = 7;
/** The driver takes TCP/IPv6 superframes. */
export const VIRTIO_NET_F_GUEST_TSO6 = 8;
/** The driver takes superframes of flows with ECN. */
export const VIRTIO_NET_F_GUEST_ECN = 9;
/** The driver takes UDP datagrams that are to be fragmented; never offered. */
export const VIRTIO_NET_F_GUEST_UFO = 10;
/** The device takes TCP/IPv4 superframes. */
export const VIRTIO_NET_F_HOST_TSO4 = 11;
/** The device takes TCP/IPv6 superframes. */
export const VIRTIO_NET_F_HOST_TSO6 = 12;
/** The device takes superframes of flows with ECN. */
export const VIRTIO_NET_F_HOST_ECN = 13;
/** The device fragments UDP datagrams; never offered. */
export const VIRTIO_NET_F_HOST_UFO = 14;
/** A received frame may lie in several buffers. */
export const VIRTIO_NET_F_MRG_RXBUF = 15;
/** The configuration has a status. */
export const VIRTIO_NET_F_STATUS = 16;
/** There is a control queue. */
export const VIRTIO_NET_F_CTRL_VQ = 17;
/** Control: receive modes and MAC table. */
export const VIRTIO_NET_F_CTRL_RX = 18;
/** Control: VLAN filter. */
export const VIRTIO_NET_F_CTRL_VLAN = 19;
/** Control: more receive modes. */
export const VIRTIO_NET_F_CTRL_RX_EXTRA = 20;
/** The driver announces itself when asked to. */
export const VIRTIO_NET_F_GUEST_ANNOUNCE = 21;
/** Several pairs of queues. */
export const VIRTIO_NET_F_MQ = 22;
/** Control: MAC address. */
export const VIRTIO_NET_F_CTRL_MAC_ADDR = 23;
/** Control: notification coalescing of a single queue. */
export const VIRTIO_NET_F_VQ_NOTF_COAL = 52;
/** Control: notification coalescing. */
export const VIRTIO_NET_F_NOTF_COAL = 53;
/** The driver takes UDP/IPv4 superframes. */
export const VIRTIO_NET_F_GUEST_USO4 = 54;
/** The driver takes UDP/IPv6 superframes. */
export const VIRTIO_NET_F_GUEST_USO6 = 55;
/** The device takes UDP superframes. */
export const VIRTIO_NET_F_HOST_USO = 56;
/** The device says speed and duplex mode. */
export const VIRTIO_NET_F_SPEED_DUPLEX = 63;

/* ---- configuration (5.1.4) --------------------------------------------------------------------- */

/** The MAC address, 6 bytes. */
export const VIRTIO_NET_CONFIG_OFF_MAC = 0;
/** `VIRTIO_NET_S_…` bits, u16. */
export const VIRTIO_NET_CONFIG_OFF_STATUS = 6;
/** Most pairs of queues, u16. */
export const VIRTIO_NET_CONFIG_OFF_PAIRS = 8;
/** MTU, u16. */
export const VIRTIO_NET_CONFIG_OFF_MTU = 10;
/** Speed in Mbit/s, u32; {@link VIRTIO_NET_SPEED_UNKNOWN}. */
export const VIRTIO_NET_CONFIG_OFF_SPEED = 12;
/** Duplex mode, u8. */
export const VIRTIO_NET_CONFIG_OFF_DUPLEX = 16;
/** Size of the configuration, up to what is offered here. */
export const VIRTIO_NET_CONFIG_SIZE = 20;

/** Status: the link is up. */
export const VIRTIO_NET_S_LINK_UP = 1;
/** Status: the driver should announce itself to the network. */
export const VIRTIO_NET_S_ANNOUNCE = 2;
/** Speed that nobody knows. */
export const VIRTIO_NET_SPEED_UNKNOWN = 0xffffffff;
/** Duplex mode: half. */
export const VIRTIO_NET_DUPLEX_HALF = 0;
/** Duplex mode: full. */
export const VIRTIO_NET_DUPLEX_FULL = 1;
/** Duplex mode that nobody knows. */
export const VIRTIO_NET_DUPLEX_UNKNOWN = 0xff;
/** Most pairs of queues. */
export const VIRTIO_NET_PAIRS_MAX = 0x8000;

/* ---- header of a frame (5.1.6) ----------------------------------------------------------------- */

/** Flags, u8. */
export const VIRTIO_NET_HDR_OFF_FLAGS = 0;
/** Kind of superframe, u8. */
export const VIRTIO_NET_HDR_OFF_GSO_TYPE = 1;
/** Length of all headers, u16: a hint. */
export const VIRTIO_NET_HDR_OFF_HDR_LEN = 2;
/** Payload bytes per segment, u16. */
export const VIRTIO_NET_HDR_OFF_GSO_SIZE = 4;
/** First byte to sum, u16. */
export const VIRTIO_NET_HDR_OFF_CSUM_START = 6;
/** Where the sum goes, from there, u16. */
export const VIRTIO_NET_HDR_OFF_CSUM_OFFSET = 8;
/** Number of buffers that the frame lies in, u16. */
export const VIRTIO_NET_HDR_OFF_NUM_BUFFERS = 10;
/** Size of the header. */
export const VIRTIO_NET_HDR_SIZE = 12;

/** Header flag: the checksum is partial. */
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
/** Header flag, towards the driver: the checksum is right. */
export const VIRTIO_NET_HDR_F_DATA_VALID = 2;
/** Kind: no superframe. */
export const VIRTIO_NET_HDR_GSO_NONE = 0;
/** Kind: TCP over IPv4. */
export const VIRTIO_NET_HDR_GSO_TCPV4 = 1;
/** Kind: UDP, to be fragmented; never negotiated. */
export const VIRTIO_NET_HDR_GSO_UDP = 3;
/** Kind: TCP over IPv6. */
export const VIRTIO_NET_HDR_GSO_TCPV6 = 4;
/** Kind: UDP datagrams. */
export const VIRTIO_NET_HDR_GSO_UDP_L4 = 5;
/** Beside the kind: the flow uses ECN. */
export const VIRTIO_NET_HDR_GSO_ECN = 0x80;

/* ---- control queue (5.1.6.5) ------------------------------------------------------------------- */

/** Acknowledgement: done. */
export const VIRTIO_NET_OK = 0;
/** Acknowledgement: refused. */
export const VIRTIO_NET_ERR = 1;

/** Class: receive modes (5.1.6.5.1); one byte of data each, 0 = off. */
export const VIRTIO_NET_CTRL_RX = 0;
/** Receive everything. */
export const VIRTIO_NET_CTRL_RX_PROMISC = 0;
/** Receive all multicast. */
export const VIRTIO_NET_CTRL_RX_ALLMULTI = 1;
/** Receive all unicast. */
export const VIRTIO_NET_CTRL_RX_ALLUNI = 2;
/** Receive no multicast. */
export const VIRTIO_NET_CTRL_RX_NOMULTI = 3;
/** Receive no unicast. */
export const VIRTIO_NET_CTRL_RX_NOUNI = 4;
/** Receive no broadcast. */
export const VIRTIO_NET_CTRL_RX_NOBCAST = 5;
/** Class: MAC addresses (5.1.6.5.2). */
export const VIRTIO_NET_CTRL_MAC = 1;
/** Two tables, unicast then multicast: count u32, addresses. */
export const VIRTIO_NET_CTRL_MAC_TABLE_SET = 0;
/** The address itself: 6 bytes. */
export const VIRTIO_NET_CTRL_MAC_ADDR_SET = 1;
/** Class: VLAN filter (5.1.6.5.3); an identifier, u16, each. */
export const VIRTIO_NET_CTRL_VLAN = 2;
/** Let an identifier through. */
export const VIRTIO_NET_CTRL_VLAN_ADD = 0;
/** Let it through no more. */
export const VIRTIO_NET_CTRL_VLAN_DEL = 1;
/** Class: announcement (5.1.6.5.4). */
export const VIRTIO_NET_CTRL_ANNOUNCE = 3;
/** The driver has announced itself. */
export const VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0;
/** Class: pairs of queues (5.1.6.5.5). */
export const VIRTIO_NET_CTRL_MQ = 4;
/** How many are in use, u16. */
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0;
/** Class: what the driver takes unfinished (5.1.6.5.8). */
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5;
/** The bits of the features, u64. */
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0;
/** Class: notification coalescing (5.1.6.5.9). */
export const VIRTIO_NET_CTRL_NOTF_COAL = 6;
/** For all transmit queues: most packets u32, most microseconds u32. */
export const VIRTIO_NET_CTRL_NOTF_COAL_TX_SET = 0;
/** For all receive queues: the same. */
export const VIRTIO_NET_CTRL_NOTF_COAL_RX_SET = 1;
/** For one queue: its index u16, 0 u16, then the same. */
export const VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET = 2;
/** What is set for one queue: its index u16, 0 u16; the same is written behind. */
export const VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET = 3;
