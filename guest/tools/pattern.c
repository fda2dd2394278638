// SPDX-License-Identifier: Apache-2.0
#include "pattern.h"

static u8 table[PATTERN_PERIOD + PATTERN_BLOCK + 16] __attribute__((aligned(64)));

void make_pattern(void)
{
	u32 x = 1;

	for (u32 i = 0; i < sizeof(table); i++) {
		if (i % PATTERN_PERIOD == 0)
			x = 1;
		x = x * 1664525u + 1013904223u;
		table[i] = (u8)(x >> 24);
	}
}

struct position start_of(u32 seed)
{
	return (struct position){ seed % PATTERN_PERIOD };
}

void go_on(struct position *position, u32 length)
{
	position->at = (position->at + length) % PATTERN_PERIOD;
}

const u8 *bytes_at(struct position position)
{
	return table + position.at;
}

typedef u32 unaligned __attribute__((aligned(1), may_alias));

static int has_sse2(void)
{
	u32 eax = 1, ebx, ecx, edx;

	__asm__("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
	return edx >> 26 & 1;
}

typedef u32 vector __attribute__((vector_size(16), aligned(1), may_alias));

/*
 * Whether `n` times 64 bytes are the same. Differences are gathered, not looked at: the good case is the one to be fast,
 * for what verifying costs is not the network card's fault.
 */
__attribute__((target("sse2"))) static int same_vectors(const u8 *is, const u8 *ought, u32 n)
{
	const vector *a = (const vector *)is;
	const vector *b = (const vector *)ought;
	u32 words[4] __attribute__((aligned(16)));
	typedef u32 register_vector __attribute__((vector_size(16)));
	register_vector difference = { 0 };

	for (; n > 0; n--, a += 4, b += 4) {
		difference |= (register_vector)a[0] ^ (register_vector)b[0];
		difference |= (register_vector)a[1] ^ (register_vector)b[1];
		difference |= (register_vector)a[2] ^ (register_vector)b[2];
		difference |= (register_vector)a[3] ^ (register_vector)b[3];
	}
	*(register_vector *)words = difference;
	return (words[0] | words[1] | words[2] | words[3]) == 0;
}

static int same_words(const u8 *is, const u8 *ought, u32 n)
{
	const unaligned *a = (const unaligned *)is;
	const unaligned *b = (const unaligned *)ought;
	u32 difference = 0;

	for (n *= 16; n > 0; n--)
		difference |= *a++ ^ *b++;
	return difference == 0;
}

int is_pattern(struct position position, const u8 *data, u32 length)
{
	static int sse2 = -1;
	const u8 *ought = bytes_at(position);
	u32 blocks = length / 64;

	if (sse2 < 0)
		sse2 = has_sse2();
	return (sse2 ? same_vectors(data, ought, blocks) : same_words(data, ought, blocks)) &&
	       memcmp(data + 64 * blocks, ought + 64 * blocks, length % 64) == 0;
}
