// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bytes from the guest. They lie in one buffer, in order; descriptors point into
 * it, and the host is through with them in that order, too.
 */
#include <linux/gfp.h>
#include <linux/io.h>

#include "vconsole.h"

static u32 vconsole_tx_room(const struct vconsole_tx *tx)
{
	return VCONSOLE_TX_SIZE - (tx->put - tx->freed);
}

/* The host is through with more; interrupt context. */
static void vconsole_tx_notify(void *priv)
{
	struct vconsole *con = priv;
	struct vconsole_tx *tx = &con->tx;
	unsigned long flags;
	bool room = false;
	u32 tries;

	spin_lock_irqsave(&con->lock, flags);
	if (!con->dead) {
		ioq_disable(tx->ioq);
		vconsole_tx_pump(con);
		room = vconsole_tx_room(tx);
	}
	tries = tx->tries;
	spin_unlock_irqrestore(&con->lock, flags);

	vconsole_tty_poll(con);	/* hvc tries again, if it has kept anything */

	spin_lock_irqsave(&con->lock, flags);
	if (room && tx->tries == tries) {
		tx->refused = false;
		con->tail = false;
	}
	vconsole_line_changed(con);
	spin_unlock_irqrestore(&con->lock, flags);
}

/**
 * vconsole_tx_create - make the transmit ring
 * @con: the console, its device open
 *
 * Return: 0 or a negative errno; vconsole_tx_destroy() after the session's end.
 */
int vconsole_tx_create(struct vconsole *con)
{
	struct vconsole_tx *tx = &con->tx;
	struct ioq *ioq;

	tx->buf = alloc_pages_exact(VCONSOLE_TX_SIZE, GFP_KERNEL | __GFP_ZERO);
	if (!tx->buf)
		return -ENOMEM;
	ioq = vbus_ioq_create(con->vdev, VCONSOLE_QUEUE_TX, VCONSOLE_TX_COUNT,
			      true, 0);
	if (IS_ERR(ioq))
		return PTR_ERR(ioq);
	tx->ioq = ioq;
	shm_signal_listen(ioq->signal, vconsole_tx_notify, con);
	return 0;
}

/**
 * vconsole_tx_destroy - free the ring and what is in it
 * @con: the console, its device closed
 */
void vconsole_tx_destroy(struct vconsole *con)
{
	struct vconsole_tx *tx = &con->tx;

	vbus_ioq_destroy(tx->ioq);
	if (tx->buf)
		free_pages_exact(tx->buf, VCONSOLE_TX_SIZE);
	tx->ioq = NULL;
	tx->buf = NULL;
}

static void vconsole_tx_reclaim(struct vconsole_tx *tx)
{
	struct ioq *ioq = tx->ioq;

	while (ioq->in_service) {
		u32 at = ioq->pos[IOQ_VALID].head;

		if (!ioq_ours(ioq, at))
			break;
		tx->freed += tx->lens[at];
		ioq->ring->ring[at].valid = 0;
		ioq_retire(ioq);
	}
}

/* Gives the host what it may have. True: some of it went. */
static bool vconsole_tx_push(struct vconsole_tx *tx)
{
	struct ioq *ioq = tx->ioq;
	bool any = false;

	while (tx->up && vconsole_tx_unsent(tx) && ioq->in_service < ioq->count) {
		u32 at = ioq->pos[IOQ_INUSE].tail;
		u32 start = tx->pushed & (VCONSOLE_TX_SIZE - 1);
		struct ioq_ring_desc *desc = &ioq->ring->ring[at];
		u32 len = min3(vconsole_tx_unsent(tx),
			       (u32)VCONSOLE_TX_SIZE - start,
			       (u32)VCONSOLE_TX_CHUNK);

		desc->cookie = at;
		desc->ptr = cpu_to_le64(virt_to_phys(tx->buf + start));
		desc->len = cpu_to_le64(len);
		desc->valid = 1;
		tx->lens[at] = len;
		tx->pushed += len;
		ioq_push_both(ioq);
		any = true;
	}
	return any;
}

/**
 * vconsole_tx_pump - let bytes flow as far as they can
 * @con: the console, under its lock, not dead
 *
 * Asks to be notified while somebody waits for room.
 */
void vconsole_tx_pump(struct vconsole *con)
{
	struct vconsole_tx *tx = &con->tx;

	do {
		vconsole_tx_reclaim(tx);
		if (vconsole_tx_push(tx))
			ioq_signal(tx->ioq);
	} while (tx->ioq->in_service &&
		 (tx->refused || vconsole_tx_unsent(tx)) &&
		 ioq_enable(tx->ioq));
}

/**
 * vconsole_tx_put - take bytes, as many as there is room for
 * @con: the console, under its lock, not dead
 * @buf: the bytes
 * @count: how many
 *
 * Return: how many were taken, possibly none.
 */
u32 vconsole_tx_put(struct vconsole *con, const u8 *buf, u32 count)
{
	struct vconsole_tx *tx = &con->tx;
	u32 start = tx->put & (VCONSOLE_TX_SIZE - 1);
	u32 n, first;

	vconsole_tx_reclaim(tx);
	n = min(count, vconsole_tx_room(tx));
	first = min_t(u32, n, VCONSOLE_TX_SIZE - start);
	memcpy(tx->buf + start, buf, first);
	memcpy(tx->buf, buf + first, n - first);
	tx->put += n;
	tx->tries++;
	tx->refused = n < count;
	vconsole_tx_pump(con);
	return n;
}

/**
 * vconsole_tx_drop - forget what was not given to the host
 * @con: the console, under its lock: its conversation is over
 */
void vconsole_tx_drop(struct vconsole *con)
{
	con->tx.put = con->tx.pushed;
	con->tx.refused = false;
}
