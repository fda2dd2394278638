/*
 * IOQ: the engine's algorithm (ring.c), and what was done with the same bytes in 2009, after docs/abi/ioq.md 5 and 7, with
 * the store and load fences of the original where it has them.
 */
#include "ring.h"

struct ioq_side {
  struct endpoint endpoint;
  uint32_t signals;
  _Alignas(64) struct entry table[CONTEST_MAX_BURST];
};

static struct {
  char *segment;
  struct ring *ring;
  struct regions regions;
  struct ioq_side *north, *south;
  uint32_t signal;
} ioq;

static void ioq_format(uint32_t size, uint32_t notify) {
  if (ioq.segment == NULL) {
    ioq.segment = aligned(64 + sizeof(struct ring) + CONTEST_MAX_SIZE * sizeof(struct descriptor));
    ioq.north = aligned(sizeof *ioq.north);
    ioq.south = aligned(sizeof *ioq.south);
    ioq.regions.count = 1;
    ioq.regions.entry[0] = (struct region){.gpa = MEMORY_START, .length = MEMORY_LENGTH, .address = 0x420000};
  }
  ioq.ring = (struct ring *)(ioq.segment + 8);
  ring_format(ioq.ring, size);
  ioq.signal = notify ? BURST_SIGNAL : 0;
  for (int i = 0; i < 2; i++) {
    ioq.ring->signal.irq[i].enabled = 1;
    ioq.ring->signal.irq[i].pending = 1;
  }
  ioq.north->signals = ioq.south->signals = 0;
}

static void ioq_bind(uint32_t extensions) {
  ring_bind(&ioq.north->endpoint, ioq.ring, &ioq.regions, NORTH, OWNS_VALID_HEAD | OWNS_VALID_TAIL | OWNS_INUSE_TAIL,
            extensions);
  ring_bind(&ioq.south->endpoint, ioq.ring, &ioq.regions, SOUTH, OWNS_INUSE_HEAD, extensions);
}

static void ioq_fresh(uint32_t size, uint32_t notify) {
  ioq_format(size, notify);
  ioq_bind(0);
}

static void lazy_fresh(uint32_t size, uint32_t notify) {
  ioq_format(size, notify);
  ioq_bind(EXT_LAZY);
}

static int ioq_post(uint32_t n) {
  struct ioq_side *const side = ioq.north;
  const int granted = push_reserve(&side->endpoint, IDX_BOTH, NULL, n, 0);
  if (granted != (int)n) return granted < 0 ? granted : 0;
  for (uint32_t i = 0; i < n; i++) {
    side->table[i].gpa = BUFFERS + i * BUFFER_SIZE;
    side->table[i].length = FRAME_LENGTH;
    side->table[i].cookie = i;
  }
  const int result = push_commit(&side->endpoint, IDX_BOTH, side->table, n,
                                 BURST_POINTER | BURST_COOKIE | BURST_LENGTH | BURST_SET_VALID | ioq.signal);
  if (result < 0) return result;
  side->signals += (uint32_t)result;
  return (int)n;
}

static int ioq_serve(uint32_t n) {
  struct ioq_side *const side = ioq.south;
  const int granted = pop_peek(&side->endpoint, IDX_INUSE, side->table, n, BURST_TRANSLATE);
  if (granted <= 0) return granted;
  const int result = pop_release(&side->endpoint, IDX_INUSE, side->table, (uint32_t)granted, ioq.signal);
  if (result < 0) return result;
  side->signals += (uint32_t)result;
  return granted;
}

static int ioq_reap(uint32_t n) {
  struct ioq_side *const side = ioq.north;
  const int granted = pop_peek(&side->endpoint, IDX_VALID, side->table, n, 0);
  if (granted <= 0) return granted;
  const uint32_t flags = BURST_NOFLIP | BURST_CLEAR_VALID;
  const int result = pop_release(&side->endpoint, IDX_VALID, side->table, (uint32_t)granted, flags);
  return result < 0 ? result : granted;
}

static uint32_t ioq_signals(uint32_t side) { return side == 0 ? ioq.north->signals : ioq.south->signals; }

DEFINE_LOOPS(ioq)

/* ---- as in 2009 ---- */

static inline void write_fence(void) { __builtin_ia32_sfence(); }
static inline void read_fence(void) { __builtin_ia32_lfence(); }
#define SHARED(field) (*(volatile __typeof__(field) *)&(field))

static inline uint32_t old_after(uint32_t position) { return position + 1 == ioq.ring->count ? 0 : position + 1; }

static uint32_t old_advance_tail(struct index *index) {
  const uint32_t tail = old_after(SHARED(index->tail));
  if (tail == SHARED(index->head)) {
    read_fence();
    SHARED(index->full) = 1;
    write_fence();
  }
  SHARED(index->tail) = tail;
  return tail;
}

static void old_inject(struct ioq_side *side, uint32_t locale) {
  if (!ioq.signal) return;
  struct irq *const remote = &ioq.ring->signal.irq[1 - locale];
  SHARED(remote->dirty) = 1;
  write_fence();
  if (!SHARED(remote->enabled) || SHARED(remote->pending)) return;
  SHARED(remote->pending) = 1;
  write_fence();
  side->signals++;
}

static int old_pop(struct index *index, uint32_t position, struct descriptor *desc, int locale, bool flip) {
  if (position != SHARED(index->head) || SHARED(desc->sown) != locale) return -1;
  SHARED(index->head) = old_after(position);
  write_fence();
  if (SHARED(index->full)) {
    SHARED(index->full) = 0;
    write_fence();
  }
  if (flip) {
    SHARED(desc->sown) = (uint8_t)(1 - locale);
    write_fence();
  }
  return 1;
}

static int old_post(uint32_t n) {
  struct index *const valid = &ioq.ring->idx[IDX_VALID], *const inuse = &ioq.ring->idx[IDX_INUSE];
  for (uint32_t i = 0; i < n; i++) {
    if (SHARED(valid->full) && SHARED(valid->head) == SHARED(valid->tail)) return (int)i;
    const uint32_t position = SHARED(valid->tail);
    struct descriptor *const desc = &ioq.ring->desc[position];
    if (SHARED(desc->sown) != NORTH) return (int)i;
    desc->cookie = i;
    desc->ptr = BUFFERS + i * BUFFER_SIZE;
    desc->len = FRAME_LENGTH;
    desc->valid = 1;
    if (position != SHARED(valid->tail)) return -1;
    const uint32_t tail = old_advance_tail(valid);
    if (old_advance_tail(inuse) != tail) return -1;
    write_fence();
    SHARED(desc->sown) = SOUTH;
    write_fence();
    old_inject(ioq.north, NORTH);
  }
  return (int)n;
}

static int old_serve(uint32_t n) {
  struct index *const inuse = &ioq.ring->idx[IDX_INUSE];
  uint32_t position = SHARED(inuse->head), done = 0;
  for (; done < n; done++) {
    struct descriptor *const desc = &ioq.ring->desc[position];
    if (SHARED(desc->sown) != SOUTH) break;
    if (!check((struct copied *)&ioq.south->table[done], desc->ptr, (uint32_t)desc->len, position)) return -1;
    if (old_pop(inuse, position, desc, SOUTH, true) < 0) return -1;
    position = old_after(position);
  }
  if (done != 0) old_inject(ioq.south, SOUTH);
  return (int)done;
}

static int old_reap(uint32_t n) {
  struct index *const valid = &ioq.ring->idx[IDX_VALID];
  uint32_t position = SHARED(valid->head), done = 0;
  for (; done < n; done++) {
    struct descriptor *const desc = &ioq.ring->desc[position];
    if (!desc->valid || SHARED(desc->sown) != NORTH) break;
    desc->valid = 0;
    if (old_pop(valid, position, desc, NORTH, false) < 0) return -1;
    position = old_after(position);
  }
  return (int)done;
}

static void old_fresh(uint32_t size, uint32_t notify) { ioq_format(size, notify); }

DEFINE_LOOPS(old)
