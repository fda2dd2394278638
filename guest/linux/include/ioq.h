/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * IOQ: a ring of descriptors in shared memory, seen from north. docs/abi/ioq.md.
 *
 * The owner byte of a descriptor, "sown", is the only authority on who may touch
 * it. The shared indexes are bookkeeping: we keep private copies of the ends we
 * move and never read those back; south's ends are read nowhere.
 *
 *	"valid"  (we move both ends):  descriptors in service
 *	"inuse"  (producer: tail, consumer: head): descriptors with payload
 */
#ifndef _VBUS_IOQ_H
#define _VBUS_IOQ_H

#include <linux/build_bug.h>
#include <linux/types.h>
#include <asm/barrier.h>

#include "shm_signal.h"

#define IOQ_RING_MAGIC		0x47fa2fe4
#define IOQ_RING_VER		4
#define IOQ_SIGNAL_OFFSET	8
#define IOQ_COUNT_MAX		2048

/* Extension word of the header, docs/abi/extensions.md section 1. */
#define IOQ_EXT_LAZY_INDEXES	0x00000001
#define IOQ_EXT_ACCEPTED	0x80000000

enum ioq_index {
	IOQ_VALID,
	IOQ_INUSE,
};

struct ioq_ring_desc {
	__u64 cookie;
	__le64 ptr;
	__le64 len;
	__u8 valid;
	__u8 sown;
	__u8 pad[6];
};
static_assert(sizeof(struct ioq_ring_desc) == 32);

struct ioq_ring_idx {
	__le32 head;
	__le32 tail;
	__u8 full;
	__u8 pad[3];
};
static_assert(sizeof(struct ioq_ring_idx) == 12);

struct ioq_ring_head {
	__le32 magic;
	__le32 ver;
	struct shm_signal_desc signal;
	struct ioq_ring_idx idx[2];
	__le32 count;
	__le32 ext;
	struct ioq_ring_desc ring[];
};
static_assert(offsetof(struct ioq_ring_head, signal) == IOQ_SIGNAL_OFFSET);
static_assert(offsetof(struct ioq_ring_head, idx) == 24);
static_assert(offsetof(struct ioq_ring_head, count) == 48);
static_assert(offsetof(struct ioq_ring_head, ring) == 56);

/**
 * struct ioq - north's half of a ring
 * @ring: the shared segment
 * @signal: its signal; set by whoever announced the segment
 * @count: number of descriptors
 * @offer: extension bits offered to south
 * @produces: the tail of "inuse" is ours, and its head south's; else the reverse
 * @lazy: LAZY_INDEXES was negotiated
 * @in_service: descriptors between head and tail of "valid"
 * @pos: private head and tail of each index, as far as they are ours
 *
 * Not locked: each index is moved by one context at a time.
 */
struct ioq {
	struct ioq_ring_head *ring;
	struct shm_signal *signal;
	u32 count;
	u32 offer;
	bool produces;
	bool lazy;
	u32 in_service;
	struct {
		u32 head;
		u32 tail;
	} pos[2];
};

struct ioq *ioq_alloc(u32 count, bool produces, u32 offer);
int ioq_negotiated(struct ioq *ioq);
void ioq_free(struct ioq *ioq);

void ioq_push(struct ioq *ioq, enum ioq_index index);
void ioq_push_both(struct ioq *ioq);
void ioq_pop(struct ioq *ioq, enum ioq_index index);
void ioq_retire(struct ioq *ioq);

void ioq_signal(struct ioq *ioq);
bool ioq_enable(struct ioq *ioq);

/**
 * ioq_size - length of the segment in bytes
 * @count: number of descriptors
 */
static inline size_t ioq_size(u32 count)
{
	return sizeof(struct ioq_ring_head) + count * sizeof(struct ioq_ring_desc);
}

/**
 * ioq_ours - do we own the descriptor at a position?
 * @ioq: the ring
 * @at: the position
 *
 * Loads that follow see what south stored before it gave the descriptor away (Q5).
 */
static inline bool ioq_ours(const struct ioq *ioq, u32 at)
{
	return virt_load_acquire(&ioq->ring->ring[at].sown) == SHM_LOCALE_NORTH;
}

/**
 * ioq_disable - do not notify us
 * @ioq: the ring
 */
static inline void ioq_disable(struct ioq *ioq)
{
	shm_signal_disable(ioq->signal);
}

#endif /* _VBUS_IOQ_H */
