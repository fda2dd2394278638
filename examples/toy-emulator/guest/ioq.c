#include "ioq.h"

#include "machine.h"

void ioq_init(struct ioq *q, void *memory, uint32_t count, void (*bell)(struct ioq *))
{
	memset(memory, 0, IOQ_BYTES(count));
	memset(q, 0, sizeof(*q));
	q->ring = memory;
	q->count = count;
	q->bell = bell;
	q->ring->magic = 0x47fa2fe4;
	q->ring->ver = 4;
	q->ring->signal.magic = 0x58fa39df;
	q->ring->signal.ver = 1;
	q->ring->count = count;
}

static uint32_t after(const struct ioq *q, uint32_t position)
{
	return position + 1 == q->count ? 0 : position + 1;
}

static void advance_tail(struct ioq *q, int index)
{
	struct ioq_index *shared = &q->ring->index[index];
	uint32_t next = after(q, q->tail[index]);

	if (next == shared->head)
		shared->full = 1;
	shared->tail = q->tail[index] = next;
}

void ioq_push(struct ioq *q, int index, int both)
{
	struct ioq_desc *desc = ioq_at(q, q->tail[index]);

	advance_tail(q, index);
	if (both)
		advance_tail(q, INUSE);
	fence(); /* Q1, Q2: everything else before the owner */
	desc->sown = SOUTH;
}

void ioq_pop(struct ioq *q, int index, int keep)
{
	struct ioq_index *shared = &q->ring->index[index];
	struct ioq_desc *desc = ioq_at(q, q->head[index]);

	shared->head = q->head[index] = after(q, q->head[index]);
	fence(); /* Q4 */
	if (shared->full)
		shared->full = 0;
	fence(); /* Q3: the loads from the descriptor before the owner */
	if (!keep)
		desc->sown = SOUTH;
}

void ioq_signal(struct ioq *q)
{
	struct shm_signal *signal = &q->ring->signal;

	fence(); /* Q6 */
	signal->irq[SOUTH].dirty = 1;
	fence(); /* O2 */
	if (!signal->irq[SOUTH].enabled || signal->irq[SOUTH].pending)
		return;
	signal->irq[SOUTH].pending = 1;
	fence(); /* O3 */
	q->rung++;
	q->bell(q);
}

int ioq_enable(struct ioq *q)
{
	struct shm_signal *signal = &q->ring->signal;

	signal->irq[NORTH].enabled = 1;
	fence(); /* O5 */
	return signal->irq[NORTH].dirty || signal->irq[NORTH].pending;
}

void ioq_wakeup(struct ioq *q, void (*notify)(void))
{
	struct shm_signal *signal = &q->ring->signal;

	while (signal->irq[NORTH].enabled && (signal->irq[NORTH].dirty || signal->irq[NORTH].pending)) {
		do {
			signal->irq[NORTH].dirty = 0;
			fence(); /* O4 */
			notify();
			fence();
		} while (signal->irq[NORTH].enabled && signal->irq[NORTH].dirty);
		signal->irq[NORTH].pending = 0;
		fence(); /* O6 */
	}
}
