/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The bridge on the wire: docs/abi/vbus-pci.md, docs/abi/vbus-mmio.md. Structures with 64-bit members
 * have two layouts: that of 64-bit machines, with all padding written out, which
 * is the ABI; and the packed one that i386 kernels of 2009 used, where it differs.
 */
#ifndef _VBUS_ABI_H
#define _VBUS_ABI_H

#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>

#define VBUS_PCI_VENDOR		0x11da
#define VBUS_PCI_DEVICE		0x2000
#define VBUS_PCI_ABI_VERSION	2		/* the PCI revision */
#define VBUS_PCI_ABI_MAGIC	0xbf53eef5
#define VBUS_HC_VERSION		1

/* BAR 0 */
#define VBUS_REG_VECTOR		0		/* a read executes */
#define VBUS_REG_LEN		4
#define VBUS_REG_DATAP		8
#define VBUS_REGS_SIZE		64

/* BAR 1 */
#define VBUS_PORT_EVENTQ	0
#define VBUS_PORT_FASTCALL	4
#define VBUS_PORT_SHMSIGNAL	8
#define VBUS_PORT_INTX		12		/* docs/abi/extensions.md section 3 */
#define VBUS_PORTS_SIZE		32

/* The register page, docs/abi/vbus-mmio.md section 2 */
#define VBUS_MMIO_MAGIC_VALUE	0x73756276	/* "vbus" */
#define VBUS_MMIO_ABI_VERSION	1
#define VBUS_MMIO_MAGIC		0x000
#define VBUS_MMIO_VERSION	0x004
#define VBUS_MMIO_DATAP_LOW	0x010
#define VBUS_MMIO_DATAP_HIGH	0x014
#define VBUS_MMIO_LEN		0x018
#define VBUS_MMIO_CALL		0x01c		/* a write executes */
#define VBUS_MMIO_RESULT	0x020
#define VBUS_MMIO_PORTS		0x030		/* VBUS_PORT_EVENTQ and so on */
#define VBUS_MMIO_STATUS	0x040
#define VBUS_MMIO_ACK		0x044
#define VBUS_MMIO_RESET		0x050
#define VBUS_MMIO_SIZE		0x1000

enum vbus_bridge_vector {
	VBUS_BRIDGE_NEGOTIATE,
	VBUS_BRIDGE_QREG,
	VBUS_BRIDGE_SLOWCALL,
	VBUS_BRIDGE_FASTCALL_ADD,
};

enum vbus_hc_vector {
	VBUS_HC_DEVOPEN,
	VBUS_HC_DEVCLOSE,
	VBUS_HC_DEVCALL,
	VBUS_HC_DEVSHM,
};

enum vbus_event_id {
	VBUS_EVENT_DEVADD,
	VBUS_EVENT_DEVDROP,
	VBUS_EVENT_SHMSIGNAL,
	VBUS_EVENT_SHMCLOSE,
};

#define VBUS_NO_SIGNAL		0xffffffff

struct vbus_abi_negotiate {
	__le32 magic;
	__le32 version;
	__le64 capabilities;
};

static_assert(sizeof(struct vbus_abi_negotiate) == 16);

struct vbus_abi_call {
	__le32 vector;
	__le32 len;
	__le64 datap;
};

static_assert(sizeof(struct vbus_abi_call) == 16);

/* 24 bytes; 20, without the padding, in the packed layout */
struct vbus_abi_fastcall {
	struct vbus_abi_call call;
	__le32 result;
	__le32 pad;
};

static_assert(sizeof(struct vbus_abi_fastcall) == 24);
#define VBUS_FASTCALL_SIZE_ILP32	20

struct vbus_abi_open {
	__le32 devid;
	__le32 version;
	__le64 handle;
};

static_assert(sizeof(struct vbus_abi_open) == 16);

struct vbus_abi_devcall {
	__le64 devh;
	__le32 func;
	__le32 len;
	__le32 flags;
	__le32 pad;
	__le64 datap;
};

static_assert(sizeof(struct vbus_abi_devcall) == 32);

struct vbus_abi_devcall_ilp32 {
	__le64 devh;
	__le32 func;
	__le32 len;
	__le32 flags;
	__le64 datap;
} __packed;

static_assert(sizeof(struct vbus_abi_devcall_ilp32) == 28);

struct vbus_abi_shm {
	__le64 devh;
	__le32 id;
	__le32 len;
	__le32 flags;
	__le32 pad;
	__le32 offset;
	__le32 prio;
	__le64 cookie;
	__le64 datap;
};

static_assert(sizeof(struct vbus_abi_shm) == 48);

struct vbus_abi_shm_ilp32 {
	__le64 devh;
	__le32 id;
	__le32 len;
	__le32 flags;
	__le32 offset;
	__le32 prio;
	__le64 cookie;
	__le64 datap;
} __packed;

static_assert(sizeof(struct vbus_abi_shm_ilp32) == 44);

struct vbus_abi_busreg {
	__le32 count;
	__le32 pad;
	__le32 eventq_count;
	__le32 eventq_pad;
	__le64 eventq_ring;
	__le64 eventq_data;
};

static_assert(sizeof(struct vbus_abi_busreg) == 32);

struct vbus_abi_busreg_ilp32 {
	__le32 count;
	__le32 eventq_count;
	__le64 eventq_ring;
	__le64 eventq_data;
} __packed;

static_assert(sizeof(struct vbus_abi_busreg_ilp32) == 24);

/* An event record: the id, then at "data" a 64-bit id, handle or cookie, then a type. */
#define VBUS_EVENT_SIZE		144
#define VBUS_EVENT_DATA		8
#define VBUS_EVENT_SIZE_ILP32	140
#define VBUS_EVENT_DATA_ILP32	4
#define VBUS_EVENT_TYPE		8		/* after "data" */

#endif /* _VBUS_ABI_H */
