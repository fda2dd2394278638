// SPDX-License-Identifier: GPL-2.0-only
/*
 * The register page that connects guests without PCI to a vbus:
 * docs/abi/vbus-mmio.md. A page does not announce itself: a device tree does,
 * another part of the kernel that registers a platform device "vbus-mmio", or the
 * parameter mmio_device.
 */
#include <linux/err.h>
#include <linux/interrupt.h>
#include <linux/kernel.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/string.h>
#include <linux/version.h>

#include "bridge.h"

#define VBUS_MMIO_NAME "vbus-mmio"

static char *mmio_device;
module_param(mmio_device, charp, 0444);
MODULE_PARM_DESC(mmio_device,
		 "register page of a bus: <size>@<base>:<irq>, such as 4K@0xfea80000:5");

/* What the parameter made. */
static struct platform_device *vbus_mmio_made;

static irqreturn_t vbus_mmio_interrupt(int irq, void *data)
{
	struct vbus_bridge *bridge = data;
	u32 status = ioread32(bridge->regs + VBUS_MMIO_STATUS);

	if (!status)
		return IRQ_NONE;
	/* first: what comes while we look raises the line again */
	iowrite32(status, bridge->regs + VBUS_MMIO_ACK);
	shm_signal_wakeup(&bridge->event_signal);
	return IRQ_HANDLED;
}

static int vbus_mmio_call(struct vbus_bridge *bridge, u32 vector, u32 len,
			  u64 addr)
{
	int ret;

	iowrite32(lower_32_bits(addr), bridge->regs + VBUS_MMIO_DATAP_LOW);
	iowrite32(upper_32_bits(addr), bridge->regs + VBUS_MMIO_DATAP_HIGH);
	iowrite32(len, bridge->regs + VBUS_MMIO_LEN);
	wmb();	/* the block, too, before south reads it */
	iowrite32(vector, bridge->regs + VBUS_MMIO_CALL);
	ret = (int)ioread32(bridge->regs + VBUS_MMIO_RESULT);
	/* a page that was taken away reads as 0, too */
	if (!ret &&
	    ioread32(bridge->regs + VBUS_MMIO_MAGIC) != VBUS_MMIO_MAGIC_VALUE)
		return -ENODEV;
	return ret;
}

static int vbus_mmio_request_irq(struct vbus_bridge *bridge)
{
	return request_irq(bridge->irq, vbus_mmio_interrupt, IRQF_SHARED,
			   VBUS_NAME, bridge);
}

static void vbus_mmio_free_irq(struct vbus_bridge *bridge)
{
	free_irq(bridge->irq, bridge);
}

static void vbus_mmio_quiesce(struct vbus_bridge *bridge)
{
	iowrite32(1, bridge->regs + VBUS_MMIO_RESET);
}

static const char *vbus_mmio_describe(const struct vbus_bridge *bridge)
{
	return "MMIO";
}

static const struct vbus_carrier vbus_mmio_carrier = {
	.call = vbus_mmio_call,
	.request_irq = vbus_mmio_request_irq,
	.free_irq = vbus_mmio_free_irq,
	.quiesce = vbus_mmio_quiesce,
	.describe = vbus_mmio_describe,
};

static int vbus_mmio_check(struct device *dev, void __iomem *regs)
{
	u32 magic = ioread32(regs + VBUS_MMIO_MAGIC);
	u32 version;

	if (magic != VBUS_MMIO_MAGIC_VALUE) {
		dev_err(dev, "no vbus there: it begins with 0x%08x\n", magic);
		return -ENODEV;
	}
	version = ioread32(regs + VBUS_MMIO_VERSION);
	if (version != VBUS_MMIO_ABI_VERSION) {
		dev_err(dev, "register page of version %u; this driver knows %u\n",
			version, VBUS_MMIO_ABI_VERSION);
		return -ENODEV;
	}
	return 0;
}

static int vbus_mmio_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct vbus_bridge *bridge;
	struct resource *res;
	void __iomem *regs;
	int irq, ret;

	res = platform_get_resource(pdev, IORESOURCE_MEM, 0);
	if (!res || resource_size(res) < VBUS_MMIO_SIZE) {
		dev_err(dev, "a register page has %u bytes\n", VBUS_MMIO_SIZE);
		return -EINVAL;
	}
	regs = devm_ioremap_resource(dev, res);
	if (IS_ERR(regs))
		return PTR_ERR(regs);
	irq = platform_get_irq(pdev, 0);
	if (irq < 0)
		return irq;
	ret = vbus_mmio_check(dev, regs);
	if (ret)
		return ret;
	bridge = vbus_bridge_alloc(dev, &vbus_mmio_carrier);
	if (IS_ERR(bridge))
		return PTR_ERR(bridge);
	bridge->regs = regs;
	bridge->ports = regs + VBUS_MMIO_PORTS;
	bridge->irq = irq;
	ret = vbus_bridge_start(bridge);
	if (ret)
		vbus_bridge_free(bridge);
	return ret;
}

static void vbus_mmio_end(struct platform_device *pdev)
{
	struct vbus_bridge *bridge = platform_get_drvdata(pdev);

	vbus_bridge_stop(bridge);
	vbus_bridge_free(bridge);
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
static int vbus_mmio_remove(struct platform_device *pdev)
{
	vbus_mmio_end(pdev);
	return 0;
}
#else
#define vbus_mmio_remove vbus_mmio_end
#endif

/* Another kernel may follow: south must not write to this one's memory then. */
static void vbus_mmio_shutdown(struct platform_device *pdev)
{
	vbus_mmio_quiesce(platform_get_drvdata(pdev));
}

static const struct of_device_id vbus_mmio_ids[] = {
	{ .compatible = "vbus,mmio" },
	{ }
};

/*
 * What MODULE_DEVICE_TABLE would make of these. The modpost that Debian builds for
 * 64-bit machines has another idea of the size of their ids on 32-bit ones.
 */
MODULE_ALIAS("of:N*T*Cvbus,mmio");
MODULE_ALIAS("of:N*T*Cvbus,mmioC*");
MODULE_ALIAS("platform:" VBUS_MMIO_NAME);

static struct platform_driver vbus_mmio_driver = {
	.driver = {
		.name = VBUS_MMIO_NAME,
		.of_match_table = vbus_mmio_ids,
	},
	.probe = vbus_mmio_probe,
	.remove = vbus_mmio_remove,
	.shutdown = vbus_mmio_shutdown,
};

static int vbus_mmio_parse(const char *text, struct resource res[2])
{
	unsigned long long size;
	unsigned int irq;
	long long base;
	int used = 0;
	char *end;

	size = memparse(text, &end);
	if (sscanf(end, "@%lli:%u%n", &base, &irq, &used) != 2 || end[used])
		return -EINVAL;
	memset(res, 0, 2 * sizeof(*res));
	res[0].flags = IORESOURCE_MEM;
	res[0].start = base;
	res[0].end = base + size - 1;
	res[1].flags = IORESOURCE_IRQ;
	res[1].start = irq;
	res[1].end = irq;
	/* as 64-bit numbers, and as addresses of this machine */
	if (base < 0 || size < VBUS_MMIO_SIZE || size - 1 > S64_MAX - base ||
	    res[0].start != base || res[0].end != base + size - 1)
		return -EINVAL;
	return 0;
}

static int vbus_mmio_make(void)
{
	struct resource res[2];
	struct platform_device *pdev;

	if (!mmio_device)
		return 0;
	if (vbus_mmio_parse(mmio_device, res)) {
		pr_err(VBUS_NAME ": mmio_device=%s; give <size>@<base>:<irq>, such as 4K@0xfea80000:5\n",
		       mmio_device);
		return -EINVAL;
	}
	pdev = platform_device_register_simple(VBUS_MMIO_NAME, PLATFORM_DEVID_NONE,
					       res, ARRAY_SIZE(res));
	if (IS_ERR(pdev)) {
		pr_err(VBUS_NAME ": mmio_device=%s is not free: %ld\n",
		       mmio_device, PTR_ERR(pdev));
		return PTR_ERR(pdev);
	}
	vbus_mmio_made = pdev;
	return 0;
}

/**
 * vbus_mmio_register - look for bridges among platform devices
 *
 * Return: 0 or a negative errno.
 */
int vbus_mmio_register(void)
{
	int ret = platform_driver_register(&vbus_mmio_driver);

	if (ret)
		return ret;
	ret = vbus_mmio_make();
	if (ret)
		platform_driver_unregister(&vbus_mmio_driver);
	return ret;
}

/**
 * vbus_mmio_unregister - no more of that; those that are there end
 */
void vbus_mmio_unregister(void)
{
	if (vbus_mmio_made)
		platform_device_unregister(vbus_mmio_made);
	platform_driver_unregister(&vbus_mmio_driver);
}
