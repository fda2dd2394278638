// SPDX-License-Identifier: GPL-2.0-only
/*
 * The bridge's event queue: docs/abi/vbus-pci.md section 8. South fills records
 * and rings; we take them in interrupt context.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/version.h>
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
#include <asm/unaligned.h>
#else
#include <linux/unaligned.h>
#endif

#include "bridge.h"

#define VBUS_EVENTS_COUNT	256
/* When there was no memory for an announcement. */
#define VBUS_RETRY_MS		20

/**
 * vbus_event_size - length of a record
 * @bridge: the bridge
 */
size_t vbus_event_size(const struct vbus_bridge *bridge)
{
	return bridge->ilp32 ? VBUS_EVENT_SIZE_ILP32 : VBUS_EVENT_SIZE;
}

/* -ENOMEM: the event is to be taken later. */
static int vbus_event(struct vbus_bridge *bridge, u8 *record)
{
	u8 *data = record + (bridge->ilp32 ? VBUS_EVENT_DATA_ILP32 :
					     VBUS_EVENT_DATA);
	u32 id = get_unaligned_le32(record);
	u64 value = get_unaligned_le64(data);
	char *type = (char *)data + VBUS_EVENT_TYPE;

	switch (id) {
	case VBUS_EVENT_SHMSIGNAL:
		vbus_signal_event(bridge, value);
		return 0;
	case VBUS_EVENT_SHMCLOSE:
		vbus_signal_close_event(bridge, value);
		return 0;
	case VBUS_EVENT_DEVADD:
		type[VBUS_TYPE_MAX - 1] = '\0';
		return vbus_hotplug_event(bridge, true, value, type);
	case VBUS_EVENT_DEVDROP:
		return vbus_hotplug_event(bridge, false, value, "");
	default:
		dev_warn_ratelimited(bridge->dev, "unknown event %u ignored\n",
				     id);
		return 0;
	}
}

/* The notifier of the event queue; shm-signal runs one at a time. */
static void vbus_events_take(void *priv)
{
	struct vbus_bridge *bridge = priv;
	struct ioq *ioq = bridge->events;
	bool any = false;

	for (;;) {
		u32 at = ioq->pos[IOQ_INUSE].head;

		if (!ioq_ours(ioq, at))
			break;
		if (vbus_event(bridge, bridge->records +
			       at * vbus_event_size(bridge))) {
			/* it stays in the ring, and so does all behind it */
			schedule_delayed_work(&bridge->retry_work,
					      msecs_to_jiffies(VBUS_RETRY_MS));
			break;
		}
		/* south writes whole records, so this one goes back as it is */
		ioq_pop(ioq, IOQ_INUSE);
		any = true;
	}
	if (any)
		ioq_signal(ioq);	/* rings only if south has a back-log */
}

static void vbus_events_retry(struct work_struct *work)
{
	struct vbus_bridge *bridge = container_of(work, struct vbus_bridge,
						  retry_work.work);

	/* as if south had just changed the ring, for a wake-up that runs now, too */
	WRITE_ONCE(bridge->events->ring->signal.irq[SHM_LOCALE_NORTH].dirty, 1);
	shm_signal_wakeup(&bridge->event_signal);
}

static void vbus_events_ring(struct shm_signal *sig)
{
	struct vbus_bridge *bridge = container_of(sig, struct vbus_bridge,
						  event_signal);

	iowrite32(0, bridge->ports + VBUS_PORT_EVENTQ);
}

/* The signal is part of the bridge, and needs no release of its own. */
static void vbus_events_release(struct shm_signal *sig)
{
}

static const struct shm_signal_ops vbus_events_signal_ops = {
	.inject = vbus_events_ring,
	.release = vbus_events_release,
};

/**
 * vbus_events_create - make the event queue, ready to be registered
 * @bridge: the bridge
 *
 * Return: 0 or -ENOMEM.
 */
int vbus_events_create(struct vbus_bridge *bridge)
{
	size_t size = vbus_event_size(bridge);
	struct ioq *ioq;
	u32 i;

	ioq = ioq_alloc(VBUS_EVENTS_COUNT, false, 0);
	if (!ioq)
		return -ENOMEM;
	bridge->records = alloc_pages_exact(size * VBUS_EVENTS_COUNT,
					    GFP_KERNEL | __GFP_ZERO);
	if (!bridge->records) {
		ioq_free(ioq);
		return -ENOMEM;
	}
	for (i = 0; i < ioq->count; i++) {
		struct ioq_ring_desc *desc = &ioq->ring->ring[i];

		desc->cookie = i;
		desc->ptr = cpu_to_le64(virt_to_phys(bridge->records + i * size));
		desc->len = cpu_to_le64(size);
		desc->valid = 1;
		ioq_push(ioq, IOQ_VALID);
	}
	shm_signal_init(&bridge->event_signal, &ioq->ring->signal,
			&vbus_events_signal_ops);
	ioq->signal = &bridge->event_signal;
	bridge->events = ioq;
	shm_signal_listen(&bridge->event_signal, vbus_events_take, bridge);
	INIT_DELAYED_WORK(&bridge->retry_work, vbus_events_retry);
	shm_signal_enable(&bridge->event_signal);
	return 0;
}

/**
 * vbus_events_destroy - free the event queue, once south has let go of it
 * @bridge: the bridge; its interrupt is freed already
 */
void vbus_events_destroy(struct vbus_bridge *bridge)
{
	shm_signal_detach(&bridge->event_signal);
	cancel_delayed_work_sync(&bridge->retry_work);
	free_pages_exact(bridge->records,
			 vbus_event_size(bridge) * VBUS_EVENTS_COUNT);
	ioq_free(bridge->events);
}
