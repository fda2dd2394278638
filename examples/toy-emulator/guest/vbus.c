#include "vbus.h"

#include "machine.h"

/* Registers. */
#define PAGE_MAGIC 0x000
#define PAGE_VERSION 0x004
#define PAGE_HC_VERSION 0x008
#define PAGE_DATAP_LOW 0x010
#define PAGE_DATAP_HIGH 0x014
#define PAGE_LEN 0x018
#define PAGE_CALL 0x01c
#define PAGE_RESULT 0x020
#define PAGE_EVENTQ 0x030
#define PAGE_SHMSIGNAL 0x038
#define PAGE_INTERRUPT_STATUS 0x040
#define PAGE_INTERRUPT_ACK 0x044

#define MAGIC 0x73756276u /* "vbus" */
#define VERSION 1u
#define NEGOTIATE_MAGIC 0xbf53eef5u

enum { NEGOTIATE = 0, QREG = 1, SLOWCALL = 2 };
enum { DEVOPEN = 0, DEVCLOSE = 1, DEVCALL = 2, DEVSHM = 3 };
enum { DEVADD = 0, DEVDROP = 1, SHMSIGNAL = 2, SHMCLOSE = 3 };

#define EVENTS 64

struct negotiate {
	uint32_t magic;
	uint32_t version;
	uint64_t capabilities;
};

struct busreg {
	uint32_t count;
	uint32_t pad;
	uint32_t ring_count;
	uint32_t pad2;
	uint64_t ring;
	uint64_t data;
};

struct call {
	uint32_t vector;
	uint32_t len;
	uint64_t datap;
};

struct deviceopen {
	uint32_t devid;
	uint32_t version;
	uint64_t handle;
};

struct devicecall {
	uint64_t devh;
	uint32_t func;
	uint32_t len;
	uint32_t flags;
	uint32_t pad;
	uint64_t datap;
};

struct deviceshm {
	uint64_t devh;
	uint32_t id;
	uint32_t len;
	uint32_t flags;
	uint32_t pad;
	uint32_t signal_offset;
	uint32_t signal_prio;
	uint64_t signal_cookie;
	uint64_t datap;
};

struct event {
	uint32_t id;
	uint32_t pad;
	union {
		struct {
			uint64_t id;
			char type[128];
		} add;
		uint64_t handle;
	} data;
};

_Static_assert(sizeof(struct busreg) == 32, "vbus-pci.md section 6");
_Static_assert(sizeof(struct devicecall) == 32, "vbus-pci.md section 6");
_Static_assert(sizeof(struct deviceshm) == 48, "vbus-pci.md section 6");
_Static_assert(sizeof(struct event) == 144, "vbus-pci.md section 6");

static uint32_t page;
static const struct vbus_events *told;
static struct ioq eventq;
static uint8_t event_ring[IOQ_BYTES(EVENTS)] __attribute__((aligned(64)));
static struct event records[EVENTS];

static inline uint64_t address_of(const void *pointer)
{
	return (uint32_t)pointer;
}

static int bridge_call(uint32_t vector, const void *block, uint32_t length)
{
	mmio_write(page + PAGE_DATAP_LOW, (uint32_t)block);
	mmio_write(page + PAGE_DATAP_HIGH, 0);
	mmio_write(page + PAGE_LEN, length);
	fence();
	mmio_write(page + PAGE_CALL, vector);
	fence();
	return (int)mmio_read(page + PAGE_RESULT);
}

static int bus_call(uint32_t vector, void *block, uint32_t length)
{
	struct call call = { vector, length, address_of(block) };

	return bridge_call(SLOWCALL, &call, sizeof(call));
}

uint32_t vbus_address(void)
{
	return page;
}

void vbus_bell(struct ioq *q)
{
	mmio_write(page + PAGE_SHMSIGNAL, q->handle);
}

static void eventq_bell(struct ioq *q)
{
	(void)q;
	mmio_write(page + PAGE_EVENTQ, 0);
}

static int find_page(void)
{
	for (uint32_t at = ATTACH_FIRST; at < ATTACH_END; at += PAGE) {
		if (mmio_read(at + PAGE_MAGIC) == MAGIC && mmio_read(at + PAGE_VERSION) == VERSION) {
			page = at;
			return 0;
		}
	}
	return -19;
}

int vbus_start(const struct vbus_events *events)
{
	struct negotiate negotiate = { NEGOTIATE_MAGIC, 0, 0 };
	struct busreg reg = { 1, 0, EVENTS, 0, 0, 0 };
	int result = find_page();

	if (result < 0)
		return result;
	told = events;
	negotiate.version = mmio_read(page + PAGE_HC_VERSION);
	result = bridge_call(NEGOTIATE, &negotiate, sizeof(negotiate));
	if (result < 0)
		return result;
	ioq_init(&eventq, event_ring, EVENTS, eventq_bell);
	for (uint32_t i = 0; i < EVENTS; i++) {
		struct ioq_desc *desc = ioq_at(&eventq, i);

		desc->ptr = address_of(&records[i]);
		desc->len = sizeof(records[i]);
		desc->valid = 1;
		ioq_push(&eventq, VALID, 0);
	}
	ioq_enable(&eventq);
	reg.ring = address_of(event_ring);
	reg.data = address_of(records);
	result = bridge_call(QREG, &reg, sizeof(reg));
	if (result < 0)
		return result;
	mmio_write(INTERRUPTS + 4, ~0u);
	csr_set(mie, MEIP);
	csr_set(mstatus, MSTATUS_MIE);
	return 0;
}

void vbus_acknowledge(void)
{
	mmio_write(page + PAGE_INTERRUPT_ACK, mmio_read(page + PAGE_INTERRUPT_STATUS));
}

static void tell(const struct event *event)
{
	switch (event->id) {
	case DEVADD:
		told->device_added(event->data.add.id, event->data.add.type);
		break;
	case DEVDROP:
		told->device_gone(event->data.handle);
		break;
	case SHMSIGNAL:
		told->signal(event->data.handle);
		break;
	case SHMCLOSE:
		break; /* this program closes nothing, and frees nothing */
	}
}

static void drain(void)
{
	int any = 0;

	while (ioq_at(&eventq, eventq.head[INUSE])->sown == NORTH) {
		struct event *record = &records[eventq.head[INUSE]];

		fence(); /* Q5 */
		tell(record);
		memset(record, 0, sizeof(*record));
		ioq_pop(&eventq, INUSE, 0);
		any = 1;
	}
	if (any)
		ioq_signal(&eventq);
}

void vbus_poll(void)
{
	ioq_wakeup(&eventq, drain);
}

int vbus_open(uint64_t id, uint32_t version, uint64_t *handle)
{
	struct deviceopen block = { (uint32_t)id, version, 0 };
	int result = bus_call(DEVOPEN, &block, sizeof(block));

	*handle = block.handle;
	return result;
}

int vbus_call(uint64_t handle, uint32_t func, void *data, uint32_t length)
{
	struct devicecall block = { handle, func, length, 0, 0, address_of(data) };

	return bus_call(DEVCALL, &block, sizeof(block));
}

int vbus_ring(uint64_t handle, uint32_t id, struct ioq *q, uint64_t cookie)
{
	struct deviceshm block = { handle, id, IOQ_BYTES(q->count), 0, 0,
				   IOQ_SIGNAL_OFFSET, 0, cookie, address_of(q->ring) };
	int result = bus_call(DEVSHM, &block, sizeof(block));

	if (result >= 0)
		q->handle = (uint32_t)result;
	return result;
}
