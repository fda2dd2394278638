// SPDX-License-Identifier: GPL-2.0-only
/*
 * The page queue of L4RO: pages that south fills with what does not fit a receive
 * buffer. Each has a number, which is its cookie, so south can only return what
 * it was lent.
 *
 * A "page" of ours is eight of them: the largest superframe takes two instead of
 * sixteen. They come from a page pool and return to it when their frame was read,
 * without passing the allocator (which would also clear them). The host fills a
 * page as far as its descriptor says.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/version.h>
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#include <net/page_pool.h>
#else
#include <net/page_pool/helpers.h>
#endif

#include "venet.h"

#define VENET_PAGE_ORDER	3
/* What fills less than 1/8 of a large page is copied, so that none is wasted. */
#define VENET_PAGE_COPY		(PAGE_SIZE << VENET_PAGE_ORDER >> 3)

/**
 * venet_pages_create - make the page queue
 * @nic: the NIC, its session open and negotiated
 * @queue_id: the segment that the host wants it in
 * @count: pages
 *
 * Return: 0 or a negative errno; venet_pages_destroy() after the session's end.
 */
int venet_pages_create(struct venet *nic, u32 queue_id, u32 count)
{
	struct venet_pages *pages = &nic->pages;
	struct page_pool_params params = {
		.order = VENET_PAGE_ORDER,
		.pool_size = count,
		.nid = NUMA_NO_NODE,
		.dev = &nic->vdev->dev,
	};
	struct ioq *ioq;
	u32 i;

	pages->pages = kvcalloc(count, sizeof(*pages->pages), GFP_KERNEL);
	pages->free = kvcalloc(count, sizeof(*pages->free), GFP_KERNEL);
	if (!pages->pages || !pages->free)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		pages->free[pages->nfree++] = count - 1 - i;
	pages->pool = page_pool_create(&params);
	if (IS_ERR(pages->pool)) {
		int ret = PTR_ERR(pages->pool);

		pages->pool = NULL;
		return ret;
	}
	ioq = vbus_ioq_create(nic->vdev, queue_id, count, true, venet_offer());
	if (IS_ERR(ioq))
		return PTR_ERR(ioq);
	pages->ioq = ioq;
	return 0;
}

static void venet_page_free(struct venet_pages *pages, struct venet_page *page)
{
	if (!page->page)
		return;
	if (page->pooled)
		page_pool_put_full_page(pages->pool, page->page, false);
	else
		__free_page(page->page);
	page->page = NULL;
}

/**
 * venet_pages_destroy - free the queue and all pages in it
 * @nic: the NIC, its session closed
 */
void venet_pages_destroy(struct venet *nic)
{
	struct venet_pages *pages = &nic->pages;
	u32 i;

	if (pages->pages) {
		for (i = 0; i < nic->params.page_count; i++)
			venet_page_free(pages, &pages->pages[i]);
	}
	if (pages->pool)
		page_pool_destroy(pages->pool);	/* waits for those under way */
	kvfree(pages->pages);
	kvfree(pages->free);
	vbus_ioq_destroy(pages->ioq);
	memset(pages, 0, sizeof(*pages));
}

static bool venet_page_alloc(struct venet_pages *pages, struct venet_page *page,
			     gfp_t gfp)
{
	page->page = page_pool_alloc_pages(pages->pool, gfp | __GFP_NOWARN |
					   __GFP_NORETRY);
	page->pooled = page->page;
	page->size = PAGE_SIZE << VENET_PAGE_ORDER;
	if (!page->page) {
		/* memory is short, or in small pieces: better slow than not at all */
		page->page = alloc_page(gfp | __GFP_NOWARN);
		page->size = PAGE_SIZE;
	}
	return page->page;
}

/**
 * venet_pages_fill - give south all pages that it may have
 * @nic: the NIC; NAPI, or before that
 * @gfp: how to allocate
 *
 * What cannot be had now is tried again in the next poll.
 */
void venet_pages_fill(struct venet *nic, gfp_t gfp)
{
	struct venet_pages *pages = &nic->pages;
	struct ioq *ioq = pages->ioq;
	bool any = false;

	while (pages->nfree) {
		u32 at = ioq->pos[IOQ_INUSE].tail;
		u32 id = pages->free[pages->nfree - 1];
		struct venet_page *page = &pages->pages[id];
		struct ioq_ring_desc *desc = &ioq->ring->ring[at];

		if (!ioq_ours(ioq, at))
			break;
		if (!page->page && !venet_page_alloc(pages, page, gfp))
			break;
		pages->nfree--;
		page->lent = true;
		desc->cookie = id;
		desc->ptr = cpu_to_le64(page_to_phys(page->page));
		desc->len = cpu_to_le64(page->size);
		ioq_push(ioq, IOQ_INUSE);
		any = true;
	}
	if (any)
		ioq_signal(ioq);	/* rings only if south waits for pages */
}

/**
 * venet_page_valid - does south have a page of that number, and of that size?
 * @nic: the NIC
 * @cookie: its number, as south says
 * @len: how much of it south has filled
 */
bool venet_page_valid(const struct venet *nic, u64 cookie, u32 len)
{
	const struct venet_pages *pages = &nic->pages;

	return cookie < nic->params.page_count && pages->pages[cookie].lent &&
	       len <= pages->pages[cookie].size;
}

/**
 * venet_page_return - a page is back, and stays
 * @nic: the NIC
 * @id: its number
 */
void venet_page_return(struct venet *nic, u32 id)
{
	struct venet_pages *pages = &nic->pages;

	pages->pages[id].lent = false;
	pages->free[pages->nfree++] = id;
}

/**
 * venet_page_add - append what is in a page to a frame
 * @nic: the NIC
 * @skb: the frame; has room for another fragment
 * @id: the page's number
 * @len: how much of it
 */
void venet_page_add(struct venet *nic, struct sk_buff *skb, u32 id, u32 len)
{
	struct venet_page *page = &nic->pages.pages[id];

	if (!page->lent) {
		/* quoted twice by one frame: the bytes are missing, and the checks
		 * of the protocol see that
		 */
		return;
	}
	if (len > VENET_PAGE_COPY || !page->pooled ||
	    venet_pages_copy(skb, page_address(page->page), len)) {
		skb_add_rx_frag(skb, skb_shinfo(skb)->nr_frags, page->page, 0, len,
				page->size);
		if (page->pooled)
			skb_mark_for_recycle(skb);
		page->page = NULL;
	}
	venet_page_return(nic, id);
}

/**
 * venet_pages_copy - append a copy of some bytes to a frame
 * @skb: the frame
 * @data: the bytes
 * @len: how many
 *
 * Return: 0, or -ENOMEM; then a part may have been appended.
 */
int venet_pages_copy(struct sk_buff *skb, const void *data, u32 len)
{
	while (len) {
		unsigned int order = get_order(min_t(u32, len, PAGE_SIZE <<
						     VENET_PAGE_ORDER));
		struct page *page = NULL;
		u32 n;

		if (skb_shinfo(skb)->nr_frags == MAX_SKB_FRAGS)
			return -ENOMEM;
		if (order)
			page = __dev_alloc_pages(GFP_ATOMIC | __GFP_NOWARN |
						 __GFP_NORETRY, order);
		if (!page) {
			order = 0;
			page = __dev_alloc_pages(GFP_ATOMIC | __GFP_NOWARN, 0);
		}
		if (!page)
			return -ENOMEM;
		n = min_t(u32, len, PAGE_SIZE << order);
		memcpy(page_address(page), data, n);
		skb_add_rx_frag(skb, skb_shinfo(skb)->nr_frags, page, 0, n,
				PAGE_SIZE << order);
		data += n;
		len -= n;
	}
	return 0;
}
