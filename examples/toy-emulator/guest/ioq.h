/* IOQ and shm-signal, north's side (docs/abi/ioq.md, docs/abi/shm-signal.md). */
#ifndef IOQ_H
#define IOQ_H

#include <stdint.h>

enum { NORTH = 0, SOUTH = 1 };
enum { VALID = 0, INUSE = 1 };

struct shm_signal {
	uint32_t magic;
	uint32_t ver;
	struct {
		volatile uint8_t enabled;
		volatile uint8_t pending;
		volatile uint8_t dirty;
	} irq[2];
	uint8_t pad[2];
};

struct ioq_index {
	volatile uint32_t head;
	volatile uint32_t tail;
	volatile uint8_t full;
	uint8_t pad[3];
};

struct ioq_desc {
	uint64_t cookie;
	uint64_t ptr;
	uint64_t len;
	volatile uint8_t valid;
	volatile uint8_t sown;
	uint8_t pad[6];
};

struct ioq_ring {
	uint32_t magic;
	uint32_t ver;
	struct shm_signal signal;
	struct ioq_index index[2];
	uint32_t count;
	uint32_t extensions;
	struct ioq_desc desc[];
};

_Static_assert(sizeof(struct shm_signal) == 16, "shm-signal.md section 1");
_Static_assert(sizeof(struct ioq_desc) == 32, "ioq.md section 1.3");
_Static_assert(sizeof(struct ioq_ring) == 56, "ioq.md section 1.2");

#define IOQ_SIGNAL_OFFSET 8
#define IOQ_BYTES(count) (sizeof(struct ioq_ring) + (count) * sizeof(struct ioq_desc))

/* A ring, and what north believes about it: its own positions are never read back from shared memory. */
struct ioq {
	struct ioq_ring *ring;
	uint32_t count;
	uint32_t head[2];
	uint32_t tail[2];
	void (*bell)(struct ioq *);
	uint32_t handle;
	/* Doorbells rung. */
	uint32_t rung;
};

void ioq_init(struct ioq *q, void *memory, uint32_t count, void (*bell)(struct ioq *));

/* The descriptor at one end of an index. */
static inline struct ioq_desc *ioq_at(struct ioq *q, uint32_t position)
{
	return &q->ring->desc[position];
}

/* Push and pop of ioq.md section 5; the caller owns the descriptor. Pop with `keep` is the one that does not flip the owner. */
void ioq_push(struct ioq *q, int index, int both);
void ioq_pop(struct ioq *q, int index, int keep);

/* Tells the host that something changed: rings only if it listens and has not been told yet. */
void ioq_signal(struct ioq *q);

static inline void ioq_disable(struct ioq *q)
{
	q->ring->signal.irq[NORTH].enabled = 0;
}

static inline int ioq_enabled(const struct ioq *q)
{
	return q->ring->signal.irq[NORTH].enabled;
}

/* From now on the host rings. Returns whether something may have happened before: look at the ring again. */
int ioq_enable(struct ioq *q);

/* The host rang: runs `notify` until nothing is new (shm-signal.md section 2.4). */
void ioq_wakeup(struct ioq *q, void (*notify)(void));

#endif
