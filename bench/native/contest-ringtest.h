/*
 * After the ideas that Linux' tools/virtio/ringtest publishes, in own code: “ring”, whose 16-byte descriptors change owner in
 * place and keep the number of their buffer, and “virtio 0.9”, with available ring, used ring and a free list. One descriptor
 * is handed over at a time by a release store; a full barrier and a comparison with the peer's event index stand behind each
 * batch. Nothing is translated, nothing is distrusted.
 */
#define RT_HARDWARE 1u

struct rt_desc {
  uint16_t flags;
  uint16_t index;
  uint32_t len;
  uint64_t addr;
};

static struct {
  struct rt_desc *ring;
  uint16_t *kick, *call; /* event indexes, each on a line of its own */
  uint32_t size;
  uint32_t notify;
} ringtest;

struct rt_side {
  uint16_t avail, used, published;
  uint32_t free;
  uint32_t signals;
  uint64_t cookies[CONTEST_MAX_SIZE];
};
static struct rt_side *ringtest_north, *ringtest_south;

static inline void rt_signal(struct rt_side *side, uint16_t *event, uint16_t to) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (passed(__atomic_load_n(event, __ATOMIC_RELAXED), side->published, to)) side->signals++;
  side->published = to;
}

static int ringtest_post(uint32_t n) {
  struct rt_side *const side = ringtest_north;
  if (side->free < n) return 0;
  for (uint32_t i = 0; i < n; i++) {
    struct rt_desc *desc = &ringtest.ring[side->avail++ & (ringtest.size - 1)];
    desc->addr = BUFFERS + i * BUFFER_SIZE;
    desc->len = FRAME_LENGTH;
    side->cookies[desc->index] = i;
    __atomic_store_n(&desc->flags, RT_HARDWARE, __ATOMIC_RELEASE);
  }
  side->free -= n;
  if (ringtest.notify) rt_signal(side, ringtest.kick, side->avail);
  return (int)n;
}

static int ringtest_serve(uint32_t n) {
  struct rt_side *const side = ringtest_south;
  uint32_t found = 0;
  for (; found < n; found++) {
    struct rt_desc *desc = &ringtest.ring[side->used & (ringtest.size - 1)];
    if (__atomic_load_n(&desc->flags, __ATOMIC_ACQUIRE) != RT_HARDWARE) break;
    desc->len--;
    __atomic_store_n(&desc->flags, 0, __ATOMIC_RELEASE);
    side->used++;
  }
  if (found != 0 && ringtest.notify) rt_signal(side, ringtest.call, side->used);
  return (int)found;
}

static int ringtest_reap(uint32_t n) {
  struct rt_side *const side = ringtest_north;
  uint64_t seen = 0;
  uint32_t found = 0;
  for (; found < n && side->free != ringtest.size; found++) {
    struct rt_desc *desc = &ringtest.ring[side->used & (ringtest.size - 1)];
    if (__atomic_load_n(&desc->flags, __ATOMIC_ACQUIRE) == RT_HARDWARE) break;
    seen += side->cookies[desc->index & (ringtest.size - 1)] + desc->len;
    side->used++;
    side->free++;
  }
  __asm__ volatile("" : : "r"(seen));
  return (int)found;
}

static void ringtest_fresh(uint32_t size, uint32_t notify) {
  if (ringtest.ring == NULL) {
    ringtest.ring = aligned(CONTEST_MAX_SIZE * sizeof(struct rt_desc));
    ringtest.kick = aligned(64);
    ringtest.call = aligned(64);
    ringtest_north = aligned(sizeof *ringtest_north);
    ringtest_south = aligned(sizeof *ringtest_south);
  }
  ringtest.size = size;
  ringtest.notify = notify;
  for (uint32_t i = 0; i < size; i++) ringtest.ring[i] = (struct rt_desc){.index = (uint16_t)i};
  *ringtest.kick = *ringtest.call = 0x8000; /* nobody sleeps */
  memset(ringtest_north, 0, sizeof *ringtest_north);
  memset(ringtest_south, 0, sizeof *ringtest_south);
  ringtest_north->free = size;
}

static uint32_t ringtest_signals(uint32_t side) {
  return side == 0 ? ringtest_north->signals : ringtest_south->signals;
}

DEFINE_LOOPS(ringtest)

/* ---- virtio 0.9 ---- */

static struct {
  struct split_desc *desc;
  uint16_t *avail;
  uint16_t *used;
  uint32_t size;
  uint32_t notify;
} v09;

struct v09_side {
  uint16_t avail, used, published;
  uint16_t free_head;
  uint32_t free;
  uint32_t signals;
  uint64_t cookies[CONTEST_MAX_SIZE];
};
static struct v09_side *v09_north, *v09_south;

static inline void v09_signal(struct v09_side *side, uint16_t *event, uint16_t to) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (passed(__atomic_load_n(event, __ATOMIC_RELAXED), side->published, to)) side->signals++;
  side->published = to;
}

static int v09_post(uint32_t n) {
  struct v09_side *const side = v09_north;
  const uint32_t mask = v09.size - 1;
  if (side->free < n) return 0;
  for (uint32_t i = 0; i < n; i++) {
    const uint16_t head = side->free_head;
    struct split_desc *desc = &v09.desc[head];
    desc->flags = 0;
    desc->addr = BUFFERS + i * BUFFER_SIZE;
    desc->len = FRAME_LENGTH;
    side->free_head = desc->next;
    side->cookies[head] = i;
    v09.avail[2 + (side->avail & mask)] = head;
    __atomic_store_n(&v09.avail[1], ++side->avail, __ATOMIC_RELEASE);
  }
  side->free -= n;
  if (v09.notify) v09_signal(side, v09.used + 2 + 4 * v09.size, side->avail);
  return (int)n;
}

static int v09_serve(uint32_t n) {
  struct v09_side *const side = v09_south;
  const uint32_t mask = v09.size - 1;
  uint32_t found = 0;
  for (; found < n; found++) {
    if (__atomic_load_n(&v09.avail[1], __ATOMIC_ACQUIRE) == side->avail) break;
    const uint16_t head = v09.avail[2 + (side->avail++ & mask)] & (uint16_t)mask;
    struct split_used *element = (struct split_used *)(v09.used + 2) + (side->used & mask);
    element->id = head;
    element->len = v09.desc[head].len - 1;
    __atomic_store_n(&v09.used[1], ++side->used, __ATOMIC_RELEASE);
  }
  if (found != 0 && v09.notify) v09_signal(side, v09.avail + 2 + v09.size, side->used);
  return (int)found;
}

static int v09_reap(uint32_t n) {
  struct v09_side *const side = v09_north;
  const uint32_t mask = v09.size - 1;
  uint64_t seen = 0;
  uint32_t found = 0;
  for (; found < n; found++) {
    if (__atomic_load_n(&v09.used[1], __ATOMIC_ACQUIRE) == side->used) break;
    const struct split_used *element = (struct split_used *)(v09.used + 2) + (side->used++ & mask);
    const uint16_t head = (uint16_t)(element->id & mask);
    seen += side->cookies[head] + element->len;
    v09.desc[head].next = side->free_head;
    side->free_head = head;
    side->free++;
  }
  __asm__ volatile("" : : "r"(seen));
  return (int)found;
}

static void v09_fresh(uint32_t size, uint32_t notify) {
  if (v09.desc == NULL) {
    v09.desc = aligned(CONTEST_MAX_SIZE * sizeof(struct split_desc));
    v09.avail = aligned(6 + CONTEST_MAX_SIZE * 2);
    v09.used = aligned(6 + CONTEST_MAX_SIZE * 8);
    v09_north = aligned(sizeof *v09_north);
    v09_south = aligned(sizeof *v09_south);
  }
  v09.size = size;
  v09.notify = notify;
  for (uint32_t i = 0; i < size; i++) v09.desc[i] = (struct split_desc){.next = (uint16_t)(i + 1)};
  memset(v09.avail, 0, 6 + size * 2);
  memset(v09.used, 0, 6 + size * 8);
  v09.avail[2 + size] = v09.used[2 + 4 * size] = 0x8000; /* nobody sleeps */
  memset(v09_north, 0, sizeof *v09_north);
  memset(v09_south, 0, sizeof *v09_south);
  v09_north->free = size;
}

static uint32_t v09_signals(uint32_t side) { return side == 0 ? v09_north->signals : v09_south->signals; }

DEFINE_LOOPS(v09)
