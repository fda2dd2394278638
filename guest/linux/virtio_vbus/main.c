// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio over vbus: puts the kernel's own virtio drivers on devices of the bus.
 * docs/abi/virtio-vbus.md. For each device of type "virtio" on the vbus-proxy bus
 * there is one on the virtio bus.
 */
#include <linux/module.h>
#include <linux/slab.h>

#include "virtio_vbus.h"

static const char *virtio_vbus_bus_name(struct virtio_device *vdev)
{
	return dev_name(&to_virtio_vbus(vdev)->vbus->dev);
}

static const struct virtio_config_ops virtio_vbus_config_ops = {
	.get = virtio_vbus_get,
	.set = virtio_vbus_set,
	.generation = virtio_vbus_generation,
	.get_status = virtio_vbus_get_status,
	.set_status = virtio_vbus_set_status,
	.reset = virtio_vbus_reset,
	.find_vqs = virtio_vbus_find_vqs,
	.del_vqs = virtio_vbus_del_vqs,
	.synchronize_cbs = virtio_vbus_synchronize_cbs,
	.get_features = virtio_vbus_get_features,
	.finalize_features = virtio_vbus_finalize_features,
	.bus_name = virtio_vbus_bus_name,
	.disable_vq_and_reset = virtio_vbus_disable_vq,
	.enable_vq_after_reset = virtio_vbus_enable_vq,
};

static void virtio_vbus_release(struct device *dev)
{
	kfree(to_virtio_vbus(dev_to_virtio(dev)));
}

/* The configuration has changed, or the device wants to be reset. */
static void virtio_vbus_config_notify(void *priv)
{
	struct virtio_vbus *vv = priv;

	virtio_config_changed(&vv->vdev);
}

static int virtio_vbus_query(struct virtio_vbus *vv)
{
	struct virtio_vbus_info info = {};
	int ret = vbus_call(vv->vbus, VIRTIO_VBUS_QUERY, &info, sizeof(info));

	if (ret < 0)
		return ret;
	vv->vdev.id.device = le32_to_cpu(info.device_id);
	vv->vdev.id.vendor = le32_to_cpu(info.vendor_id);
	vv->queue_count = le32_to_cpu(info.queue_count);
	if (!vv->vdev.id.device || vv->queue_count > VIRTIO_VBUS_QUEUES_MAX)
		return -EPROTO;
	return virtio_vbus_alloc_queues(vv);
}

/* The session ends; then the device uses no memory of ours any more. */
static void virtio_vbus_close(struct virtio_vbus *vv)
{
	vbus_close(vv->vbus);
	virtio_vbus_unshare(&vv->config_signal);
	virtio_vbus_free_queues(vv);
}

static int virtio_vbus_probe(struct vbus_device *vbus)
{
	struct virtio_vbus *vv;
	int ret;

	vv = kzalloc(sizeof(*vv), GFP_KERNEL);
	if (!vv)
		return -ENOMEM;
	vv->vbus = vbus;
	vv->vdev.dev.parent = &vbus->dev;
	vv->vdev.dev.release = virtio_vbus_release;
	vv->vdev.config = &virtio_vbus_config_ops;
	dev_set_drvdata(&vbus->dev, vv);

	ret = vbus_open(vbus, VIRTIO_VBUS_VERSION);
	if (ret) {
		dev_err(&vbus->dev, "no session with the host: %d\n", ret);
		goto err_free;
	}
	ret = virtio_vbus_query(vv);
	if (ret) {
		dev_err(&vbus->dev, "the host does not tell what it is: %d\n", ret);
		goto err_close;
	}
	ret = virtio_vbus_share(vv, VIRTIO_VBUS_SEGMENT_CONFIG, &vv->config_signal,
				virtio_vbus_config_notify, vv);
	if (ret) {
		dev_err(&vbus->dev, "the host takes no signal for changes: %d\n",
			ret);
		goto err_close;
	}
	ret = register_virtio_device(&vv->vdev);
	if (ret) {
		dev_err(&vbus->dev, "the virtio device was not registered: %d\n",
			ret);
		virtio_vbus_close(vv);
		put_device(&vv->vdev.dev);
		return ret;
	}
	/* not earlier: before that there is nobody to be told */
	if (shm_signal_enable(vv->config_signal.signal))
		virtio_config_changed(&vv->vdev);
	return 0;

err_close:
	virtio_vbus_close(vv);
err_free:
	kfree(vv);
	return ret;
}

static void virtio_vbus_remove(struct vbus_device *vbus)
{
	struct virtio_vbus *vv = dev_get_drvdata(&vbus->dev);

	/* a session that the host has ended answers nobody who waits for a queue */
	if (vbus_call(vbus, VIRTIO_VBUS_GET_STATUS, NULL, 0) < 0)
		virtio_break_device(&vv->vdev);
	get_device(&vv->vdev.dev);
	unregister_virtio_device(&vv->vdev);
	virtio_vbus_close(vv);
	put_device(&vv->vdev.dev);
}

static struct vbus_driver virtio_vbus_driver = {
	.type = VIRTIO_VBUS_TYPE,
	.probe = virtio_vbus_probe,
	.remove = virtio_vbus_remove,
};
module_vbus_driver(virtio_vbus_driver);

MODULE_ALIAS_VBUS(VIRTIO_VBUS_TYPE);
MODULE_DESCRIPTION("virtual-bus: virtio devices");
MODULE_AUTHOR("The vbus project");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0.0");
