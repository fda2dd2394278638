// SPDX-License-Identifier: GPL-2.0-only
/*
 * The life of a bridge, whatever carries it, and of the module.
 * docs/abi/vbus-pci.md sections 9 and 10.
 */
#include <linux/err.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "bridge.h"

static bool ilp32;
module_param(ilp32, bool, 0444);
MODULE_PARM_DESC(ilp32, "lay out parameter blocks as i386 kernels of 2009 did");

/* Devices are named after their number on the one bus of a guest. */
static atomic_t vbus_bridges = ATOMIC_INIT(0);

/**
 * vbus_bridge_alloc - make a bridge
 * @dev: the PCI function or platform device
 * @carrier: how to reach it
 *
 * Return: the bridge, -EEXIST when there is one already, or -ENOMEM. Its
 * registers are to be set.
 */
struct vbus_bridge *vbus_bridge_alloc(struct device *dev,
				      const struct vbus_carrier *carrier)
{
	struct vbus_bridge *bridge;

	if (atomic_cmpxchg(&vbus_bridges, 0, 1)) {
		dev_err(dev, "there is another bridge already\n");
		return ERR_PTR(-EEXIST);
	}
	bridge = kzalloc(sizeof(*bridge), GFP_KERNEL);
	if (!bridge) {
		atomic_set(&vbus_bridges, 0);
		return ERR_PTR(-ENOMEM);
	}
	bridge->dev = dev;
	bridge->carrier = carrier;
	bridge->ilp32 = ilp32;
	spin_lock_init(&bridge->call_lock);
	xa_init_flags(&bridge->signals, XA_FLAGS_ALLOC1 | XA_FLAGS_LOCK_IRQ);
	vbus_hotplug_init(bridge);
	dev_set_drvdata(dev, bridge);
	return bridge;
}

/**
 * vbus_bridge_free - free a bridge that was not started, or was stopped
 * @bridge: the bridge
 */
void vbus_bridge_free(struct vbus_bridge *bridge)
{
	xa_destroy(&bridge->signals);
	kfree(bridge);
	atomic_set(&vbus_bridges, 0);
}

/**
 * vbus_bridge_start - negotiate, and have events come
 * @bridge: the bridge
 *
 * Devices appear from now on.
 *
 * Return: 0 or a negative errno; then south knows nothing of us.
 */
int vbus_bridge_start(struct vbus_bridge *bridge)
{
	const struct vbus_carrier *carrier = bridge->carrier;
	struct device *dev = bridge->dev;
	int ret;

	ret = vbus_bridge_negotiate(bridge);
	if (ret) {
		dev_err(dev, "the host does not speak version %d: %d\n",
			VBUS_HC_VERSION, ret);
		return ret;
	}
	ret = vbus_events_create(bridge);
	if (ret)
		return ret;
	ret = carrier->request_irq(bridge);
	if (ret) {
		dev_err(dev, "no interrupt: %d\n", ret);
		goto err_events;
	}
	ret = vbus_bridge_add_channels(bridge);
	if (ret) {
		dev_err(dev, "no channels for calls: %d\n", ret);
		goto err_channels;
	}
	ret = vbus_bridge_register_events(bridge);
	if (ret) {
		dev_err(dev, "no event queue: %d\n", ret);
		goto err_channels;
	}
	dev_info(dev, "vbus bridge, %s, %s layout\n", carrier->describe(bridge),
		 bridge->ilp32 ? "ILP32" : "LP64");
	return 0;

err_channels:
	carrier->quiesce(bridge);
	vbus_bridge_free_channels(bridge);
	carrier->free_irq(bridge);
err_events:
	vbus_events_destroy(bridge);
	vbus_hotplug_end(bridge);
	return ret;
}

/**
 * vbus_bridge_stop - end all devices, and have south forget us
 * @bridge: the bridge
 */
void vbus_bridge_stop(struct vbus_bridge *bridge)
{
	/* drivers let go of their devices while calls and signals still work */
	vbus_hotplug_end(bridge);
	bridge->carrier->quiesce(bridge);
	bridge->carrier->free_irq(bridge);
	vbus_hotplug_end(bridge);	/* what was announced meanwhile */
	vbus_signals_drop(bridge);
	vbus_bridge_free_channels(bridge);
	vbus_events_destroy(bridge);
}

static int __init vbus_init(void)
{
	int ret = vbus_bus_register();

	if (ret)
		return ret;
	ret = vbus_mmio_register();
	if (ret)
		goto err_bus;
	ret = vbus_pci_register();
	if (ret)
		goto err_mmio;
	return 0;

err_mmio:
	vbus_mmio_unregister();
err_bus:
	vbus_bus_unregister();
	return ret;
}

static void __exit vbus_exit(void)
{
	vbus_pci_unregister();
	vbus_mmio_unregister();
	vbus_bus_unregister();
}

module_init(vbus_init);
module_exit(vbus_exit);

MODULE_DESCRIPTION("virtual-bus: bridges by PCI and by MMIO, and the proxy bus");
MODULE_AUTHOR("The vbus project");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0.0");
