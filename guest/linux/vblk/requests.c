// SPDX-License-Identifier: GPL-2.0-only
/*
 * Requests on their way to the host. A record lies beside the request it describes;
 * the ring only announces it. South is signalled once per burst, and only if it is
 * not busy anyway.
 */
#include <linux/io.h>

#include "vblk.h"

static int vblk_op(const struct request *rq)
{
	switch (req_op(rq)) {
	case REQ_OP_READ:
		return VBLK_OP_READ;
	case REQ_OP_WRITE:
		return VBLK_OP_WRITE;
	case REQ_OP_FLUSH:
		return VBLK_OP_FLUSH;
	case REQ_OP_DISCARD:
		return VBLK_OP_DISCARD;
	case REQ_OP_WRITE_ZEROES:
		return VBLK_OP_WRITE_ZEROES;
	case REQ_OP_DRV_IN:
		return VBLK_OP_GET_ID;
	default:
		return -EOPNOTSUPP;
	}
}

/* Describes where a request's data lies. Returns the number of pieces. */
static int vblk_map(const struct vblk *vblk, struct request *rq,
		    struct vblk_cmd *cmd)
{
	struct scatterlist *sg = vblk_sg(vblk, cmd);
	struct scatterlist *entry;
	int count, i;

	/* within what the queue's limits say, so there is room */
	count = blk_rq_map_sg(rq->q, rq, sg);
	for_each_sg(sg, entry, count, i) {
		struct vblk_piece *piece = &cmd->record.piece[i];

		piece->len = cpu_to_le32(entry->length);
		piece->pad = 0;
		piece->ptr = cpu_to_le64(sg_phys(entry));
	}
	return count;
}

static blk_status_t vblk_describe(const struct vblk *vblk, struct request *rq,
				  struct vblk_cmd *cmd)
{
	struct vblk_record *record = &cmd->record;
	u64 sector = blk_rq_pos(rq);
	u32 length = blk_rq_bytes(rq);
	u32 flags = 0;
	int count = 0;
	int op = vblk_op(rq);

	switch (op) {
	case VBLK_OP_READ:
	case VBLK_OP_WRITE:
		count = vblk_map(vblk, rq, cmd);
		break;
	case VBLK_OP_GET_ID:
		count = vblk_map(vblk, rq, cmd);
		sector = 0;
		break;
	case VBLK_OP_FLUSH:
		sector = 0;
		length = 0;
		break;
	case VBLK_OP_DISCARD:
	case VBLK_OP_WRITE_ZEROES:
		break;
	default:
		return BLK_STS_NOTSUPP;
	}
	if (rq->cmd_flags & REQ_FUA &&
	    (op == VBLK_OP_WRITE || op == VBLK_OP_WRITE_ZEROES))
		flags |= VBLK_FLAG_FUA;
	cmd->status = BLK_STS_IOERR;
	cmd->value = length;
	record->tag = cpu_to_le32(rq->tag);
	record->op = cpu_to_le32(op);
	record->flags = cpu_to_le32(flags);
	record->count = cpu_to_le32(count);
	record->sector = cpu_to_le64(sector);
	record->length = cpu_to_le64(length);
	return BLK_STS_OK;
}

static struct vblk_queue *vblk_queue_of(const struct blk_mq_hw_ctx *hctx)
{
	struct vblk *vblk = hctx->queue->queuedata;

	return &vblk->queues[hctx->queue_num];
}

/* Signals the host, under the queue's lock. */
static void vblk_kick(struct vblk_queue *queue)
{
	if (!READ_ONCE(queue->vblk->dead))
		ioq_signal(queue->requests);
}

static blk_status_t vblk_queue_rq(struct blk_mq_hw_ctx *hctx,
				  const struct blk_mq_queue_data *bd)
{
	struct vblk_queue *queue = vblk_queue_of(hctx);
	struct vblk *vblk = queue->vblk;
	struct request *rq = bd->rq;
	struct vblk_cmd *cmd = blk_mq_rq_to_pdu(rq);
	struct ioq_ring_desc *desc;
	blk_status_t status;
	unsigned long flags;
	struct ioq *ioq;
	u32 at;

	status = vblk_describe(vblk, rq, cmd);
	if (status)
		return status;
	blk_mq_start_request(rq);

	spin_lock_irqsave(&queue->lock, flags);
	if (unlikely(READ_ONCE(vblk->dead))) {
		status = BLK_STS_IOERR;
		goto out;
	}
	ioq = queue->requests;
	at = ioq->pos[IOQ_INUSE].tail;
	if (unlikely(!ioq_ours(ioq, at))) {
		/* it answers requests, and keeps what announced them: try again */
		status = BLK_STS_RESOURCE;
		vblk_kick(queue);
		goto out;
	}
	desc = &ioq->ring->ring[at];
	desc->cookie = rq->tag;
	desc->ptr = cpu_to_le64(virt_to_phys(&cmd->record));
	desc->len = cpu_to_le64(struct_size(&cmd->record, piece,
					    le32_to_cpu(cmd->record.count)));
	queue->outstanding[rq->tag] = rq;
	ioq_push(ioq, IOQ_INUSE);
	if (bd->last)
		vblk_kick(queue);
out:
	spin_unlock_irqrestore(&queue->lock, flags);
	return status;
}

/* A burst has ended earlier than the block layer had said. */
static void vblk_commit_rqs(struct blk_mq_hw_ctx *hctx)
{
	struct vblk_queue *queue = vblk_queue_of(hctx);
	unsigned long flags;

	spin_lock_irqsave(&queue->lock, flags);
	vblk_kick(queue);
	spin_unlock_irqrestore(&queue->lock, flags);
}

static void vblk_complete(struct request *rq)
{
	struct vblk_cmd *cmd = blk_mq_rq_to_pdu(rq);

	blk_mq_end_request(rq, cmd->status);
}

/*
 * Only the host knows whether it is still at it, and it may write to the memory of
 * a read until the device is closed: we go on waiting, unless it is gone. Either of
 * us may have missed the other, so signals it, and looks ourselves.
 */
static enum blk_eh_timer_return vblk_timeout(struct request *rq)
{
	struct vblk_queue *queue = vblk_queue_of(rq->mq_hctx);
	struct vblk *vblk = queue->vblk;
	unsigned long flags;
	bool waiting;

	dev_warn_ratelimited(&vblk->vdev->dev,
			     "no answer to request %d of %s\n", rq->tag,
			     vblk->disk->disk_name);
	vblk_take(queue);
	spin_lock_irqsave(&queue->lock, flags);
	vblk_kick(queue);
	waiting = queue->outstanding[rq->tag] == rq;
	spin_unlock_irqrestore(&queue->lock, flags);
	if (waiting)
		schedule_work(&vblk->dead_work);	/* asks whether it is there */
	return waiting ? BLK_EH_RESET_TIMER : BLK_EH_DONE;
}

static int vblk_init_request(struct blk_mq_tag_set *set, struct request *rq,
			     unsigned int hctx, unsigned int node)
{
	struct vblk *vblk = set->driver_data;

	sg_init_table(vblk_sg(vblk, blk_mq_rq_to_pdu(rq)),
		      vblk->caps.max_pieces);
	return 0;
}

/*
 * The first queues are for all, or for all but reads if others are for those. (A
 * kernel that saves memory may have made one queue of them.)
 */
static void vblk_map_queues(struct blk_mq_tag_set *set)
{
	struct vblk *vblk = set->driver_data;
	u32 readers = set->nr_maps > HCTX_TYPE_READ ? vblk->readers : 0;
	struct blk_mq_queue_map *map = &set->map[HCTX_TYPE_DEFAULT];

	map->queue_offset = 0;
	map->nr_queues = set->nr_hw_queues - readers;
	blk_mq_map_queues(map);
	if (!readers)
		return;
	map = &set->map[HCTX_TYPE_READ];
	map->queue_offset = set->nr_hw_queues - readers;
	map->nr_queues = readers;
	blk_mq_map_queues(map);
}

const struct blk_mq_ops vblk_mq_ops = {
	.queue_rq = vblk_queue_rq,
	.commit_rqs = vblk_commit_rqs,
	.complete = vblk_complete,
	.timeout = vblk_timeout,
	.init_request = vblk_init_request,
	.map_queues = vblk_map_queues,
};
