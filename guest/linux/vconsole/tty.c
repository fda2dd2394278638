// SPDX-License-Identifier: GPL-2.0-only
/*
 * What hvc calls. It names us by a number, in any context, until a while after it
 * was told that we are gone: consoles are found by number, or are not.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/termios.h>
#include <linux/xarray.h>

#include "trylock.h"
#include "vconsole.h"

static DEFINE_XARRAY_FLAGS(vconsoles, XA_FLAGS_ALLOC | XA_FLAGS_LOCK_IRQ);
/*
 * A console that is gone may be called for as long as somebody has it open: its
 * number is not another one's soon.
 */
static u32 vconsole_next_id;

/* Takes bytes for the host, under the lock. */
static int vconsole_put_locked(struct vconsole *con, const u8 *buf, u32 count)
{
	u32 n;

	if (con->dead || con->hangup_due || con->tty_hung)
		return -EIO;	/* hvc throws it away */
	/* nobody has the terminal device open: it is the kernel */
	if (!con->tty_open && !con->tail)
		con->kernel = true;
	n = vconsole_tx_put(con, buf, count);
	if (n == count)
		con->tail = false;
	if (!con->ready)
		vconsole_line_changed(con);
	return n;
}

static int vconsole_put(struct vconsole *con, const u8 *buf, u32 count)
{
	unsigned long flags;
	int ret;

	spin_lock_irqsave(&con->lock, flags);
	ret = vconsole_put_locked(con, buf, count);
	spin_unlock_irqrestore(&con->lock, flags);
	return ret;
}

/* Whoever had the lock before an oops would never let go. */
static int vconsole_put_in_oops(struct vconsole *con, const u8 *buf, u32 count)
{
	unsigned long flags;
	int ret;

	if (!vconsole_trylock_irqsave(&con->lock, flags))
		return -EIO;
	ret = vconsole_put_locked(con, buf, count);
	spin_unlock_irqrestore(&con->lock, flags);
	return ret;
}

static hvc_ssize vconsole_put_chars(u32 vtermno, const hvc_char *buf,
				    hvc_size count)
{
	struct vconsole *con;
	int ret = -EIO;

	rcu_read_lock();
	con = xa_load(&vconsoles, vtermno);
	if (con && likely(!oops_in_progress))
		ret = vconsole_put(con, (const u8 *)buf, count);
	else if (con)
		ret = vconsole_put_in_oops(con, (const u8 *)buf, count);
	rcu_read_unlock();
	return ret;
}

static hvc_ssize vconsole_get_chars(u32 vtermno, hvc_char *buf, hvc_size count)
{
	struct vconsole *con;
	unsigned long flags;
	hvc_ssize ret = -EPIPE;	/* hvc hangs up */

	rcu_read_lock();
	con = xa_load(&vconsoles, vtermno);
	if (con) {
		spin_lock_irqsave(&con->lock, flags);
		if (!con->dead)
			ret = vconsole_rx_take(con, (u8 *)buf, count);
		spin_unlock_irqrestore(&con->lock, flags);
	}
	rcu_read_unlock();
	return ret;
}

/*
 * The first one has opened the terminal device. Never fails, although the host may
 * be gone: hvc would drop a reference too many. Whoever opens it then is hung up.
 */
static int vconsole_notifier_add(struct hvc_struct *hp, int data)
{
	struct vconsole *con;
	unsigned long flags;

	rcu_read_lock();
	con = xa_load(&vconsoles, data);
	if (con) {
		spin_lock_irqsave(&con->lock, flags);
		if (!con->hp)	/* opened before hvc_alloc() has returned */
			WRITE_ONCE(con->hp, hp);
		con->tty_open = true;
		con->tty_hung = false;
		con->tail = false;
		con->size_due = true;	/* a terminal is born without */
		vconsole_line_changed(con);
		spin_unlock_irqrestore(&con->lock, flags);
	}
	rcu_read_unlock();
	return 0;
}

/* The last one has closed it. */
static void vconsole_notifier_del(struct hvc_struct *hp, int data)
{
	struct vconsole *con;
	unsigned long flags;

	rcu_read_lock();
	con = xa_load(&vconsoles, data);
	if (con) {
		spin_lock_irqsave(&con->lock, flags);
		con->tty_open = false;
		con->tty_hung = false;
		con->tail = con->tx.refused;
		vconsole_line_changed(con);
		spin_unlock_irqrestore(&con->lock, flags);
	}
	rcu_read_unlock();
}

/* All who had it open are hung up. */
static void vconsole_notifier_hangup(struct hvc_struct *hp, int data)
{
	struct vconsole *con;
	unsigned long flags;

	rcu_read_lock();
	con = xa_load(&vconsoles, data);
	if (con) {
		spin_lock_irqsave(&con->lock, flags);
		con->tty_open = false;
		con->tty_hung = false;
		con->tail = false;
		con->dtr = false;
		vconsole_line_changed(con);
		spin_unlock_irqrestore(&con->lock, flags);
	}
	rcu_read_unlock();
}

/* The console that is this one of hvc's; under RCU. */
static struct vconsole *vconsole_of(const struct hvc_struct *hp)
{
	struct vconsole *con;
	unsigned long id;

	xa_for_each(&vconsoles, id, con)
		if (READ_ONCE(con->hp) == hp)
			return con;
	return NULL;
}

/* DTR is raised by the first open, and falls with the last close if HUPCL is set. */
static void vconsole_dtr_rts(struct hvc_struct *hp, hvc_bool active)
{
	struct vconsole *con;
	unsigned long flags;

	rcu_read_lock();
	con = vconsole_of(hp);
	if (con) {
		spin_lock_irqsave(&con->lock, flags);
		con->dtr = active;
		vconsole_line_changed(con);
		spin_unlock_irqrestore(&con->lock, flags);
	}
	rcu_read_unlock();
}

static int vconsole_tiocmget(struct hvc_struct *hp)
{
	struct vconsole *con;
	int lines = 0;

	rcu_read_lock();
	con = vconsole_of(hp);
	if (con) {
		if (READ_ONCE(con->dtr))
			lines |= TIOCM_DTR | TIOCM_RTS;
		if (READ_ONCE(con->tx.up))
			lines |= TIOCM_CAR | TIOCM_DSR | TIOCM_CTS;
	}
	rcu_read_unlock();
	return lines;
}

const struct hv_ops vconsole_hv_ops = {
	.get_chars = vconsole_get_chars,
	.put_chars = vconsole_put_chars,
	.notifier_add = vconsole_notifier_add,
	.notifier_del = vconsole_notifier_del,
	.notifier_hangup = vconsole_notifier_hangup,
	.tiocmget = vconsole_tiocmget,
	.dtr_rts = vconsole_dtr_rts,
};

/**
 * vconsole_tty_poll - have hvc look for bytes, and send those that it kept
 * @con: the console, not under its lock
 */
void vconsole_tty_poll(struct vconsole *con)
{
	struct hvc_struct *hp = READ_ONCE(con->hp);

	if (hp && hvc_poll(hp))
		hvc_kick();
}

/**
 * vconsole_tty_add - make it one of hvc's consoles
 * @con: the console, its session open
 *
 * If this is where kernel messages go they come at once, from the first on.
 *
 * Return: 0 or a negative errno.
 */
int vconsole_tty_add(struct vconsole *con)
{
	struct hvc_struct *hp;
	int ret;

	ret = xa_alloc_cyclic_irq(&vconsoles, &con->id, con, XA_LIMIT(0, INT_MAX),
				  &vconsole_next_id, GFP_KERNEL);
	if (ret < 0)
		return ret;
	hp = hvc_alloc(con->id, con->id, &vconsole_hv_ops, PAGE_SIZE);
	if (IS_ERR(hp)) {
		xa_erase_irq(&vconsoles, con->id);
		synchronize_rcu();
		return PTR_ERR(hp);
	}
	WRITE_ONCE(con->hp, hp);
	if (hp->index >= HVC_TTYS)
		dev_warn(&con->vdev->dev,
			 "the kernel has terminal devices for %d consoles only\n",
			 HVC_TTYS);
	spin_lock_irq(&con->lock);
	vconsole_line_changed(con);	/* it may have been opened meanwhile */
	spin_unlock_irq(&con->lock);
	return 0;
}

/**
 * vconsole_tty_del - hang up whoever uses it, and forget it
 * @con: the console, dead
 */
void vconsole_tty_del(struct vconsole *con)
{
	hvc_remove(con->hp);
	xa_erase_irq(&vconsoles, con->id);
	synchronize_rcu();
}
