// SPDX-License-Identifier: Apache-2.0
/*
 * Numbered datagrams, see test/support/pattern.ts: four bytes of number, then
 * the pattern from the place that belongs to the number; fewer than four bytes
 * are the beginning of number 0.
 */
#include "options.h"
#include "pattern.h"
#include "socket.h"

enum { SERIAL_LENGTH = 4, MAXIMUM = 65507, WINDOW = 65536 };

static u8 buffer[MAXIMUM + 1];

/* One bit per number: which of the last WINDOW numbers were there. */
static u32 seen[WINDOW / 32];

static u32 size_of(const struct options *options, u32 serial)
{
	return options->smallest + serial % (options->largest - options->smallest + 1);
}

/* Place of the first byte behind the number. */
static struct position payload_of(u32 serial, u32 seed)
{
	return start_of(serial % PATTERN_PERIOD + SERIAL_LENGTH % PATTERN_PERIOD + seed % PATTERN_PERIOD);
}

static void fill(u32 serial, u32 length, u32 seed)
{
	u32 number = length < SERIAL_LENGTH ? 0 : swap32(serial);
	u32 head = length < SERIAL_LENGTH ? length : SERIAL_LENGTH;

	memcpy(buffer, &number, head);
	memcpy(buffer + head, bytes_at(payload_of(serial, seed)), length - head);
}

int udp_send(const struct options *options)
{
	if (!options->host)
		misuse("give the address to send to", 0);
	struct address to = parse_address(options->host, options->port);
	int fd = open_socket(to.family, SOCK_DGRAM, 0);
	u64 began = now();
	u64 bytes = 0;
	u64 retries = 0;
	u32 serial = 0;

	if (options->device)
		bind_to_device(fd, options->device, &to);
	while (options->duration ? now() - began < options->duration : serial < options->count) {
		u32 length = size_of(options, serial);

		fill(serial, length, options->send_seed);
		long n = send_to(fd, buffer, length, &to);

		if (n == -ENOBUFS || n == -EINTR || n == -EAGAIN) {
			retries++;
			sys_sleep(100);
			continue;
		}
		if (n < 0)
			die("cannot send", n);
		bytes += length;
		serial++;
		if (options->pause)
			sys_sleep(options->pause);
	}
	put("sent");
	put_field("datagrams", serial);
	put_field("bytes", bytes);
	put_field("ns", now() - began);
	put_field("retries", retries);
	put("\n");
	flush();
	return 0;
}

struct tally {
	u64 datagrams;
	u64 bytes;
	u64 errors;
	u64 duplicates;
	u64 late;
	u32 end; /* highest number + 1 */
};

static int mark(u32 serial)
{
	u32 bit = 1u << (serial & 31);
	u32 *word = &seen[serial % WINDOW / 32];
	int before = (*word & bit) != 0;

	*word |= bit;
	return before;
}

static void note(struct tally *tally, u32 serial)
{
	if (serial < tally->end) {
		tally->late++;
		if (tally->end - serial < WINDOW && mark(serial))
			tally->duplicates++;
		return;
	}
	if (serial - tally->end >= WINDOW)
		memset(seen, 0, sizeof(seen));
	else
		for (u32 n = tally->end; n < serial; n++)
			seen[n % WINDOW / 32] &= ~(1u << (n & 31));
	seen[serial % WINDOW / 32] &= ~(1u << (serial & 31));
	mark(serial);
	tally->end = serial + 1;
}

static void check(struct tally *tally, const struct options *options, u32 length)
{
	u32 number = 0;
	u32 head = length < SERIAL_LENGTH ? length : SERIAL_LENGTH;

	tally->datagrams++;
	tally->bytes += length;
	memcpy(&number, buffer, head);
	number = swap32(number);
	if (head < SERIAL_LENGTH) {
		if (number != 0)
			tally->errors++;
		return;
	}
	note(tally, number);
	if (!is_pattern(payload_of(number, options->receive_seed), buffer + head, length - head))
		tally->errors++;
}

/* Until `count` datagrams are there, or none comes for the time-out. */
int udp_receive(const struct options *options)
{
	struct address address = any_address(options->six ? AF_INET6 : AF_INET, options->port);
	int fd = open_socket(address.family, SOCK_DGRAM, 0);
	struct tally tally;
	u64 first = 0;
	u64 last = 0;

	memset(&tally, 0, sizeof(tally));
	if (options->device)
		bind_to_device(fd, options->device, 0);
	set_buffer(fd, options->buffer ? options->buffer : 4 << 20);
	bind_socket(fd, &address);
	set_receive_timeout(fd, options->timeout);
	put("ready\n");
	flush();
	while (tally.datagrams < options->count) {
		long n = receive(fd, buffer, sizeof(buffer));

		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			break;
		if (n < 0)
			die("cannot receive", n);
		last = now();
		if (!first)
			first = last;
		check(&tally, options, (u32)n);
	}
	put("received");
	put_field("datagrams", tally.datagrams);
	put_field("bytes", tally.bytes);
	put_field("ns", last - first);
	put_field("errors", tally.errors);
	put_field("duplicates", tally.duplicates);
	put_field("late", tally.late);
	put_field("end", tally.end);
	put("\n");
	flush();
	return tally.errors || tally.datagrams != options->count;
}
