/* The toy machine: addresses (map.ts has the same), registers of the hart, what the rest of the program needs of libc. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdint.h>

#define POWER 0x00100000u
#define TIMER 0x02000000u
#define INTERRUPTS 0x0c000000u
#define CONSOLE 0x10000000u
#define ATTACH_FIRST 0x10010000u
#define ATTACH_END 0x10020000u
#define PAGE 0x1000u

#define MSTATUS_MIE (1u << 3)
#define MEIP (1u << 11)

static inline uint32_t mmio_read(uint32_t address)
{
	return *(volatile uint32_t *)address;
}

static inline void mmio_write(uint32_t address, uint32_t value)
{
	*(volatile uint32_t *)address = value;
}

/* A full fence: what ioq.md and shm-signal.md call one. */
static inline void fence(void)
{
	__asm__ volatile("fence rw, rw" ::: "memory");
}

#define csr_set(name, bits) __asm__ volatile("csrs " #name ", %0" ::"r"(bits) : "memory")
#define csr_clear(name, bits) __asm__ volatile("csrc " #name ", %0" ::"r"(bits) : "memory")

/* Microseconds, modulo 2^32. */
static inline uint32_t now(void)
{
	return mmio_read(TIMER + 0xbff8);
}

static inline uint32_t instructions(void)
{
	uint32_t value;

	__asm__ volatile("csrr %0, minstret" : "=r"(value));
	return value;
}

/* %s, %u, %x (8 digits), %m (6 bytes of a MAC address); nothing else. */
void print(const char *format, ...);

/* Sleeps until the bus interrupted; returns at once when it has since the last call. */
void wait_for_interrupt(void);
int interrupted(void);

void *memcpy(void *to, const void *from, unsigned long length);
void *memset(void *to, int value, unsigned long length);
int memcmp(const void *a, const void *b, unsigned long length);

#endif
