/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all streams consist of. The same as test/support/pattern.ts, which says
 * it in full: byte `offset` of a stream is table[(offset + seed) % PERIOD].
 */
#ifndef PATTERN_H
#define PATTERN_H

#include "system.h"

enum {
	PATTERN_PERIOD = 65521,
	/* Any so many bytes of a stream lie in the table in one piece. */
	PATTERN_BLOCK = 65536,
};

void make_pattern(void);

/* A place in a stream. */
struct position {
	u32 at;
};

struct position start_of(u32 seed);
/* Goes on by at most PATTERN_BLOCK bytes. */
void go_on(struct position *position, u32 length);
/* The next PATTERN_BLOCK bytes. */
const u8 *bytes_at(struct position position);
/* Whether `length` <= PATTERN_BLOCK bytes are what comes next. */
int is_pattern(struct position position, const u8 *data, u32 length);

#endif
