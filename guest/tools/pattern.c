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

int is_pattern(struct position position, const u8 *data, u32 length)
{
	const unaligned *is = (const unaligned *)data;
	const unaligned *ought = (const unaligned *)bytes_at(position);
	u32 difference = 0;
	u32 words = length / 4;
	u32 i = 0;

	/* Differences are gathered, not looked at: the good case is the one to be fast. */
	for (; i + 8 <= words; i += 8) {
		difference |= is[i] ^ ought[i];
		difference |= is[i + 1] ^ ought[i + 1];
		difference |= is[i + 2] ^ ought[i + 2];
		difference |= is[i + 3] ^ ought[i + 3];
		difference |= is[i + 4] ^ ought[i + 4];
		difference |= is[i + 5] ^ ought[i + 5];
		difference |= is[i + 6] ^ ought[i + 6];
		difference |= is[i + 7] ^ ought[i + 7];
	}
	return difference == 0 && memcmp(is + i, ought + i, length - 4 * i) == 0;
}
