/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that wishes its host ill: a multiboot program without an operating system that finds the vbus bridge on PCI and
 * then, for a given number of turns, does what a driver would do, does it wrong, or writes noise over everything that it
 * shares with the host. What it does follows from the seed alone (but for what the host answers).
 *
 * Command line: "SEED TURNS", both decimal. Speaks on the first serial port: "ready", then a dot per 1/20 of its turns,
 * then "done CALLS DOORBELLS OPENED LINKED"; then it halts for good, its interrupts off.
 *
 * Built by scripts/guest-pieces.mjs; no C library. Offsets are those of docs/abi (LP64 layouts).
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define MULTIBOOT_MAGIC 0x1badb002u

__attribute__((section(".multiboot"), used, aligned(4))) static const u32 header[3] = {
	MULTIBOOT_MAGIC, 0, 0u - MULTIBOOT_MAGIC,
};

static u8 stack[16384] __attribute__((aligned(16)));

void run(const u32 *info);

__attribute__((naked, used)) void _start(void)
{
	__asm__ volatile("cli\n\tmov %0, %%esp\n\tpush %%ebx\n\tcall run\n1:\thlt\n\tjmp 1b"
			 : : "i"(stack + sizeof(stack)));
}

static void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static void out16(u16 port, u16 value) { __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static void out32(u16 port, u32 value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static u8 in8(u16 port) { u8 value; __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static u32 in32(u16 port) { u32 value; __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port)); return value; }

static void say(const char *text)
{
	while (*text) {
		while (!(in8(0x3fd) & 0x20))
			;
		out8(0x3f8, (u8)*text++);
	}
}

static void say_number(u32 n)
{
	char digits[12];
	int i = 11;

	digits[i] = 0;
	do
		digits[--i] = (char)('0' + n % 10);
	while (n /= 10);
	say(" ");
	say(digits + i);
}

static u32 state;

/* xorshift32: never 0 */
static u32 random32(void)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static u32 below(u32 n) { return random32() % n; }

/* Numbers that hurt: borders, signs, wraps. */
static u32 nasty(void)
{
	static const u32 numbers[] = {
		0, 1, 2, 3, 16, 17, 24, 31, 32, 48, 64, 127, 128, 140, 144, 255, 256, 2047, 2048, 2049, 4096, 65535, 65536,
		0x9ffff, 0xa0000, 0xbffff, 0xc0000, 0xfffff, 0x100000, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff,
	};

	switch (below(4)) {
	case 0: return random32();
	case 1: return below(65536);
	default: return numbers[below(sizeof(numbers) / sizeof(numbers[0]))];
	}
}

/* ---- what is shared with the host ---- */

#define COUNT 64
#define RING(n) (56 + 32 * (n))

static u8 events_ring[RING(COUNT)] __attribute__((aligned(64)));
static u8 event_records[144 * COUNT] __attribute__((aligned(64)));
static u8 rx_ring[RING(COUNT)] __attribute__((aligned(64)));
static u8 tx_ring[RING(COUNT)] __attribute__((aligned(64)));
static u8 pool[248 * COUNT] __attribute__((aligned(64)));
static u8 buffers[COUNT][2048] __attribute__((aligned(64)));
static u8 channel[24] __attribute__((aligned(64)));
static u8 block[256] __attribute__((aligned(64)));
static u8 inner[256] __attribute__((aligned(64)));
static u8 descriptor[16] __attribute__((aligned(16)));

static void put32(u8 *at, u32 value) { *(volatile u32 *)at = value; }
static void put64(u8 *at, u32 low, u32 high) { put32(at, low); put32(at + 4, high); }
static u32 get32(const u8 *at) { return *(const volatile u32 *)at; }
static void clear(u8 *at, u32 n) { while (n--) *(volatile u8 *)at++ = 0; }

static u32 memory_bar, port_bar, slot;
static u32 calls, doorbells, opened, linked;
static u32 handle_low, handle_high;
static u32 signals[8], tx_signal;

static u32 config_address(u32 offset) { return 0x80000000u | slot << 11 | (offset & 0xfc); }

static u32 config_read32(u32 offset)
{
	out32(0xcf8, config_address(offset));
	return in32(0xcfc);
}

static void config_write(u32 offset, u32 width, u32 value)
{
	out32(0xcf8, config_address(offset));
	switch (width) {
	case 1: out8((u16)(0xcfc + (offset & 3)), (u8)value); break;
	case 2: out16((u16)(0xcfc + (offset & 2)), (u16)value); break;
	default: out32(0xcfc, value);
	}
}

static void find_bars(void)
{
	memory_bar = config_read32(0x10) & ~0xfu;
	port_bar = config_read32(0x14) & 0xfffc;
}

static u32 bridge_call(u32 vector, u32 length, u32 low, u32 high)
{
	volatile u32 *registers = (volatile u32 *)memory_bar;

	calls++;
	registers[0] = vector;
	registers[1] = length;
	registers[2] = low;
	registers[3] = high;
	return registers[0];
}

static u32 address(const void *at) { return (u32)at; }

static u32 bus_call(u32 vector, u32 length, u8 *data)
{
	u8 *at = below(2) ? channel : descriptor;

	put32(at, vector);
	put32(at + 4, length);
	put64(at + 8, address(data), 0);
	if (at == descriptor)
		return bridge_call(2, 16, address(descriptor), 0);
	doorbells++;
	out32((u16)(port_bar + 4), 0);
	return get32(channel + 16);
}

static void make_ring(u8 *ring, u32 count, u32 signal_enabled)
{
	clear(ring, RING(count));
	put32(ring, 0x47fa2fe4);
	put32(ring + 4, 4);
	put32(ring + 8, 0x58fa39df);
	put32(ring + 12, 1);
	ring[16] = (u8)signal_enabled;
	put32(ring + 48, count);
}

static u32 negotiate(void)
{
	put32(block, 0xbf53eef5);
	put32(block + 4, 1);
	put64(block + 8, 0, 0);
	return bridge_call(0, 16, address(block), 0);
}

static void register_events(void)
{
	u32 i;

	make_ring(events_ring, COUNT, 1);
	events_ring[32] = 1; /* the valid index is full */
	for (i = 0; i < COUNT; i++) {
		u8 *d = events_ring + 56 + 32 * i;

		put64(d + 8, address(event_records) + 144 * i, 0);
		put64(d + 16, 144, 0);
		d[24] = 1;
		d[25] = 1;
	}
	put32(block, 1);
	put32(block + 8, COUNT);
	put64(block + 16, address(events_ring), 0);
	put64(block + 24, address(event_records), 0);
	bridge_call(1, 32, address(block), 0);
	put32(descriptor, 0);
	put32(descriptor + 4, 24);
	put64(descriptor + 8, address(channel), 0);
	bridge_call(3, 16, address(descriptor), 0);
}

static void open_device(u32 id)
{
	put32(block, id);
	put32(block + 4, 1);
	put64(block + 8, 0, 0);
	if (bus_call(0, 16, block) == 0) {
		opened++;
		handle_low = get32(block + 8);
		handle_high = get32(block + 12);
	}
}

static u32 device_call(u32 func, u32 length, u8 *data)
{
	put64(block, handle_low, handle_high);
	put32(block + 8, func);
	put32(block + 12, length);
	put32(block + 16, below(16) ? 0 : nasty());
	put64(block + 24, address(data), 0);
	return bus_call(2, 32, block);
}

static u32 share(u32 id, u32 length, u32 at, u32 offset)
{
	u32 result;

	put64(block, handle_low, handle_high);
	put32(block + 8, id);
	put32(block + 12, length);
	put32(block + 16, 0);
	put32(block + 24, offset);
	put32(block + 28, 0);
	put64(block + 32, random32(), random32());
	put64(block + 40, at, 0);
	result = bus_call(3, 48, block);
	if ((int)result >= 0)
		signals[below(8)] = result;
	return result;
}

static void send_noise(void)
{
	u32 n = 1 + below(8), head = get32(tx_ring + 36) % COUNT;

	while (n--) {
		u32 i = head++ % COUNT;
		u8 *d = tx_ring + 56 + 32 * i;

		put32(buffers[i], below(2) ? 0x00000002 : random32());
		put32(buffers[i] + 4, below(2) ? random32() : 0x02000000);
		put64(d, random32(), random32());
		put64(d + 8, below(8) ? address(buffers[i]) : nasty(), below(16) ? 0 : nasty());
		put64(d + 16, below(8) ? 14 + below(1500) : nasty(), below(32) ? 0 : nasty());
		d[24] = 1;
		d[25] = 1;
	}
	put32(tx_ring + 40, head % COUNT);
	tx_ring[21] = 1;
	if (below(4)) {
		doorbells++;
		out32((u16)(port_bar + 8), tx_signal);
	}
}

/* Lets the host do its part: longer than a slice of the emulator. */
static void idle(void)
{
	volatile u32 n = 150000;

	while (n--)
		;
}

/* A network card as its driver opens it, with luck; then frames of noise to send, and room to receive. */
static void bring_up(void)
{
	u32 i;

	if ((int)negotiate() < 0)
		return;
	register_events();
	idle();
	/* ids are fresh after every NEGOTIATE: they stand in the records of the DEVADD events */
	open_device(get32(event_records + 144 * below(4) + 8));
	clear(inner, sizeof(inner));
	if (below(2)) {
		put32(inner, below(4) ? below(3) : nasty());
		put32(inner + 4, below(2) ? 0x1f : nasty());
		device_call(3, 8, inner); /* NEGCAP */
	}
	make_ring(rx_ring, COUNT, 1);
	make_ring(tx_ring, COUNT, 1);
	for (i = 0; i < COUNT; i++) {
		u8 *d = rx_ring + 56 + 32 * i;

		put64(d + 8, address(buffers[i]), 0);
		put64(d + 16, 2048, 0);
		d[24] = 1;
		d[25] = 1;
	}
	rx_ring[32] = 1;
	share(0, RING(COUNT), address(rx_ring), 8);
	tx_signal = share(1, RING(COUNT), address(tx_ring), 8);
	share(100, sizeof(pool), address(pool), 0xffffffff);
	if (device_call(0, 0, inner) == 0) { /* LINKUP */
		linked++;
		for (i = below(8); i > 0; i--) {
			send_noise();
			if (below(2))
				idle();
		}
	}
}

static void scribble(void)
{
	static u8 *const victims[] = { events_ring, event_records, rx_ring, tx_ring, pool, channel, block, inner };
	static const u32 sizes[] = {
		sizeof(events_ring), sizeof(event_records), sizeof(rx_ring), sizeof(tx_ring),
		sizeof(pool), sizeof(channel), sizeof(block), sizeof(inner),
	};
	u32 which = below(8), n = 1 + below(16);

	while (n--) {
		/* often the header, where it hurts most */
		u32 at = below(below(2) ? sizes[which] : (sizes[which] < 64 ? sizes[which] : 64));

		if (below(2) && at + 4 <= sizes[which])
			put32(victims[which] + (at & ~3u), nasty());
		else
			victims[which][at] = (u8)random32();
	}
}

static void random_registers(void)
{
	u32 n = 1 + below(8);

	while (n--) {
		u32 offset = below(80), value = nasty();

		switch (below(6)) {
		case 0: *(volatile u8 *)(memory_bar + offset) = (u8)value; break;
		case 1: *(volatile u16 *)(memory_bar + offset) = (u16)value; break;
		case 2: *(volatile u32 *)(memory_bar + offset) = value; break;
		case 3: (void)*(volatile u8 *)(memory_bar + offset); break;
		case 4: (void)*(volatile u32 *)(memory_bar + (offset & ~3u)); break;
		default: *(volatile u64 *)(memory_bar + (offset & ~7u)) = value; break;
		}
	}
}

static void random_ports(void)
{
	u32 n = 1 + below(8);

	while (n--) {
		u16 port = (u16)(port_bar + below(32));
		u32 value = below(3) ? signals[below(8)] : nasty();

		doorbells++;
		switch (below(5)) {
		case 0: out8(port, (u8)value); break;
		case 1: out16(port, (u16)value); break;
		case 2: (void)in32(port); break;
		default: out32((u16)(port & ~3u), value); break;
		}
	}
}

static void random_config(void)
{
	u32 n = 1 + below(6);

	while (n--) {
		u32 offset = below(256);

		/* its ports must not come to lie upon those this program speaks through */
		if (offset >= 0x14 && offset < 0x18)
			continue;
		config_write(offset, 1u << below(3), nasty());
	}
	config_write(4, 2, 0x7);
	find_bars();
}

static void random_call(void)
{
	u32 i;

	for (i = 0; i < 64; i += 4)
		put32(block + i, nasty());
	for (i = 0; i < 64; i += 4)
		put32(inner + i, nasty());
	if (below(4))
		put64(block, handle_low, handle_high);
	switch (below(5)) {
	case 0: bridge_call(below(6), nasty(), nasty(), below(8) ? 0 : nasty()); break;
	case 1: bridge_call(below(5), below(2) ? 16 : 32, address(block), 0); break;
	case 2: {
		static const u32 lengths[] = { 16, 8, 32, 48, 28, 44 };

		bus_call(below(5), below(4) ? lengths[below(6)] : nasty(), block);
		break;
	}
	case 3: device_call(below(14), below(2) ? below(48) : nasty(), inner); break;
	default: share(below(2) ? below(4) : 98 + below(10), below(2) ? RING(COUNT) : nasty(),
		       below(2) ? address(tx_ring) : nasty(), below(2) ? 8 : nasty());
	}
}

static u32 parse(const char **text)
{
	u32 n = 0;

	while (**text && (**text < '0' || **text > '9'))
		(*text)++;
	while (**text >= '0' && **text <= '9')
		n = n * 10 + (u32)(*(*text)++ - '0');
	return n;
}

void run(const u32 *info)
{
	/* multiboot: bit 2 of the flags says that there is a command line, at offset 16 */
	const char *line = info[0] & 4 ? (const char *)info[4] : "1 1000";
	u32 turns, turn, i;

	state = parse(&line) * 2654435761u | 1;
	turns = parse(&line);
	for (slot = 0; slot < 32; slot++)
		if (config_read32(0) == 0x200011da)
			break;
	if (slot == 32) {
		say("no bridge\n");
		return;
	}
	config_write(4, 2, 0x7);
	find_bars();
	say("ready\n");
	for (turn = 0; turn < turns; turn++) {
		switch (below(16)) {
		case 0: bring_up(); break;
		case 1: case 2: case 3: case 4: send_noise(); break;
		case 5: case 6: case 7: scribble(); break;
		case 8: random_registers(); break;
		case 9: case 10: random_ports(); break;
		case 11: random_config(); break;
		case 12: open_device(below(4) ? get32(event_records + 144 * below(4) + 8) : nasty()); break;
		case 13:
			for (i = 0; i < 8; i++) {
				doorbells++;
				out32((u16)(port_bar + 8), signals[i]);
			}
			break;
		default: random_call();
		}
		if (turns >= 20 && turn % (turns / 20) == 0)
			say(".");
	}
	say("\ndone");
	say_number(calls);
	say_number(doorbells);
	say_number(opened);
	say_number(linked);
	say("\n");
}
