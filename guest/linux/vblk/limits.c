// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the block layer may send: the device's limits, in the terms of the kernel
 * that this is compiled for.
 */
#include <linux/version.h>

#include "vblk.h"

static u32 vblk_sectors(u32 bytes)
{
	return bytes >> SECTOR_SHIFT;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
/**
 * vblk_alloc_disk - make the disk, and its queue
 * @vblk: the disk, its session open and its tags there
 *
 * Return: the disk, unknown to everybody, or an ERR_PTR().
 */
struct gendisk *vblk_alloc_disk(struct vblk *vblk)
{
	const struct vblk_caps *caps = &vblk->caps;
	struct queue_limits limits = {
		.features = BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA,
		.logical_block_size = SECTOR_SIZE,
		.max_hw_sectors = vblk_sectors(caps->max_length),
		.max_segments = caps->max_pieces,
		.max_segment_size = caps->max_length,
	};

	if (caps->discard) {
		limits.max_hw_discard_sectors = vblk_sectors(caps->max_bulk);
		limits.discard_granularity = SECTOR_SIZE;
	}
	if (caps->write_zeroes)
		limits.max_write_zeroes_sectors = vblk_sectors(caps->max_bulk);
	return blk_mq_alloc_disk(&vblk->tag_set, &limits, vblk);
}
#else
/**
 * vblk_alloc_disk - make the disk, and its queue
 * @vblk: the disk, its session open and its tags there
 *
 * Return: the disk, unknown to everybody, or an ERR_PTR().
 */
struct gendisk *vblk_alloc_disk(struct vblk *vblk)
{
	const struct vblk_caps *caps = &vblk->caps;
	struct request_queue *q;
	struct gendisk *disk;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
	disk = blk_mq_alloc_disk(&vblk->tag_set, NULL, vblk);
#else
	disk = blk_mq_alloc_disk(&vblk->tag_set, vblk);
#endif
	if (IS_ERR(disk))
		return disk;
	q = disk->queue;
	blk_queue_flag_set(QUEUE_FLAG_NONROT, q);
	blk_queue_write_cache(q, true, true);
	blk_queue_max_hw_sectors(q, vblk_sectors(caps->max_length));
	blk_queue_max_segments(q, caps->max_pieces);
	blk_queue_max_segment_size(q, caps->max_length);
	if (caps->discard) {
		blk_queue_max_discard_sectors(q, vblk_sectors(caps->max_bulk));
		q->limits.discard_granularity = SECTOR_SIZE;
	}
	if (caps->write_zeroes)
		blk_queue_max_write_zeroes_sectors(q,
						   vblk_sectors(caps->max_bulk));
	return disk;
}
#endif
