/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tools have instead of a C library: system calls of 32-bit x86 by
 * "int 0x80", output, command lines. There is no libgcc either: 64-bit values
 * are added and compared, and divided by 32-bit ones with divide().
 */
#ifndef SYSTEM_H
#define SYSTEM_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Numbers of errors, as system calls return them, negated. */
enum {
	EINTR = 4,
	EAGAIN = 11,
	ENOBUFS = 105,
	ECONNREFUSED = 111,
	ETIMEDOUT = 110,
};

long system_call(long number, long a, long b, long c);

long sys_write(int fd, const void *data, u32 length);
long sys_read(int fd, void *data, u32 length);
long sys_close(int fd);
long sys_fork(void);
long sys_wait(int *status);
long sys_ioctl(int fd, u32 request, void *argument);
void sys_sleep(u32 microseconds);
void sys_exit(int status) __attribute__((noreturn));

/* Monotonic time in nanoseconds. */
u64 now(void);

/* *value /= divisor; returns the remainder. */
u32 divide(u64 *value, u32 divisor);

u32 length_of(const char *text);
int same(const char *a, const char *b);
void *memcpy(void *to, const void *from, __SIZE_TYPE__ length);
void *memset(void *to, int byte, __SIZE_TYPE__ length);
int memcmp(const void *a, const void *b, __SIZE_TYPE__ length);

/* Buffered standard output, written by flush(). */
void put(const char *text);
void put_number(u64 value);
/* " name=value" */
void put_field(const char *name, u64 value);
void flush(void);

/* Says what failed on standard error and ends the process with status 1. */
void die(const char *what, long error) __attribute__((noreturn));
/* As die(), for a wrong command line: status 2. */
void misuse(const char *what, const char *argument) __attribute__((noreturn));

/* A decimal number; *end is what follows. Ends the process when there is none. */
u64 parse_number(const char *text, const char **end);

static inline u16 swap16(u16 value)
{
	return (u16)(value << 8 | value >> 8);
}

static inline u32 swap32(u32 value)
{
	return __builtin_bswap32(value);
}

#endif
