/* The bus behind a page of registers (docs/abi/vbus-mmio.md), its calls and events (docs/abi/vbus-pci.md). */
#ifndef VBUS_H
#define VBUS_H

#include <stdint.h>

#include "ioq.h"

#define NO_SIGNAL 0xffffffffu

/* What the bus tells; `cookie` is that of the segment whose signal was rung. */
struct vbus_events {
	void (*device_added)(uint64_t id, const char *type);
	void (*device_gone)(uint64_t id);
	void (*signal)(uint64_t cookie);
};

/* Looks for the page, negotiates, registers the event queue. Returns 0, or a negative errno; -19: there is no bus. */
int vbus_start(const struct vbus_events *events);
uint32_t vbus_address(void);

/* In the trap handler. */
void vbus_acknowledge(void);
/* Outside of it: tells what happened. */
void vbus_poll(void);

int vbus_open(uint64_t id, uint32_t version, uint64_t *handle);
int vbus_call(uint64_t handle, uint32_t func, void *data, uint32_t length);
/* Announces a segment; a ring gets its doorbell. */
int vbus_ring(uint64_t handle, uint32_t id, struct ioq *q, uint64_t cookie);
void vbus_bell(struct ioq *q);

#endif
