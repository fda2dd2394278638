// SPDX-License-Identifier: GPL-2.0-only
/*
 * NAPI: one poll serves all rings of a NIC. While it is scheduled south does not
 * notify us of frames and events.
 */
#include "venet.h"

static void venet_disable(struct venet *nic)
{
	ioq_disable(nic->rx.ioq);
	if (nic->events.ioq)
		ioq_disable(nic->events.ioq);
}

/* Asks for notifications. True: something came while nobody listened. */
static bool venet_enable(struct venet *nic)
{
	struct ioq *rx = nic->rx.ioq;
	struct ioq *events = nic->events.ioq;
	bool again;

	again = ioq_enable(rx) && ioq_ours(rx, rx->pos[IOQ_INUSE].head);
	if (events)
		again |= ioq_enable(events) &&
			 ioq_ours(events, events->pos[IOQ_INUSE].head);
	return again;
}

/**
 * venet_notify - south has signalled one of the rings; interrupt context
 * @priv: the NIC
 */
void venet_notify(void *priv)
{
	struct venet *nic = priv;

	/* armed is left to the owner of the transmit queue, and only a hint */
	ioq_disable(nic->tx.ioq);
	venet_disable(nic);
	napi_schedule(&nic->napi);
}

/**
 * venet_poll - serve all rings
 * @napi: the NAPI instance
 * @budget: frames to receive at most
 *
 * Return: how many were received, or @budget if there may be more.
 */
int venet_poll(struct napi_struct *napi, int budget)
{
	struct venet *nic = container_of(napi, struct venet, napi);
	struct netdev_queue *txq = netdev_get_tx_queue(nic->netdev, 0);
	int done;

	__netif_tx_lock(txq, smp_processor_id());
	if (nic->events.ioq)
		venet_events_take(nic);
	venet_tx_reclaim(nic, budget);
	venet_tx_settle(nic);
	__netif_tx_unlock(txq);

	done = venet_rx(nic, budget);
	if (nic->pages.ioq)
		venet_pages_fill(nic, GFP_ATOMIC);

	if (done < budget && napi_complete_done(napi, done) &&
	    venet_enable(nic)) {
		venet_disable(nic);
		napi_schedule(napi);
	}
	return done;
}
