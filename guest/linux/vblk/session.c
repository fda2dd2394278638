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
	struct vblk *vblk = priv;

	WRITE_ONCE(vblk->gone, true);
	schedule_work(&vblk->dead_work);
}

static int vblk_rings_create(struct vblk *vblk)
{
	/* an answer for each tag and an event: none ever waits in the host */
	u32 count = vblk->caps.depth + 1;
	struct ioq *ioq;
	u32 i;

	vblk->outstanding = kvcalloc(vblk->caps.depth,
				     sizeof(*vblk->outstanding), GFP_KERNEL);
	if (!vblk->outstanding)
		return -ENOMEM;
	vblk->records = alloc_pages_exact(count * sizeof(*vblk->records),
					  GFP_KERNEL | __GFP_ZERO);
	if (!vblk->records)
		return -ENOMEM;
	ioq = vbus_ioq_create(vblk->vdev, VBLK_QUEUE_REQUEST, vblk->caps.depth,
			      true, 0);
	if (IS_ERR(ioq))
		return PTR_ERR(ioq);
	vblk->requests = ioq;
	/* masked for ever: with a descriptor for each tag there is always room */
	shm_signal_listen(ioq->signal, NULL, vblk);
	shm_signal_watch(ioq->signal, vblk_gone);

	ioq = vbus_ioq_create(vblk->vdev, VBLK_QUEUE_COMPLETION, count, false, 0);
	if (IS_ERR(ioq))
		return PTR_ERR(ioq);
	vblk->completions = ioq;
	for (i = 0; i < count; i++) {
		struct ioq_ring_desc *desc = &ioq->ring->ring[i];

		desc->cookie = i;
		desc->ptr = cpu_to_le64(virt_to_phys(&vblk->records[i]));
		desc->len = cpu_to_le64(sizeof(*vblk->records));
		desc->valid = 1;
		ioq_push(ioq, IOQ_VALID);
	}
	shm_signal_listen(ioq->signal, vblk_notify, vblk);
	shm_signal_watch(ioq->signal, vblk_gone);
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
 * @vblk: the disk, its session open
 *
 * Return: 0 or a negative errno.
 */
int vblk_session_start(struct vblk *vblk)
{
	struct vblk_caps now;
	int ret;

	ret = vblk_rings_create(vblk);
	if (ret)
		return ret;
	/* what happened to its size until then was told to nobody */
	ret = vblk_query(vblk, &now);
	if (ret)
		return ret;
	vblk->capacity = now.capacity;
	vblk_notify(vblk);	/* asks for notifications */
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

	spin_lock_irqsave(&vblk->lock, flags);
	vblk->dead = true;	/* nobody signals or looks at a ring any more */
	spin_unlock_irqrestore(&vblk->lock, flags);
	/* from here on it is no surprise */
	if (vblk->requests)
		shm_signal_watch(vblk->requests->signal, NULL);
	if (vblk->completions)
		shm_signal_watch(vblk->completions->signal, NULL);
	vbus_close(vblk->vdev);
	vblk_fail_outstanding(vblk);
}

/**
 * vblk_session_free - free the rings
 * @vblk: the disk, its session ended
 */
void vblk_session_free(struct vblk *vblk)
{
	vbus_ioq_destroy(vblk->requests);
	vbus_ioq_destroy(vblk->completions);
	if (vblk->records)
		free_pages_exact(vblk->records, (vblk->caps.depth + 1) *
				 sizeof(*vblk->records));
	kvfree(vblk->outstanding);
	vblk->requests = NULL;
	vblk->completions = NULL;
	vblk->records = NULL;
	vblk->outstanding = NULL;
}
