/*
 * The loops of a contestant, made of its three functions, so that the compiler sees through all of it:
 *   int NAME_post(n)    north: describes and hands over up to n; number
 *   int NAME_serve(n)   south: reads, checks and completes up to n; number, negative: what it read was wrong
 *   int NAME_reap(n)    north: takes back what is there, n at most but for a batch that was begun; number, or negative
 */
#include "contest.h"
#include "threads.h"

#define DEFINE_LOOPS(NAME)                                                                 \
  static int NAME##_rounds(uint32_t burst, uint32_t rounds) {                              \
    for (uint32_t i = 0; i < rounds; i++) {                                                \
      if (NAME##_post(burst) != (int)burst || NAME##_serve(burst) != (int)burst) return -1; \
      if (NAME##_reap(burst) != (int)burst) return -1;                                     \
    }                                                                                      \
    return 0;                                                                              \
  }                                                                                        \
  static int NAME##_request(uint32_t burst, uint32_t window, uint32_t target) {            \
    uint32_t posted = 0, reaped = 0, left = POLL_LIMIT;                                    \
    while (reaped != target) {                                                             \
      int moved = 0;                                                                       \
      const uint32_t wanted = target - posted < burst ? target - posted : burst;           \
      if (wanted != 0 && posted - reaped + wanted <= window) {                             \
        moved = NAME##_post(wanted);                                                       \
        if (moved > 0) posted += (uint32_t)moved;                                          \
      }                                                                                    \
      if (moved == 0) {                                                                    \
        moved = NAME##_reap(burst);                                                        \
        if (moved > 0) reaped += (uint32_t)moved;                                          \
      }                                                                                    \
      left = moved > 0 ? POLL_LIMIT : left - 1;                                            \
      if (moved < 0 || left == 0) return -1;                                               \
    }                                                                                      \
    return 0;                                                                              \
  }                                                                                        \
  static int NAME##_respond(uint32_t burst, uint32_t target) {                             \
    uint32_t finished = 0, left = POLL_LIMIT;                                              \
    while (finished != target) {                                                           \
      const int moved = NAME##_serve(burst);                                               \
      if (moved > 0) finished += (uint32_t)moved;                                          \
      left = moved > 0 ? POLL_LIMIT : left - 1;                                            \
      if (moved < 0 || left == 0) return -1;                                               \
    }                                                                                      \
    return 0;                                                                              \
  }
