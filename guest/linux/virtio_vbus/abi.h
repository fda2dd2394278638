/* SPDX-License-Identifier: GPL-2.0-only */
/* virtio over vbus on the wire: docs/abi/virtio-vbus.md. */
#ifndef _VIRTIO_VBUS_ABI_H
#define _VIRTIO_VBUS_ABI_H

#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>

#define VIRTIO_VBUS_TYPE	"virtio"
#define VIRTIO_VBUS_VERSION	1

/* Segments: those of the queues have their indexes. */
#define VIRTIO_VBUS_SEGMENT_CONFIG	0x10000

#define VIRTIO_VBUS_QUEUES_MAX	0x10000

enum virtio_vbus_func {
	VIRTIO_VBUS_QUERY,
	VIRTIO_VBUS_GET_FEATURES,
	VIRTIO_VBUS_SET_FEATURES,
	VIRTIO_VBUS_GET_STATUS,
	VIRTIO_VBUS_SET_STATUS,
	VIRTIO_VBUS_READ_CONFIG,
	VIRTIO_VBUS_WRITE_CONFIG,
	VIRTIO_VBUS_GET_QUEUE,
	VIRTIO_VBUS_ENABLE_QUEUE,
	VIRTIO_VBUS_RESET_QUEUE,
};

struct virtio_vbus_info {
	__le32 device_id;
	__le32 vendor_id;
	__le32 queue_count;
	__le32 config_size;
	__u8 reserved[16];
};

static_assert(sizeof(struct virtio_vbus_info) == 32);

/* As much data as fits into the longest block of vbus_call(). */
#define VIRTIO_VBUS_CONFIG_PIECE	56

struct virtio_vbus_config {
	__le32 offset;
	__le32 generation;
	__u8 data[VIRTIO_VBUS_CONFIG_PIECE];
};

static_assert(offsetof(struct virtio_vbus_config, data) == 8);

struct virtio_vbus_queue_info {
	__le32 index;
	__le32 max_size;
	__le32 size;
	__le32 flags;
};

static_assert(sizeof(struct virtio_vbus_queue_info) == 16);

#define VIRTIO_VBUS_QUEUE_ENABLED	1

struct virtio_vbus_rings {
	__le32 index;
	__le32 size;
	__le64 descriptors;
	__le64 driver;
	__le64 device;
};

static_assert(sizeof(struct virtio_vbus_rings) == 32);

#endif /* _VIRTIO_VBUS_ABI_H */
