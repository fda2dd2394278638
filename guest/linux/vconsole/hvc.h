/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel's hypervisor console offers to its back ends. Its own header is
 * not among those that modules from elsewhere are compiled with; these are the
 * same declarations, for the kernels that this module is for.
 */
#ifndef _VCONSOLE_HVC_H
#define _VCONSOLE_HVC_H

#include <linux/spinlock.h>
#include <linux/tty.h>
#include <linux/tty_port.h>
#include <linux/types.h>
#include <linux/version.h>

/* More consoles than this have no terminal device. */
#define HVC_TTYS	8

/* How a console begins; the rest is its owner's. */
struct hvc_struct {
	struct tty_port port;
	spinlock_t lock;
	int index;
};

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
typedef char hvc_char;
typedef int hvc_size;
typedef int hvc_ssize;
#else
typedef u8 hvc_char;
typedef size_t hvc_size;
typedef ssize_t hvc_ssize;
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
typedef int hvc_bool;
#else
typedef bool hvc_bool;
#endif

struct hv_ops {
	hvc_ssize (*get_chars)(u32 vtermno, hvc_char *buf, hvc_size count);
	hvc_ssize (*put_chars)(u32 vtermno, const hvc_char *buf, hvc_size count);
	int (*flush)(u32 vtermno, bool wait);
	int (*notifier_add)(struct hvc_struct *hp, int data);
	void (*notifier_del)(struct hvc_struct *hp, int data);
	void (*notifier_hangup)(struct hvc_struct *hp, int data);
	int (*tiocmget)(struct hvc_struct *hp);
	int (*tiocmset)(struct hvc_struct *hp, unsigned int set,
			unsigned int clear);
	void (*dtr_rts)(struct hvc_struct *hp, hvc_bool active);
};

struct hvc_struct *hvc_alloc(u32 vtermno, int data, const struct hv_ops *ops,
			     hvc_size outbuf_size);
/* Some kernels return 0, always. */
void hvc_remove(struct hvc_struct *hp);
int hvc_poll(struct hvc_struct *hp);
void hvc_kick(void);
void __hvc_resize(struct hvc_struct *hp, struct winsize ws);

#endif /* _VCONSOLE_HVC_H */
