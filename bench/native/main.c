/*
 * The native side of the benchmarks: reads one command per line, runs one short sample, answers with one JSON line.
 * The caller keeps the process alive and alternates its own samples with these.
 *
 *   one BURST ROUNDS LAZY      one thread: post, consume, complete, reap BURST descriptors, ROUNDS times
 *   two BURST WINDOW TARGET LAZY   two threads: TARGET descriptors, at most WINDOW outstanding
 *   line ROUNDS                two threads: one cache line to and fro
 *   checksum KIND LENGTH TIMES KIND 0: masks and shifts, 1: multiply-add
 *   contest WHO WHAT BURST ITEMS SIZE NOTIFY   see contest.h
 *   sum LENGTH                 both checksums of a known range, to compare results
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "checksum.h"
#include "contest.h"
#include "ring.h"
#include "threads.h"

#define RING_COUNT 256
#define RING_BYTES (sizeof(struct ring) + RING_COUNT * sizeof(struct descriptor))
#define BUFFERS 0x100000u
#define BUFFER_SIZE 2048u
#define FRAME_LENGTH 1514u

/* What both sides share, and what each keeps to itself, on pages of their own. */
struct side {
  struct endpoint endpoint;
  char pad[64];
  _Alignas(64) struct entry table[RING_COUNT];
};

static struct {
  char *segment;
  struct ring *ring;
  struct regions regions;
  struct side *north;
  struct side *south;
} world;

static void fresh_ring(uint32_t lazy) {
  ring_format(world.ring, RING_COUNT);
  const uint32_t extensions = lazy ? EXT_LAZY : 0;
  ring_bind(&world.north->endpoint, world.ring, &world.regions, NORTH, OWNS_VALID_HEAD | OWNS_VALID_TAIL | OWNS_INUSE_TAIL,
            extensions);
  ring_bind(&world.south->endpoint, world.ring, &world.regions, SOUTH, OWNS_INUSE_HEAD, extensions);
  /* both receivers are inside a wakeup: unmasked and pending, so that every inject does its complete check */
  for (int i = 0; i < 2; i++) {
    world.ring->signal.irq[i].enabled = 1;
    world.ring->signal.irq[i].pending = 1;
  }
}

static int post(struct side *north, uint32_t n) {
  const int granted = push_reserve(&north->endpoint, IDX_BOTH, NULL, n, 0);
  if (granted != (int)n) return granted < 0 ? granted : 0;
  for (uint32_t i = 0; i < n; i++) {
    north->table[i].gpa = BUFFERS + i * BUFFER_SIZE;
    north->table[i].length = FRAME_LENGTH;
    north->table[i].cookie = i;
  }
  const int result = push_commit(&north->endpoint, IDX_BOTH, north->table, n,
                                 BURST_POINTER | BURST_COOKIE | BURST_LENGTH | BURST_SET_VALID | BURST_SIGNAL);
  return result < 0 ? result : (int)n;
}

static int complete(struct side *south, uint32_t n) {
  const int granted = pop_peek(&south->endpoint, IDX_INUSE, south->table, n, BURST_TRANSLATE);
  if (granted <= 0) return granted;
  const int result = pop_release(&south->endpoint, IDX_INUSE, south->table, (uint32_t)granted, BURST_SIGNAL);
  return result < 0 ? result : granted;
}

static int reap(struct side *north, uint32_t n) {
  const int granted = pop_peek(&north->endpoint, IDX_VALID, north->table, n, 0);
  if (granted <= 0) return granted;
  const int result =
      pop_release(&north->endpoint, IDX_VALID, north->table, (uint32_t)granted, BURST_NOFLIP | BURST_CLEAR_VALID);
  return result < 0 ? result : granted;
}

static void run_one(uint32_t burst, uint32_t rounds, uint32_t lazy) {
  fresh_ring(lazy);
  const uint64_t begin = now();
  for (uint32_t i = 0; i < rounds; i++) {
    if (post(world.north, burst) != (int)burst || complete(world.south, burst) != (int)burst ||
        reap(world.north, burst) != (int)burst) {
      fail("the ring is stuck");
      return;
    }
  }
  printf("{\"ns\":%.4f}\n", (double)(now() - begin) / ((double)rounds * burst));
}

/* ---- two threads ---- */

static struct {
  uint32_t burst, window, target;
  uint32_t rounds;
  double before, after, ns;
} job;

static void north_rounds(void) {
  uint32_t posted = 0, reaped = 0, left = POLL_LIMIT;
  while (reaped != job.target) {
    int moved = 0;
    if (posted < job.target && posted - reaped + job.burst <= job.window) {
      moved = post(world.north, job.burst);
      if (moved > 0) posted += (uint32_t)moved;
    }
    if (moved == 0) {
      moved = reap(world.north, job.burst);
      if (moved > 0) reaped += (uint32_t)moved;
    }
    left = moved > 0 ? POLL_LIMIT : left - 1;
    if (moved < 0 || left == 0) {
      give_up();
      return;
    }
  }
}

static void south_rounds(void) {
  uint32_t finished = 0, left = POLL_LIMIT;
  while (finished != job.target) {
    const int moved = complete(world.south, job.burst);
    if (moved > 0) finished += (uint32_t)moved;
    left = moved > 0 ? POLL_LIMIT : left - 1;
    if (moved < 0 || left == 0) {
      give_up();
      return;
    }
  }
}

static void two_thread(uint32_t side) {
  const double before = probe(side, PROBE_ROUNDS);
  meet();
  const uint64_t begin = now();
  if (side == 0)
    north_rounds();
  else
    south_rounds();
  if (side == 0) {
    job.ns = (double)(now() - begin) / job.target;
    job.before = before;
  }
  const double after = probe(side, PROBE_ROUNDS);
  if (side == 0) job.after = after;
}

static void line_thread(uint32_t side) {
  const double before = probe(side, PROBE_ROUNDS);
  const double ns = probe(side, job.rounds);
  const double after = probe(side, PROBE_ROUNDS);
  if (side == 0) {
    job.before = before;
    job.ns = ns * 2;
    job.after = after;
  }
}

static void run_threads(void (*body)(uint32_t side)) {
  if (run_pair(body))
    printf("{\"ns\":%.4f,\"before\":%.2f,\"after\":%.2f}\n", job.ns, job.before, job.after);
}

int main(void) {
  world.segment = aligned(64 + RING_BYTES);
  world.ring = (struct ring *)(world.segment + 8); /* descriptors start on a cache line */
  world.north = aligned(sizeof(struct side));
  world.south = aligned(sizeof(struct side));
  world.regions.count = 1;
  world.regions.entry[0] = (struct region){.gpa = 0x10000, .length = 16u << 20, .address = 0x420000};
  uint8_t *bytes = aligned(1u << 20);
  for (uint32_t i = 0, x = 1; i < (1u << 20); i++) {
    x = x * 1664525u + 1013904223u;
    bytes[i] = (uint8_t)(x >> 24);
  }

  char command[128];
  while (fgets(command, sizeof command, stdin) != NULL) {
    uint32_t a = 0, b = 0, c = 0, d = 0;
    if (sscanf(command, "one %u %u %u", &a, &b, &c) == 3 && a <= RING_COUNT) {
      run_one(a, b, c);
    } else if (sscanf(command, "two %u %u %u %u", &a, &b, &c, &d) == 4 && a <= RING_COUNT) {
      fresh_ring(d);
      job.burst = a;
      job.window = b;
      job.target = c;
      run_threads(two_thread);
    } else if (sscanf(command, "line %u", &a) == 1) {
      job.rounds = a;
      run_threads(line_thread);
    } else if (sscanf(command, "checksum %u %u %u", &a, &b, &c) == 3 && b <= (1u << 20)) {
      volatile uint32_t sink = 0;
      uint32_t (*const sum)(const uint8_t *, size_t) = a == 0 ? checksum_range : checksum_range_madd;
      const uint64_t begin = now();
      for (uint32_t i = 0; i < c; i++) sink += sum(bytes, b);
      printf("{\"ns\":%.4f}\n", (double)(now() - begin) / c);
    } else if (strncmp(command, "contest ", 8) == 0) {
      run_contest(command + 8);
    } else if (sscanf(command, "sum %u", &a) == 1 && a <= (1u << 20)) {
      printf("{\"sum\":%u,\"sum2\":%u}\n", checksum_range(bytes, a), checksum_range_madd(bytes, a));
    } else {
      fail("unknown command");
    }
    fflush(stdout);
  }
  return 0;
}
