/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of vconsole.ko know of each other.
 *
 * A console has one session with its device, from probe to remove, and is a
 * console of the kernel's hvc: a terminal, and a place for kernel messages.
 * A conversation with the terminal on the host is on while somebody in the guest
 * wants one: processes that have the terminal device open (its DTR is raised), or
 * the kernel, once it has said something while no process had it open.
 *
 * hvc calls put_chars and get_chars in any context, under a lock of its own, and
 * with interrupts off; calls to the host sleep. So the line's state changes in a
 * work item, line.c, and bytes wait in a buffer for a conversation to begin.
 *
 * Nothing is printed under the lock: this may be where it goes.
 */
#ifndef _VCONSOLE_H
#define _VCONSOLE_H

#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "vbus.h"
#include "abi.h"
#include "hvc.h"

#define VCONSOLE_RX_COUNT	16
#define VCONSOLE_RX_SIZE	1024
#define VCONSOLE_TX_COUNT	64
/* Bytes that wait for the host; a power of two. */
#define VCONSOLE_TX_SIZE	65536
/* The host takes chunks whole, so they are not too large. */
#define VCONSOLE_TX_CHUNK	4096
#define VCONSOLE_EVENT_COUNT	16

/* An event that belongs at a place in the stream of received bytes. */
struct vconsole_mark {
	u32 id;
	u32 conversation;
	u64 position;
};

/**
 * struct vconsole_rx - bytes for the guest
 * @ioq: the ring
 * @bufs: its buffers, by position
 * @len: bytes in the buffer at its head, 0 if that was not looked at
 * @offset: how many of those were taken
 * @position: bytes taken since the device was opened
 * @up: they belong to our conversation
 * @given: the host has buffers again, and was not told
 */
struct vconsole_rx {
	struct ioq *ioq;
	u8 *bufs;
	u32 len;
	u32 offset;
	u64 position;
	bool up;
	bool given;
};

/**
 * struct vconsole_tx - bytes from the guest
 * @ioq: the ring
 * @buf: where they lie, as a ring of bytes
 * @lens: length of what each descriptor points to
 * @put: bytes put there
 * @pushed: bytes given to the host
 * @freed: bytes that the host is through with
 * @up: a conversation is on; what is pushed gets there
 * @refused: hvc was told that there is no room, and has kept what it had
 * @tries: how often it came with bytes
 */
struct vconsole_tx {
	struct ioq *ioq;
	u8 *buf;
	u32 lens[VCONSOLE_TX_COUNT];
	u32 put;
	u32 pushed;
	u32 freed;
	bool up;
	bool refused;
	u32 tries;
};

/**
 * struct vconsole_events - events
 * @ioq: the ring
 * @records: its buffers, by position
 * @marks: those whose place in the stream was not reached yet, in order
 * @count: how many
 */
struct vconsole_events {
	struct ioq *ioq;
	struct vconsole_event *records;
	struct vconsole_mark marks[VCONSOLE_EVENT_COUNT];
	u32 count;
};

/**
 * struct vconsole - a console
 * @vdev: its device
 * @hp: what hvc knows of it; NULL at first
 * @id: by what number hvc calls us
 * @line_work: changes the line's state
 * @gone: the host has let go of a ring
 * @lock: protects what follows
 * @dead: nobody uses the rings any more
 * @rx: bytes for the guest
 * @tx: bytes from the guest
 * @events: events
 * @tty_open: processes have the terminal device open
 * @tty_hung: the terminal has hung up, and they do not know yet
 * @tail: hvc has bytes of processes that have closed it
 * @dtr: DTR is raised
 * @kernel: the kernel uses it as a console
 * @ready: we are ready for a conversation
 * @asking: READY is under way: nobody knows the conversation's number
 * @conversation: that number
 * @hangup_due: the terminal has hung up, at a place that was not reached
 * @size: size of the window
 * @sizes: how often that was told by an event
 * @size_due: tell hvc
 */
struct vconsole {
	struct vbus_device *vdev;
	struct hvc_struct *hp;
	u32 id;
	struct work_struct line_work;
	bool gone;
	spinlock_t lock;
	bool dead;
	struct vconsole_rx rx;
	struct vconsole_tx tx;
	struct vconsole_events events;
	bool tty_open;
	bool tty_hung;
	bool tail;
	bool dtr;
	bool kernel;
	bool ready;
	bool asking;
	u32 conversation;
	bool hangup_due;
	struct winsize size;
	u32 sizes;
	bool size_due;
};

/* session.c */
int vconsole_session_open(struct vconsole *con);
void vconsole_session_watch(struct vconsole *con);
void vconsole_session_end(struct vconsole *con);
void vconsole_session_free(struct vconsole *con);

/* line.c */
void vconsole_line(struct work_struct *work);
void vconsole_line_changed(struct vconsole *con);
void vconsole_line_lost(struct vconsole *con);

/* tty.c */
extern const struct hv_ops vconsole_hv_ops;
int vconsole_tty_add(struct vconsole *con);
void vconsole_tty_del(struct vconsole *con);
void vconsole_tty_poll(struct vconsole *con);

/* rx.c */
int vconsole_rx_create(struct vconsole *con);
void vconsole_rx_destroy(struct vconsole *con);
int vconsole_rx_take(struct vconsole *con, u8 *buf, u32 count);
void vconsole_marks_judge(struct vconsole *con);

/* tx.c */
int vconsole_tx_create(struct vconsole *con);
void vconsole_tx_destroy(struct vconsole *con);
u32 vconsole_tx_put(struct vconsole *con, const u8 *buf, u32 count);
void vconsole_tx_pump(struct vconsole *con);
void vconsole_tx_drop(struct vconsole *con);

/* Bytes that were put and not given to the host. */
static inline u32 vconsole_tx_unsent(const struct vconsole_tx *tx)
{
	return tx->put - tx->pushed;
}

#endif /* _VCONSOLE_H */
