/* See contest.h. Each contestant is a header, so that its loops are compiled together with what they call. */
#define _GNU_SOURCE
#include "contest.h"

#include <stdio.h>
#include <stdlib.h>

/* in this order: the later ones use what the earlier ones declare */
#include "contest-virtqueues.h"
#include "contest-ringtest.h"
#include "contest-ioq.h"

#define LOOPS(NAME) NAME##_rounds, NAME##_request, NAME##_respond, NAME##_signals
#define old_signals ioq_signals

static const struct contestant contestants[] = {
    {"ioq", ioq_fresh, LOOPS(ioq)},
    {"lazy", lazy_fresh, LOOPS(ioq)},
    {"2009", old_fresh, LOOPS(old)},
    {"split", split_fresh, LOOPS(split)},
    {"packed", packed_fresh, LOOPS(packed)},
    {"ringtest", ringtest_fresh, LOOPS(ringtest)},
    {"virtio09", v09_fresh, LOOPS(v09)},
};

static struct {
  const struct contestant *who;
  bool trips;
  uint32_t burst, items, size;
  double before, after, ns;
  double times[CONTEST_MAX_TRIPS];
} contest;

static int north(uint32_t target) {
  return contest.who->request(contest.burst, contest.trips ? 1 : contest.size, target);
}

static int south(uint32_t target) { return contest.who->respond(contest.burst, target); }

static void time_trips(void) {
  uint64_t before = now();
  for (uint32_t i = 0; i < contest.items; i++) {
    if (north(1) < 0) {
      give_up();
      return;
    }
    const uint64_t after = now();
    contest.times[i] = (double)(after - before);
    before = after;
  }
}

static void contest_side(uint32_t side) {
  const double before = probe(side, PROBE_ROUNDS);
  meet();
  const uint64_t begin = now();
  if ((side == 0 ? north(contest.items) : south(contest.items)) < 0) give_up();
  if (side == 0) {
    contest.ns = (double)(now() - begin) / contest.items;
    contest.before = before;
  }
  if (contest.trips) {
    meet();
    if (side == 0)
      time_trips();
    else if (south(contest.items) < 0)
      give_up();
  }
  const double after = probe(side, PROBE_ROUNDS);
  if (side == 0) contest.after = after;
}

static int by_size(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double quantile(double q) { return contest.times[(uint32_t)(q * (contest.items - 1))]; }

void run_contest(const char *command) {
  char name[16], what[16];
  uint32_t notify = 0;
  if (sscanf(command, "%15s %15s %u %u %u %u", name, what, &contest.burst, &contest.items, &contest.size, &notify) != 6) {
    fail("contest WHO WHAT BURST ITEMS SIZE NOTIFY");
    return;
  }
  contest.who = NULL;
  for (size_t i = 0; i < sizeof contestants / sizeof *contestants; i++)
    if (strcmp(contestants[i].name, name) == 0) contest.who = &contestants[i];
  contest.trips = strcmp(what, "trips") == 0;
  const bool one = strcmp(what, "one") == 0;
  const bool power = contest.size != 0 && (contest.size & (contest.size - 1)) == 0;
  if (contest.who == NULL || !power || contest.size > CONTEST_MAX_SIZE || contest.burst == 0 ||
      contest.burst > CONTEST_MAX_BURST || contest.burst > contest.size || contest.items == 0 ||
      (contest.trips && contest.items > CONTEST_MAX_TRIPS)) {
    fail("no such contestant, or numbers that it cannot do");
    return;
  }
  contest.who->fresh(contest.size, notify);
  if (one) {
    const uint32_t rounds = contest.items / contest.burst;
    const uint64_t begin = now();
    if (contest.who->rounds(contest.burst, rounds) < 0)
      fail("the ring is stuck");
    else
      printf("{\"ns\":%.4f}\n", (double)(now() - begin) / ((double)rounds * contest.burst));
    return;
  }
  if (!run_pair(contest_side)) return;
  printf("{\"ns\":%.4f,\"before\":%.2f,\"after\":%.2f", contest.ns, contest.before, contest.after);
  if (notify)
    printf(",\"doorbells\":%.4f,\"interrupts\":%.4f", contest.who->signals(0) * 1000.0 / contest.items,
           contest.who->signals(1) * 1000.0 / contest.items);
  if (contest.trips) {
    qsort(contest.times, contest.items, sizeof(double), by_size);
    printf(",\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f", quantile(0.5), quantile(0.9), quantile(0.99),
           quantile(0.999));
  }
  printf("}\n");
}
