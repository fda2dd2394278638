// SPDX-License-Identifier: GPL-2.0-only
/*
 * Queues: virtio_ring makes the rings, in memory of its own; we tell the device
 * where they are. Each queue has a signal, in a segment of 16 bytes that stays
 * shared until the device is closed, for resets do not concern it. Virtio's own
 * suppression masks notifications; our half of a signal stays enabled
 * (docs/abi/virtio-vbus.md section 4).
 */
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/virtio_ring.h>

#include "virtio_vbus.h"

/**
 * virtio_vbus_share - make a signal, masked, and share it
 * @vv: the device, open
 * @id: which of its segments
 * @signal: the signal; nothing happens if it is shared already
 * @notify: its notifier
 * @priv: argument of that
 *
 * Return: 0 or a negative errno.
 */
int virtio_vbus_share(struct virtio_vbus *vv, u32 id,
		      struct virtio_vbus_signal *signal, shm_signal_fn notify,
		      void *priv)
{
	struct shm_signal_desc *desc;
	struct shm_signal *sig;

	if (signal->signal)
		return 0;
	/* nobody else's data in the cache line that both sides write to */
	desc = kzalloc(max_t(size_t, L1_CACHE_BYTES, sizeof(*desc)), GFP_KERNEL);
	if (!desc)
		return -ENOMEM;
	shm_signal_desc_init(desc);
	sig = vbus_share_signalled(vv->vbus, id, virt_to_phys(desc),
				   sizeof(*desc), desc, 0);
	if (IS_ERR(sig)) {
		kfree(desc);
		return PTR_ERR(sig);
	}
	signal->desc = desc;
	signal->signal = sig;
	shm_signal_listen(sig, notify, priv);
	return 0;
}

/**
 * virtio_vbus_unshare - free a signal, after vbus_close()
 * @signal: the signal, shared or not
 */
void virtio_vbus_unshare(struct virtio_vbus_signal *signal)
{
	if (signal->signal)
		shm_signal_put(signal->signal);
	kfree(signal->desc);
	signal->signal = NULL;
	signal->desc = NULL;
}

/**
 * virtio_vbus_alloc_queues - make room for the device's queues
 * @vv: the device; queue_count is set
 *
 * Return: 0 or -ENOMEM.
 */
int virtio_vbus_alloc_queues(struct virtio_vbus *vv)
{
	u32 i;

	vv->queues = kvcalloc(vv->queue_count, sizeof(*vv->queues), GFP_KERNEL);
	if (!vv->queues && vv->queue_count)
		return -ENOMEM;
	for (i = 0; i < vv->queue_count; i++)
		spin_lock_init(&vv->queues[i].lock);
	return 0;
}

/**
 * virtio_vbus_free_queues - the reverse, after vbus_close()
 * @vv: the device; no virtqueue is left
 */
void virtio_vbus_free_queues(struct virtio_vbus *vv)
{
	u32 i;

	for (i = 0; i < vv->queue_count; i++)
		virtio_vbus_unshare(&vv->queues[i].signal);
	kvfree(vv->queues);
	vv->queues = NULL;
}

/* The device has used buffers. */
static void virtio_vbus_queue_notify(void *priv)
{
	struct virtio_vbus_queue *queue = priv;
	unsigned long flags;

	spin_lock_irqsave(&queue->lock, flags);
	if (queue->vq)
		vring_interrupt(0, queue->vq);
	spin_unlock_irqrestore(&queue->lock, flags);
}

/* The driver has made buffers available, and the device wants to know. */
static bool virtio_vbus_kick(struct virtqueue *vq)
{
	struct virtio_vbus_queue *queue = vq->priv;

	shm_signal_inject(queue->signal.signal);
	return true;
}

/* From here on interrupts of the queue find @vq; NULL: none is left, nor runs. */
static void virtio_vbus_attach_vq(struct virtio_vbus_queue *queue,
				  struct virtqueue *vq)
{
	unsigned long flags;

	spin_lock_irqsave(&queue->lock, flags);
	queue->vq = vq;
	spin_unlock_irqrestore(&queue->lock, flags);
}

static int virtio_vbus_enable_queue(struct virtio_vbus *vv, struct virtqueue *vq)
{
	struct virtio_vbus_rings rings = {
		.index = cpu_to_le32(vq->index),
		.size = cpu_to_le32(virtqueue_get_vring_size(vq)),
		.descriptors = cpu_to_le64(virtqueue_get_desc_addr(vq)),
		.driver = cpu_to_le64(virtqueue_get_avail_addr(vq)),
		.device = cpu_to_le64(virtqueue_get_used_addr(vq)),
	};
	int ret = vbus_call(vv->vbus, VIRTIO_VBUS_ENABLE_QUEUE, &rings,
			    sizeof(rings));

	return ret < 0 ? ret : 0;
}

static struct virtqueue *virtio_vbus_setup_vq(struct virtio_vbus *vv, u32 index,
					      vq_callback_t *callback,
					      const char *name, bool ctx)
{
	struct virtio_vbus_queue_info info = { .index = cpu_to_le32(index) };
	struct virtio_vbus_queue *queue;
	struct virtqueue *vq;
	u32 size;
	int ret;

	if (index >= vv->queue_count)
		return ERR_PTR(-ENOENT);
	queue = &vv->queues[index];
	ret = vbus_call(vv->vbus, VIRTIO_VBUS_GET_QUEUE, &info, sizeof(info));
	if (ret < 0)
		return ERR_PTR(ret);
	size = le32_to_cpu(info.max_size);
	if (!size)
		return ERR_PTR(-ENOENT);
	if (le32_to_cpu(info.flags) & VIRTIO_VBUS_QUEUE_ENABLED)
		return ERR_PTR(-EBUSY);
	ret = virtio_vbus_share(vv, index, &queue->signal,
				virtio_vbus_queue_notify, queue);
	if (ret)
		return ERR_PTR(ret);
	vq = vring_create_virtqueue(index, size, SMP_CACHE_BYTES, &vv->vdev, true,
				    true, ctx, virtio_vbus_kick, callback, name);
	if (!vq)
		return ERR_PTR(-ENOMEM);
	vq->num_max = size;
	vq->priv = queue;
	virtio_vbus_attach_vq(queue, vq);
	/* the queue is not in service: what has come so far was for an older one */
	shm_signal_enable(queue->signal.signal);
	ret = virtio_vbus_enable_queue(vv, vq);
	if (ret) {
		virtio_vbus_attach_vq(queue, NULL);
		vring_del_virtqueue(vq);
		return ERR_PTR(ret);
	}
	return vq;
}

/**
 * virtio_vbus_del_vqs - free all virtqueues
 * @vdev: the device, reset, or never told to go
 */
void virtio_vbus_del_vqs(struct virtio_device *vdev)
{
	struct virtqueue *vq, *next;

	list_for_each_entry_safe(vq, next, &vdev->vqs, list) {
		virtio_vbus_attach_vq(vq->priv, NULL);
		vring_del_virtqueue(vq);
	}
}

/*
 * Queues are numbered without those that the driver does not want. A driver that
 * fails here has not set DRIVER_OK, so the device takes nothing from the queues
 * that were enabled so far.
 */
static int virtio_vbus_find_vq(struct virtio_vbus *vv, struct virtqueue **vq,
			       u32 *index, vq_callback_t *callback,
			       const char *name, bool ctx)
{
	if (!name) {
		*vq = NULL;
		return 0;
	}
	*vq = virtio_vbus_setup_vq(vv, *index, callback, name, ctx);
	if (IS_ERR(*vq)) {
		int ret = PTR_ERR(*vq);

		dev_err(&vv->vdev.dev, "queue %u (%s) cannot be had: %d\n", *index,
			name, ret);
		virtio_vbus_del_vqs(&vv->vdev);
		return ret;
	}
	(*index)++;
	return 0;
}

/* Makes the virtqueues that a driver wants. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
int virtio_vbus_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
			 struct virtqueue *vqs[], vq_callback_t *callbacks[],
			 const char * const names[], const bool *ctx,
			 struct irq_affinity *desc)
{
	u32 i, index = 0;
	int ret;

	for (i = 0; i < nvqs; i++) {
		ret = virtio_vbus_find_vq(to_virtio_vbus(vdev), &vqs[i], &index,
					  callbacks[i], names[i],
					  ctx && ctx[i]);
		if (ret)
			return ret;
	}
	return 0;
}
#else
int virtio_vbus_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
			 struct virtqueue *vqs[],
			 struct virtqueue_info vqs_info[],
			 struct irq_affinity *desc)
{
	u32 i, index = 0;
	int ret;

	for (i = 0; i < nvqs; i++) {
		ret = virtio_vbus_find_vq(to_virtio_vbus(vdev), &vqs[i], &index,
					  vqs_info[i].callback, vqs_info[i].name,
					  vqs_info[i].ctx);
		if (ret)
			return ret;
	}
	return 0;
}
#endif

/**
 * virtio_vbus_synchronize_cbs - wait for callbacks that run
 * @vdev: the device
 */
void virtio_vbus_synchronize_cbs(struct virtio_device *vdev)
{
	struct virtio_vbus *vv = to_virtio_vbus(vdev);
	u32 i;

	for (i = 0; i < vv->queue_count; i++) {
		struct virtio_vbus_queue *queue = &vv->queues[i];

		/* callbacks run under the lock */
		spin_lock_irq(&queue->lock);
		spin_unlock_irq(&queue->lock);
	}
}

/**
 * virtio_vbus_disable_vq - reset one queue
 * @vq: the queue
 *
 * Return: 0, and then the device has let go of it and no callback runs; or a
 * negative errno.
 */
int virtio_vbus_disable_vq(struct virtqueue *vq)
{
	__le32 block = cpu_to_le32(vq->index);
	int ret;

	if (!virtio_has_feature(vq->vdev, VIRTIO_F_RING_RESET))
		return -ENOENT;
	ret = vbus_call(to_virtio_vbus(vq->vdev)->vbus, VIRTIO_VBUS_RESET_QUEUE,
			&block, sizeof(block));
	if (ret < 0)
		return ret;
	virtio_vbus_attach_vq(vq->priv, NULL);
#ifdef CONFIG_VIRTIO_HARDEN_NOTIFICATION
	__virtqueue_break(vq);
#endif
	vq->reset = true;
	return 0;
}

/**
 * virtio_vbus_enable_vq - put a queue back into service after its reset
 * @vq: the queue, with a ring of perhaps another size
 *
 * Return: 0 or a negative errno.
 */
int virtio_vbus_enable_vq(struct virtqueue *vq)
{
	int ret;

	if (!vq->reset)
		return -EBUSY;
	virtio_vbus_attach_vq(vq->priv, vq);
	ret = virtio_vbus_enable_queue(to_virtio_vbus(vq->vdev), vq);
	if (ret) {
		virtio_vbus_attach_vq(vq->priv, NULL);
		return ret;
	}
	vq->reset = false;
#ifdef CONFIG_VIRTIO_HARDEN_NOTIFICATION
	__virtqueue_unbreak(vq);
#endif
	return 0;
}
