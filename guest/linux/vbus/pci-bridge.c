// SPDX-License-Identifier: GPL-2.0-only
/*
 * The PCI function that connects us to a vbus: docs/abi/vbus-pci.md.
 */
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>

#include "bridge.h"

#ifndef PCI_IRQ_INTX
#define PCI_IRQ_INTX PCI_IRQ_LEGACY
#endif

#define VBUS_NAME "vbus"

static bool ilp32;
module_param(ilp32, bool, 0444);
MODULE_PARM_DESC(ilp32, "lay out parameter blocks as i386 kernels of 2009 did");

static bool nomsi;
module_param(nomsi, bool, 0444);
MODULE_PARM_DESC(nomsi, "use the interrupt line although there are messages");

/* Devices are named after their number on the one bus of a guest. */
static atomic_t vbus_bridges = ATOMIC_INIT(0);

static irqreturn_t vbus_interrupt(int irq, void *data)
{
	struct vbus_bridge *bridge = data;

	/*
	 * The line is shared, and stays up until it is acknowledged; after that
	 * it rises again for what comes while we look. Hosts without this
	 * register pulse it, and answer anything.
	 */
	if (!bridge->msi && !ioread32(bridge->ports + VBUS_PORT_INTX) &&
	    !shm_signal_due(&bridge->event_signal))
		return IRQ_NONE;
	shm_signal_wakeup(&bridge->event_signal);
	return IRQ_HANDLED;
}

static int vbus_map(struct vbus_bridge *bridge)
{
	struct pci_dev *pdev = bridge->pdev;

	if (!(pci_resource_flags(pdev, 0) & IORESOURCE_MEM) ||
	    pci_resource_len(pdev, 0) < VBUS_REGS_SIZE ||
	    !(pci_resource_flags(pdev, 1) & IORESOURCE_IO) ||
	    pci_resource_len(pdev, 1) < VBUS_PORTS_SIZE)
		return -ENODEV;
	bridge->regs = pci_iomap(pdev, 0, VBUS_REGS_SIZE);
	if (!bridge->regs)
		return -ENOMEM;
	bridge->ports = pci_iomap(pdev, 1, VBUS_PORTS_SIZE);
	if (!bridge->ports) {
		pci_iounmap(pdev, bridge->regs);
		return -ENOMEM;
	}
	return 0;
}

static void vbus_unmap(struct vbus_bridge *bridge)
{
	pci_iounmap(bridge->pdev, bridge->ports);
	pci_iounmap(bridge->pdev, bridge->regs);
}

static int vbus_request_irq(struct vbus_bridge *bridge)
{
	struct pci_dev *pdev = bridge->pdev;
	int ret;

	ret = pci_alloc_irq_vectors(pdev, 1, 1, nomsi ? PCI_IRQ_INTX :
				    PCI_IRQ_MSI | PCI_IRQ_INTX);
	if (ret < 0)
		return ret;
	bridge->msi = pdev->msi_enabled;
	ret = request_irq(pci_irq_vector(pdev, 0), vbus_interrupt,
			  bridge->msi ? 0 : IRQF_SHARED, VBUS_NAME, bridge);
	if (ret)
		pci_free_irq_vectors(pdev);
	return ret;
}

static void vbus_free_irq(struct vbus_bridge *bridge)
{
	free_irq(pci_irq_vector(bridge->pdev, 0), bridge);
	pci_free_irq_vectors(bridge->pdev);
}

/*
 * South forgets us. A NEGOTIATE resets every host since 2010; the fall of bus
 * mastering is what this project's ABI adds for a driver that goes.
 */
static void vbus_quiesce(struct vbus_bridge *bridge)
{
	vbus_bridge_negotiate(bridge);
	pci_clear_master(bridge->pdev);
}

static int vbus_pci_start(struct vbus_bridge *bridge)
{
	struct device *dev = &bridge->pdev->dev;
	int ret;

	ret = vbus_bridge_negotiate(bridge);
	if (ret) {
		dev_err(dev, "the host does not speak version %d: %d\n",
			VBUS_HC_VERSION, ret);
		goto err_master;
	}
	ret = vbus_events_create(bridge);
	if (ret)
		goto err_master;
	ret = vbus_request_irq(bridge);
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
	return 0;

err_channels:
	vbus_quiesce(bridge);
	vbus_bridge_free_channels(bridge);
	vbus_free_irq(bridge);
err_events:
	vbus_events_destroy(bridge);
err_master:
	pci_clear_master(bridge->pdev);
	return ret;
}

static int vbus_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct vbus_bridge *bridge;
	int ret;

	if (pdev->revision != VBUS_PCI_ABI_VERSION) {
		dev_err(&pdev->dev, "PCI ABI %u; this driver knows %u\n",
			pdev->revision, VBUS_PCI_ABI_VERSION);
		return -ENODEV;
	}
	if (atomic_cmpxchg(&vbus_bridges, 0, 1)) {
		dev_err(&pdev->dev, "there is another bridge already\n");
		return -EEXIST;
	}
	ret = -ENOMEM;
	bridge = kzalloc(sizeof(*bridge), GFP_KERNEL);
	if (!bridge)
		goto err_count;
	bridge->pdev = pdev;
	bridge->ilp32 = ilp32;
	spin_lock_init(&bridge->call_lock);
	xa_init_flags(&bridge->signals, XA_FLAGS_ALLOC1 | XA_FLAGS_LOCK_IRQ);
	vbus_hotplug_init(bridge);
	pci_set_drvdata(pdev, bridge);

	ret = pci_enable_device(pdev);
	if (ret)
		goto err_free;
	ret = pci_request_regions(pdev, VBUS_NAME);
	if (ret)
		goto err_disable;
	ret = vbus_map(bridge);
	if (ret)
		goto err_regions;
	pci_set_master(pdev);
	ret = vbus_pci_start(bridge);
	if (ret)
		goto err_unmap;
	dev_info(&pdev->dev, "vbus bridge, %s, %s layout\n",
		 bridge->msi ? "MSI" : "INTx", bridge->ilp32 ? "ILP32" : "LP64");
	return 0;

err_unmap:
	vbus_hotplug_end(bridge);
	vbus_unmap(bridge);
err_regions:
	pci_release_regions(pdev);
err_disable:
	pci_disable_device(pdev);
err_free:
	xa_destroy(&bridge->signals);
	kfree(bridge);
err_count:
	atomic_set(&vbus_bridges, 0);
	return ret;
}

static void vbus_pci_remove(struct pci_dev *pdev)
{
	struct vbus_bridge *bridge = pci_get_drvdata(pdev);

	/* drivers let go of their devices while calls and signals still work */
	vbus_hotplug_end(bridge);
	vbus_quiesce(bridge);
	vbus_free_irq(bridge);
	vbus_hotplug_end(bridge);	/* what was announced meanwhile */
	vbus_signals_drop(bridge);
	vbus_bridge_free_channels(bridge);
	vbus_events_destroy(bridge);
	vbus_unmap(bridge);
	pci_release_regions(pdev);
	pci_disable_device(pdev);
	kfree(bridge);
	atomic_set(&vbus_bridges, 0);
}

/* Another kernel may follow: south must not write to this one's memory then. */
static void vbus_pci_shutdown(struct pci_dev *pdev)
{
	vbus_quiesce(pci_get_drvdata(pdev));
}

static const struct pci_device_id vbus_pci_ids[] = {
	{ PCI_DEVICE(VBUS_PCI_VENDOR, VBUS_PCI_DEVICE) },
	{ }
};
MODULE_DEVICE_TABLE(pci, vbus_pci_ids);

static struct pci_driver vbus_pci_driver = {
	.name = VBUS_NAME,
	.id_table = vbus_pci_ids,
	.probe = vbus_pci_probe,
	.remove = vbus_pci_remove,
	.shutdown = vbus_pci_shutdown,
};

static int __init vbus_init(void)
{
	int ret = vbus_bus_register();

	if (ret)
		return ret;
	ret = pci_register_driver(&vbus_pci_driver);
	if (ret)
		vbus_bus_unregister();
	return ret;
}

static void __exit vbus_exit(void)
{
	pci_unregister_driver(&vbus_pci_driver);
	vbus_bus_unregister();
}

module_init(vbus_init);
module_exit(vbus_exit);

MODULE_DESCRIPTION("virtual-bus: PCI bridge and proxy bus");
MODULE_AUTHOR("The vbus project");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0.0");
