/*
 * A bare-metal guest: finds the bus, opens its network card, answers ARP and ping as 10.0.0.2, and obeys frames of the
 * experimental Ethernet type 0x88b5:
 *
 *     offset  0   6    12      14        18      22     26
 *             to  from 0x88b5  command   count   size   ...      (numbers are 32-bit little endian)
 *
 *     command 1   flood: send `count` frames of `size` bytes to the sender; their command is 2, `count` is replaced by a
 *                 sequence number from 0 on, the bytes from 26 on by (sequence + offset) modulo 256
 *     command 3   switch the machine off, with exit code 0
 */
#include "machine.h"
#include "vbus.h"
#include "venet.h"

#define TYPE_IP 0x0800
#define TYPE_ARP 0x0806
#define TYPE_COMMAND 0x88b5

enum { FLOOD = 1, FLOODED = 2, OFF = 3 };

static const uint8_t ip[4] = { 10, 0, 0, 2 };

static int card;
static int off;
static struct {
	uint8_t to[6];
	uint32_t sent, count, size, doorbells, started, executed;
} flood;

static uint32_t word(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void set_word(uint8_t *p, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(value >> (8 * i));
}

/* Answers are dropped while the ring is full: whoever asked asks again. */
static void answer(const uint8_t *frame, uint32_t length)
{
	uint8_t *buffer = venet_reserve();

	if (!buffer)
		return;
	memcpy(buffer, frame, length);
	venet_send(length);
}

static void turn_around(uint8_t *frame)
{
	memcpy(frame, frame + 6, 6);
	memcpy(frame + 6, venet_mac(), 6);
}

static void arp(uint8_t *frame, uint32_t length)
{
	static const uint8_t request[8] = { 0, 1, 8, 0, 6, 4, 0, 1 };

	if (length < 42 || memcmp(frame + 14, request, 8) != 0 || memcmp(frame + 38, ip, 4) != 0)
		return;
	turn_around(frame);
	frame[21] = 2;
	memcpy(frame + 32, frame + 22, 10); /* the asker becomes the target */
	memcpy(frame + 22, venet_mac(), 6);
	memcpy(frame + 28, ip, 4);
	answer(frame, 42);
}

static void ping(uint8_t *frame, uint32_t length)
{
	uint32_t header = (frame[14] & 15u) * 4;
	uint8_t *icmp = frame + 14 + header;
	uint32_t sum;

	if (length < 42 || frame[14] >> 4 != 4 || header < 20 || 14 + header + 8 > length)
		return;
	if (frame[23] != 1 || icmp[0] != 8 || memcmp(frame + 30, ip, 4) != 0)
		return;
	turn_around(frame);
	memcpy(frame + 30, frame + 26, 4);
	memcpy(frame + 26, ip, 4);
	icmp[0] = 0; /* echo reply; its checksum grows by what the type shrank (RFC 1624) */
	sum = ((uint32_t)icmp[2] << 8 | icmp[3]) + 0x0800;
	sum = (sum & 0xffff) + (sum >> 16);
	icmp[2] = (uint8_t)(sum >> 8);
	icmp[3] = (uint8_t)sum;
	answer(frame, length);
}

static void command(const uint8_t *frame, uint32_t length)
{
	if (length < 26)
		return;
	switch (word(frame + 14)) {
	case FLOOD:
		memcpy(flood.to, frame + 6, 6);
		flood.sent = 0;
		flood.count = word(frame + 18);
		flood.size = word(frame + 22);
		if (flood.size < 26)
			flood.size = 26;
		if (flood.size > FRAME_MAX - 4)
			flood.size = FRAME_MAX - 4;
		flood.started = now();
		flood.executed = instructions();
		flood.doorbells = venet_doorbells();
		break;
	case OFF:
		off = 1;
		break;
	}
}

static void receive(uint8_t *frame, uint32_t length)
{
	if (length < 14)
		return;
	switch (frame[12] << 8 | frame[13]) {
	case TYPE_ARP:
		arp(frame, length);
		break;
	case TYPE_IP:
		ping(frame, length);
		break;
	case TYPE_COMMAND:
		command(frame, length);
		break;
	}
}

/* One burst: as many frames as there is room for, then one signal. */
static void send_burst(void)
{
	uint8_t *buffer;

	while (flood.sent < flood.count && (buffer = venet_reserve()) != 0) {
		memcpy(buffer, flood.to, 6);
		memcpy(buffer + 6, venet_mac(), 6);
		buffer[12] = TYPE_COMMAND >> 8;
		buffer[13] = TYPE_COMMAND & 0xff;
		set_word(buffer + 14, FLOODED);
		set_word(buffer + 18, flood.sent);
		set_word(buffer + 22, flood.size);
		for (uint32_t i = 26; i < flood.size; i++)
			buffer[i] = (uint8_t)(flood.sent + i);
		venet_send(flood.size);
		flood.sent++;
	}
	venet_flush();
	if (flood.sent < flood.count) {
		venet_wait_for_room();
		return;
	}
	print("flood: %u frames of %u bytes, %u doorbells, %u instructions, %u us\n", flood.count, flood.size,
	      venet_doorbells() - flood.doorbells, instructions() - flood.executed, now() - flood.started);
	flood.count = 0;
}

static void device_added(uint64_t id, const char *type)
{
	static const char wanted[] = "virtual-ethernet";
	int result;

	print("device %u: %s\n", (uint32_t)id, type);
	if (card || memcmp(type, wanted, sizeof(wanted)) != 0)
		return;
	card = 1;
	result = venet_start(id, receive);
	if (result < 0) {
		print("venet: error %u\n", (uint32_t)-result);
		return;
	}
	print("venet: %m, link up, 10.0.0.2\n", venet_mac());
}

static void device_gone(uint64_t id)
{
	print("device %u: gone\n", (uint32_t)id);
}

int main(void)
{
	static const struct vbus_events events = { device_added, device_gone, venet_signal };
	int result = vbus_start(&events);

	if (result < 0) {
		print("vbus: error %u\n", (uint32_t)-result);
		return 1;
	}
	print("vbus: at %x\n", vbus_address());
	while (!off) {
		if (interrupted())
			vbus_poll();
		if (flood.sent < flood.count)
			send_burst();
		else if (!off)
			wait_for_interrupt();
	}
	print("off\n");
	return 0;
}
