// SPDX-License-Identifier: Apache-2.0
/*
 * netprobe: what measures and verifies a network card from inside the guest.
 * One static program without a C library, because the guest's busybox moves a
 * kilobyte at a time and verifies nothing.
 *
 * Exit status: 0 all was sent or came as it should, 1 it did not, 2 the command
 * line is wrong.
 */
#include "options.h"
#include "pattern.h"

static const struct {
	const char *name;
	int (*run)(const struct options *options);
} tools[] = {
	{ "tcp-send", tcp_send },
	{ "tcp-receive", tcp_receive },
	{ "tcp-both", tcp_both },
	{ "udp-send", udp_send },
	{ "udp-receive", udp_receive },
	{ "ping", ping },
};

static const char usage[] =
	"netprobe TOOL [options]\n"
	"\n"
	"tcp-send | tcp-receive | tcp-both   a stream of the pattern, verified\n"
	"udp-send | udp-receive              numbered datagrams, verified\n"
	"ping                                round trips, percentiles in ns\n"
	"\n"
	"-h ADDRESS     the other side (IPv4 or IPv6); without it, TCP waits for a connection\n"
	"-p PORT        5001\n"
	"-i CARD        send and receive by this card only\n"
	"-n COUNT       bytes (tcp), datagrams (udp), round trips (ping)\n"
	"-d MS          instead of a count: for how long\n"
	"-z SIZE[:MAX]  payload of datagrams and pings; with MAX all sizes in turn\n"
	"-s SEED        of what is sent\n"
	"-r SEED        of what comes in\n"
	"-t MS          give up after so long without anything (udp-receive, ping)\n"
	"-w US          pause between datagrams or pings\n"
	"-b BYTES       socket buffers\n"
	"-6             wait on IPv6\n"
	"-u             do not compare what comes in\n";

static u32 as_u32(u64 value, const char *text)
{
	if (value >> 32)
		misuse("too large", text);
	return (u32)value;
}

/* Takes an option with a value. */
static void take(struct options *options, char name, const char *value)
{
	const char *end = "";

	switch (name) {
	case 'h':
		options->host = value;
		return;
	case 'i':
		options->device = value;
		return;
	case 'n':
		options->count = parse_number(value, &end);
		break;
	case 'd':
		options->duration = parse_number(value, &end) * 1000000u;
		break;
	case 'z':
		options->smallest = as_u32(parse_number(value, &end), value);
		options->largest = options->smallest;
		if (*end == ':')
			options->largest = as_u32(parse_number(end + 1, &end), value);
		if (options->largest < options->smallest || options->largest > 65507)
			misuse("not a range of sizes up to 65507", value);
		break;
	case 'p':
		options->port = as_u32(parse_number(value, &end), value);
		if (options->port > 65535)
			misuse("not a port", value);
		break;
	case 's':
		options->send_seed = as_u32(parse_number(value, &end), value);
		break;
	case 'r':
		options->receive_seed = as_u32(parse_number(value, &end), value);
		break;
	case 't':
		options->timeout = as_u32(parse_number(value, &end), value);
		break;
	case 'w':
		options->pause = as_u32(parse_number(value, &end), value);
		break;
	case 'b':
		options->buffer = as_u32(parse_number(value, &end), value);
		break;
	default:
		misuse("no such option; netprobe without arguments explains them", 0);
	}
	if (*end)
		misuse("not a number", value);
}

static struct options parse(int count, char **arguments)
{
	struct options options;

	memset(&options, 0, sizeof(options));
	options.port = 5001;
	options.smallest = 56;
	options.largest = 56;
	options.timeout = 5000;
	for (int i = 2; i < count; i++) {
		const char *argument = arguments[i];

		if (argument[0] != '-' || !argument[1] || argument[2])
			misuse("not an option", argument);
		if (argument[1] == '6') {
			options.six = 1;
		} else if (argument[1] == 'u') {
			options.unchecked = 1;
		} else {
			if (++i == count)
				misuse("a value is missing after", argument);
			take(&options, argument[1], arguments[i]);
		}
	}
	return options;
}

static int run(int count, char **arguments)
{
	if (count < 2) {
		put(usage);
		flush();
		return 2;
	}
	for (u32 i = 0; i < ARRAY_SIZE(tools); i++) {
		if (same(arguments[1], tools[i].name)) {
			struct options options = parse(count, arguments);

			make_pattern();
			return tools[i].run(&options);
		}
	}
	misuse("no such tool; netprobe without arguments lists them", arguments[1]);
}

/* The kernel leaves the number of arguments and the arguments on the stack. */
__attribute__((used, noreturn)) static void enter(long *stack)
{
	sys_exit(run((int)stack[0], (char **)(stack + 1)));
}

__attribute__((naked, noreturn)) void _start(void)
{
	__asm__("mov %esp, %eax\n\t"
		"and $-16, %esp\n\t"
		"sub $12, %esp\n\t"
		"push %eax\n\t"
		"call enter");
}
