// SPDX-License-Identifier: GPL-2.0-only
/*
 * shm-signal, north's half. The protocol and why it loses nothing is explained
 * in shm_signal.h; O1 to O6, R1 and R4 are the names of docs/abi/shm-signal.md.
 */
#include <linux/delay.h>
#include <linux/export.h>
#include <asm/barrier.h>

#include "shm_signal.h"

/**
 * shm_signal_desc_init - prepare the shared bytes, before they are announced
 * @desc: zeroed memory
 */
void shm_signal_desc_init(struct shm_signal_desc *desc)
{
	desc->magic = SHM_SIGNAL_MAGIC;
	desc->ver = SHM_SIGNAL_VER;
}
EXPORT_SYMBOL_GPL(shm_signal_desc_init);

/**
 * shm_signal_init - initialise a signal, masked, with one reference
 * @sig: the signal
 * @desc: its shared bytes
 * @ops: its transport
 */
void shm_signal_init(struct shm_signal *sig, struct shm_signal_desc *desc,
		     const struct shm_signal_ops *ops)
{
	kref_init(&sig->kref);
	spin_lock_init(&sig->lock);
	sig->desc = desc;
	sig->ops = ops;
	sig->notify = NULL;
	sig->gone = NULL;
	sig->priv = NULL;
	sig->in_wakeup = false;
	sig->closed = false;
}
EXPORT_SYMBOL_GPL(shm_signal_init);

/**
 * shm_signal_listen - register the notifier, while the signal is masked
 * @sig: the signal
 * @notify: the notifier
 * @priv: its argument
 */
void shm_signal_listen(struct shm_signal *sig, shm_signal_fn notify, void *priv)
{
	unsigned long flags;

	spin_lock_irqsave(&sig->lock, flags);
	sig->notify = notify;
	sig->priv = priv;
	spin_unlock_irqrestore(&sig->lock, flags);
}
EXPORT_SYMBOL_GPL(shm_signal_listen);

/**
 * shm_signal_watch - be told when south lets go of the signal unasked
 * @sig: the signal, with a notifier
 * @gone: gets the notifier's argument; at once if it has happened already; NULL
 * to be told no more
 *
 * Runs once at most, in interrupt context and under the signal's lock: it may do
 * no more than schedule work. Never after shm_signal_detach().
 */
void shm_signal_watch(struct shm_signal *sig, shm_signal_fn gone)
{
	unsigned long flags;

	spin_lock_irqsave(&sig->lock, flags);
	sig->gone = gone;
	if (gone && sig->closed)
		gone(sig->priv);
	spin_unlock_irqrestore(&sig->lock, flags);
}
EXPORT_SYMBOL_GPL(shm_signal_watch);

/**
 * shm_signal_close - south has let go of the signal; for the transport
 * @sig: the signal
 */
void shm_signal_close(struct shm_signal *sig)
{
	unsigned long flags;

	spin_lock_irqsave(&sig->lock, flags);
	WRITE_ONCE(sig->closed, true);
	if (sig->gone)
		sig->gone(sig->priv);
	spin_unlock_irqrestore(&sig->lock, flags);
}
EXPORT_SYMBOL_GPL(shm_signal_close);

/**
 * shm_signal_detach - let go of the shared bytes and the notifier
 * @sig: the signal
 *
 * For when south has let go of the segment. Returns when no notifier runs any
 * more; wake-ups that are still under way find nothing. The caller makes sure
 * that nobody injects. Sleeps.
 */
void shm_signal_detach(struct shm_signal *sig)
{
	unsigned long flags;
	bool busy;

	spin_lock_irqsave(&sig->lock, flags);
	sig->desc = NULL;
	sig->notify = NULL;
	sig->gone = NULL;
	busy = sig->in_wakeup;
	spin_unlock_irqrestore(&sig->lock, flags);

	while (busy) {
		usleep_range(10, 50);
		spin_lock_irqsave(&sig->lock, flags);
		busy = sig->in_wakeup;
		spin_unlock_irqrestore(&sig->lock, flags);
	}
}
EXPORT_SYMBOL_GPL(shm_signal_detach);

/**
 * shm_signal_get - take a reference
 * @sig: the signal
 */
void shm_signal_get(struct shm_signal *sig)
{
	kref_get(&sig->kref);
}
EXPORT_SYMBOL_GPL(shm_signal_get);

static void shm_signal_release(struct kref *kref)
{
	struct shm_signal *sig = container_of(kref, struct shm_signal, kref);

	sig->ops->release(sig);
}

/**
 * shm_signal_put - drop a reference; any context
 * @sig: the signal
 */
void shm_signal_put(struct shm_signal *sig)
{
	kref_put(&sig->kref, shm_signal_release);
}
EXPORT_SYMBOL_GPL(shm_signal_put);

/* Steps 3 to 5 of inject; a full barrier has ordered "dirty" before it. */
static void shm_signal_ring(struct shm_signal *sig, struct shm_signal_irq *irq)
{
	if (!READ_ONCE(irq->enabled) || READ_ONCE(irq->pending))
		return;
	WRITE_ONCE(irq->pending, 1);
	virt_wmb();	/* O3: south finds the cause when the doorbell rings */
	sig->ops->inject(sig);
}

/**
 * shm_signal_inject - tell south that shared memory has changed
 * @sig: the signal
 *
 * Rings only if south listens and no notification is under way. Any context.
 */
void shm_signal_inject(struct shm_signal *sig)
{
	struct shm_signal_irq *irq = &sig->desc->irq[SHM_LOCALE_SOUTH];

	virt_wmb();	/* O1: the data before "dirty" */
	WRITE_ONCE(irq->dirty, 1);
	virt_mb();	/* O2: pairs with south's O5 and O6 */
	shm_signal_ring(sig, irq);
}
EXPORT_SYMBOL_GPL(shm_signal_inject);

/**
 * shm_signal_inject_lazy - the same, leaving alone a "dirty" that is still set
 * @sig: the signal
 *
 * Only for rings that negotiated it, right after descriptors were given away
 * (docs/abi/extensions.md, section 2).
 */
void shm_signal_inject_lazy(struct shm_signal *sig)
{
	struct shm_signal_irq *irq = &sig->desc->irq[SHM_LOCALE_SOUTH];

	virt_mb();	/* the owner byte before the load; pairs with south's O4 */
	if (!READ_ONCE(irq->dirty)) {
		WRITE_ONCE(irq->dirty, 1);
		virt_mb();	/* O2 */
	}
	shm_signal_ring(sig, irq);
}
EXPORT_SYMBOL_GPL(shm_signal_inject_lazy);

/**
 * shm_signal_disable - mask our side
 * @sig: the signal
 *
 * Does not wait: a notifier that runs goes on, a doorbell under way arrives
 * (R5). Any context, from within the notifier too.
 */
void shm_signal_disable(struct shm_signal *sig)
{
	WRITE_ONCE(sig->desc->irq[SHM_LOCALE_NORTH].enabled, 0);
	virt_wmb();	/* before whatever relies on being masked */
}
EXPORT_SYMBOL_GPL(shm_signal_disable);

/**
 * shm_signal_enable - unmask our side
 * @sig: the signal
 *
 * Return: true if the caller must look at the shared memory (again): south may
 * have changed it while nobody was listening. Then "dirty" and "pending" have
 * been cleared, so whatever south does after that look is signalled.
 */
bool shm_signal_enable(struct shm_signal *sig)
{
	struct shm_signal_irq *irq = &sig->desc->irq[SHM_LOCALE_NORTH];
	unsigned long flags;
	bool again = false;

	spin_lock_irqsave(&sig->lock, flags);
	WRITE_ONCE(irq->enabled, 1);
	virt_mb();	/* O5: pairs with south's O2 */
	if (!sig->in_wakeup && shm_signal_due(sig)) {
		WRITE_ONCE(irq->dirty, 0);
		WRITE_ONCE(irq->pending, 0);
		virt_mb();	/* O4, O6: the caller's look comes after */
		again = true;
	}
	spin_unlock_irqrestore(&sig->lock, flags);
	return again;
}
EXPORT_SYMBOL_GPL(shm_signal_enable);

/**
 * shm_signal_wakeup - south has rung
 * @sig: the signal
 *
 * Calls the notifier for as long as south has changed something and the signal
 * is not masked. A second wake-up of the same signal returns at once: the one
 * that runs looks again before it ends (R4). Interrupt context.
 */
void shm_signal_wakeup(struct shm_signal *sig)
{
	struct shm_signal_irq *irq;
	unsigned long flags;

	spin_lock_irqsave(&sig->lock, flags);
	if (!sig->desc || sig->in_wakeup)
		goto out;
	irq = &sig->desc->irq[SHM_LOCALE_NORTH];
	sig->in_wakeup = true;
	while (READ_ONCE(irq->enabled) && shm_signal_due(sig)) {
		do {
			shm_signal_fn notify = sig->notify;
			void *priv = sig->priv;

			WRITE_ONCE(irq->dirty, 0);
			virt_mb();	/* O4 (R1b): before the notifier's loads */
			spin_unlock_irqrestore(&sig->lock, flags);
			if (notify)
				notify(priv);
			spin_lock_irqsave(&sig->lock, flags);
			if (!sig->desc)
				goto done;
		} while (READ_ONCE(irq->enabled) && READ_ONCE(irq->dirty));
		WRITE_ONCE(irq->pending, 0);
		virt_mb();	/* O6: pairs with south's O2 */
	}
done:
	sig->in_wakeup = false;
out:
	spin_unlock_irqrestore(&sig->lock, flags);
}
EXPORT_SYMBOL_GPL(shm_signal_wakeup);
