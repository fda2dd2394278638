// SPDX-License-Identifier: Apache-2.0
#include "system.h"

enum {
	SYS_EXIT = 1,
	SYS_FORK = 2,
	SYS_READ = 3,
	SYS_WRITE = 4,
	SYS_CLOSE = 6,
	SYS_WAITPID = 7,
	SYS_IOCTL = 54,
	SYS_NANOSLEEP = 162,
	SYS_CLOCK_GETTIME = 265,
};

enum { CLOCK_MONOTONIC = 1 };

struct timespec32 {
	int seconds;
	int nanoseconds;
};

long system_call(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(a), "c"(b), "d"(c)
			 : "memory", "cc");
	return result;
}

long sys_write(int fd, const void *data, u32 length)
{
	return system_call(SYS_WRITE, fd, (long)data, (long)length);
}

long sys_read(int fd, void *data, u32 length)
{
	return system_call(SYS_READ, fd, (long)data, (long)length);
}

long sys_close(int fd)
{
	return system_call(SYS_CLOSE, fd, 0, 0);
}

long sys_fork(void)
{
	return system_call(SYS_FORK, 0, 0, 0);
}

long sys_wait(int *status)
{
	return system_call(SYS_WAITPID, -1, (long)status, 0);
}

long sys_ioctl(int fd, u32 request, void *argument)
{
	return system_call(SYS_IOCTL, fd, (long)request, (long)argument);
}

void sys_sleep(u32 microseconds)
{
	struct timespec32 time = {
		.seconds = (int)(microseconds / 1000000),
		.nanoseconds = (int)(microseconds % 1000000 * 1000),
	};

	system_call(SYS_NANOSLEEP, (long)&time, 0, 0);
}

void sys_exit(int status)
{
	for (;;)
		system_call(SYS_EXIT, status, 0, 0);
}

u64 now(void)
{
	struct timespec32 time;

	system_call(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (long)&time, 0);
	return (u64)(u32)time.seconds * 1000000000u + (u32)time.nanoseconds;
}

u32 divide(u64 *value, u32 divisor)
{
	u32 high = (u32)(*value >> 32);
	u32 low = (u32)*value;
	u32 rest = high % divisor;

	high /= divisor;
	__asm__("divl %2" : "+a"(low), "+d"(rest) : "rm"(divisor) : "cc");
	*value = (u64)high << 32 | low;
	return rest;
}

u32 length_of(const char *text)
{
	u32 n = 0;

	while (text[n])
		n++;
	return n;
}

int same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* The compiler calls these by itself. */

void *memcpy(void *to, const void *from, __SIZE_TYPE__ length)
{
	void *start = to;

	__asm__ volatile("rep movsb"
			 : "+D"(to), "+S"(from), "+c"(length)
			 :
			 : "memory");
	return start;
}

void *memset(void *to, int byte, __SIZE_TYPE__ length)
{
	void *start = to;

	__asm__ volatile("rep stosb"
			 : "+D"(to), "+c"(length)
			 : "a"(byte)
			 : "memory");
	return start;
}

int memcmp(const void *a, const void *b, __SIZE_TYPE__ length)
{
	const u8 *left = a;
	const u8 *right = b;

	for (__SIZE_TYPE__ i = 0; i < length; i++)
		if (left[i] != right[i])
			return left[i] - right[i];
	return 0;
}

static char output[1024];
static u32 output_length;

void flush(void)
{
	u32 done = 0;

	while (done < output_length) {
		long n = sys_write(1, output + done, output_length - done);

		if (n <= 0 && n != -EINTR)
			break;
		if (n > 0)
			done += (u32)n;
	}
	output_length = 0;
}

void put(const char *text)
{
	for (; *text; text++) {
		if (output_length == sizeof(output))
			flush();
		output[output_length++] = *text;
	}
}

void put_number(u64 value)
{
	char digits[21];
	u32 at = sizeof(digits) - 1;

	digits[at] = 0;
	do {
		digits[--at] = (char)('0' + divide(&value, 10));
	} while (value);
	put(digits + at);
}

void put_field(const char *name, u64 value)
{
	put(" ");
	put(name);
	put("=");
	put_number(value);
}

static void say(const char *text)
{
	sys_write(2, text, length_of(text));
}

void die(const char *what, long error)
{
	char digits[] = "000\n";
	u32 number = (u32)(error < 0 ? -error : error);

	digits[0] = (char)('0' + number / 100 % 10);
	digits[1] = (char)('0' + number / 10 % 10);
	digits[2] = (char)('0' + number % 10);
	flush();
	say("netprobe: ");
	say(what);
	say(": error ");
	say(digits);
	sys_exit(1);
}

void misuse(const char *what, const char *argument)
{
	flush();
	say("netprobe: ");
	say(what);
	if (argument) {
		say(": ");
		say(argument);
	}
	say("\n");
	sys_exit(2);
}

u64 parse_number(const char *text, const char **end)
{
	const char *at = text;
	u64 value = 0;

	while (*at >= '0' && *at <= '9')
		value = value * 10 + (u32)(*at++ - '0');
	if (at == text)
		misuse("not a number", text);
	*end = at;
	return value;
}
