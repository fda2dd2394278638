// SPDX-License-Identifier: GPL-2.0-only
/*
 * The PCI function that connects us to a vbus: docs/abi/vbus-pci.md.
 */
#include <linux/err.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/pci.h>

#include "bridge.h"

#ifndef PCI_IRQ_INTX
#define PCI_IRQ_INTX PCI_IRQ_LEGACY
#endif

static bool nomsi;
module_param(nomsi, bool, 0444);
MODULE_PARM_DESC(nomsi, "use the interrupt line although there are messages");

static irqreturn_t vbus_pci_interrupt(int irq, void *data)
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

static int vbus_pci_call(struct vbus_bridge *bridge, u32 vector, u32 len,
			 u64 addr)
{
	iowrite32(vector, bridge->regs + VBUS_REG_VECTOR);
	iowrite32(len, bridge->regs + VBUS_REG_LEN);
	iowrite32(lower_32_bits(addr), bridge->regs + VBUS_REG_DATAP);
	iowrite32(upper_32_bits(addr), bridge->regs + VBUS_REG_DATAP + 4);
	wmb();	/* the block, too, before south reads it */
	return (int)ioread32(bridge->regs + VBUS_REG_VECTOR);
}

static int vbus_pci_request_irq(struct vbus_bridge *bridge)
{
	struct pci_dev *pdev = to_pci_dev(bridge->dev);
	int ret;

	ret = pci_alloc_irq_vectors(pdev, 1, 1, nomsi ? PCI_IRQ_INTX :
				    PCI_IRQ_MSI | PCI_IRQ_INTX);
	if (ret < 0)
		return ret;
	bridge->msi = pdev->msi_enabled;
	ret = request_irq(pci_irq_vector(pdev, 0), vbus_pci_interrupt,
			  bridge->msi ? 0 : IRQF_SHARED, VBUS_NAME, bridge);
	if (ret)
		pci_free_irq_vectors(pdev);
	return ret;
}

static void vbus_pci_free_irq(struct vbus_bridge *bridge)
{
	struct pci_dev *pdev = to_pci_dev(bridge->dev);

	free_irq(pci_irq_vector(pdev, 0), bridge);
	pci_free_irq_vectors(pdev);
}

/*
 * A NEGOTIATE resets every host since 2010; the fall of bus mastering is what
 * this project's ABI adds for a driver that goes.
 */
static void vbus_pci_quiesce(struct vbus_bridge *bridge)
{
	vbus_bridge_negotiate(bridge);
	pci_clear_master(to_pci_dev(bridge->dev));
}

static const char *vbus_pci_describe(const struct vbus_bridge *bridge)
{
	return bridge->msi ? "MSI" : "INTx";
}

static const struct vbus_carrier vbus_pci_carrier = {
	.call = vbus_pci_call,
	.request_irq = vbus_pci_request_irq,
	.free_irq = vbus_pci_free_irq,
	.quiesce = vbus_pci_quiesce,
	.describe = vbus_pci_describe,
};

static int vbus_pci_map(struct vbus_bridge *bridge, struct pci_dev *pdev)
{
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

static void vbus_pci_unmap(struct vbus_bridge *bridge, struct pci_dev *pdev)
{
	pci_iounmap(pdev, bridge->ports);
	pci_iounmap(pdev, bridge->regs);
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
	bridge = vbus_bridge_alloc(&pdev->dev, &vbus_pci_carrier);
	if (IS_ERR(bridge))
		return PTR_ERR(bridge);
	ret = pci_enable_device(pdev);
	if (ret)
		goto err_free;
	ret = pci_request_regions(pdev, VBUS_NAME);
	if (ret)
		goto err_disable;
	ret = vbus_pci_map(bridge, pdev);
	if (ret)
		goto err_regions;
	pci_set_master(pdev);
	ret = vbus_bridge_start(bridge);
	if (ret)
		goto err_master;
	return 0;

err_master:
	pci_clear_master(pdev);
	vbus_pci_unmap(bridge, pdev);
err_regions:
	pci_release_regions(pdev);
err_disable:
	pci_disable_device(pdev);
err_free:
	vbus_bridge_free(bridge);
	return ret;
}

static void vbus_pci_remove(struct pci_dev *pdev)
{
	struct vbus_bridge *bridge = pci_get_drvdata(pdev);

	vbus_bridge_stop(bridge);
	vbus_pci_unmap(bridge, pdev);
	pci_release_regions(pdev);
	pci_disable_device(pdev);
	vbus_bridge_free(bridge);
}

/* Another kernel may follow: south must not write to this one's memory then. */
static void vbus_pci_shutdown(struct pci_dev *pdev)
{
	vbus_pci_quiesce(pci_get_drvdata(pdev));
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

/**
 * vbus_pci_register - look for bridges among PCI functions
 *
 * Return: 0 or a negative errno.
 */
int vbus_pci_register(void)
{
	return pci_register_driver(&vbus_pci_driver);
}

/**
 * vbus_pci_unregister - no more of that; those that are there end
 */
void vbus_pci_unregister(void)
{
	pci_unregister_driver(&vbus_pci_driver);
}
