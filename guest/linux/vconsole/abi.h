/* SPDX-License-Identifier: GPL-2.0-only */
/* vconsole on the wire: docs/abi/vconsole.md. */
#ifndef _VCONSOLE_ABI_H
#define _VCONSOLE_ABI_H

#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>

#define VCONSOLE_TYPE		"virtual-console"
#define VCONSOLE_VERSION	1

#define VCONSOLE_QUEUE_RX	0
#define VCONSOLE_QUEUE_TX	1
#define VCONSOLE_QUEUE_EVENTS	2

enum vconsole_func {
	VCONSOLE_READY,
	VCONSOLE_HANGUP,
	VCONSOLE_WINSIZE,
	VCONSOLE_BREAK,
};

struct vconsole_winsize {
	__le16 cols;
	__le16 rows;
	__le32 reserved;
};

static_assert(sizeof(struct vconsole_winsize) == 8);

enum vconsole_event_id {
	VCONSOLE_EVENT_WINSIZE,
	VCONSOLE_EVENT_OPENED,
	VCONSOLE_EVENT_HANGUP,
	VCONSOLE_EVENT_BREAK,
};

struct vconsole_event {
	__le32 flags;
	__le32 size;
	__le32 id;
	__le32 conversation;
	__le64 position;
	__le16 cols;
	__le16 rows;
	__le32 reserved;
};

static_assert(sizeof(struct vconsole_event) == 32);

#endif /* _VCONSOLE_ABI_H */
