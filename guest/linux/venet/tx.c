// SPDX-License-Identifier: GPL-2.0-only
/*
 * Transmit. One descriptor carries one frame of up to 64 KiB, in pieces.
 *
 * A signal costs an exit of the virtual machine, an interrupt another one, so
 * there are few of both: south is signalled once per burst, and only if it is not
 * busy anyway (shm-signal); and it does not notify us. Sent frames are reclaimed
 * where we pass by: after each signal (a host that takes frames at once is through
 * with them by then) and in each NAPI poll, which the answers to our frames cause.
 * Only when the queue is stopped, or when frames linger, do we ask for a
 * notification.
 */
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <net/dst.h>

#include "venet.h"

static struct netdev_queue *venet_txq(const struct venet *nic)
{
	return netdev_get_tx_queue(nic->netdev, 0);
}

/**
 * venet_tx_create - make the transmit ring
 * @nic: the NIC, its session open and negotiated
 * @count: descriptors
 *
 * Return: 0 or a negative errno; venet_tx_destroy() after the session's end.
 */
int venet_tx_create(struct venet *nic, u32 count)
{
	struct venet_tx *tx = &nic->tx;
	int ret;

	tx->slots = kvcalloc(count, sizeof(*tx->slots), GFP_KERNEL);
	if (!tx->slots)
		return -ENOMEM;
	if (nic->caps.sg & VENET_CAP_SG) {
		tx->vsgs = alloc_pages_exact(count * sizeof(*tx->vsgs),
					     GFP_KERNEL | __GFP_ZERO);
		if (!tx->vsgs)
			return -ENOMEM;
		tx->vsg_base = virt_to_phys(tx->vsgs);
	}
	tx->ioq = vbus_ioq_create(nic->vdev, VENET_QUEUE_TX, count, true,
				  venet_offer());
	if (IS_ERR(tx->ioq)) {
		ret = PTR_ERR(tx->ioq);
		tx->ioq = NULL;
		return ret;
	}
	if (tx->vsgs && (nic->caps.sg & VENET_CAP_PMTD)) {
		ret = vbus_call(nic->vdev, VENET_PMTDQUERY, NULL, 0);
		if (ret < 0)
			return ret;
		ret = vbus_share(nic->vdev, ret, tx->vsg_base,
				 count * sizeof(*tx->vsgs));
		if (ret)
			return ret;
		tx->vsg_base = 0;	/* descriptors hold offsets from now on */
	}
	shm_signal_listen(tx->ioq->signal, venet_notify, nic);
	return 0;
}

/**
 * venet_tx_destroy - free the ring and all frames in it
 * @nic: the NIC, its session closed
 */
void venet_tx_destroy(struct venet *nic)
{
	struct venet_tx *tx = &nic->tx;
	u32 i;

	if (tx->ioq) {
		for (i = 0; i < tx->ioq->count; i++)
			dev_kfree_skb_any(tx->slots[i].skb);
		netdev_tx_reset_queue(venet_txq(nic));
	}
	if (tx->vsgs)
		free_pages_exact(tx->vsgs,
				 nic->params.tx_count * sizeof(*tx->vsgs));
	kvfree(tx->slots);
	vbus_ioq_destroy(tx->ioq);
	tx->ioq = NULL;
	tx->vsgs = NULL;
	tx->slots = NULL;
	tx->armed = false;
}

/**
 * venet_tx_completed - an event says that a frame is done with
 * @nic: the NIC; under the lock of the transmit queue
 * @cookie: its position
 */
void venet_tx_completed(struct venet *nic, u64 cookie)
{
	struct venet_tx *tx = &nic->tx;

	if (cookie < tx->ioq->count && tx->slots[cookie].skb)
		tx->slots[cookie].completed = true;
}

/**
 * venet_tx_reclaim - free the frames that south is through with
 * @nic: the NIC; under the lock of the transmit queue
 * @budget: that of the NAPI poll, 0 elsewhere
 */
void venet_tx_reclaim(struct venet *nic, int budget)
{
	struct netdev_queue *txq = venet_txq(nic);
	struct venet_tx *tx = &nic->tx;
	struct ioq *ioq = tx->ioq;
	unsigned int frames = 0;
	unsigned int bytes = 0;

	while (ioq->in_service) {
		u32 at = ioq->pos[IOQ_VALID].head;
		struct venet_tx_slot *slot = &tx->slots[at];

		if (!ioq_ours(ioq, at))
			break;
		if (venet_has_txc(nic) && !slot->completed)
			break;
		frames++;
		bytes += slot->bytes;
		napi_consume_skb(slot->skb, budget);
		slot->skb = NULL;
		slot->completed = false;
		ioq->ring->ring[at].valid = 0;
		ioq_retire(ioq);
	}
	if (!frames)
		return;
	netdev_tx_completed_queue(txq, frames, bytes);
	if (!ioq->in_service && tx->armed) {
		ioq_disable(ioq);
		tx->armed = false;
	}
	if (netif_tx_queue_stopped(txq) &&
	    ioq->count - ioq->in_service >= ioq->count / 4)
		netif_tx_wake_queue(txq);
}

/* Asks south to say when it is through with more. */
static void venet_tx_arm(struct venet *nic)
{
	struct venet_tx *tx = &nic->tx;

	/* with completion events south signals those, whatever we ask for here */
	if (venet_has_txc(nic))
		return;
	tx->armed = true;
	if (ioq_enable(tx->ioq))
		venet_tx_reclaim(nic, 0);
}

/**
 * venet_tx_settle - see to it that frames which are left will be reclaimed
 * @nic: the NIC; under the lock of the transmit queue
 *
 * At once if somebody waits for that; else the timer looks after them.
 */
void venet_tx_settle(struct venet *nic)
{
	struct venet_tx *tx = &nic->tx;

	if (!tx->ioq->in_service)
		return;
	if (netif_xmit_stopped(venet_txq(nic))) {
		venet_tx_arm(nic);
	} else if (!timer_pending(&tx->timer)) {
		tx->timer_tail = tx->ioq->pos[IOQ_INUSE].tail;
		mod_timer(&tx->timer, jiffies + usecs_to_jiffies(nic->tx_usecs));
	}
}

/**
 * venet_tx_timer - frames have lingered
 * @timer: the timer
 */
void venet_tx_timer(struct timer_list *timer)
{
	struct venet *nic = container_of(timer, struct venet, tx.timer);
	struct netdev_queue *txq = venet_txq(nic);
	struct venet_tx *tx = &nic->tx;

	__netif_tx_lock(txq, smp_processor_id());
	venet_tx_reclaim(nic, 0);
	if (tx->ioq->pos[IOQ_INUSE].tail != tx->timer_tail) {
		venet_tx_settle(nic);	/* traffic goes on, and reclaims as it does */
	} else if (tx->ioq->in_service) {
		u64_stats_update_begin(&tx->stats.sync);
		u64_stats_inc(&tx->stats.lingered);
		u64_stats_update_end(&tx->stats.sync);
		venet_tx_arm(nic);
	}
	__netif_tx_unlock(txq);
}

/**
 * venet_tx_orphan - the link is down; frames in the ring stay there
 * @nic: the NIC; nobody transmits or reclaims
 *
 * South may send them when the link is up again. Until then nothing else shall
 * wait for them.
 */
void venet_tx_orphan(struct venet *nic)
{
	struct venet_tx *tx = &nic->tx;
	u32 i;

	for (i = 0; i < tx->ioq->count; i++) {
		struct sk_buff *skb = tx->slots[i].skb;

		if (skb && !skb_shared(skb)) {
			skb_orphan(skb);
			skb_dst_drop(skb);
			nf_reset_ct(skb);
		}
	}
}

static void venet_iov(struct venet_iov *iov, phys_addr_t addr, u32 len)
{
	iov->len = cpu_to_le32(len);
	iov->ptr = cpu_to_le64(addr);
}

/* Describes a frame in pieces. Returns the length of the description. */
static u32 venet_tx_describe(struct venet_vsg *vsg, const struct sk_buff *skb,
			     u32 cookie)
{
	const struct skb_shared_info *info = skb_shinfo(skb);
	u32 flags = 0;
	u32 count = 0;
	int i;

	vsg->cookie = cookie;
	vsg->len = cpu_to_le32(skb->len);
	if (skb->ip_summed == CHECKSUM_PARTIAL) {
		flags |= VENET_VSG_NEEDS_CSUM;
		vsg->csum_start = cpu_to_le16(skb_checksum_start_offset(skb));
		vsg->csum_offset = cpu_to_le16(skb->csum_offset);
	}
	if (skb_is_gso(skb)) {
		flags |= VENET_VSG_GSO;
		if (info->gso_type & SKB_GSO_TCPV4)
			vsg->gso_type = VENET_GSO_TCPV4;
		else if (info->gso_type & SKB_GSO_TCPV6)
			vsg->gso_type = VENET_GSO_TCPV6;
		else
			vsg->gso_type = VENET_GSO_UDP_L4;
		if (info->gso_type & SKB_GSO_TCP_ECN)
			flags |= VENET_VSG_ECN;
		vsg->gso_hdrlen = cpu_to_le16(skb_headlen(skb));
		vsg->gso_size = cpu_to_le16(info->gso_size);
	}
	vsg->flags = cpu_to_le32(flags);
	if (skb_headlen(skb))
		venet_iov(&vsg->iov[count++], virt_to_phys(skb->data),
			  skb_headlen(skb));
	for (i = 0; i < info->nr_frags; i++) {
		const skb_frag_t *frag = &info->frags[i];

		venet_iov(&vsg->iov[count++],
			  page_to_phys(skb_frag_page(frag)) + skb_frag_off(frag),
			  skb_frag_size(frag));
	}
	vsg->count = cpu_to_le32(count);
	return offsetof(struct venet_vsg, iov) + count * sizeof(struct venet_iov);
}

static netdev_tx_t venet_tx_drop(struct venet *nic, struct sk_buff *skb)
{
	struct venet_tx *tx = &nic->tx;

	u64_stats_update_begin(&tx->stats.sync);
	u64_stats_inc(&tx->stats.dropped);
	u64_stats_update_end(&tx->stats.sync);
	dev_kfree_skb_any(skb);
	/* whoever left us frames before this one believes that the burst goes on */
	if (!netdev_xmit_more())
		ioq_signal(tx->ioq);
	return NETDEV_TX_OK;
}

/**
 * venet_xmit - send a frame
 * @skb: the frame
 * @netdev: the interface
 *
 * Return: NETDEV_TX_OK, or NETDEV_TX_BUSY if there is no descriptor.
 */
netdev_tx_t venet_xmit(struct sk_buff *skb, struct net_device *netdev)
{
	struct venet *nic = netdev_priv(netdev);
	struct netdev_queue *txq = venet_txq(nic);
	struct venet_tx *tx = &nic->tx;
	struct ioq *ioq = tx->ioq;
	struct ioq_ring_desc *desc;
	u32 at = ioq->pos[IOQ_INUSE].tail;
	unsigned int segments;
	bool linearized = false;
	bool full;
	bool kick;

	if (unlikely(ioq->in_service == ioq->count)) {
		/* the queue is stopped before this can happen */
		netif_tx_stop_queue(txq);
		venet_tx_settle(nic);
		return NETDEV_TX_BUSY;
	}
	if (unlikely(skb_shinfo(skb)->nr_frags >= VENET_IOVS_MAX ||
		     (!tx->vsgs && skb_is_nonlinear(skb)))) {
		if (skb_linearize(skb))
			return venet_tx_drop(nic, skb);
		linearized = true;
	}

	desc = &ioq->ring->ring[at];
	desc->cookie = at;
	if (tx->vsgs) {
		desc->ptr = cpu_to_le64(tx->vsg_base + at * sizeof(*tx->vsgs));
		desc->len = cpu_to_le64(venet_tx_describe(&tx->vsgs[at], skb, at));
	} else {
		desc->ptr = cpu_to_le64(virt_to_phys(skb->data));
		desc->len = cpu_to_le64(skb->len);
	}
	desc->valid = 1;
	tx->slots[at].skb = skb;
	tx->slots[at].bytes = skb->len;
	segments = skb_shinfo(skb)->gso_segs ?: 1;

	skb_tx_timestamp(skb);
	nf_reset_ct(skb);	/* it may stay for a while */
	ioq_push_both(ioq);

	full = ioq->in_service == ioq->count;
	if (full)
		netif_tx_stop_queue(txq);	/* which ends a burst */
	kick = __netdev_tx_sent_queue(txq, tx->slots[at].bytes,
				      netdev_xmit_more());

	u64_stats_update_begin(&tx->stats.sync);
	u64_stats_add(&tx->stats.packets, segments);
	u64_stats_add(&tx->stats.bytes, tx->slots[at].bytes);
	if (segments > 1)
		u64_stats_inc(&tx->stats.superframes);
	if (linearized)
		u64_stats_inc(&tx->stats.linearized);
	if (full)
		u64_stats_inc(&tx->stats.stopped);
	if (kick)
		u64_stats_inc(&tx->stats.signals);
	u64_stats_update_end(&tx->stats.sync);

	if (kick) {
		ioq_signal(ioq);
		venet_tx_reclaim(nic, 0);
		venet_tx_settle(nic);
	}
	return NETDEV_TX_OK;
}

/**
 * venet_tx_timeout - the queue was stopped for too long
 * @netdev: the interface
 * @queue: which queue
 *
 * Either of us may have missed the other: signals south, and looks ourselves.
 */
void venet_tx_timeout(struct net_device *netdev, unsigned int queue)
{
	struct venet *nic = netdev_priv(netdev);
	struct netdev_queue *txq = venet_txq(nic);

	netdev_warn(netdev, "transmit queue stopped, %u of %u frames not taken\n",
		    nic->tx.ioq->in_service, nic->tx.ioq->count);
	__netif_tx_lock(txq, smp_processor_id());
	txq_trans_cond_update(txq);
	ioq_signal(nic->tx.ioq);
	venet_tx_reclaim(nic, 0);
	venet_tx_settle(nic);
	__netif_tx_unlock(txq);
	napi_schedule(&nic->napi);
}
