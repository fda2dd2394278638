/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The proxy bus: what a driver of a vbus device uses. docs/abi/vbus-bus.md.
 *
 * South announces devices; each appears as /sys/bus/vbus-proxy/devices/<id> and is
 * matched to the driver whose type equals its own. A driver opens its device,
 * calls it, and shares memory with it; a segment may carry a signal.
 *
 * Everything here is called from process context and sleeps, but for the signals.
 */
#ifndef _VBUS_H
#define _VBUS_H

#include <linux/device.h>
#include <linux/mutex.h>
#include <linux/types.h>

#include "ioq.h"
#include "shm_signal.h"

#define VBUS_TYPE_MAX	128
/* Longest parameter block of a device call. */
#define VBUS_DATA_MAX	64

struct vbus_bridge;

/**
 * struct vbus_device - a device that south has announced
 * @dev: the device; named after @id
 * @id: its number on the bus
 * @type: its type
 * @bridge: what connects us to it
 * @lock: protects what follows
 * @handle: the open session, 0 while closed
 * @signals: signals of that session
 */
struct vbus_device {
	struct device dev;
	u64 id;
	char type[VBUS_TYPE_MAX];
	struct vbus_bridge *bridge;
	struct mutex lock;
	u64 handle;
	struct list_head signals;
};

#define to_vbus_device(d) container_of(d, struct vbus_device, dev)

/**
 * struct vbus_driver - a driver of one type of devices
 * @driver: initialised by vbus_driver_register()
 * @type: the type of devices it drives
 * @probe: a device has come
 * @remove: it has gone, or the driver is to let go of it; closes the device
 */
struct vbus_driver {
	struct device_driver driver;
	const char *type;
	int (*probe)(struct vbus_device *vdev);
	void (*remove)(struct vbus_device *vdev);
};

int __vbus_driver_register(struct vbus_driver *drv, struct module *owner,
			   const char *mod_name);
void vbus_driver_unregister(struct vbus_driver *drv);

#define vbus_driver_register(drv) \
	__vbus_driver_register(drv, THIS_MODULE, KBUILD_MODNAME)
#define module_vbus_driver(drv) \
	module_driver(drv, vbus_driver_register, vbus_driver_unregister)

#define MODULE_ALIAS_VBUS(type) MODULE_ALIAS("vbus-proxy:" type)

int vbus_open(struct vbus_device *vdev, u32 version);
void vbus_close(struct vbus_device *vdev);
int vbus_call(struct vbus_device *vdev, u32 func, void *data, u32 len);
int vbus_share(struct vbus_device *vdev, u32 id, phys_addr_t addr, u32 len);
struct shm_signal *vbus_share_signalled(struct vbus_device *vdev, u32 id,
					phys_addr_t addr, u32 len,
					struct shm_signal_desc *desc,
					u32 offset);

struct ioq *vbus_ioq_create(struct vbus_device *vdev, u32 id, u32 count,
			    bool produces, u32 offer);
void vbus_ioq_destroy(struct ioq *ioq);

#endif /* _VBUS_H */
