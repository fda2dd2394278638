// SPDX-License-Identifier: Apache-2.0
#include "socket.h"

/* One system call for all of them: its arguments lie in memory. */
enum {
	SYS_SOCKETCALL = 102,
	CALL_SOCKET = 1,
	CALL_BIND = 2,
	CALL_CONNECT = 3,
	CALL_LISTEN = 4,
	CALL_ACCEPT = 5,
	CALL_SENDTO = 11,
	CALL_RECVFROM = 12,
	CALL_SHUTDOWN = 13,
	CALL_SETSOCKOPT = 14,
};

enum {
	SOL_SOCKET = 1,
	SO_REUSEADDR = 2,
	SO_SNDBUF = 7,
	SO_RCVBUF = 8,
	SO_RCVTIMEO = 20,
	SO_BINDTODEVICE = 25,
	SHUT_WR = 1,
	SIOCGIFINDEX = 0x8933,
};

enum { CONNECT_TRIES = 100, CONNECT_PAUSE_US = 20000, NAME_SIZE = 16 };

static long call(int number, const long *arguments)
{
	return system_call(SYS_SOCKETCALL, number, (long)arguments, 0);
}

u32 address_length(const struct address *address)
{
	return address->family == AF_INET ? 16 : 28;
}

struct address any_address(int family, u32 port)
{
	struct address address;

	memset(&address, 0, sizeof(address));
	address.family = (u16)family;
	address.port = swap16((u16)port);
	return address;
}

static u32 parse_hex(const char **at)
{
	u32 value = 0;
	const char *start = *at;

	for (;; (*at)++) {
		u8 c = (u8)**at;

		if (c >= '0' && c <= '9')
			value = value << 4 | (u32)(c - '0');
		else if ((c | 32) >= 'a' && (c | 32) <= 'f')
			value = value << 4 | (u32)((c | 32) - 'a' + 10);
		else
			break;
	}
	if (*at == start || *at - start > 4)
		misuse("not an IPv6 address", start);
	return value;
}

static void parse_v6(const char *text, u8 *bytes)
{
	u16 groups[8] = { 0 };
	int n = 0;
	int gap = -1;
	const char *at = text;

	while (*at) {
		if (at[0] == ':' && at[1] == ':') {
			if (gap >= 0)
				misuse("not an IPv6 address", text);
			gap = n;
			at += 2;
			continue;
		}
		if (*at == ':' && n > 0)
			at++;
		if (n == 8)
			misuse("not an IPv6 address", text);
		groups[n++] = (u16)parse_hex(&at);
	}
	if (gap < 0 ? n != 8 : n > 7)
		misuse("not an IPv6 address", text);
	for (int i = 0; i < 8; i++) {
		u16 group = 0;

		if (gap < 0 || i < gap)
			group = groups[i];
		else if (i >= gap + 8 - n)
			group = groups[i - (8 - n)];
		bytes[2 * i] = (u8)(group >> 8);
		bytes[2 * i + 1] = (u8)group;
	}
}

static void parse_v4(const char *text, u8 *bytes)
{
	const char *at = text;

	for (int i = 0; i < 4; i++) {
		u64 part = parse_number(at, &at);

		if (part > 255 || *at != (i < 3 ? '.' : 0))
			misuse("not an IPv4 address", text);
		bytes[i] = (u8)part;
		at++;
	}
}

struct address parse_address(const char *text, u32 port)
{
	for (const char *at = text; *at; at++) {
		if (*at == ':') {
			struct address v6 = any_address(AF_INET6, port);

			parse_v6(text, v6.v6.bytes);
			return v6;
		}
	}
	struct address v4 = any_address(AF_INET, port);

	parse_v4(text, v4.v4.bytes);
	return v4;
}

int open_socket(int family, int type, int protocol)
{
	long fd = call(CALL_SOCKET, (long[]){ family, type, protocol });

	if (fd < 0)
		die("cannot open a socket", fd);
	return (int)fd;
}

static void set_option(int fd, int option, const void *value, u32 length, const char *what)
{
	long error = call(CALL_SETSOCKOPT, (long[]){ fd, SOL_SOCKET, option, (long)value, (long)length });

	if (error < 0)
		die(what, error);
}

void bind_to_device(int fd, const char *device, struct address *address)
{
	struct {
		char name[NAME_SIZE];
		int index;
		char padding[12];
	} request;
	u32 length = length_of(device);

	if (length == 0 || length >= NAME_SIZE)
		misuse("not the name of a card", device);
	memset(&request, 0, sizeof(request));
	memcpy(request.name, device, length);
	long error = sys_ioctl(fd, SIOCGIFINDEX, &request);

	if (error < 0)
		die("no such card", error);
	set_option(fd, SO_BINDTODEVICE, device, length + 1, "cannot bind to the card");
	if (address && address->family == AF_INET6)
		address->v6.scope = (u32)request.index;
}

void bind_socket(int fd, const struct address *address)
{
	int one = 1;

	set_option(fd, SO_REUSEADDR, &one, sizeof(one), "cannot share the address");
	long error = call(CALL_BIND, (long[]){ fd, (long)address, (long)address_length(address) });

	if (error < 0)
		die("cannot bind", error);
}

void set_receive_timeout(int fd, u32 milliseconds)
{
	int time[2] = { (int)(milliseconds / 1000), (int)(milliseconds % 1000 * 1000) };

	set_option(fd, SO_RCVTIMEO, time, sizeof(time), "cannot set the time-out");
}

void set_buffer(int fd, u32 bytes)
{
	set_option(fd, SO_SNDBUF, &bytes, sizeof(bytes), "cannot set the send buffer");
	set_option(fd, SO_RCVBUF, &bytes, sizeof(bytes), "cannot set the receive buffer");
}

void connect_socket(int fd, const struct address *address)
{
	for (int tries = 0;; tries++) {
		long error = call(CALL_CONNECT, (long[]){ fd, (long)address, (long)address_length(address) });

		if (error == 0)
			return;
		/* The other side is started at the same time and may be the slower one. */
		if (error != -ECONNREFUSED || tries == CONNECT_TRIES)
			die("cannot connect", error);
		sys_sleep(CONNECT_PAUSE_US);
	}
}

int accept_one(int fd)
{
	long error = call(CALL_LISTEN, (long[]){ fd, 1 });

	if (error < 0)
		die("cannot listen", error);
	long connection = call(CALL_ACCEPT, (long[]){ fd, 0, 0 });

	if (connection < 0)
		die("nobody connected", connection);
	sys_close(fd);
	return (int)connection;
}

void shut_down_writing(int fd)
{
	call(CALL_SHUTDOWN, (long[]){ fd, SHUT_WR });
}

long send_to(int fd, const void *data, u32 length, const struct address *to)
{
	return call(CALL_SENDTO, (long[]){ fd, (long)data, (long)length, 0, (long)to, (long)address_length(to) });
}

long receive(int fd, void *data, u32 length)
{
	return call(CALL_RECVFROM, (long[]){ fd, (long)data, (long)length, 0, 0, 0 });
}
