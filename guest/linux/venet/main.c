// SPDX-License-Identifier: GPL-2.0-only
/*
 * venet: the virtual Ethernet device of a vbus. docs/abi/venet.md.
 */
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/module.h>

#include "venet.h"

static bool lazy_indexes;
module_param(lazy_indexes, bool, 0444);
MODULE_PARM_DESC(lazy_indexes, "offer to write ring indexes lazily");

static bool txc;
module_param(txc, bool, 0444);
MODULE_PARM_DESC(txc, "ask for an event per sent frame");

/* Offloads that depend on what the host grants. */
#define VENET_OFFLOADS	(NETIF_F_SG | NETIF_F_HW_CSUM | NETIF_F_TSO | \
			 NETIF_F_TSO6 | NETIF_F_TSO_ECN | NETIF_F_GSO_UDP_L4)

/**
 * venet_offer - extensions to offer for rings
 */
u32 venet_offer(void)
{
	return lazy_indexes ? IOQ_EXT_LAZY_INDEXES : 0;
}

/**
 * venet_wanted_events - events to ask for
 *
 * Completion events cost more than they tell, here, where the ring tells the same.
 */
u32 venet_wanted_events(void)
{
	return VENET_EVQ_LINKSTATE | (txc ? VENET_EVQ_TXC : 0);
}

static netdev_features_t venet_offloads(const struct venet *nic)
{
	netdev_features_t features = NETIF_F_SG | NETIF_F_HW_CSUM;

	if (!(nic->caps.sg & VENET_CAP_SG))
		return 0;
	if (nic->caps.sg & VENET_CAP_TSO4)
		features |= NETIF_F_TSO;
	if (nic->caps.sg & VENET_CAP_TSO6)
		features |= NETIF_F_TSO6;
	if (nic->caps.sg & VENET_CAP_ECN)
		features |= NETIF_F_TSO_ECN;
	if (nic->caps.uso & VENET_USO_TX)
		features |= NETIF_F_GSO_UDP_L4;
	return features;
}

static netdev_features_t venet_fix_features(struct net_device *netdev,
					    netdev_features_t features)
{
	const struct venet *nic = netdev_priv(netdev);

	return features & (venet_offloads(nic) | ~VENET_OFFLOADS);
}

static netdev_features_t venet_features_check(struct sk_buff *skb,
					      struct net_device *netdev,
					      netdev_features_t features)
{
	/* forwarded ones can be longer than what we announce */
	if (skb_is_gso(skb) && skb->len > VENET_FRAME_MAX)
		features &= ~NETIF_F_GSO_MASK;
	return vlan_features_check(skb, features);
}

static int venet_open(struct net_device *netdev)
{
	struct venet *nic = netdev_priv(netdev);
	int ret;

	if (!nic->open) {
		ret = venet_session_open(nic, &nic->params);
		if (ret)
			return ret;
		netdev_update_features(netdev);
	}
	return venet_link_up(nic);
}

static int venet_stop(struct net_device *netdev)
{
	struct venet *nic = netdev_priv(netdev);

	if (nic->open)
		venet_link_down(nic);
	return 0;
}

static int venet_change_mtu(struct net_device *netdev, int mtu)
{
	struct venet *nic = netdev_priv(netdev);
	struct venet_params params = nic->params;
	unsigned int old = netdev->mtu;
	int ret;

	params.rx_count = min(nic->rx_wanted, venet_rx_count_max(mtu));
	if (params.rx_count != nic->params.rx_count)
		return venet_reconfigure(nic, &params, mtu);

	WRITE_ONCE(netdev->mtu, mtu);
	if (!netif_running(netdev) || !nic->open ||
	    nic->rx.bufs[0].len == venet_rx_len(nic))
		return 0;
	napi_disable(&nic->napi);
	ret = venet_rx_resize(nic);
	if (ret)
		WRITE_ONCE(netdev->mtu, old);
	napi_enable(&nic->napi);
	local_bh_disable();
	napi_schedule(&nic->napi);
	local_bh_enable();
	return ret;
}

static void venet_get_stats64(struct net_device *netdev,
			      struct rtnl_link_stats64 *sum)
{
	struct venet *nic = netdev_priv(netdev);
	struct venet_rx_stats *rx = &nic->rx.stats;
	struct venet_tx_stats *tx = &nic->tx.stats;
	unsigned int start;

	do {
		start = u64_stats_fetch_begin(&rx->sync);
		sum->rx_packets = u64_stats_read(&rx->packets);
		sum->rx_bytes = u64_stats_read(&rx->bytes);
		sum->rx_errors = u64_stats_read(&rx->errors);
		sum->rx_dropped = u64_stats_read(&rx->no_memory);
	} while (u64_stats_fetch_retry(&rx->sync, start));
	do {
		start = u64_stats_fetch_begin(&tx->sync);
		sum->tx_packets = u64_stats_read(&tx->packets);
		sum->tx_bytes = u64_stats_read(&tx->bytes);
		sum->tx_dropped = u64_stats_read(&tx->dropped);
	} while (u64_stats_fetch_retry(&tx->sync, start));
}

static const struct net_device_ops venet_netdev_ops = {
	.ndo_open = venet_open,
	.ndo_stop = venet_stop,
	.ndo_start_xmit = venet_xmit,
	.ndo_tx_timeout = venet_tx_timeout,
	.ndo_get_stats64 = venet_get_stats64,
	.ndo_change_mtu = venet_change_mtu,
	.ndo_fix_features = venet_fix_features,
	.ndo_features_check = venet_features_check,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static int venet_query_mac(struct venet *nic)
{
	u8 mac[ETH_ALEN];
	int ret = vbus_call(nic->vdev, VENET_MACQUERY, mac, sizeof(mac));

	if (ret < 0)
		return ret;
	if (is_valid_ether_addr(mac)) {
		eth_hw_addr_set(nic->netdev, mac);
	} else {
		dev_warn(&nic->vdev->dev, "the host says %pM; using a random address\n",
			 mac);
		eth_hw_addr_random(nic->netdev);
	}
	return 0;
}

static void venet_setup(struct venet *nic)
{
	struct net_device *netdev = nic->netdev;

	netdev->netdev_ops = &venet_netdev_ops;
	netdev->ethtool_ops = &venet_ethtool_ops;
	netdev->watchdog_timeo = 5 * HZ;
	netdev->min_mtu = ETH_MIN_MTU;
	netdev->max_mtu = VENET_MTU_MAX;
	netdev->priv_flags |= IFF_LIVE_ADDR_CHANGE;
	netdev->hw_features = venet_offloads(nic);
	netdev->features = netdev->hw_features;
	if (nic->caps.sg & VENET_CAP_SG) {
		netdev->features |= NETIF_F_HIGHDMA | NETIF_F_GSO_ROBUST;
		netdev->vlan_features = netdev->features;
		netif_set_tso_max_segs(netdev, VENET_SEGMENTS_MAX);
	}
	if (nic->caps.l4ro & VENET_CAP_SG)
		netdev->features |= NETIF_F_RXCSUM;
	netif_napi_add(netdev, &nic->napi, venet_poll);
	timer_setup(&nic->tx.timer, venet_tx_timer, 0);
	u64_stats_init(&nic->tx.stats.sync);
	u64_stats_init(&nic->rx.stats.sync);
	netif_carrier_off(netdev);
}

static int venet_probe(struct vbus_device *vdev)
{
	const struct venet_params params = {
		.rx_count = VENET_RING_DEFAULT,
		.tx_count = VENET_RING_DEFAULT,
		.page_count = VENET_PAGES_DEFAULT,
	};
	struct net_device *netdev;
	struct venet *nic;
	int ret;

	netdev = alloc_etherdev(sizeof(*nic));
	if (!netdev)
		return -ENOMEM;
	SET_NETDEV_DEV(netdev, &vdev->dev);
	nic = netdev_priv(netdev);
	nic->vdev = vdev;
	nic->netdev = netdev;
	nic->rx_wanted = params.rx_count;
	nic->tx_usecs = VENET_TX_USECS_DEFAULT;
	dev_set_drvdata(&vdev->dev, nic);

	ret = venet_session_open(nic, &params);
	if (ret) {
		dev_err(&vdev->dev, "no session with the host: %d\n", ret);
		goto err_free;
	}
	ret = venet_query_mac(nic);
	if (ret) {
		dev_err(&vdev->dev, "the host does not tell the address: %d\n", ret);
		goto err_session;
	}
	venet_setup(nic);
	ret = register_netdev(netdev);
	if (ret) {
		dev_err(&vdev->dev, "the interface was not registered: %d\n", ret);
		goto err_napi;
	}
	return 0;

err_napi:
	netif_napi_del(&nic->napi);
err_session:
	venet_session_close(nic);
err_free:
	free_netdev(netdev);
	return ret;
}

static void venet_remove(struct vbus_device *vdev)
{
	struct venet *nic = dev_get_drvdata(&vdev->dev);

	unregister_netdev(nic->netdev);
	if (nic->open)
		venet_session_close(nic);
	netif_napi_del(&nic->napi);
	free_netdev(nic->netdev);
}

static struct vbus_driver venet_driver = {
	.type = VENET_TYPE,
	.probe = venet_probe,
	.remove = venet_remove,
};
module_vbus_driver(venet_driver);

MODULE_ALIAS_VBUS(VENET_TYPE);
MODULE_DESCRIPTION("virtual-bus: Ethernet");
MODULE_AUTHOR("The vbus project");
MODULE_LICENSE("GPL");
MODULE_VERSION(VENET_DRV_VERSION);
