// SPDX-License-Identifier: GPL-2.0-only
/*
 * A session: what is agreed upon with the host, and the rings and pools that are
 * shared, in the order of docs/abi/venet.md section 10. And the link within it.
 */
#include <linux/etherdevice.h>

#include "venet.h"

static int venet_negotiate(struct venet *nic, u32 group, u32 wanted, u32 *granted)
{
	struct venet_capabilities caps = {
		.gid = cpu_to_le32(group),
		.bits = cpu_to_le32(wanted),
	};
	int ret = vbus_call(nic->vdev, VENET_NEGCAP, &caps, sizeof(caps));

	*granted = ret < 0 ? 0 : le32_to_cpu(caps.bits) & wanted;
	return ret < 0 ? ret : 0;
}

static int venet_l4ro_create(struct venet *nic)
{
	struct venet_l4ro_query query = {};
	int ret;

	ret = vbus_call(nic->vdev, VENET_L4ROQUERY, &query, sizeof(query));
	if (ret < 0)
		return ret;
	ret = venet_rx_share_slots(nic, le32_to_cpu(query.dpid),
				   nic->params.rx_count);
	if (ret)
		return ret;
	return venet_pages_create(nic, le32_to_cpu(query.pqid),
				  nic->params.page_count);
}

static int venet_rings_create(struct venet *nic)
{
	const u32 tso = VENET_CAP_TSO4 | VENET_CAP_TSO6 | VENET_CAP_ECN;
	struct venet_caps *caps = &nic->caps;
	int ret;

	ret = venet_negotiate(nic, VENET_GROUP_SG,
			      VENET_CAP_SG | VENET_CAP_PMTD | tso, &caps->sg);
	if (ret)
		return ret;
	ret = venet_negotiate(nic, VENET_GROUP_EVENTQ, venet_wanted_events(),
			      &caps->evq);
	if (ret)
		return ret;
	if (caps->evq) {
		ret = venet_events_create(nic, nic->params.tx_count);
		if (ret)
			return ret;
	}
	ret = venet_negotiate(nic, VENET_GROUP_L4RO, VENET_CAP_SG | tso,
			      &caps->l4ro);
	if (ret)
		return ret;
	if (caps->l4ro & VENET_CAP_SG) {
		ret = venet_l4ro_create(nic);
		if (ret)
			return ret;
		/* hosts that do not know this group grant nothing */
		ret = venet_negotiate(nic, VENET_GROUP_USO,
				      VENET_USO_RX | VENET_USO_TX, &caps->uso);
		if (ret)
			return ret;
	}
	ret = venet_rx_create(nic, nic->params.rx_count);
	if (ret)
		return ret;
	ret = venet_tx_create(nic, nic->params.tx_count);
	if (ret)
		return ret;
	if (nic->pages.ioq)
		venet_pages_fill(nic, GFP_KERNEL);
	return 0;
}

/**
 * venet_session_open - open the device, agree, and share everything
 * @nic: the NIC, without a session
 * @params: what to make
 *
 * Return: 0 or a negative errno; then there is no session.
 */
int venet_session_open(struct venet *nic, const struct venet_params *params)
{
	int ret;

	ret = vbus_open(nic->vdev, VENET_VERSION);
	if (ret)
		return ret;
	nic->params = *params;
	memset(&nic->caps, 0, sizeof(nic->caps));
	ret = venet_rings_create(nic);
	if (ret)
		venet_session_close(nic);
	else
		nic->open = true;
	return ret;
}

/**
 * venet_session_close - close the device and free everything
 * @nic: the NIC, its link down
 */
void venet_session_close(struct venet *nic)
{
	nic->open = false;
	vbus_close(nic->vdev);
	venet_tx_destroy(nic);
	venet_rx_destroy(nic);
	venet_pages_destroy(nic);
	venet_events_destroy(nic);
}

/**
 * venet_link_up - let frames flow
 * @nic: the NIC, its link down
 *
 * Return: 0 or a negative errno.
 */
int venet_link_up(struct venet *nic)
{
	bool stale = nic->rx.bufs[0].len != venet_rx_len(nic);
	int ret;

	/* first, or a wake-up that comes with LINKUP would find nobody */
	if (!stale)
		napi_enable(&nic->napi);
	ret = vbus_call(nic->vdev, VENET_LINKUP, NULL, 0);
	if (ret < 0) {
		netdev_err(nic->netdev, "the host refuses the link: %d\n", ret);
		if (!stale)
			napi_disable(&nic->napi);
		return ret;
	}
	if (stale) {
		/* the MTU was changed while the link was down */
		ret = venet_rx_resize(nic);
		if (ret) {
			netdev_err(nic->netdev, "no buffers for MTU %u: %d\n",
				   nic->netdev->mtu, ret);
			vbus_call(nic->vdev, VENET_LINKDOWN, NULL, 0);
			return ret;
		}
		napi_enable(&nic->napi);
	}
	if (!(nic->caps.evq & VENET_EVQ_LINKSTATE))
		netif_carrier_on(nic->netdev);
	netif_tx_start_all_queues(nic->netdev);

	/* the first poll asks for notifications */
	local_bh_disable();
	napi_schedule(&nic->napi);
	local_bh_enable();
	return 0;
}

/**
 * venet_link_down - the reverse
 * @nic: the NIC, its link up
 *
 * What is in the transmit ring stays there; south sends it when the link is up
 * again.
 */
void venet_link_down(struct venet *nic)
{
	int ret;

	netif_tx_disable(nic->netdev);
	ret = vbus_call(nic->vdev, VENET_LINKDOWN, NULL, 0);
	if (ret < 0)
		netdev_warn(nic->netdev, "LINKDOWN: %d\n", ret);
	napi_disable(&nic->napi);
	timer_delete_sync(&nic->tx.timer);
	netif_carrier_off(nic->netdev);
	local_bh_disable();
	venet_tx_reclaim(nic, 0);
	local_bh_enable();
	venet_tx_orphan(nic);
}

/* Opens a session, and the link if the interface is up. */
static int venet_restart(struct venet *nic, const struct venet_params *params)
{
	int ret = venet_session_open(nic, params);

	if (ret)
		return ret;
	/* the host may grant less than it did before */
	netdev_update_features(nic->netdev);
	if (!netif_running(nic->netdev))
		return 0;
	ret = venet_link_up(nic);
	if (ret)
		venet_session_close(nic);
	return ret;
}

/**
 * venet_reconfigure - replace the session by one with other rings
 * @nic: the NIC; under RTNL
 * @params: what to make
 * @mtu: for which MTU
 *
 * Return: 0 or a negative errno; then the NIC is as before, unless that fails, too:
 * then it has no session until it is brought up anew.
 */
int venet_reconfigure(struct venet *nic, const struct venet_params *params,
		      unsigned int mtu)
{
	struct net_device *netdev = nic->netdev;
	struct venet_params old_params = nic->params;
	unsigned int old_mtu = netdev->mtu;
	int ret, err;

	ASSERT_RTNL();
	netif_device_detach(netdev);
	if (nic->open) {
		if (netif_running(netdev))
			venet_link_down(nic);
		venet_session_close(nic);
	}
	WRITE_ONCE(netdev->mtu, mtu);
	ret = venet_restart(nic, params);
	err = ret;
	if (ret) {
		WRITE_ONCE(netdev->mtu, old_mtu);
		err = venet_restart(nic, &old_params);
	}
	if (err)
		netdev_err(netdev, "no session with the host any more: %d\n", err);
	netif_device_attach(netdev);
	return ret;
}
