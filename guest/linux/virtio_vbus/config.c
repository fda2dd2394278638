// SPDX-License-Identifier: GPL-2.0-only
/*
 * Status, features and configuration: each a call to the device. The virtio core
 * gives most of these operations no way to fail; what fails is logged, and reads
 * as 0.
 */
#include <linux/string.h>
#include <linux/virtio_ring.h>

#include "virtio_vbus.h"

/* Newer than some kernels that this compiles for; virtio 1.2, 6. */
#ifndef VIRTIO_F_NOTIFICATION_DATA
#define VIRTIO_F_NOTIFICATION_DATA	38
#endif
#ifndef VIRTIO_F_NOTIF_CONFIG_DATA
#define VIRTIO_F_NOTIF_CONFIG_DATA	39
#endif

static int virtio_vbus_call(struct virtio_device *vdev, u32 func, void *data,
			    u32 len)
{
	int ret = vbus_call(to_virtio_vbus(vdev)->vbus, func, data, len);

	if (ret < 0)
		dev_err_ratelimited(&vdev->dev, "call %u failed: %d\n", func, ret);
	return ret;
}

/* One call: all of it is from one state of the configuration. */
static int virtio_vbus_get_piece(struct virtio_device *vdev, unsigned int offset,
				 void *buf, unsigned int len, u32 *generation)
{
	struct virtio_vbus_config block = { .offset = cpu_to_le32(offset) };
	int ret = virtio_vbus_call(vdev, VIRTIO_VBUS_READ_CONFIG, &block,
				   offsetof(struct virtio_vbus_config, data) + len);

	if (ret < 0)
		return ret;
	memcpy(buf, block.data, len);
	*generation = le32_to_cpu(block.generation);
	return 0;
}

/**
 * virtio_vbus_get - read device configuration
 * @vdev: the device
 * @offset: where
 * @buf: where to
 * @len: how much
 */
void virtio_vbus_get(struct virtio_device *vdev, unsigned int offset, void *buf,
		     unsigned int len)
{
	unsigned int done, attempts = 0;
	u32 first, generation;

again:
	first = 0;
	for (done = 0; done < len;) {
		unsigned int n = min_t(unsigned int, len - done,
				       VIRTIO_VBUS_CONFIG_PIECE);

		if (virtio_vbus_get_piece(vdev, offset + done, buf + done, n,
					  &generation)) {
			memset(buf, 0, len);
			return;
		}
		if (!done)
			first = generation;
		else if (generation != first && attempts++ < 16)
			goto again;
		done += n;
	}
}

/**
 * virtio_vbus_set - write device configuration
 * @vdev: the device
 * @offset: where
 * @buf: where from
 * @len: how much
 */
void virtio_vbus_set(struct virtio_device *vdev, unsigned int offset,
		     const void *buf, unsigned int len)
{
	unsigned int done, n;

	for (done = 0; done < len; done += n) {
		struct virtio_vbus_config block = {
			.offset = cpu_to_le32(offset + done),
		};

		n = min_t(unsigned int, len - done, VIRTIO_VBUS_CONFIG_PIECE);
		memcpy(block.data, buf + done, n);
		if (virtio_vbus_call(vdev, VIRTIO_VBUS_WRITE_CONFIG, &block,
				     offsetof(struct virtio_vbus_config, data) + n) < 0)
			return;
	}
}

/**
 * virtio_vbus_generation - number of the configuration's state
 * @vdev: the device
 */
u32 virtio_vbus_generation(struct virtio_device *vdev)
{
	u32 generation;
	u8 nothing;

	return virtio_vbus_get_piece(vdev, 0, &nothing, 0, &generation) ?
		       0 : generation;
}

/**
 * virtio_vbus_get_status - read the status
 * @vdev: the device
 */
u8 virtio_vbus_get_status(struct virtio_device *vdev)
{
	int ret = virtio_vbus_call(vdev, VIRTIO_VBUS_GET_STATUS, NULL, 0);

	return ret < 0 ? 0 : ret;
}

static int virtio_vbus_write_status(struct virtio_device *vdev, u8 status)
{
	__le32 block = cpu_to_le32(status);

	return virtio_vbus_call(vdev, VIRTIO_VBUS_SET_STATUS, &block,
				sizeof(block));
}

/**
 * virtio_vbus_set_status - write the status
 * @vdev: the device
 * @status: not 0
 *
 * The call is a full barrier: all that was stored before, the device sees when it
 * sees the status.
 */
void virtio_vbus_set_status(struct virtio_device *vdev, u8 status)
{
	WARN_ON(!status);
	virtio_vbus_write_status(vdev, status);
}

/**
 * virtio_vbus_reset - reset the device
 * @vdev: the device
 *
 * It has let go of all queues and buffers when this returns, and no callback runs.
 */
void virtio_vbus_reset(struct virtio_device *vdev)
{
	virtio_vbus_write_status(vdev, 0);
	virtio_vbus_synchronize_cbs(vdev);
}

/**
 * virtio_vbus_get_features - what the device offers
 * @vdev: the device
 */
u64 virtio_vbus_get_features(struct virtio_device *vdev)
{
	__le64 block = 0;

	if (virtio_vbus_call(vdev, VIRTIO_VBUS_GET_FEATURES, &block,
			     sizeof(block)) < 0)
		return 0;
	return le64_to_cpu(block);
}

/**
 * virtio_vbus_finalize_features - tell the device what is used of that
 * @vdev: the device
 *
 * Return: 0 or a negative errno.
 */
int virtio_vbus_finalize_features(struct virtio_device *vdev)
{
	bool ring_reset = __virtio_test_bit(vdev, VIRTIO_F_RING_RESET);
	__le64 block;
	int ret;

	vring_transport_features(vdev);
	/* the ring does not know of it, for it takes the transport */
	if (ring_reset)
		__virtio_set_bit(vdev, VIRTIO_F_RING_RESET);
	/* addresses are guest-physical, and kicks carry nothing */
	__virtio_clear_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);
	__virtio_clear_bit(vdev, VIRTIO_F_NOTIFICATION_DATA);
	__virtio_clear_bit(vdev, VIRTIO_F_NOTIF_CONFIG_DATA);
	if (!__virtio_test_bit(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(&vdev->dev, "the device is a legacy one\n");
		return -EINVAL;
	}
	block = cpu_to_le64(vdev->features);
	ret = virtio_vbus_call(vdev, VIRTIO_VBUS_SET_FEATURES, &block,
			       sizeof(block));
	return ret < 0 ? ret : 0;
}
