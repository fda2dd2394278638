// SPDX-License-Identifier: GPL-2.0-only
/*
 * Answers of the host, and its events. It may say anything: what we gave out is
 * known from our own table, never from what comes back.
 */
#include "vblk.h"

static blk_status_t vblk_status(struct vblk_queue *queue, s32 status, u64 value,
				const struct vblk_cmd *cmd)
{
	switch (status) {
	case 0:
		if (value == cmd->value)
			return BLK_STS_OK;
		queue->liars++;	/* done, but not all of it */
		return BLK_STS_IOERR;
	case -EOPNOTSUPP:
		return BLK_STS_NOTSUPP;
	case -ENOSPC:
		return BLK_STS_NOSPC;
	default:
		return BLK_STS_IOERR;
	}
}

static void vblk_event(struct vblk_queue *queue, u32 number, u64 value)
{
	struct vblk *vblk = queue->vblk;

	/* what is not known may be ignored */
	if (number != VBLK_EVENT_RESIZE)
		return;
	if (value > VBLK_CAPACITY_MAX) {
		queue->liars++;
		return;
	}
	spin_lock(&vblk->lock);
	vblk->capacity = value;
	if (vblk->added)
		schedule_work(&vblk->resize_work);
	spin_unlock(&vblk->lock);
}

static void vblk_answer(struct vblk_queue *queue, u32 tag, u32 status, u64 value)
{
	struct vblk_cmd *cmd;
	struct request *rq;

	if (tag == VBLK_TAG_EVENT) {
		vblk_event(queue, status, value);
		return;
	}
	rq = tag < queue->vblk->caps.depth ? queue->outstanding[tag] : NULL;
	if (!rq) {
		queue->strays++;
		return;
	}
	queue->outstanding[tag] = NULL;
	cmd = blk_mq_rq_to_pdu(rq);
	cmd->status = vblk_status(queue, status, value, cmd);
	blk_mq_complete_request(rq);
}

/* Takes the answers that are there, a ring full at most. Under the lock. */
static void vblk_take_ring(struct vblk_queue *queue)
{
	struct ioq *ioq = queue->completions;
	u32 n;

	for (n = 0; n < ioq->count; n++) {
		u32 at = ioq->pos[IOQ_INUSE].head;
		struct vblk_completion *record = &queue->records[at];
		u32 tag, status;
		u64 value;

		if (!ioq_ours(ioq, at))
			break;
		tag = le32_to_cpu(READ_ONCE(record->tag));
		status = le32_to_cpu(READ_ONCE(record->status));
		value = le64_to_cpu(READ_ONCE(record->value));
		/* its place is free for the next before its tag is */
		ioq_pop(ioq, IOQ_INUSE);
		vblk_answer(queue, tag, status, value);
	}
	if (n)
		ioq_signal(ioq);	/* rings only if south has a back-log */
}

/**
 * vblk_take - take the answers that are there
 * @queue: by this queue
 */
void vblk_take(struct vblk_queue *queue)
{
	unsigned long flags;

	spin_lock_irqsave(&queue->lock, flags);
	if (!READ_ONCE(queue->vblk->dead))
		vblk_take_ring(queue);
	spin_unlock_irqrestore(&queue->lock, flags);
}

/**
 * vblk_notify - the host has answered; interrupt context
 * @priv: the queue
 */
void vblk_notify(void *priv)
{
	struct vblk_queue *queue = priv;
	struct vblk *vblk = queue->vblk;
	struct ioq *ioq = queue->completions;
	unsigned long flags;
	u32 strays, liars;

	spin_lock_irqsave(&queue->lock, flags);
	strays = queue->strays;
	liars = queue->liars;
	while (!READ_ONCE(vblk->dead)) {
		ioq_disable(ioq);
		vblk_take_ring(queue);
		if (!ioq_enable(ioq) ||
		    !ioq_ours(ioq, ioq->pos[IOQ_INUSE].head))
			break;
	}
	strays = queue->strays - strays;
	liars = queue->liars - liars;
	spin_unlock_irqrestore(&queue->lock, flags);

	/* not under the lock: what is printed may end up on this disk */
	if (unlikely(strays || liars))
		dev_warn_ratelimited(&vblk->vdev->dev,
				     "%u answers to nothing, %u that cannot be right\n",
				     strays, liars);
}

static void vblk_fail_queue(struct vblk_queue *queue)
{
	unsigned long flags;
	u32 tag;

	if (!queue->outstanding)
		return;
	for (tag = 0; tag < queue->vblk->caps.depth; tag++) {
		struct request *rq;

		spin_lock_irqsave(&queue->lock, flags);
		rq = queue->outstanding[tag];
		queue->outstanding[tag] = NULL;
		spin_unlock_irqrestore(&queue->lock, flags);
		if (!rq)
			continue;
		((struct vblk_cmd *)blk_mq_rq_to_pdu(rq))->status = BLK_STS_IOERR;
		blk_mq_complete_request(rq);
	}
}

/**
 * vblk_fail_outstanding - end all requests that the host had
 * @vblk: the disk, dead, its device closed
 */
void vblk_fail_outstanding(struct vblk *vblk)
{
	u32 i;

	for (i = 0; i < vblk->count; i++)
		vblk_fail_queue(&vblk->queues[i]);
}
