// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bytes for the guest, and the events among them. An event that belongs at a place
 * in the stream is there before any byte behind it (docs/abi/vconsole.md section
 * 6): whoever looks first at what bytes there are, then takes the events, then the
 * bytes, sees all in order.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/tty_flip.h>

#include "vconsole.h"

/* Takes events as far as there is room for marks. */
static void vconsole_events_take(struct vconsole *con)
{
	struct vconsole_events *events = &con->events;
	struct ioq *ioq = events->ioq;
	bool any = false;
	u32 n;

	for (n = 0; n < ioq->count && events->count < ARRAY_SIZE(events->marks);
	     n++) {
		u32 at = ioq->pos[IOQ_INUSE].head;
		struct vconsole_event *event = &events->records[at];
		struct vconsole_mark mark;

		if (!ioq_ours(ioq, at))
			break;
		mark.id = le32_to_cpu(READ_ONCE(event->id));
		mark.conversation = le32_to_cpu(READ_ONCE(event->conversation));
		mark.position = le64_to_cpu(READ_ONCE(event->position));
		switch (mark.id) {
		case VCONSOLE_EVENT_WINSIZE:
			con->size.ws_col = le16_to_cpu(READ_ONCE(event->cols));
			con->size.ws_row = le16_to_cpu(READ_ONCE(event->rows));
			con->sizes++;
			con->size_due = true;
			break;
		case VCONSOLE_EVENT_OPENED:
		case VCONSOLE_EVENT_HANGUP:
		case VCONSOLE_EVENT_BREAK:
			events->marks[events->count++] = mark;
			break;
		default:	/* of a later version */
			break;
		}
		ioq_pop(ioq, IOQ_INUSE);
		any = true;
	}
	if (any) {
		ioq_signal(ioq);	/* rings only if south has a back-log */
		vconsole_marks_judge(con);
	}
}

/**
 * vconsole_marks_judge - see what the marks mean, before their places are reached
 * @con: the console, under its lock
 *
 * Those of another conversation are forgotten. Writers may go on as soon as the
 * conversation has begun, and have to stop as soon as it has ended.
 */
void vconsole_marks_judge(struct vconsole *con)
{
	struct vconsole_events *events = &con->events;
	u32 kept = 0;
	u32 i;

	if (con->asking)
		return;
	for (i = 0; i < events->count; i++) {
		const struct vconsole_mark *mark = &events->marks[i];

		if (!con->ready || mark->conversation != con->conversation)
			continue;
		if (mark->id == VCONSOLE_EVENT_OPENED) {
			con->tx.up = true;
		} else if (mark->id == VCONSOLE_EVENT_HANGUP) {
			con->tx.up = false;
			con->hangup_due = true;
		}
		events->marks[kept++] = *mark;
	}
	events->count = kept;
	vconsole_tx_pump(con);
	vconsole_line_changed(con);
}

static struct vconsole_mark *vconsole_mark_first(struct vconsole *con)
{
	return con->events.count ? con->events.marks : NULL;
}

static void vconsole_mark_drop(struct vconsole *con)
{
	struct vconsole_events *events = &con->events;

	events->count--;
	memmove(events->marks, events->marks + 1,
		events->count * sizeof(*events->marks));
}

/* What the line discipline makes of a break is its own affair. */
static void vconsole_break(struct vconsole *con)
{
	if (!con->hp)
		return;
	tty_insert_flip_char(&con->hp->port, 0, TTY_BREAK);
	tty_flip_buffer_push(&con->hp->port);
}

/* The buffer at the head is empty: the host may fill it again. */
static void vconsole_rx_repost(struct vconsole_rx *rx)
{
	struct ioq_ring_desc *desc = &rx->ioq->ring->ring[rx->ioq->pos[IOQ_INUSE].head];

	desc->len = cpu_to_le64(VCONSOLE_RX_SIZE);
	ioq_pop(rx->ioq, IOQ_INUSE);
	rx->given = true;
	rx->len = 0;
	rx->offset = 0;
}

/*
 * Takes bytes from the buffer at the head, which is ours: no more than @count, nor
 * past @limit. Returns how many went to @buf; those of no conversation go nowhere.
 */
static u32 vconsole_rx_copy(struct vconsole_rx *rx, u8 *buf, u32 count, u64 limit)
{
	u32 at = rx->ioq->pos[IOQ_INUSE].head;
	u32 n;

	if (!rx->len) {
		u64 len = le64_to_cpu(READ_ONCE(rx->ioq->ring->ring[at].len));

		/* whatever it says, the buffer is no larger */
		rx->len = min_t(u64, len, VCONSOLE_RX_SIZE);
	}
	n = min_t(u64, min(count, rx->len - rx->offset), limit);
	if (rx->up)
		memcpy(buf, rx->bufs + at * VCONSOLE_RX_SIZE + rx->offset, n);
	rx->offset += n;
	rx->position += n;
	if (rx->offset == rx->len)
		vconsole_rx_repost(rx);
	return rx->up ? n : 0;
}

/* The ring is empty: asks to be notified. True: not any more. */
static bool vconsole_rx_enable(struct vconsole_rx *rx)
{
	return ioq_enable(rx->ioq) &&
	       ioq_ours(rx->ioq, rx->ioq->pos[IOQ_INUSE].head);
}

/**
 * vconsole_rx_take - take bytes for the terminal device
 * @con: the console, under its lock, not dead
 * @buf: where to
 * @count: how many at most
 *
 * Return: how many; 0 if there are none, -EAGAIN if nobody knows, -EPIPE if the
 * terminal has hung up here.
 */
int vconsole_rx_take(struct vconsole *con, u8 *buf, u32 count)
{
	struct vconsole_rx *rx = &con->rx;
	/* a host that goes on and on shall not keep us here */
	u32 turns = 4 * VCONSOLE_RX_COUNT;
	u32 done = 0;

	for (; done < count && turns; turns--) {
		u32 head = rx->ioq->pos[IOQ_INUSE].head;
		bool ours = ioq_ours(rx->ioq, head);
		const struct vconsole_mark *mark;
		u64 limit = U64_MAX;

		vconsole_events_take(con);
		mark = vconsole_mark_first(con);
		if (mark && con->asking)
			break;	/* it will be known whose it is */
		if (mark && mark->position <= rx->position) {
			u32 id = mark->id;

			if (done && id != VCONSOLE_EVENT_OPENED)
				break;	/* what is before it goes first */
			vconsole_mark_drop(con);
			if (id == VCONSOLE_EVENT_OPENED) {
				rx->up = true;
			} else if (id == VCONSOLE_EVENT_BREAK) {
				if (rx->up)
					vconsole_break(con);
			} else {
				vconsole_line_lost(con);
				return -EPIPE;
			}
			continue;
		}
		if (!ours) {
			if (vconsole_rx_enable(rx))
				continue;
			break;
		}
		if (mark)
			limit = mark->position - rx->position;
		done += vconsole_rx_copy(rx, buf + done, count - done, limit);
	}
	if (rx->given)
		ioq_signal(rx->ioq);	/* rings only if south has a back-log */
	rx->given = false;
	return done || turns ? done : -EAGAIN;
}

/* There are bytes; interrupt context. */
static void vconsole_rx_notify(void *priv)
{
	struct vconsole *con = priv;
	unsigned long flags;

	spin_lock_irqsave(&con->lock, flags);
	if (!con->dead)
		ioq_disable(con->rx.ioq);	/* until whoever reads finds no more */
	spin_unlock_irqrestore(&con->lock, flags);
	vconsole_tty_poll(con);
}

/* There are events; interrupt context. */
static void vconsole_events_notify(void *priv)
{
	struct vconsole *con = priv;
	struct ioq *ioq = con->events.ioq;
	unsigned long flags;

	spin_lock_irqsave(&con->lock, flags);
	while (!con->dead) {
		u32 head = ioq->pos[IOQ_INUSE].head;

		vconsole_events_take(con);
		/* those that find no room are taken when marks are reached */
		if (!ioq_enable(ioq) || head == ioq->pos[IOQ_INUSE].head)
			break;
	}
	vconsole_line_changed(con);
	spin_unlock_irqrestore(&con->lock, flags);
	vconsole_tty_poll(con);
}

static struct ioq *vconsole_ring_create(struct vconsole *con, u32 id, u32 count,
					void *bufs, u32 size, shm_signal_fn notify)
{
	struct ioq *ioq;
	u32 i;

	ioq = vbus_ioq_create(con->vdev, id, count, false, 0);
	if (IS_ERR(ioq))
		return ioq;
	for (i = 0; i < count; i++) {
		struct ioq_ring_desc *desc = &ioq->ring->ring[i];

		desc->cookie = i;
		desc->ptr = cpu_to_le64(virt_to_phys(bufs + i * size));
		desc->len = cpu_to_le64(size);
		desc->valid = 1;
		ioq_push(ioq, IOQ_VALID);
	}
	shm_signal_listen(ioq->signal, notify, con);
	return ioq;
}

/**
 * vconsole_rx_create - make the rings for bytes and events, and post their buffers
 * @con: the console, its device open
 *
 * Return: 0 or a negative errno; vconsole_rx_destroy() after the session's end.
 */
int vconsole_rx_create(struct vconsole *con)
{
	struct vconsole_events *events = &con->events;
	struct vconsole_rx *rx = &con->rx;
	struct ioq *ioq;

	rx->bufs = alloc_pages_exact(VCONSOLE_RX_COUNT * VCONSOLE_RX_SIZE,
				     GFP_KERNEL | __GFP_ZERO);
	events->records = alloc_pages_exact(VCONSOLE_EVENT_COUNT *
					    sizeof(*events->records),
					    GFP_KERNEL | __GFP_ZERO);
	if (!rx->bufs || !events->records)
		return -ENOMEM;
	ioq = vconsole_ring_create(con, VCONSOLE_QUEUE_RX, VCONSOLE_RX_COUNT,
				   rx->bufs, VCONSOLE_RX_SIZE,
				   vconsole_rx_notify);
	if (IS_ERR(ioq))
		return PTR_ERR(ioq);
	rx->ioq = ioq;
	ioq = vconsole_ring_create(con, VCONSOLE_QUEUE_EVENTS,
				   VCONSOLE_EVENT_COUNT, events->records,
				   sizeof(*events->records),
				   vconsole_events_notify);
	if (IS_ERR(ioq))
		return PTR_ERR(ioq);
	events->ioq = ioq;
	return 0;
}

/**
 * vconsole_rx_destroy - free the rings and what is in them
 * @con: the console, its device closed
 */
void vconsole_rx_destroy(struct vconsole *con)
{
	struct vconsole_events *events = &con->events;
	struct vconsole_rx *rx = &con->rx;

	vbus_ioq_destroy(rx->ioq);
	vbus_ioq_destroy(events->ioq);
	if (rx->bufs)
		free_pages_exact(rx->bufs, VCONSOLE_RX_COUNT * VCONSOLE_RX_SIZE);
	if (events->records)
		free_pages_exact(events->records, VCONSOLE_EVENT_COUNT *
				 sizeof(*events->records));
	rx->ioq = NULL;
	rx->bufs = NULL;
	events->ioq = NULL;
	events->records = NULL;
}
