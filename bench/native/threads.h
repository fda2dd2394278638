/* Time, memory, failure, and two threads that meet and probe the cache line between them. */
#ifndef VBUS_BENCH_THREADS_H
#define VBUS_BENCH_THREADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROBE_ROUNDS 300u
/* Polls in a row without progress after which a sample is given up: some seconds. */
#define POLL_LIMIT 400000000u

/* Nanoseconds of the monotonic clock. */
uint64_t now(void);
/* Zeroed memory on pages of its own; ends the process when there is none. */
void *aligned(size_t size);
/* Answers with an error. */
void fail(const char *what);

/* Both threads wait for each other here. */
void meet(void);
/* Nanoseconds that a cache line takes one way, over so many rounds; both threads meet before and after. */
double probe(uint32_t side, uint32_t rounds);
/* A side could not go on: the sample is void. */
void give_up(void);
/* Runs `body` as side 0 here and as side 1 in a thread. False, and an error was answered, when a side gave up. */
bool run_pair(void (*body)(uint32_t side));

#endif
