#include <stdarg.h>

#include "machine.h"
#include "vbus.h"

static volatile int interrupt_seen;

/*
 * Every trap ends here. External interrupts are acknowledged and noted, and what they are about is done outside; anything else
 * is a mistake of this program's: it says so and switches the machine off.
 */
__attribute__((interrupt("machine"), aligned(4))) void trap(void);
void trap(void)
{
	uint32_t cause, at;

	__asm__ volatile("csrr %0, mcause" : "=r"(cause));
	__asm__ volatile("csrr %0, mepc" : "=r"(at));
	if (cause == 0x8000000bu) {
		vbus_acknowledge();
		interrupt_seen = 1;
		return;
	}
	print("trap: cause %x at %x\n", cause, at);
	mmio_write(POWER, 0x00015555);
}

int interrupted(void)
{
	/* Cleared only when it was set: one that comes in between is never forgotten. */
	if (!interrupt_seen)
		return 0;
	interrupt_seen = 0;
	return 1;
}

void wait_for_interrupt(void)
{
	/* With interrupts off nothing can come between the look and the sleep; a pending one ends the sleep all the same. */
	csr_clear(mstatus, MSTATUS_MIE);
	if (!interrupt_seen)
		__asm__ volatile("wfi");
	csr_set(mstatus, MSTATUS_MIE);
}

static void put(char c)
{
	*(volatile uint8_t *)CONSOLE = (uint8_t)c;
}

static void put_hex(uint32_t value, int digits)
{
	while (digits-- > 0)
		put("0123456789abcdef"[(value >> (4 * digits)) & 15]);
}

static void put_decimal(uint32_t value)
{
	char digits[10];
	int n = 0;

	do
		digits[n++] = (char)('0' + value % 10);
	while ((value /= 10) != 0);
	while (n > 0)
		put(digits[--n]);
}

void print(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	for (; *format != 0; format++) {
		if (*format != '%') {
			put(*format);
			continue;
		}
		switch (*++format) {
		case 's':
			for (const char *s = va_arg(arguments, const char *); *s != 0; s++)
				put(*s);
			break;
		case 'u':
			put_decimal(va_arg(arguments, uint32_t));
			break;
		case 'x':
			put_hex(va_arg(arguments, uint32_t), 8);
			break;
		case 'm': {
			const uint8_t *mac = va_arg(arguments, const uint8_t *);

			for (int i = 0; i < 6; i++) {
				if (i > 0)
					put(':');
				put_hex(mac[i], 2);
			}
			break;
		}
		}
	}
	va_end(arguments);
}

/* The compiler makes calls of these. */

void *memcpy(void *to, const void *from, unsigned long length)
{
	uint8_t *t = to;
	const uint8_t *f = from;

	if ((((uint32_t)t | (uint32_t)f) & 3) == 0)
		for (; length >= 4; length -= 4, t += 4, f += 4)
			*(uint32_t *)t = *(const uint32_t *)f;
	while (length-- > 0)
		*t++ = *f++;
	return to;
}

void *memset(void *to, int value, unsigned long length)
{
	uint8_t *t = to;

	while (length-- > 0)
		*t++ = (uint8_t)value;
	return to;
}

int memcmp(const void *a, const void *b, unsigned long length)
{
	const uint8_t *p = a, *q = b;

	for (; length > 0; length--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}
