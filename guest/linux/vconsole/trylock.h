/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A lock that is only tried, as sparse understands it on every kernel that this
 * module is for.
 */
#ifndef _VCONSOLE_TRYLOCK_H
#define _VCONSOLE_TRYLOCK_H

#include <linux/spinlock.h>
#include <linux/version.h>

/*
 * The headers of real-time kernels before 6.12 annotate neither spin_lock() nor
 * spin_unlock(), but spin_trylock_irqsave() twice. Here it is annotated no more than
 * the others are, on the path on which the lock is held.
 */
#if IS_ENABLED(CONFIG_PREEMPT_RT) && LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
#define vconsole_trylock_irqsave(lock, flags)				\
	(spin_trylock_irqsave(lock, flags) ?				\
	 ({ __release(lock); __release(lock); 1; }) : 0)
#else
#define vconsole_trylock_irqsave(lock, flags)				\
	spin_trylock_irqsave(lock, flags)
#endif

#endif /* _VCONSOLE_TRYLOCK_H */
