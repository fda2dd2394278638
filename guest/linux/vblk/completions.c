// SPDX-License-Identifier: GPL-2.0-only
/*
 * Answers of the host, and its events. It may say anything: what we gave out is
 * known from our own table, never from what comes back.
 */
#include "vblk.h"

static blk_status_t vblk_status(struct vblk *vblk, s32 status, u64 value,
				const struct vblk_cmd *cmd)
{
	switch (status) {
	case 0:
		if (value == cmd->value)
			return BLK_STS_OK;
		vblk->liars++;	/* done, but not all of it */
		return BLK_STS_IOERR;
	case -EOPNOTSUPP:
		return BLK_STS_NOTSUPP;
	case -ENOSPC:
		return BLK_STS_NOSPC;
	default:
		return BLK_STS_IOERR;
	}
}

static void vblk_event(struct vblk *vblk, u32 number, u64 value)
{
	/* what is not known may be ignored */
	if (number != VBLK_EVENT_RESIZE)
		return;
	if (value > VBLK_CAPACITY_MAX) {
		vblk->liars++;
		return;
	}
	vblk->capacity = value;
	if (vblk->added)
		schedule_work(&vblk->resize_work);
}

static void vblk_answer(struct vblk *vblk, u32 tag, u32 status, u64 value)
{
	struct vblk_cmd *cmd;
	struct request *rq;

	if (tag == VBLK_TAG_EVENT) {
		vblk_event(vblk, status, value);
		return;
	}
	rq = tag < vblk->caps.depth ? vblk->outstanding[tag] : NULL;
	if (!rq) {
		vblk->strays++;
		return;
	}
	vblk->outstanding[tag] = NULL;
	cmd = blk_mq_rq_to_pdu(rq);
	cmd->status = vblk_status(vblk, status, value, cmd);
	blk_mq_complete_request(rq);
}

/* Takes the answers that are there, a ring full at most. Under the lock. */
static void vblk_take_ring(struct vblk *vblk)
{
	struct ioq *ioq = vblk->completions;
	u32 n;

	for (n = 0; n < ioq->count; n++) {
		u32 at = ioq->pos[IOQ_INUSE].head;
		struct vblk_completion *record = &vblk->records[at];
		u32 tag, status;
		u64 value;

		if (!ioq_ours(ioq, at))
			break;
		tag = le32_to_cpu(READ_ONCE(record->tag));
		status = le32_to_cpu(READ_ONCE(record->status));
		value = le64_to_cpu(READ_ONCE(record->value));
		/* its place is free for the next before its tag is */
		ioq_pop(ioq, IOQ_INUSE);
		vblk_answer(vblk, tag, status, value);
	}
	if (n)
		ioq_signal(ioq);	/* rings only if south has a back-log */
}

/**
 * vblk_take - take the answers that are there
 * @vblk: the disk
 */
void vblk_take(struct vblk *vblk)
{
	unsigned long flags;

	spin_lock_irqsave(&vblk->lock, flags);
	if (!vblk->dead)
		vblk_take_ring(vblk);
	spin_unlock_irqrestore(&vblk->lock, flags);
}

/**
 * vblk_notify - the host has answered; interrupt context
 * @priv: the disk
 */
void vblk_notify(void *priv)
{
	struct vblk *vblk = priv;
	struct ioq *ioq = vblk->completions;
	unsigned long flags;
	u32 strays, liars;

	spin_lock_irqsave(&vblk->lock, flags);
	strays = vblk->strays;
	liars = vblk->liars;
	while (!vblk->dead) {
		ioq_disable(ioq);
		vblk_take_ring(vblk);
		if (!ioq_enable(ioq) ||
		    !ioq_ours(ioq, ioq->pos[IOQ_INUSE].head))
			break;
	}
	strays = vblk->strays - strays;
	liars = vblk->liars - liars;
	spin_unlock_irqrestore(&vblk->lock, flags);

	/* not under the lock: what is printed may end up on this disk */
	if (unlikely(strays || liars))
		dev_warn_ratelimited(&vblk->vdev->dev,
				     "%u answers to nothing, %u that cannot be right\n",
				     strays, liars);
}

/**
 * vblk_fail_outstanding - end all requests that the host had
 * @vblk: the disk, dead, its device closed
 */
void vblk_fail_outstanding(struct vblk *vblk)
{
	unsigned long flags;
	u32 tag;

	if (!vblk->outstanding)
		return;
	for (tag = 0; tag < vblk->caps.depth; tag++) {
		struct request *rq;

		spin_lock_irqsave(&vblk->lock, flags);
		rq = vblk->outstanding[tag];
		vblk->outstanding[tag] = NULL;
		spin_unlock_irqrestore(&vblk->lock, flags);
		if (!rq)
			continue;
		((struct vblk_cmd *)blk_mq_rq_to_pdu(rq))->status = BLK_STS_IOERR;
		blk_mq_complete_request(rq);
	}
}
