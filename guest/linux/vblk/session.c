// SPDX-License-Identifier: GPL-2.0-only
/*
 * A session: what the device is, and the two rings. docs/abi/vblk.md section 9.
 */
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "vblk.h"

static int vblk_query(struct vblk *vblk, struct vblk_caps *caps)
{
	struct device *dev = &vblk->vdev->dev;
	struct vblk_info info = {};
	u32 flags, block_size;
	int ret;

	ret = vbus_call(vblk->vdev, VBLK_QUERY, &info, sizeof(info));
	if (ret < 0)
		return ret;
	flags = le32_to_cpu(info.flags);
	block_size = le32_to_cpu(info.block_size);
	caps->capacity = le64_to_cpu(info.capacity);
	caps->max_pieces = min_t(u32, le32_to_cpu(info.max_pieces),
				 VBLK_PIECES_MAX);
	caps->max_length = le32_to_cpu(info.max_length);
	caps->max_bulk = le32_to_cpu(info.max_bulk);
	caps->depth = min_t(u32, le32_to_cpu(info.queue_depth), VBLK_DEPTH_MAX);
	/* a device that does not say has one */
	caps->max_queues = clamp_t(u32, le32_to_cpu(info.max_queues), 1,
				   VBLK_QUEUES_MAX);
	caps->read_only = flags & VBLK_INFO_READ_ONLY;
	caps->discard = flags & VBLK_INFO_DISCARD;
	caps->write_zeroes = flags & VBLK_INFO_WRITE_ZEROES;

	/* the block layer writes pages, and so needs that much in a request */
	if (block_size != SECTOR_SIZE || caps->capacity > VBLK_CAPACITY_MAX ||
	    !caps->max_pieces || !caps->depth || caps->max_length < PAGE_SIZE ||
	    caps->max_length % SECTOR_SIZE || !caps->max_bulk ||
	    caps->max_bulk % SECTOR_SIZE) {
		dev_err(dev, "blocks of %u, %llu of them, %u pieces, %u bytes, %u at once, %u requests: not what this driver knows\n",
			block_size, caps->capacity, caps->max_pieces,
			caps->max_length, caps->max_bulk, caps->depth);
		return -EPROTO;
	}
	return 0;
}

/* The host has let go of a ring that we did not close; under the signal's lock. */
static void vblk_gone(void *priv)
{
	struct vblk *vblk = ((struct vblk_queue *)priv)->vblk;

	WRITE_ONCE(vblk->gone, true);
	schedule_work(&vblk->dead_work);
}

static int vblk_queue_create(struct vblk_queue *queue, u32 index)
{
	struct vblk *vblk = queue->vblk;
	u32 segment = index * VBLK_QUEUE_SEGMENTS;
	/* an answer for each tag and an event: none ever waits in the host */
	u32 count = vblk->caps.depth + 1;
	struct ioq *ioq;
	u32 i;

	queue->outstanding = kvcalloc(vblk->caps.depth,
				      sizeof(*queue->outstanding), GFP_KERNEL);
	if (!queue->outstanding)
		return -ENOMEM;
	queue->records = alloc_pages_exact(count * sizeof(*queue->records),
					   GFP_KERNEL | __GFP_ZERO);
	if (!queue->records)
		return -ENOMEM;
	ioq = vbus_ioq_create(vblk->vdev, segment + VBLK_QUEUE_REQUEST,
			      vblk->caps.depth, true, 0);
	if (IS_ERR(ioq))
		return PTR_ERR(ioq);
	queue->requests = ioq;
	/* masked for ever: with a descriptor for each tag there is always room */
	shm_signal_listen(ioq->signal, NULL, queue);
	shm_signal_watch(ioq->signal, vblk_gone);

	ioq = vbus_ioq_create(vblk->vdev, segment + VBLK_QUEUE_COMPLETION,
			      count, false, 0);
	if (IS_ERR(ioq))
		return PTR_ERR(ioq);
	queue->completions = ioq;
	for (i = 0; i < count; i++) {
		struct ioq_ring_desc *desc = &ioq->ring->ring[i];

		desc->cookie = i;
		desc->ptr = cpu_to_le64(virt_to_phys(&queue->records[i]));
		desc->len = cpu_to_le64(sizeof(*queue->records));
		desc->valid = 1;
		ioq_push(ioq, IOQ_VALID);
	}
	shm_signal_listen(ioq->signal, vblk_notify, queue);
	shm_signal_watch(ioq->signal, vblk_gone);
	return 0;
}

static int vblk_queues_create(struct vblk *vblk)
{
	u32 count = vblk->tag_set.nr_hw_queues;
	int ret;
	u32 i;

	vblk->queues = kcalloc(count, sizeof(*vblk->queues), GFP_KERNEL);
	if (!vblk->queues)
		return -ENOMEM;
	vblk->count = count;
	for (i = 0; i < count; i++) {
		vblk->queues[i].vblk = vblk;
		spin_lock_init(&vblk->queues[i].lock);
	}
	for (i = 0; i < count; i++) {
		ret = vblk_queue_create(&vblk->queues[i], i);
		if (ret)
			return ret;
	}
	return 0;
}

/**
 * vblk_session_open - open the device, and ask what it is
 * @vblk: the disk, without a session
 *
 * Return: 0 or a negative errno; then there is no session.
 */
int vblk_session_open(struct vblk *vblk)
{
	int ret;

	ret = vbus_open(vblk->vdev, VBLK_VERSION);
	if (ret)
		return ret;
	ret = vblk_query(vblk, &vblk->caps);
	if (ret)
		vbus_close(vblk->vdev);
	return ret;
}

/**
 * vblk_session_start - share the rings: requests are answered from now on
 * @vblk: the disk, its session open and its tags there
 *
 * Return: 0 or a negative errno.
 */
int vblk_session_start(struct vblk *vblk)
{
	struct vblk_caps now;
	int ret;
	u32 i;

	ret = vblk_queues_create(vblk);
	if (ret)
		return ret;
	/* what happened to its size until then was told to nobody */
	ret = vblk_query(vblk, &now);
	if (ret)
		return ret;
	vblk->capacity = now.capacity;
	for (i = 0; i < vblk->count; i++)
		vblk_notify(&vblk->queues[i]);	/* asks for notifications */
	return 0;
}

/**
 * vblk_session_alive - does the host still know the session?
 * @vblk: the disk
 */
bool vblk_session_alive(struct vblk *vblk)
{
	struct vblk_info info = {};

	return !READ_ONCE(vblk->dead) &&
	       vbus_call(vblk->vdev, VBLK_QUERY, &info, sizeof(info)) >= 0;
}

/**
 * vblk_session_end - close the device; what is outstanding has failed
 * @vblk: the disk; nothing happens if that is done already
 *
 * In this order: only once the device is closed is its host out of the memory of
 * requests, so none ends before. Sleeps.
 */
void vblk_session_end(struct vblk *vblk)
{
	unsigned long flags;
	u32 i;

	WRITE_ONCE(vblk->dead, true);	/* nobody signals or looks at a ring any more */
	for (i = 0; i < vblk->count; i++) {
		struct vblk_queue *queue = &vblk->queues[i];

		spin_lock_irqsave(&queue->lock, flags);	/* and nobody is at it */
		spin_unlock_irqrestore(&queue->lock, flags);
		/* from here on it is no surprise */
		if (queue->requests)
			shm_signal_watch(queue->requests->signal, NULL);
		if (queue->completions)
			shm_signal_watch(queue->completions->signal, NULL);
	}
	vbus_close(vblk->vdev);
	vblk_fail_outstanding(vblk);
}

/**
 * vblk_session_free - free the rings
 * @vblk: the disk, its session ended
 */
void vblk_session_free(struct vblk *vblk)
{
	u32 i;

	for (i = 0; i < vblk->count; i++) {
		struct vblk_queue *queue = &vblk->queues[i];

		vbus_ioq_destroy(queue->requests);
		vbus_ioq_destroy(queue->completions);
		if (queue->records)
			free_pages_exact(queue->records,
					 (vblk->caps.depth + 1) *
					 sizeof(*queue->records));
		kvfree(queue->outstanding);
	}
	kfree(vblk->queues);
	vblk->queues = NULL;
	vblk->count = 0;
}
