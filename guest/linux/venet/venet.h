/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of venet.ko know of each other.
 *
 * A NIC has one session with its device, from probe to remove; a change of ring
 * sizes replaces it. The link is up while the interface is up. One NAPI instance
 * serves everything: received frames, sent ones, pages, events.
 */
#ifndef _VENET_H
#define _VENET_H

#include <linux/if_ether.h>
#include <linux/if_vlan.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/timer.h>
#include <linux/u64_stats_sync.h>

#include "vbus.h"
#include "abi.h"

#define VENET_NAME		"venet"
#define VENET_DRV_VERSION	"1.0.0"

#define VENET_RING_MIN		32
#define VENET_RING_DEFAULT	256
#define VENET_PAGES_DEFAULT	64
#define VENET_MTU_MAX		65000
/* How long frames that were sent may linger in the ring. */
#define VENET_TX_USECS_DEFAULT	4000

/* Room for the Ethernet header and a VLAN tag. */
#define VENET_FRAME_OVERHEAD	(ETH_HLEN + VLAN_HLEN)

/**
 * struct venet_caps - what the host has granted
 * @sg: group SG
 * @evq: group EVENTQ
 * @l4ro: group L4RO
 * @uso: group USO
 */
struct venet_caps {
	u32 sg;
	u32 evq;
	u32 l4ro;
	u32 uso;
};

/**
 * struct venet_params - what a session is made of
 * @rx_count: receive buffers
 * @tx_count: transmit descriptors
 * @page_count: pages for what does not fit a receive buffer
 */
struct venet_params {
	u32 rx_count;
	u32 tx_count;
	u32 page_count;
};

struct venet_tx_stats {
	u64_stats_t packets;
	u64_stats_t bytes;
	u64_stats_t superframes;
	u64_stats_t signals;
	u64_stats_t stopped;
	u64_stats_t linearized;
	u64_stats_t dropped;
	u64_stats_t lingered;
	struct u64_stats_sync sync;
};

struct venet_tx_slot {
	struct sk_buff *skb;
	unsigned int bytes;
	bool completed;		/* by an event, where completions are events */
};

/**
 * struct venet_tx - the transmit ring; under the lock of the transmit queue
 * @ioq: the ring; "valid" has what is not reclaimed yet
 * @slots: the frame at each position
 * @vsgs: its scatter-gather descriptor; NULL without SG
 * @vsg_base: what south adds to offsets; 0 if it knows the pool, else its address
 * @armed: we have asked to be notified
 * @timer: when to care for frames that nobody asks for
 * @timer_tail: where the ring stood when it was set
 */
struct venet_tx {
	struct ioq *ioq;
	struct venet_tx_slot *slots;
	struct venet_vsg *vsgs;
	phys_addr_t vsg_base;
	bool armed;
	struct timer_list timer;
	u32 timer_tail;
	struct venet_tx_stats stats;
};

struct venet_rx_stats {
	u64_stats_t packets;
	u64_stats_t bytes;
	u64_stats_t superframes;
	u64_stats_t partial_csum;
	u64_stats_t flushed;
	u64_stats_t no_memory;
	u64_stats_t errors;
	u64_stats_t pages;
	u64_stats_t polls;
	struct u64_stats_sync sync;
};

/* What one poll adds to the statistics. */
struct venet_rx_counts {
	u32 packets;
	u32 bytes;
	u32 superframes;
	u32 partial_csum;
	u32 flushed;
	u32 no_memory;
	u32 errors;
	u32 pages;
};

/* A receive buffer: @len bytes for a frame. */
struct venet_buf {
	void *data;
	u32 len;
};

/**
 * struct venet_rx - the receive ring; belongs to NAPI, or to whoever stopped it
 * @ioq: the ring
 * @bufs: the buffer at each position
 * @vsgs: the slot of each position; NULL without L4RO
 * @counts: since the last look at @stats
 * @stats: statistics
 */
struct venet_rx {
	struct ioq *ioq;
	struct venet_buf *bufs;
	struct venet_vsg *vsgs;
	struct venet_rx_counts counts;
	struct venet_rx_stats stats;
};

/* A page, or several that are contiguous. */
struct venet_page {
	struct page *page;
	u32 size;
	bool pooled;
	bool lent;		/* south has it */
};

/**
 * struct venet_pages - pages that south has; belongs to NAPI as the receive ring
 * @ioq: the page queue; NULL without L4RO
 * @pool: where they come from, and return to
 * @pages: by number, which is the cookie
 * @free: numbers that south does not have
 * @nfree: how many
 */
struct venet_pages {
	struct ioq *ioq;
	struct page_pool *pool;
	struct venet_page *pages;
	u32 *free;
	u32 nfree;
};

/**
 * struct venet_events - the event ring; belongs to NAPI
 * @ioq: the ring; NULL without events
 * @events: one event per position
 * @size: length of an event
 */
struct venet_events {
	struct ioq *ioq;
	void *events;
	u32 size;
};

/**
 * struct venet - a NIC
 * @vdev: its device
 * @netdev: its interface
 * @napi: serves all rings
 * @caps: what was granted in this session
 * @params: what this session is made of
 * @tx: transmit
 * @rx: receive
 * @pages: pages for receive
 * @events: events
 * @tx_usecs: how long sent frames may linger before we ask for them
 * @rx_wanted: receive buffers asked for; large ones are fewer
 * @open: there is a session
 */
struct venet {
	struct vbus_device *vdev;
	struct net_device *netdev;
	struct napi_struct napi;
	struct venet_caps caps;
	struct venet_params params;
	struct venet_tx tx;
	struct venet_rx rx;
	struct venet_pages pages;
	struct venet_events events;
	u32 tx_usecs;
	u32 rx_wanted;
	bool open;
};

/* main.c */
u32 venet_offer(void);
u32 venet_wanted_events(void);

/* session.c */
int venet_session_open(struct venet *nic, const struct venet_params *params);
void venet_session_close(struct venet *nic);
int venet_link_up(struct venet *nic);
void venet_link_down(struct venet *nic);
int venet_reconfigure(struct venet *nic, const struct venet_params *params,
		      unsigned int mtu);

/* poll.c */
int venet_poll(struct napi_struct *napi, int budget);
void venet_notify(void *priv);

/* tx.c */
int venet_tx_create(struct venet *nic, u32 count);
void venet_tx_destroy(struct venet *nic);
netdev_tx_t venet_xmit(struct sk_buff *skb, struct net_device *netdev);
void venet_tx_reclaim(struct venet *nic, int budget);
void venet_tx_settle(struct venet *nic);
void venet_tx_orphan(struct venet *nic);
void venet_tx_timer(struct timer_list *timer);
void venet_tx_timeout(struct net_device *netdev, unsigned int queue);
void venet_tx_completed(struct venet *nic, u64 cookie);

/* rx.c */
int venet_rx_share_slots(struct venet *nic, u32 id, u32 count);
int venet_rx_create(struct venet *nic, u32 count);
void venet_rx_destroy(struct venet *nic);
int venet_rx(struct venet *nic, int budget);
int venet_rx_resize(struct venet *nic);
u32 venet_rx_len(const struct venet *nic);
u32 venet_rx_count_max(unsigned int mtu);

/* pages.c */
int venet_pages_create(struct venet *nic, u32 queue_id, u32 count);
void venet_pages_destroy(struct venet *nic);
void venet_pages_fill(struct venet *nic, gfp_t gfp);
bool venet_page_valid(const struct venet *nic, u64 cookie, u32 len);
void venet_page_add(struct venet *nic, struct sk_buff *skb, u32 id, u32 len);
void venet_page_return(struct venet *nic, u32 id);
int venet_pages_copy(struct sk_buff *skb, const void *data, u32 len);

/* events.c */
int venet_events_create(struct venet *nic, u32 count);
void venet_events_destroy(struct venet *nic);
void venet_events_take(struct venet *nic);

/* ethtool.c */
extern const struct ethtool_ops venet_ethtool_ops;

static inline bool venet_has_txc(const struct venet *nic)
{
	return nic->caps.evq & VENET_EVQ_TXC;
}

#endif /* _VENET_H */
