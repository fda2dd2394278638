/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * shm-signal: notifications through shared memory, seen from north (the side
 * that owns the memory: us). docs/abi/shm-signal.md.
 *
 * Each side has three bytes. "enabled" is written by the receiver alone. The
 * sender sets "dirty" and "pending", the receiver clears them. All accesses are
 * to single bytes: the six of them are written by both sides without a lock.
 *
 * No wake-up is lost because each side stores first and loads then, with a full
 * barrier in between:
 *
 *	sender                           receiver
 *	------                           --------
 *	data                             enabled = 1 / pending = 0 / dirty = 0
 *	wmb                      (O1)    mb                    (O5, O6, O4)
 *	dirty = 1                        load dirty, pending / load the data
 *	mb                       (O2)
 *	load enabled, pending
 *	pending = 1, wmb, ring   (O3)
 *
 * Either the sender sees that the receiver is listening and rings, or the
 * receiver sees what the sender has left.
 */
#ifndef _VBUS_SHM_SIGNAL_H
#define _VBUS_SHM_SIGNAL_H

#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/kref.h>
#include <linux/spinlock.h>
#include <linux/types.h>

#define SHM_SIGNAL_MAGIC	0x58fa39df
#define SHM_SIGNAL_VER		1

#define SHM_LOCALE_NORTH	0
#define SHM_LOCALE_SOUTH	1

/* What the receiver at one locale and its sender tell each other. */
struct shm_signal_irq {
	__u8 enabled;
	__u8 pending;
	__u8 dirty;
};

struct shm_signal_desc {
	__u32 magic;
	__u32 ver;
	struct shm_signal_irq irq[2];
	__u8 pad[2];
};
static_assert(sizeof(struct shm_signal_desc) == 16);

struct shm_signal;

/**
 * struct shm_signal_ops - what the transport does for a signal
 * @inject: rings south's doorbell; any context
 * @release: the last reference is gone
 */
struct shm_signal_ops {
	void (*inject)(struct shm_signal *sig);
	void (*release)(struct shm_signal *sig);
};

/**
 * typedef shm_signal_fn - runs when south has signalled
 * @priv: as given to shm_signal_listen()
 *
 * May find nothing to do. Runs in the context of the wake-up (hard interrupt),
 * never twice at the same time for one signal; may disable the signal.
 */
typedef void (*shm_signal_fn)(void *priv);

/**
 * struct shm_signal - north's half of a signal
 * @kref: references
 * @lock: protects what follows, and the receiver's side of the protocol
 * @desc: the shared bytes; NULL once the segment is gone
 * @ops: the transport
 * @notify: the notifier
 * @gone: told when south lets go of the signal
 * @priv: argument of both
 * @in_wakeup: the wake-up loop is running and will look again before it ends
 * @closed: south has let go of it, and never signals again
 */
struct shm_signal {
	struct kref kref;
	spinlock_t lock;
	struct shm_signal_desc *desc;
	const struct shm_signal_ops *ops;
	shm_signal_fn notify;
	shm_signal_fn gone;
	void *priv;
	bool in_wakeup;
	bool closed;
};

void shm_signal_desc_init(struct shm_signal_desc *desc);
void shm_signal_init(struct shm_signal *sig, struct shm_signal_desc *desc,
		     const struct shm_signal_ops *ops);
void shm_signal_listen(struct shm_signal *sig, shm_signal_fn notify, void *priv);
void shm_signal_watch(struct shm_signal *sig, shm_signal_fn gone);
void shm_signal_close(struct shm_signal *sig);
void shm_signal_detach(struct shm_signal *sig);
void shm_signal_get(struct shm_signal *sig);
void shm_signal_put(struct shm_signal *sig);

void shm_signal_inject(struct shm_signal *sig);
void shm_signal_inject_lazy(struct shm_signal *sig);
void shm_signal_disable(struct shm_signal *sig);
bool shm_signal_enable(struct shm_signal *sig);
void shm_signal_wakeup(struct shm_signal *sig);

/**
 * shm_signal_due - has south signalled since the last look?
 * @sig: the signal
 */
static inline bool shm_signal_due(const struct shm_signal *sig)
{
	const struct shm_signal_irq *irq = &sig->desc->irq[SHM_LOCALE_NORTH];

	return READ_ONCE(irq->dirty) || READ_ONCE(irq->pending);
}

#endif /* _VBUS_SHM_SIGNAL_H */
