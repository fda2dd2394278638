// SPDX-License-Identifier: GPL-2.0-only
/*
 * vblk: the virtual block device of a vbus. docs/abi/vblk.md.
 */
#include <linux/hdreg.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "vblk.h"

static unsigned int queues;
module_param(queues, uint, 0444);
MODULE_PARM_DESC(queues, "queues of a disk, as far as its device has them (0: one per CPU, which is the most)");

static unsigned int read_queues;
module_param(read_queues, uint, 0444);
MODULE_PARM_DESC(read_queues, "more queues, for reads alone (0; at most one per CPU)");

static DEFINE_IDA(vblk_numbers);

/* What old partition tables are made for. */
static int vblk_getgeo(struct block_device *bdev, struct hd_geometry *geo)
{
	geo->heads = 64;
	geo->sectors = 32;
	geo->cylinders = get_capacity(bdev->bd_disk) >> 11;
	return 0;
}

/* The last one who had it open has closed it. */
static void vblk_free_disk(struct gendisk *disk)
{
	struct vblk *vblk = disk->private_data;

	ida_free(&vblk_numbers, vblk->number);
	kfree(vblk);
}

static const struct block_device_operations vblk_fops = {
	.owner = THIS_MODULE,
	.getgeo = vblk_getgeo,
	.free_disk = vblk_free_disk,
};

static ssize_t serial_show(struct device *dev, struct device_attribute *attr,
			   char *buf)
{
	struct gendisk *disk = dev_to_disk(dev);
	struct vblk *vblk = disk->private_data;
	struct request *rq;
	ssize_t ret;
	char *id;

	if (READ_ONCE(vblk->dead))
		return -ENODEV;
	id = kzalloc(VBLK_ID_SIZE + 1, GFP_KERNEL);
	if (!id)
		return -ENOMEM;
	rq = blk_mq_alloc_request(disk->queue, REQ_OP_DRV_IN, 0);
	if (IS_ERR(rq)) {
		ret = PTR_ERR(rq);
		goto out;
	}
	ret = blk_rq_map_kern(disk->queue, rq, id, VBLK_ID_SIZE, GFP_KERNEL);
	if (!ret)
		ret = blk_status_to_errno(blk_execute_rq(rq, false));
	blk_mq_free_request(rq);
	if (!ret)
		ret = sysfs_emit(buf, "%s\n", id);
out:
	kfree(id);
	return ret;
}
static DEVICE_ATTR_RO(serial);

static struct attribute *vblk_attrs[] = {
	&dev_attr_serial.attr,
	NULL,
};
ATTRIBUTE_GROUPS(vblk);

/* Tells the block layer of the latest size. */
static void vblk_resize(struct work_struct *work)
{
	struct vblk *vblk = container_of(work, struct vblk, resize_work);
	unsigned long flags;
	u64 capacity;

	spin_lock_irqsave(&vblk->lock, flags);
	capacity = vblk->capacity;
	spin_unlock_irqrestore(&vblk->lock, flags);
	if (set_capacity_and_notify(vblk->disk, capacity))
		dev_info(&vblk->vdev->dev, "%s has %llu sectors now\n",
			 vblk->disk->disk_name, capacity);
}

/*
 * The host has given up a ring, or answers nothing, perhaps because it is gone: then
 * no request will be answered any more. Whoever uses the disk gets errors at once;
 * a disk that is bound anew begins anew.
 */
static void vblk_die(struct work_struct *work)
{
	struct vblk *vblk = container_of(work, struct vblk, dead_work);

	if (READ_ONCE(vblk->dead))
		return;
	if (!READ_ONCE(vblk->gone) && vblk_session_alive(vblk))
		return;
	dev_err(&vblk->vdev->dev, "the host has let go of %s\n",
		vblk->disk->disk_name);
	vblk_session_end(vblk);
	blk_mark_disk_dead(vblk->disk);
}

/* One for all at least, and what the device has besides, for reads first. */
static u32 vblk_count_queues(struct vblk *vblk)
{
	u32 most = vblk->caps.max_queues;

	vblk->readers = min3(read_queues, nr_cpu_ids, most - 1);
	return vblk->readers + min3(queues ?: nr_cpu_ids, nr_cpu_ids,
				    most - vblk->readers);
}

static int vblk_tags_create(struct vblk *vblk)
{
	struct blk_mq_tag_set *set = &vblk->tag_set;

	set->ops = &vblk_mq_ops;
	set->nr_hw_queues = vblk_count_queues(vblk);
	set->nr_maps = vblk->readers ? HCTX_TYPE_READ + 1 : 1;
	set->queue_depth = vblk->caps.depth;
	set->numa_node = NUMA_NO_NODE;
	set->cmd_size = vblk_cmd_size(vblk);
	set->flags = BLK_MQ_F_SHOULD_MERGE;
	/* a tag on the wire belongs to one request, whatever its queue */
	if (set->nr_hw_queues > 1)
		set->flags |= BLK_MQ_F_TAG_HCTX_SHARED;
	set->driver_data = vblk;
	return blk_mq_alloc_tag_set(set);
}

static int vblk_disk_create(struct vblk *vblk)
{
	struct gendisk *disk;
	int number;

	number = ida_alloc(&vblk_numbers, GFP_KERNEL);
	if (number < 0)
		return number;
	disk = vblk_alloc_disk(vblk);
	if (IS_ERR(disk)) {
		ida_free(&vblk_numbers, number);
		return PTR_ERR(disk);
	}
	snprintf(disk->disk_name, sizeof(disk->disk_name), VBLK_NAME "%d", number);
	disk->fops = &vblk_fops;
	disk->private_data = vblk;
	vblk->number = number;
	vblk->disk = disk;
	return 0;
}

/* The block layer looks for partitions at once, so all else is ready. */
static int vblk_disk_add(struct vblk *vblk)
{
	struct gendisk *disk = vblk->disk;
	unsigned long flags;
	int ret;

	set_disk_ro(disk, vblk->caps.read_only);
	set_capacity(disk, vblk->capacity);
	ret = device_add_disk(&vblk->vdev->dev, disk, vblk_groups);
	if (ret)
		return ret;
	spin_lock_irqsave(&vblk->lock, flags);
	vblk->added = true;
	if (vblk->capacity != get_capacity(disk) && !READ_ONCE(vblk->dead))
		schedule_work(&vblk->resize_work);
	spin_unlock_irqrestore(&vblk->lock, flags);
	return 0;
}

static int vblk_probe(struct vbus_device *vdev)
{
	struct vblk *vblk;
	int ret;

	vblk = kzalloc(sizeof(*vblk), GFP_KERNEL);
	if (!vblk)
		return -ENOMEM;
	vblk->vdev = vdev;
	spin_lock_init(&vblk->lock);
	INIT_WORK(&vblk->resize_work, vblk_resize);
	INIT_WORK(&vblk->dead_work, vblk_die);
	dev_set_drvdata(&vdev->dev, vblk);

	ret = vblk_session_open(vblk);
	if (ret) {
		dev_err(&vdev->dev, "no session with the host: %d\n", ret);
		goto err_free;
	}
	ret = vblk_tags_create(vblk);
	if (ret)
		goto err_session;
	ret = vblk_disk_create(vblk);
	if (ret)
		goto err_tags;
	ret = vblk_session_start(vblk);
	if (ret) {
		dev_err(&vdev->dev, "the host does not take the rings: %d\n", ret);
		goto err_disk;
	}
	ret = vblk_disk_add(vblk);
	if (ret) {
		dev_err(&vdev->dev, "the disk was not registered: %d\n", ret);
		goto err_disk;
	}
	return 0;

err_disk:
	vblk_session_end(vblk);
	cancel_work_sync(&vblk->dead_work);
	put_disk(vblk->disk);
	ida_free(&vblk_numbers, vblk->number);
err_tags:
	blk_mq_free_tag_set(&vblk->tag_set);
err_session:
	vblk_session_end(vblk);
	vblk_session_free(vblk);
err_free:
	kfree(vblk);
	return ret;
}

static void vblk_remove(struct vbus_device *vdev)
{
	struct vblk *vblk = dev_get_drvdata(&vdev->dev);

	/* what is left to be written is lost if nobody takes it any more */
	if (!vblk_session_alive(vblk)) {
		vblk_session_end(vblk);
		blk_mark_disk_dead(vblk->disk);
	}
	del_gendisk(vblk->disk);
	vblk_session_end(vblk);
	cancel_work_sync(&vblk->dead_work);
	cancel_work_sync(&vblk->resize_work);
	blk_mq_free_tag_set(&vblk->tag_set);
	vblk_session_free(vblk);
	put_disk(vblk->disk);
}

static struct vbus_driver vblk_driver = {
	.type = VBLK_TYPE,
	.probe = vblk_probe,
	.remove = vblk_remove,
};
module_vbus_driver(vblk_driver);

MODULE_ALIAS_VBUS(VBLK_TYPE);
MODULE_DESCRIPTION("virtual-bus: block devices");
MODULE_AUTHOR("The vbus project");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0.0");
