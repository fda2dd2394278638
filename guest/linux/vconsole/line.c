// SPDX-License-Identifier: GPL-2.0-only
/*
 * The line: conversations begin and end (docs/abi/vconsole.md section 5), and the
 * window's size. One work item does all that has to sleep, and so nothing twice at
 * the same time.
 */
#include <linux/sched.h>

#include "vconsole.h"

/**
 * vconsole_line_changed - have the line's state looked at
 * @con: the console, under its lock
 */
void vconsole_line_changed(struct vconsole *con)
{
	if (!con->dead)
		schedule_work(&con->line_work);
}

/**
 * vconsole_line_lost - the terminal has hung up, and all before that is read
 * @con: the console, under its lock
 *
 * Whoever has the terminal device open is hung up by the caller, and whoever opens
 * it after that raises DTR anew.
 */
void vconsole_line_lost(struct vconsole *con)
{
	con->ready = false;
	con->hangup_due = false;
	con->rx.up = false;
	con->tx.up = false;
	con->dtr = false;
	con->tail = false;
	con->tty_hung = con->tty_open;
	con->events.count = 0;
	vconsole_tx_drop(con);
	vconsole_line_changed(con);
}

/* The host has let go of a ring: nothing goes on here. */
static void vconsole_line_die(struct vconsole *con)
{
	dev_err(&con->vdev->dev, "the host has let go of hvc%d\n", con->hp->index);
	vconsole_session_end(con);
	tty_port_tty_hangup(&con->hp->port, false);
}

/*
 * The terminal has hung up. Readers get what it said before; but one who does not
 * read must not keep it from the others.
 */
static void vconsole_line_hang_up(struct vconsole *con)
{
	bool due, moved;
	u64 before;

	do {
		cond_resched();
		spin_lock_irq(&con->lock);
		before = con->rx.position;
		spin_unlock_irq(&con->lock);
		vconsole_tty_poll(con);
		spin_lock_irq(&con->lock);
		due = con->hangup_due;
		moved = con->rx.position != before;
		spin_unlock_irq(&con->lock);
	} while (due && moved);
	if (!due)
		return;		/* a reader has found it */
	spin_lock_irq(&con->lock);
	if (con->hangup_due)
		vconsole_line_lost(con);
	spin_unlock_irq(&con->lock);
	tty_port_tty_hangup(&con->hp->port, false);
}

/* Asks for the window's size. What an event says meanwhile is newer. */
static void vconsole_line_ask_size(struct vconsole *con)
{
	struct vconsole_winsize size = {};
	u32 sizes = READ_ONCE(con->sizes);
	int ret;

	ret = vbus_call(con->vdev, VCONSOLE_WINSIZE, &size, sizeof(size));
	spin_lock_irq(&con->lock);
	if (ret >= 0 && con->sizes == sizes) {
		con->size.ws_col = le16_to_cpu(size.cols);
		con->size.ws_row = le16_to_cpu(size.rows);
	}
	con->size_due = true;
	spin_unlock_irq(&con->lock);
}

/* Ready for a conversation. A host that refuses has no more for us in this session. */
static void vconsole_line_ready(struct vconsole *con)
{
	int ret;

	spin_lock_irq(&con->lock);
	con->asking = true;	/* events may be earlier than the answer */
	spin_unlock_irq(&con->lock);
	ret = vbus_call(con->vdev, VCONSOLE_READY, NULL, 0);
	spin_lock_irq(&con->lock);
	con->asking = false;
	if (ret > 0) {
		con->ready = true;
		con->conversation = ret;
	}
	if (!con->dead)
		vconsole_marks_judge(con);
	spin_unlock_irq(&con->lock);
	if (ret <= 0) {
		dev_err(&con->vdev->dev, "hvc%d gets no conversation: %d\n",
			con->hp->index, ret);
		WRITE_ONCE(con->gone, true);
		return;
	}
	vconsole_line_ask_size(con);
	vconsole_tty_poll(con);
}

/* Nobody wants the conversation any more, and all has been said. */
static void vconsole_line_end(struct vconsole *con)
{
	int ret;

	spin_lock_irq(&con->lock);
	con->ready = false;
	con->hangup_due = false;
	con->rx.up = false;
	con->tx.up = false;
	con->events.count = 0;
	spin_unlock_irq(&con->lock);
	ret = vbus_call(con->vdev, VCONSOLE_HANGUP, NULL, 0);
	/* the terminal may have been faster */
	if (ret < 0 && ret != -ENOENT)
		WRITE_ONCE(con->gone, true);
}

static void vconsole_line_resize(struct vconsole *con)
{
	unsigned long flags;
	struct winsize size;

	spin_lock_irq(&con->lock);
	con->size_due = false;
	size = con->size;
	spin_unlock_irq(&con->lock);
	spin_lock_irqsave(&con->hp->lock, flags);
	__hvc_resize(con->hp, size);
	spin_unlock_irqrestore(&con->hp->lock, flags);
}

enum vconsole_step {
	VCONSOLE_REST,
	VCONSOLE_DIE,
	VCONSOLE_HANG_UP,
	VCONSOLE_BEGIN,
	VCONSOLE_END,
	VCONSOLE_RESIZE,
};

static enum vconsole_step vconsole_line_step(const struct vconsole *con)
{
	/* also by bytes alone: whoever wrote them may have closed it before we ran */
	bool wanted = con->dtr || con->kernel || con->tail ||
		      vconsole_tx_unsent(&con->tx);

	/* hvc may want something before it has told who it is */
	if (con->dead || !con->hp)
		return VCONSOLE_REST;
	if (READ_ONCE(con->gone))
		return VCONSOLE_DIE;
	if (con->hangup_due)
		return VCONSOLE_HANG_UP;
	if (wanted && !con->ready)
		return VCONSOLE_BEGIN;
	if (!wanted && con->ready)
		return VCONSOLE_END;
	if (con->size_due)
		return VCONSOLE_RESIZE;
	return VCONSOLE_REST;
}

/**
 * vconsole_line - brings the line to the state that it should have
 * @work: the console's
 */
void vconsole_line(struct work_struct *work)
{
	struct vconsole *con = container_of(work, struct vconsole, line_work);

	/* a host that keeps us at it shall keep nobody else */
	for (;; cond_resched()) {
		enum vconsole_step step;

		spin_lock_irq(&con->lock);
		step = vconsole_line_step(con);
		spin_unlock_irq(&con->lock);
		switch (step) {
		case VCONSOLE_DIE:
			vconsole_line_die(con);
			break;
		case VCONSOLE_HANG_UP:
			vconsole_line_hang_up(con);
			break;
		case VCONSOLE_BEGIN:
			vconsole_line_ready(con);
			break;
		case VCONSOLE_END:
			vconsole_line_end(con);
			break;
		case VCONSOLE_RESIZE:
			vconsole_line_resize(con);
			break;
		case VCONSOLE_REST:
			return;
		}
	}
}
