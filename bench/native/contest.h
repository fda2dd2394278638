/*
 * The native contestants of the shoot-out.
 *
 *   WHO WHAT BURST ITEMS SIZE NOTIFY
 *
 * WHO   ioq, lazy, 2009, split, packed, ringtest, virtio09
 * WHAT  one: one thread, both sides in turn; two: two threads; trips: one outstanding, mean of ITEMS trips on end and
 *       quantiles of as many that are timed one by one
 * SIZE  descriptors of the ring, a power of two;  NOTIFY 1: with what it takes to know whether to notify
 */
#ifndef VBUS_BENCH_CONTEST_H
#define VBUS_BENCH_CONTEST_H

#include <stdint.h>

#define CONTEST_MAX_SIZE 16384u
#define CONTEST_MAX_BURST 128u
#define CONTEST_MAX_TRIPS 10000u

/* One contestant: its loops, which were made of its own functions. Results: 0, or -1 when a side is stuck. */
struct contestant {
  const char *name;
  void (*fresh)(uint32_t size, uint32_t notify);
  int (*rounds)(uint32_t burst, uint32_t rounds);
  int (*request)(uint32_t burst, uint32_t window, uint32_t target);
  int (*respond)(uint32_t burst, uint32_t target);
  uint32_t (*signals)(uint32_t side);
};

/* Runs one command and answers. */
void run_contest(const char *command);

#endif
