// SPDX-License-Identifier: GPL-2.0-only
/*
 * vconsole: the virtual console of a vbus. docs/abi/vconsole.md.
 */
#include <linux/module.h>
#include <linux/slab.h>

#include "vconsole.h"

static int vconsole_probe(struct vbus_device *vdev)
{
	struct vconsole *con;
	int ret;

	con = kzalloc(sizeof(*con), GFP_KERNEL);
	if (!con)
		return -ENOMEM;
	con->vdev = vdev;
	spin_lock_init(&con->lock);
	INIT_WORK(&con->line_work, vconsole_line);
	dev_set_drvdata(&vdev->dev, con);

	ret = vconsole_session_open(con);
	if (ret) {
		dev_err(&vdev->dev, "no session with the host: %d\n", ret);
		goto err_session;
	}
	ret = vconsole_tty_add(con);
	if (ret) {
		dev_err(&vdev->dev, "the console was not registered: %d\n", ret);
		vconsole_session_end(con);
		cancel_work_sync(&con->line_work);
		goto err_session;
	}
	vconsole_session_watch(con);
	dev_info(&vdev->dev, "hvc%d\n", con->hp->index);
	return 0;

err_session:
	vconsole_session_free(con);
	kfree(con);
	return ret;
}

static void vconsole_remove(struct vbus_device *vdev)
{
	struct vconsole *con = dev_get_drvdata(&vdev->dev);

	vconsole_session_end(con);
	cancel_work_sync(&con->line_work);
	vconsole_tty_del(con);
	vconsole_session_free(con);
	kfree(con);
}

static struct vbus_driver vconsole_driver = {
	.type = VCONSOLE_TYPE,
	.probe = vconsole_probe,
	.remove = vconsole_remove,
};
module_vbus_driver(vconsole_driver);

MODULE_ALIAS_VBUS(VCONSOLE_TYPE);
MODULE_DESCRIPTION("virtual-bus: consoles");
MODULE_AUTHOR("The vbus project");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0.0");
