/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOCKET_H
#define SOCKET_H

#include "system.h"

enum { AF_INET = 2, AF_INET6 = 10 };
enum { SOCK_STREAM = 1, SOCK_DGRAM = 2, SOCK_RAW = 3 };
enum { IPPROTO_ICMP = 1, IPPROTO_ICMPV6 = 58 };

/* An address of either family, as system calls take it. */
struct address {
	u16 family;
	u16 port; /* network order */
	union {
		struct {
			u8 bytes[4];
		} v4;
		struct {
			u32 flow;
			u8 bytes[16];
			u32 scope;
		} v6;
	};
};

/* Length of the part of it that its family uses. */
u32 address_length(const struct address *address);

/* Parses 10.0.0.1 or fd00::1; ends the process when it is neither. */
struct address parse_address(const char *text, u32 port);
/* The wildcard of that family. */
struct address any_address(int family, u32 port);

int open_socket(int family, int type, int protocol);
/* Sends and receives only by this card; sets the scope of link-local addresses. */
void bind_to_device(int fd, const char *device, struct address *address);
void bind_socket(int fd, const struct address *address);
void set_receive_timeout(int fd, u32 milliseconds);
void set_buffer(int fd, u32 bytes);
/* Tries for `seconds` while nobody listens. */
void connect_socket(int fd, const struct address *address);
/* Waits for one connection and closes the listening socket. */
int accept_one(int fd);
void shut_down_writing(int fd);

long send_to(int fd, const void *data, u32 length, const struct address *to);
long receive(int fd, void *data, u32 length);

#endif
