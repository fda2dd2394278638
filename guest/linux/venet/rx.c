// SPDX-License-Identifier: GPL-2.0-only
/*
 * Receive. Every descriptor has a buffer for an ordinary frame, and goes back to
 * south at once with the same or a fresh one, so the ring never runs dry. With
 * L4RO it also has a slot: south describes the frame there, and continues those
 * that are larger than the buffer in pages (pages.c).
 *
 * Buffers of up to a page become the frame's skb; larger ones, for large MTUs,
 * stay, and are copied: they are contiguous, and not to be had at any time.
 */
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "venet.h"

/* Shorter frames are copied, and their buffer stays. */
#define VENET_COPYBREAK		256
/* What is copied to the head of an skb whose rest goes to pages: all headers. */
#define VENET_PULL		256
/* Frames of up to this length fit a head of their own. */
#define VENET_BUF_COPY_MAX	2048
#define VENET_HEADROOM		(NET_SKB_PAD + NET_IP_ALIGN)
/* Most memory for buffers that are larger than a page. */
#define VENET_LARGE_MEMORY	(8 << 20)

/* A frame as south has described it. */
struct venet_frame {
	u32 len;
	u32 flags;
	u32 count;
	u32 head;		/* bytes in the buffer */
	u16 csum_start;
	u16 csum_offset;
	u16 gso_size;
	u8 gso_type;
};

/* Size of a buffer that can become an skb. */
static unsigned int venet_buf_truesize(u32 len)
{
	return SKB_DATA_ALIGN(VENET_HEADROOM + len) +
	       SKB_DATA_ALIGN(sizeof(struct skb_shared_info));
}

static bool venet_buf_is_fragment(u32 len)
{
	return venet_buf_truesize(len) <= PAGE_SIZE;
}

static int venet_buf_alloc(struct venet_buf *buf, u32 len)
{
	if (venet_buf_is_fragment(len))
		buf->data = netdev_alloc_frag(venet_buf_truesize(len));
	else
		buf->data = alloc_pages_exact(len, GFP_KERNEL | __GFP_NOWARN);
	buf->len = len;
	return buf->data ? 0 : -ENOMEM;
}

static void venet_buf_free(struct venet_buf *buf)
{
	if (!buf->data)
		return;
	if (venet_buf_is_fragment(buf->len))
		skb_free_frag(buf->data);
	else
		free_pages_exact(buf->data, buf->len);
	buf->data = NULL;
}

/* Where south puts the frame. */
static void *venet_buf_start(const struct venet_buf *buf)
{
	return venet_buf_is_fragment(buf->len) ? buf->data + VENET_HEADROOM :
						 buf->data;
}

/**
 * venet_rx_len - length of the buffers that are needed
 * @nic: the NIC
 */
u32 venet_rx_len(const struct venet *nic)
{
	return max_t(u32, READ_ONCE(nic->netdev->mtu), ETH_DATA_LEN) +
	       VENET_FRAME_OVERHEAD;
}

/**
 * venet_rx_count_max - how many buffers there may be
 * @mtu: the MTU
 *
 * Large buffers are allocated for good; small machines need their memory.
 */
u32 venet_rx_count_max(unsigned int mtu)
{
	u32 len = mtu + VENET_FRAME_OVERHEAD;

	if (venet_buf_is_fragment(len))
		return IOQ_COUNT_MAX;
	return clamp_t(u32, VENET_LARGE_MEMORY / PAGE_ALIGN(len), VENET_RING_MIN,
		       IOQ_COUNT_MAX);
}

/* Writes the descriptor and the slot of a position, which is ours. */
static void venet_rx_describe(struct venet *nic, u32 at)
{
	struct venet_rx *rx = &nic->rx;
	struct ioq_ring_desc *desc = &rx->ioq->ring->ring[at];
	const struct venet_buf *buf = &rx->bufs[at];
	u64 addr = virt_to_phys(venet_buf_start(buf));
	struct venet_vsg *vsg;

	if (!rx->vsgs) {
		desc->ptr = cpu_to_le64(addr);
		desc->len = cpu_to_le64(buf->len);
		return;
	}
	/* the descriptor says where the slot is, once and for all */
	vsg = &rx->vsgs[at];
	memset(vsg, 0, offsetof(struct venet_vsg, iov));
	vsg->cookie = at;
	vsg->count = cpu_to_le32(1);
	vsg->iov[0].len = cpu_to_le32(buf->len);
	vsg->iov[0].ptr = cpu_to_le64(addr);
}

/**
 * venet_rx_share_slots - make the slots of L4RO, before the ring
 * @nic: the NIC, its session open, L4RO granted
 * @id: the segment that the host wants them in
 * @count: slots
 *
 * Return: 0 or a negative errno.
 */
int venet_rx_share_slots(struct venet *nic, u32 id, u32 count)
{
	struct venet_rx *rx = &nic->rx;
	size_t size = count * sizeof(*rx->vsgs);

	rx->vsgs = alloc_pages_exact(size, GFP_KERNEL | __GFP_ZERO);
	if (!rx->vsgs)
		return -ENOMEM;
	return vbus_share(nic->vdev, id, virt_to_phys(rx->vsgs), size);
}

/**
 * venet_rx_create - make the receive ring, with all buffers posted
 * @nic: the NIC, its session open and negotiated
 * @count: descriptors
 *
 * Return: 0 or a negative errno; venet_rx_destroy() after the session's end.
 */
int venet_rx_create(struct venet *nic, u32 count)
{
	struct venet_rx *rx = &nic->rx;
	u32 len = venet_rx_len(nic);
	struct ioq *ioq;
	u32 i;

	rx->bufs = kvcalloc(count, sizeof(*rx->bufs), GFP_KERNEL);
	if (!rx->bufs)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		if (venet_buf_alloc(&rx->bufs[i], len))
			return -ENOMEM;
	}
	ioq = vbus_ioq_create(nic->vdev, VENET_QUEUE_RX, count, false,
			      venet_offer());
	if (IS_ERR(ioq))
		return PTR_ERR(ioq);
	rx->ioq = ioq;
	for (i = 0; i < count; i++) {
		struct ioq_ring_desc *desc = &ioq->ring->ring[i];

		if (rx->vsgs) {
			desc->ptr = cpu_to_le64(i * sizeof(*rx->vsgs));
			desc->len = cpu_to_le64(sizeof(*rx->vsgs));
		}
		desc->cookie = i;
		desc->valid = 1;
		venet_rx_describe(nic, i);
		ioq_push(ioq, IOQ_VALID);
	}
	shm_signal_listen(ioq->signal, venet_notify, nic);
	return 0;
}

/**
 * venet_rx_destroy - free the ring and its buffers
 * @nic: the NIC, its session closed
 */
void venet_rx_destroy(struct venet *nic)
{
	struct venet_rx *rx = &nic->rx;
	u32 i;

	if (rx->bufs) {
		for (i = 0; i < nic->params.rx_count; i++)
			venet_buf_free(&rx->bufs[i]);
	}
	if (rx->vsgs)
		free_pages_exact(rx->vsgs,
				 nic->params.rx_count * sizeof(*rx->vsgs));
	kvfree(rx->bufs);
	vbus_ioq_destroy(rx->ioq);
	rx->ioq = NULL;
	rx->vsgs = NULL;
	rx->bufs = NULL;
}

/* Reads what south says of a frame, once. False: it makes no sense. */
static bool venet_rx_read(struct venet *nic, u32 at, struct venet_frame *frame)
{
	const struct venet_rx *rx = &nic->rx;
	const struct venet_buf *buf = &rx->bufs[at];
	const struct venet_vsg *vsg;
	u64 sum;
	u32 i;

	memset(frame, 0, sizeof(*frame));
	frame->count = 1;
	if (!rx->vsgs) {
		u64 len = le64_to_cpu(rx->ioq->ring->ring[at].len);

		if (len > buf->len)
			return false;
		frame->len = len;
		frame->head = len;
		return true;
	}
	vsg = &rx->vsgs[at];
	frame->len = le32_to_cpu(READ_ONCE(vsg->len));
	if (!frame->len)
		return true;	/* flushed; the slot is as we left it */
	frame->flags = le32_to_cpu(READ_ONCE(vsg->flags));
	frame->count = le32_to_cpu(READ_ONCE(vsg->count));
	frame->head = le32_to_cpu(READ_ONCE(vsg->iov[0].len));
	frame->csum_start = le16_to_cpu(READ_ONCE(vsg->csum_start));
	frame->csum_offset = le16_to_cpu(READ_ONCE(vsg->csum_offset));
	frame->gso_size = le16_to_cpu(READ_ONCE(vsg->gso_size));
	frame->gso_type = READ_ONCE(vsg->gso_type);
	if (!frame->count || frame->count > VENET_IOVS_MAX ||
	    frame->head > buf->len)
		return false;
	sum = frame->head;
	for (i = 1; i < frame->count; i++) {
		u32 len = le32_to_cpu(vsg->iov[i].len);

		if (!venet_page_valid(nic, le64_to_cpu(vsg->iov[i].ptr), len))
			return false;
		sum += len;
	}
	return sum == frame->len;
}

/* The page that a piece lies in; checked by venet_rx_read(). */
static u32 venet_rx_page(const struct venet *nic, u32 at, u32 i, u32 *len)
{
	const struct venet_iov *iov = &nic->rx.vsgs[at].iov[i];

	*len = le32_to_cpu(iov->len);
	return le64_to_cpu(iov->ptr);
}

/* The pages of a frame that is not passed on. */
static void venet_rx_return_pages(struct venet *nic, u32 at, u32 count)
{
	u32 i;

	if (!nic->rx.vsgs)
		return;
	for (i = 1; i < min_t(u32, count, VENET_IOVS_MAX); i++) {
		u32 len;
		u32 id = venet_rx_page(nic, at, i, &len);

		if (venet_page_valid(nic, id, 0))
			venet_page_return(nic, id);
	}
}

/* An skb with the first bytes of a frame, those in the buffer. */
static struct sk_buff *venet_rx_head(struct venet *nic, struct venet_buf *buf,
				     u32 len)
{
	struct sk_buff *skb;
	u32 head = len;

	if (len > VENET_COPYBREAK && venet_buf_is_fragment(buf->len)) {
		unsigned int size = venet_buf_truesize(buf->len);
		void *fresh = napi_alloc_frag(size);

		if (!fresh)
			return NULL;
		skb = napi_build_skb(buf->data, size);
		if (!skb) {
			skb_free_frag(fresh);
			return NULL;
		}
		buf->data = fresh;
		skb_reserve(skb, VENET_HEADROOM);
		skb_put(skb, len);
		return skb;
	}
	if (len > VENET_BUF_COPY_MAX)
		head = VENET_PULL;
	skb = napi_alloc_skb(&nic->napi, head);
	if (!skb)
		return NULL;
	skb_put_data(skb, venet_buf_start(buf), head);
	if (head < len &&
	    venet_pages_copy(skb, venet_buf_start(buf) + head, len - head)) {
		dev_kfree_skb_any(skb);
		return NULL;
	}
	return skb;
}

/* How long the headers of a superframe are, 0 if they are not all in the head. */
static u32 venet_rx_headers(const struct sk_buff *skb,
			    const struct venet_frame *frame)
{
	const struct tcphdr *th;

	if (frame->gso_type == VENET_GSO_UDP_L4)
		return frame->csum_start + sizeof(struct udphdr);
	if (frame->csum_start + sizeof(*th) > skb_headlen(skb))
		return 0;
	th = (const struct tcphdr *)(skb->data + frame->csum_start);
	return th->doff < 5 ? 0 : frame->csum_start + th->doff * 4;
}

/* What south says of checksum and segments. False: it makes no sense. */
static bool venet_rx_offloads(struct sk_buff *skb,
			      const struct venet_frame *frame)
{
	struct skb_shared_info *info = skb_shinfo(skb);
	u32 headers;

	if (!(frame->flags & VENET_VSG_NEEDS_CSUM))
		return !(frame->flags & VENET_VSG_GSO);
	if (!skb_partial_csum_set(skb, frame->csum_start, frame->csum_offset))
		return false;
	if (!(frame->flags & VENET_VSG_GSO))
		return true;
	headers = venet_rx_headers(skb, frame);
	if (!frame->gso_size || !headers || headers >= skb->len)
		return false;
	switch (frame->gso_type) {
	case VENET_GSO_TCPV4:
		info->gso_type = SKB_GSO_TCPV4;
		break;
	case VENET_GSO_TCPV6:
		info->gso_type = SKB_GSO_TCPV6;
		break;
	case VENET_GSO_UDP_L4:
		info->gso_type = SKB_GSO_UDP_L4;
		break;
	default:
		return false;
	}
	if (frame->flags & VENET_VSG_ECN)
		info->gso_type |= SKB_GSO_TCP_ECN;
	/* whoever forwards it checks the headers first */
	info->gso_type |= SKB_GSO_DODGY;
	info->gso_size = frame->gso_size;
	info->gso_segs = DIV_ROUND_UP(skb->len - headers, frame->gso_size);
	return true;
}

/*
 * Takes the frame at a position that is ours. The buffer there is free then, or
 * a fresh one. Returns NULL if there is no frame, or it is lost.
 */
static struct sk_buff *venet_rx_frame(struct venet *nic, u32 at)
{
	struct venet_rx_counts *counts = &nic->rx.counts;
	struct venet_buf *buf = &nic->rx.bufs[at];
	struct venet_frame frame;
	struct sk_buff *skb;
	u32 i;

	if (!venet_rx_read(nic, at, &frame)) {
		venet_rx_return_pages(nic, at, frame.count);
		goto error;
	}
	if (!frame.len) {
		counts->flushed++;
		return NULL;
	}
	skb = venet_rx_head(nic, buf, frame.head);
	if (!skb || skb_shinfo(skb)->nr_frags + frame.count - 1 > MAX_SKB_FRAGS) {
		venet_rx_return_pages(nic, at, frame.count);
		if (skb)
			dev_kfree_skb_any(skb);
		counts->no_memory++;
		return NULL;
	}
	for (i = 1; i < frame.count; i++) {
		u32 len;
		u32 id = venet_rx_page(nic, at, i, &len);

		venet_page_add(nic, skb, id, len);
	}
	if (frame.head < ETH_HLEN || !venet_rx_offloads(skb, &frame)) {
		dev_kfree_skb_any(skb);
		goto error;
	}

	counts->packets++;
	counts->bytes += frame.len;
	counts->pages += frame.count - 1;
	if (frame.flags & VENET_VSG_GSO)
		counts->superframes++;
	else if (frame.flags & VENET_VSG_NEEDS_CSUM)
		counts->partial_csum++;
	skb->protocol = eth_type_trans(skb, nic->netdev);
	return skb;

error:
	counts->errors++;
	return NULL;
}

static void venet_rx_count(struct venet_rx *rx)
{
	struct venet_rx_counts *counts = &rx->counts;
	struct venet_rx_stats *stats = &rx->stats;

	u64_stats_update_begin(&stats->sync);
	u64_stats_add(&stats->packets, counts->packets);
	u64_stats_add(&stats->bytes, counts->bytes);
	u64_stats_add(&stats->superframes, counts->superframes);
	u64_stats_add(&stats->partial_csum, counts->partial_csum);
	u64_stats_add(&stats->flushed, counts->flushed);
	u64_stats_add(&stats->no_memory, counts->no_memory);
	u64_stats_add(&stats->errors, counts->errors);
	u64_stats_add(&stats->pages, counts->pages);
	u64_stats_inc(&stats->polls);
	u64_stats_update_end(&stats->sync);
	memset(counts, 0, sizeof(*counts));
}

/**
 * venet_rx - take the frames that have arrived; NAPI
 * @nic: the NIC
 * @budget: how many at most
 *
 * Return: how many positions were served.
 */
int venet_rx(struct venet *nic, int budget)
{
	struct venet_rx *rx = &nic->rx;
	struct ioq *ioq = rx->ioq;
	int done = 0;

	while (done < budget) {
		u32 at = ioq->pos[IOQ_INUSE].head;
		struct sk_buff *skb;

		if (!ioq_ours(ioq, at))
			break;
		skb = venet_rx_frame(nic, at);
		venet_rx_describe(nic, at);
		ioq_pop(ioq, IOQ_INUSE);
		done++;
		if (skb)
			napi_gro_receive(&nic->napi, skb);
	}
	if (done) {
		ioq_signal(ioq);	/* rings only if south ran out of buffers */
		venet_rx_count(rx);
	}
	return done;
}

/**
 * venet_rx_resize - give all buffers the length that the MTU demands
 * @nic: the NIC, its link up and NAPI disabled
 *
 * South returns all buffers (FLUSHRX); frames that it has put into some before are
 * received.
 *
 * Return: 0 or a negative errno, if not all buffers could be replaced; those that
 * could not are still there, and too short.
 */
int venet_rx_resize(struct venet *nic)
{
	struct venet_rx *rx = &nic->rx;
	u32 len = venet_rx_len(nic);
	u32 left = rx->ioq->count;
	int ret;

	ret = vbus_call(nic->vdev, VENET_FLUSHRX, NULL, 0);
	if (ret < 0)
		return ret;
	ret = 0;
	for (; left; left--) {
		u32 at = rx->ioq->pos[IOQ_INUSE].head;
		struct venet_buf fresh;
		struct sk_buff *skb;

		if (!ioq_ours(rx->ioq, at))
			break;
		local_bh_disable();
		skb = venet_rx_frame(nic, at);
		if (skb)
			netif_receive_skb(skb);
		local_bh_enable();
		if (!venet_buf_alloc(&fresh, len)) {
			venet_buf_free(&rx->bufs[at]);
			rx->bufs[at] = fresh;
		} else if (rx->bufs[at].len < len) {
			ret = -ENOMEM;
		}
		venet_rx_describe(nic, at);
		ioq_pop(rx->ioq, IOQ_INUSE);
		cond_resched();
	}
	ioq_signal(rx->ioq);
	venet_rx_count(rx);
	return left ? -EIO : ret;
}
