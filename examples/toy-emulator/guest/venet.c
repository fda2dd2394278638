#include "venet.h"

#include "ioq.h"
#include "machine.h"
#include "vbus.h"

enum { LINKUP = 0, LINKDOWN = 1, MACQUERY = 2 };
enum { SEGMENT_RX = 0, SEGMENT_TX = 1 };

static uint64_t device;
static uint8_t mac[6];
static void (*deliver)(uint8_t *frame, uint32_t length);

static struct ioq rx, tx;
static uint8_t rx_ring[IOQ_BYTES(RING)] __attribute__((aligned(64)));
static uint8_t tx_ring[IOQ_BYTES(RING)] __attribute__((aligned(64)));
static uint8_t rx_buffers[RING][2048] __attribute__((aligned(64)));
static uint8_t tx_buffers[RING][2048] __attribute__((aligned(64)));

static inline uint64_t address_of(const void *pointer)
{
	return (uint32_t)pointer;
}

int venet_start(uint64_t id, void (*receive)(uint8_t *frame, uint32_t length))
{
	int result = vbus_open(id, 1, &device);

	if (result < 0)
		return result;
	deliver = receive;
	ioq_init(&rx, rx_ring, RING, vbus_bell);
	ioq_init(&tx, tx_ring, RING, vbus_bell);
	if ((result = vbus_ring(device, SEGMENT_RX, &rx, SEGMENT_RX)) < 0)
		return result;
	if ((result = vbus_ring(device, SEGMENT_TX, &tx, SEGMENT_TX)) < 0)
		return result;
	for (uint32_t i = 0; i < RING; i++) {
		struct ioq_desc *desc = ioq_at(&rx, i);

		desc->ptr = address_of(rx_buffers[i]);
		desc->len = FRAME_MAX;
		desc->valid = 1;
		ioq_push(&rx, VALID, 0);
	}
	ioq_enable(&rx);
	if ((result = vbus_call(device, MACQUERY, mac, sizeof(mac))) < 0)
		return result;
	return vbus_call(device, LINKUP, 0, 0);
}

const uint8_t *venet_mac(void)
{
	return mac;
}

static void receive_all(void)
{
	int any = 0;

	while (ioq_at(&rx, rx.head[INUSE])->sown == NORTH) {
		struct ioq_desc *desc = ioq_at(&rx, rx.head[INUSE]);
		uint32_t length;

		fence(); /* Q5 */
		length = (uint32_t)desc->len;
		if (length > 0 && length <= FRAME_MAX)
			deliver(rx_buffers[rx.head[INUSE]], length);
		desc->len = FRAME_MAX;
		ioq_pop(&rx, INUSE, 0);
		any = 1;
	}
	if (any)
		ioq_signal(&rx);
	venet_flush(); /* answers */
}

/* Takes back what the host has consumed. Returns whether that was anything. */
static int reap(void)
{
	int any = 0;

	for (;;) {
		struct ioq_desc *desc = ioq_at(&tx, tx.head[VALID]);

		if (!desc->valid || desc->sown != NORTH)
			return any;
		fence();
		desc->valid = 0;
		ioq_pop(&tx, VALID, 1);
		any = 1;
	}
}

static void reaped(void)
{
	ioq_disable(&tx);
}

void venet_signal(uint64_t cookie)
{
	if (cookie == SEGMENT_RX)
		ioq_wakeup(&rx, receive_all);
	else if (cookie == SEGMENT_TX)
		ioq_wakeup(&tx, reaped);
}

uint8_t *venet_reserve(void)
{
	struct ioq_desc *desc = ioq_at(&tx, tx.tail[VALID]);

	if (desc->valid || desc->sown != NORTH)
		reap();
	return desc->valid || desc->sown != NORTH ? 0 : tx_buffers[tx.tail[VALID]];
}

static int unannounced;

void venet_send(uint32_t length)
{
	struct ioq_desc *desc = ioq_at(&tx, tx.tail[VALID]);

	desc->ptr = address_of(tx_buffers[tx.tail[VALID]]);
	desc->len = length;
	desc->valid = 1;
	ioq_push(&tx, VALID, 1);
	unannounced = 1;
}

void venet_flush(void)
{
	if (!unannounced)
		return;
	unannounced = 0;
	ioq_signal(&tx);
}

void venet_wait_for_room(void)
{
	venet_flush();
	while (!venet_reserve()) {
		if (ioq_enable(&tx)) /* it rang while nobody listened: hear it now, or it never rings again */
			ioq_wakeup(&tx, reaped);
		if (!ioq_enabled(&tx) || venet_reserve()) /* between the look and the enabling */
			continue;
		wait_for_interrupt();
		if (interrupted())
			vbus_poll();
	}
	ioq_disable(&tx);
}

uint32_t venet_doorbells(void)
{
	return tx.rung;
}
