/*
 * Virtqueues in C with every help: private positions, event index, in-order use (one used element stands for a batch), one
 * publication per burst. Buffers are bounds-checked and copied to a table, as IOQ's are. Own code after virtio 1.2, 2.7, 2.8.
 */
#include <stdbool.h>
#include <string.h>

#include "contest-loops.h"

#define BUFFERS 0x100000u
#define BUFFER_SIZE 2048u
#define FRAME_LENGTH 1514u
#define MEMORY_START 0x10000u
#define MEMORY_LENGTH (16u << 20)

struct copied {
  uint64_t gpa;
  uint32_t length;
  uint32_t address;
  uint32_t id;
  uint32_t pad[11];
};

/* A buffer as the device sees it; false outside of the guest's memory. */
static inline bool check(struct copied *copy, uint64_t gpa, uint32_t length, uint32_t id) {
  const uint64_t offset = gpa - MEMORY_START;
  if (length == 0 || offset >= MEMORY_LENGTH || length > MEMORY_LENGTH - offset) return false;
  *copy = (struct copied){.gpa = gpa, .length = length, .address = 0x420000u + (uint32_t)offset, .id = id};
  return true;
}

/* Whether an index that moved from `from` to `to` passed `event`. */
static inline bool passed(uint16_t event, uint16_t from, uint16_t to) {
  return (uint16_t)(to - event - 1) < (uint16_t)(to - from);
}

/* ---- split ---- */

struct split_desc {
  uint64_t addr;
  uint32_t len;
  uint16_t flags;
  uint16_t next;
};

struct split_used {
  uint32_t id;
  uint32_t len;
};

static struct {
  struct split_desc *desc;
  uint16_t *avail; /* flags, idx, ring[size], used_event */
  uint16_t *used;  /* flags, idx; elements behind; avail_event behind them */
  uint32_t size;
  uint32_t notify;
} split;

struct split_side {
  uint16_t avail;
  uint16_t used;
  uint16_t peer; /* the other's index, as last read */
  uint32_t signals;
  uint64_t cookies[CONTEST_MAX_SIZE];
  struct copied table[CONTEST_MAX_BURST];
};
static struct split_side *split_north, *split_south;

static inline struct split_used *split_elements(void) { return (struct split_used *)(split.used + 2); }
static inline uint16_t *split_avail_event(void) { return split.used + 2 + 4 * split.size; }
static inline uint16_t *split_used_event(void) { return split.avail + 2 + split.size; }

static inline void split_publish(struct split_side *side, uint16_t *index, uint16_t from, uint16_t to, uint16_t *event) {
  if (!split.notify) {
    __atomic_store_n(index, to, __ATOMIC_RELEASE);
    return;
  }
  __atomic_store_n(index, to, __ATOMIC_SEQ_CST);
  if (passed(__atomic_load_n(event, __ATOMIC_ACQUIRE), from, to)) side->signals++;
}

static int split_post(uint32_t n) {
  struct split_side *const side = split_north;
  const uint32_t mask = split.size - 1;
  if (split.size - (uint16_t)(side->avail - side->used) < n) return 0;
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t slot = (side->avail + i) & mask;
    split.desc[slot] = (struct split_desc){.addr = BUFFERS + i * BUFFER_SIZE, .len = FRAME_LENGTH};
    split.avail[2 + slot] = (uint16_t)slot;
    side->cookies[slot] = i;
  }
  const uint16_t from = side->avail;
  side->avail = (uint16_t)(from + n);
  split_publish(side, &split.avail[1], from, side->avail, split_avail_event());
  return (int)n;
}

static int split_serve(uint32_t n) {
  struct split_side *const side = split_south;
  const uint32_t mask = split.size - 1;
  if ((uint16_t)(side->peer - side->avail) < n) side->peer = __atomic_load_n(&split.avail[1], __ATOMIC_ACQUIRE);
  uint32_t found = (uint16_t)(side->peer - side->avail);
  if (found == 0) return 0;
  if (found > split.size) return -1;
  if (found > n) found = n;
  for (uint32_t i = 0; i < found; i++) {
    const uint32_t head = split.avail[2 + ((side->avail + i) & mask)];
    if (head > mask) return -1;
    const struct split_desc *desc = &split.desc[head];
    if (!check(&side->table[i], desc->addr, desc->len, head)) return -1;
  }
  side->avail = (uint16_t)(side->avail + found);
  split_elements()[side->used & mask] = (struct split_used){.id = side->table[found - 1].id};
  const uint16_t from = side->used;
  side->used = (uint16_t)(from + found);
  split_publish(side, &split.used[1], from, side->used, split_used_event());
  return (int)found;
}

static int split_reap(uint32_t n) {
  struct split_side *const side = split_north;
  const uint32_t mask = split.size - 1;
  (void)n;
  if (side->peer == side->used) side->peer = __atomic_load_n(&split.used[1], __ATOMIC_ACQUIRE);
  if (side->peer == side->used) return 0;
  const uint32_t last = split_elements()[side->used & mask].id;
  if (last > mask) return -1;
  uint64_t seen = 0;
  uint32_t found = 0;
  do {
    seen += side->cookies[(side->used + found) & mask];
  } while (((side->used + found++) & mask) != last);
  __asm__ volatile("" : : "r"(seen));
  side->used = (uint16_t)(side->used + found);
  return (int)found;
}

static void split_fresh(uint32_t size, uint32_t notify) {
  if (split.desc == NULL) {
    split.desc = aligned(CONTEST_MAX_SIZE * sizeof(struct split_desc));
    split.avail = aligned(6 + CONTEST_MAX_SIZE * 2);
    split.used = aligned(6 + CONTEST_MAX_SIZE * 8);
    split_north = aligned(sizeof *split_north);
    split_south = aligned(sizeof *split_south);
  }
  split.size = size;
  split.notify = notify;
  memset(split.avail, 0, 6 + size * 2);
  memset(split.used, 0, 6 + size * 8);
  memset(split_north, 0, sizeof *split_north);
  memset(split_south, 0, sizeof *split_south);
}

static uint32_t split_signals(uint32_t side) { return side == 0 ? split_north->signals : split_south->signals; }

DEFINE_LOOPS(split)

/* ---- packed ---- */

#define PACKED_AVAIL 0x80u
#define PACKED_USED 0x8000u
#define PACKED_DISABLE 1u

struct packed_desc {
  uint64_t addr;
  uint32_t len;
  uint16_t id;
  uint16_t flags;
};

static struct {
  struct packed_desc *ring;
  uint32_t *driver_event; /* each on a line of its own */
  uint32_t *device_event;
  uint32_t size;
  uint32_t notify;
} packed;

struct packed_side {
  uint32_t avail, used;
  uint32_t avail_wrap, used_wrap;
  uint32_t flying;
  uint32_t signals;
  uint64_t cookies[CONTEST_MAX_SIZE];
  struct copied table[CONTEST_MAX_BURST];
};
static struct packed_side *packed_north, *packed_south;

static inline void packed_publish(struct packed_side *side, uint16_t *flags, uint16_t value, uint32_t *event) {
  if (!packed.notify) {
    __atomic_store_n(flags, value, __ATOMIC_RELEASE);
    return;
  }
  __atomic_store_n(flags, value, __ATOMIC_SEQ_CST);
  if ((__atomic_load_n(event, __ATOMIC_ACQUIRE) >> 16) != PACKED_DISABLE) side->signals++;
}

static int packed_post(uint32_t n) {
  struct packed_side *const side = packed_north;
  if (packed.size - side->flying < n) return 0;
  const uint32_t first = side->avail;
  const uint16_t first_flags = side->avail_wrap ? PACKED_AVAIL : PACKED_USED;
  for (uint32_t i = 0; i < n; i++) {
    struct packed_desc *desc = &packed.ring[side->avail];
    desc->addr = BUFFERS + i * BUFFER_SIZE;
    desc->len = FRAME_LENGTH;
    desc->id = (uint16_t)side->avail;
    if (i != 0) desc->flags = side->avail_wrap ? PACKED_AVAIL : PACKED_USED;
    side->cookies[side->avail] = i;
    if (++side->avail == packed.size) {
      side->avail = 0;
      side->avail_wrap ^= 1;
    }
  }
  side->flying += n;
  packed_publish(side, &packed.ring[first].flags, first_flags, packed.device_event);
  return (int)n;
}

static int packed_serve(uint32_t n) {
  struct packed_side *const side = packed_south;
  uint32_t found = 0;
  while (found < n) {
    struct packed_desc *desc = &packed.ring[side->avail];
    const uint16_t flags = __atomic_load_n(&desc->flags, __ATOMIC_ACQUIRE);
    if ((flags & (PACKED_AVAIL | PACKED_USED)) != (side->avail_wrap ? PACKED_AVAIL : PACKED_USED)) break;
    if (!check(&side->table[found], desc->addr, desc->len, desc->id)) return -1;
    found++;
    if (++side->avail == packed.size) {
      side->avail = 0;
      side->avail_wrap ^= 1;
    }
  }
  if (found == 0) return 0;
  struct packed_desc *desc = &packed.ring[side->used];
  desc->id = (uint16_t)side->table[found - 1].id;
  desc->len = 0;
  const uint16_t flags = side->used_wrap ? PACKED_AVAIL | PACKED_USED : 0;
  side->used += found;
  uint16_t *const word = &desc->flags;
  if (side->used >= packed.size) {
    side->used -= packed.size;
    side->used_wrap ^= 1;
  }
  packed_publish(side, word, flags, packed.driver_event);
  return (int)found;
}

static int packed_reap(uint32_t n) {
  struct packed_side *const side = packed_north;
  (void)n;
  if (side->flying == 0) return 0;
  struct packed_desc *desc = &packed.ring[side->used];
  const uint16_t flags = __atomic_load_n(&desc->flags, __ATOMIC_ACQUIRE);
  if ((flags & (PACKED_AVAIL | PACKED_USED)) != (side->used_wrap ? PACKED_AVAIL | PACKED_USED : 0)) return 0;
  const uint32_t last = desc->id;
  if (last >= packed.size) return -1;
  uint64_t seen = 0;
  uint32_t found = 0;
  for (bool more = true; more; found++) {
    if (found == side->flying) return -1;
    more = side->used != last;
    seen += side->cookies[side->used];
    if (++side->used == packed.size) {
      side->used = 0;
      side->used_wrap ^= 1;
    }
  }
  __asm__ volatile("" : : "r"(seen));
  side->flying -= found;
  return (int)found;
}

static void packed_fresh(uint32_t size, uint32_t notify) {
  if (packed.ring == NULL) {
    packed.ring = aligned(CONTEST_MAX_SIZE * sizeof(struct packed_desc));
    packed.driver_event = aligned(64);
    packed.device_event = aligned(64);
    packed_north = aligned(sizeof *packed_north);
    packed_south = aligned(sizeof *packed_south);
  }
  packed.size = size;
  packed.notify = notify;
  memset(packed.ring, 0, size * sizeof(struct packed_desc));
  *packed.driver_event = PACKED_DISABLE << 16;
  *packed.device_event = PACKED_DISABLE << 16;
  memset(packed_north, 0, sizeof *packed_north);
  memset(packed_south, 0, sizeof *packed_south);
  packed_north->avail_wrap = packed_north->used_wrap = 1;
  packed_south->avail_wrap = packed_south->used_wrap = 1;
}

static uint32_t packed_signals(uint32_t side) { return side == 0 ? packed_north->signals : packed_south->signals; }

DEFINE_LOOPS(packed)
