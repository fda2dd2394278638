/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio over vbus, the transport's own state. Config operations come from
 * process context; kicks from any; signals in the vbus interrupt.
 */
#ifndef _VIRTIO_VBUS_H
#define _VIRTIO_VBUS_H

#include <linux/spinlock.h>
#include <linux/version.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "vbus.h"
#include "abi.h"

/**
 * struct virtio_vbus_signal - the shared bytes of a signal, and our half of it
 * @desc: a segment of its own; shared until the device is closed
 * @signal: NULL before it is shared
 */
struct virtio_vbus_signal {
	struct shm_signal_desc *desc;
	struct shm_signal *signal;
};

/**
 * struct virtio_vbus_queue - a queue that the device has
 * @signal: shared when the queue is first used
 * @lock: held while @vq is interrupted; protects @vq
 * @vq: what virtio_ring has made for it, or NULL
 */
struct virtio_vbus_queue {
	struct virtio_vbus_signal signal;
	spinlock_t lock;
	struct virtqueue *vq;
};

/**
 * struct virtio_vbus - a virtio device on the bus
 * @vdev: the virtio device; its release frees this
 * @vbus: the device of the bus that carries it
 * @config_signal: for changes of the configuration
 * @queues: all queues of the device, freed after the session
 * @queue_count: how many
 */
struct virtio_vbus {
	struct virtio_device vdev;
	struct vbus_device *vbus;
	struct virtio_vbus_signal config_signal;
	struct virtio_vbus_queue *queues;
	u32 queue_count;
};

#define to_virtio_vbus(v) container_of(v, struct virtio_vbus, vdev)

/* config.c */
void virtio_vbus_get(struct virtio_device *vdev, unsigned int offset, void *buf,
		     unsigned int len);
void virtio_vbus_set(struct virtio_device *vdev, unsigned int offset,
		     const void *buf, unsigned int len);
u32 virtio_vbus_generation(struct virtio_device *vdev);
u8 virtio_vbus_get_status(struct virtio_device *vdev);
void virtio_vbus_set_status(struct virtio_device *vdev, u8 status);
void virtio_vbus_reset(struct virtio_device *vdev);
u64 virtio_vbus_get_features(struct virtio_device *vdev);
int virtio_vbus_finalize_features(struct virtio_device *vdev);

/* queues.c */
int virtio_vbus_share(struct virtio_vbus *vv, u32 id,
		      struct virtio_vbus_signal *signal, shm_signal_fn notify,
		      void *priv);
void virtio_vbus_unshare(struct virtio_vbus_signal *signal);
int virtio_vbus_alloc_queues(struct virtio_vbus *vv);
void virtio_vbus_free_queues(struct virtio_vbus *vv);
void virtio_vbus_del_vqs(struct virtio_device *vdev);
void virtio_vbus_synchronize_cbs(struct virtio_device *vdev);
int virtio_vbus_disable_vq(struct virtqueue *vq);
int virtio_vbus_enable_vq(struct virtqueue *vq);

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
int virtio_vbus_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
			 struct virtqueue *vqs[], vq_callback_t *callbacks[],
			 const char * const names[], const bool *ctx,
			 struct irq_affinity *desc);
#else
int virtio_vbus_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
			 struct virtqueue *vqs[],
			 struct virtqueue_info vqs_info[],
			 struct irq_affinity *desc);
#endif

#endif /* _VIRTIO_VBUS_H */
