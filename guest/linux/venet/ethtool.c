// SPDX-License-Identifier: GPL-2.0-only
/* What ethtool shows and sets. */
#include <linux/ethtool.h>

#include "venet.h"

struct venet_stat {
	char name[ETH_GSTRING_LEN];
	size_t offset;
};

#define VENET_RX_STAT(member) \
	{ "rx_" #member, offsetof(struct venet_rx_stats, member) }
#define VENET_TX_STAT(member) \
	{ "tx_" #member, offsetof(struct venet_tx_stats, member) }

static const struct venet_stat venet_rx_stats[] = {
	VENET_RX_STAT(packets),
	VENET_RX_STAT(bytes),
	VENET_RX_STAT(superframes),
	VENET_RX_STAT(partial_csum),
	VENET_RX_STAT(flushed),
	VENET_RX_STAT(no_memory),
	VENET_RX_STAT(errors),
	VENET_RX_STAT(pages),
	VENET_RX_STAT(polls),
};

static const struct venet_stat venet_tx_stats[] = {
	VENET_TX_STAT(packets),
	VENET_TX_STAT(bytes),
	VENET_TX_STAT(superframes),
	VENET_TX_STAT(signals),
	VENET_TX_STAT(stopped),
	VENET_TX_STAT(linearized),
	VENET_TX_STAT(dropped),
	VENET_TX_STAT(lingered),
};

static void venet_get_drvinfo(struct net_device *netdev,
			      struct ethtool_drvinfo *info)
{
	const struct venet *nic = netdev_priv(netdev);

	strscpy(info->driver, VENET_NAME, sizeof(info->driver));
	strscpy(info->version, VENET_DRV_VERSION, sizeof(info->version));
	strscpy(info->bus_info, dev_name(&nic->vdev->dev), sizeof(info->bus_info));
}

static int venet_get_sset_count(struct net_device *netdev, int set)
{
	if (set != ETH_SS_STATS)
		return -EOPNOTSUPP;
	return ARRAY_SIZE(venet_rx_stats) + ARRAY_SIZE(venet_tx_stats);
}

static void venet_get_strings(struct net_device *netdev, u32 set, u8 *data)
{
	size_t i;

	if (set != ETH_SS_STATS)
		return;
	for (i = 0; i < ARRAY_SIZE(venet_rx_stats); i++)
		ethtool_sprintf(&data, "%s", venet_rx_stats[i].name);
	for (i = 0; i < ARRAY_SIZE(venet_tx_stats); i++)
		ethtool_sprintf(&data, "%s", venet_tx_stats[i].name);
}

static void venet_read_stats(const void *stats, const struct u64_stats_sync *sync,
			     const struct venet_stat *table, size_t n, u64 *data)
{
	unsigned int start;
	size_t i;

	do {
		start = u64_stats_fetch_begin(sync);
		for (i = 0; i < n; i++)
			data[i] = u64_stats_read(stats + table[i].offset);
	} while (u64_stats_fetch_retry(sync, start));
}

static void venet_get_ethtool_stats(struct net_device *netdev,
				    struct ethtool_stats *stats, u64 *data)
{
	const struct venet *nic = netdev_priv(netdev);

	venet_read_stats(&nic->rx.stats, &nic->rx.stats.sync, venet_rx_stats,
			 ARRAY_SIZE(venet_rx_stats), data);
	venet_read_stats(&nic->tx.stats, &nic->tx.stats.sync, venet_tx_stats,
			 ARRAY_SIZE(venet_tx_stats),
			 data + ARRAY_SIZE(venet_rx_stats));
}

static void venet_get_ringparam(struct net_device *netdev,
				struct ethtool_ringparam *ring,
				struct kernel_ethtool_ringparam *kernel_ring,
				struct netlink_ext_ack *extack)
{
	const struct venet *nic = netdev_priv(netdev);

	ring->rx_max_pending = venet_rx_count_max(netdev->mtu);
	ring->tx_max_pending = IOQ_COUNT_MAX;
	ring->rx_pending = nic->params.rx_count;
	ring->tx_pending = nic->params.tx_count;
	if (nic->caps.l4ro & VENET_CAP_SG) {
		ring->rx_jumbo_max_pending = IOQ_COUNT_MAX;
		ring->rx_jumbo_pending = nic->params.page_count;
	}
}

static int venet_set_ringparam(struct net_device *netdev,
			       struct ethtool_ringparam *ring,
			       struct kernel_ethtool_ringparam *kernel_ring,
			       struct netlink_ext_ack *extack)
{
	struct venet *nic = netdev_priv(netdev);
	struct venet_params params = nic->params;
	int ret;

	if (ring->rx_pending < VENET_RING_MIN ||
	    ring->tx_pending < VENET_RING_MIN) {
		NL_SET_ERR_MSG_MOD(extack, "rings have 32 descriptors at least");
		return -EINVAL;
	}
	params.rx_count = ring->rx_pending;
	params.tx_count = ring->tx_pending;
	if (nic->caps.l4ro & VENET_CAP_SG) {
		if (ring->rx_jumbo_pending < VENET_RING_MIN) {
			NL_SET_ERR_MSG_MOD(extack, "32 pages at least");
			return -EINVAL;
		}
		params.page_count = ring->rx_jumbo_pending;
	}
	if (params.rx_count == nic->params.rx_count &&
	    params.tx_count == nic->params.tx_count &&
	    params.page_count == nic->params.page_count)
		return 0;
	ret = venet_reconfigure(nic, &params, netdev->mtu);
	if (!ret)
		nic->rx_wanted = ring->rx_pending;
	return ret;
}

static int venet_get_coalesce(struct net_device *netdev,
			      struct ethtool_coalesce *coalesce,
			      struct kernel_ethtool_coalesce *kernel_coalesce,
			      struct netlink_ext_ack *extack)
{
	const struct venet *nic = netdev_priv(netdev);

	coalesce->tx_coalesce_usecs = nic->tx_usecs;
	return 0;
}

static int venet_set_coalesce(struct net_device *netdev,
			      struct ethtool_coalesce *coalesce,
			      struct kernel_ethtool_coalesce *kernel_coalesce,
			      struct netlink_ext_ack *extack)
{
	struct venet *nic = netdev_priv(netdev);

	if (coalesce->tx_coalesce_usecs > USEC_PER_SEC) {
		NL_SET_ERR_MSG_MOD(extack, "frames linger for a second at most");
		return -EINVAL;
	}
	WRITE_ONCE(nic->tx_usecs, coalesce->tx_coalesce_usecs);
	return 0;
}

static int venet_get_link_ksettings(struct net_device *netdev,
				    struct ethtool_link_ksettings *settings)
{
	settings->base.speed = SPEED_UNKNOWN;
	settings->base.duplex = DUPLEX_FULL;
	settings->base.port = PORT_OTHER;
	settings->base.autoneg = AUTONEG_DISABLE;
	return 0;
}

const struct ethtool_ops venet_ethtool_ops = {
	.supported_coalesce_params = ETHTOOL_COALESCE_TX_USECS,
	.get_drvinfo = venet_get_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_link_ksettings = venet_get_link_ksettings,
	.get_ts_info = ethtool_op_get_ts_info,
	.get_sset_count = venet_get_sset_count,
	.get_strings = venet_get_strings,
	.get_ethtool_stats = venet_get_ethtool_stats,
	.get_ringparam = venet_get_ringparam,
	.set_ringparam = venet_set_ringparam,
	.get_coalesce = venet_get_coalesce,
	.set_coalesce = venet_set_coalesce,
};
