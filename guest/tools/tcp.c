// SPDX-License-Identifier: Apache-2.0
#include "options.h"
#include "pattern.h"
#include "socket.h"

static u8 buffer[PATTERN_BLOCK] __attribute__((aligned(4096)));

static int open_connection(const struct options *options)
{
	struct address address = options->host ?
		parse_address(options->host, options->port) :
		any_address(options->six ? AF_INET6 : AF_INET, options->port);
	int fd = open_socket(address.family, SOCK_STREAM, 0);

	if (options->device)
		bind_to_device(fd, options->device, &address);
	if (options->buffer)
		set_buffer(fd, options->buffer);
	if (options->host) {
		connect_socket(fd, &address);
		return fd;
	}
	bind_socket(fd, &address);
	return accept_one(fd);
}

static void report(const char *what, u64 bytes, u64 began, u64 errors, u64 first_error)
{
	u64 elapsed = now() - began;

	put(what);
	put_field("bytes", bytes);
	put_field("ns", elapsed);
	put_field("errors", errors);
	if (errors)
		put_field("first", first_error);
	put("\n");
	flush();
}

/* Bytes of the next call: a whole block, or what is left. */
static u32 next_length(u64 left)
{
	return left < PATTERN_BLOCK ? (u32)left : PATTERN_BLOCK;
}

/* Until the other side has everything: it says so by ending its direction. */
static void wait_for_end(int fd)
{
	long n;

	while ((n = sys_read(fd, buffer, sizeof(buffer))) != 0)
		if (n < 0 && n != -EINTR)
			die("the other side broke off", n);
}

static int send_pattern(int fd, const struct options *options, int alone)
{
	struct position position = start_of(options->send_seed);
	u64 began = now();
	u64 sent = 0;
	u64 limit = options->duration ? ~0ull : options->count;

	while (sent < limit && !(options->duration && now() - began >= options->duration)) {
		long n = sys_write(fd, bytes_at(position), next_length(limit - sent));

		if (n == -EINTR)
			continue;
		if (n < 0)
			die("cannot send", n);
		sent += (u32)n;
		go_on(&position, (u32)n);
	}
	shut_down_writing(fd);
	if (alone)
		wait_for_end(fd);
	report("sent", sent, began, 0, 0);
	return 0;
}

static int receive_pattern(int fd, const struct options *options)
{
	struct position position = start_of(options->receive_seed);
	u64 received = 0;
	u64 errors = 0;
	u64 first_error = 0;
	u64 began = now();
	int started = 0;

	for (;;) {
		long n = sys_read(fd, buffer, sizeof(buffer));

		if (n == -EINTR)
			continue;
		if (n < 0)
			die("cannot receive", n);
		if (!started) {
			/* What came before is the other side's time to think. */
			began = now();
			started = 1;
		}
		if (n == 0)
			break;
		if (!options->unchecked && !is_pattern(position, buffer, (u32)n)) {
			if (!errors++)
				first_error = received;
		}
		received += (u32)n;
		go_on(&position, (u32)n);
	}
	report("received", received, began, errors, first_error);
	return errors || (options->count && received != options->count);
}

int tcp_send(const struct options *options)
{
	return send_pattern(open_connection(options), options, 1);
}

int tcp_receive(const struct options *options)
{
	return receive_pattern(open_connection(options), options);
}

/* Both directions at once, each at its own pace. */
int tcp_both(const struct options *options)
{
	int fd = open_connection(options);
	long child = sys_fork();

	if (child < 0)
		die("cannot fork", child);
	if (child == 0)
		sys_exit(send_pattern(fd, options, 0));
	struct options receiving = *options;
	int status;

	receiving.count = 0; /* how much comes is up to the other side */
	int failed = receive_pattern(fd, &receiving);

	if (sys_wait(&status) < 0 || status != 0)
		failed = 1;
	return failed;
}
