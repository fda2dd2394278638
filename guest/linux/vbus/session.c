// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a driver does with its device: open, call, share memory, close; and the
 * signals of shared segments. docs/abi/vbus-bus.md sections 5 to 7.
 *
 * A cookie is a number that we look up, never a pointer: south may say anything.
 * A signal has three references: the session's list, south's (until SHMCLOSE, or
 * until the bridge is reset), and that of whoever uses it.
 */
#include <linux/export.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "bridge.h"

static void vbus_signal_ring(struct shm_signal *sig)
{
	struct vbus_signal *vsig = container_of(sig, struct vbus_signal, signal);

	if (!READ_ONCE(sig->closed))
		iowrite32(vsig->handle, vsig->bridge->ports + VBUS_PORT_SHMSIGNAL);
}

static void vbus_signal_release(struct shm_signal *sig)
{
	kfree(container_of(sig, struct vbus_signal, signal));
}

static const struct shm_signal_ops vbus_signal_ops = {
	.inject = vbus_signal_ring,
	.release = vbus_signal_release,
};

/* The signal that south names, with a reference, or NULL. */
static struct vbus_signal *vbus_signal_find(struct vbus_bridge *bridge,
					    u64 cookie, bool erase)
{
	struct vbus_signal *vsig = NULL;
	unsigned long flags;

	if (cookie > U32_MAX)
		return NULL;
	xa_lock_irqsave(&bridge->signals, flags);
	vsig = erase ? __xa_erase(&bridge->signals, cookie) :
		       xa_load(&bridge->signals, cookie);
	if (vsig && !erase)
		shm_signal_get(&vsig->signal);
	xa_unlock_irqrestore(&bridge->signals, flags);
	return vsig;
}

/**
 * vbus_signal_event - south has signalled; interrupt context
 * @bridge: the bridge
 * @cookie: which signal; unknown ones are ignored: events may be older than a close
 */
void vbus_signal_event(struct vbus_bridge *bridge, u64 cookie)
{
	struct vbus_signal *vsig = vbus_signal_find(bridge, cookie, false);

	if (!vsig)
		return;
	shm_signal_wakeup(&vsig->signal);
	shm_signal_put(&vsig->signal);
}

/**
 * vbus_signal_close_event - south has let go of a signal; interrupt context
 * @bridge: the bridge
 * @cookie: which signal
 */
void vbus_signal_close_event(struct vbus_bridge *bridge, u64 cookie)
{
	struct vbus_signal *vsig = vbus_signal_find(bridge, cookie, true);

	if (!vsig)
		return;
	shm_signal_close(&vsig->signal);
	shm_signal_put(&vsig->signal);	/* south's */
}

/**
 * vbus_signals_drop - the bridge is reset: no SHMCLOSE will come any more
 * @bridge: the bridge
 */
void vbus_signals_drop(struct vbus_bridge *bridge)
{
	struct vbus_signal *vsig;
	unsigned long cookie;

	xa_for_each(&bridge->signals, cookie, vsig)
		vbus_signal_close_event(bridge, cookie);
	xa_destroy(&bridge->signals);
}

/**
 * vbus_open - open a device
 * @vdev: the device, closed
 * @version: version of its interface that the driver implements
 *
 * Return: 0 or a negative errno; -EINVAL if south implements another version,
 * -EBUSY if the device is open.
 */
int vbus_open(struct vbus_device *vdev, u32 version)
{
	int ret = -EBUSY;

	mutex_lock(&vdev->lock);
	if (!vdev->handle) {
		u64 handle;

		ret = vbus_hc_open(vdev->bridge, vdev->id, version, &handle);
		if (!ret)
			vdev->handle = handle;
	}
	mutex_unlock(&vdev->lock);
	return ret;
}
EXPORT_SYMBOL_GPL(vbus_open);

/**
 * vbus_close - close a device
 * @vdev: the device; nothing happens if it is closed already
 *
 * South has let go of all shared memory when this returns, and no notifier runs
 * any more. Before that, the driver must have stopped to use its signals.
 */
void vbus_close(struct vbus_device *vdev)
{
	struct vbus_signal *vsig, *next;
	int ret;

	mutex_lock(&vdev->lock);
	if (vdev->handle) {
		ret = vbus_hc_close(vdev->bridge, vdev->handle);
		if (ret < 0)
			dev_warn(&vdev->dev, "close failed: %d\n", ret);
		vdev->handle = 0;
	}
	list_for_each_entry_safe(vsig, next, &vdev->signals, list) {
		list_del(&vsig->list);
		shm_signal_detach(&vsig->signal);
		shm_signal_put(&vsig->signal);
	}
	mutex_unlock(&vdev->lock);
}
EXPORT_SYMBOL_GPL(vbus_close);

/**
 * vbus_call - call a device
 * @vdev: the device, open
 * @func: which of its functions
 * @data: parameters, replaced by what the device answers; NULL without any
 * @len: their length, at most VBUS_DATA_MAX
 *
 * Return: the device's result (>= 0) or a negative errno.
 */
int vbus_call(struct vbus_device *vdev, u32 func, void *data, u32 len)
{
	int ret = -EINVAL;

	mutex_lock(&vdev->lock);
	if (vdev->handle)
		ret = vbus_hc_call(vdev->bridge, vdev->handle, func, data, len);
	mutex_unlock(&vdev->lock);
	return ret;
}
EXPORT_SYMBOL_GPL(vbus_call);

/**
 * vbus_share - share a segment without a signal
 * @vdev: the device, open
 * @id: which of its segments
 * @addr: guest-physical address; contiguous, and ours until vbus_close()
 * @len: length
 *
 * Return: 0 or a negative errno.
 */
int vbus_share(struct vbus_device *vdev, u32 id, phys_addr_t addr, u32 len)
{
	int ret = -EINVAL;

	mutex_lock(&vdev->lock);
	if (vdev->handle)
		ret = vbus_hc_shm(vdev->bridge, vdev->handle, id, addr, len,
				  VBUS_NO_SIGNAL, 0);
	mutex_unlock(&vdev->lock);
	return ret < 0 ? ret : 0;
}
EXPORT_SYMBOL_GPL(vbus_share);

/**
 * vbus_share_signalled - share a segment that has a signal
 * @vdev: the device, open
 * @id: which of its segments
 * @addr: guest-physical address; contiguous, and ours until vbus_close()
 * @len: length
 * @desc: the signal's shared bytes, initialised
 * @offset: where they lie in the segment
 *
 * Return: the signal, masked and without a notifier, with a reference for the
 * caller; or an ERR_PTR().
 */
struct shm_signal *vbus_share_signalled(struct vbus_device *vdev, u32 id,
					phys_addr_t addr, u32 len,
					struct shm_signal_desc *desc,
					u32 offset)
{
	struct vbus_bridge *bridge = vdev->bridge;
	struct vbus_signal *vsig;
	int ret;

	if (offset > len || len - offset < sizeof(*desc))
		return ERR_PTR(-EINVAL);
	vsig = kzalloc(sizeof(*vsig), GFP_KERNEL);
	if (!vsig)
		return ERR_PTR(-ENOMEM);
	shm_signal_init(&vsig->signal, desc, &vbus_signal_ops);
	vsig->bridge = bridge;

	/* south may ring before the call returns; it is masked until then */
	ret = xa_alloc_cyclic_irq(&bridge->signals, &vsig->cookie, vsig,
				  XA_LIMIT(1, INT_MAX), &bridge->next_cookie,
				  GFP_KERNEL);
	if (ret < 0) {
		kfree(vsig);
		return ERR_PTR(ret);
	}

	mutex_lock(&vdev->lock);
	ret = -EINVAL;
	if (vdev->handle)
		ret = vbus_hc_shm(bridge, vdev->handle, id, addr, len, offset,
				  vsig->cookie);
	if (ret >= 0) {
		vsig->handle = ret;
		shm_signal_get(&vsig->signal);		/* south's */
		shm_signal_get(&vsig->signal);		/* the caller's */
		list_add_tail(&vsig->list, &vdev->signals);
	}
	mutex_unlock(&vdev->lock);

	if (ret < 0) {
		/* refused: south knows nothing of it, and will not close it */
		xa_erase_irq(&bridge->signals, vsig->cookie);
		shm_signal_detach(&vsig->signal);
		shm_signal_put(&vsig->signal);
		return ERR_PTR(ret);
	}
	return &vsig->signal;
}
EXPORT_SYMBOL_GPL(vbus_share_signalled);

/**
 * vbus_ioq_create - allocate a ring and share it
 * @vdev: the device, open
 * @id: which of its segments
 * @count: number of descriptors
 * @produces: true if we fill the descriptors, false if south does
 * @offer: extensions to offer
 *
 * Return: the ring, masked, or an ERR_PTR().
 */
struct ioq *vbus_ioq_create(struct vbus_device *vdev, u32 id, u32 count,
			    bool produces, u32 offer)
{
	struct shm_signal *signal;
	struct ioq *ioq;
	int ret;

	ioq = ioq_alloc(count, produces, offer);
	if (!ioq)
		return ERR_PTR(-ENOMEM);
	signal = vbus_share_signalled(vdev, id, virt_to_phys(ioq->ring),
				      ioq_size(count), &ioq->ring->signal,
				      IOQ_SIGNAL_OFFSET);
	if (IS_ERR(signal)) {
		ioq_free(ioq);
		return ERR_CAST(signal);
	}
	ioq->signal = signal;
	ret = ioq_negotiated(ioq);
	if (ret) {
		/* only closing the device makes south let go of the memory */
		vbus_close(vdev);
		vbus_ioq_destroy(ioq);
		return ERR_PTR(ret);
	}
	return ioq;
}
EXPORT_SYMBOL_GPL(vbus_ioq_create);

/**
 * vbus_ioq_destroy - free a ring, after vbus_close()
 * @ioq: the ring or NULL
 */
void vbus_ioq_destroy(struct ioq *ioq)
{
	if (!ioq)
		return;
	shm_signal_put(ioq->signal);
	ioq_free(ioq);
}
EXPORT_SYMBOL_GPL(vbus_ioq_destroy);
