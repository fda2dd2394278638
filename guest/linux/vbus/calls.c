// SPDX-License-Identifier: GPL-2.0-only
/*
 * Calls to south: bridge calls through the carrier's registers, bus calls through
 * a channel per CPU. docs/abi/vbus-pci.md sections 3 and 5. Both are synchronous.
 * Parameter blocks lie in the direct mapping, never on a stack, for south wants
 * their guest-physical address.
 */
#include <linux/cpumask.h>
#include <linux/io.h>
#include <linux/slab.h>
#include <linux/smp.h>

#include "bridge.h"

/* Executes a bridge call on the first @len bytes of bridge->block. */
static int vbus_bridge_call(struct vbus_bridge *bridge, u32 vector, u32 len)
{
	u64 addr = virt_to_phys(bridge->block);

	lockdep_assert_held(&bridge->call_lock);
	return bridge->carrier->call(bridge, vector, len, addr);
}

/**
 * vbus_bridge_negotiate - agree on the version; resets south's side of the bridge
 * @bridge: the bridge
 *
 * Return: 0 or a negative errno.
 */
int vbus_bridge_negotiate(struct vbus_bridge *bridge)
{
	struct vbus_abi_negotiate *args = (void *)bridge->block;
	int ret;

	spin_lock(&bridge->call_lock);
	args->magic = cpu_to_le32(VBUS_PCI_ABI_MAGIC);
	args->version = cpu_to_le32(VBUS_HC_VERSION);
	args->capabilities = 0;
	ret = vbus_bridge_call(bridge, VBUS_BRIDGE_NEGOTIATE, sizeof(*args));
	spin_unlock(&bridge->call_lock);
	return ret < 0 ? ret : 0;
}

/**
 * vbus_bridge_register_events - tell south of the event queue
 * @bridge: the bridge
 *
 * Events may arrive before this returns.
 *
 * Return: 0 or a negative errno.
 */
int vbus_bridge_register_events(struct vbus_bridge *bridge)
{
	__le32 count = cpu_to_le32(bridge->events->count);
	__le64 ring = cpu_to_le64(virt_to_phys(bridge->events->ring));
	__le64 data = cpu_to_le64(virt_to_phys(bridge->records));
	int ret;

	spin_lock(&bridge->call_lock);
	if (bridge->ilp32) {
		struct vbus_abi_busreg_ilp32 *args = (void *)bridge->block;

		args->count = cpu_to_le32(1);
		args->eventq_count = count;
		args->eventq_ring = ring;
		args->eventq_data = data;
		ret = vbus_bridge_call(bridge, VBUS_BRIDGE_QREG, sizeof(*args));
	} else {
		struct vbus_abi_busreg *args = (void *)bridge->block;

		memset(args, 0, sizeof(*args));
		args->count = cpu_to_le32(1);
		args->eventq_count = count;
		args->eventq_ring = ring;
		args->eventq_data = data;
		ret = vbus_bridge_call(bridge, VBUS_BRIDGE_QREG, sizeof(*args));
	}
	spin_unlock(&bridge->call_lock);
	return ret < 0 ? ret : 0;
}

/**
 * vbus_bridge_add_channels - make a channel for each possible CPU
 * @bridge: the bridge
 *
 * Return: 0 or a negative errno; then the bridge is to be reset before the
 * channels are freed.
 */
int vbus_bridge_add_channels(struct vbus_bridge *bridge)
{
	struct vbus_abi_call *args = (void *)bridge->block;
	unsigned int cpu;
	int ret = 0;

	bridge->channels = kcalloc(nr_cpu_ids, sizeof(*bridge->channels),
				   GFP_KERNEL);
	if (!bridge->channels)
		return -ENOMEM;
	for_each_possible_cpu(cpu) {
		spin_lock(&bridge->call_lock);
		args->vector = cpu_to_le32(cpu);
		args->len = cpu_to_le32(bridge->ilp32 ?
					VBUS_FASTCALL_SIZE_ILP32 :
					sizeof(struct vbus_abi_fastcall));
		args->datap = cpu_to_le64(virt_to_phys(&bridge->channels[cpu]));
		ret = vbus_bridge_call(bridge, VBUS_BRIDGE_FASTCALL_ADD,
				       sizeof(*args));
		spin_unlock(&bridge->call_lock);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/**
 * vbus_bridge_free_channels - free the channels, once south has forgotten them
 * @bridge: the bridge
 */
void vbus_bridge_free_channels(struct vbus_bridge *bridge)
{
	kfree(bridge->channels);
	bridge->channels = NULL;
}

/* Takes this CPU's channel: preemption is off until vbus_channel_call() is through. */
static struct vbus_channel *vbus_channel_get(struct vbus_bridge *bridge)
{
	might_sleep();	/* a softirq would find the channel of its CPU in use */
	return &bridge->channels[get_cpu()];
}

/* Executes a bus call with the parameters in channel->args. */
static int vbus_channel_call(struct vbus_bridge *bridge,
			     struct vbus_channel *channel, u32 vector, u32 len)
{
	struct vbus_abi_fastcall *fastcall = &channel->fastcall;

	fastcall->call.vector = cpu_to_le32(vector);
	fastcall->call.len = cpu_to_le32(len);
	fastcall->call.datap = cpu_to_le64(virt_to_phys(channel->args));
	/* south says nothing of a channel it does not know */
	fastcall->result = cpu_to_le32(-EIO);
	wmb();	/* the block before south is told */
	iowrite32(channel - bridge->channels,
		  bridge->ports + VBUS_PORT_FASTCALL);
	rmb();	/* what south has written, after the doorbell completed */
	return (int)le32_to_cpu(READ_ONCE(fastcall->result));
}

/**
 * vbus_hc_open - open a device
 * @bridge: the bridge
 * @id: number of the device
 * @version: version of its interface
 * @handle: where the session's handle goes
 *
 * Return: 0 or a negative errno.
 */
int vbus_hc_open(struct vbus_bridge *bridge, u32 id, u32 version, u64 *handle)
{
	struct vbus_channel *channel = vbus_channel_get(bridge);
	struct vbus_abi_open *args = (void *)channel->args;
	int ret;

	args->devid = cpu_to_le32(id);
	args->version = cpu_to_le32(version);
	args->handle = 0;
	ret = vbus_channel_call(bridge, channel, VBUS_HC_DEVOPEN, sizeof(*args));
	*handle = le64_to_cpu(args->handle);
	put_cpu();
	if (ret < 0)
		return ret;
	return *handle ? 0 : -EPROTO;
}

/**
 * vbus_hc_close - close a session
 * @bridge: the bridge
 * @handle: its handle
 *
 * Return: 0 or a negative errno. South has let go of all of the session's memory.
 */
int vbus_hc_close(struct vbus_bridge *bridge, u64 handle)
{
	struct vbus_channel *channel = vbus_channel_get(bridge);
	__le64 *args = (void *)channel->args;
	int ret;

	*args = cpu_to_le64(handle);
	ret = vbus_channel_call(bridge, channel, VBUS_HC_DEVCLOSE, sizeof(*args));
	put_cpu();
	return ret;
}

/**
 * vbus_hc_call - call a device
 * @bridge: the bridge
 * @handle: the session
 * @func: function of the device
 * @data: its parameters, read and written
 * @len: their length, at most VBUS_DATA_MAX
 *
 * Return: the device's result (>= 0) or a negative errno.
 */
int vbus_hc_call(struct vbus_bridge *bridge, u64 handle, u32 func, void *data,
		 u32 len)
{
	struct vbus_channel *channel;
	__le64 datap;
	int ret;

	if (len > VBUS_DATA_MAX)
		return -EMSGSIZE;
	channel = vbus_channel_get(bridge);
	memcpy(channel->data, data, len);
	datap = cpu_to_le64(virt_to_phys(channel->data));
	if (bridge->ilp32) {
		struct vbus_abi_devcall_ilp32 *args = (void *)channel->args;

		args->devh = cpu_to_le64(handle);
		args->func = cpu_to_le32(func);
		args->len = cpu_to_le32(len);
		args->flags = 0;
		args->datap = datap;
		ret = vbus_channel_call(bridge, channel, VBUS_HC_DEVCALL,
					sizeof(*args));
	} else {
		struct vbus_abi_devcall *args = (void *)channel->args;

		args->devh = cpu_to_le64(handle);
		args->func = cpu_to_le32(func);
		args->len = cpu_to_le32(len);
		args->flags = 0;
		args->pad = 0;
		args->datap = datap;
		ret = vbus_channel_call(bridge, channel, VBUS_HC_DEVCALL,
					sizeof(*args));
	}
	memcpy(data, channel->data, len);
	put_cpu();
	return ret;
}

/**
 * vbus_hc_shm - share a segment with a device
 * @bridge: the bridge
 * @handle: the session
 * @id: which of the device's segments
 * @addr: guest-physical address, contiguous
 * @len: length
 * @offset: where its signal lies, or VBUS_NO_SIGNAL
 * @cookie: by what name south rings us
 *
 * Return: the signal's handle, 0 without a signal, or a negative errno.
 */
int vbus_hc_shm(struct vbus_bridge *bridge, u64 handle, u32 id,
		phys_addr_t addr, u32 len, u32 offset, u64 cookie)
{
	struct vbus_channel *channel = vbus_channel_get(bridge);
	int ret;

	if (bridge->ilp32) {
		struct vbus_abi_shm_ilp32 *args = (void *)channel->args;

		args->devh = cpu_to_le64(handle);
		args->id = cpu_to_le32(id);
		args->len = cpu_to_le32(len);
		args->flags = 0;
		args->offset = cpu_to_le32(offset);
		args->prio = 0;
		args->cookie = cpu_to_le64(cookie);
		args->datap = cpu_to_le64(addr);
		ret = vbus_channel_call(bridge, channel, VBUS_HC_DEVSHM,
					sizeof(*args));
	} else {
		struct vbus_abi_shm *args = (void *)channel->args;

		args->devh = cpu_to_le64(handle);
		args->id = cpu_to_le32(id);
		args->len = cpu_to_le32(len);
		args->flags = 0;
		args->pad = 0;
		args->offset = cpu_to_le32(offset);
		args->prio = 0;
		args->cookie = cpu_to_le64(cookie);
		args->datap = cpu_to_le64(addr);
		ret = vbus_channel_call(bridge, channel, VBUS_HC_DEVSHM,
					sizeof(*args));
	}
	put_cpu();
	return ret;
}
