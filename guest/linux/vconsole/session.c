// SPDX-License-Identifier: GPL-2.0-only
/*
 * A session: the rings, and its end. docs/abi/vconsole.md section 7.
 */
#include "vconsole.h"

/* The host has let go of a ring that we did not close; under the signal's lock. */
static void vconsole_gone(void *priv)
{
	struct vconsole *con = priv;

	WRITE_ONCE(con->gone, true);
	schedule_work(&con->line_work);
}

static void vconsole_watch(struct vconsole *con, shm_signal_fn gone)
{
	struct ioq *rings[] = { con->rx.ioq, con->tx.ioq, con->events.ioq };
	int i;

	for (i = 0; i < ARRAY_SIZE(rings); i++)
		if (rings[i])
			shm_signal_watch(rings[i]->signal, gone);
}

/**
 * vconsole_session_open - open the device and share the rings
 * @con: the console, without a session
 *
 * Return: 0 or a negative errno; then the session has ended.
 */
int vconsole_session_open(struct vconsole *con)
{
	int ret;

	ret = vbus_open(con->vdev, VCONSOLE_VERSION);
	if (ret)
		return ret;
	ret = vconsole_rx_create(con);
	if (!ret)
		ret = vconsole_tx_create(con);
	if (ret) {
		vconsole_session_end(con);
		return ret;
	}
	/* nothing comes before READY */
	ioq_enable(con->rx.ioq);
	ioq_enable(con->events.ioq);
	return 0;
}

/**
 * vconsole_session_watch - be told when the host ends it
 * @con: the console, and one of hvc's
 */
void vconsole_session_watch(struct vconsole *con)
{
	vconsole_watch(con, vconsole_gone);
}

/**
 * vconsole_session_end - close the device
 * @con: the console; nothing happens if that is done already
 *
 * What the host has not taken yet is delivered as far as there is room. Sleeps.
 */
void vconsole_session_end(struct vconsole *con)
{
	spin_lock_irq(&con->lock);
	con->dead = true;	/* nobody signals or looks at a ring any more */
	con->tx.up = false;
	con->ready = false;
	spin_unlock_irq(&con->lock);
	vconsole_watch(con, NULL);	/* from here on it is no surprise */
	vbus_close(con->vdev);
}

/**
 * vconsole_session_free - free the rings
 * @con: the console, its session ended, unknown to hvc
 */
void vconsole_session_free(struct vconsole *con)
{
	vconsole_rx_destroy(con);
	vconsole_tx_destroy(con);
}
