/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of vblk.ko know of each other.
 *
 * A disk has one session with its device, from probe to remove. Each hardware queue
 * of the block layer is a queue of the session: a ring for requests, one for
 * completions, and one lock for both. Tags of the block layer are tags on the wire,
 * and belong to one request whatever its queue.
 */
#ifndef _VBLK_H
#define _VBLK_H

#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/scatterlist.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "vbus.h"
#include "abi.h"

#define VBLK_NAME		"vblk"

/* What we ask of a device at most, whatever it offers. */
#define VBLK_PIECES_MAX		128
#define VBLK_DEPTH_MAX		1024
#define VBLK_QUEUES_MAX		16
/* A size in bytes must be a loff_t. */
#define VBLK_CAPACITY_MAX	((u64)LLONG_MAX >> SECTOR_SHIFT)

/**
 * struct vblk_caps - what the device has told, checked
 * @capacity: sectors, when the device was asked
 * @max_pieces: pieces of a request
 * @max_length: bytes of a read or write
 * @max_bulk: bytes of a discard or write-zeroes
 * @depth: requests that may be outstanding
 * @max_queues: queues that the session may have
 * @read_only: nothing can be changed
 * @discard: DISCARD is supported
 * @write_zeroes: WRITE_ZEROES is supported
 */
struct vblk_caps {
	u64 capacity;
	u32 max_pieces;
	u32 max_length;
	u32 max_bulk;
	u32 depth;
	u32 max_queues;
	bool read_only;
	bool discard;
	bool write_zeroes;
};

/**
 * struct vblk_cmd - what belongs to a request
 * @status: how it ended
 * @value: what a completion that succeeded says
 * @record: what the host reads; its pieces, then room for the block layer's list
 */
struct vblk_cmd {
	blk_status_t status;
	u64 value;
	struct vblk_record record;
};

struct vblk;

/**
 * struct vblk_queue - a queue of the session
 * @vblk: the disk
 * @lock: protects what follows
 * @requests: the request ring
 * @completions: the completion ring
 * @records: its buffers, by position
 * @outstanding: requests that the host has by this queue, by tag
 * @strays: completions that belong to nothing
 * @liars: completions that contradict their request
 */
struct vblk_queue {
	struct vblk *vblk;
	spinlock_t lock;
	struct ioq *requests;
	struct ioq *completions;
	struct vblk_completion *records;
	struct request **outstanding;
	u32 strays;
	u32 liars;
};

/**
 * struct vblk - a disk
 * @vdev: its device
 * @disk: what the block layer knows of it
 * @number: the one in its name
 * @tag_set: the tags
 * @caps: what the device can do
 * @readers: of its queues, how many are for reads alone: the last ones
 * @count: how many queues there are
 * @queues: those
 * @dead: no request gets out any more; once a queue's lock was taken after that
 *	  nobody is at its rings
 * @lock: protects what follows; taken within a queue's
 * @capacity: sectors, as told last
 * @added: the block layer knows the disk
 * @resize_work: tells the block layer of @capacity
 * @gone: the host has let go of a ring
 * @dead_work: ends a session that the host has let go of
 */
struct vblk {
	struct vbus_device *vdev;
	struct gendisk *disk;
	int number;
	struct blk_mq_tag_set tag_set;
	struct vblk_caps caps;
	u32 readers;
	u32 count;
	struct vblk_queue *queues;
	bool dead;
	spinlock_t lock;
	u64 capacity;
	bool added;
	struct work_struct resize_work;
	bool gone;
	struct work_struct dead_work;
};

static inline struct scatterlist *vblk_sg(const struct vblk *vblk,
					  struct vblk_cmd *cmd)
{
	return (struct scatterlist *)&cmd->record.piece[vblk->caps.max_pieces];
}

static inline size_t vblk_cmd_size(const struct vblk *vblk)
{
	return sizeof(struct vblk_cmd) + vblk->caps.max_pieces *
	       (sizeof(struct vblk_piece) + sizeof(struct scatterlist));
}

/* session.c */
int vblk_session_open(struct vblk *vblk);
int vblk_session_start(struct vblk *vblk);
bool vblk_session_alive(struct vblk *vblk);
void vblk_session_end(struct vblk *vblk);
void vblk_session_free(struct vblk *vblk);

/* requests.c */
extern const struct blk_mq_ops vblk_mq_ops;

/* completions.c */
void vblk_take(struct vblk_queue *queue);
void vblk_notify(void *priv);
void vblk_fail_outstanding(struct vblk *vblk);

/* limits.c */
struct gendisk *vblk_alloc_disk(struct vblk *vblk);

#endif /* _VBLK_H */
