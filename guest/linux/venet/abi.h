/* SPDX-License-Identifier: GPL-2.0-only */
/* venet on the wire: docs/abi/venet.md, and docs/abi/extensions.md section 4. */
#ifndef _VENET_ABI_H
#define _VENET_ABI_H

#include <linux/build_bug.h>
#include <linux/types.h>

#define VENET_TYPE		"virtual-ethernet"
#define VENET_VERSION		1

#define VENET_QUEUE_RX		0
#define VENET_QUEUE_TX		1

enum venet_func {
	VENET_LINKUP,
	VENET_LINKDOWN,
	VENET_MACQUERY,
	VENET_NEGCAP,
	VENET_FLUSHRX,
	VENET_PMTDQUERY,
	VENET_EVQQUERY,
	VENET_L4ROQUERY,
};

#define VENET_GROUP_SG		0
#define VENET_GROUP_EVENTQ	1
#define VENET_GROUP_L4RO	2
#define VENET_GROUP_USO		0x76620001

#define VENET_CAP_SG		0x01	/* groups SG and L4RO */
#define VENET_CAP_TSO4		0x02
#define VENET_CAP_TSO6		0x04
#define VENET_CAP_ECN		0x08
#define VENET_CAP_PMTD		0x20	/* group SG alone */

#define VENET_EVQ_LINKSTATE	0x01
#define VENET_EVQ_TXC		0x02

#define VENET_USO_TX		0x01
#define VENET_USO_RX		0x02

struct venet_capabilities {
	__le32 gid;
	__le32 bits;
};

static_assert(sizeof(struct venet_capabilities) == 8);

struct venet_eventq_query {
	__le32 flags;
	__le32 evsize;
	__le32 dpid;
	__le32 qid;
	__u8 pad[16];
};

static_assert(sizeof(struct venet_eventq_query) == 32);

struct venet_l4ro_query {
	__le32 flags;
	__le32 dpid;
	__le32 pqid;
	__u8 pad[20];
};

static_assert(sizeof(struct venet_l4ro_query) == 32);

#define VENET_VSG_NEEDS_CSUM	1
#define VENET_VSG_GSO		2
#define VENET_VSG_ECN		4

#define VENET_GSO_TCPV4		0
#define VENET_GSO_TCPV6		2
#define VENET_GSO_UDP_L4	3

/* Longest frame of any kind, and most segments of one. */
#define VENET_FRAME_MAX		65536
#define VENET_SEGMENTS_MAX	2048

struct venet_iov {
	__le32 len;
	__le32 pad;
	__le64 ptr;
};

static_assert(sizeof(struct venet_iov) == 16);

/* Most pieces of a frame: what a slot of 320 bytes has room for. */
#define VENET_IOVS_MAX		18

/* A slot of a descriptor pool: the scatter-gather descriptor of one frame. */
struct venet_vsg {
	__u64 cookie;
	__le32 flags;
	__le32 len;
	__le16 csum_start;
	__le16 csum_offset;
	__u8 gso_type;
	__u8 pad1;
	__le16 gso_hdrlen;
	__le16 gso_size;
	__le16 pad2;
	__le32 count;
	struct venet_iov iov[VENET_IOVS_MAX];
};

static_assert(offsetof(struct venet_vsg, iov) == 32);
static_assert(sizeof(struct venet_vsg) == 320);

#define VENET_EVENT_LINKSTATE	0
#define VENET_EVENT_TXC		1

/* An event; the host says its size, 24 bytes so far. */
struct venet_event {
	__le32 flags;
	__le32 size;
	__le32 id;
	union {
		struct {
			__u8 state;
			__u8 pad[3];
		} link;
		struct {
			__le32 txqid;
		} txc;
	};
	__u64 cookie;
};

static_assert(sizeof(struct venet_event) == 24);
static_assert(offsetof(struct venet_event, cookie) == 16);

#endif /* _VENET_ABI_H */
