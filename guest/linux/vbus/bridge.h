/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of vbus.ko know of each other. */
#ifndef _VBUS_BRIDGE_H
#define _VBUS_BRIDGE_H

#include <linux/device.h>
#include <linux/io.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "abi.h"
#include "vbus.h"

/**
 * struct vbus_channel - one CPU's block for bus calls
 * @fastcall: what south executes
 * @args: parameters of the bus call
 * @data: parameters of the device call within
 */
struct vbus_channel {
	struct vbus_abi_fastcall fastcall;
	u8 args[sizeof(struct vbus_abi_shm)];
	u8 data[VBUS_DATA_MAX];
} ____cacheline_aligned;

struct vbus_bridge;

/**
 * struct vbus_carrier - how a bridge reaches south; what differs between PCI and a register page
 * @call: execute the bridge call of this vector, with @len bytes of parameters at @addr
 * @request_irq: have vbus_bridge_events() called when south interrupts
 * @free_irq: no more of that
 * @quiesce: south forgets us; until then it may write to what we shared
 * @describe: for people
 */
struct vbus_carrier {
	int (*call)(struct vbus_bridge *bridge, u32 vector, u32 len, u64 addr);
	int (*request_irq)(struct vbus_bridge *bridge);
	void (*free_irq)(struct vbus_bridge *bridge);
	void (*quiesce)(struct vbus_bridge *bridge);
	const char *(*describe)(const struct vbus_bridge *bridge);
};

/**
 * struct vbus_bridge - what connects us to a bus, and what south knows of us
 * @dev: the PCI function or platform device
 * @carrier: how it is reached
 * @regs: registers for calls
 * @ports: doorbells, VBUS_PORT_EVENTQ and so on
 * @msi: interrupts are messages, and need no acknowledge
 * @irq: the platform device's interrupt
 * @ilp32: parameter blocks have the packed layout
 * @call_lock: one bridge call at a time
 * @block: parameters of the bridge call
 * @channels: one per possible CPU
 * @events: the event queue
 * @event_signal: its signal
 * @records: its records
 * @signals: signals of all sessions, by cookie
 * @next_cookie: where the search for a free cookie begins
 * @hotplug_lock: protects @hotplug
 * @hotplug: announcements that wait for @hotplug_work
 * @hotplug_work: adds and drops devices
 * @retry_work: takes events for which there was no memory
 */
struct vbus_bridge {
	struct device *dev;
	const struct vbus_carrier *carrier;
	void __iomem *regs;
	void __iomem *ports;
	bool msi;
	int irq;
	bool ilp32;
	spinlock_t call_lock;
	u8 block[sizeof(struct vbus_abi_busreg)] __aligned(8);
	struct vbus_channel *channels;
	struct ioq *events;
	struct shm_signal event_signal;
	void *records;
	struct xarray signals;
	u32 next_cookie;
	spinlock_t hotplug_lock;
	struct list_head hotplug;
	struct work_struct hotplug_work;
	struct delayed_work retry_work;
};

/**
 * struct vbus_signal - the signal of a segment
 * @signal: what drivers see
 * @bridge: how to ring
 * @handle: what to ring with
 * @cookie: by what name south rings us
 * @list: in the device's list
 */
struct vbus_signal {
	struct shm_signal signal;
	struct vbus_bridge *bridge;
	u32 handle;
	u32 cookie;
	struct list_head list;
};

#define VBUS_NAME "vbus"

/* main.c */
struct vbus_bridge *vbus_bridge_alloc(struct device *dev,
				      const struct vbus_carrier *carrier);
void vbus_bridge_free(struct vbus_bridge *bridge);
int vbus_bridge_start(struct vbus_bridge *bridge);
void vbus_bridge_stop(struct vbus_bridge *bridge);

/* pci-bridge.c */
#ifdef CONFIG_PCI
int vbus_pci_register(void);
void vbus_pci_unregister(void);
#else
static inline int vbus_pci_register(void)
{
	return 0;
}

static inline void vbus_pci_unregister(void)
{
}
#endif

/* mmio-bridge.c */
int vbus_mmio_register(void);
void vbus_mmio_unregister(void);

/* calls.c */
int vbus_bridge_negotiate(struct vbus_bridge *bridge);
int vbus_bridge_register_events(struct vbus_bridge *bridge);
int vbus_bridge_add_channels(struct vbus_bridge *bridge);
void vbus_bridge_free_channels(struct vbus_bridge *bridge);
int vbus_hc_open(struct vbus_bridge *bridge, u32 id, u32 version, u64 *handle);
int vbus_hc_close(struct vbus_bridge *bridge, u64 handle);
int vbus_hc_call(struct vbus_bridge *bridge, u64 handle, u32 func, void *data,
		 u32 len);
int vbus_hc_shm(struct vbus_bridge *bridge, u64 handle, u32 id,
		phys_addr_t addr, u32 len, u32 offset, u64 cookie);

/* events.c */
int vbus_events_create(struct vbus_bridge *bridge);
void vbus_events_destroy(struct vbus_bridge *bridge);
size_t vbus_event_size(const struct vbus_bridge *bridge);

/* session.c */
void vbus_signal_event(struct vbus_bridge *bridge, u64 cookie);
void vbus_signal_close_event(struct vbus_bridge *bridge, u64 cookie);
void vbus_signals_drop(struct vbus_bridge *bridge);

/* bus.c */
int vbus_bus_register(void);
void vbus_bus_unregister(void);
int vbus_hotplug_event(struct vbus_bridge *bridge, bool add, u64 id,
		       const char *type);
void vbus_hotplug_init(struct vbus_bridge *bridge);
void vbus_hotplug_end(struct vbus_bridge *bridge);

#endif /* _VBUS_BRIDGE_H */
