// SPDX-License-Identifier: GPL-2.0-only
/*
 * IOQ, north's half. Q1 to Q7 are the orderings of docs/abi/ioq.md section 7.
 */
#include <linux/export.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "ioq.h"

/**
 * ioq_alloc - allocate a ring, all descriptors ours and out of service
 * @count: number of descriptors, 1 to IOQ_COUNT_MAX
 * @produces: true if we fill the descriptors, false if south does
 * @offer: extension bits to offer to south, 0 for none
 *
 * Return: the ring, without a signal, or NULL. Sleeps.
 */
struct ioq *ioq_alloc(u32 count, bool produces, u32 offer)
{
	struct ioq *ioq;

	if (!count || count > IOQ_COUNT_MAX || (offer & ~IOQ_EXT_LAZY_INDEXES))
		return NULL;
	ioq = kzalloc(sizeof(*ioq), GFP_KERNEL);
	if (!ioq)
		return NULL;
	ioq->ring = alloc_pages_exact(ioq_size(count), GFP_KERNEL | __GFP_ZERO);
	if (!ioq->ring) {
		kfree(ioq);
		return NULL;
	}
	ioq->count = count;
	ioq->produces = produces;
	ioq->offer = offer;
	ioq->ring->magic = cpu_to_le32(IOQ_RING_MAGIC);
	ioq->ring->ver = cpu_to_le32(IOQ_RING_VER);
	ioq->ring->count = cpu_to_le32(count);
	ioq->ring->ext = cpu_to_le32(offer);
	shm_signal_desc_init(&ioq->ring->signal);
	return ioq;
}
EXPORT_SYMBOL_GPL(ioq_alloc);

/**
 * ioq_negotiated - read which of the offered extensions south has accepted
 * @ioq: the ring, just announced successfully
 *
 * Return: 0, or -EPROTO if south accepted what was not offered.
 */
int ioq_negotiated(struct ioq *ioq)
{
	u32 ext = le32_to_cpu(READ_ONCE(ioq->ring->ext));

	if (!(ext & IOQ_EXT_ACCEPTED))
		return 0;
	ext &= ~IOQ_EXT_ACCEPTED;
	if (ext & ~ioq->offer)
		return -EPROTO;
	ioq->lazy = ext & IOQ_EXT_LAZY_INDEXES;
	return 0;
}
EXPORT_SYMBOL_GPL(ioq_negotiated);

/**
 * ioq_free - free a ring that south has let go of
 * @ioq: the ring or NULL; its signal belongs to whoever announced it
 */
void ioq_free(struct ioq *ioq)
{
	if (!ioq)
		return;
	free_pages_exact(ioq->ring, ioq_size(ioq->count));
	kfree(ioq);
}
EXPORT_SYMBOL_GPL(ioq_free);

static u32 ioq_next(const struct ioq *ioq, u32 at)
{
	return at + 1 == ioq->count ? 0 : at + 1;
}

/* The new tail, and "full" before it (Q2). */
static void ioq_advance_tail(struct ioq *ioq, enum ioq_index index)
{
	struct ioq_ring_idx *idx = &ioq->ring->idx[index];
	u32 tail = ioq_next(ioq, ioq->pos[index].tail);

	ioq->pos[index].tail = tail;
	if (ioq->lazy)
		return;
	/* south's head may be old, never too new: "full" also needs head == tail */
	if (tail == le32_to_cpu(READ_ONCE(idx->head))) {
		WRITE_ONCE(idx->full, 1);
		virt_wmb();	/* Q2: "full" before the tail */
	}
	WRITE_ONCE(idx->tail, cpu_to_le32(tail));
}

/* The new head, and the end of "full" after it (Q4). */
static void ioq_advance_head(struct ioq *ioq, enum ioq_index index)
{
	struct ioq_ring_idx *idx = &ioq->ring->idx[index];
	u32 head = ioq_next(ioq, ioq->pos[index].head);

	ioq->pos[index].head = head;
	if (ioq->lazy)
		return;
	WRITE_ONCE(idx->head, cpu_to_le32(head));
	if (READ_ONCE(idx->full)) {
		virt_wmb();	/* Q4: the head before "full" */
		WRITE_ONCE(idx->full, 0);
	}
}

static void ioq_give(struct ioq *ioq, u32 at)
{
	/* Q1, Q3: all we did to the descriptor and its payload comes before */
	virt_store_release(&ioq->ring->ring[at].sown, SHM_LOCALE_SOUTH);
}

/**
 * ioq_push - give south the descriptor at the tail of an index
 * @ioq: the ring; that descriptor is ours
 * @index: which index
 */
void ioq_push(struct ioq *ioq, enum ioq_index index)
{
	u32 at = ioq->pos[index].tail;

	if (index == IOQ_VALID)
		ioq->in_service++;
	ioq_advance_tail(ioq, index);
	ioq_give(ioq, at);
}
EXPORT_SYMBOL_GPL(ioq_push);

/**
 * ioq_push_both - give south the descriptor at the tail of both indexes
 * @ioq: the ring; that descriptor is ours
 *
 * For rings where we produce and reclaim; their tails never differ.
 */
void ioq_push_both(struct ioq *ioq)
{
	u32 at = ioq->pos[IOQ_INUSE].tail;

	ioq->in_service++;
	ioq_advance_tail(ioq, IOQ_VALID);
	ioq_advance_tail(ioq, IOQ_INUSE);
	ioq_give(ioq, at);
}
EXPORT_SYMBOL_GPL(ioq_push_both);

/**
 * ioq_pop - give back to south the descriptor at the head of an index
 * @ioq: the ring; that descriptor is ours, and we are done with it
 * @index: which index
 */
void ioq_pop(struct ioq *ioq, enum ioq_index index)
{
	u32 at = ioq->pos[index].head;

	ioq_advance_head(ioq, index);
	ioq_give(ioq, at);
}
EXPORT_SYMBOL_GPL(ioq_pop);

/**
 * ioq_retire - take the descriptor at the head of "valid" out of service
 * @ioq: the ring; that descriptor is ours, and stays so (NOFLIPOWNER)
 */
void ioq_retire(struct ioq *ioq)
{
	ioq->in_service--;
	ioq_advance_head(ioq, IOQ_VALID);
}
EXPORT_SYMBOL_GPL(ioq_retire);

/**
 * ioq_signal - tell south that descriptors were given away (Q6)
 * @ioq: the ring
 */
void ioq_signal(struct ioq *ioq)
{
	if (ioq->lazy)
		shm_signal_inject_lazy(ioq->signal);
	else
		shm_signal_inject(ioq->signal);
}
EXPORT_SYMBOL_GPL(ioq_signal);

/* Whoever looks at an idle ring sees true positions. */
static void ioq_sync(struct ioq *ioq)
{
	struct ioq_ring_idx *valid = &ioq->ring->idx[IOQ_VALID];
	struct ioq_ring_idx *inuse = &ioq->ring->idx[IOQ_INUSE];

	WRITE_ONCE(valid->head, cpu_to_le32(ioq->pos[IOQ_VALID].head));
	WRITE_ONCE(valid->tail, cpu_to_le32(ioq->pos[IOQ_VALID].tail));
	WRITE_ONCE(valid->full, ioq->in_service == ioq->count);
	if (ioq->produces)
		WRITE_ONCE(inuse->tail, cpu_to_le32(ioq->pos[IOQ_INUSE].tail));
	else
		WRITE_ONCE(inuse->head, cpu_to_le32(ioq->pos[IOQ_INUSE].head));
}

/**
 * ioq_enable - ask south to notify us again
 * @ioq: the ring
 *
 * Return: true if something may have happened meanwhile: look at the ring again
 * (Q7).
 */
bool ioq_enable(struct ioq *ioq)
{
	if (ioq->lazy)
		ioq_sync(ioq);
	return shm_signal_enable(ioq->signal);
}
EXPORT_SYMBOL_GPL(ioq_enable);
