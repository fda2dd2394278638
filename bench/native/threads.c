/* See threads.h. */
#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct {
  pthread_barrier_t gate;
  void (*body)(uint32_t side);
  uint32_t failed;
  uint32_t *line;
  uint32_t base;
} pair;

uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void *aligned(size_t size) {
  const size_t whole = (size + 4095) & ~(size_t)4095;
  void *p = aligned_alloc(4096, whole);
  if (p == NULL) {
    fprintf(stderr, "out of memory\n");
    exit(1);
  }
  memset(p, 0, whole);
  return p;
}

void fail(const char *what) { printf("{\"error\":\"%s\"}\n", what); }

void meet(void) { pthread_barrier_wait(&pair.gate); }

void give_up(void) { __atomic_store_n(&pair.failed, 1, __ATOMIC_SEQ_CST); }

static void ping_pong(uint32_t side, uint32_t rounds) {
  for (uint32_t i = 0; i < rounds; i++) {
    const uint32_t mine = pair.base + 2 * i + side;
    uint32_t left = POLL_LIMIT;
    while (__atomic_load_n(pair.line, __ATOMIC_ACQUIRE) != mine) {
      if (--left == 0) {
        give_up();
        return;
      }
    }
    __atomic_store_n(pair.line, mine + 1, __ATOMIC_SEQ_CST);
  }
}

static double timed(uint32_t side, uint32_t rounds) {
  meet();
  const uint64_t begin = now();
  ping_pong(side, rounds);
  const double ns = (double)(now() - begin) / (2.0 * rounds);
  meet();
  if (side == 0) pair.base += 2 * rounds;
  meet();
  return ns;
}

double probe(uint32_t side, uint32_t rounds) {
  timed(side, 20);
  return timed(side, rounds);
}

static void *second(void *unused) {
  (void)unused;
  pair.body(1);
  return NULL;
}

bool run_pair(void (*body)(uint32_t side)) {
  pthread_t peer;
  if (pair.line == NULL) pair.line = aligned(4096);
  pair.failed = 0;
  pair.body = body;
  if (pthread_barrier_init(&pair.gate, NULL, 2) != 0 || pthread_create(&peer, NULL, second, NULL) != 0) {
    fail("cannot start a thread");
    return false;
  }
  body(0);
  pthread_join(peer, NULL);
  pthread_barrier_destroy(&pair.gate);
  if (pair.failed) fail("a side made no progress");
  return pair.failed == 0;
}
