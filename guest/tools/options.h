/* SPDX-License-Identifier: Apache-2.0 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "system.h"

/* Every tool takes the same options, and ignores what does not concern it. */
struct options {
	const char *host;   /* null: wait for the other side */
	u32 port;
	const char *device; /* null: any */
	u64 count;          /* bytes, datagrams or round trips */
	u64 duration;       /* nanoseconds; 0: `count` decides */
	u32 smallest;       /* payload of datagrams and pings */
	u32 largest;
	u32 send_seed;
	u32 receive_seed;
	u32 timeout;        /* milliseconds */
	u32 pause;          /* microseconds between two datagrams or pings */
	u32 buffer;         /* bytes; 0: the system's choice */
	int six;            /* wait on IPv6 */
	int unchecked;      /* do not compare what comes in */
};

int tcp_send(const struct options *options);
int tcp_receive(const struct options *options);
int tcp_both(const struct options *options);
int udp_send(const struct options *options);
int udp_receive(const struct options *options);
int ping(const struct options *options);

#endif
