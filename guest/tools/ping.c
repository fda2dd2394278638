// SPDX-License-Identifier: Apache-2.0
/*
 * Many round trips, one at a time, with percentiles: each request leaves when
 * the answer to the one before is there.
 */
#include "options.h"
#include "pattern.h"
#include "socket.h"

enum {
	ECHO_REQUEST = 8,
	ECHO_REPLY = 0,
	ECHO_REQUEST_6 = 128,
	ECHO_REPLY_6 = 129,
	HEADER = 8,
	IDENTIFIER = 0x7662,
	LIMIT = 1 << 17, /* round trips that percentiles are kept of */
	MAXIMUM = 65000,
};

static u32 times[LIMIT];
static u8 packet[MAXIMUM + HEADER];
static u8 answer[MAXIMUM + HEADER + 64];

static u16 checksum(const u8 *data, u32 length)
{
	u32 sum = 0;

	for (u32 i = 0; i + 1 < length; i += 2)
		sum += (u32)(data[i] << 8 | data[i + 1]);
	if (length & 1)
		sum += (u32)data[length - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (u16)~sum;
}

static void put16(u8 *at, u32 value)
{
	at[0] = (u8)(value >> 8);
	at[1] = (u8)value;
}

static void make_request(int six, u32 sequence, u32 size)
{
	memset(packet, 0, HEADER);
	packet[0] = six ? ECHO_REQUEST_6 : ECHO_REQUEST;
	put16(packet + 4, IDENTIFIER);
	put16(packet + 6, sequence);
	memcpy(packet + HEADER, bytes_at(start_of(sequence)), size);
	if (!six) /* the kernel sums those of IPv6 */
		put16(packet + 2, checksum(packet, HEADER + size));
}

/* The answer's ICMP part, or null when this is something else. */
static const u8 *find_answer(int six, u32 sequence, u32 *length)
{
	u32 skip = six ? 0 : (answer[0] & 15u) * 4;
	const u8 *icmp = answer + skip;

	if (*length < skip + HEADER || icmp[0] != (six ? ECHO_REPLY_6 : ECHO_REPLY))
		return 0;
	if (memcmp(icmp + 4, packet + 4, 2) || (u32)(icmp[6] << 8 | icmp[7]) != (sequence & 0xffff))
		return 0;
	*length -= skip + HEADER;
	return icmp + HEADER;
}

/* Shell sort: no recursion, no memory. */
static void sort(u32 *values, u32 n)
{
	for (u32 gap = n / 2; gap > 0; gap /= 2) {
		for (u32 i = gap; i < n; i++) {
			u32 value = values[i];
			u32 j = i;

			for (; j >= gap && values[j - gap] > value; j -= gap)
				values[j] = values[j - gap];
			values[j] = value;
		}
	}
}

static u32 per_mille(u32 n, u32 part)
{
	u32 index = n / 1000 * part + n % 1000 * part / 1000;

	return times[index < n ? index : n - 1];
}

int ping(const struct options *options)
{
	if (!options->host)
		misuse("give the address to ping", 0);
	struct address to = parse_address(options->host, 0);
	int six = to.family == AF_INET6;
	int fd = open_socket(to.family, SOCK_RAW, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	u32 size = options->smallest;
	u32 kept = 0;
	u64 lost = 0;
	u64 errors = 0;
	u32 sequence = 0;
	u64 began = now();

	if (size > MAXIMUM)
		misuse("a ping carries at most 65000 bytes", 0);
	if (options->device)
		bind_to_device(fd, options->device, &to);
	set_receive_timeout(fd, options->timeout);
	for (; options->duration ? now() - began < options->duration : sequence < options->count; sequence++) {
		make_request(six, sequence, size);
		u64 sent = now();
		long n = send_to(fd, packet, HEADER + size, &to);

		if (n < 0)
			die("cannot send", n);
		for (;;) {
			n = receive(fd, answer, sizeof(answer));
			u64 came = now();

			if (n == -EINTR)
				continue;
			if (n < 0 || came - sent > (u64)options->timeout * 1000000u) {
				lost++;
				break;
			}
			u32 length = (u32)n;
			const u8 *payload = find_answer(six, sequence, &length);

			if (!payload)
				continue;
			if (length != size || memcmp(payload, packet + HEADER, size))
				errors++;
			if (kept < LIMIT)
				times[kept++] = (u32)(came - sent);
			break;
		}
		if (options->pause)
			sys_sleep(options->pause);
	}
	sort(times, kept);
	put("pinged");
	put_field("sent", sequence);
	put_field("lost", lost);
	put_field("errors", errors);
	if (kept) {
		put_field("min", times[0]);
		put_field("p50", per_mille(kept, 500));
		put_field("p90", per_mille(kept, 900));
		put_field("p99", per_mille(kept, 990));
		put_field("max", times[kept - 1]);
	}
	put("\n");
	flush();
	return lost || errors;
}
