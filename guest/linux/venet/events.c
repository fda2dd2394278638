// SPDX-License-Identifier: GPL-2.0-only
/* The event queue: link state and, if asked for, completions of sent frames. */
#include <linux/io.h>
#include <linux/mm.h>

#include "venet.h"

/**
 * venet_events_create - make the event queue
 * @nic: the NIC, its session open, events granted
 * @count: how many events may wait
 *
 * Return: 0 or a negative errno; venet_events_destroy() after the session's end.
 */
int venet_events_create(struct venet *nic, u32 count)
{
	struct venet_events *events = &nic->events;
	struct venet_eventq_query query = {};
	struct ioq *ioq;
	int ret;
	u32 i;

	ret = vbus_call(nic->vdev, VENET_EVQQUERY, &query, sizeof(query));
	if (ret < 0)
		return ret;
	events->size = le32_to_cpu(query.evsize);
	if (events->size < sizeof(struct venet_event) || events->size > PAGE_SIZE)
		return -EPROTO;
	events->events = alloc_pages_exact(count * events->size,
					   GFP_KERNEL | __GFP_ZERO);
	if (!events->events)
		return -ENOMEM;
	ret = vbus_share(nic->vdev, le32_to_cpu(query.dpid),
			 virt_to_phys(events->events), count * events->size);
	if (ret)
		return ret;
	/* south may take descriptors as soon as it has the ring, and finds none */
	ioq = vbus_ioq_create(nic->vdev, le32_to_cpu(query.qid), count, false,
			      venet_offer());
	if (IS_ERR(ioq))
		return PTR_ERR(ioq);
	events->ioq = ioq;
	for (i = 0; i < count; i++) {
		struct ioq_ring_desc *desc = &ioq->ring->ring[i];

		desc->cookie = i;
		desc->ptr = cpu_to_le64(i * events->size);
		desc->len = cpu_to_le64(events->size);
		ioq_push(ioq, IOQ_VALID);
	}
	shm_signal_listen(ioq->signal, venet_notify, nic);
	return 0;
}

/**
 * venet_events_destroy - free the event queue
 * @nic: the NIC, its session closed
 */
void venet_events_destroy(struct venet *nic)
{
	struct venet_events *events = &nic->events;

	if (events->events)
		free_pages_exact(events->events,
				 nic->params.tx_count * events->size);
	vbus_ioq_destroy(events->ioq);
	memset(events, 0, sizeof(*events));
}

static void venet_event(struct venet *nic, const struct venet_event *event)
{
	u32 id = le32_to_cpu(READ_ONCE(event->id));

	switch (id) {
	case VENET_EVENT_LINKSTATE:
		if (READ_ONCE(event->link.state))
			netif_carrier_on(nic->netdev);
		else
			netif_carrier_off(nic->netdev);
		break;
	case VENET_EVENT_TXC:
		if (venet_has_txc(nic))
			venet_tx_completed(nic, READ_ONCE(event->cookie));
		break;
	default:
		net_warn_ratelimited("%s: unknown event %u ignored\n",
				     nic->netdev->name, id);
	}
}

/**
 * venet_events_take - take the events that wait; NAPI
 * @nic: the NIC; under the lock of the transmit queue
 */
void venet_events_take(struct venet *nic)
{
	struct venet_events *events = &nic->events;
	struct ioq *ioq = events->ioq;
	u32 n;

	for (n = 0; n < ioq->count; n++) {
		u32 at = ioq->pos[IOQ_INUSE].head;

		if (!ioq_ours(ioq, at))
			break;
		venet_event(nic, events->events + at * events->size);
		ioq_pop(ioq, IOQ_INUSE);
	}
	if (n)
		ioq_signal(ioq);	/* rings only if south has a back-log */
}
