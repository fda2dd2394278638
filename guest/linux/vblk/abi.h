/* SPDX-License-Identifier: GPL-2.0-only */
/* vblk on the wire: docs/abi/vblk.md. */
#ifndef _VBLK_ABI_H
#define _VBLK_ABI_H

#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>

#define VBLK_TYPE		"virtual-block"
#define VBLK_VERSION		1

/* Segments of a queue; those of queue q are VBLK_QUEUE_SEGMENTS * q further on. */
#define VBLK_QUEUE_REQUEST	0
#define VBLK_QUEUE_COMPLETION	1
#define VBLK_QUEUE_SEGMENTS	2

#define VBLK_QUERY		0

#define VBLK_INFO_READ_ONLY	0x01
#define VBLK_INFO_DISCARD	0x02
#define VBLK_INFO_WRITE_ZEROES	0x04

struct vblk_info {
	__le32 flags;
	__le32 block_size;
	__le64 capacity;
	__le32 max_pieces;
	__le32 max_length;
	__le32 max_bulk;
	__le32 queue_depth;
	__le32 max_queues;
	__u8 reserved[28];
};

static_assert(sizeof(struct vblk_info) == 64);

enum vblk_op {
	VBLK_OP_READ,
	VBLK_OP_WRITE,
	VBLK_OP_FLUSH,
	VBLK_OP_DISCARD,
	VBLK_OP_WRITE_ZEROES,
	VBLK_OP_GET_ID,
};

#define VBLK_FLAG_FUA		0x01
#define VBLK_ID_SIZE		20

struct vblk_piece {
	__le32 len;
	__le32 pad;
	__le64 ptr;
};

static_assert(sizeof(struct vblk_piece) == 16);

struct vblk_record {
	__le32 tag;
	__le32 op;
	__le32 flags;
	__le32 count;
	__le64 sector;
	__le64 length;
	struct vblk_piece piece[];
};

static_assert(sizeof(struct vblk_record) == 32);

/* A completion; an event if the tag says so, its number in the place of the status. */
struct vblk_completion {
	__le32 tag;
	__le32 status;
	__le64 value;
};

static_assert(sizeof(struct vblk_completion) == 16);

#define VBLK_TAG_EVENT		0xffffffff
#define VBLK_EVENT_RESIZE	1

#endif /* _VBLK_ABI_H */
