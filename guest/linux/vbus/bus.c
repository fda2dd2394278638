// SPDX-License-Identifier: GPL-2.0-only
/*
 * The proxy bus, /sys/bus/vbus-proxy, and its hot-plug. docs/abi/vbus-bus.md
 * section 8; unlike the original, drivers are unbound when their device goes.
 */
#include <linux/export.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/version.h>

#include "bridge.h"

#define to_vbus_driver(d) container_of(d, struct vbus_driver, driver)

struct vbus_hotplug {
	struct list_head list;
	bool add;
	u64 id;
	char type[VBUS_TYPE_MAX];
};

static ssize_t modalias_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "vbus-proxy:%s\n", to_vbus_device(dev)->type);
}
static DEVICE_ATTR_RO(modalias);

static ssize_t type_show(struct device *dev, struct device_attribute *attr,
			 char *buf)
{
	return sysfs_emit(buf, "%s\n", to_vbus_device(dev)->type);
}
static DEVICE_ATTR_RO(type);

static struct attribute *vbus_device_attrs[] = {
	&dev_attr_modalias.attr,
	&dev_attr_type.attr,
	NULL,
};
ATTRIBUTE_GROUPS(vbus_device);

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
static int vbus_match(struct device *dev, struct device_driver *drv)
{
	struct vbus_driver *vdrv = to_vbus_driver(drv);
#else
static int vbus_match(struct device *dev, const struct device_driver *drv)
{
	const struct vbus_driver *vdrv = to_vbus_driver(drv);
#endif

	return !strcmp(to_vbus_device(dev)->type, vdrv->type);
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static int vbus_uevent(struct device *dev, struct kobj_uevent_env *env)
{
	struct vbus_device *vdev = to_vbus_device(dev);
#else
static int vbus_uevent(const struct device *dev, struct kobj_uevent_env *env)
{
	const struct vbus_device *vdev = to_vbus_device(dev);
#endif

	return add_uevent_var(env, "MODALIAS=vbus-proxy:%s", vdev->type);
}

static int vbus_probe(struct device *dev)
{
	return to_vbus_driver(dev->driver)->probe(to_vbus_device(dev));
}

static void vbus_remove(struct device *dev)
{
	to_vbus_driver(dev->driver)->remove(to_vbus_device(dev));
}

static struct bus_type vbus_bus = {
	.name = "vbus-proxy",
	.dev_groups = vbus_device_groups,
	.match = vbus_match,
	.uevent = vbus_uevent,
	.probe = vbus_probe,
	.remove = vbus_remove,
};

/**
 * __vbus_driver_register - use vbus_driver_register()
 * @drv: the driver
 * @owner: its module
 * @mod_name: the name of that
 *
 * Return: 0 or a negative errno.
 */
int __vbus_driver_register(struct vbus_driver *drv, struct module *owner,
			   const char *mod_name)
{
	drv->driver.name = drv->type;
	drv->driver.bus = &vbus_bus;
	drv->driver.owner = owner;
	drv->driver.mod_name = mod_name;
	return driver_register(&drv->driver);
}
EXPORT_SYMBOL_GPL(__vbus_driver_register);

/**
 * vbus_driver_unregister - unbind a driver from its devices and forget it
 * @drv: the driver
 */
void vbus_driver_unregister(struct vbus_driver *drv)
{
	driver_unregister(&drv->driver);
}
EXPORT_SYMBOL_GPL(vbus_driver_unregister);

/**
 * vbus_bus_register - register the bus, when the module is loaded
 *
 * Return: 0 or a negative errno.
 */
int vbus_bus_register(void)
{
	return bus_register(&vbus_bus);
}

/**
 * vbus_bus_unregister - the reverse
 */
void vbus_bus_unregister(void)
{
	bus_unregister(&vbus_bus);
}

static void vbus_device_release(struct device *dev)
{
	struct vbus_device *vdev = to_vbus_device(dev);

	mutex_destroy(&vdev->lock);
	kfree(vdev);
}

static int vbus_match_id(struct device *dev, const void *id)
{
	return to_vbus_device(dev)->id == *(const u64 *)id;
}

static struct vbus_device *vbus_device_find(u64 id)
{
	struct device *dev = bus_find_device(&vbus_bus, NULL, &id, vbus_match_id);

	return dev ? to_vbus_device(dev) : NULL;
}

static void vbus_device_add(struct vbus_bridge *bridge, u64 id, const char *type)
{
	struct device *parent = bridge->dev;
	struct vbus_device *vdev = vbus_device_find(id);
	int ret;

	if (vdev) {
		dev_err(parent, "device %llu was announced twice\n", id);
		put_device(&vdev->dev);
		return;
	}
	if (id > U32_MAX) {
		dev_err(parent, "device %llu cannot be opened: ids have 32 bits there\n",
			id);
		return;
	}
	vdev = kzalloc(sizeof(*vdev), GFP_KERNEL);
	if (!vdev)
		return;		/* the allocator has said so */
	vdev->id = id;
	strscpy(vdev->type, type, sizeof(vdev->type));
	vdev->bridge = bridge;
	mutex_init(&vdev->lock);
	INIT_LIST_HEAD(&vdev->signals);
	vdev->dev.bus = &vbus_bus;
	vdev->dev.parent = parent;
	vdev->dev.release = vbus_device_release;
	ret = dev_set_name(&vdev->dev, "%llu", id);
	if (!ret)
		ret = device_register(&vdev->dev);
	else
		device_initialize(&vdev->dev);
	if (ret) {
		dev_err(parent, "device %llu was not registered: %d\n", id, ret);
		put_device(&vdev->dev);
	}
}

static void vbus_device_drop(struct vbus_bridge *bridge, u64 id)
{
	struct vbus_device *vdev = vbus_device_find(id);

	if (!vdev) {
		dev_warn(bridge->dev, "device %llu went, and was not there\n", id);
		return;
	}
	device_unregister(&vdev->dev);
	put_device(&vdev->dev);		/* that of the search */
}

static struct vbus_hotplug *vbus_hotplug_next(struct vbus_bridge *bridge)
{
	struct vbus_hotplug *plug;

	spin_lock_irq(&bridge->hotplug_lock);
	plug = list_first_entry_or_null(&bridge->hotplug, struct vbus_hotplug, list);
	if (plug)
		list_del(&plug->list);
	spin_unlock_irq(&bridge->hotplug_lock);
	return plug;
}

static void vbus_hotplug_run(struct work_struct *work)
{
	struct vbus_bridge *bridge = container_of(work, struct vbus_bridge,
						  hotplug_work);
	struct vbus_hotplug *plug;

	while ((plug = vbus_hotplug_next(bridge))) {
		if (plug->add)
			vbus_device_add(bridge, plug->id, plug->type);
		else
			vbus_device_drop(bridge, plug->id);
		kfree(plug);
	}
}

/**
 * vbus_hotplug_event - a device comes or goes; interrupt context
 * @bridge: the bridge
 * @add: it comes
 * @id: its number
 * @type: its type
 *
 * Return: 0, or -ENOMEM: ask again later.
 */
int vbus_hotplug_event(struct vbus_bridge *bridge, bool add, u64 id,
		       const char *type)
{
	struct vbus_hotplug *plug = kmalloc(sizeof(*plug),
					    GFP_ATOMIC | __GFP_NOWARN);
	unsigned long flags;

	if (!plug)
		return -ENOMEM;
	plug->add = add;
	plug->id = id;
	strscpy(plug->type, type, sizeof(plug->type));
	spin_lock_irqsave(&bridge->hotplug_lock, flags);
	list_add_tail(&plug->list, &bridge->hotplug);
	spin_unlock_irqrestore(&bridge->hotplug_lock, flags);
	schedule_work(&bridge->hotplug_work);
	return 0;
}

/**
 * vbus_hotplug_init - before the first event
 * @bridge: the bridge
 */
void vbus_hotplug_init(struct vbus_bridge *bridge)
{
	spin_lock_init(&bridge->hotplug_lock);
	INIT_LIST_HEAD(&bridge->hotplug);
	INIT_WORK(&bridge->hotplug_work, vbus_hotplug_run);
}

static int vbus_device_end(struct device *dev, void *data)
{
	if (dev->bus == &vbus_bus)
		device_unregister(dev);
	return 0;
}

/**
 * vbus_hotplug_end - all devices go
 * @bridge: the bridge; no event comes any more
 */
void vbus_hotplug_end(struct vbus_bridge *bridge)
{
	struct vbus_hotplug *plug;

	cancel_work_sync(&bridge->hotplug_work);
	while ((plug = vbus_hotplug_next(bridge)))
		kfree(plug);
	device_for_each_child(bridge->dev, NULL, vbus_device_end);
}
